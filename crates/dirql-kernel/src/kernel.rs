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
    /// Record every export call as an event.
    pub trace_exports: bool,
}

impl Kernel {
    /// Records an event.
    pub fn record(&mut self, at: u64, cpu: Option<u32>, irql: u8, kind: EventKind) {
        self.events.push(Event { at, cpu, irql, kind });
    }

    /// The thread running on `cpu`, or interrupted there.
    #[must_use]
    pub fn current_thread(&self, cpu: usize) -> Option<&Thread> {
        self.procs[cpu].current.and_then(|id| self.threads.get(&id))
    }
}
