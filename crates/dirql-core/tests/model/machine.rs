//! The smallest machine the core can live in: two processors, three interrupts, an I/O APIC and message masks that
//! keep only what decides order, one driver thread on processor 0 and one thread on processor 1. Everything that
//! may happen next is a [`Move`]; nothing here is scheduled.

use std::collections::{BTreeMap, BTreeSet};

use dirql_core::{
    Affinity, Allocation, Assigned, AssignedKind, Config, ConnectRequest, Core, CpuId, Device, Dispatch,
    DpcInsert, DpcQueues, DpcRecord, Importance, Input, Irql, LockKind, Mode, ObjectId, ObjectRequest,
    Polarity, Ports, SetId, Share, Source, Step, Topology, version,
};

/// What a deliberately broken embedder does. Each must make an invariant fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mutation {
    None,
    /// Accepts a vector whatever the processor's level is.
    AcceptAnyLevel,
    /// Does not carry out a raise.
    RaiseIgnored,
    /// Does not look at the line again at end of interrupt.
    ForgetLevel,
    /// Leaves a source closed.
    UnmaskDropped,
    /// Leaves a source open.
    MaskDropped,
    /// Takes a lock that is held.
    LockIgnored,
    /// KeSynchronizeExecution takes the lock without raising.
    SyncWithoutRaise,
    /// A disconnect returns although a routine runs.
    NoWait,
    /// Calls a routine that a disconnect has taken away.
    StaleCall,
    /// Takes a DPC off its queue and forgets it.
    DpcLost,
    /// Runs a DPC twice.
    DpcTwice,
    /// Tells the core that a routine returned FALSE.
    ClaimLost,
}

/// What raises an interrupt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire {
    Line { gsi: u32, mode: Mode },
    Message { index: u32 },
}

/// One interrupt of a function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupt {
    pub(crate) function: usize,
    pub(crate) wire: Wire,
    pub(crate) vector: u8,
}

/// One device function and how its driver connects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    pub(crate) version: u32,
    pub(crate) passive: bool,
}

/// A fixed world to explore, with how often each thing may happen.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) interrupts: [Interrupt; 3],
    pub(crate) functions: Vec<Function>,
    /// Asserts, spontaneous deasserts, connects of one function, inactive reports, synchronisations, raises.
    pub(crate) asserts: u8,
    pub(crate) deasserts: u8,
    pub(crate) connects: u8,
    pub(crate) inactives: u8,
    pub(crate) syncs: u8,
    pub(crate) raises: u8,
    /// By how much its sequences are shorter than the others', because it branches more.
    pub(crate) shorter: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    Connect(usize),
    Disconnect(usize),
    FinishDisconnect,
    Inactive(usize),
    Active(usize),
    Assert(usize),
    Deassert(usize),
    Fire(usize, usize),
    Accept(usize),
    Step(usize),
    Drain(usize),
    Raise(u8),
    Lower,
    SyncBegin(usize),
    SyncLock,
    SyncEnd,
    WorkerStart(u8),
    WorkerStep,
}

impl Move {
    /// Whether it is the world's to do: when nothing else is left, the machine is at rest.
    pub(crate) fn is_outside(self) -> bool {
        matches!(
            self,
            Move::Connect(_)
                | Move::Disconnect(_)
                | Move::Inactive(_)
                | Move::Active(_)
                | Move::Assert(_)
                | Move::Deassert(_)
                | Move::Raise(_)
                | Move::SyncBegin(_)
        )
    }
}

/// The core's ports, with the broken ones.
#[derive(Clone, Hash)]
struct Port {
    next: u64,
    live: BTreeSet<Allocation<u64>>,
    open: BTreeSet<Source<u64>>,
    mutation: Mutation,
    fault: Option<&'static str>,
}

impl Port {
    fn token(&mut self, wrap: fn(u64) -> Allocation<u64>) -> Option<u64> {
        self.next += 1;
        self.live.insert(wrap(self.next));
        Some(self.next)
    }
}

impl Ports<u64> for Port {
    fn alloc_object(&mut self, _: ObjectRequest<u64>) -> Option<u64> {
        self.token(Allocation::Object)
    }
    fn alloc_lock(&mut self) -> Option<u64> {
        self.token(Allocation::Lock)
    }
    fn alloc_event(&mut self) -> Option<u64> {
        self.token(Allocation::Event)
    }
    fn alloc_table(&mut self, _: u32) -> Option<u64> {
        self.token(Allocation::Table)
    }
    fn free(&mut self, what: Allocation<u64>) {
        if !self.live.remove(&what) {
            self.fault = Some("allocation freed twice");
        }
    }
    fn mask(&mut self, source: Source<u64>) {
        if self.mutation != Mutation::MaskDropped && !self.open.remove(&source) {
            self.fault = Some("source closed while closed");
        }
    }
    fn unmask(&mut self, source: Source<u64>) {
        if self.mutation != Mutation::UnmaskDropped && !self.open.insert(source) {
            self.fault = Some("source opened while open");
        }
    }
}

/// What a walk did, to be held against the chain rules.
#[derive(Clone, Default, Hash)]
struct Walk {
    /// The objects of this pass, in order, and whether each claimed.
    pass: Vec<(ObjectId, bool)>,
    /// Those that were there and active when the pass began, and still are.
    steady: BTreeSet<ObjectId>,
    deferred: bool,
}

/// A dispatch with the step it has to carry out.
#[derive(Clone, Hash)]
struct Isr {
    vector: u8,
    saved: u8,
    worker: bool,
    dispatch: Dispatch,
    step: Step<u64, u64>,
    in_call: bool,
    walk: Walk,
}

#[derive(Clone, Hash)]
enum Act {
    Isr(Box<Isr>),
    Dpc { saved: u8, running: Option<DpcRecord<u8, u8>> },
}

#[derive(Clone, Hash)]
enum Thread {
    Idle,
    Raised,
    /// In KeSynchronizeExecution: the lock, its level, and whether it is held.
    Sync {
        lock: u64,
        held: bool,
    },
    Worker(Box<Isr>),
}

#[derive(Clone, Hash)]
struct Cpu {
    irql: u8,
    irr: BTreeSet<u8>,
    nest: Vec<Act>,
}

#[derive(Clone, Copy, Hash)]
struct Connection {
    version: u32,
    out: u64,
    set: SetId,
    active: bool,
}

#[derive(Clone, Default, Hash)]
struct Pin {
    edge: bool,
    remote_irr: bool,
}

/// One state of the world.
#[derive(Clone, Hash)]
pub(crate) struct World {
    core: Core<u64, u64>,
    port: Port,
    dpcs: DpcQueues<u8, u8>,
    asserted: [bool; 3],
    /// A message's pending bit.
    pending: [bool; 3],
    pins: BTreeMap<u32, Pin>,
    cpus: [Cpu; 2],
    thread: Thread,
    /// Lock to holder: processor and depth, or the thread.
    locks: BTreeMap<u64, (usize, usize)>,
    functions: Vec<Option<Connection>>,
    connects: Vec<u8>,
    gone: BTreeSet<SetId>,
    waiting: Option<SetId>,
    workers: Vec<u8>,
    inserted: [u8; 3],
    ran: [u8; 3],
    left: [u8; 5],
}

const ASSERT: usize = 0;
const DEASSERT: usize = 1;
const INACTIVE: usize = 2;
const SYNC: usize = 3;
const RAISE: usize = 4;
/// Depth of a lock holder that is the thread of processor 1.
const THREAD: usize = 99;

/// What went wrong, by the invariant's name.
pub(crate) type Violation = &'static str;

fn pdo(function: usize) -> u64 {
    0x1000 + function as u64
}

impl World {
    pub(crate) fn new(scenario: &Scenario, mutation: Mutation) -> World {
        let mut core = Core::new(Config::default(), Topology::single_group(2));
        for (f, function) in scenario.functions.iter().enumerate() {
            let mine = scenario.interrupts.iter().filter(|i| i.function == f);
            let list = mine.map(|i| Assigned {
                kind: match i.wire {
                    Wire::Line { gsi, .. } => AssignedKind::Line { gsi },
                    Wire::Message { index } => AssignedKind::Message { index, entry: index },
                },
                vector: i.vector,
                irql: if function.passive && function.version == version::LINE_BASED {
                    Irql::PASSIVE
                } else {
                    Irql::of_vector(i.vector)
                },
                affinity: Affinity { group: 0, mask: 3 },
                mode: match i.wire {
                    Wire::Line { mode, .. } => mode,
                    Wire::Message { .. } => Mode::Latched,
                },
                polarity: Polarity::ActiveLow,
                share: Share::Shared,
            });
            core.assign(pdo(f), list.collect());
        }
        let cpu = || Cpu { irql: 0, irr: BTreeSet::new(), nest: Vec::new() };
        let n = scenario.functions.len();
        World {
            core,
            port: Port { next: 0, live: BTreeSet::new(), open: BTreeSet::new(), mutation, fault: None },
            dpcs: DpcQueues::new(2, true),
            asserted: [false; 3],
            pending: [false; 3],
            pins: BTreeMap::new(),
            cpus: [cpu(), cpu()],
            thread: Thread::Idle,
            locks: BTreeMap::new(),
            functions: vec![None; n],
            connects: vec![scenario.connects; n],
            gone: BTreeSet::new(),
            waiting: None,
            workers: Vec::new(),
            inserted: [0; 3],
            ran: [0; 3],
            left: [scenario.asserts, scenario.deasserts, scenario.inactives, scenario.syncs, scenario.raises],
        }
    }

    fn source(&self, s: &Scenario, i: usize) -> Source<u64> {
        match s.interrupts[i].wire {
            Wire::Line { gsi, .. } => Source::Line { gsi },
            Wire::Message { index } => {
                Source::Message { pdo: pdo(s.interrupts[i].function), index, entry: index }
            }
        }
    }

    fn is_open(&self, s: &Scenario, i: usize) -> bool {
        self.port.open.contains(&self.source(s, i))
    }

    fn line_high(&self, s: &Scenario, gsi: u32) -> bool {
        (0..3).any(|i| {
            matches!(s.interrupts[i].wire, Wire::Line { gsi: g, .. } if g == gsi) && self.asserted[i]
        })
    }

    /// Connected, active, and not leaving.
    fn served(&self, s: &Scenario, i: usize) -> bool {
        self.functions[s.interrupts[i].function].is_some_and(|c| c.active)
    }

    /// The vector the processor would accept.
    fn eligible(&self, cpu: usize) -> Option<u8> {
        let c = &self.cpus[cpu];
        let top = c.nest.iter().filter_map(|act| match act {
            Act::Isr(isr) => Some(isr.vector >> 4),
            Act::Dpc { .. } => None,
        });
        let floor = top.max().unwrap_or(0).max(c.irql);
        let any = self.port.mutation == Mutation::AcceptAnyLevel;
        c.irr.iter().rev().copied().find(|v| any || v >> 4 > floor)
    }

    fn can_step(&self, isr: &Isr) -> bool {
        match isr.step {
            Step::AcquireLock { lock, .. } => {
                !self.locks.contains_key(&lock) || self.port.mutation == Mutation::LockIgnored
            }
            _ => true,
        }
    }

    pub(crate) fn moves(&self, s: &Scenario) -> Vec<Move> {
        let mut out = Vec::new();
        for cpu in 0..2 {
            if self.eligible(cpu).is_some() {
                out.push(Move::Accept(cpu));
            }
            match self.cpus[cpu].nest.last() {
                Some(Act::Isr(isr)) if self.can_step(isr) => out.push(Move::Step(cpu)),
                Some(Act::Dpc { .. }) => out.push(Move::Step(cpu)),
                _ => {}
            }
            if self.cpus[cpu].irql < 2 && self.dpcs.requested(CpuId(cpu as u32)) {
                out.push(Move::Drain(cpu));
            }
        }
        for i in 0..3 {
            let fires = match s.interrupts[i].wire {
                Wire::Message { .. } => self.pending[i] && self.is_open(s, i),
                Wire::Line { gsi, mode } => {
                    let first = (0..i)
                        .all(|j| !matches!(s.interrupts[j].wire, Wire::Line { gsi: g, .. } if g == gsi));
                    let pin = self.pins.get(&gsi).cloned().unwrap_or_default();
                    first
                        && match mode {
                            Mode::Level => self.line_high(s, gsi) && self.is_open(s, i) && !pin.remote_irr,
                            Mode::Latched => pin.edge,
                        }
                }
            };
            if fires {
                out.extend([Move::Fire(i, 0), Move::Fire(i, 1)]);
            }
            let may_assert = match s.interrupts[i].wire {
                // An edge on a closed line is lost, so a driver starts its device after it connected.
                Wire::Line { mode: Mode::Latched, .. } => self.served(s, i),
                _ => self.served(s, i) || !self.is_open(s, i),
            };
            if !self.asserted[i] && self.left[ASSERT] > 0 && may_assert {
                out.push(Move::Assert(i));
            }
            if self.asserted[i]
                && self.left[DEASSERT] > 0
                && matches!(s.interrupts[i].wire, Wire::Line { .. })
            {
                out.push(Move::Deassert(i));
            }
        }
        if let Some(set) = self.waiting {
            if !self.core.set_is_running(set) {
                out.push(Move::FinishDisconnect);
            }
        } else if self.cpus[0].nest.is_empty() && self.cpus[0].irql == 0 {
            for f in 0..s.functions.len() {
                match self.functions[f] {
                    None if self.connects[f] > 0 => out.push(Move::Connect(f)),
                    Some(c) if !matches!(self.thread, Thread::Sync { .. }) => {
                        out.push(Move::Disconnect(f));
                        if c.active && self.left[INACTIVE] > 0 {
                            out.push(Move::Inactive(f));
                        } else if !c.active {
                            out.push(Move::Active(f));
                        }
                    }
                    _ => {}
                }
            }
        }
        if self.cpus[1].nest.is_empty() {
            match &self.thread {
                Thread::Idle => {
                    if self.left[RAISE] > 0 {
                        out.extend([Move::Raise(2), Move::Raise(6), Move::Raise(12)]);
                    }
                    if let (Some(&vector), true) = (self.workers.first(), self.cpus[1].irql == 0) {
                        out.push(Move::WorkerStart(vector));
                    }
                    for (f, connection) in self.functions.iter().enumerate() {
                        if connection.is_some() && self.left[SYNC] > 0 && !s.functions[f].passive {
                            out.push(Move::SyncBegin(f));
                        }
                    }
                }
                Thread::Raised => out.push(Move::Lower),
                Thread::Sync { lock, held: false } => {
                    let ignored = self.port.mutation == Mutation::LockIgnored;
                    if ignored || !self.locks.contains_key(lock) {
                        out.push(Move::SyncLock);
                    }
                }
                Thread::Sync { held: true, .. } => out.push(Move::SyncEnd),
                Thread::Worker(isr) => {
                    if self.can_step(isr) {
                        out.push(Move::WorkerStep);
                    }
                }
            }
        }
        out
    }

    fn quiet(&mut self, s: &Scenario, f: usize) {
        for i in (0..3).filter(|&i| s.interrupts[i].function == f) {
            self.asserted[i] = false;
            self.pending[i] = false;
        }
    }

    /// Takes what left out of the sets that walks are held against.
    fn unsteady(&mut self) {
        let core = &self.core;
        let there = |id: &ObjectId| {
            core.object(*id).is_some_and(|o| o.active) && core.objects().any(|(o, _)| o == *id)
        };
        let acts = self.cpus.iter_mut().flat_map(|cpu| cpu.nest.iter_mut());
        let acts = acts.filter_map(|act| match act {
            Act::Isr(isr) => Some(isr),
            Act::Dpc { .. } => None,
        });
        let worker = match &mut self.thread {
            Thread::Worker(isr) => Some(isr),
            _ => None,
        };
        for isr in acts.chain(worker) {
            isr.walk.steady.retain(there);
        }
    }

    pub(crate) fn apply(&mut self, s: &Scenario, step: Move) -> Result<(), Violation> {
        match step {
            Move::Connect(f) => self.connect(s, f)?,
            Move::Disconnect(f) => {
                self.quiet(s, f);
                let Some(c) = self.functions[f].take() else { return Ok(()) };
                let outcome = self
                    .core
                    .disconnect(c.version, Some(c.out), Irql::PASSIVE, None, &mut self.port)
                    .map_err(|_| "disconnect refused")?;
                if outcome.must_wait && self.port.mutation != Mutation::NoWait {
                    self.waiting = Some(c.set);
                } else {
                    self.gone.insert(c.set);
                    for what in outcome.freed {
                        self.port.free(what);
                    }
                    self.none_inside(c.set)?;
                }
                self.unsteady();
            }
            Move::FinishDisconnect => {
                let Some(set) = self.waiting.take() else { return Ok(()) };
                let freed = self.core.finish_disconnect(set).ok_or("disconnect never ends")?;
                for what in freed {
                    self.port.free(what);
                }
                self.gone.insert(set);
                self.none_inside(set)?;
            }
            Move::Inactive(f) | Move::Active(f) => {
                let active = matches!(step, Move::Active(_));
                if !active {
                    self.left[INACTIVE] -= 1;
                    self.quiet(s, f);
                }
                let Some(c) = &mut self.functions[f] else { return Ok(()) };
                c.active = active;
                let (version, out) = (c.version, Some(c.out));
                let done = if active {
                    self.core.report_active(version, out, &mut self.port)
                } else {
                    self.core.report_inactive(version, out, &mut self.port)
                };
                done.map_err(|_| "report refused")?;
                self.unsteady();
            }
            Move::Assert(i) => {
                self.left[ASSERT] -= 1;
                if let Wire::Line { gsi, mode: Mode::Latched } = s.interrupts[i].wire
                    && !self.line_high(s, gsi)
                    && self.is_open(s, i)
                {
                    self.pins.entry(gsi).or_default().edge = true;
                }
                self.asserted[i] = true;
                if matches!(s.interrupts[i].wire, Wire::Message { .. }) {
                    self.pending[i] = true;
                }
            }
            Move::Deassert(i) => {
                self.left[DEASSERT] -= 1;
                self.asserted[i] = false;
            }
            Move::Fire(i, cpu) => {
                match s.interrupts[i].wire {
                    Wire::Message { .. } => self.pending[i] = false,
                    Wire::Line { gsi, mode } => {
                        let pin = self.pins.entry(gsi).or_default();
                        match mode {
                            Mode::Level => pin.remote_irr = true,
                            Mode::Latched => pin.edge = false,
                        }
                    }
                }
                self.cpus[cpu].irr.insert(s.interrupts[i].vector);
            }
            Move::Accept(cpu) => self.accept(cpu)?,
            Move::Step(cpu) => self.step(s, cpu)?,
            Move::Drain(cpu) => {
                let saved = std::mem::replace(&mut self.cpus[cpu].irql, 2);
                self.cpus[cpu].nest.push(Act::Dpc { saved, running: None });
            }
            Move::Raise(level) => {
                self.left[RAISE] -= 1;
                self.cpus[1].irql = level;
                self.thread = Thread::Raised;
            }
            Move::Lower => {
                self.cpus[1].irql = 0;
                self.thread = Thread::Idle;
            }
            Move::SyncBegin(f) => {
                self.left[SYNC] -= 1;
                let Some(c) = self.functions[f] else { return Ok(()) };
                // A message set is synchronised by its first object.
                let object = self.core.objects().find(|(_, o)| o.set == c.set).map(|(_, o)| o.public);
                let object = object.ok_or("a connected set has no object")?;
                let plan = self.core.sync_plan(object, Irql(self.cpus[1].irql));
                let plan = plan.map_err(|_| "no plan to synchronise with a connected object")?;
                if self.port.mutation != Mutation::SyncWithoutRaise {
                    self.cpus[1].irql = plan.sync_irql.0;
                }
                self.thread = Thread::Sync { lock: plan.lock, held: false };
            }
            Move::SyncLock => {
                let Thread::Sync { lock, held } = &mut self.thread else { return Ok(()) };
                *held = true;
                if self.locks.insert(*lock, (1, THREAD)).is_some() {
                    return Err("lock exclusion");
                }
            }
            Move::SyncEnd => {
                let Thread::Sync { lock, .. } = self.thread else { return Ok(()) };
                if self.locks.remove(&lock) != Some((1, THREAD)) {
                    return Err("lock exclusion");
                }
                self.cpus[1].irql = 0;
                self.thread = Thread::Idle;
            }
            Move::WorkerStart(vector) => {
                self.workers.remove(0);
                let (dispatch, step) = self.core.begin_passive(CpuId(1), vector, &mut self.port);
                let walk = Walk::default();
                let isr = Isr { vector, saved: 0, worker: true, dispatch, step, in_call: false, walk };
                self.thread = Thread::Worker(Box::new(self.settle(1, THREAD, isr)?));
            }
            Move::WorkerStep => {
                let Thread::Worker(isr) = std::mem::replace(&mut self.thread, Thread::Idle) else {
                    return Ok(());
                };
                if let Some(isr) = self.advance(s, 1, THREAD, *isr)? {
                    self.thread = Thread::Worker(Box::new(isr));
                }
            }
        }
        match self.port.fault {
            Some(fault) => Err(fault),
            None => self.sources_fit(s),
        }
    }

    fn connect(&mut self, s: &Scenario, f: usize) -> Result<(), Violation> {
        self.connects[f] -= 1;
        let function = s.functions[f];
        let first = s.interrupts.iter().find(|i| i.function == f).ok_or("a function without interrupts")?;
        let level = if function.passive { Irql::PASSIVE } else { Irql::of_vector(first.vector) };
        let mode = match first.wire {
            Wire::Line { mode, .. } => mode,
            Wire::Message { .. } => Mode::Latched,
        };
        let request = ConnectRequest {
            version: function.version,
            pdo: Device::Physical(pdo(f)),
            has_out_pointer: true,
            isr: Some(f as u64),
            context: f as u64,
            lock: None,
            sync_irql: level,
            floating_save: false,
            share_vector: true,
            vector: first.vector.into(),
            irql: level,
            mode: mode.raw(),
            mask: 3,
            group: 0,
            fallback: None,
        };
        let made =
            self.core.connect(&request, Irql::PASSIVE, &mut self.port).map_err(|_| "connect refused")?;
        let (version, out, set) = (made.version_out, made.out(), made.set);
        self.functions[f] = Some(Connection { version, out, set, active: true });
        Ok(())
    }

    /// No routine of a set that was disconnected is under way.
    fn none_inside(&self, set: SetId) -> Result<(), Violation> {
        let inside = |isr: &Isr| {
            isr.in_call
                && isr.dispatch.object().and_then(|id| self.core.object(id)).is_some_and(|o| o.set == set)
        };
        let acts = self.cpus.iter().flat_map(|cpu| cpu.nest.iter());
        let running = acts.filter(|act| matches!(act, Act::Isr(isr) if inside(isr))).count();
        let worker = matches!(&self.thread, Thread::Worker(isr) if inside(isr));
        if running > 0 || worker { Err("routine runs after disconnect") } else { Ok(()) }
    }

    /// A source is open exactly while an active object of it exists and no passive worker holds it.
    fn sources_fit(&self, s: &Scenario) -> Result<(), Violation> {
        for i in 0..3 {
            let source = self.source(s, i);
            if self.port.open.contains(&source)
                && !self.core.objects().any(|(_, o)| o.source == source && o.active)
            {
                return Err("source open without an active routine");
            }
        }
        Ok(())
    }

    fn accept(&mut self, cpu: usize) -> Result<(), Violation> {
        let Some(vector) = self.eligible(cpu) else { return Ok(()) };
        self.cpus[cpu].irr.remove(&vector);
        let saved = self.cpus[cpu].irql;
        let (dispatch, step) = self.core.begin(CpuId(cpu as u32), vector, Irql(saved), &mut self.port);
        // The vector's class is in service, so nothing of it or below comes in until the end of interrupt.
        let isr = Isr { vector, saved, worker: false, dispatch, step, in_call: false, walk: Walk::default() };
        let depth = self.cpus[cpu].nest.len();
        let isr = self.settle(cpu, depth, isr)?;
        self.cpus[cpu].nest.push(Act::Isr(Box::new(isr)));
        Ok(())
    }

    fn step(&mut self, s: &Scenario, cpu: usize) -> Result<(), Violation> {
        let Some(act) = self.cpus[cpu].nest.pop() else { return Ok(()) };
        let depth = self.cpus[cpu].nest.len();
        match act {
            Act::Isr(isr) => {
                if let Some(isr) = self.advance(s, cpu, depth, *isr)? {
                    self.cpus[cpu].nest.push(Act::Isr(Box::new(isr)));
                }
            }
            Act::Dpc { saved, running: Some(record) } => {
                self.dpcs.finish(record.sequence);
                self.cpus[cpu].nest.push(Act::Dpc { saved, running: None });
            }
            Act::Dpc { saved, running: None } => {
                let Some(record) = self.dpcs.pop(CpuId(cpu as u32)) else {
                    self.cpus[cpu].irql = saved;
                    return Ok(());
                };
                let times = match self.port.mutation {
                    Mutation::DpcLost => 0,
                    Mutation::DpcTwice => 2,
                    _ => 1,
                };
                self.ran[usize::from(record.dpc)] += times;
                if self.cpus[cpu].irql != 2 {
                    return Err("DPC not at DISPATCH_LEVEL");
                }
                self.cpus[cpu].nest.push(Act::Dpc { saved, running: Some(record) });
            }
        }
        for i in 0..3u8 {
            let (inserted, ran) = (self.inserted[usize::from(i)], self.ran[usize::from(i)]);
            if ran + u8::from(self.dpcs.is_queued(i)) != inserted {
                return Err("DPC once per insert");
            }
        }
        Ok(())
    }

    /// Carries out the steps that nothing can come between, up to a lock, a call or the end.
    fn settle(&mut self, cpu: usize, depth: usize, mut isr: Isr) -> Result<Isr, Violation> {
        loop {
            match isr.step {
                Step::SetIrql(to) => {
                    if self.port.mutation != Mutation::RaiseIgnored {
                        self.cpus[cpu].irql = to.0;
                    }
                }
                Step::ReleaseLock { lock, .. } => {
                    if self.locks.remove(&lock) != Some((cpu, depth)) {
                        return Err("lock exclusion");
                    }
                }
                Step::QueuePassive { vector, start_worker } => {
                    isr.walk.deferred = true;
                    if start_worker {
                        self.workers.push(vector);
                    }
                }
                Step::Unexpected { .. } => {}
                Step::AcquireLock { object, lock, kind } => {
                    self.picked(&mut isr, object)?;
                    // Held below this dispatch on the same processor: it would spin for ever.
                    if kind == LockKind::Spin && self.locks.get(&lock).is_some_and(|&(at, _)| at == cpu) {
                        return Err("self-deadlock");
                    }
                    return Ok(isr);
                }
                Step::CallIsr(_) => return Ok(isr),
                Step::Done { .. } => {
                    self.walked(&isr)?;
                    return Ok(isr);
                }
                Step::BugCheck(_) => return Err("IRQL changed"),
            }
            isr.step = self.core.step(&mut isr.dispatch, Input::Continue, &mut self.port);
        }
    }

    fn advance(
        &mut self,
        s: &Scenario,
        cpu: usize,
        depth: usize,
        mut isr: Isr,
    ) -> Result<Option<Isr>, Violation> {
        let mut input = Input::Continue;
        match isr.step {
            Step::AcquireLock { lock, .. } if self.locks.insert(lock, (cpu, depth)).is_some() => {
                return Err("lock exclusion");
            }
            Step::CallIsr(call) if !isr.in_call => {
                let Some(object) = self.core.object(call.object).copied() else {
                    return Err("routine called after disconnect");
                };
                if self.gone.contains(&object.set)
                    || self.port.mutation == Mutation::StaleCall && !object.active
                {
                    return Err("routine called after disconnect");
                }
                if self.locks.get(&object.lock) != Some(&(cpu, depth)) {
                    return Err("lock exclusion");
                }
                let level = self.cpus[cpu].irql;
                let class = isr.vector >> 4;
                let masked = if object.passive {
                    !isr.worker || level != 0
                } else {
                    level < object.sync_irql.0 || level < class || (!isr.worker && isr.saved >= class)
                };
                if masked {
                    return Err("routine below its level");
                }
                isr.in_call = true;
                return Ok(Some(isr));
            }
            Step::CallIsr(call) => {
                isr.in_call = false;
                let f = call.context as usize;
                let mine = (0..3).filter(|&i| {
                    s.interrupts[i].function == f
                        && match (s.interrupts[i].wire, call.message) {
                            (Wire::Message { index }, Some(message)) => index == message,
                            _ => true,
                        }
                });
                let mut claimed = false;
                for i in mine {
                    if !self.asserted[i] {
                        continue;
                    }
                    claimed = true;
                    self.asserted[i] = false;
                    let outcome = self.dpcs.insert(DpcInsert {
                        dpc: i as u8,
                        args: 0,
                        target: None,
                        current: CpuId(cpu as u32),
                        importance: Importance::Medium,
                        threaded: false,
                    });
                    self.inserted[i] += u8::from(outcome.inserted);
                }
                if let Some(last) = isr.walk.pass.last_mut() {
                    last.1 = claimed;
                }
                let lost = self.port.mutation == Mutation::ClaimLost;
                input =
                    Input::IsrReturned { al: u8::from(claimed && !lost), irql: Irql(self.cpus[cpu].irql) };
            }
            Step::Done { restore, .. } => {
                for what in self.core.take_reaped() {
                    self.port.free(what);
                }
                if isr.worker {
                    self.cpus[cpu].irql = 0;
                    return Ok(None);
                }
                if restore.0 != isr.saved {
                    return Err("level not restored");
                }
                for i in &s.interrupts {
                    if let Wire::Line { gsi, mode: Mode::Level } = i.wire
                        && i.vector == isr.vector
                        && self.port.mutation != Mutation::ForgetLevel
                    {
                        self.pins.entry(gsi).or_default().remote_irr = false;
                    }
                }
                self.cpus[cpu].irql = isr.saved;
                return Ok(None);
            }
            _ => {}
        }
        isr.step = self.core.step(&mut isr.dispatch, input, &mut self.port);
        self.settle(cpu, depth, isr).map(Some)
    }

    /// The objects a walk of this dispatch owes a visit, as the chain stands.
    fn owed(&self, isr: &Isr) -> BTreeSet<ObjectId> {
        let chain = self.core.objects().filter(|(_, o)| o.vector == isr.vector && o.active);
        let chain: Vec<_> = chain.map(|(id, o)| (id, o.passive)).collect();
        let first = chain.iter().position(|&(_, passive)| passive).unwrap_or(chain.len());
        let part = if isr.worker { &chain[first..] } else { &chain[..first] };
        part.iter().map(|&(id, _)| id).collect()
    }

    /// The walk picked an object.
    fn picked(&self, isr: &mut Isr, object: ObjectId) -> Result<(), Violation> {
        let mode = self.core.object(object).map(|o| o.mode);
        let fresh = isr.walk.pass.last().is_none_or(|&(last, _)| object <= last);
        let claimed = isr.walk.pass.iter().any(|&(_, claimed)| claimed);
        if fresh && !isr.walk.pass.is_empty() {
            match mode {
                Some(Mode::Level) if !isr.worker => return Err("chain: level walked twice"),
                Some(Mode::Latched) if !claimed && !isr.worker => {
                    return Err("chain: walked again without a claim");
                }
                _ => {}
            }
        }
        if fresh {
            isr.walk.pass.clear();
            isr.walk.steady = self.owed(isr);
        } else if mode == Some(Mode::Level) && claimed {
            return Err("chain: called after a claim");
        }
        isr.walk.pass.push((object, false));
        Ok(())
    }

    /// The walk ended: was everybody called that had to be?
    fn walked(&self, isr: &Isr) -> Result<(), Violation> {
        if isr.walk.deferred {
            return Ok(());
        }
        let Some(&(first, _)) = isr.walk.pass.first() else { return Ok(()) };
        let mode = self.core.objects().find(|&(id, _)| id == first).map(|(_, o)| o.mode);
        let claimed = isr.walk.pass.iter().any(|&(_, claimed)| claimed);
        let called: BTreeSet<ObjectId> = isr.walk.pass.iter().map(|&(id, _)| id).collect();
        if (mode == Some(Mode::Latched) || !claimed) && !isr.walk.steady.is_subset(&called) {
            return Err("chain: a routine was passed over");
        }
        if mode == Some(Mode::Latched) && claimed && called.len() > 1 && !self.owed(isr).is_empty() {
            return Err("chain: latched ended on a claim");
        }
        Ok(())
    }

    /// What must hold when only the outside world could do something.
    pub(crate) fn at_rest(&self, s: &Scenario) -> Result<(), Violation> {
        if self.waiting.is_some() || self.cpus.iter().any(|cpu| !cpu.nest.is_empty()) {
            return Err("deadlock");
        }
        if !matches!(self.thread, Thread::Idle) {
            return Err("deadlock");
        }
        for i in 0..3 {
            if self.asserted[i] && self.served(s, i) {
                return Err("interrupt lost");
            }
        }
        if self.inserted != self.ran {
            return Err("DPC once per insert");
        }
        if self.functions.iter().all(Option::is_none) && !self.port.live.is_empty() {
            return Err("allocation left behind");
        }
        Ok(())
    }
}
