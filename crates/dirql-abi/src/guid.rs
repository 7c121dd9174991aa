//! GUIDs, as drivers hold them in memory and as people write them.

use std::fmt;

/// A GUID; the bytes in memory are the first three fields little-endian, then the last eight as they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// From the fields of `DEFINE_GUID`.
    #[must_use]
    pub const fn new(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
    }

    /// Reads `{1a6a460b-194f-455d-b34b-b84c5b05712b}`, with braces or without, in either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = match text.strip_prefix('{') {
            Some(rest) => rest.strip_suffix('}')?,
            None => text,
        };
        let parts: Vec<&str> = text.split('-').collect();
        if parts.iter().map(|p| p.len()).ne([8, 4, 4, 4, 12])
            || !parts.concat().bytes().all(|b| b.is_ascii_hexdigit())
        {
            return None;
        }
        let number = |i: usize| u64::from_str_radix(parts[i], 16).ok();
        let tail = number(3)? << 48 | number(4)?;
        Some(Self::new(number(0)? as u32, number(1)? as u16, number(2)? as u16, tail.to_be_bytes()))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.0;
        let a = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let (c, d) = (u16::from_le_bytes([b[4], b[5]]), u16::from_le_bytes([b[6], b[7]]));
        write!(f, "{{{a:08x}-{c:04x}-{d:04x}-{:02x}{:02x}-", b[8], b[9])?;
        b[10..].iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str("}")
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// GUID_MSIX_TABLE_CONFIG_INTERFACE (spec 2.6).
pub const MSIX_TABLE_CONFIG_INTERFACE: Guid =
    Guid::new(0x1a6a_460b, 0x194f, 0x455d, [0xb3, 0x4b, 0xb8, 0x4c, 0x5b, 0x05, 0x71, 0x2b]);
/// GUID_BUS_INTERFACE_STANDARD.
pub const BUS_INTERFACE_STANDARD: Guid =
    Guid::new(0x496b_8280, 0x6f25, 0x11d0, [0xbe, 0xaf, 0x08, 0x00, 0x2b, 0xe2, 0x09, 0x2f]);
/// GUID_BUS_TYPE_PCI.
pub const BUS_TYPE_PCI: Guid =
    Guid::new(0xc8eb_dfb0, 0xb510, 0x11d0, [0x80, 0xe5, 0x00, 0xa0, 0xc9, 0x25, 0x42, 0xe3]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes() {
        let text = "{1a6a460b-194f-455d-b34b-b84c5b05712b}";
        assert_eq!(MSIX_TABLE_CONFIG_INTERFACE.to_string(), text);
        assert_eq!(Guid::parse(text), Some(MSIX_TABLE_CONFIG_INTERFACE));
        assert_eq!(Guid::parse(&text[1..37].to_uppercase()), Some(MSIX_TABLE_CONFIG_INTERFACE));
        assert_eq!(MSIX_TABLE_CONFIG_INTERFACE.0[..4], [0x0b, 0x46, 0x6a, 0x1a]);
        for wrong in [
            "",
            "{1a6a460b-194f-455d-b34b-b84c5b05712b",
            "1a6a460b-194f-455d-b34b-b84c5b05712",
            "+a6a460b-194f-455d-b34b-b84c5b05712b",
        ] {
            assert_eq!(Guid::parse(wrong), None, "{wrong}");
        }
    }
}
