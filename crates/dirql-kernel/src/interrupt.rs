//! The interrupt core's ports on the machine: it decides, this carries out.
//!
//! An accepted vector becomes an ISR activation on its processor; the core's steps (raise, lock, call, unlock, EOI)
//! are carried out one by one as continuations, so an activation can be interrupted, spin or be cloned between any
//! two of them.

use std::collections::BTreeSet;

use dirql_core::{
    Allocation, Arbiter, AssignedKind, Config, Core, CpuId, Dispatch, DpcInsert, DpcQueues, Drain,
    FlushTicket, Importance, Input, Irql, LockKind, ObjectRequest, Param, Ports, SetId, Source, Step,
    SyncFault, SyncPlan, Topology,
};
use dirql_event::{EventKind, InterruptSource};
use dirql_machine::{Machine, MachineEventKind};
use dirql_mem::{Memory, Va};

use crate::context::{Outcome, Result, Wait, ret, void};
use crate::cx::Cx;
use crate::io::Pdo;
use crate::kernel::{ActivationKind, Kernel};
use crate::pool::{Pool, PoolKind};
use crate::stop::{BugCheck, Stop};
use crate::system::enter_activation;
use crate::then::Then;

/// What a queued DPC's run needs, copied out at insertion (spec 4.7).
#[derive(Clone, Copy, Debug)]
pub struct DpcArgs {
    /// DeferredRoutine.
    pub routine: u64,
    /// DeferredContext.
    pub context: u64,
    /// SystemArgument1.
    pub arg1: u64,
    /// SystemArgument2.
    pub arg2: u64,
}

/// The interrupt core and what the kernel keeps beside it.
#[derive(Clone, Debug)]
pub struct Interrupts {
    /// Connections, chains, dispatch.
    pub core: Core<u64, u64>,
    /// Vectors.
    pub arbiter: Arbiter,
    /// DPC queues.
    pub dpcs: DpcQueues<u64, DpcArgs>,
    fences: Vec<FlushTicket>,
    /// KINTERRUPTs that were disconnected, by address: a use of one is not a use of one built by hand.
    stale: BTreeSet<u64>,
    /// Processors whose threaded-DPC thread runs.
    dpc_threads: BTreeSet<u32>,
    /// When each processor's next clock tick is due, in virtual nanoseconds.
    ticks: Vec<u64>,
}

impl Interrupts {
    /// For a machine of `cpus` processors in one group.
    #[must_use]
    pub fn new(config: Config, cpus: u32) -> Self {
        let topology = Topology::single_group(cpus);
        let delivery = config.delivery;
        Self {
            core: Core::new(config, topology.clone()),
            arbiter: Arbiter::new(topology).with_delivery(delivery),
            dpcs: DpcQueues::new(cpus, true),
            fences: vec![],
            stale: BTreeSet::new(),
            dpc_threads: BTreeSet::new(),
            ticks: vec![0; cpus as usize],
        }
    }
}

/// Size of a KINTERRUPT on x64 Windows.
const KINTERRUPT_SIZE: u64 = 0x100;
/// KINTERRUPT.ActualLock and SynchronizeIrql, which code in the field reads at these offsets on Windows 7 and later.
pub(crate) const ACTUAL_LOCK: u64 = 0x48;
const SYNCHRONIZE_IRQL: u64 = 0x5d;
/// One clock tick in nanoseconds.
const TICK_NS: u64 = 100 * crate::timer::TIME_INCREMENT;
const TAG: u32 = u32::from_le_bytes(*b"Intr");

/// The core's ports.
pub(crate) struct KernelPorts<'a> {
    m: &'a mut Machine,
    pool: &'a mut Pool,
    pdos: &'a [Pdo],
    lines: Vec<(u8, u32)>,
    stale: &'a mut BTreeSet<u64>,
}

impl KernelPorts<'_> {
    fn alloc(&mut self, size: u64, fill: impl FnOnce(&mut Memory, u64)) -> Option<u64> {
        let at = self.pool.alloc(&mut self.m.mem, size, PoolKind::NonPaged, TAG).ok()?;
        let zero = vec![0; size as usize];
        self.m.mem.write(Va(at), &zero).ok()?;
        fill(&mut self.m.mem, at);
        Some(at)
    }

    fn set_mask(&mut self, source: Source<u64>, masked: bool) {
        match source {
            Source::Line { gsi } => self.m.ioapic_mask(gsi, masked),
            Source::Message { pdo, entry, .. } => {
                if let Some(p) = self.pdos.iter().find(|p| p.object == pdo) {
                    crate::board::message_mask(self.m, p.machine, entry, masked);
                }
            }
            // A legacy connect on a vector: the lines that the arbiter gave that vector.
            Source::Vector(vector) => {
                let lines: Vec<u32> =
                    self.lines.iter().filter(|(v, _)| *v == vector).map(|(_, g)| *g).collect();
                for gsi in lines {
                    self.m.ioapic_mask(gsi, masked);
                }
            }
        }
    }
}

impl Ports<u64> for KernelPorts<'_> {
    fn alloc_object(&mut self, request: ObjectRequest<u64>) -> Option<u64> {
        let object = self.alloc(KINTERRUPT_SIZE, |mem, at| {
            // Freshly allocated and mapped, so these cannot fail; a failure would show as a wrong object type.
            let _ = mem.write_u16(Va(at), 22);
            let _ = mem.write_u16(Va(at + 2), KINTERRUPT_SIZE as u16);
            let _ = mem.write_u32(Va(at + 0x58), u32::from(request.vector));
            let _ = mem.write_u8(Va(at + 0x5c), request.irql.0);
            let _ = mem.write_u8(Va(at + SYNCHRONIZE_IRQL), request.sync_irql.0);
        })?;
        self.stale.remove(&object);
        Some(object)
    }

    fn alloc_lock(&mut self) -> Option<u64> {
        self.alloc(16, |_, _| {})
    }

    fn alloc_event(&mut self) -> Option<u64> {
        self.alloc(24, |mem, at| {
            let _ = mem.write_u8(Va(at), 1);
            let _ = mem.write_u32(Va(at + 4), 1);
            let _ = mem.write_u64(Va(at + 8), at + 8);
            let _ = mem.write_u64(Va(at + 16), at + 8);
        })
    }

    fn alloc_table(&mut self, messages: u32) -> Option<u64> {
        self.alloc(8 + 48 * u64::from(messages), |_, _| {})
    }

    fn free(&mut self, what: Allocation<u64>) {
        let (Allocation::Object(at) | Allocation::Lock(at) | Allocation::Event(at) | Allocation::Table(at)) =
            what;
        if let Allocation::Object(at) = what {
            self.stale.insert(at);
        }
        // Only what this port allocated comes back here.
        let _ = self.pool.free(&mut self.m.mem, at);
    }

    fn mask(&mut self, source: Source<u64>) {
        self.set_mask(source, true);
    }

    fn unmask(&mut self, source: Source<u64>) {
        self.set_mask(source, false);
    }
}

/// The vector and GSI of every line that devices were assigned.
fn lines(k: &Kernel) -> Vec<(u8, u32)> {
    let assigned = k.io.pdos.iter().filter_map(|p| k.interrupts.core.assigned(p.object)).flatten();
    assigned
        .filter_map(|a| match a.kind {
            AssignedKind::Line { gsi } => Some((a.vector, gsi)),
            AssignedKind::Message { .. } => None,
        })
        .collect()
}

/// Runs `f` with the core and its ports.
pub(crate) fn with_core<T>(
    cx: &mut Cx<'_>,
    f: impl FnOnce(&mut Core<u64, u64>, &mut KernelPorts<'_>) -> T,
) -> T {
    let lines = lines(cx.k);
    let k = &mut *cx.k;
    let (core, stale) = (&mut k.interrupts.core, &mut k.interrupts.stale);
    let mut ports = KernelPorts { m: cx.m, pool: &mut k.pool, pdos: &k.io.pdos, lines, stale };
    f(core, &mut ports)
}

/// The core's bug check as the kernel's.
pub(crate) fn stop_of(b: dirql_core::BugCheck<u64, u64>, reason: &str) -> Stop {
    let params = b.params.map(|p| match p {
        Param::Value(v) => v,
        Param::Routine(v) | Param::Token(v) => v,
    });
    Stop::BugCheck(BugCheck { code: b.code, params, reason: reason.to_owned(), rip: 0 })
}

/// Continuations of interrupt dispatch, DPC drains and KeSynchronizeExecution.
#[derive(Clone, Debug)]
pub enum IsrThen {
    /// Carry out the core's next step.
    Step(Dispatch, Step<u64, u64>, u8),
    /// The service routine returned.
    Returned {
        /// The dispatch.
        dispatch: Dispatch,
        /// Its vector.
        vector: u8,
        /// When the routine was entered.
        since: u64,
    },
    /// The next DPC of the queue.
    Drain,
    /// A deferred routine returned.
    DpcReturned {
        /// The insertion it belongs to.
        sequence: u64,
        /// The routine.
        routine: u64,
        /// When it was entered.
        since: u64,
    },
    /// Take the lock for KeSynchronizeExecution, at the raised IRQL.
    SyncLock {
        /// What to take.
        plan: SyncPlan<u64>,
        /// The routine to call.
        routine: u64,
        /// Its context.
        context: u64,
        /// IRQL to go back to.
        old: u8,
    },
    /// The synchronised routine returned.
    SyncReturned {
        /// What was taken.
        plan: SyncPlan<u64>,
        /// IRQL to go back to.
        old: u8,
    },
    /// Take the lock for KeAcquireInterruptSpinLock.
    SpinLock {
        /// What to take.
        plan: SyncPlan<u64>,
        /// IRQL to return.
        old: u8,
    },
    /// IoDisconnectInterruptEx waited for running routines.
    Disconnected(SetId),
    /// A worker for passive-level routines of a vector starts.
    Passive(u8),
    /// The next threaded DPC of a processor.
    ThreadedDrain(u32),
    /// A threaded DPC's routine returned.
    ThreadedReturned {
        /// The processor.
        cpu: u32,
        /// The insertion it belongs to.
        sequence: u64,
        /// The routine.
        routine: u64,
        /// When it was entered.
        since: u64,
    },
    /// A connection is open: give it to the caller.
    Connected {
        /// The parameters; 0 for the call that has no Version.
        params: u64,
        /// The Version to give back.
        version: u32,
        /// Where the pointer goes.
        out: u64,
        /// The pointer.
        value: u64,
    },
}

impl IsrThen {
    pub(crate) fn resume(self, cx: &mut Cx<'_>, value: u64) -> Result {
        match self {
            Self::Step(dispatch, step, vector) => carry_out(cx, dispatch, step, vector),
            Self::Returned { mut dispatch, vector, since } => {
                let al = value as u8;
                let ns = cx.now() - since;
                cx.event(EventKind::IsrExit { vector: u32::from(vector), claimed: al != 0, ns });
                let irql = Irql(cx.irql());
                let step = with_core(cx, |core, ports| {
                    core.step(&mut dispatch, Input::IsrReturned { al, irql }, ports)
                });
                carry_out(cx, dispatch, step, vector)
            }
            Self::Drain => drain_next(cx),
            Self::DpcReturned { sequence, routine, since } => {
                let ns = cx.now() - since;
                cx.event(EventKind::DpcEnd { routine, ns });
                cx.k.interrupts.dpcs.finish(sequence);
                if cx.irql() != 2 {
                    return Err(Stop::bug_check(
                        0xC8,
                        [u64::from(cx.irql()) << 16 | 2 << 8, routine, 0, 0],
                        format!(
                            "a DPC routine returned at IRQL {}; it was called at DISPATCH_LEVEL (2)",
                            cx.irql()
                        ),
                    ));
                }
                drain_next(cx)
            }
            Self::SyncLock { plan, routine, context, old } => sync_lock(cx, plan, routine, context, old),
            Self::SyncReturned { plan, old } => {
                release(cx, plan.lock, plan.kind)?;
                cx.set_irql(old);
                ret(value & 0xff)
            }
            Self::SpinLock { plan, old } => {
                if !acquire(cx, plan.lock)? {
                    return Ok(Outcome::Spin(Then::Isr(Self::SpinLock { plan, old })));
                }
                ret(u64::from(old))
            }
            Self::Disconnected(set) => match cx.k.interrupts.core.finish_disconnect(set) {
                Some(freed) => {
                    free_all(cx, &freed);
                    void()
                }
                None => Ok(Outcome::Wait {
                    wait: Wait { isr_fence: Some(set.0), deadline: None, ..Wait::until(0) },
                    then: Then::Isr(Self::Disconnected(set)),
                }),
            },
            Self::ThreadedDrain(cpu) => threaded_next(cx, cpu),
            Self::ThreadedReturned { cpu, sequence, routine, since } => {
                let ns = cx.now() - since;
                cx.event(EventKind::DpcEnd { routine, ns });
                cx.k.interrupts.dpcs.finish(sequence);
                if cx.irql() != 0 {
                    return Err(Stop::bug_check(
                        0xC8,
                        [u64::from(cx.irql()) << 16, routine, 0, 0],
                        format!(
                            "a threaded DPC routine returned at IRQL {}; it was called at PASSIVE_LEVEL (0)",
                            cx.irql()
                        ),
                    ));
                }
                threaded_next(cx, cpu)
            }
            Self::Connected { params, version, out, value } => {
                if params != 0 {
                    cx.w32(params, version)?;
                }
                cx.w64(out, value)?;
                ret(0)
            }
            Self::Passive(vector) => {
                let cpu = CpuId(cx.cpu as u32);
                let (dispatch, step) = with_core(cx, |core, ports| core.begin_passive(cpu, vector, ports));
                carry_out(cx, dispatch, step, vector)
            }
        }
    }
}

/// Gives back what a disconnect freed.
pub(crate) fn free_all(cx: &mut Cx<'_>, freed: &[Allocation<u64>]) {
    with_core(cx, |_, ports| {
        for what in freed {
            ports.free(*what);
        }
    });
}

/// Tries to take a spin lock in guest memory; a lock that this processor holds itself is a deadlock.
pub(crate) fn acquire(cx: &mut Cx<'_>, lock: u64) -> std::result::Result<bool, Stop> {
    let cpu = cx.cpu;
    if cx.r64(lock)? != 0 {
        if cx.k.ke.lock_owner.get(&lock) == Some(&cpu) {
            return Err(Stop::bug_check(
                0xF,
                [lock, 0, 0, 0],
                "an interrupt spin lock is taken by the processor that holds it already: it would spin for ever",
            ));
        }
        return Ok(false);
    }
    cx.w64(lock, 1)?;
    cx.k.ke.lock_owner.insert(lock, cpu);
    Ok(true)
}

fn release(cx: &mut Cx<'_>, lock: u64, kind: LockKind) -> std::result::Result<(), Stop> {
    match kind {
        LockKind::Spin => {
            cx.k.ke.lock_owner.remove(&lock);
            cx.w64(lock, 0)
        }
        LockKind::Event => {
            cx.w32(lock + 4, 1)?;
            crate::sched::wake_waiters(cx, lock)
        }
    }
}

/// Releases an interrupt spin lock that KeAcquireInterruptSpinLock took.
pub(crate) fn release_spin(cx: &mut Cx<'_>, lock: u64) -> std::result::Result<(), Stop> {
    release(cx, lock, LockKind::Spin)
}

/// Takes the vector on this processor: an ISR activation begins.
pub(crate) fn deliver(cx: &mut Cx<'_>, vector: u8) -> std::result::Result<(), Stop> {
    cx.m.accept(cx.cpu, vector);
    cx.event(EventKind::InterruptAccepted { vector: u32::from(vector) });
    let (cpu, irql) = (CpuId(cx.cpu as u32), Irql(cx.irql()));
    let (dispatch, step) = with_core(cx, |core, ports| core.begin(cpu, vector, irql, ports));
    enter_activation(cx, ActivationKind::Isr(vector), Then::Isr(IsrThen::Step(dispatch, step, vector)));
    // Nothing of its class or below interrupts it from here on.
    let class = (vector >> 4).max(cx.irql());
    cx.set_irql(class);
    Ok(())
}

/// Carries out steps until one needs the guest or has to wait.
fn carry_out(cx: &mut Cx<'_>, mut dispatch: Dispatch, mut step: Step<u64, u64>, vector: u8) -> Result {
    loop {
        match step {
            Step::SetIrql(irql) => cx.set_irql(irql.0),
            Step::AcquireLock { lock, kind: LockKind::Spin, .. } => {
                if !acquire(cx, lock)? {
                    return Ok(Outcome::Spin(Then::Isr(IsrThen::Step(dispatch, step, vector))));
                }
            }
            Step::AcquireLock { lock, kind: LockKind::Event, .. } => {
                let next = with_core(cx, |core, ports| core.step(&mut dispatch, Input::Continue, ports));
                return Ok(Outcome::Wait {
                    wait: Wait::object(lock),
                    then: Then::Isr(IsrThen::Step(dispatch, next, vector)),
                });
            }
            Step::CallIsr(call) => {
                let since = cx.now();
                let message = call.message;
                cx.event(EventKind::IsrEnter { vector: u32::from(vector), message, routine: call.routine });
                let mut args = vec![call.public, call.context];
                args.extend(message.map(u64::from));
                return Ok(Outcome::Call {
                    routine: call.routine,
                    args,
                    then: Then::Isr(IsrThen::Returned { dispatch, vector, since }),
                });
            }
            Step::ReleaseLock { lock, kind, .. } => release(cx, lock, kind)?,
            Step::QueuePassive { vector, start_worker } => {
                if start_worker {
                    crate::sched::spawn(
                        cx,
                        "passive-level interrupt",
                        Then::Isr(IsrThen::Passive(vector)),
                        true,
                        24,
                    )?;
                }
            }
            Step::Unexpected { vector } => cx.event(EventKind::Unexpected { vector: u32::from(vector) }),
            Step::Done { restore: _, .. } => {
                let freed = cx.k.interrupts.core.take_reaped();
                free_all(cx, &freed);
                if cx.k.procs[cx.cpu].nest.is_empty() {
                    // A passive worker: no vector is in service.
                    return Ok(Outcome::End);
                }
                cx.m.eoi(cx.cpu);
                // An edge line that stays up asks for nothing more.
                let level = |gsi: u32| cx.m.wiring(gsi).is_some_and(|w| w.level);
                let still = lines(cx.k)
                    .iter()
                    .any(|(v, gsi)| *v == vector && level(*gsi) && cx.m.line_asserted(*gsi));
                let cpu = CpuId(cx.cpu as u32);
                if let Some(b) = cx.k.interrupts.core.after_eoi(cpu, vector, still) {
                    return Err(stop_of(
                        b,
                        "an interrupt storm: the line stays asserted though every service routine was called again and again",
                    ));
                }
                return Ok(Outcome::End);
            }
            Step::BugCheck(b) => {
                return Err(stop_of(
                    b,
                    "the interrupt service routine returned at another IRQL than it was called at",
                ));
            }
        }
        step = with_core(cx, |core, ports| core.step(&mut dispatch, Input::Continue, ports));
    }
}

/// A clock tick, when one is due and not masked: DPCs that were held back run now (spec I-22).
pub(crate) fn tick(cx: &mut Cx<'_>) {
    let (now, cpu) = (cx.now(), cx.cpu);
    if cx.irql() >= Irql::CLOCK.0 {
        return;
    }
    let Some(due) = cx.k.interrupts.ticks.get_mut(cpu).filter(|due| **due <= now) else { return };
    *due = (now / TICK_NS + 1).saturating_mul(TICK_NS);
    cx.k.interrupts.dpcs.tick(CpuId(cpu as u32));
}

/// Are DPCs waiting that this processor should run now?
pub(crate) fn dpcs_pending(k: &Kernel, cpu: usize) -> bool {
    let id = CpuId(cpu as u32);
    let idle = k.procs[cpu].current.is_none() && k.procs[cpu].nest.is_empty();
    k.interrupts.dpcs.requested(id) || (idle && k.interrupts.dpcs.depth(id) > 0)
}

/// Begins a drain of this processor's DPC queue, at DISPATCH_LEVEL on its DPC stack.
pub(crate) fn begin_drain(cx: &mut Cx<'_>) -> std::result::Result<(), Stop> {
    enter_activation(cx, ActivationKind::Dpc, Then::Isr(IsrThen::Drain));
    cx.set_irql(2);
    Ok(())
}

fn drain_next(cx: &mut Cx<'_>) -> Result {
    let cpu = CpuId(cx.cpu as u32);
    cx.k.interrupts.core.note_progress(cpu);
    let Some(record) = cx.k.interrupts.dpcs.pop(cpu) else { return Ok(Outcome::End) };
    // DpcData goes to NULL before the routine is called: it may be queued again, or freed, from here on (spec 4.7).
    cx.w64(record.dpc + 56, 0)?;
    let since = cx.now();
    let a = record.args;
    cx.event(EventKind::DpcStart { routine: a.routine });
    Ok(Outcome::Call {
        routine: a.routine,
        args: vec![record.dpc, a.context, a.arg1, a.arg2],
        then: Then::Isr(IsrThen::DpcReturned { sequence: record.sequence, routine: a.routine, since }),
    })
}

/// The thread of a processor's threaded DPCs (spec 4.7): one after another at PASSIVE_LEVEL, until none is left.
fn threaded_next(cx: &mut Cx<'_>, cpu: u32) -> Result {
    let Some(record) = cx.k.interrupts.dpcs.pop_threaded(CpuId(cpu)) else {
        cx.k.interrupts.dpc_threads.remove(&cpu);
        return Ok(Outcome::End);
    };
    cx.w64(record.dpc + 56, 0)?;
    let since = cx.now();
    let a = record.args;
    cx.event(EventKind::DpcStart { routine: a.routine });
    Ok(Outcome::Call {
        routine: a.routine,
        args: vec![record.dpc, a.context, a.arg1, a.arg2],
        then: Then::Isr(IsrThen::ThreadedReturned {
            cpu,
            sequence: record.sequence,
            routine: a.routine,
            since,
        }),
    })
}

/// The set whose passive-level routine the current thread is in: it does not wait for itself (spec X6).
pub(crate) fn inside(cx: &Cx<'_>) -> Option<SetId> {
    let thread = cx.k.procs[cx.cpu].current.and_then(|id| cx.k.threads.get(&id))?;
    thread.frames.iter().rev().find_map(|frame| match &frame.then {
        Then::Isr(IsrThen::Returned { dispatch, .. }) if dispatch.is_worker() => {
            Some(cx.k.interrupts.core.object(dispatch.object()?)?.set)
        }
        _ => None,
    })
}

/// KeInsertQueueDpc (spec 4.7, 10.4).
pub(crate) fn insert_dpc(cx: &mut Cx<'_>, dpc: u64, arg1: u64, arg2: u64) -> std::result::Result<bool, Stop> {
    let kind = cx.r8(dpc)?;
    if kind != 19 && kind != 24 {
        return Err(Stop::bug_check(
            0xC7,
            [1, dpc, 0, 0],
            format!("KeInsertQueueDpc on memory at {dpc:#x} that is no initialised KDPC"),
        ));
    }
    if cx.k.interrupts.dpcs.is_queued(dpc) {
        return Ok(false);
    }
    let number = u32::from(cx.r16(dpc + 2)?);
    let cpus = cx.k.procs.len() as u32;
    let base = crate::exports::ke_dpc::number_base(cx.k);
    let target = number.checked_sub(base).filter(|n| *n < cpus).map(CpuId);
    let importance = Importance::from_raw(cx.r8(dpc + 1)?).unwrap_or_default();
    let args = DpcArgs { routine: cx.r64(dpc + 24)?, context: cx.r64(dpc + 32)?, arg1, arg2 };
    cx.w64(dpc + 40, arg1)?;
    cx.w64(dpc + 48, arg2)?;
    // Non-NULL means queued; drivers only compare it with NULL.
    let queue = cx.k.procs[target.map_or(cx.cpu, |t| t.0 as usize)].kpcr;
    cx.w64(dpc + 56, queue)?;
    let current = CpuId(cx.cpu as u32);
    let threaded = kind == 24;
    let outcome = cx.k.interrupts.dpcs.insert(DpcInsert { dpc, args, target, current, importance, threaded });
    if outcome.inserted {
        cx.event(EventKind::DpcQueued { routine: args.routine, target: target.unwrap_or(current).0 });
        match outcome.drain {
            Drain::Ipi(cpu) => {
                cx.k.interrupts.dpcs.request(cpu);
            }
            // Above every other thread (spec D-15), on its own processor.
            Drain::Thread(cpu) if cx.k.interrupts.dpc_threads.insert(cpu.0) => {
                let start = Then::Isr(IsrThen::ThreadedDrain(cpu.0));
                let id = crate::sched::spawn(cx, "threaded DPCs", start, true, 31)?;
                if let Some(thread) = cx.k.threads.get_mut(&id) {
                    thread.affinity = 1u64.checked_shl(cpu.0).unwrap_or(u64::MAX);
                }
            }
            Drain::Thread(_) | Drain::Local | Drain::None => {}
        }
    }
    Ok(outcome.inserted)
}

/// KeRemoveQueueDpc.
pub(crate) fn remove_dpc(cx: &mut Cx<'_>, dpc: u64) -> std::result::Result<bool, Stop> {
    let removed = cx.k.interrupts.dpcs.remove(dpc);
    if removed {
        cx.w64(dpc + 56, 0)?;
    }
    Ok(removed)
}

/// KeFlushQueuedDpcs begins: drains are asked for everywhere; wait for the fence.
pub(crate) fn dpc_fence(cx: &mut Cx<'_>) -> u64 {
    for cpu in 0..cx.k.procs.len() as u32 {
        cx.k.interrupts.dpcs.request(CpuId(cpu));
    }
    let ticket = cx.k.interrupts.dpcs.flush();
    cx.k.interrupts.fences.push(ticket);
    cx.k.interrupts.fences.len() as u64 - 1
}

/// Has every DPC queued before the fence run?
pub(crate) fn dpc_fence_passed(k: &Kernel, fence: u64) -> bool {
    k.interrupts.fences.get(fence as usize).is_none_or(|t| k.interrupts.dpcs.flushed(*t))
}

/// Does a routine of this interrupt set run?
pub(crate) fn set_running(k: &Kernel, set: u64) -> bool {
    k.interrupts.core.set_is_running(SetId(set))
}

/// A fault of KeSynchronizeExecution and its kin as a stop.
pub(crate) fn sync_fault(fault: SyncFault<u64, u64>, interrupt: u64) -> Stop {
    match fault {
        SyncFault::NotConnected => Stop::bug_check(
            0xD1,
            [interrupt, 0, 0, 0],
            format!(
                "the interrupt object at {interrupt:#x} is not connected (NULL, never connected, or disconnected)"
            ),
        ),
        SyncFault::IrqlTooHigh { current, limit } => Stop::bug_check(
            0x9,
            [u64::from(current.0), u64::from(limit.0), 0, 0],
            format!("called at IRQL {}; the interrupt's SynchronizeIrql is {}", current.0, limit.0),
        ),
        SyncFault::BugCheck(b) => stop_of(b, "an interrupt spin lock routine on a passive-level interrupt"),
    }
}

/// What KeSynchronizeExecution and the interrupt spin lock routines do with an object that this kernel did not
/// connect: Windows reads two fields of it and nothing else, so one that a driver built by hand works too.
pub(crate) fn plan_of(
    cx: &Cx<'_>,
    interrupt: u64,
    plan: std::result::Result<SyncPlan<u64>, SyncFault<u64, u64>>,
) -> std::result::Result<SyncPlan<u64>, Stop> {
    match plan {
        Err(SyncFault::NotConnected) if interrupt != 0 && !cx.k.interrupts.stale.contains(&interrupt) => {
            let lock = cx.r64(interrupt.wrapping_add(ACTUAL_LOCK))?;
            let sync_irql = Irql(cx.r8(interrupt.wrapping_add(SYNCHRONIZE_IRQL))?);
            let current = Irql(cx.irql());
            if lock == 0 || sync_irql > Irql::HIGH {
                return Err(sync_fault(SyncFault::NotConnected, interrupt));
            }
            if current > sync_irql {
                return Err(sync_fault(SyncFault::IrqlTooHigh { current, limit: sync_irql }, interrupt));
            }
            Ok(SyncPlan { object: dirql_core::ObjectId(0), sync_irql, lock, kind: LockKind::Spin })
        }
        other => other.map_err(|fault| sync_fault(fault, interrupt)),
    }
}

/// KeSynchronizeExecution: raise, lock, call, unlock, lower (spec 4.5).
pub(crate) fn synchronize(cx: &mut Cx<'_>, interrupt: u64, routine: u64, context: u64) -> Result {
    let old = cx.irql();
    let plan = plan_of(cx, interrupt, cx.k.interrupts.core.sync_plan(interrupt, Irql(old)))?;
    if plan.kind == LockKind::Event {
        return Ok(Outcome::Wait {
            wait: Wait::object(plan.lock),
            then: Then::Isr(IsrThen::SyncLock { plan, routine, context, old }),
        });
    }
    cx.set_irql(plan.sync_irql.0);
    sync_lock(cx, plan, routine, context, old)
}

fn sync_lock(cx: &mut Cx<'_>, plan: SyncPlan<u64>, routine: u64, context: u64, old: u8) -> Result {
    if plan.kind == LockKind::Spin && !acquire(cx, plan.lock)? {
        return Ok(Outcome::Spin(Then::Isr(IsrThen::SyncLock { plan, routine, context, old })));
    }
    Ok(Outcome::Call { routine, args: vec![context], then: Then::Isr(IsrThen::SyncReturned { plan, old }) })
}

/// Turns what devices did into events.
pub(crate) fn drain_machine_events(cx: &mut Cx<'_>) {
    for event in cx.m.take_events() {
        let (device, source) = match event.kind {
            MachineEventKind::Line { device, gsi, asserted: true } => (device, InterruptSource::Line { gsi }),
            MachineEventKind::Message { device, message, .. } => {
                (device, InterruptSource::Message { message })
            }
            _ => continue,
        };
        let name =
            cx.k.io.pdos.iter().find(|p| p.machine == device).map_or_else(String::new, |p| p.name.clone());
        cx.k.record(event.time, None, 0, EventKind::InterruptRaised { device: name, source });
    }
}
