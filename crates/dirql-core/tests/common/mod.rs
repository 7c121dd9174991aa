//! Ports that count, and the shortest ways to a device with interrupts.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "shared by several test binaries")]

use std::collections::BTreeSet;

use dirql_core::{
    Affinity, Allocation, Assigned, AssignedKind, Config, ConnectFailure, ConnectRequest, Connected, Core,
    CpuId, Device, Dispatch, Input, Irql, IsrCall, Mode, ObjectRequest, Polarity, Ports, Refusal, Share,
    Source, Step, Topology,
};

pub const PDO: u64 = 0xD0;
pub const ISR: u64 = 0x1000;
pub const CPU0: CpuId = CpuId(0);
pub const CPU1: CpuId = CpuId(1);
pub type C = Core<u64, u64>;

#[derive(Clone, Default)]
pub struct TestPorts {
    pub next: u64,
    /// Allocations still allowed; `None` is no limit.
    pub left: Option<u32>,
    pub live: BTreeSet<Allocation<u64>>,
    pub open: BTreeSet<Source<u64>>,
}

impl TestPorts {
    fn token(&mut self, wrap: fn(u64) -> Allocation<u64>) -> Option<u64> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        self.next += 0x10;
        let token = 0xA000_0000 + self.next;
        self.live.insert(wrap(token));
        Some(token)
    }
}

impl Ports<u64> for TestPorts {
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
        assert!(self.live.remove(&what), "freed twice: {what:?}");
    }
    fn mask(&mut self, source: Source<u64>) {
        assert!(self.open.remove(&source), "masked while masked: {source:?}");
    }
    fn unmask(&mut self, source: Source<u64>) {
        assert!(self.open.insert(source), "unmasked while open: {source:?}");
    }
}

pub fn core_with(config: Config) -> C {
    Core::new(config, Topology::single_group(2))
}

pub fn core() -> C {
    core_with(Config::default())
}

pub fn line(gsi: u32, vector: u8, mode: Mode) -> Assigned {
    Assigned {
        kind: AssignedKind::Line { gsi },
        vector,
        irql: Irql(vector >> 4),
        affinity: Affinity { group: 0, mask: 3 },
        mode,
        polarity: Polarity::ActiveLow,
        share: Share::Shared,
    }
}

pub fn message(index: u32, vector: u8) -> Assigned {
    Assigned {
        kind: AssignedKind::Message { index, entry: index },
        polarity: Polarity::ActiveHigh,
        share: Share::DeviceExclusive,
        ..line(0, vector, Mode::Latched)
    }
}

/// A request by `version` that fits `line(_, 0x61, Level)` and every other version.
pub fn request(version: u32) -> ConnectRequest<u64, u64> {
    ConnectRequest {
        version,
        pdo: Device::Physical(PDO),
        has_out_pointer: true,
        isr: Some(ISR),
        context: 0xC0,
        lock: None,
        sync_irql: Irql(6),
        floating_save: false,
        share_vector: true,
        vector: 0x61,
        irql: Irql(6),
        mode: 0,
        mask: 3,
        group: 0,
        fallback: None,
    }
}

pub fn connect(core: &mut C, ports: &mut TestPorts, r: &ConnectRequest<u64, u64>) -> Connected<u64> {
    core.connect(r, Irql::PASSIVE, ports).expect("connects")
}

pub fn refused(core: &mut C, ports: &mut TestPorts, r: &ConnectRequest<u64, u64>) -> Refusal {
    let (live, open) = (ports.live.clone(), ports.open.clone());
    let objects = core.objects().count();
    let refusal = match core.connect(r, Irql::PASSIVE, ports) {
        Err(ConnectFailure::Refused(refusal)) => refusal,
        other => panic!("expected a refusal: {other:?}"),
    };
    assert_eq!((&ports.live, &ports.open), (&live, &open), "a refusal leaves nothing behind");
    assert_eq!(core.objects().count(), objects);
    refusal
}

/// A fully specified connection of routine `isr` on the shared vector 0x61.
pub fn add(core: &mut C, ports: &mut TestPorts, isr: u64, mode: Mode) -> u64 {
    let r = ConnectRequest { isr: Some(isr), mode: mode.raw(), ..request(1) };
    connect(core, ports, &r).out()
}

/// What a dispatch did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub called: Vec<u64>,
    pub levels: Vec<u8>,
    pub claimed: bool,
    pub pass_cap: bool,
    pub unexpected: bool,
    /// `start_worker`, when the walk met a passive routine.
    pub queued: Option<bool>,
    pub bug_check: Option<u32>,
}

/// Runs a dispatch to its end. `isr` answers each call; it may change the core meanwhile.
pub fn drive(
    core: &mut C,
    ports: &mut TestPorts,
    begun: (Dispatch, Step<u64, u64>),
    before: Irql,
    mut isr: impl FnMut(&mut C, &mut TestPorts, IsrCall<u64, u64>) -> u8,
) -> Log {
    let (mut dispatch, mut step) = begun;
    let (mut log, mut irql, mut held) = (Log::default(), before, None);
    for _ in 0..100_000 {
        let mut input = Input::Continue;
        match step {
            Step::SetIrql(to) => irql = to,
            Step::AcquireLock { lock, .. } => assert_eq!(held.replace(lock), None, "one lock at a time"),
            Step::ReleaseLock { lock, .. } => assert_eq!(held.take(), Some(lock)),
            Step::CallIsr(call) => {
                assert!(held.is_some(), "called without its lock");
                log.called.push(call.routine);
                log.levels.push(irql.0);
                input = Input::IsrReturned { al: isr(core, ports, call), irql };
            }
            Step::QueuePassive { start_worker, .. } => log.queued = Some(start_worker),
            Step::Unexpected { .. } => log.unexpected = true,
            Step::Done { claimed, restore, pass_cap } => {
                assert_eq!((held, restore), (None, before));
                (log.claimed, log.pass_cap) = (claimed, pass_cap);
                return log;
            }
            Step::BugCheck(stop) => {
                log.bug_check = Some(stop.code);
                return log;
            }
        }
        step = core.step(&mut dispatch, input, ports);
    }
    panic!("the dispatch does not end");
}

/// Takes vector 0x61 on processor 0 at PASSIVE_LEVEL.
pub fn take(
    core: &mut C,
    ports: &mut TestPorts,
    isr: impl FnMut(&mut C, &mut TestPorts, IsrCall<u64, u64>) -> u8,
) -> Log {
    let begun = core.begin(CPU0, 0x61, Irql::PASSIVE, ports);
    drive(core, ports, begun, Irql::PASSIVE, isr)
}
