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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlushTicket(u64);

/// Ordinary DPCs on one processor at which a waiting queue is drained at once.
pub const MAX_DEPTH: usize = 4;
/// Insertions in a clock tick below which a low-importance DPC is not held back.
pub const MIN_RATE: u32 = 3;

#[derive(Clone, Debug, Hash)]
struct Entry<D, A> {
    dpc: D,
    args: A,
    sequence: u64,
}

#[derive(Clone, Debug, Hash)]
struct CpuQueues<D, A> {
    ordinary: VecDeque<Entry<D, A>>,
    threaded: VecDeque<Entry<D, A>>,
    /// A drain was asked for and has not emptied the queue yet.
    requested: bool,
    /// Insertions since the last tick, and in the tick before.
    count: u32,
    rate: u32,
}

#[derive(Clone, Copy, Debug, Hash)]
struct Running<D> {
    sequence: u64,
    dpc: D,
    cpu: CpuId,
}

/// The DPC queues of every processor. `D` names a KDPC, `A` is what its run needs.
///
/// The embedder drains a processor that was asked to: [`DpcQueues::pop`] until it gives `None`, each record's routine
/// called at DISPATCH_LEVEL, then [`DpcQueues::finish`]. The KDPC's own memory is the embedder's to check.
#[derive(Clone, Debug, Hash)]
pub struct DpcQueues<D, A> {
    cpus: Vec<CpuQueues<D, A>>,
    /// Where each queued KDPC is, and whether in the threaded queue.
    queued: BTreeMap<D, (usize, bool)>,
    running: Vec<Running<D>>,
    threaded: bool,
    next: u64,
}

impl<D: Copy + Ord, A: Copy> DpcQueues<D, A> {
    /// Queues for `cpus` processors (at least one). `threaded` is the registry's ThreadDpcEnable: when false,
    /// threaded DPCs are ordinary ones.
    pub fn new(cpus: u32, threaded: bool) -> Self {
        let queue = || CpuQueues {
            ordinary: VecDeque::new(),
            threaded: VecDeque::new(),
            requested: false,
            count: 0,
            rate: 0,
        };
        let cpus = (0..cpus.max(1)).map(|_| queue()).collect();
        DpcQueues { cpus, queued: BTreeMap::new(), running: Vec::new(), threaded, next: 1 }
    }

    /// KeInsertQueueDpc: any IRQL. A KDPC that is queued stays as it is, arguments too. A target or current
    /// processor that does not exist counts as the current one, or as processor 0.
    pub fn insert(&mut self, insert: DpcInsert<D, A>) -> InsertOutcome {
        if self.queued.contains_key(&insert.dpc) {
            return InsertOutcome { inserted: false, drain: Drain::None };
        }
        let valid = |cpu: &CpuId| (cpu.0 as usize) < self.cpus.len();
        let current = Some(insert.current).filter(valid).unwrap_or(CpuId(0));
        let target = insert.target.filter(valid).unwrap_or(current);
        let index = target.0 as usize;
        let threaded = insert.threaded && self.threaded;
        let Some(cpu) = self.cpus.get_mut(index) else {
            return InsertOutcome { inserted: false, drain: Drain::None };
        };
        let entry = Entry { dpc: insert.dpc, args: insert.args, sequence: self.next };
        self.next += 1;
        self.queued.insert(insert.dpc, (index, threaded));
        let queue = if threaded { &mut cpu.threaded } else { &mut cpu.ordinary };
        if insert.importance == Importance::High {
            queue.push_front(entry);
        } else {
            queue.push_back(entry);
        }
        if threaded {
            // Importance never triggers a drain here; the thread is woken.
            return InsertOutcome { inserted: true, drain: Drain::Thread(target) };
        }
        cpu.count = cpu.count.saturating_add(1);
        let deep = cpu.ordinary.len() >= MAX_DEPTH;
        let local = target == current;
        let now = match insert.importance {
            Importance::High | Importance::MediumHigh => true,
            Importance::Medium => local || deep,
            Importance::Low => deep || (local && cpu.rate < MIN_RATE),
        };
        let drain = match now && !cpu.requested {
            false => Drain::None,
            true if local => Drain::Local,
            true => Drain::Ipi(target),
        };
        cpu.requested |= now;
        InsertOutcome { inserted: true, drain }
    }

    /// KeRemoveQueueDpc: whether it was queued. It may be running all the same.
    pub fn remove(&mut self, dpc: D) -> bool {
        let Some((index, threaded)) = self.queued.remove(&dpc) else { return false };
        if let Some(cpu) = self.cpus.get_mut(index) {
            let queue = if threaded { &mut cpu.threaded } else { &mut cpu.ordinary };
            queue.retain(|entry| entry.dpc != dpc);
            if cpu.ordinary.is_empty() {
                cpu.requested = false;
            }
        }
        true
    }

    /// Takes the next ordinary DPC of a processor; `None` ends the drain.
    pub fn pop(&mut self, cpu: CpuId) -> Option<DpcRecord<D, A>> {
        self.take(cpu, false)
    }

    /// Takes the next threaded DPC of a processor.
    pub fn pop_threaded(&mut self, cpu: CpuId) -> Option<DpcRecord<D, A>> {
        self.take(cpu, true)
    }

    fn take(&mut self, cpu: CpuId, threaded: bool) -> Option<DpcRecord<D, A>> {
        let queues = self.cpus.get_mut(cpu.0 as usize)?;
        let queue = if threaded { &mut queues.threaded } else { &mut queues.ordinary };
        let Entry { dpc, args, sequence } = queue.pop_front()?;
        if queues.ordinary.is_empty() {
            queues.requested = false;
        }
        self.queued.remove(&dpc);
        self.running.push(Running { sequence, dpc, cpu });
        Some(DpcRecord { dpc, args, sequence, threaded })
    }

    /// The routine of a popped record returned.
    pub fn finish(&mut self, sequence: u64) {
        self.running.retain(|run| run.sequence != sequence);
    }

    /// Whether a drain was asked for on this processor and its queue is not empty.
    pub fn requested(&self, cpu: CpuId) -> bool {
        self.cpus.get(cpu.0 as usize).is_some_and(|cpu| cpu.requested && !cpu.ordinary.is_empty())
    }

    /// Asks for a drain of what waits on this processor (before idle, spec I-22); whether anything does.
    pub fn request(&mut self, cpu: CpuId) -> bool {
        let Some(cpu) = self.cpus.get_mut(cpu.0 as usize) else { return false };
        cpu.requested = !cpu.ordinary.is_empty();
        cpu.requested
    }

    /// A clock tick on this processor: ends the request-rate period and asks for a drain of what waits.
    pub fn tick(&mut self, cpu: CpuId) -> bool {
        if let Some(cpu) = self.cpus.get_mut(cpu.0 as usize) {
            cpu.rate = core::mem::take(&mut cpu.count);
        }
        self.request(cpu)
    }

    /// Whether a KDPC is queued.
    pub fn is_queued(&self, dpc: D) -> bool {
        self.queued.contains_key(&dpc)
    }

    /// The processors that run a KDPC's routine now. It may be two: a KDPC can be queued again while it runs.
    pub fn running_on(&self, dpc: D) -> Vec<CpuId> {
        self.running.iter().filter(|run| run.dpc == dpc).map(|run| run.cpu).collect()
    }

    /// KeFlushQueuedDpcs begins: everything queued or running now counts, threaded DPCs too (spec I-21).
    pub fn flush(&self) -> FlushTicket {
        FlushTicket(self.next)
    }

    /// Whether everything that counted has completed (or was removed).
    pub fn flushed(&self, ticket: FlushTicket) -> bool {
        let before = |sequence: u64| sequence < ticket.0;
        let waiting = |queue: &VecDeque<Entry<D, A>>| queue.iter().any(|entry| before(entry.sequence));
        !self.running.iter().any(|run| before(run.sequence))
            && !self.cpus.iter().any(|cpu| waiting(&cpu.ordinary) || waiting(&cpu.threaded))
    }

    /// How many ordinary DPCs wait on a processor.
    pub fn depth(&self, cpu: CpuId) -> usize {
        self.cpus.get(cpu.0 as usize).map_or(0, |cpu| cpu.ordinary.len())
    }

    /// How many threaded DPCs wait on a processor.
    pub fn threaded_depth(&self, cpu: CpuId) -> usize {
        self.cpus.get(cpu.0 as usize).map_or(0, |cpu| cpu.threaded.len())
    }
}
