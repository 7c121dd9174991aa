//! `dirql explore` and `dirql replay`: the search of a driver's interleavings, and one of them again.

use dirql_explore::exec;
use dirql_explore::schedule::{Act, Schedule, subject};
use dirql_explore::search::{Bounds, Execution, Failure, Found, Search, Tally};
use dirql_explore::shrink::shrink;
use dirql_kernel::kernel::Context;
use dirql_kernel::stop::Stop;
use dirql_kernel::system::{Ended, System};
use dirql_machine::Script;
use serde::Serialize;

use crate::lab::Lab;
use crate::problem::InputError;
use crate::report::{Finding, RunReport, RunStory, Verdict};
use crate::run::{Bench, RunOptions, judge, prepare};

/// What an exploration is asked for.
#[derive(Clone, Debug)]
pub struct ExploreOptions {
    /// The driver, its lab and what overrides it.
    pub run: RunOptions,
    /// Most deviations from the default policy, those of the hardware apart.
    pub preemptions: Option<u32>,
    /// Most events of the hardware (interrupts of its own, time, choices) that are moved from where the default policy
    /// has them.
    pub arrivals: Option<u32>,
    /// Most executions.
    pub schedules: u64,
    /// Executions at a time. It does not change what is found.
    pub jobs: usize,
    /// Go on after a finding.
    pub keep_going: bool,
    /// Deviate at every instruction.
    pub every: bool,
    /// Leave out executions equivalent to one that was run.
    pub reduce: bool,
}

/// The bounds of a search that is given none.
const BOUND: u32 = 2;
/// Most executions spent on the bounds behind those.
const DEEPER: u64 = 20_000;

/// How far an exploration came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExploreStats {
    /// Executions run.
    pub executions: u64,
    /// Those of them that differ in the order of what conflicts.
    pub inequivalent: u64,
    /// Granules (8 bytes of memory) that more than one context uses.
    pub shared_granules: usize,
    /// Steps run, on all processors of all executions.
    pub steps: u64,
}

/// What an exploration came to.
#[derive(Clone, Debug)]
pub struct ExploreReport {
    /// How it ended.
    pub verdict: Verdict,
    /// The findings, each with its shrunk schedule.
    pub findings: Vec<Finding>,
    /// The tokens of the findings, in their order.
    pub tokens: Vec<String>,
    /// Every execution within the bounds was run.
    pub exhausted: bool,
    /// Its bound on departures, those of the hardware apart.
    pub preemptions: u32,
    /// Its bound on departures of the hardware.
    pub arrivals: u32,
    /// Executions run beyond these bounds, which were not searched whole.
    pub deeper: Option<u64>,
    /// How far it came.
    pub stats: ExploreStats,
    /// The bad input, with its excerpts, if that is what ended the command.
    pub input: Option<InputError>,
}

impl ExploreReport {
    fn failed(report: RunReport) -> Self {
        Self {
            verdict: report.verdict,
            findings: report.findings,
            tokens: vec![],
            exhausted: false,
            preemptions: 0,
            arrivals: 0,
            deeper: None,
            stats: ExploreStats::default(),
            input: report.input,
        }
    }

    /// The report as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "dirql": env!("CARGO_PKG_VERSION"),
            "verdict": self.verdict,
            "findings": self.findings,
            "exhausted": self.exhausted,
            "deeper": self.deeper,
            "bounds": { "preemptions": self.preemptions, "arrivals": self.arrivals },
            "stats": self.stats,
        })
    }

    /// The report as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        if let Some(error) = &self.input {
            return format!("{error}\n");
        }
        let mut out = String::new();
        for f in &self.findings {
            out += &format!("{}: {}\n", f.rule, f.message);
            for d in &f.deviations {
                out += &format!("    {d}\n");
            }
            if let Some(replay) = &f.replay {
                out += &format!("  {replay}\n");
            }
        }
        let s = &self.stats;
        let ran = format!(
            "{} executions, {} of them inequivalent; {} shared granules",
            s.executions, s.inequivalent, s.shared_granules
        );
        let bounds = format!(
            "at most {} preemption{} and {} moved hardware event{}",
            self.preemptions,
            plural(self.preemptions),
            self.arrivals,
            plural(self.arrivals)
        );
        out += &match (self.verdict, self.exhausted) {
            (Verdict::Ok, true) => {
                let deeper = self.deeper.map_or_else(String::new, |n| {
                    format!("; nor in {n} executions of the next bounds, which were not searched whole")
                });
                format!(
                    "ok: all {} inequivalent executions with {bounds}: no finding{deeper}\n",
                    s.inequivalent
                )
            }
            (Verdict::Ok, false) => format!("ok: no finding so far, but not all was searched ({ran})\n"),
            (Verdict::Finding, _) => format!(
                "finding: {} finding{} ({ran}, {bounds})\n",
                self.findings.len(),
                plural(self.findings.len() as u32)
            ),
            (Verdict::Missing, _) => format!("missing: needs something that dirql does not have ({ran})\n"),
            (Verdict::Input, _) => String::new(),
            (Verdict::Internal, _) => {
                "internal: a bug in dirql; please report it with the image and lab\n".into()
            }
        };
        out
    }
}

fn plural(n: u32) -> &'static str {
    if n == 1 { "" } else { "s" }
}

/// What tells one failure of a run from another, and whose it is.
fn failures(ended: &Ended, system: &mut System, lab: &Lab) -> Vec<(Verdict, Finding)> {
    let events = system.take_events();
    match ended {
        Ended::Stopped(Stop::BugCheck(b)) => {
            let at = system.kernel.modules.describe(b.rip);
            let name = dirql_abi::bugcheck_name(b.code).map_or(String::new(), |n| format!(" {n}"));
            vec![(
                Verdict::Finding,
                Finding::new("bugcheck", format!("{:#x}{name} at {at}: {}", b.code, settled(&b.reason))),
            )]
        }
        Ended::Stopped(stop) => vec![judge(stop, &system.kernel.modules)],
        Ended::Done => {
            let story = RunStory::fold(&events);
            let (_, found) = crate::run::findings(lab, system, ended, &story);
            let wrong = found.into_iter().filter(|f| f.level == crate::lab::Level::Finding);
            wrong.map(|f| (Verdict::Finding, f)).collect()
        }
    }
}

/// A reason without its addresses: they differ between schedules that fail alike.
fn settled(reason: &str) -> String {
    let mut out = String::new();
    let mut rest = reason;
    while let Some(i) = rest.find("0xffff") {
        let end = rest[i + 2..].find(|c: char| !c.is_ascii_hexdigit()).map_or(rest.len(), |n| i + 2 + n);
        out += &rest[..i];
        out += "...";
        rest = &rest[end..];
    }
    out + rest
}

fn key(finding: &Finding) -> String {
    format!("{}: {}", finding.rule, settled(&finding.message))
}

/// Steps an execution may take: what the default run took, many times over.
fn execution_budget(straight: u64, lab: u64) -> u64 {
    lab.min(straight.saturating_mul(20).saturating_add(200_000))
}

/// Searches the interleavings of a driver in its lab. `progress` is told how it goes and may end it.
pub fn explore(options: &ExploreOptions, mut progress: impl FnMut(&Tally, usize) -> bool) -> ExploreReport {
    let Bench { lab, mut system, digest, .. } = match prepare(&options.run) {
        Ok(booted) => booted,
        Err(report) => return ExploreReport::failed(*report),
    };
    system.machine.set_chooser(Box::<Script>::default());
    let mut straight = system.clone();
    straight.run();
    system.set_budget(execution_budget(straight.steps(), lab.budget));
    let judge = |e: Execution<'_>| -> Vec<Failure> {
        failures(e.ended, e.system, &lab).into_iter().map(|(_, f)| Failure { key: key(&f) }).collect()
    };
    let mut search = |preemptions: u32, arrivals: u32, schedules: u64| {
        let bounds =
            Bounds { preemptions, arrivals, schedules, every: options.every, reduce: options.reduce };
        let search = Search::new(&system, &judge, bounds, options.keep_going, options.jobs);
        search.run(&mut |tally: &Tally, found: &[Found]| progress(tally, found.len()))
    };
    let (mut preemptions, mut arrivals) =
        (options.preemptions.unwrap_or(BOUND), options.arrivals.unwrap_or(BOUND));
    let mut outcome = search(preemptions, arrivals, options.schedules);
    let mut deeper = None;
    let free = options.preemptions.is_none() && options.arrivals.is_none();
    if free && outcome.exhausted && outcome.found.is_empty() {
        // Nothing there: look further, so long as it does not take too long. What was proven stays so.
        let left = options.schedules.saturating_sub(outcome.tally.executions).min(DEEPER);
        let deep = search(BOUND + 1, BOUND + 1, left);
        if deep.exhausted || !deep.found.is_empty() {
            (preemptions, arrivals) = (BOUND + 1, BOUND + 1);
            outcome = deep;
        } else {
            deeper = Some(deep.tally.executions);
        }
    }
    let mut verdict = Verdict::Ok;
    let mut findings = vec![];
    let mut tokens = vec![];
    for found in &outcome.found {
        let schedule = shrink(&system, &judge, &found.schedule, &found.failure);
        let token = named(&options.run, &schedule, digest);
        let mut replayed = system.clone();
        let deviations = tell(&mut replayed, &schedule);
        let Some((whose, mut finding)) =
            again(&system, &schedule, &lab).into_iter().find(|(_, f)| key(f) == found.failure.key)
        else {
            continue;
        };
        verdict = worse(verdict, whose);
        finding.deviations = deviations;
        finding.replay = Some(replay_command(&options.run, &token));
        findings.push(finding);
        tokens.push(token);
    }
    let t = outcome.tally;
    ExploreReport {
        verdict,
        findings,
        tokens,
        exhausted: outcome.exhausted,
        preemptions,
        arrivals,
        deeper,
        stats: ExploreStats {
            executions: t.executions,
            inequivalent: t.distinct,
            shared_granules: t.shared,
            steps: t.steps,
        },
        input: None,
    }
}

/// The verdict of two: a bug of dirql outweighs a finding, and that something lacking.
fn worse(a: Verdict, b: Verdict) -> Verdict {
    let rank = |v: Verdict| match v {
        Verdict::Ok => 0,
        Verdict::Input => 1,
        Verdict::Missing => 2,
        Verdict::Finding => 3,
        Verdict::Internal => 4,
    };
    if rank(a) >= rank(b) { a } else { b }
}

fn again(root: &System, schedule: &Schedule, lab: &Lab) -> Vec<(Verdict, Finding)> {
    let mut system = root.clone();
    match exec::run(&mut system, schedule) {
        Ok(ended) => failures(&ended, &mut system, lab),
        Err(_) => vec![],
    }
}

fn named(run: &RunOptions, schedule: &Schedule, digest: u32) -> String {
    let stem = run.image.file_stem().map_or_else(|| "run".into(), |s| s.to_string_lossy().into_owned());
    format!("{stem}-{}", schedule.token(digest))
}

fn replay_command(run: &RunOptions, token: &str) -> String {
    let mut out = format!("dirql replay {token} {}", run.image.display());
    if let Some(lab) = &run.lab {
        out += &format!(" --lab {}", lab.display());
    }
    if let Some(cpus) = run.cpus {
        out += &format!(" --cpus {cpus}");
    }
    if let Some(budget) = run.budget {
        out += &format!(" --budget {budget}");
    }
    out
}

/// Says each deviation in words, by making it.
fn tell(system: &mut System, schedule: &Schedule) -> Vec<String> {
    let mut out = vec![];
    let mut so_far = vec![];
    for d in &schedule.0 {
        let mut here = system.clone();
        let reached = matches!(exec::lead(&mut here, &Schedule(std::mem::take(&mut so_far))), Ok(None))
            && (here.steps() >= d.at || here.run_until(d.at).is_none());
        let cpu = here.current_cpu();
        let who = match here.kernel.context(cpu) {
            Context::Thread(id) => {
                here.kernel.threads.get(&id).map_or_else(|| format!("thread {id}"), |t| t.name.clone())
            }
            Context::Isr { vector, .. } => format!("the service routine of vector {vector:#x}"),
            Context::Dpc { .. } => "a DPC".into(),
            Context::Idle => "idle".into(),
        };
        let at = here.kernel.modules.describe(here.machine.cpus[cpu].regs.rip);
        let irql = here.machine.cpus[cpu].cr8;
        let place = if reached {
            format!("CPU {cpu} at {at} ({who}, IRQL {irql})")
        } else {
            format!("step {}", d.at)
        };
        out.push(match d.act {
            Act::Switch(to) => format!("{place}: CPU {to} goes on first"),
            Act::Split(to) => format!("{place}: reads, CPU {to} goes on, then it writes"),
            Act::Arrive { device, source, cpu: to } => {
                let name = here
                    .kernel
                    .io
                    .pdos
                    .iter()
                    .find(|p| p.machine.0 == u32::from(device))
                    .map_or_else(|| format!("device {device}"), |p| p.name.clone());
                format!("{place}: {name} raises source {source}, CPU {to} takes it")
            }
            Act::Time { cpu: to } => {
                format!("{place}: time passes until the next timed event, CPU {to} sees to it")
            }
            Act::Quantum => format!("{place}: its quantum ends, another thread goes on"),
            Act::Choose { number, pick } => format!("the hardware's choice {number} is option {pick}"),
        });
        so_far = schedule.0[..out.len()].to_vec();
    }
    out
}

/// What a replay is asked for.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The token, with or without the name before it.
    pub token: String,
    /// The driver, its lab and what overrides it.
    pub run: RunOptions,
}

/// Has the run of a token again.
#[must_use]
pub fn replay(options: &ReplayOptions) -> RunReport {
    let text = options.token.rsplit_once('-').map_or(options.token.as_str(), |(_, t)| t);
    let input = |message: String| RunReport::failed(Verdict::Input, "input", message);
    let (subject, schedule) = match Schedule::from_token(text) {
        Ok(read) => read,
        Err(bad) => return input(format!("{}: {bad}", options.token)),
    };
    let mut bench = match prepare(&options.run) {
        Ok(bench) => bench,
        Err(report) => return *report,
    };
    if subject != bench.digest {
        return input(format!(
            "{}: the token is of another image, lab or dirql version than {} with {}; replay it with those it was made of",
            options.token,
            options.run.image.display(),
            bench.lab.path.as_ref().map_or_else(|| "its made lab".into(), |p| p.display().to_string()),
        ));
    }
    bench.system.machine.set_chooser(Box::<Script>::default());
    let deviations = {
        let mut copy = bench.system.clone();
        copy.kernel.trace_exports = false;
        tell(&mut copy, &schedule)
    };
    match exec::run(&mut bench.system, &schedule) {
        Ok(ended) => {
            let mut out = bench.report(&ended);
            for f in &mut out.findings {
                f.deviations.clone_from(&deviations);
                f.replay = Some(replay_command(&options.run, &options.token));
            }
            out
        }
        Err(misfit) => RunReport::failed(
            Verdict::Internal,
            "internal",
            format!("deviation {} of the token can't be made at step {}", misfit.index, misfit.steps),
        ),
    }
}

/// The digest by which a token knows its image and lab.
pub(crate) fn digest(image: &[u8], lab: &Lab) -> u32 {
    let mut lab = lab.clone();
    // Where the files are does not matter, only what is in them.
    for driver in &mut lab.drivers {
        driver.image = driver.image.file_name().map(Into::into).unwrap_or_default();
    }
    subject(&[env!("CARGO_PKG_VERSION").as_bytes(), image, lab.to_toml().as_bytes()])
}
