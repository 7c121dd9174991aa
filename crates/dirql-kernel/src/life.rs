//! A driver's life: entry, AddDevice, start, the workload, stop, remove, unload; each a job on a native thread.

use std::collections::{BTreeMap, VecDeque};

use dirql_core::{
    ArbiterKind, ArbiterRequest, Assigned, AssignedKind, Irql, Mode, Polarity, Policy, Priority, Share,
};
use dirql_event::{EventKind, ResourceKind, ResourceLine, StepOutcome};
use dirql_machine::{BarKind, DeviceId};

use crate::context::{Outcome, Result, Wait};
use crate::cx::Cx;
use crate::io::{self, Pdo, STATUS_PENDING, device, driver, irp, stack};
use crate::kernel::Kernel;
use crate::pool::PoolKind;
use crate::sched;
use crate::stop::Stop;
use crate::then::Then;
use crate::thread::ThreadState;

/// How a device interrupts, as the lab says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// INTx on this global system interrupt.
    Line(u32),
    /// So many MSI messages.
    Msi(u32),
    /// So many MSI-X messages.
    Msix(u32),
    /// None.
    None,
}

/// A device of the lab, already on the machine's bus.
#[derive(Clone, Debug)]
pub struct PlanDevice {
    /// Name in the lab.
    pub name: String,
    /// Model.
    pub model: String,
    /// The machine's device.
    pub machine: DeviceId,
    /// How it interrupts.
    pub wants: Wants,
    /// Wanted DIRQLs: none, one, or one an interrupt.
    pub irqls: Vec<u8>,
    /// Its interrupt policy.
    pub policy: Policy,
    /// Its interrupt priority.
    pub priority: Priority,
    /// Does the driver under test get it?
    pub driven: bool,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Do {
    /// Open a device by name, under a handle name.
    Open {
        /// Name; none for the first the driver made.
        name: Option<String>,
        /// Handle name.
        handle: String,
    },
    /// Close a handle.
    Close {
        /// Handle name.
        handle: String,
    },
    /// Device control.
    Ioctl {
        /// Handle name.
        handle: String,
        /// IRP_MJ_INTERNAL_DEVICE_CONTROL instead.
        internal: bool,
        /// Control code.
        code: u32,
        /// Input bytes.
        input: Vec<u8>,
        /// Room for output.
        output: u32,
        /// Go on without waiting; the name to wait by.
        request: Option<String>,
    },
    /// Read.
    Read {
        /// Handle name.
        handle: String,
        /// Bytes.
        length: u32,
        /// Byte offset.
        offset: u64,
        /// Go on without waiting; the name to wait by.
        request: Option<String>,
    },
    /// Write.
    Write {
        /// Handle name.
        handle: String,
        /// Data.
        data: Vec<u8>,
        /// Byte offset.
        offset: u64,
        /// Go on without waiting; the name to wait by.
        request: Option<String>,
    },
    /// Wait for an asynchronous request.
    WaitRequest(String),
    /// Cancel an asynchronous request.
    Cancel(String),
    /// Wait for a thread of the workload.
    WaitThread(String),
    /// Let virtual time pass, in nanoseconds.
    Delay(u64),
    /// Make a device's source raise its interrupt.
    Raise {
        /// Device name.
        device: String,
        /// Source.
        source: u32,
    },
    /// Set a device register by name.
    Set {
        /// Device name.
        device: String,
        /// Register.
        register: String,
        /// Value.
        value: u64,
    },
    /// A PnP request, by minor code.
    Pnp {
        /// Device name.
        device: String,
        /// IRP_MN_*.
        minor: u8,
    },
    /// A device power state, 0 to 3.
    Power {
        /// Device name.
        device: String,
        /// D state.
        state: u8,
    },
}

/// What a step must give.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// NTSTATUS.
    pub status: Option<u32>,
    /// Output bytes.
    pub output: Option<Vec<u8>>,
    /// Virtual nanoseconds it may take.
    pub within: Option<u64>,
    /// `IoStatus.Information`.
    pub information: Option<u64>,
}

/// One step of the workload.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its place in the lab.
    pub index: u32,
    /// As in the lab, for reports.
    pub what: String,
    /// What it does.
    pub action: Do,
    /// What it must give.
    pub expect: Expect,
}

/// What is to happen in a run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Devices, in bus order.
    pub devices: Vec<PlanDevice>,
    /// Steps of the main thread.
    pub steps: Vec<Step>,
    /// Steps of the other threads, by thread name.
    pub threads: BTreeMap<String, Vec<Step>>,
    /// Start, stop and remove are steps too; nothing happens by itself.
    pub manual: bool,
}

#[derive(Clone, Debug)]
enum Job {
    Entry,
    AddDevice(usize),
    Start(usize),
    Spawn(String),
    Step(Box<Step>),
    JoinThreads,
    CloseAll,
    PnpMinor(usize, u8),
    Unload,
    Done,
}

/// Where the life stands.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Everything is over.
    pub done: bool,
    /// What DriverEntry returned, once it did.
    pub entry_status: Option<u32>,
    /// Steps whose expectation failed.
    pub failed_steps: u32,
    plan: Plan,
    queues: Vec<VecDeque<Job>>,
    handles: BTreeMap<String, (u64, u64)>,
    requests: BTreeMap<String, Pending>,
    threads: BTreeMap<String, u32>,
    driver_object: u64,
    module: usize,
    started: Vec<bool>,
    /// A job is being done by the loop of [`next`], and it asks for the next one.
    turning: bool,
    again: bool,
    /// Devices whose surprise removal was sent: only the remove may follow.
    surprised: Vec<bool>,
    /// Devices whose AddDevice returned, and whether it attached to the stack.
    attached: BTreeMap<String, bool>,
    /// Devices whose remove was sent: nothing may follow.
    removed: Vec<bool>,
    doing: BTreeMap<usize, String>,
}

/// An IRP under way and what to do with its result.
#[derive(Clone, Debug)]
pub struct Pending {
    irp: u64,
    since: u64,
    step: Option<Box<Step>>,
    output: Output,
    kind: After,
}

#[derive(Clone, Copy, Debug)]
enum Output {
    None,
    System { at: u64, length: u32 },
    Mdl { mdl: u64, buffer: u64, length: u32 },
}

#[derive(Clone, Debug)]
enum After {
    Step,
    Opened { handle: String, file: u64, device: u64 },
    Cleanup { file: u64, device: u64 },
    Closed { file: u64 },
    Pnp { device: usize, minor: u8 },
}

/// Continuations of the life.
#[derive(Clone, Debug)]
pub enum LifeThen {
    /// The next job of this queue.
    Next(usize),
    /// DriverEntry returned.
    Entered(usize),
    /// AddDevice returned.
    Added(usize, usize),
    /// A dispatch routine returned.
    Sent(usize, Box<Pending>),
    /// A request completed.
    Finished(usize, Box<Pending>),
    /// DriverUnload returned.
    Unloaded(usize),
    /// A step that waits is over.
    Waited(usize, Box<Step>),
}

impl Life {
    /// Guest address of the driver's DRIVER_OBJECT.
    #[must_use]
    pub fn driver_object(&self) -> u64 {
        self.driver_object
    }

    /// Whether AddDevice left something on a device's stack; none when it was not called.
    #[must_use]
    pub fn attached(&self, device: &str) -> Option<bool> {
        self.attached.get(device).copied()
    }

    /// What everything waits for, when nothing can go on.
    #[must_use]
    pub fn waiting_for(&self, k: &Kernel) -> String {
        let mut parts: Vec<String> =
            self.doing.values().map(|d| format!("the workload is at `{d}`")).collect();
        for t in k.threads.values() {
            if let ThreadState::Waiting(w) = &t.state {
                if let Some(r) = w.irp.and_then(|i| k.io.requests.get(&i)) {
                    parts.push(format!(
                        "request {} (major {:#x}, minor {:#x}) was never completed",
                        r.id, r.major, r.minor
                    ));
                } else if !w.objects.is_empty() {
                    parts.push(format!("{} waits for the object at {:#x}", t.name, w.objects[0]));
                } else if w.isr_fence.is_some() {
                    parts.push(format!("{} waits for a service routine to return", t.name));
                }
            }
        }
        parts.dedup();
        if parts.is_empty() { "nothing is left to run".into() } else { parts.join("; ") }
    }
}

/// Prepares the run: driver object, PDOs, the main thread. `module` is the driver's, already mapped.
///
/// # Errors
/// Guest memory is short.
pub fn begin(cx: &mut Cx<'_>, module: usize, service: &str, plan: Plan) -> std::result::Result<(), Stop> {
    let bus =
        cx.k.pool.alloc(&mut cx.m.mem, driver::SIZE, PoolKind::NonPaged, u32::from_le_bytes(*b"Driv"))?;
    cx.w16(bus, 4)?;
    cx.w16(bus + 2, driver::SIZE as u16)?;
    cx.k.io.bus_driver = bus;
    let object = make_driver_object(cx, module, service)?;
    let mut jobs = VecDeque::new();
    jobs.push_back(Job::Entry);
    for (i, d) in plan.devices.iter().enumerate() {
        let pdo = io::new_device(cx, bus, 0, 0x22, 0, None)?;
        // The bus has finished with it: DO_DEVICE_INITIALIZING is clear, DO_BUS_ENUMERATED_DEVICE set.
        cx.w32(pdo + device::FLAGS, 0x1000)?;
        cx.k.io.pdos.push(Pdo { name: d.name.clone(), object: pdo, machine: d.machine });
        let (name, model, machine) = (d.name.clone(), d.model.clone(), d.machine);
        let bars = cx.m.bars(machine).iter().map(|b| format!("BAR{} {}", b.index, describe_bar(b))).collect();
        let interrupts = match d.wants {
            Wants::Line(gsi) => format!("line (GSI {gsi})"),
            Wants::Msi(n) => format!("msi:{n}"),
            Wants::Msix(n) => format!("msix:{n}"),
            Wants::None => "none".into(),
        };
        let id = match crate::board::identity(cx.m, machine) {
            Some((vendor, product)) => format!("{vendor:04x}:{product:04x}"),
            None => "ISA".into(),
        };
        cx.event(EventKind::DeviceFound { name, model, id, bars, interrupts });
        // A device is enumerated whoever starts it.
        if d.driven {
            jobs.push_back(Job::AddDevice(i));
            if !plan.manual {
                jobs.push_back(Job::Start(i));
            }
        }
    }
    // A thread begins where its first step stands: what the workload did before is done.
    let mut threads: Vec<(u32, &String)> =
        plan.threads.iter().filter_map(|(name, steps)| Some((steps.first()?.index, name))).collect();
    threads.sort_unstable();
    let mut threads = threads.into_iter().peekable();
    for step in &plan.steps {
        while let Some((_, name)) = threads.next_if(|(index, _)| *index < step.index) {
            jobs.push_back(Job::Spawn(name.clone()));
        }
        jobs.push_back(Job::Step(Box::new(step.clone())));
    }
    jobs.extend(threads.map(|(_, name)| Job::Spawn(name.clone())));
    jobs.push_back(Job::JoinThreads);
    jobs.push_back(Job::CloseAll);
    if !plan.manual {
        // As when a user disables the device, then the driver's last device goes: query-stop and stop, then
        // query-remove and remove.
        for minor in [5, 4, 1, 2] {
            for (i, d) in plan.devices.iter().enumerate().rev() {
                if d.driven {
                    jobs.push_back(Job::PnpMinor(i, minor));
                }
            }
        }
    }
    jobs.push_back(Job::Unload);
    jobs.push_back(Job::Done);
    let life = &mut cx.k.life;
    life.started = vec![false; plan.devices.len()];
    life.surprised = vec![false; plan.devices.len()];
    life.removed = vec![false; plan.devices.len()];
    life.plan = plan;
    life.driver_object = object;
    life.module = module;
    life.queues = vec![jobs];
    sched::spawn(cx, "the system", Then::Life(LifeThen::Next(0)), true, 8)?;
    Ok(())
}

fn describe_bar(b: &dirql_machine::BarInfo) -> String {
    match b.kind {
        BarKind::Memory { pa, len, .. } => format!("memory {:#x}+{len:#x}", pa.0),
        BarKind::Io { port, len } => format!("ports {port:#x}+{len:#x}"),
    }
}

fn make_driver_object(cx: &mut Cx<'_>, module: usize, service: &str) -> std::result::Result<u64, Stop> {
    let tag = u32::from_le_bytes(*b"Driv");
    let object = cx.k.pool.alloc(&mut cx.m.mem, driver::SIZE, PoolKind::NonPaged, tag)?;
    let extension = cx.k.pool.alloc(&mut cx.m.mem, 0x50, PoolKind::NonPaged, tag)?;
    cx.put(object, &[0; driver::SIZE as usize])?;
    cx.put(extension, &[0; 0x50])?;
    let m = &cx.k.modules.drivers[module];
    let (base, size, entry) = (m.base, m.size, m.entry);
    cx.w16(object, 4)?;
    cx.w16(object + 2, driver::SIZE as u16)?;
    cx.w64(object + 0x18, base)?;
    cx.w32(object + 0x20, size as u32)?;
    cx.w64(object + 0x30, extension)?;
    io::put_unicode(cx, object + 0x38, &format!("\\Driver\\{service}"))?;
    cx.w64(object + 0x58, entry)?;
    cx.w64(extension, object)?;
    io::put_unicode(cx, extension + 0x18, service)?;
    let invalid = cx.k.modules.export_address("IopInvalidDeviceRequest").unwrap_or(0);
    for major in 0..28 {
        cx.w64(object + driver::MAJOR + 8 * major, invalid)?;
    }
    Ok(object)
}

impl LifeThen {
    /// Does it run a request that an application made (a step), rather than one of the system's own?
    pub(crate) fn is_system_service(&self) -> bool {
        matches!(self, Self::Sent(_, p) | Self::Finished(_, p)
            if p.step.as_ref().is_some_and(|s| !matches!(s.action, Do::Pnp { .. } | Do::Power { .. })))
    }

    pub(crate) fn resume(self, cx: &mut Cx<'_>, value: u64) -> Result {
        let status = value as u32;
        match self {
            Self::Next(q) => next(cx, q),
            Self::Waited(q, step) => {
                end_step(cx, &step, None, None, None, 0);
                next(cx, q)
            }
            Self::Entered(q) => {
                let image = cx.k.modules.drivers[cx.k.life.module].name.clone();
                cx.event(EventKind::DriverEntry { image, status });
                cx.k.life.entry_status = Some(status);
                if (status as i32) < 0 {
                    cx.k.life.done = true;
                    return Ok(Outcome::End);
                }
                entered(cx, q)?;
                next(cx, q)
            }
            Self::Added(q, i) => {
                let device = cx.k.life.plan.devices[i].name.clone();
                let pdo = cx.k.io.pdos[i].object;
                let attached = io::top_of(cx, pdo)? != pdo;
                cx.k.life.attached.insert(device.clone(), attached);
                cx.event(EventKind::AddDevice { device, status });
                if (status as i32) < 0 || !attached {
                    // No stack was built: nothing to start.
                    cx.k.life.queues[q]
                        .retain(|j| !matches!(j, Job::Start(n) | Job::PnpMinor(n, _) if *n == i));
                }
                next(cx, q)
            }
            Self::Sent(q, pending) => {
                let at = pending.irp;
                if status == STATUS_PENDING
                    && !cx.k.io.completed.contains_key(&at)
                    && let Some(r) = cx.k.io.requests.get(&at)
                {
                    let id = r.id;
                    cx.event(EventKind::IrpPending { id });
                }
                let asynchronous = pending.step.as_ref().and_then(|s| match &s.action {
                    Do::Ioctl { request, .. } | Do::Read { request, .. } | Do::Write { request, .. } => {
                        request.clone()
                    }
                    _ => None,
                });
                if let Some(name) = asynchronous {
                    if let Some(step) = &pending.step {
                        let (index, what) = (step.index, step.what.clone());
                        cx.event(EventKind::Step {
                            index,
                            what,
                            status: Some(status),
                            outcome: StepOutcome::Pending,
                        });
                    }
                    cx.k.life.requests.insert(name, *pending);
                    return next(cx, q);
                }
                wait_irp(q, pending)
            }
            Self::Finished(q, pending) => finished(cx, q, *pending),
            Self::Unloaded(q) => {
                let image = cx.k.modules.drivers[cx.k.life.module].name.clone();
                cx.event(EventKind::Unloaded { image });
                next(cx, q)
            }
        }
    }
}

/// DriverEntry succeeded. The I/O manager ends the initialisation of the devices it made; and a driver without
/// AddDevice is a legacy one: no device is given to it, and the hardware stays as the firmware left it, decoding.
fn entered(cx: &mut Cx<'_>, q: usize) -> std::result::Result<(), Stop> {
    let object = cx.k.life.driver_object;
    let mut at = cx.r64(object + driver::DEVICE)?;
    for _ in 0..1024 {
        if at == 0 {
            break;
        }
        let flags = cx.r32(at + device::FLAGS)?;
        // DO_DEVICE_INITIALIZING.
        cx.w32(at + device::FLAGS, flags & !0x80)?;
        at = cx.r64(at + device::NEXT)?;
    }
    if cx.r64(cx.r64(object + 0x30)? + 8)? != 0 {
        return Ok(());
    }
    cx.k.life.queues[q].retain(|j| !matches!(j, Job::AddDevice(_) | Job::Start(_) | Job::PnpMinor(..)));
    for d in cx.k.life.plan.devices.clone() {
        crate::board::enable_decoding(cx.m, d.machine);
    }
    Ok(())
}

fn wait_irp(q: usize, pending: Box<Pending>) -> Result {
    Ok(Outcome::Wait { wait: Wait::irp(pending.irp), then: Then::Life(LifeThen::Finished(q, pending)) })
}

/// A request completed: take its output, check what the lab expects, go on.
fn finished(cx: &mut Cx<'_>, q: usize, pending: Pending) -> Result {
    let (status, information) = cx.k.io.completed.remove(&pending.irp).unwrap_or((0, 0));
    cx.k.io.requests.remove(&pending.irp);
    let mut output = vec![];
    match pending.output {
        Output::None => {}
        Output::System { at, length } => {
            output = cx.bytes(at, information.min(u64::from(length)) as usize)?;
            io::free(cx, at)?;
        }
        Output::Mdl { mdl, buffer, length } => {
            output = cx.bytes(buffer, information.min(u64::from(length)) as usize)?;
            io::free(cx, mdl)?;
            io::free(cx, buffer)?;
        }
    }
    io::free(cx, pending.irp)?;
    if let Some(step) = &pending.step {
        let took = cx.now().saturating_sub(pending.since);
        end_step(cx, step, Some(status), Some(&output), Some(information), took);
    }
    match pending.kind {
        After::Step => {}
        After::Opened { handle, file, device } => {
            if (status as i32) >= 0 {
                cx.k.life.handles.insert(handle, (file, device));
            }
        }
        After::Cleanup { file, device } => {
            let p = request(cx, device, file, 2, 0)?;
            return send(cx, q, device, Pending { kind: After::Closed { file }, step: None, ..p });
        }
        After::Closed { file } => io::free(cx, file)?,
        After::Pnp { device, minor } => {
            let name = cx.k.life.plan.devices[device].name.clone();
            cx.event(EventKind::Pnp { device: name, minor, status });
            after_pnp(cx, q, device, minor, status)?;
        }
    }
    next(cx, q)
}

fn after_pnp(cx: &mut Cx<'_>, q: usize, i: usize, minor: u8, status: u32) -> std::result::Result<(), Stop> {
    let ok = (status as i32) >= 0;
    match minor {
        0 if ok => cx.k.life.started[i] = true,
        // A device that did not start is neither stopped nor asked: only the remove follows.
        0 => cx.k.life.queues[q].retain(|j| !matches!(j, Job::PnpMinor(n, 5 | 4 | 1) if *n == i)),
        // A refused query is answered by its cancel, and the stop or remove does not follow.
        5 if !ok => {
            cx.k.life.queues[q].retain(|j| !matches!(j, Job::PnpMinor(n, 4) if *n == i));
            cx.k.life.queues[q].push_front(Job::PnpMinor(i, 6));
        }
        1 if !ok => {
            cx.k.life.queues[q].retain(|j| !matches!(j, Job::PnpMinor(n, 2) if *n == i));
            cx.k.life.queues[q].push_front(Job::PnpMinor(i, 3));
        }
        4 => cx.k.life.started[i] = false,
        2 => cx.k.life.removed[i] = true,
        0x17 => cx.k.life.surprised[i] = true,
        _ => {}
    }
    // Stopped or removed, the device has no resources: its vectors are free for the next start.
    if ok && matches!(minor, 2 | 4) {
        let pdo = cx.k.io.pdos[i].object;
        if let Some(had) = cx.k.interrupts.core.unassign(pdo) {
            cx.k.interrupts.arbiter.release(&had);
        }
    }
    Ok(())
}

/// Records how a step ended.
fn end_step(
    cx: &mut Cx<'_>,
    step: &Step,
    status: Option<u32>,
    output: Option<&[u8]>,
    information: Option<u64>,
    took: u64,
) {
    let hex = |b: &[u8]| b.iter().map(|x| format!("{x:02x}")).collect::<Vec<_>>().join(" ");
    let e = &step.expect;
    let wrong = |what: &str, expected: String, got: String| {
        Some(StepOutcome::NotAsExpected { what: what.into(), expected, got })
    };
    let mut outcome = None;
    if let (Some(want), Some(got)) = (e.status, status)
        && want != got
    {
        outcome = wrong("status", dirql_abi::status::describe(want), dirql_abi::status::describe(got));
    }
    if outcome.is_none()
        && let (Some(want), Some(got)) = (&e.output, output)
        && want != got
    {
        outcome = wrong("output", hex(want), hex(got));
    }
    if outcome.is_none()
        && let (Some(want), Some(got)) = (e.information, information)
        && want != got
    {
        outcome = wrong("information", want.to_string(), got.to_string());
    }
    if outcome.is_none()
        && let Some(limit) = e.within
        && took > limit
    {
        outcome = wrong("within", format!("{limit} ns"), format!("{took} ns"));
    }
    if outcome.is_some() {
        cx.k.life.failed_steps += 1;
    }
    let (index, what) = (step.index, step.what.clone());
    cx.event(EventKind::Step { index, what, status, outcome: outcome.unwrap_or(StepOutcome::Done) });
}

/// Does the next job of a queue, and those after it that end at once. A job ends by calling this; the call only asks
/// for another turn of the loop, so that a million steps need no deeper stack than one.
fn next(cx: &mut Cx<'_>, q: usize) -> Result {
    if cx.k.life.turning {
        cx.k.life.again = true;
        return Ok(Outcome::End);
    }
    loop {
        cx.k.life.turning = true;
        let outcome = next_job(cx, q);
        cx.k.life.turning = false;
        if !std::mem::take(&mut cx.k.life.again) {
            return outcome;
        }
    }
}

fn next_job(cx: &mut Cx<'_>, q: usize) -> Result {
    cx.k.life.doing.remove(&q);
    let Some(job) = cx.k.life.queues[q].pop_front() else { return Ok(Outcome::End) };
    match job {
        Job::Entry => {
            let object = cx.k.life.driver_object;
            let entry = cx.k.modules.drivers[cx.k.life.module].entry;
            let path =
                cx.k.pool.alloc(&mut cx.m.mem, 16, PoolKind::NonPaged, u32::from_le_bytes(*b"Reg "))?;
            let service = io::read_unicode(cx, cx.r64(object + 0x30)? + 0x18)?;
            io::put_unicode(
                cx,
                path,
                &format!("\\Registry\\Machine\\System\\CurrentControlSet\\Services\\{service}"),
            )?;
            call(entry, vec![object, path], LifeThen::Entered(q))
        }
        Job::AddDevice(i) => {
            let object = cx.k.life.driver_object;
            let add = cx.r64(cx.r64(object + 0x30)? + 8)?;
            let pdo = cx.k.io.pdos[i].object;
            call(add, vec![object, pdo], LifeThen::Added(q, i))
        }
        Job::Start(i) => start(cx, q, i, None),
        Job::Spawn(name) => {
            let steps = cx.k.life.plan.threads.get(&name).cloned().unwrap_or_default();
            cx.k.life.queues.push(steps.into_iter().map(|s| Job::Step(Box::new(s))).collect());
            let queue = cx.k.life.queues.len() - 1;
            let id = sched::spawn(cx, &name, Then::Life(LifeThen::Next(queue)), true, 8)?;
            cx.k.life.threads.insert(name, id);
            next(cx, q)
        }
        Job::Step(step) => {
            cx.k.life.doing.insert(q, step.what.clone());
            do_step(cx, q, step)
        }
        Job::JoinThreads => {
            let objects: Vec<u64> =
                cx.k.life
                    .threads
                    .values()
                    .filter_map(|id| cx.k.threads.get(id))
                    .filter(|t| t.state != ThreadState::Terminated)
                    .map(|t| t.kthread)
                    .collect();
            match objects.first() {
                Some(&o) => {
                    cx.k.life.queues[q].push_front(Job::JoinThreads);
                    Ok(Outcome::Wait { wait: Wait::object(o), then: Then::Life(LifeThen::Next(q)) })
                }
                None => next(cx, q),
            }
        }
        Job::CloseAll => {
            let Some(name) = cx.k.life.handles.keys().next().cloned() else { return next(cx, q) };
            cx.k.life.queues[q].push_front(Job::CloseAll);
            close(cx, q, &name, None)
        }
        Job::PnpMinor(i, minor) => {
            let l = &cx.k.life;
            let moot = match minor {
                5 | 4 => l.removed[i] || l.surprised[i] || !l.started[i],
                1 => l.removed[i] || l.surprised[i],
                _ => l.removed[i],
            };
            if moot { next(cx, q) } else { pnp(cx, q, i, minor, None) }
        }
        Job::Unload => {
            let unload = cx.r64(cx.k.life.driver_object + driver::UNLOAD)?;
            if unload == 0 {
                return next(cx, q);
            }
            call(unload, vec![cx.k.life.driver_object], LifeThen::Unloaded(q))
        }
        Job::Done => {
            cx.k.life.done = true;
            Ok(Outcome::End)
        }
    }
}

fn call(routine: u64, args: Vec<u64>, then: LifeThen) -> Result {
    Ok(Outcome::Call { routine, args, then: Then::Life(then) })
}

/// A request of the kernel's own for a device stack, ready to be sent.
fn request(
    cx: &mut Cx<'_>,
    target: u64,
    file: u64,
    major: u8,
    minor: u8,
) -> std::result::Result<Pending, Stop> {
    let top = io::top_of(cx, target)?;
    let stacks = cx.r8(top + device::STACK_SIZE)?.max(1);
    let at = io::new_irp(cx, stacks)?;
    let next = cx.r64(at + irp::CURRENT_STACK)? - stack::SIZE;
    cx.w8(next, major)?;
    cx.w8(next + stack::MINOR, minor)?;
    cx.w64(next + stack::FILE, file)?;
    cx.w64(at + irp::FILE_OBJECT, file)?;
    let kthread = cx.k.current_thread(cx.cpu).map_or(0, |t| t.kthread);
    cx.w64(at + irp::THREAD, kthread)?;
    if major == 0x1b || major == 0x16 || major == 0x17 {
        cx.w32(at + irp::STATUS, io::STATUS_NOT_SUPPORTED)?;
    }
    Ok(Pending { irp: at, since: cx.now(), step: None, output: Output::None, kind: After::Step })
}

fn send(cx: &mut Cx<'_>, q: usize, target: u64, pending: Pending) -> Result {
    let at = pending.irp;
    io::send(cx, target, at, Then::Life(LifeThen::Sent(q, Box::new(pending))))
}

/// Sends a PnP request.
fn pnp(cx: &mut Cx<'_>, q: usize, i: usize, minor: u8, step: Option<Box<Step>>) -> Result {
    let pdo = cx.k.io.pdos[i].object;
    let p = request(cx, pdo, 0, 0x1b, minor)?;
    send(cx, q, pdo, Pending { kind: After::Pnp { device: i, minor }, step, ..p })
}

/// Arbitration, then IRP_MN_START_DEVICE with the raw and translated lists (spec 2.3, 6.3).
fn start(cx: &mut Cx<'_>, q: usize, i: usize, step: Option<Box<Step>>) -> Result {
    let d = cx.k.life.plan.devices[i].clone();
    let pdo = cx.k.io.pdos[i].object;
    let kind = match d.wants {
        Wants::Line(gsi) => {
            let (mode, polarity) = crate::board::wiring(cx.m, gsi);
            Some(ArbiterKind::Line { gsi, mode, polarity })
        }
        Wants::Msi(count) => Some(ArbiterKind::Msi { count }),
        Wants::Msix(count) => Some(ArbiterKind::Msix { count }),
        Wants::None => None,
    };
    let mut assigned = match kind {
        None => vec![],
        Some(kind) => {
            let wanted = ArbiterRequest {
                kind,
                priority: d.priority,
                policy: d.policy,
                irqls: d.irqls.iter().map(|l| Irql(*l)).collect(),
            };
            cx.k.interrupts.arbiter.assign(&wanted).map_err(|e| Stop::MissingFeature {
                what: format!("an interrupt assignment for device \"{}\" ({e:?})", d.name),
                caller: 0,
            })?
        }
    };
    for a in
        assigned.iter_mut().filter(|a| a.mode == Mode::Latched && matches!(a.kind, AssignedKind::Line { .. }))
    {
        // An edge on the ISA bus is not shared: a device that holds the wire up hides the other's edge.
        a.share = Share::DeviceExclusive;
    }
    cx.k.interrupts.core.assign(pdo, assigned.clone());
    program(cx, &d, &assigned);
    let bars = cx.m.bars(d.machine);
    let mut raw = vec![];
    let mut translated = vec![];
    let mut lines = vec![];
    for b in &bars {
        let (ty, flags, start, len, kind) = match b.kind {
            BarKind::Memory { pa, len, .. } => (3u8, 0u16, pa.0, len, ResourceKind::Memory),
            BarKind::Io { port, len } => (1, 1, u64::from(port), u64::from(len), ResourceKind::Port),
        };
        let mut one = vec![ty, 1];
        one.extend(flags.to_le_bytes());
        one.extend(start.to_le_bytes());
        one.extend((len as u32).to_le_bytes());
        one.extend([0; 4]);
        raw.push(one.clone());
        translated.push(one);
        lines.push(ResourceLine {
            kind,
            start,
            length: len,
            vector: None,
            irql: None,
            cpus: vec![],
            shared: false,
        });
    }
    let cpus = |mask: u64| (0..64).filter(|c| mask >> c & 1 == 1).collect::<Vec<u32>>();
    // Multi-message MSI is one descriptor pair; everything else one a message or line.
    let pairs: Vec<(&Assigned, u16)> = match d.wants {
        Wants::Msi(_) => assigned.first().map(|a| (a, assigned.len() as u16)).into_iter().collect(),
        _ => assigned.iter().map(|a| (a, 1)).collect(),
    };
    for (a, count) in pairs {
        let message = matches!(a.kind, AssignedKind::Message { .. });
        let share = if a.share == Share::Shared { 3u8 } else { 1 };
        let flags: u16 = u16::from(a.mode == Mode::Latched) | u16::from(message) << 1;
        let level_raw: u16 = match a.kind {
            AssignedKind::Line { gsi } => gsi as u16,
            AssignedKind::Message { .. } => 0,
        };
        let vector_raw: u32 = match a.kind {
            AssignedKind::Line { gsi } => gsi,
            AssignedKind::Message { .. } => u32::from(a.vector),
        };
        let mut one = vec![2, share];
        one.extend(flags.to_le_bytes());
        let mut t = one.clone();
        one.extend(level_raw.to_le_bytes());
        one.extend(if message { count } else { 0 }.to_le_bytes());
        if message {
            // Raw: Group, MessageCount.
            one.truncate(4);
            one.extend(a.affinity.group.to_le_bytes());
            one.extend(count.to_le_bytes());
        }
        one.extend(vector_raw.to_le_bytes());
        one.extend(a.affinity.mask.to_le_bytes());
        t.extend(u16::from(a.irql.0).to_le_bytes());
        t.extend(a.affinity.group.to_le_bytes());
        t.extend(u32::from(a.vector).to_le_bytes());
        t.extend(a.affinity.mask.to_le_bytes());
        raw.push(one);
        translated.push(t);
        lines.push(ResourceLine {
            kind: if message { ResourceKind::Message } else { ResourceKind::Line },
            start: u64::from(vector_raw),
            length: u64::from(count),
            vector: Some(u32::from(a.vector)),
            irql: Some(a.irql.0),
            cpus: cpus(a.affinity.mask),
            shared: share == 3,
        });
    }
    cx.event(EventKind::ResourcesAssigned { device: d.name.clone(), resources: lines });
    let p = request(cx, pdo, 0, 0x1b, 0)?;
    let next = cx.r64(p.irp + irp::CURRENT_STACK)? - stack::SIZE;
    for (at, list) in [(stack::PARAMS, raw), (stack::PARAMS + 8, translated)] {
        let mut bytes = 1u32.to_le_bytes().to_vec();
        bytes.extend(crate::board::interface_type(cx.m, d.machine).to_le_bytes());
        bytes.extend([0, 0, 0, 0, 1, 0, 1, 0]);
        bytes.extend((list.len() as u32).to_le_bytes());
        bytes.extend(list.concat());
        let to = cx.k.pool.alloc(
            &mut cx.m.mem,
            bytes.len() as u64,
            PoolKind::NonPaged,
            u32::from_le_bytes(*b"PnpR"),
        )?;
        cx.put(to, &bytes)?;
        cx.w64(next + at, to)?;
    }
    send(cx, q, pdo, Pending { kind: After::Pnp { device: i, minor: 0 }, step, ..p })
}

/// Programs the interrupt hardware for what was assigned; sources stay masked until a driver connects (spec I-28).
fn program(cx: &mut Cx<'_>, d: &PlanDevice, assigned: &[Assigned]) {
    crate::board::enable_decoding(cx.m, d.machine);
    let mut messages = vec![];
    for a in assigned {
        match a.kind {
            AssignedKind::Line { gsi } => {
                // A line that another device's driver has opened already keeps its route and stays open.
                let open = cx.k.interrupts.core.objects().any(|(_, o)| o.vector == a.vector);
                if !open {
                    cx.m.ioapic_route(
                        gsi,
                        a.vector,
                        a.mode == Mode::Level,
                        a.polarity == Polarity::ActiveLow,
                        crate::board::dest(a.affinity.mask),
                    );
                    cx.m.ioapic_mask(gsi, true);
                }
            }
            AssignedKind::Message { entry, .. } => {
                let (address, data) = message_of(a);
                messages.push((entry, address, data));
            }
        }
    }
    crate::board::program_messages(cx.m, d.machine, &messages);
}

/// Address and data of a message (spec 2.7, I-7): fixed and physical for one processor, lowest-priority and logical
/// for several.
pub(crate) fn message_of(a: &Assigned) -> (u64, u32) {
    let mask = a.affinity.mask;
    if mask.count_ones() == 1 {
        (0xFEE0_0000 | u64::from(mask.trailing_zeros()) << 12, u32::from(a.vector))
    } else {
        (0xFEE0_0000 | (mask & 0xff) << 12 | 1 << 3 | 1 << 2, 1 << 8 | u32::from(a.vector))
    }
}

fn device_index(cx: &Cx<'_>, name: &str) -> std::result::Result<usize, Stop> {
    cx.k.life.plan.devices.iter().position(|d| d.name == name).ok_or_else(|| {
        Stop::Internal(format!("a step names device \"{name}\", which the lab's checks should have refused"))
    })
}

fn do_step(cx: &mut Cx<'_>, q: usize, step: Box<Step>) -> Result {
    let done = |cx: &mut Cx<'_>, step: &Step, status: Option<u32>| {
        end_step(cx, step, status, None, None, 0);
    };
    match step.action.clone() {
        Do::Open { name, handle } => {
            let name = name.or_else(|| cx.k.io.first_name.clone());
            let Some(target) = name.as_deref().and_then(|n| io::resolve_name(cx.k, n)) else {
                // STATUS_OBJECT_NAME_NOT_FOUND.
                done(cx, &step, Some(0xC000_0034));
                return next(cx, q);
            };
            let file = io::new_file(cx, target)?;
            let p = request(cx, target, file, 0, 0)?;
            let here = cx.r64(p.irp + irp::CURRENT_STACK)? - stack::SIZE;
            // Parameters.Create: SecurityContext, Options, FileAttributes, ShareAccess, EaLength.
            cx.w32(here + stack::PARAMS + 8, 1 << 24)?;
            cx.w16(here + stack::PARAMS + 0x12, 7)?;
            send(
                cx,
                q,
                target,
                Pending { kind: After::Opened { handle, file, device: target }, step: Some(step), ..p },
            )
        }
        Do::Close { handle } => close(cx, q, &handle.clone(), Some(step)),
        Do::Ioctl { handle, internal, code, input, output, .. } => {
            let Some(&(file, target)) = cx.k.life.handles.get(&handle) else {
                return no_handle(cx, q, &step);
            };
            let p = request(cx, target, file, if internal { 0xf } else { 0xe }, 0)?;
            let at = p.irp;
            let here = cx.r64(at + irp::CURRENT_STACK)? - stack::SIZE;
            // Parameters.DeviceIoControl: OutputBufferLength, InputBufferLength, IoControlCode, Type3InputBuffer.
            cx.w32(here + stack::PARAMS, output)?;
            cx.w32(here + stack::PARAMS + 8, input.len() as u32)?;
            cx.w32(here + stack::PARAMS + 0x10, code)?;
            let method = code & 3;
            let tag = u32::from_le_bytes(*b"IoSB");
            let size = match method {
                0 => (input.len() as u64).max(u64::from(output)),
                _ => input.len() as u64,
            };
            let mut out = Output::None;
            if method == 3 {
                let inp = cx.k.pool.alloc(&mut cx.m.mem, size.max(1), PoolKind::NonPaged, tag)?;
                cx.put(inp, &input)?;
                cx.w64(here + stack::PARAMS + 0x18, inp)?;
                let buf =
                    cx.k.pool.alloc(&mut cx.m.mem, u64::from(output).max(1), PoolKind::NonPaged, tag)?;
                cx.w64(at + irp::USER_BUFFER, buf)?;
                out = Output::System { at: buf, length: output };
            } else if size > 0 {
                let buf = cx.k.pool.alloc(&mut cx.m.mem, size, PoolKind::NonPaged, tag)?;
                cx.put(buf, &vec![0; size as usize])?;
                cx.put(buf, &input)?;
                cx.w64(at + irp::SYSTEM_BUFFER, buf)?;
                cx.w32(at + irp::FLAGS, 0x10)?;
                out = Output::System { at: buf, length: if method == 0 { output } else { 0 } };
            }
            if matches!(method, 1 | 2) && output > 0 {
                out = direct_buffer(cx, at, &vec![0; output as usize])?;
            }
            send(cx, q, target, Pending { output: out, step: Some(step), ..p })
        }
        Do::Read { handle, length, offset, .. } => {
            transfer(cx, q, step, &handle, 3, vec![0; length as usize], offset)
        }
        Do::Write { handle, data, offset, .. } => transfer(cx, q, step, &handle, 4, data, offset),
        Do::WaitRequest(name) => match cx.k.life.requests.remove(&name) {
            Some(mut p) => {
                let index = step.index;
                let mut s = step;
                s.index = index;
                p.since = p.since.min(cx.now());
                p.step = Some(s);
                wait_irp(q, Box::new(p))
            }
            None => {
                done(cx, &step, Some(0xC000_0225));
                next(cx, q)
            }
        },
        Do::Cancel(name) => {
            let at = cx.k.life.requests.get(&name).map(|p| p.irp);
            done(cx, &step, None);
            match at {
                Some(at) if !cx.k.io.completed.contains_key(&at) => {
                    io::cancel(cx, at, Then::Life(LifeThen::Next(q)))
                }
                _ => next(cx, q),
            }
        }
        Do::WaitThread(name) => {
            let object = cx.k.life.threads.get(&name).and_then(|id| cx.k.threads.get(id)).map(|t| t.kthread);
            let then = Then::Life(LifeThen::Waited(q, step));
            match object {
                Some(o) => Ok(Outcome::Wait { wait: Wait::object(o), then }),
                None => then.resume(cx, 0),
            }
        }
        Do::Delay(ns) => {
            let until = cx.now().saturating_add(ns);
            Ok(Outcome::Wait { wait: Wait::until(until), then: Then::Life(LifeThen::Waited(q, step)) })
        }
        Do::Raise { device, source } => {
            let i = device_index(cx, &device)?;
            let machine = cx.k.life.plan.devices[i].machine;
            match cx.m.device_raise(machine, source) {
                Ok(()) => done(cx, &step, None),
                Err(_) => done(cx, &step, Some(0xC000_000D)),
            }
            next(cx, q)
        }
        Do::Set { device, register, value } => {
            let i = device_index(cx, &device)?;
            let machine = cx.k.life.plan.devices[i].machine;
            match cx.m.device_set(machine, &register, value) {
                Ok(()) => done(cx, &step, None),
                Err(_) => done(cx, &step, Some(0xC000_000D)),
            }
            next(cx, q)
        }
        Do::Pnp { device, minor } => {
            let i = device_index(cx, &device)?;
            if minor == 0 {
                return start(cx, q, i, Some(step));
            }
            if minor == 0x17 {
                // The device is gone before its driver hears of it.
                let machine = cx.k.life.plan.devices[i].machine;
                cx.m.detach(machine);
            }
            pnp(cx, q, i, minor, Some(step))
        }
        Do::Power { device, state } => {
            let i = device_index(cx, &device)?;
            let pdo = cx.k.io.pdos[i].object;
            let p = request(cx, pdo, 0, 0x16, 2)?;
            let here = cx.r64(p.irp + irp::CURRENT_STACK)? - stack::SIZE;
            cx.w32(here + stack::PARAMS + 8, 1)?;
            cx.w32(here + stack::PARAMS + 16, u32::from(state) + 1)?;
            send(cx, q, pdo, Pending { step: Some(step), ..p })
        }
    }
}

fn no_handle(cx: &mut Cx<'_>, q: usize, step: &Step) -> Result {
    // STATUS_INVALID_HANDLE: the open failed, or was never done.
    end_step(cx, step, Some(0xC000_0008), None, None, 0);
    next(cx, q)
}

fn direct_buffer(cx: &mut Cx<'_>, at: u64, data: &[u8]) -> std::result::Result<Output, Stop> {
    let buffer = cx.k.pool.alloc(
        &mut cx.m.mem,
        data.len().max(1) as u64,
        PoolKind::NonPaged,
        u32::from_le_bytes(*b"IoUB"),
    )?;
    cx.put(buffer, data)?;
    let mdl = crate::exports::mm::mdl_for(cx, buffer, data.len() as u32)?;
    cx.w64(at + irp::MDL, mdl)?;
    Ok(Output::Mdl { mdl, buffer, length: data.len() as u32 })
}

fn transfer(
    cx: &mut Cx<'_>,
    q: usize,
    step: Box<Step>,
    handle: &str,
    major: u8,
    data: Vec<u8>,
    offset: u64,
) -> Result {
    let Some(&(file, target)) = cx.k.life.handles.get(handle) else { return no_handle(cx, q, &step) };
    let p = request(cx, target, file, major, 0)?;
    let at = p.irp;
    let here = cx.r64(at + irp::CURRENT_STACK)? - stack::SIZE;
    // Parameters.Read/Write: Length, Key, ByteOffset.
    cx.w32(here + stack::PARAMS, data.len() as u32)?;
    cx.w64(here + stack::PARAMS + 0x10, offset)?;
    let top = io::top_of(cx, target)?;
    let flags = cx.r32(top + device::FLAGS)?;
    let mut out = Output::None;
    if !data.is_empty() {
        if flags & 0x10 != 0 {
            out = direct_buffer(cx, at, &data)?;
        } else {
            // DO_BUFFERED_IO, or neither: then the same memory is the user's buffer.
            let buf = cx.k.pool.alloc(
                &mut cx.m.mem,
                data.len() as u64,
                PoolKind::NonPaged,
                u32::from_le_bytes(*b"IoSB"),
            )?;
            cx.put(buf, &data)?;
            let field = if flags & 4 != 0 { irp::SYSTEM_BUFFER } else { irp::USER_BUFFER };
            cx.w64(at + field, buf)?;
            out = Output::System { at: buf, length: if major == 3 { data.len() as u32 } else { 0 } };
        }
    }
    send(cx, q, target, Pending { output: out, step: Some(step), ..p })
}

fn close(cx: &mut Cx<'_>, q: usize, handle: &str, step: Option<Box<Step>>) -> Result {
    let Some((file, target)) = cx.k.life.handles.remove(handle) else {
        return match step {
            Some(step) => no_handle(cx, q, &step),
            None => next(cx, q),
        };
    };
    let p = request(cx, target, file, 0x12, 0)?;
    send(cx, q, target, Pending { kind: After::Cleanup { file, device: target }, step, ..p })
}
