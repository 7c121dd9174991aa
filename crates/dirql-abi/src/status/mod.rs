//! NTSTATUS values, as constants and by name. An NTSTATUS is kept as `u32` here: its top two bits are the severity.

macro_rules! statuses {
    ($($name:ident = $value:literal;)*) => {
        $(
            #[doc = concat!("`", stringify!($value), "`")]
            pub const $name: u32 = $value;
        )*
        pub(super) const TABLE: &[(u32, &str)] = &[$(($value, stringify!($name))),*];
    };
}
use statuses;

mod table;

pub use table::*;

/// What the top two bits of a status say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// `NT_SUCCESS`.
    Success,
    /// `NT_INFORMATION`, also a success.
    Informational,
    /// `NT_WARNING`, not a success.
    Warning,
    /// `NT_ERROR`.
    Error,
}

/// The severity of a status.
#[must_use]
pub const fn severity(status: u32) -> Severity {
    match status >> 30 {
        0 => Severity::Success,
        1 => Severity::Informational,
        2 => Severity::Warning,
        _ => Severity::Error,
    }
}

/// `NT_SUCCESS(status)`: success or informational.
#[must_use]
pub const fn nt_success(status: u32) -> bool {
    status < 0x8000_0000
}

/// The symbolic name of a status; where Windows has several for one value, the plainest.
#[must_use]
pub fn status_name(status: u32) -> Option<&'static str> {
    let first = table::TABLE.partition_point(|&(value, _)| value < status);
    table::TABLE.get(first).filter(|&&(value, _)| value == status).map(|&(_, name)| name)
}

/// The value of a symbolic name, matched exactly (`STATUS_PENDING`).
#[must_use]
pub fn status_from_name(name: &str) -> Option<u32> {
    table::TABLE.iter().find(|&&(_, n)| n == name).map(|&(value, _)| value)
}

/// Every name, for suggesting the nearest one.
pub fn names() -> impl Iterator<Item = &'static str> {
    table::TABLE.iter().map(|&(_, name)| name)
}

/// A status as people read it: `STATUS_PENDING (0x00000103)`, or the number alone.
#[must_use]
pub fn describe(status: u32) -> String {
    match status_name(status) {
        Some(name) => format!("{name} ({status:#010x})"),
        None => format!("{status:#010x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_names_are_unique() {
        assert!(table::TABLE.windows(2).all(|w| w[0].0 <= w[1].0));
        let mut all: Vec<_> = names().collect();
        let n = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), n);
    }

    /// The values spec 1.6 lists, and the usual ones of the driver headers.
    #[test]
    fn known_values() {
        for (name, value) in [
            ("STATUS_SUCCESS", 0),
            ("STATUS_UNSUCCESSFUL", 0xC000_0001),
            ("STATUS_INVALID_PARAMETER", 0xC000_000D),
            ("STATUS_INVALID_DEVICE_REQUEST", 0xC000_0010),
            ("STATUS_NOT_FOUND", 0xC000_0225),
            ("STATUS_INTERRUPT_VECTOR_ALREADY_CONNECTED", 0x127),
            ("STATUS_INTERRUPT_STILL_CONNECTED", 0x128),
            ("STATUS_INSUFFICIENT_RESOURCES", 0xC000_009A),
            ("STATUS_NOT_SUPPORTED", 0xC000_00BB),
            ("STATUS_INVALID_PARAMETER_1", 0xC000_00EF),
            ("STATUS_INVALID_PARAMETER_10", 0xC000_00F8),
            ("STATUS_ALREADY_DISCONNECTED", 0x8000_0025),
            ("STATUS_PENDING", 0x103),
            ("STATUS_TIMEOUT", 0x102),
            ("STATUS_MORE_PROCESSING_REQUIRED", 0xC000_0016),
            ("STATUS_DELETE_PENDING", 0xC000_0056),
            ("STATUS_CANCELLED", 0xC000_0120),
        ] {
            assert_eq!(status_from_name(name), Some(value), "{name}");
            assert_eq!(status_name(value), Some(name));
        }
        assert_eq!(status_name(0xDEAD_0001), None);
        assert_eq!(describe(STATUS_PENDING), "STATUS_PENDING (0x00000103)");
        assert!(nt_success(STATUS_PENDING) && !nt_success(STATUS_ALREADY_DISCONNECTED));
        assert_eq!(severity(STATUS_ALREADY_DISCONNECTED), Severity::Warning);
    }
}
