//! A kernel small enough to read in one go: two devices on one line, a DPC, and nothing but the core under them.
//!
//! Routines are Rust functions, tokens are numbers. The "hardware" is one level line that stays asserted while a
//! device has work.

use dirql_core::{
    Allocation, Arbiter, ArbiterKind, ArbiterRequest, BugCheck, Config, ConnectFailure, ConnectRequest, Core,
    CpuId, Device, DpcInsert, DpcQueues, Drain, Importance, Input, Irql, Mode, ObjectRequest, Polarity,
    Policy, Ports, Priority, Source, Step, Topology, version,
};

type Routine = fn(&mut World, u64) -> bool;
type Token = u64;

/// Devices, and what the drivers did.
#[derive(Default)]
struct World {
    work: [u32; 2],
    dpcs: Vec<u64>,
    log: Vec<String>,
}

/// The ports: numbers for addresses, one gate for the line.
#[derive(Default)]
struct Hardware {
    next: Token,
    line_open: bool,
}

impl Hardware {
    fn token(&mut self) -> Option<Token> {
        self.next += 1;
        Some(self.next)
    }
}

impl Ports<Token> for Hardware {
    fn alloc_object(&mut self, _: ObjectRequest<Token>) -> Option<Token> {
        self.token()
    }
    fn alloc_lock(&mut self) -> Option<Token> {
        self.token()
    }
    fn alloc_event(&mut self) -> Option<Token> {
        self.token()
    }
    fn alloc_table(&mut self, _: u32) -> Option<Token> {
        self.token()
    }
    fn free(&mut self, _: Allocation<Token>) {}
    fn mask(&mut self, _: Source<Token>) {
        self.line_open = false;
    }
    fn unmask(&mut self, _: Source<Token>) {
        self.line_open = true;
    }
}

/// The service routine of both drivers; the context is the device's number.
fn isr(world: &mut World, device: u64) -> bool {
    let work = &mut world.work[device as usize];
    if *work == 0 {
        return false;
    }
    *work -= 1;
    world.dpcs.push(device);
    world.log.push(format!("isr {device}"));
    true
}

/// Accepts one interrupt and carries the core's steps out.
fn interrupt(
    core: &mut Core<Routine, Token>,
    hardware: &mut Hardware,
    world: &mut World,
    vector: u8,
) -> Result<(), BugCheck<Routine, Token>> {
    let mut irql = Irql::PASSIVE;
    let (mut dispatch, mut step) = core.begin(CpuId(0), vector, irql, hardware);
    loop {
        let mut input = Input::Continue;
        match step {
            Step::SetIrql(level) => irql = level,
            Step::AcquireLock { .. } | Step::ReleaseLock { .. } => {} // one processor: never contended
            Step::CallIsr(call) => {
                let al = u8::from((call.routine)(world, call.context));
                input = Input::IsrReturned { al, irql };
            }
            Step::QueuePassive { .. } => unreachable!("no driver here asks for passive-level handling"),
            Step::Unexpected { .. } => world.log.push("unexpected".into()),
            Step::Done { .. } => {
                let asserted = hardware.line_open && world.work.iter().any(|&work| work > 0);
                return core.after_eoi(CpuId(0), vector, asserted).map_or(Ok(()), Err);
            }
            Step::BugCheck(stop) => return Err(stop),
        }
        step = core.step(&mut dispatch, input, hardware);
    }
}

fn main() -> Result<(), String> {
    let topology = Topology::single_group(1);
    let mut arbiter = Arbiter::new(topology.clone());
    let mut core: Core<Routine, Token> = Core::new(Config::default(), topology);
    let (mut hardware, mut world) = (Hardware { next: 100, line_open: false }, World::default());
    let mut dpcs: DpcQueues<u64, u64> = DpcQueues::new(1, true);

    // Both devices sit on GSI 16 and connect by line.
    let mut connections = Vec::new();
    let mut vector = 0;
    for device in [0u64, 1] {
        let request = ArbiterRequest {
            kind: ArbiterKind::Line { gsi: 16, mode: Mode::Level, polarity: Polarity::ActiveLow },
            priority: Priority::Normal,
            policy: Policy::AllProcessors,
            irqls: Vec::new(),
        };
        let assigned = arbiter.assign(&request).map_err(|error| format!("{error:?}"))?;
        vector = assigned[0].vector;
        core.assign(device, assigned);
        let request = ConnectRequest {
            version: version::LINE_BASED,
            pdo: Device::Physical(device),
            has_out_pointer: true,
            isr: Some(isr as Routine),
            context: device,
            lock: None,
            sync_irql: Irql::PASSIVE,
            floating_save: false,
            share_vector: false,
            vector: 0,
            irql: Irql::PASSIVE,
            mode: 0,
            mask: 0,
            group: 0,
            fallback: None,
        };
        let made = core.connect(&request, Irql::PASSIVE, &mut hardware).map_err(|failure| match failure {
            ConnectFailure::Refused(refusal) => format!("refused: {:?}", refusal.error),
            ConnectFailure::BugCheck(stop) => format!("stop {:#x}", stop.code),
        })?;
        connections.push(made.out());
    }
    assert!(hardware.line_open);

    // The second device has two pieces of work: the line stays asserted until both are done.
    world.work[1] = 2;
    while world.work.iter().any(|&work| work > 0) {
        interrupt(&mut core, &mut hardware, &mut world, vector)
            .map_err(|stop| format!("stop {:#x}", stop.code))?;
        for dpc in std::mem::take(&mut world.dpcs) {
            let outcome = dpcs.insert(DpcInsert {
                dpc,
                args: dpc,
                target: None,
                current: CpuId(0),
                importance: Importance::Medium,
                threaded: false,
            });
            assert_eq!(outcome.drain, Drain::Local);
        }
        while let Some(record) = dpcs.pop(CpuId(0)) {
            world.log.push(format!("dpc {}", record.args));
            dpcs.finish(record.sequence);
        }
    }
    assert_eq!(world.log, ["isr 1", "dpc 1", "isr 1", "dpc 1"]);

    // The line closes when the last sharer leaves.
    for (left, context) in connections.into_iter().enumerate() {
        assert!(hardware.line_open, "{left} left so far");
        let outcome = core.disconnect(version::LINE_BASED, Some(context), Irql::PASSIVE, None, &mut hardware);
        assert!(outcome.is_ok_and(|outcome| !outcome.must_wait));
    }
    assert!(!hardware.line_open);
    Ok(())
}
