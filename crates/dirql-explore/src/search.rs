//! The systematic search: every execution within bounds, each equivalence class once.
//!
//! Executions are enumerated by their number of deviations: first the default policy's own run, then every run with one
//! deviation at one of its points, and so on; a run's deviations are extended behind its last one only, so that each
//! schedule comes up once. The reduction is by states: what a run did up to its last deviation, up to the order of what
//! is independent, and who goes on from there, decide all that can follow. A run that reaches such a state again with no
//! more deviations to spend is not extended. (To leave out whole executions that are equivalent would lose some: bounded
//! deviations are made at cuts of an execution, and equivalent executions pass other cuts.) What granules are shared is
//! learned on the way; when the set grows, the points of what ran before were too few, and the search begins again with
//! the larger set.

use std::collections::{BTreeMap, BTreeSet};

use dirql_kernel::stop::Stop;
use dirql_kernel::system::{Ended, System};

use crate::exec;
use crate::hb::Fingerprint;
use crate::points::{Point, Shared, Stacks, Touch, points, touches};
use crate::schedule::{Act, Deviation, Schedule};

/// How far a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most deviations that are not arrivals.
    pub preemptions: u32,
    /// Most deviations that are the hardware's doing: arrivals, time, choices.
    pub arrivals: u32,
    /// Most executions.
    pub schedules: u64,
    /// Deviate at every instruction, not only at points.
    pub every: bool,
    /// Leave out executions that are equivalent to one seen.
    pub reduce: bool,
}

/// What an execution showed, for the one who judges it.
pub struct Execution<'a> {
    /// The system at its end.
    pub system: &'a mut System,
    /// How it ended.
    pub ended: &'a Ended,
    /// Its schedule.
    pub schedule: &'a Schedule,
}

/// A failure: the same text means the same failure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// What tells it from others.
    pub key: String,
}

/// Judges executions. It must depend on the execution alone.
pub trait Judge: Sync {
    /// The failures an execution shows; none when it is right.
    fn judge(&self, execution: Execution<'_>) -> Vec<Failure>;
}

impl<F: Fn(Execution<'_>) -> Vec<Failure> + Sync> Judge for F {
    fn judge(&self, execution: Execution<'_>) -> Vec<Failure> {
        self(execution)
    }
}

/// A failure and the first schedule that showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The failure.
    pub failure: Failure,
    /// The schedule.
    pub schedule: Schedule,
}

/// How far a search came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Executions run.
    pub executions: u64,
    /// Those that were not equivalent to one before.
    pub distinct: u64,
    /// Shared granules known.
    pub shared: usize,
    /// Times the search began again because the shared set grew.
    pub restarts: u32,
    /// The level being searched: deviations of the executions being run.
    pub level: u32,
    /// Executions left in this level, as far as is known.
    pub left: u64,
    /// Steps run, on all processors.
    pub steps: u64,
}

/// Told how a search goes, and may end it.
pub trait Watch {
    /// Called after each batch; false ends the search.
    fn progress(&mut self, tally: &Tally, found: &[Found]) -> bool;
}

impl<F: FnMut(&Tally, &[Found]) -> bool> Watch for F {
    fn progress(&mut self, tally: &Tally, found: &[Found]) -> bool {
        self(tally, found)
    }
}

/// What a search gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The failures, in the order found.
    pub found: Vec<Found>,
    /// The bounded space was searched whole.
    pub exhausted: bool,
    /// How far it came.
    pub tally: Tally,
}

/// An execution to be extended.
struct Node {
    schedule: Schedule,
    points: Vec<Point>,
    choices: Vec<(u32, u32, u32)>,
}

/// What one extension gave.
struct Child {
    schedule: Schedule,
    print: u64,
    /// What was done up to the last deviation, and who goes on.
    state: u64,
    failures: Vec<Failure>,
    touches: BTreeSet<Touch>,
    points: Vec<Point>,
    choices: Vec<(u32, u32, u32)>,
    steps: u64,
    /// The run did not end by itself or by a bug check: it is not extended.
    cut: bool,
}

/// The search.
pub struct Search<'a, J> {
    root: &'a System,
    judge: &'a J,
    bounds: Bounds,
    keep_going: bool,
    jobs: usize,
    shared: Shared,
    tally: Tally,
    found: Vec<Found>,
    /// States behind a deviation, with the deviations spent to reach them: others and arrivals.
    states: BTreeMap<u64, Vec<(u32, u32)>>,
    seen: BTreeSet<u64>,
}

impl<'a, J: Judge> Search<'a, J> {
    /// A search of the executions that begin as `root`. It ends at the first batch with a failure unless it is to keep
    /// going. `jobs` says how many executions run at a time; it never changes what is found.
    pub fn new(root: &'a System, judge: &'a J, bounds: Bounds, keep_going: bool, jobs: usize) -> Self {
        Self {
            root,
            judge,
            bounds,
            keep_going,
            jobs: jobs.max(1),
            shared: Shared::default(),
            tally: Tally::default(),
            found: vec![],
            states: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    /// The granules found shared so far.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Searches.
    pub fn run(mut self, watch: &mut impl Watch) -> Outcome {
        loop {
            match self.pass(watch) {
                Pass::Grew => {
                    self.tally.restarts += 1;
                    self.tally.distinct = 0;
                    self.seen.clear();
                    self.states.clear();
                }
                Pass::Whole => return self.outcome(true),
                Pass::Ended => return self.outcome(false),
            }
        }
    }

    fn outcome(mut self, exhausted: bool) -> Outcome {
        self.tally.shared = self.shared.len();
        self.tally.left = 0;
        Outcome { found: self.found, exhausted, tally: self.tally }
    }

    /// One pass with the shared set as it is.
    fn pass(&mut self, watch: &mut impl Watch) -> Pass {
        self.tally.level = 0;
        let mut first = self.root.clone();
        first.kernel.trace = Some(vec![]);
        log_all(&mut first, true);
        let mut print = Fingerprint::default();
        let child = self.finish(first, Schedule::default(), &mut print);
        let mut grew = false;
        let Some(root) = self.take(child, &mut grew) else { return Pass::Ended };
        if grew {
            return Pass::Grew;
        }
        let mut level = vec![root];
        let most = self.bounds.preemptions + self.bounds.arrivals;
        for depth in 1..=most {
            self.tally.level = depth;
            let mut next = vec![];
            let mut nodes = level.into_iter();
            loop {
                let batch: Vec<Node> = nodes.by_ref().take(BATCH).collect();
                if batch.is_empty() {
                    break;
                }
                self.tally.left = nodes.len() as u64;
                let found = self.found.len();
                for children in self.expand(&batch) {
                    for child in children {
                        if let Some(node) = self.take(child, &mut grew)
                            && depth < most
                        {
                            next.push(node);
                        }
                    }
                }
                self.tally.shared = self.shared.len();
                let on = watch.progress(&self.tally, &self.found);
                let stop = self.found.len() > found && !self.keep_going;
                if !on || stop || self.tally.executions >= self.bounds.schedules {
                    return Pass::Ended;
                }
            }
            if grew {
                return Pass::Grew;
            }
            level = next;
            if level.is_empty() {
                break;
            }
        }
        Pass::Whole
    }

    /// Takes in what an execution gave; gives the node to extend, unless it is equivalent to one that was.
    fn take(&mut self, child: Child, grew: &mut bool) -> Option<Node> {
        self.tally.executions += 1;
        self.tally.steps += child.steps;
        *grew |= self.shared.learn(&child.touches);
        for failure in child.failures {
            if !self.found.iter().any(|f| f.failure == failure) {
                self.found.push(Found { failure, schedule: child.schedule.clone() });
            }
        }
        if self.seen.insert(child.print) {
            self.tally.distinct += 1;
        }
        let arrivals = child.schedule.arrivals() as u32;
        let others = child.schedule.len() as u32 - arrivals;
        let spent = self.states.entry(child.state).or_default();
        let known = spent.iter().any(|(o, a)| *o <= others && *a <= arrivals);
        if !known {
            spent.retain(|(o, a)| *o < others || *a < arrivals);
            spent.push((others, arrivals));
        } else if self.bounds.reduce {
            return None;
        }
        if child.cut {
            return None;
        }
        Some(Node { schedule: child.schedule, points: child.points, choices: child.choices })
    }

    /// Runs every extension of these, in order; on several threads when there are jobs for them.
    fn expand(&self, batch: &[Node]) -> Vec<Vec<Child>> {
        if self.jobs < 2 || batch.len() < 2 {
            return batch.iter().map(|n| self.extensions(n)).collect();
        }
        let next = std::sync::atomic::AtomicUsize::new(0);
        let mut parts: Vec<(usize, Vec<Child>)> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.jobs.min(batch.len()))
                .map(|_| {
                    scope.spawn(|| {
                        let mut out = vec![];
                        loop {
                            let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            let Some(node) = batch.get(i) else { return out };
                            out.push((i, self.extensions(node)));
                        }
                    })
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|w| w.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
                .collect()
        });
        parts.sort_by_key(|(i, _)| *i);
        parts.into_iter().map(|(_, c)| c).collect()
    }

    /// Runs every extension of one execution by one deviation.
    fn extensions(&self, node: &Node) -> Vec<Child> {
        let mut out = vec![];
        let mut system = self.root.clone();
        system.kernel.trace = Some(vec![]);
        log_all(&mut system, true);
        let mut print = Fingerprint::default();
        if !matches!(exec::lead(&mut system, &node.schedule), Ok(None)) {
            return out;
        }
        for d in &node.schedule.0 {
            outside(&mut print, d.act);
        }
        let used = node.schedule.arrivals() as u32;
        let preempted = node.schedule.len() as u32 - used;
        // Only what is asked from here on can still be answered otherwise.
        if let Some(script) = system.machine.script() {
            script.take_asked();
        }
        let start = system.clone();
        let deviations_left = preempted < self.bounds.preemptions;
        if used < self.bounds.arrivals {
            for &(number, options, picked) in &node.choices {
                for pick in (0..options).filter(|p| *p != picked) {
                    let act = Act::Choose { number, pick };
                    self.extend(&start, &print, node, act, &mut out);
                }
            }
        }
        for point in &node.points {
            if point.at < system.steps() {
                continue;
            }
            if system.run_until(point.at).is_some() {
                break;
            }
            let marks = system.kernel.trace.as_mut().map(std::mem::take).unwrap_or_default();
            print.feed(&marks, &self.shared);
            for act in self.acts(&system, point, deviations_left, used < self.bounds.arrivals) {
                self.extend(&system, &print, node, act, &mut out);
            }
        }
        out
    }

    fn extend(&self, system: &System, print: &Fingerprint, node: &Node, act: Act, out: &mut Vec<Child>) {
        let mut child = system.clone();
        let at = child.steps();
        if !exec::apply(&mut child, act) {
            return;
        }
        let mut print = print.clone();
        outside(&mut print, act);
        out.push(self.finish(child, node.schedule.with(Deviation { at, act }), &mut print));
    }

    /// What may be done at a point.
    fn acts(&self, system: &System, point: &Point, preempt: bool, arrive: bool) -> Vec<Act> {
        let here = system.current_cpu();
        let cpus = system.kernel.procs.len().min(64);
        let mut out = vec![];
        if preempt {
            for cpu in (0..cpus).filter(|c| *c != here && system.can_run(*c)) {
                out.push(Act::Switch(cpu as u8));
                if point.splits {
                    out.push(Act::Split(cpu as u8));
                }
            }
            if system.can_preempt(here) {
                out.push(Act::Quantum);
            }
        }
        if arrive {
            if system.next_due().is_some() {
                out.extend((0..cpus).map(|cpu| Act::Time { cpu: cpu as u8 }));
            }
            for (device, source) in system.machine.possible_arrivals() {
                let (Ok(device), Ok(source)) = (u8::try_from(device.0), u8::try_from(source)) else {
                    continue;
                };
                out.extend((0..cpus).map(|cpu| Act::Arrive { device, source, cpu: cpu as u8 }));
            }
        }
        out
    }

    /// Runs to the end and looks at what was done.
    fn finish(&self, mut system: System, schedule: Schedule, print: &mut Fingerprint) -> Child {
        let begin = system.steps();
        let state = print.state(system.current_cpu() as u64, left_behind(&schedule));
        let ended = system.run();
        let marks = system.kernel.trace.take().unwrap_or_default();
        print.feed(&marks, &self.shared);
        let choices = system
            .machine
            .script()
            .map(|s| s.take_asked().into_iter().map(|a| (a.number, a.options, a.picked)).collect())
            .unwrap_or_default();
        let steps = system.steps() - begin;
        let cut = matches!(ended, Ended::Stopped(Stop::Budget { .. } | Stop::Internal(_)));
        let touches = touches(&marks, &Stacks::of(&system.kernel));
        let mut points = points(&marks, &self.shared, &system.machine.mem, self.bounds.every);
        if self.bounds.every {
            // Steps that touch nothing leave no mark.
            let splits: BTreeSet<u64> = points.iter().filter(|p| p.splits).map(|p| p.at).collect();
            points = (begin..system.steps()).map(|at| Point { at, splits: splits.contains(&at) }).collect();
        }
        let failures =
            self.judge.judge(Execution { system: &mut system, ended: &ended, schedule: &schedule });
        Child { schedule, print: print.value(), state, failures, touches, points, choices, steps, cut }
    }
}

/// How many executions are extended at a time: enough for the threads to share, few enough to end soon.
const BATCH: usize = 16;

enum Pass {
    Grew,
    Whole,
    Ended,
}

/// What the last deviation leaves behind that no operation shows: a store held back, a quantum that is over.
fn left_behind(schedule: &Schedule) -> u64 {
    match schedule.0.last().map(|d| d.act) {
        Some(Act::Split(_)) => 1,
        Some(Act::Quantum) => 2,
        _ => 0,
    }
}

fn outside(print: &mut Fingerprint, act: Act) {
    match act {
        Act::Arrive { device, source, cpu } => {
            print.outside(u64::from(device) << 16 | u64::from(source) << 8 | u64::from(cpu));
        }
        Act::Time { cpu } => print.outside(1 << 32 | u64::from(cpu)),
        Act::Choose { number, pick } => print.outside(2 << 62 | u64::from(number) << 32 | u64::from(pick)),
        // Who goes on shows in the order of what they do.
        Act::Switch(_) | Act::Split(_) | Act::Quantum => {}
    }
}

/// Has every processor record its accesses, or none.
pub(crate) fn log_all(system: &mut System, on: bool) {
    for cpu in &mut system.machine.cpus {
        cpu.set_logging(on);
    }
}
