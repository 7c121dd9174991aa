//! Connecting: IoConnectInterruptEx in its five versions and the older IoConnectInterrupt (spec 3 and 4.1).
//!
//! The order of the checks is the error matrix of spec 3.8, top to bottom.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use crate::interrupt::{Set, SetKind};
use crate::{
    Affinity, Allocation, Arch, Assigned, AssignedKind, BugCheck, ConnectError, ConnectFailure, Core, Irql,
    Locks, Mode, Note, ObjectId, ObjectInfo, ObjectRequest, ObjectStats, Param, Polarity, Ports, Refusal,
    SetId, Source, Windows, status, stop,
};

/// The CONNECT_* version codes (spec 1.3).
pub mod version {
    /// CONNECT_FULLY_SPECIFIED.
    pub const FULLY_SPECIFIED: u32 = 1;
    /// CONNECT_LINE_BASED.
    pub const LINE_BASED: u32 = 2;
    /// CONNECT_MESSAGE_BASED.
    pub const MESSAGE_BASED: u32 = 3;
    /// CONNECT_FULLY_SPECIFIED_GROUP, since Windows 7.
    pub const FULLY_SPECIFIED_GROUP: u32 = 4;
    /// CONNECT_MESSAGE_BASED_PASSIVE; accepted from Windows 10 on (spec D-1).
    pub const MESSAGE_BASED_PASSIVE: u32 = 5;
}

/// The device object a request names, as the embedder sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device<P> {
    /// NULL.
    Null,
    /// A device object that no bus driver made.
    NotPhysical(P),
    /// A physical device object.
    Physical(P),
}

/// IO_CONNECT_INTERRUPT_PARAMETERS, all versions. Members the version does not have are ignored; read `Group` from
/// the driver's memory for version 4 only (spec I-4).
#[derive(Clone, Copy, Debug)]
pub struct ConnectRequest<R, P> {
    /// The Version member, any value.
    pub version: u32,
    /// PhysicalDeviceObject.
    pub pdo: Device<P>,
    /// Whether the out-pointer is non-NULL.
    pub has_out_pointer: bool,
    /// ServiceRoutine or MessageServiceRoutine.
    pub isr: Option<R>,
    /// ServiceContext, passed through.
    pub context: P,
    /// SpinLock; `None` makes the system provide one.
    pub lock: Option<P>,
    /// SynchronizeIrql.
    pub sync_irql: Irql,
    /// FloatingSave.
    pub floating_save: bool,
    /// ShareVector (versions 1, 4).
    pub share_vector: bool,
    /// Vector (versions 1, 4).
    pub vector: u32,
    /// Irql (versions 1, 4).
    pub irql: Irql,
    /// InterruptMode, raw (versions 1, 4).
    pub mode: u32,
    /// ProcessorEnableMask (versions 1, 4).
    pub mask: u64,
    /// Group (version 4).
    pub group: u16,
    /// FallBackServiceRoutine (versions 3, 5).
    pub fallback: Option<R>,
}

/// The eleven arguments of IoConnectInterrupt.
#[derive(Clone, Copy, Debug)]
pub struct LegacyRequest<R, P> {
    /// Whether the out-pointer is non-NULL.
    pub has_out_pointer: bool,
    /// ServiceRoutine.
    pub isr: Option<R>,
    /// ServiceContext.
    pub context: P,
    /// SpinLock.
    pub lock: Option<P>,
    /// Vector.
    pub vector: u32,
    /// Irql.
    pub irql: Irql,
    /// SynchronizeIrql.
    pub sync_irql: Irql,
    /// InterruptMode, raw.
    pub mode: u32,
    /// ShareVector.
    pub share_vector: bool,
    /// ProcessorEnableMask, in group 0.
    pub mask: u64,
    /// FloatingSave.
    pub floating_save: bool,
}

/// One entry of the message table the embedder writes; the message's address and data are the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableEntry<P> {
    /// The message id, the routine's third argument.
    pub message: u32,
    /// The MSI-X table entry (equal to `message` for MSI).
    pub entry: u32,
    /// InterruptObject.
    pub object: P,
    /// TargetProcessorSet.
    pub affinity: Affinity,
    /// Vector.
    pub vector: u8,
    /// Irql.
    pub irql: Irql,
    /// Mode.
    pub mode: Mode,
    /// Polarity.
    pub polarity: Polarity,
}

/// What the out-pointer receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectedKind<P> {
    /// A KINTERRUPT.
    Line {
        /// Its address.
        object: P,
    },
    /// An IO_INTERRUPT_MESSAGE_INFO.
    Table {
        /// Its address.
        table: P,
        /// UnifiedIrql: the level every routine of the set runs at.
        unified_irql: Irql,
        /// The entries; their number is MessageCount.
        entries: Vec<TableEntry<P>>,
    },
}

/// A connection made. Sources are open already: store the result now (spec D-11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected<P> {
    /// The set.
    pub set: SetId,
    /// Its objects.
    pub objects: Vec<ObjectId>,
    /// The value of the Version member on return; disconnect with it.
    pub version_out: u32,
    /// What the out-pointer receives.
    pub kind: ConnectedKind<P>,
    /// For a verifier.
    pub notes: Vec<Note>,
}

impl<P: Copy> Connected<P> {
    /// The pointer to store through the out-pointer.
    pub fn out(&self) -> P {
        match self.kind {
            ConnectedKind::Line { object } => object,
            ConnectedKind::Table { table, .. } => table,
        }
    }
}

/// One object about to be made.
struct Plan<R, P> {
    source: Source<P>,
    vector: u8,
    irql: Irql,
    sync_irql: Irql,
    mode: Mode,
    affinity: Affinity,
    routine: R,
    message: Option<u32>,
    share: bool,
}

/// What a whole set has in common.
struct Common<P> {
    kind: SetKind,
    pdo: Option<P>,
    context: P,
    lock: Option<P>,
    passive: bool,
    /// A lock, and a KINTERRUPT, for each object; else one of each for the set.
    lock_each: bool,
    object_each: bool,
}

/// How a refusal treats the caller's memory.
struct Refuse {
    alternative: bool,
    version: u32,
}

impl Refuse {
    /// The request itself is wrong: nothing is touched (spec C9: E1 to E5 and E14).
    fn early<R, P>(&self, error: ConnectError) -> ConnectFailure<R, P> {
        self.make(error, false)
    }

    /// From E6 on the out-pointer receives NULL.
    fn late<R, P>(&self, error: ConnectError) -> ConnectFailure<R, P> {
        self.make(error, true)
    }

    fn make<R, P>(&self, error: ConnectError, null_out_pointer: bool) -> ConnectFailure<R, P> {
        let version_out = match error {
            ConnectError::OnlyFullySpecified => version::FULLY_SPECIFIED,
            ConnectError::UnknownVersion if self.alternative => version::MESSAGE_BASED,
            _ => self.version,
        };
        let status = error.status(self.alternative);
        ConnectFailure::Refused(Refusal { error, status, version_out, null_out_pointer })
    }
}

fn wrong_irql<R, P>(current: Irql) -> BugCheck<R, P> {
    BugCheck {
        code: stop::DRIVER_VIOLATION,
        params: [Param::Value(1), Param::Value(current.0.into()), Param::Value(0), Param::Value(0)],
    }
}

/// A vector a device may have, with its level.
fn device_vector(vector: u32) -> Option<(u8, Irql)> {
    let vector = u8::try_from(vector).ok()?;
    let class = Irql::of_vector(vector);
    class.is_device().then_some((vector, class))
}

fn source_of<P>(pdo: P, kind: AssignedKind) -> Source<P> {
    match kind {
        AssignedKind::Line { gsi } => Source::Line { gsi },
        AssignedKind::Message { index, entry } => Source::Message { pdo, index, entry },
    }
}

impl<R: Copy, P: Copy + Ord> Core<R, P> {
    /// IoConnectInterruptEx, called at `current`. Opens the sources through `ports` before it returns.
    ///
    /// # Errors
    ///
    /// Every row of spec 3.8. No handler stays installed, and what was allocated went back through [`Ports::free`].
    pub fn connect(
        &mut self,
        request: &ConnectRequest<R, P>,
        current: Irql,
        ports: &mut impl Ports<P>,
    ) -> Result<Connected<P>, ConnectFailure<R, P>> {
        let refuse = Refuse { alternative: self.config.alternative_status, version: request.version };
        if current != Irql::PASSIVE {
            return Err(ConnectFailure::BugCheck(wrong_irql(current))); // E1
        }
        if self.config.windows < Windows::Vista {
            if request.version != version::FULLY_SPECIFIED {
                return Err(refuse.early(ConnectError::OnlyFullySpecified)); // E3
            }
        } else if !self.knows_version(request.version) {
            return Err(refuse.early(ConnectError::UnknownVersion)); // E2
        }
        let pdo = match request.pdo {
            Device::Physical(pdo) => pdo,
            Device::Null => return Err(refuse.early(ConnectError::NoDevice)),
            Device::NotPhysical(device) if self.config.pdo_bugcheck => {
                return Err(ConnectFailure::BugCheck(BugCheck {
                    code: stop::PNP_DETECTED_FATAL_ERROR,
                    params: [Param::Value(2), Param::Token(device), Param::Value(0), Param::Value(0)],
                }));
            }
            Device::NotPhysical(_) => return Err(refuse.early(ConnectError::NotAPdo)),
        };
        let Some(isr) = request.isr else { return Err(refuse.early(ConnectError::NoServiceRoutine)) };
        if !request.has_out_pointer {
            return Err(refuse.early(ConnectError::NoOutPointer));
        }
        if request.sync_irql > Irql::HIGH {
            return Err(refuse.early(ConnectError::IrqlTooHigh));
        }
        match request.version {
            version::LINE_BASED => {
                self.connect_lines(request, pdo, isr, version::LINE_BASED, false, &refuse, ports)
            }
            version::MESSAGE_BASED | version::MESSAGE_BASED_PASSIVE => {
                self.connect_messages(request, pdo, isr, &refuse, ports)
            }
            _ => self.connect_fully(request, pdo, isr, &refuse, ports),
        }
    }

    /// IoConnectInterrupt, called at `current`. The vector is taken as given: no device is looked up except to find
    /// which source to open. `version_out` of the result has no meaning.
    ///
    /// # Errors
    ///
    /// STATUS_INVALID_PARAMETER or STATUS_INSUFFICIENT_RESOURCES (spec 4.1), or a stop when not at PASSIVE_LEVEL.
    pub fn connect_legacy(
        &mut self,
        request: &LegacyRequest<R, P>,
        current: Irql,
        ports: &mut impl Ports<P>,
    ) -> Result<Connected<P>, ConnectFailure<R, P>> {
        // The legacy call has one refusal status and no Version; NoProcessor is the one error that differs.
        let refuse = |error: ConnectError, null_out_pointer| {
            let status = match error {
                ConnectError::NoMemory => status::INSUFFICIENT_RESOURCES,
                _ => status::INVALID_PARAMETER,
            };
            ConnectFailure::Refused(Refusal { error, status, version_out: 0, null_out_pointer })
        };
        if current != Irql::PASSIVE {
            return Err(ConnectFailure::BugCheck(wrong_irql(current)));
        }
        let Some(isr) = request.isr else { return Err(refuse(ConnectError::NoServiceRoutine, false)) };
        if !request.has_out_pointer {
            return Err(refuse(ConnectError::NoOutPointer, false));
        }
        if request.irql > Irql::HIGH || request.sync_irql > Irql::HIGH {
            return Err(refuse(ConnectError::IrqlTooHigh, true));
        }
        if request.sync_irql < request.irql {
            return Err(refuse(ConnectError::SyncIrqlTooLow, true));
        }
        let affinity = Affinity { group: 0, mask: request.mask & self.topology.active(0) };
        if affinity.mask == 0 {
            return Err(refuse(ConnectError::NoProcessor, true));
        }
        if self.config.arch == Arch::X86 && request.floating_save {
            return Err(refuse(ConnectError::FloatingSave, true));
        }
        let Some(mode) = Mode::from_raw(request.mode) else {
            return Err(refuse(ConnectError::ModeConflict, true));
        };
        // Below the vector's class the processor's level would fall when the interrupt is taken.
        let vector = match device_vector(request.vector) {
            Some((vector, class)) if request.irql >= class => vector,
            _ => return Err(refuse(ConnectError::BadVector, true)),
        };
        let known = self.assigned.iter().find_map(|(&pdo, list)| {
            list.iter().find(|a| a.vector == vector).map(|a| source_of(pdo, a.kind))
        });
        let notes = if known.is_none() { vec![Note::VectorNotAssigned] } else { Vec::new() };
        let plan = Plan {
            source: known.unwrap_or(Source::Vector(vector)),
            vector,
            irql: request.irql,
            sync_irql: request.sync_irql,
            mode,
            affinity,
            routine: isr,
            message: None,
            share: request.share_vector,
        };
        let common = Common {
            kind: SetKind::Legacy,
            pdo: None,
            context: request.context,
            lock: request.lock,
            passive: false,
            lock_each: false,
            object_each: false,
        };
        let (set, objects, out) =
            self.install(&common, vec![plan], ports).map_err(|error| refuse(error, true))?;
        Ok(Connected { set, objects, version_out: 0, kind: ConnectedKind::Line { object: out }, notes })
    }

    /// Whether this Windows has the version (spec 1.3).
    pub(crate) fn knows_version(&self, version: u32) -> bool {
        let windows = self.config.windows;
        match version {
            version::FULLY_SPECIFIED => true,
            version::LINE_BASED | version::MESSAGE_BASED => windows >= Windows::Vista,
            version::FULLY_SPECIFIED_GROUP => windows >= Windows::W7,
            version::MESSAGE_BASED_PASSIVE => windows >= Windows::W10,
            _ => false,
        }
    }

    /// E5's passive half and E14.
    fn check_passive(&self, lock: Option<P>, refuse: &Refuse) -> Result<(), ConnectFailure<R, P>> {
        if lock.is_some() {
            return Err(refuse.early(ConnectError::PassiveWithSpinLock));
        }
        if self.config.windows < Windows::W8 {
            return Err(refuse.early(ConnectError::PassiveUnsupported));
        }
        Ok(())
    }

    /// E13.
    fn check_floating(
        &self,
        request: &ConnectRequest<R, P>,
        refuse: &Refuse,
    ) -> Result<(), ConnectFailure<R, P>> {
        if self.config.arch == Arch::X86 && request.floating_save {
            return Err(refuse.late(ConnectError::FloatingSave));
        }
        Ok(())
    }

    /// Versions 1 and 4 (spec 3.2).
    fn connect_fully(
        &mut self,
        request: &ConnectRequest<R, P>,
        pdo: P,
        isr: R,
        refuse: &Refuse,
        ports: &mut impl Ports<P>,
    ) -> Result<Connected<P>, ConnectFailure<R, P>> {
        if request.irql > Irql::HIGH {
            return Err(refuse.early(ConnectError::IrqlTooHigh));
        }
        if request.sync_irql < request.irql {
            return Err(refuse.early(ConnectError::SyncIrqlTooLow));
        }
        let passive = request.irql == Irql::PASSIVE && request.sync_irql == Irql::PASSIVE;
        if passive {
            self.check_passive(request.lock, refuse)?;
        }
        let group = if request.version == version::FULLY_SPECIFIED_GROUP { request.group } else { 0 };
        let affinity = Affinity { group, mask: request.mask & self.topology.active(group) };
        if affinity.mask == 0 {
            return Err(refuse.late(ConnectError::NoProcessor)); // E6
        }
        let mode = Mode::from_raw(request.mode);
        let mut notes = Vec::new();
        let (source, vector, level, mode) = match self.assigned.get(&pdo) {
            Some(list) => {
                let found = list.iter().find(|a| {
                    u32::from(a.vector) == request.vector
                        && Some(a.mode) == mode
                        && affinity.is_subset_of(a.affinity)
                        && (request.irql == Irql::PASSIVE || request.irql == a.irql)
                });
                let Some(found) = found else { return Err(refuse.late(ConnectError::NotAssigned)) }; // E7
                if affinity != found.affinity {
                    notes.push(Note::AffinityNarrowed); // I-9
                }
                (source_of(pdo, found.kind), found.vector, found.irql, found.mode)
            }
            // No resource record: as specified.
            None => {
                let Some(mode) = mode else { return Err(refuse.late(ConnectError::ModeConflict)) };
                match device_vector(request.vector) {
                    Some((vector, class)) if request.irql == Irql::PASSIVE || request.irql >= class => {
                        (Source::Vector(vector), vector, request.irql, mode)
                    }
                    _ => return Err(refuse.late(ConnectError::BadVector)),
                }
            }
        };
        self.check_floating(request, refuse)?;
        let irql = level.max(Irql::of_vector(vector));
        let sync_irql = if passive {
            Irql::PASSIVE
        } else {
            if request.sync_irql < irql {
                notes.push(Note::SyncIrqlRaised);
            }
            request.sync_irql.max(irql)
        };
        let share = request.share_vector;
        let plan =
            Plan { source, vector, irql, sync_irql, mode, affinity, routine: isr, message: None, share };
        let common = Common {
            kind: SetKind::FullySpecified,
            pdo: Some(pdo),
            context: request.context,
            lock: request.lock,
            passive,
            lock_each: false,
            object_each: false,
        };
        let (set, objects, out) =
            self.install(&common, vec![plan], ports).map_err(|error| refuse.late(error))?;
        let kind = ConnectedKind::Line { object: out };
        Ok(Connected { set, objects, version_out: request.version, kind, notes })
    }

    /// Version 2, and the fallback of 3 and 5 (spec 3.3, E8, E9, E11). `forced_passive` is version 5's rule.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request, checked one by one")]
    fn connect_lines(
        &mut self,
        request: &ConnectRequest<R, P>,
        pdo: P,
        isr: R,
        version_out: u32,
        forced_passive: bool,
        refuse: &Refuse,
        ports: &mut impl Ports<P>,
    ) -> Result<Connected<P>, ConnectFailure<R, P>> {
        let all = self.assigned.get(&pdo).map(Vec::as_slice).unwrap_or_default();
        let lines: Vec<Assigned> =
            all.iter().filter(|a| matches!(a.kind, AssignedKind::Line { .. })).copied().collect();
        let has_messages = lines.len() < all.len();
        let max = lines.iter().map(|a| a.irql).max().unwrap_or(Irql::PASSIVE);
        let passive = forced_passive
            || (!lines.is_empty() && request.sync_irql == Irql::PASSIVE && max == Irql::PASSIVE);
        if passive {
            self.check_passive(request.lock, refuse)?;
        }
        if lines.is_empty() {
            let error = if has_messages { ConnectError::MessagesNotLines } else { ConnectError::NoInterrupt };
            return Err(refuse.late(error)); // E8, E9
        }
        self.check_floating(request, refuse)?;
        let level = |a: &Assigned| a.irql.max(Irql::of_vector(a.vector));
        let highest = lines.iter().map(level).max().unwrap_or(Irql::PASSIVE);
        let sync_irql = if passive { Irql::PASSIVE } else { request.sync_irql.max(highest) };
        let mut notes = Vec::new();
        // 0 means "you choose"; a level in between is a mistake the documents let pass (D-7).
        if !passive && request.sync_irql != Irql::PASSIVE && request.sync_irql < highest {
            notes.push(Note::SyncIrqlRaised);
        }
        let plans = lines
            .iter()
            .map(|a| Plan {
                source: source_of(pdo, a.kind),
                vector: a.vector,
                irql: level(a),
                sync_irql,
                mode: a.mode,
                affinity: a.affinity,
                routine: isr,
                message: None,
                share: true, // D-17
            })
            .collect();
        let common = Common {
            kind: SetKind::Line,
            pdo: Some(pdo),
            context: request.context,
            lock: request.lock,
            passive,
            lock_each: false, // D-8: one lock for the lines of a device
            object_each: false,
        };
        let (set, objects, out) = self.install(&common, plans, ports).map_err(|error| refuse.late(error))?;
        Ok(Connected { set, objects, version_out, kind: ConnectedKind::Line { object: out }, notes })
    }

    /// Versions 3 and 5 (spec 3.4, 3.5, 10.3).
    fn connect_messages(
        &mut self,
        request: &ConnectRequest<R, P>,
        pdo: P,
        isr: R,
        refuse: &Refuse,
        ports: &mut impl Ports<P>,
    ) -> Result<Connected<P>, ConnectFailure<R, P>> {
        let passive = request.version == version::MESSAGE_BASED_PASSIVE;
        if passive {
            self.check_passive(request.lock, refuse)?;
        }
        let all = self.assigned.get(&pdo).map(Vec::as_slice).unwrap_or_default();
        let mut messages: Vec<(u32, u32, Assigned)> = all
            .iter()
            .filter_map(|a| match a.kind {
                AssignedKind::Message { index, entry } => Some((index, entry, *a)),
                AssignedKind::Line { .. } => None,
            })
            .collect();
        if messages.is_empty() {
            let has_lines = !all.is_empty();
            return match request.fallback {
                // E11; zero messages only (D-10).
                Some(fallback) if has_lines => {
                    self.connect_lines(request, pdo, fallback, version::LINE_BASED, passive, refuse, ports)
                }
                _ => Err(refuse.late(ConnectError::NoInterrupt)), // E9, E10
            };
        }
        self.check_floating(request, refuse)?;
        messages.sort_by_key(|&(index, ..)| index);
        let level = |a: &Assigned| a.irql.max(Irql::of_vector(a.vector));
        let highest = messages.iter().map(|(.., a)| level(a)).max().unwrap_or(Irql::PASSIVE);
        let unified_irql = if passive { Irql::PASSIVE } else { request.sync_irql.max(highest) };
        let plans = messages
            .iter()
            .map(|&(index, entry, a)| Plan {
                source: Source::Message { pdo, index, entry },
                vector: a.vector,
                irql: level(&a),
                sync_irql: unified_irql,
                mode: Mode::Latched,
                affinity: a.affinity,
                routine: isr,
                message: Some(index),
                share: true,
            })
            .collect();
        let common = Common {
            kind: SetKind::Table(request.version),
            pdo: Some(pdo),
            context: request.context,
            lock: request.lock,
            passive,
            lock_each: passive || self.config.locks == Locks::PerMessage,
            object_each: true,
        };
        let (set, objects, table) =
            self.install(&common, plans, ports).map_err(|error| refuse.late(error))?;
        let entries = objects
            .iter()
            .zip(&messages)
            .filter_map(|(id, &(message, entry, a))| {
                let object = self.objects.get(id)?;
                Some(TableEntry {
                    message,
                    entry,
                    object: object.public,
                    affinity: object.affinity,
                    vector: object.vector,
                    irql: a.irql,
                    mode: Mode::Latched,
                    polarity: Polarity::ActiveHigh, // I-10
                })
            })
            .collect();
        let kind = ConnectedKind::Table { table, unified_irql, entries };
        Ok(Connected { set, objects, version_out: request.version, kind, notes: Vec::new() })
    }

    /// Whether one more object fits on a vector (E12): sharing on both sides, in one mode.
    fn check_vector(&self, plan: &Plan<R, P>) -> Result<(), ConnectError> {
        let Some(state) = self.vectors.get(&plan.vector) else { return Ok(()) };
        for other in state.chain.iter().filter_map(|id| self.objects.get(id)) {
            let overlap =
                other.affinity.group == plan.affinity.group && other.affinity.mask & plan.affinity.mask != 0;
            if !overlap {
                continue;
            }
            if other.mode != plan.mode {
                return Err(ConnectError::ModeConflict);
            }
            if !other.share || !plan.share {
                return Err(ConnectError::VectorBusy);
            }
        }
        Ok(())
    }

    /// Allocates, links and opens a set; or undoes all of it.
    fn install(
        &mut self,
        common: &Common<P>,
        plans: Vec<Plan<R, P>>,
        ports: &mut impl Ports<P>,
    ) -> Result<(SetId, Vec<ObjectId>, P), ConnectError> {
        for (i, plan) in plans.iter().enumerate() {
            self.check_vector(plan)?;
            // One device with two interrupts on one vector is its own sharer.
            let clash = |other: &&Plan<R, P>| other.vector == plan.vector && other.mode != plan.mode;
            if plans.iter().take(i).find(clash).is_some() {
                return Err(ConnectError::ModeConflict);
            }
        }
        let mut owned = Vec::new();
        let Some((pointers, out)) = allocate(common, &plans, &mut owned, ports) else {
            for what in owned.into_iter().rev() {
                ports.free(what);
            }
            return Err(ConnectError::NoMemory); // E15
        };
        let set = SetId(self.next_set);
        self.next_set += 1;
        let mut ids = Vec::with_capacity(plans.len());
        let mut touched = BTreeSet::new();
        for (plan, (public, lock)) in plans.into_iter().zip(pointers) {
            let id = ObjectId(self.next_object);
            self.next_object += 1;
            ids.push(id);
            touched.insert(plan.vector);
            let state = self.vectors.entry(plan.vector).or_default();
            state.chain.insert(id);
            state.sources.entry(plan.source).or_insert(false);
            self.by_public.entry(public).or_insert(id);
            let info = ObjectInfo {
                set,
                public,
                pdo: common.pdo,
                source: plan.source,
                vector: plan.vector,
                irql: plan.irql,
                sync_irql: plan.sync_irql,
                mode: plan.mode,
                affinity: plan.affinity,
                routine: plan.routine,
                context: common.context,
                message: plan.message,
                lock,
                passive: common.passive,
                share: plan.share,
                active: true,
                stats: ObjectStats::default(),
            };
            self.objects.insert(id, info);
        }
        let record = Set {
            kind: common.kind,
            context: out,
            objects: ids.clone(),
            owned,
            running: 0,
            leaving: false,
            reap: false,
        };
        self.sets.insert(set, record);
        self.by_context.insert(out, set);
        // Every routine is in place before the first source opens (C3).
        for vector in touched {
            self.refresh_sources(vector, ports);
        }
        Ok((set, ids, out))
    }
}

/// Each object's public pointer and lock, and the pointer the caller receives. `owned` lists what was allocated,
/// also when the answer is `None`.
fn allocate<R, P: Copy>(
    common: &Common<P>,
    plans: &[Plan<R, P>],
    owned: &mut Vec<Allocation<P>>,
    ports: &mut impl Ports<P>,
) -> Option<(Vec<(P, P)>, P)> {
    let table = match common.kind {
        SetKind::Table(_) => {
            let table = ports.alloc_table(u32::try_from(plans.len()).ok()?)?;
            owned.push(Allocation::Table(table));
            Some(table)
        }
        _ => None,
    };
    let mut pointers: Vec<(P, P)> = Vec::with_capacity(plans.len());
    for plan in plans {
        let first = pointers.first().copied();
        let lock = match (common.lock, first) {
            (Some(lock), _) => lock,
            (None, Some((_, lock))) if !common.lock_each => lock,
            _ if common.passive => {
                let event = ports.alloc_event()?;
                owned.push(Allocation::Event(event));
                event
            }
            _ => {
                let lock = ports.alloc_lock()?;
                owned.push(Allocation::Lock(lock));
                lock
            }
        };
        let public = match first {
            Some((public, _)) if !common.object_each => public,
            _ => {
                let object = ports.alloc_object(ObjectRequest {
                    vector: plan.vector,
                    irql: plan.irql,
                    sync_irql: plan.sync_irql,
                    mode: plan.mode,
                    pdo: common.pdo,
                })?;
                owned.push(Allocation::Object(object));
                object
            }
        };
        pointers.push((public, lock));
    }
    let out = table.or_else(|| pointers.first().map(|&(public, _)| public))?;
    Some((pointers, out))
}
