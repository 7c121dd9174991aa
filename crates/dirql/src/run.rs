//! What the commands do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dirql_image::Image;
use dirql_kernel::boot::Boot;
use dirql_kernel::stop::Stop;
use dirql_kernel::system::{Ended, System};

use crate::lab::{Lab, Level};
use crate::problem::InputError;
use crate::report::{Finding, Place, RunReport, RunStory, Stats, Verdict};

/// What a run is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The driver's image.
    pub image: PathBuf,
    /// The lab; by default the one beside the image, else a made one.
    pub lab: Option<PathBuf>,
    /// Keep every event in the report.
    pub trace: bool,
    /// The instruction budget, instead of the lab's.
    pub budget: Option<u64>,
    /// The processors, instead of the lab's.
    pub cpus: Option<u32>,
}

impl RunOptions {
    /// The lab of the run: the one named, else the one beside the image, else a made one, which has no path.
    /// The options override it.
    ///
    /// # Errors
    /// If there is a lab and it is bad.
    pub fn lab(&self) -> Result<Lab, InputError> {
        let beside = Lab::beside(&self.image);
        let mut lab = match &self.lab {
            Some(path) => Lab::load(path)?,
            None if beside.is_file() => Lab::load(&beside)?,
            None => Lab::default_for(&self.image),
        };
        lab.budget = self.budget.unwrap_or(lab.budget);
        if let Some(cpus) = self.cpus {
            let known = if cpus >= 64 { u64::MAX } else { (1 << cpus) - 1 };
            if let Some(d) = lab.devices.iter().find(|d| d.affinity.iter().any(|mask| mask & known == 0)) {
                let message = format!("`affinity` of \"{}\" names no processor of {cpus}", d.name);
                return Err(InputError::new(lab.path.as_deref(), message, Some("give a larger --cpus")));
            }
            lab.machine.cpus = cpus;
        }
        if lab.drivers.iter().any(|d| d.devices.is_empty()) && !lab.devices.is_empty() {
            // The image on the command line is the driver of the lab's first.
            let message = "no device is given to the driver";
            let help = "say which: device = \"...\" in [driver]";
            return Err(InputError::new(lab.path.as_deref(), message, Some(help)));
        }
        Ok(lab)
    }

    /// The command that does this run again, the same byte for byte.
    #[must_use]
    pub fn command(&self) -> String {
        let quote = |path: &Path| {
            let text = path.display().to_string();
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
            if !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') {
                text
            } else {
                format!("'{}'", text.replace('\'', "'\\''"))
            }
        };
        let mut out = format!("dirql run {}", quote(&self.image));
        if let Some(lab) = &self.lab {
            out += &format!(" --lab {}", quote(lab));
        }
        if let Some(budget) = self.budget {
            out += &format!(" --budget {budget}");
        }
        if let Some(cpus) = self.cpus {
            out += &format!(" --cpus {cpus}");
        }
        out
    }
}

/// A driver in its lab, about to run.
#[derive(Clone)]
pub struct Bench {
    /// The machine and its kernel; a clone goes on identically.
    pub system: System,
    /// The lab.
    pub lab: Lab,
    /// By which a replay token knows its image and lab.
    pub(crate) digest: u32,
    options: RunOptions,
}

/// Reads the image and the lab, and puts the driver on its machine.
///
/// # Errors
/// A report that says why there is nothing to run: bad input, or something that dirql lacks.
pub fn prepare(options: &RunOptions) -> Result<Bench, Box<RunReport>> {
    prepare_lab(options, RunOptions::lab)
}

/// [`prepare`] in a lab that is made from the options.
fn prepare_lab(
    options: &RunOptions,
    lab: impl FnOnce(&RunOptions) -> Result<Lab, InputError>,
) -> Result<Bench, Box<RunReport>> {
    let bad = |error: InputError| Box::new(RunReport::from(error));
    // The image first: what is said of a missing image is not to be said of a lab made for it.
    let bytes = crate::file::read(&options.image, crate::file::IMAGE_SIZE_CAP, "image").map_err(bad)?;
    let image = parse(&options.image, &bytes).map_err(bad)?;
    let lab = lab(options).map_err(bad)?;
    let lacking: Vec<String> = lab.lacking().iter().map(ToString::to_string).collect();
    if !lacking.is_empty() {
        return Err(Box::new(RunReport::failed(Verdict::Missing, "missing", lacking.join("\n"))));
    }
    let (machine, plan) = crate::plan::plan(&lab).map_err(bad)?;
    let boot = Boot {
        config: crate::plan::profile(&lab),
        windows_build: crate::plan::build_number(lab.machine.windows),
        image_name: file_name(&options.image),
        image: Arc::new(image),
        plan,
        device_settings: lab.devices.iter().map(|d| crate::plan::settings(&d.registry)).collect(),
        service_settings: lab
            .drivers
            .iter()
            .take(1)
            .flat_map(|d| crate::plan::settings(&d.registry))
            .collect(),
        budget: lab.budget,
        trace_exports: options.trace,
    };
    let digest = crate::explore::digest(&bytes, &lab);
    match System::boot(machine, boot) {
        Ok(system) => Ok(Bench { system, lab, digest, options: options.clone() }),
        // Before the driver's first instruction it is the image's or the lab's size that is too much.
        Err(Stop::OutOfMemory) => Err(bad(InputError::new(
            Some(&options.image),
            "the image does not fit the machine's memory",
            Some("check that this is the image meant"),
        ))),
        Err(stop) => {
            let (verdict, finding) = judge(&stop, &dirql_kernel::loader::Modules::default());
            Err(Box::new(RunReport::failed(verdict, &finding.rule, finding.message)))
        }
    }
}

impl Bench {
    /// Runs to the end, and says what happened.
    #[must_use]
    pub fn run(mut self) -> RunReport {
        let ended = self.system.run();
        self.report(&ended)
    }

    /// Says what happened in a run that ended so.
    #[must_use]
    pub fn report(mut self, ended: &Ended) -> RunReport {
        let events = self.system.take_events();
        let story = RunStory::fold(&events);
        let (verdict, mut findings) = findings(&self.lab, &self.system, ended, &story);
        let again = self.options.command();
        for f in &mut findings {
            f.replay = Some(again.clone());
        }
        let stats = Stats {
            instructions: self.system.instructions(),
            virtual_ns: self.system.machine.now(),
            events: events.len() as u64,
            events_lost: self.system.kernel.events_lost,
            counters: story.counters(),
        };
        let made_lab = self.lab.path.is_none().then(|| self.lab.to_toml());
        let events = if self.options.trace { events } else { Vec::new() };
        let mut report = RunReport { verdict, findings, stats, story, made_lab, input: None, events };
        if let Some(module) = self.system.kernel.modules.drivers.first() {
            crate::places::add(&mut report, &self.options.image, &module.image);
        }
        report
    }
}

/// What is wrong with a run that ended so, and whose it is.
pub(crate) fn findings(
    lab: &Lab,
    system: &System,
    ended: &Ended,
    story: &RunStory,
) -> (Verdict, Vec<Finding>) {
    let mut findings = story.findings();
    findings.extend(crate::checks::started(lab, system, story));
    let mut verdict = Verdict::Ok;
    match ended {
        Ended::Done => findings.extend(crate::checks::at_end(lab, system, story)),
        // The story's own bug check event is the finding.
        Ended::Stopped(Stop::BugCheck(_)) => verdict = Verdict::Finding,
        Ended::Stopped(stop) => {
            let (how, finding) = judge(stop, &system.kernel.modules);
            findings.push(finding);
            verdict = how;
        }
    }
    // What a run that dirql ended counts says nothing about the driver.
    if matches!(verdict, Verdict::Ok | Verdict::Finding) {
        findings.extend(crate::checks::steps(lab, story));
        findings.extend(crate::checks::counters(lab, story));
        crate::rules::apply(lab, &mut findings);
        let wrong = findings.iter().any(|f| f.level == Level::Finding);
        // What ended the run early is never put aside: what came after it was not seen.
        let early = matches!(ended, Ended::Stopped(_));
        verdict = if wrong || early { Verdict::Finding } else { Verdict::Ok };
    }
    (verdict, findings)
}

/// Runs a driver in its lab.
#[must_use]
pub fn run(options: &RunOptions) -> RunReport {
    match prepare(options) {
        Ok(bench) => bench.run(),
        Err(report) => *report,
    }
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Image, InputError> {
    Image::parse(bytes).map_err(|e| InputError::new(Some(path), e.to_string(), None))
}

/// Runs a driver in a lab at hand; the options' own is not looked at.
pub(crate) fn run_lab(options: &RunOptions, lab: Lab) -> RunReport {
    match prepare_lab(options, |_| Ok(lab)) {
        Ok(bench) => bench.run(),
        Err(report) => *report,
    }
}

/// Whose fault a stop is, and how to say it.
pub(crate) fn judge(stop: &Stop, modules: &dirql_kernel::loader::Modules) -> (Verdict, Finding) {
    let at = |va: u64| modules.describe(va);
    match stop {
        Stop::BugCheck(b) => (Verdict::Finding, Finding::new("bugcheck", b.reason.clone())),
        Stop::Fault(f) => (Verdict::Finding, Finding::new("bugcheck", f.to_string())),
        Stop::NotLoaded { image, lacking, status } => {
            let status = crate::status::show(*status);
            let routines: Vec<String> = lacking
                .iter()
                .map(|(routine, since)| format!("{routine} (since {})", dirql_kernel::windows::name(*since)))
                .collect();
            let message = format!(
                "{image} does not load on this Windows ({status}): it imports {}, which its kernel lacks",
                routines.join(", ")
            );
            (Verdict::Finding, Finding::new("load", message))
        }
        Stop::MissingExport { module, name, caller } if !dirql_kernel::loader::provides(module) => {
            let message = format!(
                "the driver needs the library {module}, which dirql does not have: it called {name} from {}",
                at(*caller)
            );
            (Verdict::Missing, Finding::new("missing", message).at(place(modules, *caller)))
        }
        Stop::MissingExport { module, name, caller } => {
            let how = if *caller == 0 { String::new() } else { format!(" from {}", at(*caller)) };
            let message = format!(
                "the driver called {module}!{name}{how}; dirql does not implement it{}\n  what to do: `dirql \
                 inspect` lists every import that is missing; a lab that keeps clear of this path runs on",
                wanted(name)
            );
            (Verdict::Missing, Finding::new("missing", message).at(place(modules, *caller)))
        }
        Stop::MissingFeature { what, caller } => {
            let how = if *caller == 0 { String::new() } else { format!(" (at {})", at(*caller)) };
            let message = format!("the driver needs {what}{how}; dirql does not have it");
            (Verdict::Missing, Finding::new("missing", message).at(place(modules, *caller)))
        }
        Stop::MissingInstruction { rip, text } => {
            let message = format!("the instruction `{text}` at {} is not implemented", at(*rip));
            (Verdict::Missing, Finding::new("missing", message).at(place(modules, *rip)))
        }
        Stop::Budget { at: cpus } => {
            let inside = |rip: u64| modules.locate(rip).is_some();
            let said: Vec<String> = cpus
                .iter()
                .enumerate()
                .filter(|(_, rip)| **rip != 0)
                .map(|(i, rip)| format!("CPU {i} at {}", at(*rip)))
                .collect();
            let message = format!(
                "the instruction budget ran out, {}: the driver loops, or its lab needs a larger `budget`\n  what \
                 to do: look at that place; `--budget N` lets it run on",
                if said.is_empty() { "every CPU idle".to_owned() } else { said.join(", ") }
            );
            let mut finding = Finding::new("budget", message);
            for (i, rip) in cpus.iter().enumerate().filter(|(_, rip)| inside(**rip)) {
                finding = finding.at(Place { cpu: Some(i as u32), ..place(modules, *rip) });
            }
            (Verdict::Finding, finding)
        }
        Stop::Hang { why } => (Verdict::Finding, Finding::new("hang", format!("nothing can go on: {why}"))),
        Stop::OutOfMemory => {
            (Verdict::Finding, Finding::new("memory", "the driver used up the machine's memory"))
        }
        Stop::Internal(what) => (Verdict::Internal, Finding::new("internal", what.clone())),
    }
}

/// How many drivers of the survey want a missing export, in words.
fn wanted(name: &str) -> String {
    let of = dirql_kernel::demand::SURVEYED;
    match dirql_kernel::demand(name) {
        Some(d) => format!(" ({} of {of} surveyed drivers import it)", d.drivers),
        None => format!(" (none of {of} surveyed drivers imports it)"),
    }
}

/// A place for a guest address; an empty one when no image is there.
pub(crate) fn place(modules: &dirql_kernel::loader::Modules, va: u64) -> Place {
    let mut place = Place { role: "at".into(), ..Place::default() };
    if let Some((module, rva)) = modules.locate(va) {
        place.image = Some(module.name.clone());
        place.rva = Some(rva);
    }
    place
}
