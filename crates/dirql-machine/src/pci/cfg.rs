//! The 256 bytes of a type 0 configuration header, with what software may write in them.
//!
//! After PCI Local Bus Specification 3.0, chapter 6. A write mask for each byte gives read-only fields, and with
//! it the BAR sizing protocol: address bits below the size are not writable, so writing all ones reads back the
//! size. Left out: the expansion ROM, BIST, the extended space of PCI Express (reads past 255 are all ones).

/// Offset of the command register.
pub const COMMAND: u16 = 0x04;
/// Offset of the status register.
pub const STATUS: u16 = 0x06;
/// Offset of the first BAR.
pub const BAR0: u16 = 0x10;
/// Offset of the capability pointer.
pub const CAP_PTR: u16 = 0x34;
/// Offset of the interrupt line register.
pub const INT_LINE: u16 = 0x3c;
/// Offset of the interrupt pin register.
pub const INT_PIN: u16 = 0x3d;

/// Command: I/O space decode.
pub const CMD_IO: u16 = 1;
/// Command: memory space decode.
pub const CMD_MEMORY: u16 = 2;
/// Command: bus master.
pub const CMD_MASTER: u16 = 4;
/// Command: INTx disable.
pub const CMD_INTX_DISABLE: u16 = 1 << 10;
/// Status: an INTx is pending inside the function.
pub const STATUS_INTX: u16 = 1 << 3;
/// Status: there is a capability list.
pub const STATUS_CAPS: u16 = 1 << 4;

/// The bytes of one function and which of their bits software may change.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    data: [u8; 256],
    writable: [u8; 256],
    /// Where the next capability goes, and where its predecessor keeps its link.
    next_cap: u16,
    link: u16,
}

impl Default for ConfigSpace {
    fn default() -> Self {
        ConfigSpace { data: [0; 256], writable: [0; 256], next_cap: 0x40, link: CAP_PTR }
    }
}

impl ConfigSpace {
    /// Reads `size` (1, 2 or 4) bytes. Bytes past the header read as ones.
    pub fn read(&self, offset: u16, size: u8) -> u32 {
        let mut value = 0u32;
        for i in 0..u16::from(size.min(4)) {
            let byte = self.data.get(usize::from(offset.saturating_add(i))).copied().unwrap_or(0xff);
            value |= u32::from(byte) << (8 * i);
        }
        value
    }

    /// A write by software: only writable bits change.
    pub fn write(&mut self, offset: u16, size: u8, value: u32) {
        for i in 0..size.min(4) {
            let at = usize::from(offset.saturating_add(u16::from(i)));
            let (Some(byte), Some(mask)) = (self.data.get_mut(at), self.writable.get(at)) else { return };
            let new = value.to_le_bytes()[usize::from(i)];
            *byte = (*byte & !mask) | (new & mask);
        }
    }

    /// Sets bytes as the hardware does, whatever the write mask says. `offset + size` must lie in the header.
    pub fn set(&mut self, offset: u16, size: u8, value: u32) {
        for i in 0..size.min(4) {
            if let Some(byte) = self.data.get_mut(usize::from(offset) + usize::from(i)) {
                *byte = value.to_le_bytes()[usize::from(i)];
            }
        }
    }

    /// Says which bits of a field software may write.
    pub fn allow(&mut self, offset: u16, size: u8, mask: u32) {
        for i in 0..size.min(4) {
            if let Some(byte) = self.writable.get_mut(usize::from(offset) + usize::from(i)) {
                *byte = mask.to_le_bytes()[usize::from(i)];
            }
        }
    }

    /// Adds a capability of `len` bytes with this id to the end of the list and gives its offset. The first use
    /// sets the status bit. `None` when the header is full.
    pub fn add_capability(&mut self, id: u8, len: u16) -> Option<u16> {
        let at = self.next_cap;
        if at.checked_add(len)? > 256 {
            return None;
        }
        let status = self.read(STATUS, 2) | u32::from(STATUS_CAPS);
        self.set(STATUS, 2, status);
        self.set(self.link, 1, u32::from(at));
        self.set(at, 1, u32::from(id));
        self.link = at + 1;
        self.next_cap = at + len.next_multiple_of(4);
        Some(at)
    }

    /// The command register.
    pub fn command(&self) -> u16 {
        self.read(COMMAND, 2) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_bits_stay() {
        let mut cfg = ConfigSpace::default();
        cfg.set(0, 4, 0xd1a1_1234);
        cfg.write(0, 4, 0);
        assert_eq!(cfg.read(0, 4), 0xd1a1_1234);
        assert_eq!(cfg.read(2, 2), 0xd1a1);
        cfg.allow(COMMAND, 2, 0x0407);
        cfg.write(COMMAND, 2, 0xffff);
        assert_eq!(cfg.command(), 0x0407);
    }

    #[test]
    fn capabilities_are_linked() {
        let mut cfg = ConfigSpace::default();
        assert_eq!(cfg.add_capability(1, 8), Some(0x40));
        assert_eq!(cfg.add_capability(5, 14), Some(0x48));
        assert_eq!(cfg.add_capability(0x11, 12), Some(0x58));
        assert_eq!(cfg.read(CAP_PTR, 1), 0x40);
        assert_eq!(cfg.read(0x41, 1), 0x48);
        assert_eq!(cfg.read(0x49, 1), 0x58);
        assert_eq!(cfg.read(0x59, 1), 0);
        assert_eq!(cfg.add_capability(9, 0xf0), None);
    }

    #[test]
    fn past_the_header_is_all_ones() {
        let mut cfg = ConfigSpace::default();
        cfg.write(255, 4, 0);
        assert_eq!(cfg.read(254, 4) >> 16, 0xffff);
        assert_eq!(cfg.read(u16::MAX, 4), u32::MAX);
    }
}
