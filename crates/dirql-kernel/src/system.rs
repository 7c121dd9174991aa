//! The whole system, machine and kernel, and the loop that runs it.
//!
//! The default policy: processors take turns of at most [`TURN`] instructions, in order of number; an interrupt is
//! taken at the first boundary at which it may be; when all are idle, time jumps to the next timed event, and when
//! there is none, the next arrival of a device happens. All of it is a function of the inputs alone.

use dirql_event::{Event, EventKind};
use dirql_machine::Machine;
use dirql_mem::{MemFault, Va};
use dirql_x86::{Exception, Exit};

use crate::context::{Frame, Outcome};
use crate::cx::Cx;
use crate::interrupt;
use crate::kernel::{ActivationKind, Kernel};
use crate::loader::{RETURN_GATE, Resolved};
use crate::sched;
use crate::stop::{BugCheck, Stop};
use crate::then::Then;
use crate::timer;

/// Longest turn of one processor, in instructions.
pub const TURN: u64 = 1000;
/// Turns in a row in which no instruction retires and time stands still before the run is called hung.
const STALL_TURNS: u32 = 100_000;

/// The machine and its kernel. A clone continues identically.
#[derive(Clone)]
pub struct System {
    /// The machine.
    pub machine: Machine,
    /// The kernel.
    pub kernel: Kernel,
    budget: u64,
    retired: u64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The driver's life and the workload are over.
    Done,
    /// It ended early.
    Stopped(Stop),
}

impl System {
    /// A system ready to run for at most `budget` instructions.
    #[must_use]
    pub fn new(machine: Machine, kernel: Kernel, budget: u64) -> Self {
        Self { machine, kernel, budget, retired: 0 }
    }

    /// Instructions retired so far, on all processors.
    #[must_use]
    pub fn retired(&self) -> u64 {
        self.retired
    }

    /// Takes the events recorded since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.kernel.events)
    }

    /// A kernel routine's view of processor `cpu`.
    pub fn cx(&mut self, cpu: usize) -> Cx<'_> {
        Cx { m: &mut self.machine, k: &mut self.kernel, cpu }
    }

    /// Runs to the end.
    pub fn run(&mut self) -> Ended {
        loop {
            if let Some(end) = self.round() {
                return end;
            }
        }
    }

    /// One turn of every processor; gives how the run ended, when it did.
    pub fn round(&mut self) -> Option<Ended> {
        let mut busy = false;
        for cpu in 0..self.kernel.procs.len() {
            match self.turn(cpu) {
                Ok(ran) => busy |= ran,
                Err(stop) => return Some(Ended::Stopped(self.settle(cpu, stop))),
            }
            if self.kernel.life.done {
                return Some(Ended::Done);
            }
        }
        if busy { None } else { self.idle() }
    }

    /// All processors are idle: let time or a device bring something.
    fn idle(&mut self) -> Option<Ended> {
        let machine_next = self.machine.next_event_time();
        let kernel_next =
            [timer::next_due(&self.kernel), sched::next_deadline(&self.kernel)].into_iter().flatten().min();
        // An arrival happens whenever every processor is idle, in source order.
        if self.machine.idle_arrival() {
            return None;
        }
        match (machine_next, kernel_next) {
            (None, None) => {
                let why = self.kernel.life.waiting_for(&self.kernel);
                Some(Ended::Stopped(Stop::Hang { why }))
            }
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

    /// One processor's turn; true when it did something.
    fn turn(&mut self, cpu: usize) -> Result<bool, Stop> {
        let mut left = TURN;
        let mut stalls = 0u32;
        let mut ran = false;
        self.machine.run_due_events();
        interrupt::drain_machine_events(&mut self.cx(cpu));
        loop {
            self.boundary(cpu)?;
            if self.kernel.life.done {
                return Ok(true);
            }
            if self.kernel.procs[cpu].current.is_none() && self.kernel.procs[cpu].nest.is_empty() {
                return Ok(ran);
            }
            ran = true;
            if left == 0 {
                return Ok(true);
            }
            if self.retired >= self.budget {
                return Err(Stop::Budget { at: self.machine.cpus.iter().map(|c| c.regs.rip).collect() });
            }
            let exit = self.machine.run_cpu(cpu, left.min(self.budget - self.retired));
            let n = self.machine.retired();
            self.retired += n;
            left = left.saturating_sub(n);
            if n == 0 {
                stalls += 1;
                // An export call takes time too, so a loop of calls alone still moves the clock and the budget.
                let later = self.machine.now() + 10;
                self.machine.advance_to(later);
                self.retired += 1;
                left = left.saturating_sub(1);
                if stalls > STALL_TURNS {
                    return Ok(true);
                }
            }
            let spin = self.exit(cpu, exit)?;
            if spin {
                return Ok(true);
            }
        }
    }

    /// Between two instructions: interrupts, timers, DPCs, the scheduler.
    fn boundary(&mut self, cpu: usize) -> Result<(), Stop> {
        let now = self.machine.now();
        if timer::next_due(&self.kernel).is_some_and(|due| due <= now) {
            timer::expire(&mut self.cx(cpu))?;
        }
        sched::poll_waits(&mut self.cx(cpu))?;
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

    /// Acts on why the engine left the guest; true when the processor spins and others should run first.
    fn exit(&mut self, cpu: usize, exit: Exit) -> Result<bool, Stop> {
        let mut cx = Cx { m: &mut self.machine, k: &mut self.kernel, cpu };
        match exit {
            Exit::Budget | Exit::Cr8Changed | Exit::InterruptFlag | Exit::Device => {
                interrupt::drain_machine_events(&mut cx);
                Ok(false)
            }
            Exit::Pause => Ok(true),
            Exit::Halt => {
                interrupt::drain_machine_events(&mut cx);
                Ok(true)
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
            Exit::Exception(e) => Err(exception(&cx, &e)),
            Exit::Unsupported { rip, text } => Err(Stop::MissingInstruction { rip, text }),
        }
    }

    /// Gives a stop its final form: a fault in a kernel routine becomes the bug check that Windows gives.
    fn settle(&mut self, cpu: usize, stop: Stop) -> Stop {
        let cx = self.cx(cpu);
        let caller = cx.caller();
        let irql = cx.irql();
        let stop = match stop {
            Stop::Fault(fault) => Stop::BugCheck(fault_check(&fault, irql, caller, true)),
            Stop::BugCheck(mut b) => {
                if b.rip == 0 {
                    b.rip = caller;
                }
                Stop::BugCheck(b)
            }
            other => other,
        };
        if let Stop::BugCheck(b) = &stop {
            let stack = crate::loader::walk_stack(&cx, b.rip);
            let (code, params, reason) = (b.code, b.params, b.reason.clone());
            let mut cx = self.cx(cpu);
            let name = dirql_abi::bugcheck_name(code).unwrap_or("").to_owned();
            cx.event(EventKind::BugCheck { code, name, params, reason, stack });
        }
        stop
    }
}

/// The frames of what runs on the processor: its innermost activation, else its thread.
fn frames<'a>(cx: &'a mut Cx<'_>) -> Option<(&'a mut Vec<Frame>, &'a mut Option<u64>)> {
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

fn set_call_rsp(cx: &mut Cx<'_>, rsp: Option<u64>) {
    if let Some((_, call)) = frames(cx) {
        *call = rsp;
    }
}

fn call_rsp(cx: &mut Cx<'_>) -> Option<u64> {
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
fn export_call(cx: &mut Cx<'_>, rip: u64) -> Result<bool, Stop> {
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
    if cx.k.trace_exports {
        let args = (0..4).map(|i| cx.arg(i)).collect::<Result<Vec<_>, _>>()?;
        cx.event(EventKind::Export { name: export.name.to_owned(), args, ret: caller });
    }
    set_call_rsp(cx, Some(rsp));
    match (export.shim)(cx)? {
        Outcome::Retry => {
            set_call_rsp(cx, None);
            Ok(true)
        }
        outcome => settle_outcome(cx, outcome),
    }
}

/// Carries out what a kernel routine decided; true when the processor spins.
pub(crate) fn settle_outcome(cx: &mut Cx<'_>, outcome: Outcome) -> Result<bool, Stop> {
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
            Ok(false)
        }
        Outcome::Call { routine, args, then } => {
            call_guest(cx, routine, &args, then)?;
            Ok(false)
        }
        Outcome::Wait { wait, then } => {
            sched::block(cx, wait, then)?;
            Ok(false)
        }
        Outcome::Spin(then) => {
            let rsp = call_rsp(cx);
            set_call_rsp(cx, None);
            if let Some((frames, _)) = frames(cx) {
                frames.push(Frame { then, rsp });
            }
            cx.m.cpus[cx.cpu].regs.rip = RETURN_GATE;
            Ok(true)
        }
        Outcome::Retry => Err(Stop::Internal("a continuation asked for its export to be retried".into())),
        Outcome::End => {
            if cx.k.procs[cx.cpu].nest.is_empty() {
                sched::terminate_current(cx, 0)?;
            } else {
                leave_activation(cx);
            }
            Ok(false)
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
    cx.k.procs[cpu].nest.push(crate::kernel::Activation {
        kind,
        saved,
        saved_irql,
        frames: vec![Frame { then: start, rsp: None }],
        call_rsp: None,
        since,
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

/// The bug check for a processor exception that no handler of the driver takes.
fn exception(cx: &Cx<'_>, e: &Exception) -> Stop {
    let rip = cx.m.cpus[cx.cpu].regs.rip;
    let irql = cx.irql();
    match e {
        Exception::PageFault { addr, write, execute, present } => {
            let access = match (execute, write) {
                (true, _) => dirql_mem::Access::Execute,
                (_, true) => dirql_mem::Access::Write,
                _ => dirql_mem::Access::Read,
            };
            let kind = if *present { dirql_mem::Fault::Protection } else { dirql_mem::Fault::NotPresent };
            Stop::BugCheck(fault_check(&MemFault { va: Va(*addr), access, kind }, irql, rip, false))
        }
        Exception::FastFail(code) => Stop::BugCheck(BugCheck {
            code: 0x139,
            params: [u64::from(*code), 0, 0, 0],
            reason: format!("the driver's own check failed (int 29h, fast-fail code {code})"),
            rip,
        }),
        other => {
            let status: u32 = match other {
                Exception::DivideError => 0xC000_0094,
                Exception::Breakpoint => 0x8000_0003,
                Exception::Debug => 0x8000_0004,
                Exception::Overflow => 0xC000_0095,
                Exception::InvalidOpcode => 0xC000_001D,
                Exception::AlignmentCheck => 0x8000_0002,
                Exception::X87 => 0xC000_0090,
                Exception::Simd => 0xC000_02B5,
                _ => 0xC000_0005,
            };
            let in_isr = cx.k.procs[cx.cpu].nest.iter().any(|a| matches!(a.kind, ActivationKind::Isr(_)));
            Stop::BugCheck(BugCheck {
                code: if in_isr { 0x3D } else { 0x1E },
                params: [u64::from(status), rip, 0, 0],
                reason: format!("unhandled exception: {other}"),
                rip,
            })
        }
    }
}

/// The bug check for an access that failed: 0xD1 or 0xA at DISPATCH_LEVEL and above, 0x50 below
/// (spec 7.1; the bug-check pages of the same names).
fn fault_check(fault: &MemFault, irql: u8, rip: u64, in_kernel: bool) -> BugCheck {
    let Va(va) = fault.va;
    let (kind, verb) = match fault.access {
        dirql_mem::Access::Read => (0, "read"),
        dirql_mem::Access::Write => (1, "write"),
        dirql_mem::Access::Execute => (8, "execution"),
    };
    let of = match fault.kind {
        dirql_mem::Fault::Protection => "memory that does not permit it",
        dirql_mem::Fault::NonCanonical => "an address that is not canonical",
        dirql_mem::Fault::NotPresent if va < 0x1_0000 => "a NULL pointer or an offset from one",
        dirql_mem::Fault::NotPresent => "memory that is not there",
    };
    let whose = if in_kernel { " by a kernel routine on the driver's behalf" } else { "" };
    let reason = format!("{verb} of {of} at {va:#x}{whose}, IRQL {irql}");
    if irql >= 2 {
        let code = if in_kernel { 0xA } else { 0xD1 };
        BugCheck { code, params: [va, u64::from(irql), kind, rip], reason, rip }
    } else if va < 0x8000_0000_0000 || matches!(fault.kind, dirql_mem::Fault::NonCanonical) {
        BugCheck { code: 0x1E, params: [0xC000_0005, rip, kind, va], reason, rip }
    } else {
        BugCheck { code: 0x50, params: [va, kind, rip, 0], reason, rip }
    }
}
