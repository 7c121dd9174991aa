//! IRPs, device stacks and the bus driver below them.
//!
//! IRPs live in guest memory with their documented x64 layout, because drivers' headers inline half of the I/O
//! manager (`IoSkipCurrentIrpStackLocation`, `IoMarkIrpPending`, `IoSetCompletionRoutine`). What the kernel keeps
//! besides is who waits for a request and what came of it.

use std::collections::BTreeMap;

use dirql_event::EventKind;
use dirql_machine::DeviceId;

use crate::context::{Outcome, Result, ret};
use crate::cx::Cx;
use crate::kernel::Kernel;
use crate::pool::PoolKind;
use crate::stop::Stop;
use crate::then::Then;

/// Offsets in IRP (wdm.h, x64).
pub(crate) mod irp {
    pub(crate) const SIZE: u64 = 0xd0;
    pub(crate) const MDL: u64 = 0x08;
    pub(crate) const FLAGS: u64 = 0x10;
    pub(crate) const SYSTEM_BUFFER: u64 = 0x18;
    pub(crate) const STATUS: u64 = 0x30;
    pub(crate) const INFORMATION: u64 = 0x38;
    pub(crate) const PENDING_RETURNED: u64 = 0x41;
    pub(crate) const STACK_COUNT: u64 = 0x42;
    pub(crate) const CURRENT_LOCATION: u64 = 0x43;
    pub(crate) const CANCEL: u64 = 0x44;
    pub(crate) const CANCEL_IRQL: u64 = 0x45;
    pub(crate) const USER_IOSB: u64 = 0x48;
    pub(crate) const USER_EVENT: u64 = 0x50;
    pub(crate) const CANCEL_ROUTINE: u64 = 0x68;
    pub(crate) const USER_BUFFER: u64 = 0x70;
    pub(crate) const THREAD: u64 = 0x98;
    pub(crate) const CURRENT_STACK: u64 = 0xb8;
    pub(crate) const FILE_OBJECT: u64 = 0xc0;
}

/// Offsets in IO_STACK_LOCATION (72 bytes).
pub(crate) mod stack {
    pub(crate) const SIZE: u64 = 0x48;
    pub(crate) const MINOR: u64 = 1;
    pub(crate) const CONTROL: u64 = 3;
    pub(crate) const PARAMS: u64 = 8;
    pub(crate) const DEVICE: u64 = 0x28;
    pub(crate) const FILE: u64 = 0x30;
    pub(crate) const COMPLETION: u64 = 0x38;
    pub(crate) const CONTEXT: u64 = 0x40;
}

/// Offsets in DEVICE_OBJECT.
pub(crate) mod device {
    pub(crate) const SIZE: u64 = 0x150;
    pub(crate) const DRIVER: u64 = 0x08;
    pub(crate) const NEXT: u64 = 0x10;
    pub(crate) const ATTACHED: u64 = 0x18;
    pub(crate) const CURRENT_IRP: u64 = 0x20;
    pub(crate) const FLAGS: u64 = 0x30;
    pub(crate) const CHARACTERISTICS: u64 = 0x34;
    pub(crate) const EXTENSION: u64 = 0x40;
    pub(crate) const TYPE: u64 = 0x48;
    pub(crate) const STACK_SIZE: u64 = 0x4c;
    pub(crate) const QUEUE: u64 = 0xa0;
    pub(crate) const ALIGNMENT: u64 = 0x98;
    pub(crate) const OBJECT_EXTENSION: u64 = 0x138;
}

/// Offsets in DRIVER_OBJECT.
pub(crate) mod driver {
    pub(crate) const SIZE: u64 = 0x150;
    pub(crate) const DEVICE: u64 = 0x08;
    pub(crate) const START_IO: u64 = 0x60;
    pub(crate) const UNLOAD: u64 = 0x68;
    pub(crate) const MAJOR: u64 = 0x70;
}

pub(crate) const STATUS_PENDING: u32 = 0x103;
pub(crate) const STATUS_NOT_SUPPORTED: u32 = 0xC000_00BB;
pub(crate) const STATUS_MORE_PROCESSING_REQUIRED: u32 = 0xC000_0016;
pub(crate) const STATUS_INSUFFICIENT_RESOURCES: u32 = 0xC000_009A;

/// A device object the driver made.
#[derive(Clone, Debug)]
pub struct DeviceObject {
    /// Its driver object.
    pub driver: u64,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The device object it is attached to.
    pub below: Option<u64>,
}

/// A device the bus driver reported: its PDO and what it was given.
#[derive(Clone, Debug)]
pub struct Pdo {
    /// Name in the lab.
    pub name: String,
    /// Guest address of the device object.
    pub object: u64,
    /// The machine's device.
    pub machine: DeviceId,
}

/// A request that the workload or the PnP manager sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// Number in the run.
    pub id: u64,
    /// What was sent.
    pub major: u8,
    /// Minor code.
    pub minor: u8,
}

/// The I/O manager's state.
#[derive(Clone, Debug, Default)]
pub struct IoState {
    /// Requests sent by the kernel itself, by IRP address.
    pub requests: BTreeMap<u64, Request>,
    /// Requests that completed: status and information.
    pub completed: BTreeMap<u64, (u32, u64)>,
    /// IRPs that drivers allocated or had built, by address: how they end.
    pub built: BTreeMap<u64, Built>,
    /// Number of the next request.
    pub next_request: u64,
    /// Device objects by address.
    pub devices: BTreeMap<u64, DeviceObject>,
    /// PDOs.
    pub pdos: Vec<Pdo>,
    /// Driver object of the bus driver.
    pub bus_driver: u64,
    /// Names (lower case) of devices.
    pub names: BTreeMap<String, u64>,
    /// Symbolic links (lower case) and what they name.
    pub links: BTreeMap<String, String>,
    /// Device interfaces: symbolic link, interface GUID text, enabled.
    pub interfaces: Vec<Interface>,
    /// Driver object extensions by driver object and client identification.
    pub extensions: BTreeMap<(u64, u64), u64>,
    /// Owner processor of the cancel spin lock.
    pub cancel_lock: Option<usize>,
    /// Link of the first interface or symbolic link the driver made, the workload's default name.
    pub first_name: Option<String>,
}

/// A registered device interface.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Interface class GUID as text, `{...}`.
    pub guid: String,
    /// Symbolic link name.
    pub link: String,
    /// PDO it belongs to.
    pub pdo: u64,
    /// Enabled by IoSetDeviceInterfaceState.
    pub enabled: bool,
}

/// How a driver-built IRP ends.
#[derive(Clone, Debug)]
pub struct Built {
    /// Made by IoBuildSynchronousFsdRequest or IoBuildDeviceIoControlRequest: the I/O manager frees it.
    pub owned: bool,
    /// Copy this many bytes at most from the system buffer back to the user buffer.
    pub copy_back: Option<(u64, u64, u64)>,
}

/// Continuations of the I/O manager.
#[derive(Clone, Debug)]
pub enum IoThen {
    /// A completion routine returned; go on up the stack.
    Complete(u64),
    /// As `Complete`, for a PDO's dispatch routine: its own status is returned at the end.
    CompleteWith(u64, u32),
    /// After IRPs that drivers forwarded by IoForwardIrpSynchronously.
    Forwarded(u64),
    /// IoCancelIrp waits for the cancel spin lock.
    Cancel(u64, Box<Then>),
    /// Lower the IRQL after StartIo returned.
    Lower(u8),
    /// A cancel-safe queue is in the middle of an operation.
    Csq {
        /// The IO_CSQ.
        csq: u64,
        /// The IRP, when there is one.
        irp: u64,
        /// IO_CSQ_IRP_CONTEXT or the peek context.
        context: u64,
        /// What it is about to learn.
        step: CsqStep,
        /// Out-parameter in pool that holds the IRQL the driver's lock routine gave.
        irql: u64,
    },
    /// Return this status to the caller of an operation after completing an IRP.
    Status(u32),
}

impl IoThen {
    pub(crate) fn resume(self, cx: &mut Cx<'_>, value: u64) -> Result {
        match self {
            Self::Complete(irp) => {
                if value as u32 == STATUS_MORE_PROCESSING_REQUIRED {
                    return ret(0);
                }
                complete(cx, irp)
            }
            Self::CompleteWith(irp, status) => {
                if value as u32 == STATUS_MORE_PROCESSING_REQUIRED {
                    return ret(u64::from(status));
                }
                match complete(cx, irp)? {
                    Outcome::Call { routine, args, then: Then::Io(Self::Complete(next)) } => {
                        Ok(Outcome::Call { routine, args, then: Then::Io(Self::CompleteWith(next, status)) })
                    }
                    _ => ret(u64::from(status)),
                }
            }
            Self::Forwarded(event) => {
                if value as u32 == STATUS_PENDING {
                    return Ok(Outcome::Wait {
                        wait: crate::context::Wait::object(event),
                        then: Then::RetValue(1),
                    });
                }
                ret(1)
            }
            Self::Lower(irql) => {
                cx.set_irql(irql);
                ret(0)
            }
            Self::Csq { csq, irp, context, step, irql } => csq_go(cx, csq, irp, context, step, irql, value),
            Self::Cancel(irp, then) => cancel(cx, irp, *then),
            Self::Status(status) => ret(u64::from(status)),
        }
    }
}

/// Initialises an IRP in guest memory, as IoInitializeIrp does.
pub(crate) fn init_irp(cx: &mut Cx<'_>, at: u64, stacks: u8) -> std::result::Result<(), Stop> {
    let size = irp::SIZE + u64::from(stacks) * stack::SIZE;
    cx.put(at, &vec![0; size as usize])?;
    cx.w16(at, 6)?;
    cx.w16(at + 2, size as u16)?;
    cx.w8(at + irp::STACK_COUNT, stacks)?;
    cx.w8(at + irp::CURRENT_LOCATION, stacks + 1)?;
    cx.w64(at + irp::CURRENT_STACK, at + irp::SIZE + u64::from(stacks) * stack::SIZE)?;
    cx.w64(at + 0x20, at + 0x20)?;
    cx.w64(at + 0x28, at + 0x20)?;
    Ok(())
}

/// Allocates an IRP with that many stack locations.
pub(crate) fn new_irp(cx: &mut Cx<'_>, stacks: u8) -> std::result::Result<u64, Stop> {
    let size = irp::SIZE + u64::from(stacks) * stack::SIZE;
    let at = cx.k.pool.alloc(&mut cx.m.mem, size, PoolKind::NonPaged, u32::from_le_bytes(*b"Irp "))?;
    init_irp(cx, at, stacks)?;
    Ok(at)
}

/// Frees pool that the kernel itself allocated.
pub(crate) fn free(cx: &mut Cx<'_>, at: u64) -> std::result::Result<(), Stop> {
    cx.k.pool.free(&mut cx.m.mem, at).map(|_| ()).map_err(|_| {
        Stop::bug_check(0xC2, [7, 0, 0, at], format!("{at:#x} was freed twice, or was never allocated"))
    })
}

/// The topmost device object of the stack that `object` is in.
pub(crate) fn top_of(cx: &Cx<'_>, mut object: u64) -> std::result::Result<u64, Stop> {
    for _ in 0..64 {
        let above = cx.r64(object + device::ATTACHED)?;
        if above == 0 {
            return Ok(object);
        }
        object = above;
    }
    Err(cx.missing("a device stack of more than 64 device objects"))
}

/// IofCallDriver: the next stack location becomes current and its driver's dispatch routine is called.
pub(crate) fn call_driver(cx: &mut Cx<'_>, target: u64, at: u64) -> Result {
    let location = cx.r8(at + irp::CURRENT_LOCATION)?;
    if location <= 1 {
        return Err(Stop::bug_check(
            0x35,
            [at, 0, 0, 0],
            "IoCallDriver with no stack location left (NO_MORE_IRP_STACK_LOCATIONS)",
        ));
    }
    let here = cx.r64(at + irp::CURRENT_STACK)? - stack::SIZE;
    cx.w8(at + irp::CURRENT_LOCATION, location - 1)?;
    cx.w64(at + irp::CURRENT_STACK, here)?;
    cx.w64(here + stack::DEVICE, target)?;
    let major = cx.r8(here)?;
    let driver_object = cx.r64(target + device::DRIVER)?;
    if driver_object == cx.k.io.bus_driver {
        return crate::bus::dispatch(cx, target, at);
    }
    if major > 0x1b {
        return Err(Stop::bug_check(
            0x1E,
            [0xC000_0005, 0, 0, 0],
            format!("IRP major function {major:#x} does not exist"),
        ));
    }
    let routine = cx.r64(driver_object + driver::MAJOR + 8 * u64::from(major))?;
    if routine == 0 {
        // The I/O manager fills the table before DriverEntry; a driver that stores NULL there crashes on Windows too.
        return Err(Stop::bug_check(
            0xD1,
            [0, 0, 8, 0],
            format!("the driver's MajorFunction[{major:#x}] is NULL"),
        ));
    }
    Ok(Outcome::Call { routine, args: vec![target, at], then: Then::Ret })
}

/// IofCompleteRequest: walks up the stack, calling completion routines.
pub(crate) fn complete(cx: &mut Cx<'_>, at: u64) -> Result {
    const PENDING: u8 = 1;
    const CANCEL: u8 = 0x20;
    const SUCCESS: u8 = 0x40;
    const ERROR: u8 = 0x80;
    loop {
        let count = cx.r8(at + irp::STACK_COUNT)?;
        let location = cx.r8(at + irp::CURRENT_LOCATION)?;
        if location > count + 1 || location == 0 {
            return Err(Stop::bug_check(
                0x44,
                [at, 0, 0, 0],
                "an IRP was completed a second time (MULTIPLE_IRP_COMPLETE_REQUESTS)",
            ));
        }
        if location == count + 1 {
            return finish(cx, at);
        }
        let here = cx.r64(at + irp::CURRENT_STACK)?;
        let control = cx.r8(here + stack::CONTROL)?;
        let routine = cx.r64(here + stack::COMPLETION)?;
        let context = cx.r64(here + stack::CONTEXT)?;
        let status = cx.r32(at + irp::STATUS)?;
        if status == STATUS_PENDING {
            return Err(Stop::bug_check(0xC9, [0x0C, at, 0, 0], "an IRP was completed with STATUS_PENDING"));
        }
        let cancelled = cx.r8(at + irp::CANCEL)? != 0;
        cx.w8(at + irp::PENDING_RETURNED, control & PENDING)?;
        cx.w8(at + irp::CURRENT_LOCATION, location + 1)?;
        cx.w64(at + irp::CURRENT_STACK, here + stack::SIZE)?;
        cx.w64(here + stack::COMPLETION, 0)?;
        let ok = (status as i32) >= 0;
        let wanted = (ok && control & SUCCESS != 0)
            || (!ok && control & ERROR != 0)
            || (cancelled && control & CANCEL != 0);
        if wanted && routine != 0 {
            let object = if location < count { cx.r64(here + stack::SIZE + stack::DEVICE)? } else { 0 };
            return Ok(Outcome::Call {
                routine,
                args: vec![object, at, context],
                then: Then::Io(IoThen::Complete(at)),
            });
        }
        if control & PENDING != 0 && location < count {
            let above = here + stack::SIZE;
            let c = cx.r8(above + stack::CONTROL)?;
            cx.w8(above + stack::CONTROL, c | PENDING)?;
        }
    }
}

/// All of the stack has seen it: give the result to who waits.
fn finish(cx: &mut Cx<'_>, at: u64) -> Result {
    let count = cx.r8(at + irp::STACK_COUNT)?;
    // A second completion must be seen, so the location goes past the end.
    cx.w8(at + irp::CURRENT_LOCATION, count + 2)?;
    let status = cx.r32(at + irp::STATUS)?;
    let information = cx.r64(at + irp::INFORMATION)?;
    if let Some(request) = cx.k.io.requests.get(&at) {
        let id = request.id;
        cx.event(EventKind::IrpCompleted { id, status, information });
        cx.k.io.completed.insert(at, (status, information));
        return ret(0);
    }
    if let Some(built) = cx.k.io.built.get(&at).cloned()
        && built.owned
    {
        let iosb = cx.r64(at + irp::USER_IOSB)?;
        let event = cx.r64(at + irp::USER_EVENT)?;
        if let Some((from, to, max)) = built.copy_back {
            if (status as i32) >= 0 || status >> 30 == 2 {
                let data = cx.bytes(from, information.min(max) as usize)?;
                if to != 0 {
                    cx.put(to, &data)?;
                }
            }
            free(cx, from)?;
        }
        if iosb != 0 {
            cx.w32(iosb, status)?;
            cx.w64(iosb + 8, information)?;
        }
        cx.k.io.built.remove(&at);
        free(cx, at)?;
        if event != 0 {
            cx.w32(event + 4, 1)?;
            crate::sched::wake_waiters(cx, event)?;
        }
    }
    ret(0)
}

/// Sends a request of the kernel's own to the top of a stack. The continuation gets the dispatch routine's status;
/// wait for [`crate::context::Wait::irp`] when that is STATUS_PENDING.
pub(crate) fn send(cx: &mut Cx<'_>, object: u64, at: u64, then: Then) -> Result {
    let top = top_of(cx, object)?;
    let next = cx.r64(at + irp::CURRENT_STACK)? - stack::SIZE;
    let (major, minor) = (cx.r8(next)?, cx.r8(next + stack::MINOR)?);
    let code = if matches!(major, 0xe | 0xf) { cx.r32(next + stack::PARAMS + 0x10)? } else { 0 };
    cx.k.io.next_request += 1;
    let id = cx.k.io.next_request;
    cx.k.io.requests.insert(at, Request { id, major, minor });
    cx.event(EventKind::IrpSent { id, major, minor, code });
    match call_driver(cx, top, at)? {
        Outcome::Call { routine, args, .. } => Ok(Outcome::Call { routine, args, then }),
        Outcome::Ret(v) => then.resume(cx, v),
        other => Ok(other),
    }
}

/// Closes a handle that is not a registry handle.
pub(crate) fn close_handle(cx: &mut Cx<'_>, handle: u64) -> Result {
    if cx.k.ke.close_thread_handle(handle) {
        return ret(0);
    }
    // STATUS_INVALID_HANDLE.
    ret(0xC000_0008)
}

/// Writes a UNICODE_STRING at `at` with a fresh nonpaged buffer.
pub(crate) fn put_unicode(cx: &mut Cx<'_>, at: u64, text: &str) -> std::result::Result<(), Stop> {
    let mut bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let len = bytes.len() as u16;
    bytes.extend([0, 0]);
    let buffer = cx.k.pool.alloc(
        &mut cx.m.mem,
        bytes.len() as u64,
        PoolKind::NonPaged,
        u32::from_le_bytes(*b"IoNm"),
    )?;
    cx.put(buffer, &bytes)?;
    cx.w16(at, len)?;
    cx.w16(at + 2, len + 2)?;
    cx.w64(at + 8, buffer)
}

/// Reads a UNICODE_STRING.
pub(crate) fn read_unicode(cx: &Cx<'_>, at: u64) -> std::result::Result<String, Stop> {
    let len = cx.r16(at)?;
    let buffer = cx.r64(at + 8)?;
    let bytes = cx.bytes(buffer, usize::from(len & !1))?;
    let units: Vec<u16> = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
    Ok(String::from_utf16_lossy(&units))
}

/// Makes a device object in guest memory and links it to its driver.
pub(crate) fn new_device(
    cx: &mut Cx<'_>,
    driver_object: u64,
    extension: u64,
    kind: u32,
    characteristics: u32,
    name: Option<String>,
) -> std::result::Result<u64, Stop> {
    let tag = u32::from_le_bytes(*b"Devi");
    let size = device::SIZE + extension.next_multiple_of(16);
    let at = cx.k.pool.alloc(&mut cx.m.mem, size + 0x40, PoolKind::NonPaged, tag)?;
    cx.put(at, &vec![0; size as usize + 0x40])?;
    cx.w16(at, 3)?;
    cx.w16(at + 2, (device::SIZE + extension) as u16)?;
    cx.w64(at + device::DRIVER, driver_object)?;
    let first = cx.r64(driver_object + driver::DEVICE)?;
    cx.w64(at + device::NEXT, first)?;
    cx.w64(driver_object + driver::DEVICE, at)?;
    // DO_DEVICE_INITIALIZING, and DO_DEVICE_HAS_NAME when named.
    cx.w32(at + device::FLAGS, 0x80 | if name.is_some() { 0x40 } else { 0 })?;
    cx.w32(at + device::CHARACTERISTICS, characteristics)?;
    cx.w64(at + device::EXTENSION, if extension > 0 { at + device::SIZE } else { 0 })?;
    cx.w32(at + device::TYPE, kind)?;
    cx.w8(at + device::STACK_SIZE, 1)?;
    cx.w32(at + device::ALIGNMENT, 0)?;
    // DeviceQueue: KDEVICE_QUEUE, type 20, empty list.
    let queue = at + device::ALIGNMENT + 8;
    cx.w16(queue, 20)?;
    cx.w16(queue + 2, 0x28)?;
    cx.w64(queue + 8, queue + 8)?;
    cx.w64(queue + 16, queue + 8)?;
    // The device object extension lies behind the driver's own; it points back.
    let own = at + size;
    cx.w16(own, 13)?;
    cx.w64(own + 8, at)?;
    cx.w64(at + device::OBJECT_EXTENSION, own)?;
    if let Some(n) = &name {
        cx.k.io.names.insert(n.to_lowercase(), at);
    }
    cx.k.io.devices.insert(at, DeviceObject { driver: driver_object, name, below: None });
    Ok(at)
}

/// Deletes a device object.
pub(crate) fn delete_device(cx: &mut Cx<'_>, at: u64) -> std::result::Result<(), Stop> {
    let Some(d) = cx.k.io.devices.remove(&at) else {
        return Err(Stop::bug_check(
            0x1,
            [at, 0, 0, 0],
            format!("IoDeleteDevice on {at:#x}, which is no device object"),
        ));
    };
    if let Some(n) = d.name {
        cx.k.io.names.remove(&n.to_lowercase());
    }
    let mut link = d.driver + driver::DEVICE;
    for _ in 0..4096 {
        let here = cx.r64(link)?;
        if here == at {
            let next = cx.r64(at + device::NEXT)?;
            cx.w64(link, next)?;
            break;
        }
        if here == 0 {
            break;
        }
        link = here + device::NEXT;
    }
    free(cx, at)
}

/// A file object on a device: type 5, DeviceObject at 8.
pub(crate) fn new_file(cx: &mut Cx<'_>, target: u64) -> std::result::Result<u64, Stop> {
    let at = cx.k.pool.alloc(&mut cx.m.mem, 0xd8, PoolKind::NonPaged, u32::from_le_bytes(*b"File"))?;
    cx.put(at, &[0; 0xd8])?;
    cx.w16(at, 5)?;
    cx.w16(at + 2, 0xd8)?;
    cx.w64(at + 8, target)?;
    Ok(at)
}

/// The device object a name leads to: a device name, a symbolic link (`\??\X`, `\DosDevices\X`, `\\.\X`, `X`), or
/// an interface's link or GUID.
#[must_use]
pub fn resolve_name(k: &Kernel, name: &str) -> Option<u64> {
    let mut name = canonical(name);
    for _ in 0..8 {
        if let Some(&at) = k.io.names.get(&name) {
            return Some(at);
        }
        if let Some(i) =
            k.io.interfaces.iter().find(|i| canonical(&i.link) == name || i.guid.to_lowercase() == name)
        {
            return i.enabled.then_some(i.pdo);
        }
        let next = k.io.links.get(&name).or_else(|| k.io.links.get(&format!("\\??\\{name}")))?;
        name = canonical(next);
    }
    None
}

/// A name in lower case, with the spellings of the DOS device folder made one.
pub(crate) fn canonical(name: &str) -> String {
    let lower = name.to_lowercase();
    for prefix in ["\\dosdevices\\global\\", "\\dosdevices\\", "\\\\.\\", "\\\\?\\", "\\global??\\"] {
        if let Some(rest) = lower.strip_prefix(prefix) {
            return format!("\\??\\{rest}");
        }
    }
    lower
}

/// IoCancelIrp: marks the request and calls its cancel routine, with the cancel spin lock held.
pub(crate) fn cancel(cx: &mut Cx<'_>, at: u64, then: Then) -> Result {
    let old = cx.irql();
    if cx.k.io.cancel_lock.is_some_and(|c| c != cx.cpu) {
        return Ok(Outcome::Spin(Then::Io(IoThen::Cancel(at, Box::new(then)))));
    }
    cx.w8(at + irp::CANCEL, 1)?;
    let routine = cx.r64(at + irp::CANCEL_ROUTINE)?;
    if routine == 0 {
        return then.resume(cx, 0);
    }
    cx.w64(at + irp::CANCEL_ROUTINE, 0)?;
    cx.w8(at + irp::CANCEL_IRQL, old)?;
    cx.set_irql(2);
    cx.k.io.cancel_lock = Some(cx.cpu);
    let here = cx.r64(at + irp::CURRENT_STACK)?;
    let object = cx.r64(here + stack::DEVICE)?;
    Ok(Outcome::Call { routine, args: vec![object, at], then })
}

/// Where a cancel-safe queue's operation stands: each step is a routine of the driver that has just returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsqStep {
    /// IoCsqInsertIrp: the lock is held.
    Insert,
    /// The IRP is in the queue.
    Inserted,
    /// IoCsqRemoveNextIrp: the lock is held.
    RemoveNext,
    /// The queue was peeked.
    Peeked,
    /// An IRP was taken off.
    Removed,
    /// The cancel routine: the lock is held.
    Cancel,
    /// The cancelled IRP was taken off.
    CancelRemoved,
    /// The lock is released; return the IRP.
    Released,
    /// The lock is released; complete the cancelled IRP.
    CancelReleased,
}

/// Offsets of the driver's routines in IO_CSQ.
mod csq_routine {
    pub(super) const INSERT: u64 = 0x08;
    pub(super) const REMOVE: u64 = 0x10;
    pub(super) const PEEK: u64 = 0x18;
    pub(super) const ACQUIRE: u64 = 0x20;
    pub(super) const RELEASE: u64 = 0x28;
    pub(super) const COMPLETE: u64 = 0x30;
}

impl IoThen {
    /// Begins an operation of a cancel-safe queue: takes the driver's lock first.
    pub(crate) fn csq(cx: &mut Cx<'_>, csq: u64, irp: u64, context: u64, step: CsqStep) -> Result {
        let irql = cx.k.pool.alloc(&mut cx.m.mem, 16, PoolKind::NonPaged, u32::from_le_bytes(*b"Csq "))?;
        cx.w64(irql, 0)?;
        let routine = cx.r64(csq + csq_routine::ACQUIRE)?;
        Ok(Outcome::Call {
            routine,
            args: vec![csq, irql],
            then: Then::Io(Self::Csq { csq, irp, context, step, irql }),
        })
    }
}

fn csq_go(cx: &mut Cx<'_>, csq: u64, at: u64, context: u64, step: CsqStep, irql: u64, value: u64) -> Result {
    let call = |cx: &Cx<'_>, offset: u64, args: Vec<u64>, at: u64, step: CsqStep| -> Result {
        let routine = cx.r64(csq + offset)?;
        Ok(Outcome::Call { routine, args, then: Then::Io(IoThen::Csq { csq, irp: at, context, step, irql }) })
    };
    let release = |cx: &Cx<'_>, at: u64, step: CsqStep| -> Result {
        let old = u64::from(cx.r8(irql)?);
        call(cx, csq_routine::RELEASE, vec![csq, old], at, step)
    };
    match step {
        CsqStep::Insert => {
            // Mark pending, remember the queue, then the driver's own insert.
            let here = cx.r64(at + irp::CURRENT_STACK)?;
            let control = cx.r8(here + stack::CONTROL)?;
            cx.w8(here + stack::CONTROL, control | 1)?;
            cx.w64(at + 0x90, csq)?;
            call(cx, csq_routine::INSERT, vec![csq, at], at, CsqStep::Inserted)
        }
        CsqStep::Inserted => {
            let cancel = cx.k.modules.export_address("IopCsqCancel").unwrap_or(0);
            cx.w64(at + irp::CANCEL_ROUTINE, cancel)?;
            if cx.r8(at + irp::CANCEL)? != 0 {
                // Cancelled before it was queued: taken off and completed at once.
                cx.w64(at + irp::CANCEL_ROUTINE, 0)?;
                return call(cx, csq_routine::REMOVE, vec![csq, at], at, CsqStep::CancelRemoved);
            }
            release(cx, 0, CsqStep::Released)
        }
        CsqStep::RemoveNext => call(cx, csq_routine::PEEK, vec![csq, 0, context], 0, CsqStep::Peeked),
        CsqStep::Peeked => {
            if value == 0 {
                return release(cx, 0, CsqStep::Released);
            }
            if cx.r64(value + irp::CANCEL_ROUTINE)? == 0 {
                // Its cancel routine is on its way: look for the next.
                return call(cx, csq_routine::PEEK, vec![csq, value, context], 0, CsqStep::Peeked);
            }
            cx.w64(value + irp::CANCEL_ROUTINE, 0)?;
            call(cx, csq_routine::REMOVE, vec![csq, value], value, CsqStep::Removed)
        }
        CsqStep::Removed => {
            cx.w64(at + 0x90, 0)?;
            release(cx, at, CsqStep::Released)
        }
        CsqStep::Cancel => call(cx, csq_routine::REMOVE, vec![csq, at], at, CsqStep::CancelRemoved),
        CsqStep::CancelRemoved => release(cx, at, CsqStep::CancelReleased),
        CsqStep::Released => {
            free(cx, irql)?;
            ret(at)
        }
        CsqStep::CancelReleased => {
            free(cx, irql)?;
            let routine = cx.r64(csq + csq_routine::COMPLETE)?;
            Ok(Outcome::Call { routine, args: vec![csq, at], then: Then::RetValue(0) })
        }
    }
}
