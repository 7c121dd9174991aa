//! The whole system, machine and kernel, and the loop that runs it.
//!
//! The default policy: processors take turns of at most [`TURN`] instructions, in order of number; an interrupt is
//! taken at the first boundary at which it may be; when all are idle, time jumps to the next timed event, and when
//! there is none, the next arrival of a device happens. All of it is a function of the inputs alone.

use dirql_event::{Event, EventKind};
use dirql_machine::Machine;
use dirql_x86::Exit;

use crate::context::{Frame, Outcome};
use crate::cx::Cx;
use crate::exception;
use crate::interrupt;
use crate::kernel::{ActivationKind, Kernel};
use crate::loader::{RETURN_GATE, Resolved};
use crate::sched;
use crate::stop::{BugCheck, Stop};
use crate::then::Then;
use crate::timer;
use crate::trace::{Mark, What};

/// Longest turn of one processor, in instructions.
pub const TURN: u64 = 1000;
/// Times in a row that idle time may pass while a processor spins for a lock, before the run is called hung.
const STARVED: u32 = 10_000;
/// Virtual nanoseconds an export call takes, so that a loop of calls alone still moves the clock.
const CALL_NS: u64 = 10;

/// The machine and its kernel. A clone continues identically.
#[derive(Clone)]
pub struct System {
    /// The machine.
    pub machine: Machine,
    /// The kernel.
    pub kernel: Kernel,
    budget: u64,
    steps: u64,
    instructions: u64,
    turn: Turn,
}

/// Where the round of the processors stands.
#[derive(Clone, Debug, Default)]
struct Turn {
    /// The processor whose turn it is.
    cpu: usize,
    /// Instructions left in it; none when it has not begun.
    left: Option<u64>,
    /// A processor made progress in this round.
    busy: bool,
    /// Processors that spin for a lock.
    spinning: u64,
    /// Times in a row that time passed only because of them.
    starved: u32,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The driver's life and the workload are over.
    Done,
    /// It ended early.
    Stopped(Stop),
}

/// How a part of a turn ended.
enum Part {
    /// The turn goes on.
    On,
    /// It is the next processor's turn.
    Over,
    /// The step asked for is reached.
    Limit,
}

/// How a processor goes on after the kernel saw to it.
enum Next {
    /// With what it does.
    On,
    /// After the others: it waits by choice (`pause`, `hlt`).
    Yield,
    /// After the others: what it waits for is theirs to give.
    Spin,
}

impl System {
    /// A system ready to run for at most `budget` steps.
    #[must_use]
    pub fn new(machine: Machine, kernel: Kernel, budget: u64) -> Self {
        Self { machine, kernel, budget, steps: 0, instructions: 0, turn: Turn::default() }
    }

    /// Steps so far, on all processors: an instruction is one, and so is a kernel routine's part between two calls of
    /// the guest. Any two boundaries of a run have different numbers, so a number names a boundary.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Instructions retired so far, on all processors.
    #[must_use]
    pub fn instructions(&self) -> u64 {
        self.instructions
    }

    /// Sets how many steps the run may take in all.
    pub fn set_budget(&mut self, budget: u64) {
        self.budget = budget;
    }

    /// Takes the events recorded since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.kernel.events)
    }

    /// A kernel routine's view of processor `cpu`.
    pub fn cx(&mut self, cpu: usize) -> Cx<'_> {
        Cx { m: &mut self.machine, k: &mut self.kernel, cpu }
    }

    /// The processor whose turn it is.
    #[must_use]
    pub fn current_cpu(&self) -> usize {
        self.turn.cpu
    }

    /// Gives the turn to another processor.
    pub fn switch_to(&mut self, cpu: usize) {
        self.turn.cpu = cpu.min(self.kernel.procs.len().saturating_sub(1));
        self.turn.left = None;
        self.turn.busy = true;
    }

    /// Whether a processor would do something if it had the turn: it runs something, an interrupt or a DPC waits for
    /// it, or a thread is ready for it.
    #[must_use]
    pub fn can_run(&self, cpu: usize) -> bool {
        if self.turn.spinning >> cpu & 1 == 1 {
            return false;
        }
        !self.kernel.idle(cpu)
            || self.machine.pending_vector(cpu).is_some()
            || interrupt::dpcs_pending(&self.kernel, cpu)
            || sched::ready_for(&self.kernel, cpu).is_some()
    }

    /// Whether another thread is ready that could have this processor when its thread's quantum is over.
    #[must_use]
    pub fn can_preempt(&self, cpu: usize) -> bool {
        let Some(current) = self.kernel.current_thread(cpu) else { return false };
        self.kernel.procs[cpu].nest.is_empty()
            && self.machine.cpus[cpu].cr8 < 2
            && sched::ready_for(&self.kernel, cpu)
                .is_some_and(|(priority, _)| priority == usize::from(current.priority))
    }

    /// The quantum of the thread on this processor is over.
    pub fn end_quantum(&mut self, cpu: usize) {
        if let Some(proc) = self.kernel.procs.get_mut(cpu) {
            proc.quantum_end = 0;
        }
    }

    /// When the next thing is due that time alone brings: a device's event, a timer, the end of a wait.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        [self.machine.next_event_time(), timer::next_due(&self.kernel), sched::next_deadline(&self.kernel)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time passes, without an instruction, until the next thing is due. False when nothing is.
    pub fn pass_time(&mut self) -> bool {
        let Some(due) = self.next_due() else { return false };
        self.machine.advance_to(due);
        self.turn.left = None;
        true
    }

    /// Runs to the end.
    pub fn run(&mut self) -> Ended {
        loop {
            if let Some(end) = self.run_until(u64::MAX) {
                return end;
            }
        }
    }

    /// Runs until [`steps`](Self::steps) is `limit`, or to the end, which it gives. It stops at the boundary before
    /// the instruction, or before the export's effect, that would be the next step.
    pub fn run_until(&mut self, limit: u64) -> Option<Ended> {
        loop {
            let cpu = self.turn.cpu;
            match self.part(limit) {
                Ok(Part::Limit) => return None,
                Ok(Part::On) => {}
                Ok(Part::Over) => {
                    self.turn.left = None;
                    self.turn.cpu += 1;
                    if self.turn.cpu >= self.kernel.procs.len() {
                        self.turn.cpu = 0;
                        if !std::mem::take(&mut self.turn.busy)
                            && let Some(end) = self.idle()
                        {
                            return Some(end);
                        }
                    }
                }
                Err(stop) => return Some(Ended::Stopped(self.settle(cpu, stop))),
            }
            if self.kernel.life.done {
                return Some(Ended::Done);
            }
        }
    }

    /// What an instruction of this processor wrote and held back becomes visible.
    fn release_stores(&mut self, cpu: usize) -> Result<(), Stop> {
        let machine = &mut self.machine;
        if machine.cpus[cpu].holds_stores() {
            machine.cpus[cpu].release_stores(&mut machine.mem)?;
        }
        Ok(())
    }

    /// Runs one instruction whose stores are held back until this processor goes on. False when the processor is not at
    /// an instruction, or the instruction did not retire: then nothing happened.
    pub fn split(&mut self) -> bool {
        let cpu = self.turn.cpu;
        if self.kernel.idle(cpu) || self.steps >= self.budget {
            return false;
        }
        self.machine.cpus[cpu].hold_stores();
        let exit = self.machine.run_cpu(cpu, 1);
        let n = self.machine.retired();
        self.note_run(cpu, n, &exit);
        if n == 0 {
            let machine = &mut self.machine;
            // Nothing retired, so nothing is held: this only ends the holding.
            let _ = machine.cpus[cpu].release_stores(&mut machine.mem);
            return false;
        }
        self.steps += n;
        self.instructions += n;
        self.progress(cpu);
        true
    }

    /// All processors are idle, or spin: let time or a device bring something.
    fn idle(&mut self) -> Option<Ended> {
        if self.turn.spinning == 0 {
            self.turn.starved = 0;
        } else {
            self.turn.starved += 1;
        }
        let machine_next = self.machine.next_event_time();
        let kernel_next =
            [timer::next_due(&self.kernel), sched::next_deadline(&self.kernel)].into_iter().flatten().min();
        // An arrival happens whenever every processor is idle, in source order.
        if self.turn.spinning == 0 && self.machine.idle_arrival() {
            return None;
        }
        match (machine_next, kernel_next) {
            _ if self.turn.starved > STARVED => self.hang(),
            // What was given back in this very round is had in the next.
            (None, None) if (1..3).contains(&self.turn.starved) => None,
            (None, None) => self.hang(),
            (Some(m), k) if k.is_none_or(|k| m <= k) => {
                self.machine.advance_to_next_event();
                None
            }
            (_, Some(k)) => {
                self.machine.advance_to(k);
                None
            }
            (Some(_), None) => None,
        }
    }

    fn hang(&self) -> Option<Ended> {
        let mut why: Vec<String> = (0..self.kernel.procs.len())
            .filter(|cpu| self.turn.spinning >> cpu & 1 == 1)
            .map(|cpu| format!("processor {cpu} spins for a lock for ever"))
            .collect();
        why.push(self.kernel.life.waiting_for(&self.kernel));
        Some(Ended::Stopped(Stop::Hang { why: why.join("; ") }))
    }

    /// A part of the current turn: up to what the kernel must see.
    fn part(&mut self, limit: u64) -> Result<Part, Stop> {
        let cpu = self.turn.cpu;
        self.release_stores(cpu)?;
        let left = match self.turn.left {
            Some(left) => left,
            None => {
                self.machine.run_due_events();
                interrupt::drain_machine_events(&mut self.cx(cpu));
                TURN
            }
        };
        self.turn.left = Some(left);
        self.boundary(cpu)?;
        if self.kernel.life.done {
            return Ok(Part::On);
        }
        if self.kernel.idle(cpu) {
            self.turn.spinning &= !(1 << cpu);
            return Ok(Part::Over);
        }
        if left == 0 {
            return Ok(Part::Over);
        }
        if self.steps >= self.budget {
            return Err(Stop::Budget { at: self.machine.cpus.iter().map(|c| c.regs.rip).collect() });
        }
        if self.steps >= limit {
            return Ok(Part::Limit);
        }
        let most = left.min(self.budget - self.steps).min(limit - self.steps);
        let exit = self.machine.run_cpu(cpu, most);
        let n = self.machine.retired();
        self.note_run(cpu, n, &exit);
        if n > 0 {
            self.steps += n;
            self.instructions += n;
            self.turn.left = Some(left.saturating_sub(n));
            self.progress(cpu);
            if matches!(exit, Exit::Gate(_)) {
                // The routine's effect is the next step.
                return Ok(Part::On);
            }
        } else {
            let later = self.machine.now() + CALL_NS;
            self.machine.advance_to(later);
            self.kernel.step = self.steps;
            self.steps += 1;
            self.turn.left = Some(left.saturating_sub(1));
        }
        let next = match self.exit(cpu, exit) {
            // An address that a kernel routine was given: an exception in its caller.
            Err(Stop::Fault(fault)) => {
                let mut cx = self.cx(cpu);
                let outcome = exception::in_routine(&mut cx, &fault)?;
                settle_outcome(&mut cx, outcome)?
            }
            other => other?,
        };
        // An idle processor takes an interrupt at once, whoever's turn it is.
        if !matches!(next, Next::Spin)
            && let Some(idle) = self.idle_taker(cpu)
        {
            self.progress(cpu);
            self.switch_to(idle);
            return Ok(Part::On);
        }
        match next {
            Next::On => {
                self.progress(cpu);
                Ok(Part::On)
            }
            Next::Yield => {
                self.progress(cpu);
                Ok(Part::Over)
            }
            Next::Spin => {
                self.turn.spinning |= 1 << cpu;
                Ok(Part::Over)
            }
        }
    }

    /// A processor other than this that is idle and has an interrupt to take.
    fn idle_taker(&self, cpu: usize) -> Option<usize> {
        let cpus = self.kernel.procs.len();
        (0..cpus).find(|&c| c != cpu && self.kernel.idle(c) && self.machine.pending_vector(c).is_some())
    }

    fn progress(&mut self, cpu: usize) {
        self.turn.busy = true;
        self.turn.starved = 0;
        self.turn.spinning &= !(1 << cpu);
    }

    /// Puts into the trace what the processor just did, when there is one.
    fn note_run(&mut self, cpu: usize, n: u64, exit: &Exit) {
        if self.kernel.trace.is_none() {
            return;
        }
        let accesses = self.machine.cpus[cpu].take_log();
        let context = self.kernel.context(cpu);
        let (steps, irql) = (self.steps, self.machine.cpus[cpu].cr8);
        let Some(trace) = &mut self.kernel.trace else { return };
        let mut mark = |at: u64, what: What| trace.push(Mark { at, cpu: cpu as u32, irql, context, what });
        for a in accesses {
            mark(steps + a.retired, What::Access { rip: a.rip, va: a.va, len: a.len, write: a.write });
        }
        match exit {
            Exit::Device => mark(steps + n.saturating_sub(1), What::Register),
            Exit::Cr8Changed | Exit::InterruptFlag => mark(steps + n.saturating_sub(1), What::Irql),
            _ => {}
        }
    }

    /// Between two instructions: interrupts, timers, DPCs, the scheduler.
    fn boundary(&mut self, cpu: usize) -> Result<(), Stop> {
        crate::shared_data::tick(&mut self.cx(cpu))?;
        let now = self.machine.now();
        if timer::next_due(&self.kernel).is_some_and(|due| due <= now) {
            timer::expire(&mut self.cx(cpu))?;
        }
        sched::poll_waits(&mut self.cx(cpu))?;
        interrupt::tick(&mut self.cx(cpu));
        loop {
            if let Some(vector) = self.machine.pending_vector(cpu) {
                interrupt::deliver(&mut self.cx(cpu), vector)?;
                continue;
            }
            let irql = self.machine.cpus[cpu].cr8;
            if irql < 2 && interrupt::dpcs_pending(&self.kernel, cpu) {
                interrupt::begin_drain(&mut self.cx(cpu))?;
                continue;
            }
            if irql < 2 && self.kernel.procs[cpu].nest.is_empty() {
                sched::reschedule(&mut self.cx(cpu));
                if self.kernel.procs[cpu].current.is_none() {
                    self.machine.cpus[cpu].cr8 = 0;
                    self.machine.cpus[cpu].regs.rflags |= 0x200;
                }
            }
            return Ok(());
        }
    }

    /// Acts on why the engine left the guest.
    fn exit(&mut self, cpu: usize, exit: Exit) -> Result<Next, Stop> {
        let mut cx = Cx { m: &mut self.machine, k: &mut self.kernel, cpu };
        match exit {
            Exit::Budget | Exit::Cr8Changed | Exit::InterruptFlag | Exit::Device => {
                interrupt::drain_machine_events(&mut cx);
                Ok(Next::On)
            }
            Exit::Pause => Ok(Next::Yield),
            Exit::Halt => {
                interrupt::drain_machine_events(&mut cx);
                Ok(Next::Yield)
            }
            Exit::Gate(RETURN_GATE) => {
                let value = cx.m.cpus[cpu].regs.gpr[0];
                let Some(frame) = pop_frame(&mut cx) else {
                    return Err(Stop::bug_check(
                        0x1E,
                        [0xC000_0005, RETURN_GATE, 0, 0],
                        "the driver returned to an address it was never called from",
                    ));
                };
                set_call_rsp(&mut cx, frame.rsp);
                let outcome = frame.then.resume(&mut cx, value);
                settle_outcome(&mut cx, outcome?)
            }
            Exit::Gate(rip) => export_call(&mut cx, rip),
            Exit::Exception(e) => {
                let outcome = exception::trap(&mut cx, &e)?;
                settle_outcome(&mut cx, outcome)
            }
            Exit::Unsupported { rip, text } => Err(Stop::MissingInstruction { rip, text }),
        }
    }

    /// Gives a stop its final form: a fault in a kernel routine becomes the bug check that Windows gives.
    fn settle(&mut self, cpu: usize, stop: Stop) -> Stop {
        let cx = self.cx(cpu);
        let caller = cx.caller();
        let stop = match stop {
            // An exception whose records could not be kept or read: there is nothing left to handle it with.
            Stop::Fault(fault) => Stop::BugCheck(BugCheck {
                code: 0x7F,
                params: [8, 0, 0, 0],
                reason: format!("an exception could not be dispatched: {fault} (double fault)"),
                rip: caller,
            }),
            Stop::BugCheck(mut b) => {
                if b.rip == 0 {
                    b.rip = caller;
                }
                Stop::BugCheck(b)
            }
            other => other,
        };
        if let Stop::BugCheck(b) = &stop {
            let mut cx = self.cx(cpu);
            let stack = crate::loader::walk_stack(&mut cx, b.rip);
            let (code, params, reason) = (b.code, b.params, b.reason.clone());
            let name = dirql_abi::bugcheck_name(code).unwrap_or("").to_owned();
            cx.event(EventKind::BugCheck { code, name, params, reason, stack });
        }
        stop
    }
}

/// The frames of what runs on the processor: its innermost activation, else its thread.
pub(crate) fn frames<'a>(cx: &'a mut Cx<'_>) -> Option<(&'a mut Vec<Frame>, &'a mut Option<u64>)> {
    let proc = &mut cx.k.procs[cx.cpu];
    if let Some(a) = proc.nest.last_mut() {
        return Some((&mut a.frames, &mut a.call_rsp));
    }
    let id = proc.current?;
    cx.k.threads.get_mut(&id).map(|t| (&mut t.frames, &mut t.call_rsp))
}

fn pop_frame(cx: &mut Cx<'_>) -> Option<Frame> {
    frames(cx)?.0.pop()
}

pub(crate) fn set_call_rsp(cx: &mut Cx<'_>, rsp: Option<u64>) {
    if let Some((_, call)) = frames(cx) {
        *call = rsp;
    }
}

pub(crate) fn call_rsp(cx: &mut Cx<'_>) -> Option<u64> {
    frames(cx).and_then(|(_, call)| *call)
}

/// Makes `then` go on with the value of the outcome that the export being served is about to give.
pub(crate) fn after(cx: &mut Cx<'_>, then: Then) {
    let rsp = call_rsp(cx);
    set_call_rsp(cx, None);
    if let Some((frames, _)) = frames(cx) {
        frames.push(Frame { then, rsp });
    }
}

/// A guest call of an export.
fn export_call(cx: &mut Cx<'_>, rip: u64) -> Result<Next, Stop> {
    let caller = cx.caller();
    let export = match cx.k.modules.gate(rip) {
        Some(Resolved::Export(export)) => *export,
        Some(Resolved::Missing { module, name }) => {
            return Err(Stop::MissingExport { module: module.clone(), name: name.clone(), caller });
        }
        None => {
            return Err(Stop::bug_check(
                0x1E,
                [0xC000_0005, rip, 8, rip],
                "the driver jumped into the kernel's address range, at no routine",
            ));
        }
    };
    let irql = cx.irql();
    if irql > export.max_irql {
        return Err(Stop::BugCheck(BugCheck {
            code: 0xC4,
            params: [0x0002_0011, u64::from(irql), u64::from(export.max_irql), caller],
            reason: format!(
                "{} called at IRQL {irql}; it may be called at IRQL {} or below",
                export.name, export.max_irql
            ),
            rip: caller,
        }));
    }
    let rsp = cx.m.cpus[cx.cpu].regs.gpr[4];
    if cx.k.trace.is_some() {
        let args = (0..3).map(|i| cx.arg(i)).collect::<Result<Vec<_>, _>>()?;
        crate::trace::export(cx, export.name, caller, [args[0], args[1], args[2]]);
    }
    if cx.k.trace_exports {
        let args = (0..4).map(|i| cx.arg(i)).collect::<Result<Vec<_>, _>>()?;
        cx.event(EventKind::Export { name: export.name.to_owned(), args, ret: caller });
    }
    set_call_rsp(cx, Some(rsp));
    match (export.shim)(cx)? {
        Outcome::Retry => {
            set_call_rsp(cx, None);
            Ok(Next::Spin)
        }
        outcome => settle_outcome(cx, outcome),
    }
}

/// Carries out what a kernel routine decided.
fn settle_outcome(cx: &mut Cx<'_>, outcome: Outcome) -> Result<Next, Stop> {
    match outcome {
        Outcome::Ret(value) => {
            match call_rsp(cx) {
                Some(rsp) => {
                    set_call_rsp(cx, None);
                    let to = cx.r64(rsp)?;
                    let regs = &mut cx.m.cpus[cx.cpu].regs;
                    regs.gpr[0] = value;
                    regs.gpr[4] = rsp.wrapping_add(8);
                    regs.rip = to;
                }
                // A kernel routine within a kernel routine: the frame below goes on with the value.
                None => {
                    let regs = &mut cx.m.cpus[cx.cpu].regs;
                    regs.gpr[0] = value;
                    regs.rip = RETURN_GATE;
                }
            }
            Ok(Next::On)
        }
        Outcome::Call { routine, args, then } => {
            call_guest(cx, routine, &args, then)?;
            Ok(Next::On)
        }
        Outcome::Wait { wait, then } => {
            sched::block(cx, wait, then)?;
            Ok(Next::On)
        }
        Outcome::Spin(then) => {
            let rsp = call_rsp(cx);
            set_call_rsp(cx, None);
            if let Some((frames, _)) = frames(cx) {
                frames.push(Frame { then, rsp });
            }
            cx.m.cpus[cx.cpu].regs.rip = RETURN_GATE;
            Ok(Next::Spin)
        }
        Outcome::Resume => Ok(Next::On),
        Outcome::Retry => Err(Stop::Internal("a continuation asked for its export to be retried".into())),
        Outcome::End => {
            if cx.k.procs[cx.cpu].nest.is_empty() {
                sched::terminate_current(cx, 0)?;
            } else {
                leave_activation(cx);
            }
            Ok(Next::On)
        }
    }
}

/// Enters a guest routine on the current context's stack.
fn call_guest(cx: &mut Cx<'_>, routine: u64, args: &[u64], then: Then) -> Result<(), Stop> {
    let back = call_rsp(cx);
    set_call_rsp(cx, None);
    let rsp = cx.m.cpus[cx.cpu].regs.gpr[4];
    if let Some((frames, _)) = frames(cx) {
        // A guest can nest calls through the kernel (IoCallDriver) only as deep as its stack; this bounds ours.
        if frames.len() > 1024 {
            return Err(Stop::bug_check(0x7F, [8, 0, 0, 0], "calls through the kernel nested without end"));
        }
        frames.push(Frame { then, rsp: back });
    }
    let slots = args.len().max(4) as u64;
    // At a routine's entry RSP is 8 below a multiple of 16; home space and stack arguments lie above the return address.
    let top = (rsp.wrapping_sub(8 * slots) & !15).wrapping_sub(8);
    cx.w64(top, RETURN_GATE)?;
    for (i, &arg) in args.iter().enumerate().skip(4) {
        cx.w64(top.wrapping_add(8 + 8 * i as u64), arg)?;
    }
    let regs = &mut cx.m.cpus[cx.cpu].regs;
    for (i, slot) in [1usize, 2, 8, 9].into_iter().enumerate() {
        regs.gpr[slot] = args.get(i).copied().unwrap_or(0);
    }
    regs.gpr[4] = top;
    regs.rip = routine;
    Ok(())
}

/// Pushes an activation (ISR or DPC drain) whose first continuation is `start`.
pub(crate) fn enter_activation(cx: &mut Cx<'_>, kind: ActivationKind, start: Then) {
    let cpu = cx.cpu;
    let since = cx.now();
    let idle = cx.k.procs[cpu].current.is_none() && cx.k.procs[cpu].nest.is_empty();
    let saved = (!idle).then(|| cx.m.cpus[cpu].regs.clone());
    let saved_irql = cx.irql();
    let top = if cx.k.procs[cpu].nest.is_empty() {
        cx.k.procs[cpu].isr_stack
    } else {
        // Nested: go on below what the interrupted activation uses.
        (cx.m.cpus[cpu].regs.gpr[4] & !15).wrapping_sub(0x100)
    };
    let context = cx.k.new_context(cpu, &kind);
    cx.k.procs[cpu].nest.push(crate::kernel::Activation {
        kind,
        saved,
        saved_irql,
        frames: vec![Frame { then: start, rsp: None }],
        call_rsp: None,
        since,
        context,
    });
    let regs = &mut cx.m.cpus[cpu].regs;
    regs.gpr[4] = top;
    regs.rip = RETURN_GATE;
    regs.rflags = 0x202;
}

/// Pops the innermost activation and restores what it interrupted.
fn leave_activation(cx: &mut Cx<'_>) {
    let cpu = cx.cpu;
    if let Some(a) = cx.k.procs[cpu].nest.pop() {
        cx.set_irql(a.saved_irql);
        if let Some(regs) = a.saved {
            cx.m.cpus[cpu].regs = regs;
        } else {
            cx.m.cpus[cpu].regs.rflags |= 0x200;
        }
    }
}
