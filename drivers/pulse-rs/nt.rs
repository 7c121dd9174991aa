//! The kernel as Rust sees it: the parts of `wdm.h` that the driver uses, for x64, as raw bindings.
//!
//! Structures of the kernel are named by the offsets of their members only, since most of each is not the driver's.
#![expect(unsafe_code, reason = "the declarations of kernel routines")]
#![allow(non_snake_case)]

use core::ffi::c_void;

pub type Ptr = *mut c_void;
pub type NtStatus = i32;

pub const STATUS_SUCCESS: NtStatus = 0;
pub const STATUS_INVALID_PARAMETER: NtStatus = 0xC000_000D_u32 as i32;
pub const STATUS_INVALID_DEVICE_REQUEST: NtStatus = 0xC000_0010_u32 as i32;
pub const STATUS_BUFFER_TOO_SMALL: NtStatus = 0xC000_0023_u32 as i32;
pub const STATUS_DEVICE_NOT_READY: NtStatus = 0xC000_00A3_u32 as i32;
pub const STATUS_NO_SUCH_DEVICE: NtStatus = 0xC000_000E_u32 as i32;
pub const STATUS_DEVICE_CONFIGURATION_ERROR: NtStatus = 0xC000_0182_u32 as i32;

pub const IRP_MJ_CREATE: usize = 0x00;
pub const IRP_MJ_CLOSE: usize = 0x02;
pub const IRP_MJ_DEVICE_CONTROL: usize = 0x0e;
pub const IRP_MJ_CLEANUP: usize = 0x12;
pub const IRP_MJ_POWER: usize = 0x16;
pub const IRP_MJ_SYSTEM_CONTROL: usize = 0x17;
pub const IRP_MJ_PNP: usize = 0x1b;

/// `DRIVER_OBJECT`.
pub mod driver {
    pub const EXTENSION: usize = 0x30;
    pub const UNLOAD: usize = 0x68;
    pub const MAJOR_FUNCTION: usize = 0x70;
    /// In `DRIVER_EXTENSION`.
    pub const ADD_DEVICE: usize = 0x08;
}

/// `DEVICE_OBJECT`.
pub mod device {
    pub const FLAGS: usize = 0x30;
    pub const EXTENSION: usize = 0x40;
    pub const DO_BUFFERED_IO: u32 = 0x04;
    pub const DO_DEVICE_INITIALIZING: u32 = 0x80;
    pub const DO_POWER_PAGABLE: u32 = 0x2000;
}

/// `IRP`.
pub mod irp {
    pub const SYSTEM_BUFFER: usize = 0x18;
    pub const STATUS: usize = 0x30;
    pub const INFORMATION: usize = 0x38;
    pub const CURRENT_LOCATION: usize = 0x43;
    pub const STACK: usize = 0xb8;
}

/// `IO_STACK_LOCATION`.
pub mod stack {
    pub const SIZE: usize = 0x48;
    pub const MINOR: usize = 0x01;
    pub const OUTPUT_LENGTH: usize = 0x08;
    pub const INPUT_LENGTH: usize = 0x10;
    pub const CONTROL_CODE: usize = 0x18;
    pub const TRANSLATED: usize = 0x10;
}

/// `CM_RESOURCE_LIST`: the first partial list's count, its descriptors and their members.
pub mod resources {
    pub const COUNT: usize = 0x10;
    pub const FIRST: usize = 0x14;
    pub const SIZE: usize = 20;
    pub const TYPE_MEMORY: u8 = 3;
    pub const START: usize = 4;
    pub const LENGTH: usize = 12;
}

/// `UNICODE_STRING`.
#[repr(C)]
pub struct UnicodeString {
    pub length: u16,
    pub maximum_length: u16,
    pub buffer: *const u16,
}

/// `IO_REMOVE_LOCK` of a free build.
#[repr(C, align(8))]
pub struct RemoveLock([u8; 32]);

pub type ServiceRoutine = extern "system" fn(Ptr, Ptr) -> u8;
pub type MessageServiceRoutine = extern "system" fn(Ptr, Ptr, u32) -> u8;

/// What `version` is when messages were connected; a fallback to the line leaves 2 there.
pub const CONNECT_MESSAGE_BASED: u32 = 3;

/// `IO_CONNECT_INTERRUPT_PARAMETERS` in its message-based form; as long as the longest form.
#[repr(C)]
pub struct ConnectMessageBased {
    pub version: u32,
    pub physical_device_object: Ptr,
    pub connection_context: *mut Ptr,
    pub message_service_routine: MessageServiceRoutine,
    pub service_context: Ptr,
    pub spin_lock: *mut usize,
    pub synchronize_irql: u8,
    pub floating_save: u8,
    pub fall_back_service_routine: ServiceRoutine,
    pub unused: [u64; 2],
}

/// `IO_DISCONNECT_INTERRUPT_PARAMETERS`.
#[repr(C)]
pub struct Disconnect {
    pub version: u32,
    pub connection_context: Ptr,
}

/// `IO_INTERRUPT_MESSAGE_INFO`: the count, and the first message's interrupt object.
pub mod messages {
    pub const COUNT: usize = 4;
    pub const FIRST_OBJECT: usize = 8 + 16;
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<ConnectMessageBased>() == 80);
    assert!(offset_of!(ConnectMessageBased, synchronize_irql) == 48);
    assert!(offset_of!(ConnectMessageBased, fall_back_service_routine) == 56);
    assert!(offset_of!(Disconnect, connection_context) == 8);
};

unsafe extern "system" {
    pub fn ExAcquireRundownProtection(reference: *mut usize) -> u8;
    pub fn ExInitializeRundownProtection(reference: *mut usize);
    pub fn ExReInitializeRundownProtection(reference: *mut usize);
    pub fn ExReleaseRundownProtection(reference: *mut usize);
    pub fn ExWaitForRundownProtectionRelease(reference: *mut usize);
    pub fn IoAcquireRemoveLockEx(lock: *mut RemoveLock, tag: Ptr, file: *const u8, line: u32, size: u32) -> NtStatus;
    pub fn IoAttachDeviceToDeviceStack(device: Ptr, to: Ptr) -> Ptr;
    pub fn IoConnectInterruptEx(parameters: *mut ConnectMessageBased) -> NtStatus;
    pub fn IoCreateDevice(
        driver: Ptr, extension_size: u32, name: *const UnicodeString, kind: u32, characteristics: u32, exclusive: u8,
        device: *mut Ptr,
    ) -> NtStatus;
    pub fn IoCreateSymbolicLink(link: *const UnicodeString, name: *const UnicodeString) -> NtStatus;
    pub fn IoDeleteDevice(device: Ptr);
    pub fn IoDeleteSymbolicLink(link: *const UnicodeString) -> NtStatus;
    pub fn IoDetachDevice(lower: Ptr);
    pub fn IoDisconnectInterruptEx(parameters: *const Disconnect);
    pub fn IoForwardIrpSynchronously(device: Ptr, irp: Ptr) -> u8;
    pub fn IoInitializeRemoveLockEx(lock: *mut RemoveLock, tag: u32, minutes: u32, high: u32, size: u32);
    pub fn IoReleaseRemoveLockAndWaitEx(lock: *mut RemoveLock, tag: Ptr, size: u32);
    pub fn IoReleaseRemoveLockEx(lock: *mut RemoveLock, tag: Ptr, size: u32);
    pub fn IofCallDriver(device: Ptr, irp: Ptr) -> NtStatus;
    pub fn IofCompleteRequest(irp: Ptr, boost: u8);
    pub fn KeBugCheckEx(code: u32, a: usize, b: usize, c: usize, d: usize) -> !;
    pub fn KeSynchronizeExecution(interrupt: Ptr, routine: extern "system" fn(Ptr) -> u8, context: Ptr) -> u8;
    pub fn MmMapIoSpace(at: u64, bytes: usize, cache: u32) -> Ptr;
    pub fn MmUnmapIoSpace(at: Ptr, bytes: usize);
    pub fn PoCallDriver(device: Ptr, irp: Ptr) -> NtStatus;
    pub fn PoStartNextPowerIrp(irp: Ptr);
}
