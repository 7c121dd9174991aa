//! pulse in Rust: messages, with a line as fallback, for dirql's pulse device. A WDM driver without a framework.
//!
//! Connects `CONNECT_MESSAGE_BASED` with a fallback routine and one lock for all messages, counts per message, and
//! disconnects with the version that the connect call returned. It uses no part of Rust that allocates or unwinds.
//!
//! Control codes (numbers are 32 bits, little-endian), the same as the C driver's:
//!   0x222000 RAISE   in: source               sets the source's STATUS bit
//!   0x222004 COUNTS  out: total, count\[n\]   interrupts taken: in all, and per message (line: all in count\[0\])
//!   0x222010 INFO    out: version, messages   how it is connected: 3 and the messages, or 2 and 0
//! Left out, which the C driver has: waiting requests, and the DPC that completes them.
//!
//! SPDX-License-Identifier: MIT OR Apache-2.0
#![no_std]
#![expect(unsafe_code, reason = "the C interface: kernel structures by offset, kernel routines, device registers")]
#![allow(unsafe_op_in_unsafe_fn, reason = "the bodies of kernel callbacks are unsafe throughout: see each one's head")]

mod nt;

use core::ptr::null_mut;

use nt::*;

const ID: usize = 0x00;
const STATUS: usize = 0x04;
const ENABLE: usize = 0x08;
const RAISE: usize = 0x0c;
const SOURCES: usize = 0x10;
const LENGTH: usize = 0x1000;
const ID_VALUE: u32 = 0x5055_4c53;
const MAX_SOURCES: u32 = 32;

/// The device extension; the I/O manager has zeroed it.
#[repr(C)]
struct Pulse {
    lower: Ptr,
    pdo: Ptr,
    remove_lock: RemoveLock,
    /// Held by requests while they touch what a stop takes away. Run down while the device is not started.
    started: usize,
    is_started: bool,
    gone: bool,
    registers: *mut u8,
    length: usize,
    sources: u32,
    /// As the connect call returned it: says whether `connection` is a message table or an interrupt object.
    version: u32,
    connection: Ptr,
    interrupt_lock: usize,
    /// Under `interrupt_lock`.
    total: u32,
    /// Under `interrupt_lock`.
    counts: [u32; MAX_SOURCES as usize],
}

static NAME: [u16; 16] = utf16(b"\\Device\\PulseRs0");
static LINK: [u16; 20] = utf16(b"\\DosDevices\\PulseRs0");

const fn utf16<const N: usize>(ascii: &[u8; N]) -> [u16; N] {
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        out[i] = ascii[i] as u16;
        i += 1;
    }
    out
}

const fn string(of: &'static [u16]) -> UnicodeString {
    let bytes = (of.len() * 2) as u16;
    UnicodeString { length: bytes, maximum_length: bytes, buffer: of.as_ptr() }
}

/// A member of a kernel structure. SAFETY of all uses: the structure is one that the kernel handed over, and the
/// offset and type are those of its public declaration.
unsafe fn get<T: Copy>(of: Ptr, offset: usize) -> T {
    of.cast::<u8>().add(offset).cast::<T>().read_unaligned()
}

unsafe fn set<T>(of: Ptr, offset: usize, value: T) {
    of.cast::<u8>().add(offset).cast::<T>().write_unaligned(value);
}

unsafe fn extension(device: Ptr) -> *mut Pulse {
    get(device, device::EXTENSION)
}

unsafe fn read(pulse: *mut Pulse, at: usize) -> u32 {
    (*pulse).registers.add(at).cast::<u32>().read_volatile()
}

unsafe fn write(pulse: *mut Pulse, at: usize, value: u32) {
    (*pulse).registers.add(at).cast::<u32>().write_volatile(value);
}

// ---- Interrupts: at DIRQL, interrupt_lock held ----

unsafe fn took(pulse: *mut Pulse, message: u32) {
    (*pulse).total = (*pulse).total.wrapping_add(1);
    if message < MAX_SOURCES {
        let count = (&raw mut (*pulse).counts).cast::<u32>().add(message as usize);
        *count = (*count).wrapping_add(1);
    }
}

extern "system" fn on_message(_interrupt: Ptr, context: Ptr, message: u32) -> u8 {
    let pulse = context.cast::<Pulse>();
    // SAFETY: the context is the extension, which outlives the connection, and the lock is held.
    unsafe {
        // The table's pointer is stored only after the messages are live; until then message 0 may speak for all.
        let table = (*pulse).connection;
        let messages = if table.is_null() { 0 } else { get(table, messages::COUNT) };
        let mine = if message == 0 && messages < (*pulse).sources { !0 } else { 1 << (message % MAX_SOURCES) };
        write(pulse, STATUS, read(pulse, STATUS) & mine);
        took(pulse, message);
    }
    1 // a message belongs to one device
}

extern "system" fn on_line(_interrupt: Ptr, context: Ptr) -> u8 {
    let pulse = context.cast::<Pulse>();
    // SAFETY: as in `on_message`.
    unsafe {
        let status = read(pulse, STATUS);
        // All ones: the device is gone or asleep, and the interrupt is some other device's.
        if status == !0 || status & read(pulse, ENABLE) == 0 {
            return 0;
        }
        write(pulse, STATUS, status);
        took(pulse, 0);
    }
    1
}

extern "system" fn enable(context: Ptr) -> u8 {
    // SAFETY: called through KeSynchronizeExecution with the extension, the device being mapped.
    unsafe { write(context.cast(), ENABLE, !0) };
    1
}

extern "system" fn disable(context: Ptr) -> u8 {
    // SAFETY: as in `enable`. The read comes back only after the write has reached the device.
    unsafe {
        write(context.cast(), ENABLE, 0);
        read(context.cast(), ENABLE);
    }
    1
}

/// A copy of the counters, and where they are.
struct Snapshot {
    pulse: *mut Pulse,
    total: u32,
    counts: [u32; MAX_SOURCES as usize],
}

extern "system" fn take_snapshot(context: Ptr) -> u8 {
    let snapshot = context.cast::<Snapshot>();
    // SAFETY: the context is the caller's snapshot, and the lock is held.
    unsafe {
        (*snapshot).total = (*(*snapshot).pulse).total;
        (*snapshot).counts = (*(*snapshot).pulse).counts;
    }
    1
}

/// Any interrupt object of the connection: they share the lock and the IRQL.
unsafe fn any_interrupt(pulse: *mut Pulse) -> Ptr {
    if (*pulse).version == CONNECT_MESSAGE_BASED {
        get((*pulse).connection, messages::FIRST_OBJECT)
    } else {
        (*pulse).connection
    }
}

// ---- Start and stop: at PASSIVE_LEVEL, one PnP IRP at a time ----

/// Maps the first memory resource, if it is long enough.
unsafe fn map(pulse: *mut Pulse, list: Ptr) -> bool {
    if list.is_null() || get::<u32>(list, 0) == 0 {
        return false;
    }
    let count: u32 = get(list, resources::COUNT);
    for i in 0..count as usize {
        let at = resources::FIRST + i * resources::SIZE;
        let length: u32 = get(list, at + resources::LENGTH);
        if get::<u8>(list, at) == resources::TYPE_MEMORY {
            (*pulse).length = length as usize;
            if length as usize >= LENGTH {
                (*pulse).registers = MmMapIoSpace(get(list, at + resources::START), length as usize, 0).cast();
            }
            return !(*pulse).registers.is_null();
        }
    }
    false
}

unsafe fn unmap(pulse: *mut Pulse) {
    MmUnmapIoSpace((*pulse).registers.cast(), (*pulse).length);
    (*pulse).registers = null_mut();
    (*pulse).connection = null_mut();
}

unsafe fn start(pulse: *mut Pulse, translated: Ptr) -> NtStatus {
    if !map(pulse, translated) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    (*pulse).sources = read(pulse, SOURCES);
    if read(pulse, ID) != ID_VALUE || (*pulse).sources == 0 || (*pulse).sources > MAX_SOURCES {
        unmap(pulse);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    let mut connect = ConnectMessageBased {
        version: CONNECT_MESSAGE_BASED,
        physical_device_object: (*pulse).pdo,
        connection_context: &raw mut (*pulse).connection,
        message_service_routine: on_message,
        service_context: pulse.cast(),
        spin_lock: &raw mut (*pulse).interrupt_lock,
        synchronize_irql: 0,
        floating_save: 0,
        fall_back_service_routine: on_line,
        unused: [0; 2],
    };
    let status = IoConnectInterruptEx(&raw mut connect);
    if status < 0 {
        unmap(pulse);
        return status;
    }
    (*pulse).version = connect.version; // CONNECT_LINE_BASED when the fallback was taken
    KeSynchronizeExecution(any_interrupt(pulse), enable, pulse.cast());
    (*pulse).is_started = true;
    ExReInitializeRundownProtection(&raw mut (*pulse).started);
    STATUS_SUCCESS
}

unsafe fn stop(pulse: *mut Pulse) {
    if !(*pulse).is_started {
        return;
    }
    (*pulse).is_started = false;
    ExWaitForRundownProtectionRelease(&raw mut (*pulse).started);
    if !(*pulse).gone {
        KeSynchronizeExecution(any_interrupt(pulse), disable, pulse.cast());
    }
    let disconnect = Disconnect { version: (*pulse).version, connection_context: (*pulse).connection };
    IoDisconnectInterruptEx(&raw const disconnect);
    unmap(pulse);
}

// ---- Dispatch routines: the kernel's device object, extension and IRP are valid until the IRP is passed on ----

unsafe fn complete(irp: Ptr, status: NtStatus, information: usize) -> NtStatus {
    set(irp, irp::STATUS, status);
    set(irp, irp::INFORMATION, information);
    IofCompleteRequest(irp, 0);
    status
}

/// `IoSkipCurrentIrpStackLocation`.
unsafe fn skip(irp: Ptr) {
    set(irp, irp::CURRENT_LOCATION, get::<u8>(irp, irp::CURRENT_LOCATION).wrapping_add(1));
    set(irp, irp::STACK, get::<usize>(irp, irp::STACK).wrapping_add(stack::SIZE));
}

const LOCK_SIZE: u32 = size_of::<RemoveLock>() as u32;

unsafe fn acquire(pulse: *mut Pulse, irp: Ptr) -> NtStatus {
    IoAcquireRemoveLockEx(&raw mut (*pulse).remove_lock, irp, c"".as_ptr().cast(), 1, LOCK_SIZE)
}

unsafe fn release(pulse: *mut Pulse, irp: Ptr) {
    IoReleaseRemoveLockEx(&raw mut (*pulse).remove_lock, irp, LOCK_SIZE);
}

unsafe extern "system" fn pnp(device: Ptr, irp: Ptr) -> NtStatus {
    let pulse = extension(device);
    let status = acquire(pulse, irp);
    if status < 0 {
        return complete(irp, status, 0);
    }
    let location: Ptr = get(irp, irp::STACK);
    match get::<u8>(location, stack::MINOR) {
        0x00 => {
            let translated = get(location, stack::TRANSLATED);
            let mut status = STATUS_NO_SUCH_DEVICE;
            if IoForwardIrpSynchronously((*pulse).lower, irp) != 0 {
                status = get(irp, irp::STATUS);
            }
            if status >= 0 {
                status = start(pulse, translated);
            }
            complete(irp, status, 0);
            release(pulse, irp);
            return status;
        }
        // Stop: requests that come meanwhile are refused, not queued.
        0x04 => {
            stop(pulse);
            set(irp, irp::STATUS, STATUS_SUCCESS);
        }
        // Surprise removal.
        0x17 => {
            (*pulse).gone = true;
            stop(pulse);
            set(irp, irp::STATUS, STATUS_SUCCESS);
        }
        // Remove.
        0x02 => {
            stop(pulse);
            IoReleaseRemoveLockAndWaitEx(&raw mut (*pulse).remove_lock, irp, LOCK_SIZE);
            set(irp, irp::STATUS, STATUS_SUCCESS);
            let lower = (*pulse).lower;
            skip(irp);
            let status = IofCallDriver(lower, irp);
            IoDetachDevice(lower);
            IoDeleteSymbolicLink(&string(&LINK));
            IoDeleteDevice(device);
            return status;
        }
        // Query and cancel of stop and remove: nothing is held against them.
        0x01 | 0x03 | 0x05 | 0x06 => set(irp, irp::STATUS, STATUS_SUCCESS),
        _ => {}
    }
    skip(irp);
    let status = IofCallDriver((*pulse).lower, irp);
    release(pulse, irp);
    status
}

unsafe extern "system" fn power(device: Ptr, irp: Ptr) -> NtStatus {
    let pulse = extension(device);
    let status = acquire(pulse, irp);
    PoStartNextPowerIrp(irp);
    if status < 0 {
        return complete(irp, status, 0);
    }
    skip(irp);
    let status = PoCallDriver((*pulse).lower, irp);
    release(pulse, irp);
    status
}

unsafe extern "system" fn pass_on(device: Ptr, irp: Ptr) -> NtStatus {
    let lower = (*extension(device)).lower;
    skip(irp);
    IofCallDriver(lower, irp)
}

unsafe extern "system" fn file(_device: Ptr, irp: Ptr) -> NtStatus {
    complete(irp, STATUS_SUCCESS, 0)
}

unsafe extern "system" fn control(device: Ptr, irp: Ptr) -> NtStatus {
    let pulse = extension(device);
    let status = acquire(pulse, irp);
    if status < 0 {
        return complete(irp, status, 0);
    }
    let (mut status, mut information) = (STATUS_DEVICE_NOT_READY, 0);
    if ExAcquireRundownProtection(&raw mut (*pulse).started) != 0 {
        (status, information) = request(pulse, irp);
        ExReleaseRundownProtection(&raw mut (*pulse).started);
    }
    complete(irp, status, information);
    release(pulse, irp);
    status
}

/// A control request while the device is started: its status, and the bytes it gives.
unsafe fn request(pulse: *mut Pulse, irp: Ptr) -> (NtStatus, usize) {
    let location: Ptr = get(irp, irp::STACK);
    let buffer: Ptr = get(irp, irp::SYSTEM_BUFFER);
    let input: u32 = get(location, stack::INPUT_LENGTH);
    let output: u32 = get(location, stack::OUTPUT_LENGTH);
    match get::<u32>(location, stack::CONTROL_CODE) {
        0x22_2000 => {
            if input < 4 || get::<u32>(buffer, 0) >= (*pulse).sources {
                return (STATUS_INVALID_PARAMETER, 0);
            }
            write(pulse, RAISE, 1 << (get::<u32>(buffer, 0) % MAX_SOURCES));
            (STATUS_SUCCESS, 0)
        }
        0x22_2004 => {
            let bytes = 4 * (1 + (*pulse).sources as usize);
            if (output as usize) < bytes {
                return (STATUS_BUFFER_TOO_SMALL, 0);
            }
            let mut snapshot = Snapshot { pulse, total: 0, counts: [0; MAX_SOURCES as usize] };
            KeSynchronizeExecution(any_interrupt(pulse), take_snapshot, (&raw mut snapshot).cast());
            set(buffer, 0, snapshot.total);
            for (i, count) in snapshot.counts.iter().take((*pulse).sources as usize).enumerate() {
                set(buffer, 4 + 4 * i, *count);
            }
            (STATUS_SUCCESS, bytes)
        }
        0x22_2010 => {
            if output < 8 {
                return (STATUS_BUFFER_TOO_SMALL, 0);
            }
            let by_message = (*pulse).version == CONNECT_MESSAGE_BASED;
            set(buffer, 0, (*pulse).version);
            set(buffer, 4, if by_message { get((*pulse).connection, messages::COUNT) } else { 0_u32 });
            (STATUS_SUCCESS, 8)
        }
        _ => (STATUS_INVALID_DEVICE_REQUEST, 0),
    }
}

// ---- The driver's life ----

unsafe extern "system" fn add_device(driver: Ptr, pdo: Ptr) -> NtStatus {
    let name = string(&NAME);
    let link = string(&LINK);
    let mut device = null_mut();
    // FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN. The sample drives one device: a second finds the name taken.
    let status = IoCreateDevice(driver, size_of::<Pulse>() as u32, &name, 0x22, 0x100, 0, &raw mut device);
    if status < 0 {
        return status;
    }
    let pulse = extension(device);
    (*pulse).pdo = pdo;
    IoInitializeRemoveLockEx(&raw mut (*pulse).remove_lock, u32::from_le_bytes(*b"PuRs"), 0, 0, LOCK_SIZE);
    ExInitializeRundownProtection(&raw mut (*pulse).started);
    // Not started: nobody holds it, so this returns at once, and it refuses until it is initialised again.
    ExWaitForRundownProtectionRelease(&raw mut (*pulse).started);
    let status = IoCreateSymbolicLink(&link, &name);
    if status < 0 {
        IoDeleteDevice(device);
        return status;
    }
    (*pulse).lower = IoAttachDeviceToDeviceStack(device, pdo);
    if (*pulse).lower.is_null() {
        IoDeleteSymbolicLink(&link);
        IoDeleteDevice(device);
        return STATUS_NO_SUCH_DEVICE;
    }
    let flags: u32 = get(device, device::FLAGS);
    let wanted = flags | device::DO_BUFFERED_IO | device::DO_POWER_PAGABLE;
    set(device, device::FLAGS, wanted & !device::DO_DEVICE_INITIALIZING);
    STATUS_SUCCESS
}

extern "system" fn unload(_driver: Ptr) {}

type Dispatch = unsafe extern "system" fn(Ptr, Ptr) -> NtStatus;

/// The entry point.
///
/// # Safety
/// For the kernel to call, with the driver's own object.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn DriverEntry(driver: Ptr, _registry_path: Ptr) -> NtStatus {
    let own_extension: Ptr = get(driver, driver::EXTENSION);
    set(own_extension, driver::ADD_DEVICE, add_device as Dispatch);
    set(driver, driver::UNLOAD, unload as extern "system" fn(Ptr));
    let table: [(usize, Dispatch); 7] = [
        (IRP_MJ_CREATE, file),
        (IRP_MJ_CLEANUP, file),
        (IRP_MJ_CLOSE, file),
        (IRP_MJ_DEVICE_CONTROL, control),
        (IRP_MJ_PNP, pnp),
        (IRP_MJ_POWER, power),
        (IRP_MJ_SYSTEM_CONTROL, pass_on),
    ];
    for (major, routine) in table {
        set(driver, driver::MAJOR_FUNCTION + 8 * major, routine);
    }
    STATUS_SUCCESS
}

/// A kernel has nowhere to unwind to.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: callable anywhere. MANUALLY_INITIATED_CRASH1, the code for drivers' own use.
    unsafe { KeBugCheckEx(0xDEAD_DEAD, 0, 0, 0, 0) }
}
