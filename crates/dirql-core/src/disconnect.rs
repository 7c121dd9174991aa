//! Disconnecting, and making a routine inactive without disconnecting (spec 4.2, 4.3).

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use crate::interrupt::SetKind;
use crate::{Allocation, BugCheck, Core, Irql, Note, Param, Ports, SetId, stop, version};

/// What a disconnect did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisconnectOutcome<P> {
    /// The set that left; none when there was nothing to do (see `notes`).
    pub set: Option<SetId>,
    /// A routine of the set is still running: ask [`Core::finish_disconnect`] until it gives the allocations, and
    /// return to the driver only then (spec I-16).
    pub must_wait: bool,
    /// What the embedder may free, and poison, now. Empty while `must_wait`.
    pub freed: Vec<Allocation<P>>,
    /// For a verifier.
    pub notes: Vec<Note>,
}

/// How version and context were wrong (spec I-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confusion {
    /// Called above PASSIVE_LEVEL.
    WrongIrql,
    /// No such version.
    UnknownVersion,
    /// A known version, but not the one the connect call returned.
    WrongVersion,
    /// Made by the legacy call and undone by the other, or the other way round.
    LegacyMixed,
    /// The pointer is nothing that is connected now.
    NotConnected,
}

/// A fatal misuse of a connection context: what to tell the driver's author, and the stop that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextFault<R, P> {
    /// What was wrong.
    pub confusion: Confusion,
    /// The stop.
    pub bug_check: BugCheck<R, P>,
}

impl<R: Copy, P: Copy + Ord> Core<R, P> {
    /// IoDisconnectInterruptEx at `current`. `inside` is the set whose passive routine the calling thread is
    /// running, if any: that set is not waited for (spec X6), and what it owned comes out of
    /// [`Core::take_reaped`] after the routine returned. DPCs are not touched (X7).
    ///
    /// # Errors
    ///
    /// The stops of spec X1 and X2; nothing was changed.
    pub fn disconnect(
        &mut self,
        version: u32,
        context: Option<P>,
        current: Irql,
        inside: Option<SetId>,
        ports: &mut impl Ports<P>,
    ) -> Result<DisconnectOutcome<P>, ContextFault<R, P>> {
        check_passive_level(current)?;
        match self.find_set(version, context)? {
            Some(set) => Ok(self.leave(set, inside, ports)),
            None => Ok(nothing_done()),
        }
    }

    /// IoDisconnectInterrupt at `current`; only for what IoConnectInterrupt made (spec X10).
    ///
    /// # Errors
    ///
    /// As [`Core::disconnect`].
    pub fn disconnect_legacy(
        &mut self,
        interrupt: Option<P>,
        current: Irql,
        inside: Option<SetId>,
        ports: &mut impl Ports<P>,
    ) -> Result<DisconnectOutcome<P>, ContextFault<R, P>> {
        check_passive_level(current)?;
        let Some(interrupt) = interrupt else { return Ok(nothing_done()) };
        let Some((&set, record)) = self.by_context.get(&interrupt).and_then(|id| self.sets.get_key_value(id))
        else {
            return Err(fault(Confusion::NotConnected, 1));
        };
        if record.kind != SetKind::Legacy {
            return Err(fault(Confusion::LegacyMixed, 1));
        }
        Ok(self.leave(set, inside, ports))
    }

    /// Whether a routine of the set was picked by a dispatch and has not returned.
    pub fn set_is_running(&self, set: SetId) -> bool {
        self.sets.get(&set).is_some_and(|set| set.running > 0)
    }

    /// Ends a disconnect that had to wait: the allocations to free, or `None` while a routine still runs. Of a set
    /// that is not being disconnected there is nothing to free.
    pub fn finish_disconnect(&mut self, set: SetId) -> Option<Vec<Allocation<P>>> {
        match self.sets.get(&set) {
            Some(record) if record.leaving && record.running > 0 => None,
            Some(record) if record.leaving => Some(self.forget(set)),
            _ => Some(Vec::new()),
        }
    }

    /// Allocations of sets that were disconnected from inside their own passive routine and have ended since.
    pub fn take_reaped(&mut self) -> Vec<Allocation<P>> {
        core::mem::take(&mut self.reaped)
    }

    /// IoReportInterruptActive. Repeating it is no error. The caller checks IRQL <= DISPATCH_LEVEL.
    ///
    /// # Errors
    ///
    /// As [`Core::disconnect`], without the level check.
    pub fn report_active(
        &mut self,
        version: u32,
        context: Option<P>,
        ports: &mut impl Ports<P>,
    ) -> Result<Vec<Note>, ContextFault<R, P>> {
        self.set_active(version, context, true, ports)
    }

    /// IoReportInterruptInactive: the routine is not called any more, the registration stays. Does not wait for a
    /// routine that runs (spec I-19). The caller checks IRQL <= DISPATCH_LEVEL.
    ///
    /// # Errors
    ///
    /// As [`Core::report_active`].
    pub fn report_inactive(
        &mut self,
        version: u32,
        context: Option<P>,
        ports: &mut impl Ports<P>,
    ) -> Result<Vec<Note>, ContextFault<R, P>> {
        self.set_active(version, context, false, ports)
    }

    fn set_active(
        &mut self,
        version: u32,
        context: Option<P>,
        active: bool,
        ports: &mut impl Ports<P>,
    ) -> Result<Vec<Note>, ContextFault<R, P>> {
        let Some(set) = self.find_set(version, context)? else { return Ok(vec![Note::NullContext]) };
        let members = self.sets.get(&set).map(|set| set.objects.clone()).unwrap_or_default();
        let mut vectors = BTreeSet::new();
        for id in members {
            if let Some(object) = self.objects.get_mut(&id) {
                object.active = active;
                vectors.insert(object.vector);
            }
        }
        for vector in vectors {
            self.refresh_sources(vector, ports);
        }
        Ok(Vec::new())
    }

    /// The set behind a version and context as the Ex routines take them (spec X2, X3); `None` for NULL.
    fn find_set(&self, version: u32, context: Option<P>) -> Result<Option<SetId>, ContextFault<R, P>> {
        let Some(context) = context else { return Ok(None) };
        if !self.knows_version(version) {
            return Err(fault(Confusion::UnknownVersion, version));
        }
        let Some((&set, record)) = self.by_context.get(&context).and_then(|id| self.sets.get_key_value(id))
        else {
            return Err(fault(Confusion::NotConnected, version));
        };
        let fits = match record.kind {
            SetKind::Legacy => return Err(fault(Confusion::LegacyMixed, version)),
            SetKind::FullySpecified => {
                version == version::FULLY_SPECIFIED || version == version::FULLY_SPECIFIED_GROUP
            }
            SetKind::Line => version == version::LINE_BASED,
            SetKind::Table(made) => version == made,
        };
        if fits { Ok(Some(set)) } else { Err(fault(Confusion::WrongVersion, version)) }
    }

    /// Closes the sources, unlinks, and frees unless a routine still runs (spec X5, 10.5).
    fn leave(&mut self, id: SetId, inside: Option<SetId>, ports: &mut impl Ports<P>) -> DisconnectOutcome<P> {
        let mut outcome =
            DisconnectOutcome { set: Some(id), must_wait: false, freed: Vec::new(), notes: Vec::new() };
        let Some(set) = self.sets.get_mut(&id) else { return outcome };
        set.leaving = true;
        let running = set.running > 0;
        self.by_context.remove(&set.context);
        let members = set.objects.clone();
        let mut vectors = BTreeSet::new();
        for member in members {
            let Some(object) = self.objects.get_mut(&member) else { continue };
            object.active = false;
            self.by_public.remove(&object.public);
            vectors.insert(object.vector);
        }
        // Inactive first, so that a source is closed before its last object goes.
        for &vector in &vectors {
            self.refresh_sources(vector, ports);
        }
        for &vector in &vectors {
            if let Some(state) = self.vectors.get_mut(&vector) {
                let objects = &self.objects;
                state.chain.retain(|member| objects.get(member).is_some_and(|object| object.set != id));
            }
            self.refresh_sources(vector, ports);
        }
        if running && inside == Some(id) {
            if let Some(set) = self.sets.get_mut(&id) {
                set.reap = true;
            }
        } else if running {
            outcome.must_wait = true;
        } else {
            outcome.freed = self.forget(id);
        }
        outcome
    }

    /// Drops a set that left and runs no more; what it owned.
    pub(crate) fn forget(&mut self, id: SetId) -> Vec<Allocation<P>> {
        let Some(set) = self.sets.remove(&id) else { return Vec::new() };
        for object in &set.objects {
            self.objects.remove(object);
        }
        set.owned
    }
}

fn nothing_done<P>() -> DisconnectOutcome<P> {
    DisconnectOutcome { set: None, must_wait: false, freed: Vec::new(), notes: vec![Note::NullContext] }
}

/// 0xCA(9, Version, 0, 0).
fn fault<R, P>(confusion: Confusion, version: u32) -> ContextFault<R, P> {
    let bug_check = BugCheck {
        code: stop::PNP_DETECTED_FATAL_ERROR,
        params: [Param::Value(9), Param::Value(version.into()), Param::Value(0), Param::Value(0)],
    };
    ContextFault { confusion, bug_check }
}

fn check_passive_level<R, P>(current: Irql) -> Result<(), ContextFault<R, P>> {
    if current == Irql::PASSIVE {
        return Ok(());
    }
    // I-13
    let bug_check = BugCheck {
        code: stop::DRIVER_VIOLATION,
        params: [Param::Value(1), Param::Value(current.0.into()), Param::Value(0), Param::Value(0)],
    };
    Err(ContextFault { confusion: Confusion::WrongIrql, bug_check })
}
