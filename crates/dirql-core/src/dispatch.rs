//! Dispatching: from a vector at a processor to its routines, one step at a time (spec 5.3 to 5.6, 10.1, 10.2, 10.6).

use core::ops::Bound;

use crate::{BugCheck, Core, CpuId, Irql, Mode, ObjectId, ObjectInfo, Param, Ports, SetId, stop};

/// Which kind of lock guards a routine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// A KSPIN_LOCK.
    Spin,
    /// A synchronisation event (passive-level interrupts).
    Event,
}

/// A routine to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dispatch {
    cpu: CpuId,
    vector: u8,
    /// Running in the passive-level worker.
    worker: bool,
    /// Mode of the chain's head.
    mode: Mode,
    /// The level before the interrupt.
    saved: Irql,
    /// The level between routines.
    base: Irql,
    phase: Phase,
    /// The last object the walk visited; the next one has a greater id, whatever came or went meanwhile.
    cursor: ObjectId,
    /// Passes done over the chain.
    passes: u32,
    /// Routines called in this pass.
    calls: u32,
    claimed_in_pass: bool,
    claimed: bool,
    deferred: bool,
    pass_cap: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Ready to look for the next routine.
    Walk,
    /// Raising to the object's level.
    Raise(ObjectId),
    /// Waiting for its lock.
    Lock(ObjectId),
    /// In its routine.
    Call(ObjectId),
    /// Releasing its lock.
    Release(ObjectId),
    /// Said there is no object.
    Unexpected,
    /// Handed to the worker.
    Queued,
    /// Ended.
    Ended,
}

impl Dispatch {
    /// The processor it runs on.
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }

    /// The vector.
    pub fn vector(&self) -> u8 {
        self.vector
    }

    /// Whether it is a passive-level worker's.
    pub fn is_worker(&self) -> bool {
        self.worker
    }

    /// The object whose routine it was about to call, is calling, or has just called.
    pub fn object(&self) -> Option<ObjectId> {
        match self.phase {
            Phase::Raise(id) | Phase::Lock(id) | Phase::Call(id) | Phase::Release(id) => Some(id),
            Phase::Walk | Phase::Unexpected | Phase::Queued | Phase::Ended => None,
        }
    }

    fn new(cpu: CpuId, vector: u8, worker: bool, mode: Mode, saved: Irql, base: Irql) -> Dispatch {
        Dispatch {
            cpu,
            vector,
            worker,
            mode,
            saved,
            base,
            phase: Phase::Walk,
            cursor: ObjectId(0),
            passes: 0,
            calls: 0,
            claimed_in_pass: false,
            claimed: false,
            deferred: false,
            pass_cap: false,
        }
    }

    fn restart(&mut self) {
        self.cursor = ObjectId(0);
        self.calls = 0;
        self.claimed_in_pass = false;
    }

    fn end<R, P>(&mut self) -> Step<R, P> {
        self.phase = Phase::Ended;
        Step::Done { claimed: self.claimed, restore: self.saved, pass_cap: self.pass_cap }
    }
}

impl<R: Copy, P: Copy + Ord> Core<R, P> {
    /// Begins dispatching `vector`, accepted by `cpu` at `current`, which is below the vector's class. Every entry
    /// into a dispatch takes the ports; this one opens and closes nothing.
    pub fn begin(
        &mut self,
        cpu: CpuId,
        vector: u8,
        current: Irql,
        _ports: &mut impl Ports<P>,
    ) -> (Dispatch, Step<R, P>) {
        let class = Irql::of_vector(vector);
        let mut here = self.chain_on(cpu, vector);
        let head = here.next();
        let chained = here.next().is_some();
        // A single object is dispatched at its own level at once (spec 5.3); a passive one has none of its own.
        let base = match head {
            Some(object) if !chained && !object.passive => object.sync_irql,
            Some(object) => object.irql,
            None => class,
        };
        let base = base.max(class).max(current);
        let mode = head.map_or(Mode::Latched, |object| object.mode);
        let found = head.is_some();
        drop(here);
        let mut dispatch = Dispatch::new(cpu, vector, false, mode, current, base);
        if !found {
            self.vectors.entry(vector).or_default().stats.unexpected += 1; // I-17
            dispatch.phase = Phase::Unexpected;
            return (dispatch, Step::Unexpected { vector });
        }
        (dispatch, Step::SetIrql(base))
    }

    /// Begins the passive-level worker of a vector, on a system thread at PASSIVE_LEVEL (spec 10.6). It ends with
    /// `Done` when no work is left; a level line is then open again.
    ///
    /// The worker serves the chain from its first passive object on, because that is where the walk at the interrupt
    /// stopped; routines behind it that run at their DIRQL are called there, raised.
    pub fn begin_passive(
        &mut self,
        cpu: CpuId,
        vector: u8,
        ports: &mut impl Ports<P>,
    ) -> (Dispatch, Step<R, P>) {
        let mode = self.head_mode(cpu, vector);
        let mut dispatch = Dispatch::new(cpu, vector, true, mode, Irql::PASSIVE, Irql::PASSIVE);
        self.vectors.entry(vector).or_default().work = false;
        let step = self.walk(&mut dispatch, ports);
        (dispatch, step)
    }

    /// Goes on after a step. An answer that does not fit the step is the embedder's error: a `Continue` where a
    /// routine's return is due counts as a FALSE return, and an ended dispatch says `Done` again.
    pub fn step(&mut self, dispatch: &mut Dispatch, input: Input, ports: &mut impl Ports<P>) -> Step<R, P> {
        match dispatch.phase {
            Phase::Walk => self.walk(dispatch, ports),
            Phase::Raise(id) => self.take_lock(dispatch, id, ports),
            Phase::Lock(id) => self.call(dispatch, id, ports),
            Phase::Call(id) => self.returned(dispatch, id, input, ports),
            Phase::Release(id) => self.released(dispatch, id, ports),
            Phase::Unexpected | Phase::Queued | Phase::Ended => dispatch.end(),
        }
    }

    /// After end of interrupt of `vector` on `cpu`: whether its line is still asserted. Counts towards a storm
    /// (spec I-24) and asks for 0xF2 at the threshold.
    pub fn after_eoi(&mut self, cpu: CpuId, vector: u8, still_asserted: bool) -> Option<BugCheck<R, P>> {
        if !still_asserted {
            self.storms.remove(&(cpu, vector));
            return None;
        }
        let count = self.storms.entry((cpu, vector)).or_default();
        *count = count.saturating_add(1);
        if *count < self.config.storm_threshold {
            return None;
        }
        let mut here = self.chain_on(cpu, vector);
        let first = here.next()?;
        let chained = if here.next().is_some() { 2 } else { 1 };
        Some(BugCheck {
            code: stop::HARDWARE_INTERRUPT_STORM,
            params: [
                Param::Routine(first.routine),
                Param::Token(first.context),
                Param::Token(first.public),
                Param::Value(chained),
            ],
        })
    }

    /// A thread or DPC made progress on `cpu`: no storm there.
    pub fn note_progress(&mut self, cpu: CpuId) {
        if !self.storms.is_empty() {
            self.storms.retain(|&(at, _), _| at != cpu);
        }
    }

    /// The objects of a vector that may run on a processor, in connect order, active or not.
    fn chain_on(&self, cpu: CpuId, vector: u8) -> impl Iterator<Item = &ObjectInfo<R, P>> {
        let chain = self.vectors.get(&vector).map(|state| state.chain.iter());
        chain
            .into_iter()
            .flatten()
            .filter_map(|id| self.objects.get(id))
            .filter(move |object| self.topology.contains(object.affinity, cpu))
    }

    fn head_mode(&self, cpu: CpuId, vector: u8) -> Mode {
        self.chain_on(cpu, vector).next().map_or(Mode::Latched, |object| object.mode)
    }

    /// The next object to visit.
    fn next_object(&self, dispatch: &Dispatch) -> Option<(ObjectId, &ObjectInfo<R, P>)> {
        let chain = &self.vectors.get(&dispatch.vector)?.chain;
        let here = |id: &ObjectId| {
            let object = self.objects.get(id)?;
            // The worker may be on any processor; its routines belong to the vector's.
            let may = dispatch.worker || self.topology.contains(object.affinity, dispatch.cpu);
            (may && object.active).then_some((*id, object))
        };
        let mut after = dispatch.cursor;
        if dispatch.worker && after == ObjectId(0) {
            // Start at the first passive object.
            let first = chain.iter().filter_map(here).find(|(_, object)| object.passive)?;
            after = ObjectId(first.0.0 - 1);
        }
        chain.range((Bound::Excluded(after), Bound::Unbounded)).find_map(here)
    }

    /// Whether a walk from the head would call more than one routine.
    fn has_company(&self, dispatch: &Dispatch) -> bool {
        let mut from_head = *dispatch;
        from_head.cursor = ObjectId(0);
        let Some((id, _)) = self.next_object(&from_head) else { return false };
        from_head.cursor = id;
        self.next_object(&from_head).is_some()
    }

    /// Looks for the next routine, or ends the pass (spec 5.4).
    fn walk(&mut self, dispatch: &mut Dispatch, ports: &mut impl Ports<P>) -> Step<R, P> {
        loop {
            if let Some((id, object)) = self.next_object(dispatch) {
                if object.passive && !dispatch.worker {
                    return self.queue_passive(dispatch, ports);
                }
                let (set, level) = (object.set, dispatch.base.max(object.sync_irql));
                dispatch.cursor = id;
                dispatch.phase = Phase::Raise(id);
                // From here the routine counts as running: a disconnect waits for it.
                if let Some(set) = self.sets.get_mut(&set) {
                    set.running = set.running.saturating_add(1);
                }
                if level > dispatch.base {
                    return Step::SetIrql(level);
                }
                return self.take_lock(dispatch, id, ports);
            }
            // D-12; and also when the pass called one routine but there are more by now: a routine made active behind
            // the walk may have an edge in the one being served.
            let again = dispatch.mode == Mode::Latched
                && dispatch.claimed_in_pass
                && (dispatch.calls > 1 || self.has_company(dispatch));
            dispatch.passes = dispatch.passes.saturating_add(1);
            if !again || dispatch.passes >= self.config.pass_cap {
                dispatch.pass_cap |= again;
                if !self.finish(dispatch, ports) {
                    return dispatch.end();
                }
                dispatch.passes = 0;
            }
            dispatch.restart();
        }
    }

    fn take_lock(&mut self, dispatch: &mut Dispatch, id: ObjectId, ports: &mut impl Ports<P>) -> Step<R, P> {
        let Some(object) = self.objects.get(&id) else { return self.walk(dispatch, ports) };
        dispatch.phase = Phase::Lock(id);
        Step::AcquireLock { object: id, lock: object.lock, kind: kind_of(object) }
    }

    fn call(&mut self, dispatch: &mut Dispatch, id: ObjectId, ports: &mut impl Ports<P>) -> Step<R, P> {
        let Some(object) = self.objects.get_mut(&id) else { return self.walk(dispatch, ports) };
        dispatch.phase = Phase::Call(id);
        dispatch.calls = dispatch.calls.saturating_add(1);
        object.stats.delivered += 1;
        Step::CallIsr(IsrCall {
            object: id,
            public: object.public,
            routine: object.routine,
            context: object.context,
            message: object.message,
        })
    }

    fn returned(
        &mut self,
        dispatch: &mut Dispatch,
        id: ObjectId,
        input: Input,
        ports: &mut impl Ports<P>,
    ) -> Step<R, P> {
        let Some(object) = self.objects.get_mut(&id) else { return self.walk(dispatch, ports) };
        let expected = dispatch.base.max(object.sync_irql);
        let (al, irql) = match input {
            Input::IsrReturned { al, irql } => (al, irql),
            Input::Continue => (0, expected),
        };
        if irql != expected {
            dispatch.phase = Phase::Ended;
            let packed = u64::from(irql.0) << 16 | u64::from(expected.0) << 8 | 3;
            return Step::BugCheck(BugCheck {
                code: stop::IRQL_UNEXPECTED_VALUE,
                params: [
                    Param::Value(packed),
                    Param::Routine(object.routine),
                    Param::Token(object.public),
                    Param::Value(0),
                ],
            });
        }
        if al != 0 {
            object.stats.claimed += 1;
            dispatch.claimed_in_pass = true;
            dispatch.claimed = true;
        } else {
            object.stats.unclaimed += 1;
        }
        dispatch.phase = Phase::Release(id);
        Step::ReleaseLock { object: id, lock: object.lock, kind: kind_of(object) }
    }

    fn released(&mut self, dispatch: &mut Dispatch, id: ObjectId, ports: &mut impl Ports<P>) -> Step<R, P> {
        dispatch.phase = Phase::Walk;
        if let Some(object) = self.objects.get(&id) {
            let (set, raised) = (object.set, object.sync_irql > dispatch.base);
            self.leave_routine(set);
            if dispatch.mode == Mode::Level && dispatch.claimed_in_pass {
                // Handled: nobody after it is called.
                dispatch.cursor = ObjectId(u64::MAX);
            }
            if raised {
                return Step::SetIrql(dispatch.base);
            }
        }
        self.walk(dispatch, ports)
    }

    /// A routine of the set ended. The last one frees a set that disconnected itself.
    fn leave_routine(&mut self, id: SetId) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        set.running = set.running.saturating_sub(1);
        if set.reap && set.running == 0 {
            let freed = self.forget(id);
            self.reaped.extend(freed);
        }
    }

    /// Hands the rest of the chain to the worker (spec 5.6).
    fn queue_passive(&mut self, dispatch: &mut Dispatch, ports: &mut impl Ports<P>) -> Step<R, P> {
        let vector = dispatch.vector;
        let state = self.vectors.entry(vector).or_default();
        state.work = true;
        let start_worker = !state.worker;
        state.worker = true;
        state.stats.delivered += 1;
        state.stats.deferred += 1;
        if dispatch.mode == Mode::Level {
            state.hold = true;
            self.refresh_sources(vector, ports);
        }
        dispatch.deferred = true;
        dispatch.phase = Phase::Queued;
        Step::QueuePassive { vector, start_worker }
    }

    /// Counts a finished walk; whether a worker has to walk once more.
    fn finish(&mut self, dispatch: &Dispatch, ports: &mut impl Ports<P>) -> bool {
        let state = self.vectors.entry(dispatch.vector).or_default();
        if dispatch.pass_cap {
            state.stats.pass_cap += 1;
        }
        if !dispatch.worker {
            state.stats.delivered += 1;
            if dispatch.claimed {
                state.stats.claimed += 1;
            } else {
                state.stats.unclaimed += 1;
            }
            return false;
        }
        if state.work && !dispatch.pass_cap {
            state.work = false;
            return true;
        }
        state.work = false;
        state.worker = false;
        state.hold = false;
        self.refresh_sources(dispatch.vector, ports);
        false
    }
}

fn kind_of<R, P>(object: &ObjectInfo<R, P>) -> LockKind {
    if object.passive { LockKind::Event } else { LockKind::Spin }
}
