//! The running kernel: the only part with unsafe code, which is the calls across the C interface.
//!
//! The real routines are looked up once and remembered, because `MmGetSystemRoutineAddress` may be called at
//! `PASSIVE_LEVEL` only and `IoGetAffinityInterrupt` at any IRQL. Two processors that look up at once find the same.
#![expect(unsafe_code, reason = "the C interface: raw pointers in, kernel routines out")]

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::abi::{
    ConnectParameters, DisconnectParameters, FullySpecified, GroupAffinity, NtStatus, OldConnectParameters,
    Ptr, STATUS_INVALID_PARAMETER,
};
use crate::connect::{self, Kernel};

/// `UNICODE_STRING`.
#[repr(C)]
struct UnicodeString {
    length: u16,
    maximum_length: u16,
    buffer: *const u16,
}

unsafe extern "system" {
    fn MmGetSystemRoutineAddress(name: *const UnicodeString) -> Ptr;
    fn IoConnectInterrupt(
        interrupt_object: *mut Ptr,
        service_routine: Ptr,
        service_context: Ptr,
        spin_lock: Ptr,
        vector: u32,
        irql: u8,
        synchronize_irql: u8,
        interrupt_mode: i32,
        share_vector: u8,
        processor_enable_mask: usize,
        floating_save: u8,
    ) -> NtStatus;
    fn IoDisconnectInterrupt(interrupt_object: Ptr);
}

type ConnectEx = unsafe extern "system" fn(*mut OldConnectParameters) -> NtStatus;
type DisconnectEx = unsafe extern "system" fn(*const DisconnectParameters);
type GetAffinity = unsafe extern "system" fn(Ptr, *mut GroupAffinity) -> NtStatus;

/// A routine that newer kernels export.
struct Routine<const N: usize> {
    name: [u16; N],
    /// Its address; null while not looked up, or [`absent`].
    found: AtomicPtr<core::ffi::c_void>,
}

static CONNECT_EX: Routine<20> = Routine::new(b"IoConnectInterruptEx");
static DISCONNECT_EX: Routine<23> = Routine::new(b"IoDisconnectInterruptEx");
static GET_AFFINITY: Routine<22> = Routine::new(b"IoGetAffinityInterrupt");

/// What is remembered of a routine that the kernel lacks: no address of code.
fn absent() -> Ptr {
    core::ptr::without_provenance_mut(1)
}

impl<const N: usize> Routine<N> {
    const fn new(ascii: &[u8; N]) -> Self {
        let mut name = [0; N];
        let mut i = 0;
        while i < N {
            name[i] = ascii[i] as u16;
            i += 1;
        }
        Self { name, found: AtomicPtr::new(null_mut()) }
    }

    /// The routine's address, if this kernel has it.
    fn get(&self) -> Option<Ptr> {
        let mut found = self.found.load(Ordering::Relaxed);
        if found.is_null() {
            let bytes = (N * 2) as u16;
            let name = UnicodeString { length: bytes, maximum_length: bytes, buffer: self.name.as_ptr() };
            // SAFETY: the string lives through the call, which reads `length` bytes of it.
            found = unsafe { MmGetSystemRoutineAddress(&raw const name) };
            if found.is_null() {
                found = absent();
            }
            self.found.store(found, Ordering::Relaxed);
        }
        (found != absent()).then_some(found)
    }
}

struct Running;

impl Kernel for Running {
    fn connect_ex(&self, block: &mut OldConnectParameters) -> Option<NtStatus> {
        let routine = CONNECT_EX.get()?;
        // SAFETY: this address is the kernel's routine of that name, whose documented type this is.
        let routine = unsafe { core::mem::transmute::<Ptr, ConnectEx>(routine) };
        // SAFETY: the block is the driver's, handed on as it came.
        Some(unsafe { routine(block) })
    }

    fn disconnect_ex(&self, parameters: &DisconnectParameters) -> Option<()> {
        let routine = DISCONNECT_EX.get()?;
        // SAFETY: as in `connect_ex`.
        let routine = unsafe { core::mem::transmute::<Ptr, DisconnectEx>(routine) };
        // SAFETY: the block is the driver's, handed on as it came.
        unsafe { routine(parameters) };
        Some(())
    }

    fn get_affinity(&self, interrupt: Ptr, affinity: &mut GroupAffinity) -> Option<NtStatus> {
        let routine = GET_AFFINITY.get()?;
        // SAFETY: as in `connect_ex`.
        let routine = unsafe { core::mem::transmute::<Ptr, GetAffinity>(routine) };
        // SAFETY: the object is the driver's to answer for; the affinity may be written.
        Some(unsafe { routine(interrupt, affinity) })
    }

    fn connect(&self, r: &FullySpecified) -> NtStatus {
        // SAFETY: every kernel has the routine; the pointers are the driver's, handed on as they came.
        unsafe {
            IoConnectInterrupt(
                r.interrupt_object,
                r.service_routine,
                r.service_context,
                r.spin_lock,
                r.vector,
                r.irql,
                r.synchronize_irql,
                r.interrupt_mode,
                r.share_vector,
                r.processor_enable_mask,
                r.floating_save,
            )
        }
    }

    fn disconnect(&self, interrupt: Ptr) {
        // SAFETY: every kernel has the routine; the object is one that `connect` gave the driver.
        unsafe { IoDisconnectInterrupt(interrupt) };
    }
}

/// Connects an interrupt; see [`connect::connect`]. A null block is answered with `STATUS_INVALID_PARAMETER`.
///
/// IRQL: `PASSIVE_LEVEL`.
///
/// # Safety
/// `parameters` is null or points to a block of which the form named by its `version` is filled in. A block of a
/// version before 4 may lack the group at its end, as in headers before Windows 7.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn WdmlibIoConnectInterruptEx(parameters: *mut ConnectParameters) -> NtStatus {
    let _ = GET_AFFINITY.get(); // while the IRQL allows it
    // SAFETY: the caller's promise. Every block begins as the old one, so that the reference spans no more than there is.
    let Some(block) = (unsafe { parameters.cast::<OldConnectParameters>().as_mut() }) else {
        return STATUS_INVALID_PARAMETER;
    };
    connect::connect(&Running, block)
}

/// Disconnects an interrupt; see [`connect::disconnect`]. A null block does nothing.
///
/// IRQL: `PASSIVE_LEVEL`.
///
/// # Safety
/// `parameters` is null or points to what a connect call gave, once.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn WdmlibIoDisconnectInterruptEx(parameters: *const DisconnectParameters) {
    // SAFETY: the caller's promise.
    if let Some(parameters) = unsafe { parameters.as_ref() } {
        connect::disconnect(&Running, parameters);
    }
}

/// The processors of an interrupt object; see [`connect::get_affinity`]. A null result pointer is answered with
/// `STATUS_INVALID_PARAMETER`.
///
/// IRQL: any, once an interrupt was connected through this library; else `PASSIVE_LEVEL`, for the look-up.
///
/// # Safety
/// `interrupt` is a connected interrupt object; `affinity` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn WdmlibIoGetAffinityInterrupt(
    interrupt: Ptr,
    affinity: *mut GroupAffinity,
) -> NtStatus {
    // SAFETY: the caller's promise.
    let Some(affinity) = (unsafe { affinity.as_mut() }) else { return STATUS_INVALID_PARAMETER };
    connect::get_affinity(&Running, interrupt, affinity)
}
