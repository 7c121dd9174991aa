//! Bug check codes, as constants and by name.

macro_rules! bugchecks {
    ($($name:ident = $value:literal;)*) => {
        $(
            #[doc = concat!("`", stringify!($value), "`")]
            pub const $name: u32 = $value;
        )*
        pub(super) const TABLE: &[(u32, &str)] = &[$(($value, stringify!($name))),*];
    };
}
use bugchecks;

mod table;

pub use table::*;

/// The symbolic name of a bug check code.
#[must_use]
pub fn bugcheck_name(code: u32) -> Option<&'static str> {
    let first = table::TABLE.partition_point(|&(value, _)| value < code);
    table::TABLE.get(first).filter(|&&(value, _)| value == code).map(|&(_, name)| name)
}

/// The code of a symbolic name, matched exactly (`DRIVER_IRQL_NOT_LESS_OR_EQUAL`).
#[must_use]
pub fn bugcheck_from_name(name: &str) -> Option<u32> {
    table::TABLE.iter().find(|&&(_, n)| n == name).map(|&(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code spec section 7 names has a name, and the well-known ones the right one.
    #[test]
    fn codes_of_the_rules_have_names() {
        assert!(table::TABLE.windows(2).all(|w| w[0].0 <= w[1].0));
        for code in [
            0x9, 0xA, 0xF, 0x12, 0x19, 0x1E, 0x35, 0x3B, 0x3C, 0x3D, 0x44, 0x49, 0x50, 0x7E, 0x7F, 0x9F,
            0xB8, 0xC1, 0xC2, 0xC4, 0xC5, 0xC7, 0xC8, 0xC9, 0xCA, 0xCB, 0xCE, 0xD1, 0xD3, 0xD4, 0xD5, 0xD6,
            0xE3, 0xF2, 0xFC, 0x101, 0x102, 0x10D, 0x110, 0x121, 0x12B, 0x133, 0x139, 0x13B,
        ] {
            assert!(bugcheck_name(code).is_some(), "{code:#x}");
        }
        assert_eq!(bugcheck_name(0xD1), Some("DRIVER_IRQL_NOT_LESS_OR_EQUAL"));
        assert_eq!(bugcheck_name(0xF2), Some("HARDWARE_INTERRUPT_STORM"));
        assert_eq!(bugcheck_name(0x13B), Some("PASSIVE_INTERRUPT_ERROR"));
        assert_eq!(bugcheck_from_name("ATTEMPTED_SWITCH_FROM_DPC"), Some(0xB8));
        assert_eq!(bugcheck_name(0x00AB_CDEF), None);
    }
}
