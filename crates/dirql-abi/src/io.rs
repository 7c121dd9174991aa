//! I/O constants: major and minor function names, I/O control codes, and the flag bits the I/O manager and drivers share.

/// How the I/O manager passes an I/O control request's buffers (the low two bits of the code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// METHOD_BUFFERED: one system buffer for input and output.
    Buffered,
    /// METHOD_IN_DIRECT: input in a system buffer, the output buffer as an MDL probed for reading.
    InDirect,
    /// METHOD_OUT_DIRECT: input in a system buffer, the output buffer as an MDL probed for writing.
    OutDirect,
    /// METHOD_NEITHER: user addresses as they are.
    Neither,
}

/// An I/O control code taken apart (`CTL_CODE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlCode {
    /// Bits 16 to 31.
    pub device_type: u16,
    /// Bits 14 and 15: 0 any, 1 read, 2 write, 3 both.
    pub access: u8,
    /// Bits 2 to 13.
    pub function: u16,
    /// Bits 0 and 1.
    pub method: Method,
}

impl ControlCode {
    /// Takes a code apart; every number is one.
    #[must_use]
    pub const fn decode(code: u32) -> Self {
        Self {
            device_type: (code >> 16) as u16,
            access: (code >> 14 & 3) as u8,
            function: (code >> 2 & 0xfff) as u16,
            method: match code & 3 {
                0 => Method::Buffered,
                1 => Method::InDirect,
                2 => Method::OutDirect,
                _ => Method::Neither,
            },
        }
    }
}

macro_rules! codes {
    ($(#[$doc:meta])* $lookup:ident: $($name:ident = $value:literal,)*) => {
        $(
            #[doc = concat!("`", stringify!($value), "`")]
            pub const $name: u8 = $value;
        )*
        $(#[$doc])*
        #[must_use]
        pub fn $lookup(code: u8) -> Option<&'static str> {
            [$(($value, stringify!($name))),*].into_iter().find(|&(v, _)| v == code).map(|(_, n)| n)
        }
    };
}

codes! {
    /// The name of a major function code.
    major_name:
    IRP_MJ_CREATE = 0x00,
    IRP_MJ_CREATE_NAMED_PIPE = 0x01,
    IRP_MJ_CLOSE = 0x02,
    IRP_MJ_READ = 0x03,
    IRP_MJ_WRITE = 0x04,
    IRP_MJ_QUERY_INFORMATION = 0x05,
    IRP_MJ_SET_INFORMATION = 0x06,
    IRP_MJ_QUERY_EA = 0x07,
    IRP_MJ_SET_EA = 0x08,
    IRP_MJ_FLUSH_BUFFERS = 0x09,
    IRP_MJ_QUERY_VOLUME_INFORMATION = 0x0a,
    IRP_MJ_SET_VOLUME_INFORMATION = 0x0b,
    IRP_MJ_DIRECTORY_CONTROL = 0x0c,
    IRP_MJ_FILE_SYSTEM_CONTROL = 0x0d,
    IRP_MJ_DEVICE_CONTROL = 0x0e,
    IRP_MJ_INTERNAL_DEVICE_CONTROL = 0x0f,
    IRP_MJ_SHUTDOWN = 0x10,
    IRP_MJ_LOCK_CONTROL = 0x11,
    IRP_MJ_CLEANUP = 0x12,
    IRP_MJ_CREATE_MAILSLOT = 0x13,
    IRP_MJ_QUERY_SECURITY = 0x14,
    IRP_MJ_SET_SECURITY = 0x15,
    IRP_MJ_POWER = 0x16,
    IRP_MJ_SYSTEM_CONTROL = 0x17,
    IRP_MJ_DEVICE_CHANGE = 0x18,
    IRP_MJ_QUERY_QUOTA = 0x19,
    IRP_MJ_SET_QUOTA = 0x1a,
    IRP_MJ_PNP = 0x1b,
}

/// The largest major function code; the dispatch table has one more entry.
pub const IRP_MJ_MAXIMUM_FUNCTION: u8 = 0x1b;

codes! {
    /// The name of a minor function code of IRP_MJ_PNP.
    pnp_minor_name:
    IRP_MN_START_DEVICE = 0x00,
    IRP_MN_QUERY_REMOVE_DEVICE = 0x01,
    IRP_MN_REMOVE_DEVICE = 0x02,
    IRP_MN_CANCEL_REMOVE_DEVICE = 0x03,
    IRP_MN_STOP_DEVICE = 0x04,
    IRP_MN_QUERY_STOP_DEVICE = 0x05,
    IRP_MN_CANCEL_STOP_DEVICE = 0x06,
    IRP_MN_QUERY_DEVICE_RELATIONS = 0x07,
    IRP_MN_QUERY_INTERFACE = 0x08,
    IRP_MN_QUERY_CAPABILITIES = 0x09,
    IRP_MN_QUERY_RESOURCES = 0x0a,
    IRP_MN_QUERY_RESOURCE_REQUIREMENTS = 0x0b,
    IRP_MN_QUERY_DEVICE_TEXT = 0x0c,
    IRP_MN_FILTER_RESOURCE_REQUIREMENTS = 0x0d,
    IRP_MN_READ_CONFIG = 0x0f,
    IRP_MN_WRITE_CONFIG = 0x10,
    IRP_MN_EJECT = 0x11,
    IRP_MN_SET_LOCK = 0x12,
    IRP_MN_QUERY_ID = 0x13,
    IRP_MN_QUERY_PNP_DEVICE_STATE = 0x14,
    IRP_MN_QUERY_BUS_INFORMATION = 0x15,
    IRP_MN_DEVICE_USAGE_NOTIFICATION = 0x16,
    IRP_MN_SURPRISE_REMOVAL = 0x17,
    IRP_MN_DEVICE_ENUMERATED = 0x19,
}

codes! {
    /// The name of a minor function code of IRP_MJ_POWER.
    power_minor_name:
    IRP_MN_WAIT_WAKE = 0x00,
    IRP_MN_POWER_SEQUENCE = 0x01,
    IRP_MN_SET_POWER = 0x02,
    IRP_MN_QUERY_POWER = 0x03,
}

/// The name of a request: the minor function where it has a name of its own, else the major function.
#[must_use]
pub fn request_name(major: u8, minor: u8) -> Option<&'static str> {
    match major {
        IRP_MJ_PNP => pnp_minor_name(minor),
        IRP_MJ_POWER => power_minor_name(minor),
        _ => None,
    }
    .or_else(|| major_name(major))
}

/// Bits of `DEVICE_OBJECT.Flags`.
pub mod device_flags {
    /// DO_BUFFERED_IO.
    pub const BUFFERED_IO: u32 = 0x4;
    /// DO_EXCLUSIVE.
    pub const EXCLUSIVE: u32 = 0x8;
    /// DO_DIRECT_IO.
    pub const DIRECT_IO: u32 = 0x10;
    /// DO_DEVICE_HAS_NAME.
    pub const DEVICE_HAS_NAME: u32 = 0x40;
    /// DO_DEVICE_INITIALIZING.
    pub const DEVICE_INITIALIZING: u32 = 0x80;
    /// DO_BUS_ENUMERATED_DEVICE.
    pub const BUS_ENUMERATED_DEVICE: u32 = 0x1000;
    /// DO_POWER_PAGABLE.
    pub const POWER_PAGABLE: u32 = 0x2000;
    /// DO_POWER_INRUSH.
    pub const POWER_INRUSH: u32 = 0x4000;
}

/// Bits of `IO_STACK_LOCATION.Control`.
pub mod stack_control {
    /// SL_PENDING_RETURNED.
    pub const PENDING_RETURNED: u8 = 0x01;
    /// SL_ERROR_RETURNED.
    pub const ERROR_RETURNED: u8 = 0x02;
    /// SL_INVOKE_ON_CANCEL.
    pub const INVOKE_ON_CANCEL: u8 = 0x20;
    /// SL_INVOKE_ON_SUCCESS.
    pub const INVOKE_ON_SUCCESS: u8 = 0x40;
    /// SL_INVOKE_ON_ERROR.
    pub const INVOKE_ON_ERROR: u8 = 0x80;
}

/// Bits of `MDL.MdlFlags`.
pub mod mdl_flags {
    /// MDL_MAPPED_TO_SYSTEM_VA.
    pub const MAPPED_TO_SYSTEM_VA: u16 = 0x0001;
    /// MDL_PAGES_LOCKED.
    pub const PAGES_LOCKED: u16 = 0x0002;
    /// MDL_SOURCE_IS_NONPAGED_POOL.
    pub const SOURCE_IS_NONPAGED_POOL: u16 = 0x0004;
    /// MDL_ALLOCATED_FIXED_SIZE.
    pub const ALLOCATED_FIXED_SIZE: u16 = 0x0008;
    /// MDL_PARTIAL.
    pub const PARTIAL: u16 = 0x0010;
    /// MDL_IO_SPACE.
    pub const IO_SPACE: u16 = 0x0800;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_codes() {
        let code = ControlCode::decode(0x0022_2003);
        assert_eq!(
            code,
            ControlCode { device_type: 0x22, access: 0, function: 0x800, method: Method::Neither }
        );
        assert_eq!(ControlCode::decode(0x0022_e004).access, 3);
    }

    #[test]
    fn request_names() {
        assert_eq!(request_name(0x1b, 0), Some("IRP_MN_START_DEVICE"));
        assert_eq!(request_name(0x16, 2), Some("IRP_MN_SET_POWER"));
        assert_eq!(request_name(0x0e, 0), Some("IRP_MJ_DEVICE_CONTROL"));
        assert_eq!(request_name(0x1b, 0x77), Some("IRP_MJ_PNP"));
        assert_eq!(request_name(0x1c, 0), None);
    }
}
