//! DPC queues (spec 4.7, 10.4).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::CpuId;

/// KDPC_IMPORTANCE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Importance {
    /// LowImportance, 0.
    Low,
    /// MediumImportance, 1, the default.
    #[default]
    Medium,
    /// HighImportance, 2.
    High,
    /// MediumHighImportance, 3, since Vista.
    MediumHigh,
}

impl Importance {
    /// From the value a driver passes.
    pub const fn from_raw(raw: u8) -> Option<Importance> {
        match raw {
            0 => Some(Importance::Low),
            1 => Some(Importance::Medium),
            2 => Some(Importance::High),
            3 => Some(Importance::MediumHigh),
            _ => None,
        }
    }
}

/// One KeInsertQueueDpc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DpcInsert<D, A> {
    /// The KDPC.
    pub dpc: D,
    /// What its run will need: routine, context, both arguments.
    pub args: A,
    /// The processor it was targeted at; `None` is the current one.
    pub target: Option<CpuId>,
    /// The processor that inserts.
    pub current: CpuId,
    /// Its importance.
    pub importance: Importance,
    /// Whether it is a threaded DPC.
    pub threaded: bool,
}

/// Which processor has to be told to drain now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// None: the DPC waits for the next drain there.
    None,
    /// The current one: a DISPATCH_LEVEL software interrupt.
    Local,
    /// Another one: an interprocessor interrupt.
    Ipi(CpuId),
    /// The threaded-DPC thread of a processor has work.
    Thread(CpuId),
}

/// What an insertion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsertOutcome {
    /// FALSE: it was queued already, and nothing changed.
    pub inserted: bool,
    /// Whom to tell.
    pub drain: Drain,
}

/// A DPC taken off its queue, about to run. Its KDPC may be queued again, or freed, from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DpcRecord<D, A> {
    /// The KDPC.
    pub dpc: D,
    /// What was copied out at insertion.
    pub args: A,
    /// Names this insertion; give it to [`DpcQueues::finish`] when the routine returned.
    pub sequence: u64,
    /// Whether it came from the threaded queue.
    pub threaded: bool,
}

/// A KeFlushQueuedDpcs under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlushTicket(u64);

/// The DPC queues of every processor. `D` names a KDPC, `A` is what its run needs.
#[derive(Clone, Debug)]
pub struct DpcQueues<D, A> {
    cpus: Vec<(D, A)>,
}

impl<D: Copy + Ord, A: Copy> DpcQueues<D, A> {
    /// Queues for `cpus` processors. `threaded` is the registry's ThreadDpcEnable: when false, threaded DPCs are
    /// ordinary ones.
    pub fn new(cpus: u32, threaded: bool) -> Self {
        todo!()
    }
    /// KeInsertQueueDpc.
    pub fn insert(&mut self, insert: DpcInsert<D, A>) -> InsertOutcome {
        todo!()
    }
    /// KeRemoveQueueDpc: whether it was queued. It may be running all the same.
    pub fn remove(&mut self, dpc: D) -> bool {
        todo!()
    }
    /// Takes the next ordinary DPC of a processor; `None` ends the drain.
    pub fn pop(&mut self, cpu: CpuId) -> Option<DpcRecord<D, A>> {
        todo!()
    }
    /// Takes the next threaded DPC of a processor.
    pub fn pop_threaded(&mut self, cpu: CpuId) -> Option<DpcRecord<D, A>> {
        todo!()
    }
    /// The routine of a popped record returned.
    pub fn finish(&mut self, sequence: u64) {
        todo!()
    }
    /// Whether a drain was asked for on this processor and its queue is not empty.
    pub fn requested(&self, cpu: CpuId) -> bool {
        todo!()
    }
    /// Asks for a drain of what waits on this processor (before idle, spec I-22); whether anything does.
    pub fn request(&mut self, cpu: CpuId) -> bool {
        todo!()
    }
    /// A clock tick on this processor: ends the request-rate period and asks for a drain of what waits.
    pub fn tick(&mut self, cpu: CpuId) -> bool {
        todo!()
    }
    /// Whether a KDPC is queued.
    pub fn is_queued(&self, dpc: D) -> bool {
        todo!()
    }
    /// The processors that run a KDPC's routine now.
    pub fn running_on(&self, dpc: D) -> Vec<CpuId> {
        todo!()
    }
    /// KeFlushQueuedDpcs begins: everything queued or running now counts.
    pub fn flush(&self) -> FlushTicket {
        todo!()
    }
    /// Whether everything that counted has completed.
    pub fn flushed(&self, ticket: FlushTicket) -> bool {
        todo!()
    }
    /// How many ordinary DPCs wait on a processor.
    pub fn depth(&self, cpu: CpuId) -> usize {
        todo!()
    }
}
