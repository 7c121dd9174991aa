//! The records: what devices were assigned, the connected objects, and the vectors they sit on.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use crate::{Affinity, Allocation, CpuId, Delivery, Irql, ObjectId, Ports, SetId, Source, Topology};

/// KINTERRUPT_MODE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// LevelSensitive, 0.
    Level,
    /// Latched (edge), 1. Messages always are.
    Latched,
}

impl Mode {
    /// From the value a driver passes.
    pub const fn from_raw(raw: u32) -> Option<Mode> {
        match raw {
            0 => Some(Mode::Level),
            1 => Some(Mode::Latched),
            _ => None,
        }
    }

    /// The value drivers see.
    pub const fn raw(self) -> u32 {
        match self {
            Mode::Level => 0,
            Mode::Latched => 1,
        }
    }
}

/// KINTERRUPT_POLARITY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Polarity {
    /// InterruptPolarityUnknown, 0.
    Unknown,
    /// InterruptActiveHigh or InterruptRisingEdge, 1.
    ActiveHigh,
    /// InterruptActiveLow or InterruptFallingEdge, 2.
    ActiveLow,
    /// InterruptActiveBoth, 3.
    ActiveBoth,
}

impl Polarity {
    /// The value drivers see.
    pub const fn raw(self) -> u32 {
        match self {
            Polarity::Unknown => 0,
            Polarity::ActiveHigh => 1,
            Polarity::ActiveLow => 2,
            Polarity::ActiveBoth => 3,
        }
    }
}

/// CM_SHARE_DISPOSITION, the two that interrupts use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Share {
    /// CmResourceShareDeviceExclusive, 1.
    DeviceExclusive,
    /// CmResourceShareShared, 3.
    Shared,
}

/// What kind of interrupt was assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AssignedKind {
    /// A line.
    Line {
        /// The global system interrupt.
        gsi: u32,
    },
    /// A message.
    Message {
        /// The message number, from 0.
        index: u32,
        /// The MSI-X table entry; equal to `index` for MSI.
        entry: u32,
    },
}

/// One translated interrupt a device was assigned. Multi-message MSI is one of these a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Assigned {
    /// Line or message.
    pub kind: AssignedKind,
    /// The system vector, 0x30 to 0xCF; never 0 (KMDF takes 0 for "none").
    pub vector: u8,
    /// The descriptor's Level. PASSIVE for a line that only passive-level handling may use.
    pub irql: Irql,
    /// Which processors it may be delivered to.
    pub affinity: Affinity,
    /// Edge or level.
    pub mode: Mode,
    /// Which way it is active.
    pub polarity: Polarity,
    /// Whether devices share it.
    pub share: Share,
}

/// Windows versions, in order (spec 3.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Windows {
    /// Windows 2000.
    W2000,
    /// Windows XP.
    Xp,
    /// Windows Server 2003.
    W2003,
    /// Windows Vista.
    Vista,
    /// Windows 7.
    W7,
    /// Windows 8.
    W8,
    /// Windows 8.1.
    W8_1,
    /// Windows 10.
    W10,
    /// Windows 11.
    W11,
}

/// Who shares the lock the system provides for message-based connections (spec D-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Locks {
    /// One lock a message: routines of different messages run at the same time.
    PerMessage,
    /// One lock a connect call.
    PerSet,
}

/// The processor architecture, where a rule differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// x86-64.
    X64,
    /// IA-32.
    X86,
}

/// What the core is configured to behave like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The Windows version.
    pub windows: Windows,
    /// Locks of message-based connections.
    pub locks: Locks,
    /// Return the other status of each disputed refusal.
    pub alternative_status: bool,
    /// A device that is not a PDO stops the system (0xCA) instead of failing the call.
    pub pdo_bugcheck: bool,
    /// Who takes an interrupt with several processors: the embedder's arbiter is made with it.
    pub delivery: Delivery,
    /// The architecture.
    pub arch: Arch,
    /// Dispatches in a row, with the line still asserted and no progress, that make a storm (spec I-24).
    pub storm_threshold: u32,
    /// Passes over a shared latched chain in one dispatch (spec 5.4).
    pub pass_cap: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            windows: Windows::W11,
            locks: Locks::PerMessage,
            alternative_status: false,
            pdo_bugcheck: false,
            delivery: Delivery::Lowest,
            arch: Arch::X64,
            storm_threshold: 30_000,
            pass_cap: 1_000,
        }
    }
}

/// Counts of one object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectStats {
    /// Times its routine was called.
    pub delivered: u64,
    /// Times it returned TRUE.
    pub claimed: u64,
    /// Times it returned FALSE.
    pub unclaimed: u64,
}

/// Counts of one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VectorStats {
    /// Dispatches that found an object.
    pub delivered: u64,
    /// Dispatches some routine claimed.
    pub claimed: u64,
    /// Dispatches no routine claimed.
    pub unclaimed: u64,
    /// Dispatches that found no object at all (spec I-17).
    pub unexpected: u64,
    /// Dispatches handed to the passive-level worker.
    pub deferred: u64,
    /// Dispatches ended by the pass cap: a latched routine that always claims.
    pub pass_cap: u64,
}

/// Counts never decide anything, so they are no part of a state's hash: a search over states of the core finds two
/// that differ by counts only in one place.
impl Hash for ObjectStats {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// As for [`ObjectStats`].
impl Hash for VectorStats {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// What may be known about a connected object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectInfo<R, P> {
    /// Its set.
    pub set: SetId,
    /// The pointer drivers hold and its routine receives.
    pub public: P,
    /// The device; none for the legacy call.
    pub pdo: Option<P>,
    /// What raises it.
    pub source: Source<P>,
    /// The vector.
    pub vector: u8,
    /// The interrupt's level.
    pub irql: Irql,
    /// The level its routine runs at.
    pub sync_irql: Irql,
    /// Edge or level.
    pub mode: Mode,
    /// Where it may run.
    pub affinity: Affinity,
    /// The routine.
    pub routine: R,
    /// Its context.
    pub context: P,
    /// The message number its routine receives as third argument.
    pub message: Option<u32>,
    /// Its lock, or its event when passive.
    pub lock: P,
    /// Whether the routine runs at PASSIVE_LEVEL in a worker.
    pub passive: bool,
    /// Whether it shares the vector.
    pub share: bool,
    /// Whether it is called (spec 4.3).
    pub active: bool,
    /// Its counts.
    pub stats: ObjectStats,
}

/// Which call made a set and so which may undo it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SetKind {
    /// IoConnectInterrupt.
    Legacy,
    /// Versions 1 and 4.
    FullySpecified,
    /// Version 2, and the fallback of 3 and 5.
    Line,
    /// Versions 3 and 5; the value is the version.
    Table(u32),
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Set<P> {
    pub(crate) kind: SetKind,
    /// What the out-pointer received.
    pub(crate) context: P,
    pub(crate) objects: Vec<ObjectId>,
    pub(crate) owned: Vec<Allocation<P>>,
    /// Routines of the set picked by a walk and not yet returned.
    pub(crate) running: u32,
    /// Disconnected: unlinked, waiting for `running` to fall to 0.
    pub(crate) leaving: bool,
    /// Disconnected from inside its own passive routine: freed by the walk, into `Core::reaped`.
    pub(crate) reap: bool,
}

/// State of one vector.
#[derive(Clone, Debug, Hash)]
pub(crate) struct VectorState<P> {
    /// The chain, in connect order (ids grow).
    pub(crate) chain: BTreeSet<ObjectId>,
    /// Sources this vector was connected to, and whether each is open.
    pub(crate) sources: BTreeMap<Source<P>, bool>,
    /// Passive work asked for (spec 10.6 `st.work`).
    pub(crate) work: bool,
    /// A worker is queued or running.
    pub(crate) worker: bool,
    /// Sources are held masked until the worker ends.
    pub(crate) hold: bool,
    pub(crate) stats: VectorStats,
}

impl<P> Default for VectorState<P> {
    fn default() -> Self {
        VectorState {
            chain: BTreeSet::new(),
            sources: BTreeMap::new(),
            work: false,
            worker: false,
            hold: false,
            stats: VectorStats::default(),
        }
    }
}

/// The interrupt core.
///
/// `R` is the embedder's routine (a guest address, a function pointer); `P` its token for objects, devices, locks
/// and contexts.
#[derive(Clone, Debug, Hash)]
pub struct Core<R, P> {
    pub(crate) config: Config,
    pub(crate) topology: Topology,
    pub(crate) assigned: BTreeMap<P, Vec<Assigned>>,
    pub(crate) objects: BTreeMap<ObjectId, ObjectInfo<R, P>>,
    pub(crate) sets: BTreeMap<SetId, Set<P>>,
    /// Public address to the first object behind it.
    pub(crate) by_public: BTreeMap<P, ObjectId>,
    /// What connect returned to the set behind it.
    pub(crate) by_context: BTreeMap<P, SetId>,
    pub(crate) vectors: BTreeMap<u8, VectorState<P>>,
    pub(crate) storms: BTreeMap<(CpuId, u8), u32>,
    pub(crate) reaped: Vec<Allocation<P>>,
    pub(crate) next_object: u64,
    pub(crate) next_set: u64,
}

impl<R: Copy, P: Copy + Ord> Core<R, P> {
    /// A core with nothing assigned and nothing connected.
    pub fn new(config: Config, topology: Topology) -> Self {
        Core {
            config,
            topology,
            assigned: BTreeMap::new(),
            objects: BTreeMap::new(),
            sets: BTreeMap::new(),
            by_public: BTreeMap::new(),
            by_context: BTreeMap::new(),
            vectors: BTreeMap::new(),
            storms: BTreeMap::new(),
            reaped: Vec::new(),
            next_object: 1,
            next_set: 1,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The processors.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Records the translated interrupts of a started device, replacing what it had. An empty list means the device
    /// has a resource record without interrupts. Connected objects are not changed: the driver must have
    /// disconnected before a rebalance.
    pub fn assign(&mut self, pdo: P, interrupts: Vec<Assigned>) {
        self.assigned.insert(pdo, interrupts);
    }

    /// Forgets a device's resource record (it was stopped or removed).
    pub fn unassign(&mut self, pdo: P) -> Option<Vec<Assigned>> {
        self.assigned.remove(&pdo)
    }

    /// What a device was assigned; `None` when it has no resource record.
    pub fn assigned(&self, pdo: P) -> Option<&[Assigned]> {
        self.assigned.get(&pdo).map(Vec::as_slice)
    }

    /// Everything known about a connected object.
    pub fn object(&self, object: ObjectId) -> Option<&ObjectInfo<R, P>> {
        self.objects.get(&object)
    }

    /// The connected objects, in connect order.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectId, &ObjectInfo<R, P>)> {
        self.objects.iter().map(|(&id, info)| (id, info))
    }

    /// The object behind a pointer a driver holds: the first one when it stands for several lines.
    pub fn object_at(&self, public: P) -> Option<ObjectId> {
        self.by_public.get(&public).copied()
    }

    /// The counts of a vector.
    pub fn vector_stats(&self, vector: u8) -> VectorStats {
        self.vectors.get(&vector).map(|state| state.stats).unwrap_or_default()
    }

    /// Opens or closes every source of a vector, as its active objects and a running passive worker demand: a
    /// source is open while some active object of it exists (spec 4.3), and no worker holds it (spec 5.6).
    pub(crate) fn refresh_sources(&mut self, vector: u8, ports: &mut impl Ports<P>) {
        let Some(state) = self.vectors.get_mut(&vector) else { return };
        let mut gone = Vec::new();
        for (&source, open) in &mut state.sources {
            let mut objects =
                state.chain.iter().filter_map(|id| self.objects.get(id)).filter(|o| o.source == source);
            let (mut any, mut active) = (false, false);
            for object in objects.by_ref() {
                any = true;
                active |= object.active;
            }
            let want = active && !state.hold;
            if want != *open {
                *open = want;
                if want { ports.unmask(source) } else { ports.mask(source) }
            }
            if !any {
                gone.push(source);
            }
        }
        for source in gone {
            state.sources.remove(&source);
        }
    }
}
