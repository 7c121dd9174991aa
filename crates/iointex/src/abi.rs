//! The structures and numbers of the interface, laid out as `wdm.h` does for x64 and x86.
//!
//! Pointers to kernel objects and routines are untyped: this library only passes them on.

use core::ffi::c_void;

/// An untyped pointer.
pub type Ptr = *mut c_void;

/// What a routine answers: below zero is an error.
pub type NtStatus = i32;

/// The routine did what was asked.
pub const STATUS_SUCCESS: NtStatus = 0;
/// A parameter is wrong.
pub const STATUS_INVALID_PARAMETER: NtStatus = 0xC000_000D_u32.cast_signed();
/// This Windows has no such thing.
pub const STATUS_NOT_SUPPORTED: NtStatus = 0xC000_00BB_u32.cast_signed();

/// `Version` of a connect call that states everything about one interrupt; the only one before Windows Vista.
pub const CONNECT_FULLY_SPECIFIED: u32 = 1;
/// `Version` of a connect call to all of a device's lines.
pub const CONNECT_LINE_BASED: u32 = 2;
/// `Version` of a connect call to all of a device's messages.
pub const CONNECT_MESSAGE_BASED: u32 = 3;
/// As [`CONNECT_FULLY_SPECIFIED`], with a processor group; since Windows 7.
pub const CONNECT_FULLY_SPECIFIED_GROUP: u32 = 4;
/// As [`CONNECT_MESSAGE_BASED`], with routines at `PASSIVE_LEVEL`; since Windows 10.
pub const CONNECT_MESSAGE_BASED_PASSIVE: u32 = 5;

/// What `CONNECT_FULLY_SPECIFIED` states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FullySpecified {
    /// The device's physical device object.
    pub physical_device_object: Ptr,
    /// Where the interrupt object's address goes.
    pub interrupt_object: *mut Ptr,
    /// `KSERVICE_ROUTINE`.
    pub service_routine: Ptr,
    /// Passed to the routine.
    pub service_context: Ptr,
    /// `KSPIN_LOCK` of several objects, or null for one of its own.
    pub spin_lock: Ptr,
    /// IRQL the routine runs at.
    pub synchronize_irql: u8,
    /// Save floating point state: must be 0 on x86 and is ignored on x64.
    pub floating_save: u8,
    /// Others may connect to the vector.
    pub share_vector: u8,
    /// From the translated resource.
    pub vector: u32,
    /// From the translated resource.
    pub irql: u8,
    /// `KINTERRUPT_MODE`: 0 level, 1 latched.
    pub interrupt_mode: i32,
    /// From the translated resource.
    pub processor_enable_mask: usize,
}

/// What `CONNECT_FULLY_SPECIFIED_GROUP` states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FullySpecifiedGroup {
    /// As for version 1.
    pub common: FullySpecified,
    /// The group of the processors in the mask.
    pub group: u16,
}

/// What `CONNECT_LINE_BASED` states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LineBased {
    /// The device's physical device object.
    pub physical_device_object: Ptr,
    /// Where the interrupt object's address goes.
    pub interrupt_object: *mut Ptr,
    /// `KSERVICE_ROUTINE`.
    pub service_routine: Ptr,
    /// Passed to the routine.
    pub service_context: Ptr,
    /// `KSPIN_LOCK` of several objects, or null.
    pub spin_lock: Ptr,
    /// IRQL the routine runs at, or 0 for the system's choice.
    pub synchronize_irql: u8,
    /// Save floating point state: must be 0 on x86 and is ignored on x64.
    pub floating_save: u8,
}

/// What `CONNECT_MESSAGE_BASED` and `CONNECT_MESSAGE_BASED_PASSIVE` state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MessageBased {
    /// The device's physical device object.
    pub physical_device_object: Ptr,
    /// Where the message table's address goes, or the interrupt object's when the device has a line after all.
    pub connection_context: *mut Ptr,
    /// `KMESSAGE_SERVICE_ROUTINE`.
    pub message_service_routine: Ptr,
    /// Passed to the routines.
    pub service_context: Ptr,
    /// `KSPIN_LOCK` of several objects, or null.
    pub spin_lock: Ptr,
    /// IRQL the routines run at, or 0 for the system's choice.
    pub synchronize_irql: u8,
    /// Save floating point state: must be 0 on x86 and is ignored on x64.
    pub floating_save: u8,
    /// `KSERVICE_ROUTINE` for a line, or null.
    pub fall_back_service_routine: Ptr,
}

/// The forms of a connect call; `Version` says which.
#[derive(Clone, Copy)]
#[repr(C)]
pub union ConnectForms {
    /// Version 1.
    pub fully_specified: FullySpecified,
    /// Version 4.
    pub fully_specified_group: FullySpecifiedGroup,
    /// Version 2.
    pub line_based: LineBased,
    /// Versions 3 and 5.
    pub message_based: MessageBased,
}

/// `IO_CONNECT_INTERRUPT_PARAMETERS`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ConnectParameters {
    /// A `CONNECT_` number; on return, what was or can be connected.
    pub version: u32,
    /// What to connect.
    pub form: ConnectForms,
}

/// `IO_CONNECT_INTERRUPT_PARAMETERS` as headers before Windows 7 had it, without a group: what there is of every block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OldConnectParameters {
    /// A `CONNECT_` number.
    pub version: u32,
    /// What to connect, when the version is 1.
    pub form: FullySpecified,
}

/// `IO_DISCONNECT_INTERRUPT_PARAMETERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DisconnectParameters {
    /// The `Version` that the connect call returned.
    pub version: u32,
    /// What the connect call gave: an interrupt object or a message table.
    pub connection_context: Ptr,
}

/// `GROUP_AFFINITY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GroupAffinity {
    /// Processors of the group.
    pub mask: usize,
    /// The group.
    pub group: u16,
    /// Zero.
    pub reserved: [u16; 3],
}

/// The offsets of spec 2.1 and 2.2, which are the C compiler's.
const _: () = {
    use core::mem::{offset_of, size_of};
    const fn pick(x64: usize, x86: usize) -> usize {
        if size_of::<usize>() == 8 { x64 } else { x86 }
    }
    assert!(size_of::<ConnectParameters>() == pick(80, 48));
    assert!(size_of::<OldConnectParameters>() == pick(72, 44));
    assert!(size_of::<FullySpecifiedGroup>() == pick(72, 44));
    assert!(size_of::<LineBased>() == pick(48, 24));
    assert!(size_of::<MessageBased>() == pick(56, 28));
    assert!(size_of::<DisconnectParameters>() == pick(16, 8));
    assert!(size_of::<GroupAffinity>() == pick(16, 12));
    let base = offset_of!(ConnectParameters, form);
    assert!(base == pick(8, 4));
    assert!(base + offset_of!(FullySpecified, spin_lock) == pick(40, 20));
    assert!(base + offset_of!(FullySpecified, synchronize_irql) == pick(48, 24));
    assert!(base + offset_of!(FullySpecified, share_vector) == pick(50, 26));
    assert!(base + offset_of!(FullySpecified, vector) == pick(52, 28));
    assert!(base + offset_of!(FullySpecified, irql) == pick(56, 32));
    assert!(base + offset_of!(FullySpecified, interrupt_mode) == pick(60, 36));
    assert!(base + offset_of!(FullySpecified, processor_enable_mask) == pick(64, 40));
    assert!(base + offset_of!(FullySpecifiedGroup, group) == pick(72, 44));
    assert!(offset_of!(OldConnectParameters, form) == base);
    assert!(base + offset_of!(MessageBased, fall_back_service_routine) == pick(56, 28));
    assert!(offset_of!(DisconnectParameters, connection_context) == pick(8, 4));
};
