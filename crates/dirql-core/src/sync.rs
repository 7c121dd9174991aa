//! Synchronising with an ISR: KeSynchronizeExecution and the interrupt spin lock (spec 4.5, 4.6), and
//! IoGetAffinityInterrupt (4.4).

use crate::error::stop;
use crate::{Affinity, BugCheck, Core, Irql, LockKind, ObjectId, Param};

/// What KeSynchronizeExecution or KeAcquireInterruptSpinLock has to do: raise to `sync_irql`, take `lock`, and undo
/// both in reverse. For a passive object: enter a critical region and wait on the event instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncPlan<P> {
    /// The object.
    pub object: ObjectId,
    /// The level to raise to; PASSIVE for a passive object.
    pub sync_irql: Irql,
    /// The lock to take, or the event to wait on.
    pub lock: P,
    /// Which of the two.
    pub kind: LockKind,
}

/// Why it can't be done. Every one is the driver's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFault<R, P> {
    /// The pointer is no connected interrupt object (never was, or was disconnected).
    NotConnected,
    /// The caller runs above the object's level.
    IrqlTooHigh {
        /// Where the caller is.
        current: Irql,
        /// The highest level allowed.
        limit: Irql,
    },
    /// The system stops: 0x13B, a spin lock operation on a passive-level interrupt.
    BugCheck(BugCheck<R, P>),
}

impl<R: Copy, P: Copy + Ord> Core<R, P> {
    /// The plan of KeSynchronizeExecution on the object at `interrupt`, called at `current`.
    pub fn sync_plan(&self, interrupt: P, current: Irql) -> Result<SyncPlan<P>, SyncFault<R, P>> {
        let object = self.object_at(interrupt).ok_or(SyncFault::NotConnected)?;
        let info = self.object(object).ok_or(SyncFault::NotConnected)?;
        if current > info.sync_irql {
            return Err(SyncFault::IrqlTooHigh { current, limit: info.sync_irql });
        }
        let kind = if info.passive { LockKind::Event } else { LockKind::Spin };
        Ok(SyncPlan { object, sync_irql: info.sync_irql, lock: info.lock, kind })
    }

    /// The plan of KeAcquireInterruptSpinLock. A passive object has no spin lock: 0x13B(1, object).
    pub fn spin_lock_plan(&self, interrupt: P, current: Irql) -> Result<SyncPlan<P>, SyncFault<R, P>> {
        let object = self.object_at(interrupt).ok_or(SyncFault::NotConnected)?;
        if self.object(object).is_some_and(|info| info.passive) {
            return Err(SyncFault::BugCheck(BugCheck {
                code: stop::PASSIVE_INTERRUPT_ERROR,
                params: [Param::Value(1), Param::Token(interrupt), Param::Value(0), Param::Value(0)],
            }));
        }
        self.sync_plan(interrupt, current)
    }

    /// The plan of KeReleaseInterruptSpinLock, called at `current`: the object must not be passive, and the caller
    /// must be at its level exactly. The error names that level in `limit`.
    pub fn spin_unlock_plan(&self, interrupt: P, current: Irql) -> Result<SyncPlan<P>, SyncFault<R, P>> {
        let plan = self.spin_lock_plan(interrupt, Irql::PASSIVE)?;
        if current != plan.sync_irql {
            return Err(SyncFault::IrqlTooHigh { current, limit: plan.sync_irql });
        }
        Ok(plan)
    }

    /// IoGetAffinityInterrupt: every processor that may run this routine (spec D-23). `None` is
    /// STATUS_INVALID_PARAMETER. Any IRQL.
    pub fn get_affinity(&self, interrupt: P) -> Option<Affinity> {
        let info = self.object(self.object_at(interrupt)?)?;
        Some(info.affinity)
    }
}
