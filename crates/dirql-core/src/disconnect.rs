//! Disconnecting, and making a routine inactive without disconnecting (spec 4.2, 4.3).

use alloc::vec::Vec;

use crate::interrupt::SetKind;
use crate::{Allocation, BugCheck, Core, Irql, Note, Ports, SetId};

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
    /// [`Core::take_reaped`] after the routine returned.
    pub fn disconnect(
        &mut self,
        version: u32,
        context: Option<P>,
        current: Irql,
        inside: Option<SetId>,
        ports: &mut impl Ports<P>,
    ) -> Result<DisconnectOutcome<P>, ContextFault<R, P>> {
        todo!()
    }

    /// IoDisconnectInterrupt at `current`; only for what IoConnectInterrupt made.
    pub fn disconnect_legacy(
        &mut self,
        interrupt: Option<P>,
        current: Irql,
        inside: Option<SetId>,
        ports: &mut impl Ports<P>,
    ) -> Result<DisconnectOutcome<P>, ContextFault<R, P>> {
        todo!()
    }

    /// Whether a routine of the set was picked by a dispatch and has not returned.
    pub fn set_is_running(&self, set: SetId) -> bool {
        self.sets.get(&set).is_some_and(|set| set.running > 0)
    }

    /// Ends a disconnect that had to wait: the allocations to free, or `None` while a routine still runs.
    pub fn finish_disconnect(&mut self, set: SetId) -> Option<Vec<Allocation<P>>> {
        todo!()
    }

    /// Allocations of sets that were disconnected from inside their own passive routine and have ended since.
    pub fn take_reaped(&mut self) -> Vec<Allocation<P>> {
        core::mem::take(&mut self.reaped)
    }

    /// IoReportInterruptActive. Repeating it is no error.
    pub fn report_active(
        &mut self,
        version: u32,
        context: Option<P>,
        ports: &mut impl Ports<P>,
    ) -> Result<Vec<Note>, ContextFault<R, P>> {
        todo!()
    }

    /// IoReportInterruptInactive: the routine is not called any more, the registration stays. Does not wait for a
    /// routine that runs (spec I-19).
    pub fn report_inactive(
        &mut self,
        version: u32,
        context: Option<P>,
        ports: &mut impl Ports<P>,
    ) -> Result<Vec<Note>, ContextFault<R, P>> {
        todo!()
    }
}
