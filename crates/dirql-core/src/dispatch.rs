//! Dispatching: from a vector at a processor to its routines, one step at a time (spec 5.3 to 5.6, 10.1, 10.2, 10.6).

use crate::{BugCheck, Core, CpuId, Irql, ObjectId, Ports};

/// Which kind of lock guards a routine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// A KSPIN_LOCK.
    Spin,
    /// A synchronisation event (passive-level interrupts).
    Event,
}

/// A routine to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsrCall<R, P> {
    /// The object.
    pub object: ObjectId,
    /// First argument.
    pub public: P,
    /// The routine.
    pub routine: R,
    /// Second argument.
    pub context: P,
    /// Third argument, for message routines.
    pub message: Option<u32>,
}

/// What the embedder does next. Answer each with [`Core::step`] and the [`Input`] named, except `Done` and
/// `BugCheck`, which end the dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<R, P> {
    /// Set the processor's level, then [`Input::Continue`]. Lowering here must not deliver: end of interrupt is yet
    /// to come.
    SetIrql(Irql),
    /// Take the lock, spinning (or, for an event, waiting) as long as it is held, then [`Input::Continue`].
    AcquireLock {
        /// For whom.
        object: ObjectId,
        /// The lock or event.
        lock: P,
        /// Which.
        kind: LockKind,
    },
    /// Call the routine with interrupts enabled, then [`Input::IsrReturned`].
    CallIsr(IsrCall<R, P>),
    /// Release the lock or set the event, then [`Input::Continue`].
    ReleaseLock {
        /// Whose.
        object: ObjectId,
        /// The lock or event.
        lock: P,
        /// Which.
        kind: LockKind,
    },
    /// A passive-level routine is next; the core has masked a level line. Then [`Input::Continue`].
    QueuePassive {
        /// The vector.
        vector: u8,
        /// Queue a worker that runs [`Core::begin_passive`]; `false` when one is queued or running already.
        start_worker: bool,
    },
    /// No object is connected here: count it, then [`Input::Continue`].
    Unexpected {
        /// The vector.
        vector: u8,
    },
    /// End of interrupt, then restore the level, then [`Core::after_eoi`]. For a passive worker: it ends.
    Done {
        /// Whether any routine claimed.
        claimed: bool,
        /// The level before the interrupt.
        restore: Irql,
        /// The walk was cut: a shared latched routine claimed in every one of [`crate::Config::pass_cap`] passes.
        pass_cap: bool,
    },
    /// The system stops.
    BugCheck(BugCheck<R, P>),
}

/// The embedder's answer to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Done.
    Continue,
    /// The routine returned.
    IsrReturned {
        /// AL: the low byte of the result.
        al: u8,
        /// The processor's level at return.
        irql: Irql,
    },
}

/// One dispatch under way. The embedder keeps it in the activation it made for the interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispatch {
    cpu: CpuId,
    vector: u8,
    passive: bool,
}

impl<R: Copy, P: Copy + Ord> Core<R, P> {
    /// Begins dispatching `vector`, accepted by `cpu` at `current`.
    pub fn begin(
        &mut self,
        cpu: CpuId,
        vector: u8,
        current: Irql,
        ports: &mut impl Ports<P>,
    ) -> (Dispatch, Step<R, P>) {
        todo!()
    }

    /// Begins the passive-level worker of a vector, on a system thread at PASSIVE_LEVEL.
    pub fn begin_passive(
        &mut self,
        cpu: CpuId,
        vector: u8,
        ports: &mut impl Ports<P>,
    ) -> (Dispatch, Step<R, P>) {
        todo!()
    }

    /// Goes on after a step. An answer that does not fit the step is an embedder's error and ends the dispatch.
    pub fn step(&mut self, dispatch: &mut Dispatch, input: Input, ports: &mut impl Ports<P>) -> Step<R, P> {
        todo!()
    }

    /// After end of interrupt of `vector` on `cpu`: whether its line is still asserted. Counts towards a storm
    /// (spec I-24) and asks for 0xF2 at the threshold.
    pub fn after_eoi(&mut self, cpu: CpuId, vector: u8, still_asserted: bool) -> Option<BugCheck<R, P>> {
        todo!()
    }

    /// A thread or DPC made progress on `cpu`: no storm there.
    pub fn note_progress(&mut self, cpu: CpuId) {
        if !self.storms.is_empty() {
            self.storms.retain(|&(at, _), _| at != cpu);
        }
    }
}
