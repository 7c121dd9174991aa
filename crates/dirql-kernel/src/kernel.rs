//! The kernel's own state: everything that is not in guest memory.

use std::collections::{BTreeMap, VecDeque};

use dirql_event::{Event, EventKind};
use dirql_x86::Regs;

use crate::context::Frame;
use crate::exports::ke::KeState;
use crate::interrupt::Interrupts;
use crate::io::IoState;
use crate::life::Life;
use crate::loader::Modules;
use crate::pool::Pool;
use crate::registry::Registry;
use crate::thread::Thread;
use crate::trace::Mark;

/// An ISR or DPC activation on a processor: what it interrupted and the kernel routines in progress in it.
#[derive(Clone, Debug)]
pub struct Activation {
    /// ISR or DPC, for reports.
    pub kind: ActivationKind,
    /// Registers of what it interrupted; none when the processor was idle.
    pub saved: Option<Regs>,
    /// IRQL of what it interrupted.
    pub saved_irql: u8,
    /// Kernel routines in progress in it.
    pub frames: Vec<Frame>,
    /// Guest RSP at the entry of the export now being served, if any.
    pub call_rsp: Option<u64>,
    /// When it began (virtual ns).
    pub since: u64,
    /// Which activation it is.
    pub context: Context,
}

/// Who acts: named so that the same activity has the same name in every schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Context {
    /// A thread, by number.
    Thread(u32),
    /// The `n`-th service of a vector.
    Isr {
        /// The vector.
        vector: u8,
        /// Which service of it, from 0.
        n: u32,
    },
    /// The `n`-th drain of a processor's DPC queue.
    Dpc {
        /// The processor.
        cpu: u32,
        /// Which drain, from 0.
        n: u32,
    },
    /// Nothing: an idle processor.
    Idle,
}

/// What an activation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActivationKind {
    /// An interrupt service routine, by vector.
    Isr(u8),
    /// The drain of the DPC queue.
    Dpc,
}

/// A processor as the kernel sees it.
#[derive(Clone, Debug, Default)]
pub struct Proc {
    /// Thread it runs; none when idle.
    pub current: Option<u32>,
    /// Activations on top of the thread, innermost last.
    pub nest: Vec<Activation>,
    /// Guest address of its KPCR.
    pub kpcr: u64,
    /// Top of its interrupt and DPC stack.
    pub isr_stack: u64,
    /// A DISPATCH_LEVEL software interrupt is requested (drain DPCs).
    pub dpc_requested: bool,
    /// End of the current thread's quantum (virtual ns).
    pub quantum_end: u64,
}

/// The most events that wait to be taken: a guest that prints for ever can't fill the host's memory.
pub const MOST_EVENTS: usize = 2_000_000;

/// The kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Processors.
    pub procs: Vec<Proc>,
    /// Threads by number.
    pub threads: BTreeMap<u32, Thread>,
    /// Ready threads by priority, each a queue; index 31 runs first.
    pub ready: Vec<VecDeque<u32>>,
    /// Threads that wait, in the order they began to.
    pub waiters: Vec<u32>,
    /// Number of the next thread.
    pub next_thread: u32,
    /// Guest modules: the kernel's own export range and the drivers.
    pub modules: Modules,
    /// Pool.
    pub pool: Pool,
    /// Registry.
    pub registry: Registry,
    /// Dispatcher objects, timers, DPC bookkeeping.
    pub ke: KeState,
    /// Devices, IRPs, names, handles.
    pub io: IoState,
    /// The interrupt core and its objects.
    pub interrupts: Interrupts,
    /// Where the driver's life and the workload stand.
    pub life: Life,
    /// Windows profile: build number (2600 XP ... 22000 Windows 11).
    pub windows_build: u32,
    /// Events since the embedder last took them.
    pub events: Vec<Event>,
    /// Events that were not kept, because [`MOST_EVENTS`] wait to be taken.
    pub events_lost: u64,
    /// Record every export call as an event.
    pub trace_exports: bool,
    /// What was done to memory and to the kernel, for explorers and observers; none is recorded by default.
    pub trace: Option<Vec<Mark>>,
    /// The step being carried out.
    pub(crate) step: u64,
    /// Activations begun so far: of each vector, of each processor's DPC queue.
    pub(crate) begun: BTreeMap<(bool, u32), u32>,
}

impl Kernel {
    /// Records an event.
    pub fn record(&mut self, at: u64, cpu: Option<u32>, irql: u8, kind: EventKind) {
        // How the run ended is always told.
        if self.events.len() >= MOST_EVENTS && !matches!(kind, EventKind::BugCheck { .. }) {
            self.events_lost = self.events_lost.saturating_add(1);
            return;
        }
        self.events.push(Event { at, cpu, irql, kind });
    }

    /// Names the activation that begins on `cpu`.
    pub(crate) fn new_context(&mut self, cpu: usize, kind: &ActivationKind) -> Context {
        let key = match kind {
            ActivationKind::Isr(vector) => (true, u32::from(*vector)),
            ActivationKind::Dpc => (false, cpu as u32),
        };
        let count = self.begun.entry(key).or_insert(0);
        let n = *count;
        *count += 1;
        match kind {
            ActivationKind::Isr(vector) => Context::Isr { vector: *vector, n },
            ActivationKind::Dpc => Context::Dpc { cpu: cpu as u32, n },
        }
    }

    /// Who acts on `cpu`.
    #[must_use]
    pub fn context(&self, cpu: usize) -> Context {
        let proc = &self.procs[cpu];
        match (proc.nest.last(), proc.current) {
            (Some(a), _) => a.context,
            (None, Some(id)) => Context::Thread(id),
            (None, None) => Context::Idle,
        }
    }

    /// Whether nothing runs on `cpu`: no thread and no activation.
    #[must_use]
    pub fn idle(&self, cpu: usize) -> bool {
        self.procs[cpu].current.is_none() && self.procs[cpu].nest.is_empty()
    }

    /// The thread running on `cpu`, or interrupted there.
    #[must_use]
    pub fn current_thread(&self, cpu: usize) -> Option<&Thread> {
        self.procs[cpu].current.and_then(|id| self.threads.get(&id))
    }
}
