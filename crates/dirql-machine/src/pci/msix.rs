//! The MSI-X capability (spec 2.7, 6.4; PCI 3.0, 6.8.2): table and pending bits in BAR memory.
//!
//! Entries are masked at reset. Table and pending array take 4- and 8-byte aligned accesses, as the PCI
//! specification asks of software; others read ones and are dropped.

use super::cfg::ConfigSpace;

/// Capability id.
pub const CAP_MSIX: u8 = 0x11;

/// Most entries of a table.
pub const MAX_ENTRIES: u16 = 2048;

const ENABLE: u32 = 1 << 15;
const FUNCTION_MASK: u32 = 1 << 14;

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    data: u32,
    control: u32,
}

/// The MSI-X capability of a function with its table.
#[derive(Clone, Debug)]
pub(crate) struct MsiX {
    at: u16,
    bar: u8,
    entries: Vec<Entry>,
    pba: Vec<u64>,
}

/// How many bytes of BAR memory `entries` need: the table in the lower half, the pending bits in the upper.
pub(crate) fn bar_len(entries: u16) -> u64 {
    (u64::from(entries) * 32).next_power_of_two().max(4096)
}

impl MsiX {
    pub(crate) fn install(cfg: &mut ConfigSpace, entries: u16, bar: u8) -> Option<MsiX> {
        let at = cfg.add_capability(CAP_MSIX, 12)?;
        cfg.set(at + 2, 2, u32::from(entries - 1));
        cfg.allow(at + 2, 2, ENABLE | FUNCTION_MASK);
        cfg.set(at + 4, 4, u32::from(bar));
        cfg.set(at + 8, 4, (bar_len(entries) / 2) as u32 | u32::from(bar));
        let reset = Entry { address: 0, data: 0, control: 1 };
        let (n, words) = (usize::from(entries), usize::from(entries).div_ceil(64));
        Some(MsiX { at, bar, entries: vec![reset; n], pba: vec![0; words] })
    }

    pub(crate) fn bar(&self) -> u8 {
        self.bar
    }

    pub(crate) fn offset(&self) -> u16 {
        self.at
    }

    pub(crate) fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(crate) fn enabled(&self, cfg: &ConfigSpace) -> bool {
        cfg.read(self.at + 2, 2) & ENABLE != 0
    }

    pub(crate) fn set_control(&self, cfg: &mut ConfigSpace, enable: bool, function_mask: bool) {
        let value = if enable { ENABLE } else { 0 } | if function_mask { FUNCTION_MASK } else { 0 };
        cfg.write(self.at + 2, 2, value);
    }

    /// Whether entry `i` may not send: its own mask or the function's.
    pub(crate) fn masked(&self, cfg: &ConfigSpace, i: u32) -> bool {
        cfg.read(self.at + 2, 2) & FUNCTION_MASK != 0
            || self.entries.get(i as usize).is_none_or(|e| e.control & 1 != 0)
    }

    pub(crate) fn message(&self, i: u32) -> Option<(u64, u32)> {
        self.entries.get(i as usize).map(|e| (e.address, e.data))
    }

    pub(crate) fn program(&mut self, i: u32, address: u64, data: u32) -> bool {
        let Some(entry) = self.entries.get_mut(i as usize) else { return false };
        (entry.address, entry.data) = (address & !3, data);
        true
    }

    pub(crate) fn mask(&mut self, i: u32, masked: bool) -> bool {
        let Some(entry) = self.entries.get_mut(i as usize) else { return false };
        entry.control = (entry.control & !1) | u32::from(masked);
        true
    }

    pub(crate) fn pending(&self, i: u32) -> bool {
        self.pba.get(i as usize / 64).is_some_and(|w| w >> (i % 64) & 1 != 0)
    }

    pub(crate) fn set_pending(&mut self, i: u32, pending: bool) {
        if let Some(word) = self.pba.get_mut(i as usize / 64) {
            let bit = 1u64 << (i % 64);
            *word = if pending { *word | bit } else { *word & !bit };
        }
    }

    fn dword(&self, offset: u64) -> u32 {
        let half = bar_len(self.entries.len() as u16) / 2;
        if let Some(at) = offset.checked_sub(half) {
            let word = self.pba.get((at / 8) as usize).copied().unwrap_or(0);
            return (word >> (8 * (at & 4))) as u32;
        }
        let Some(entry) = self.entries.get((offset / 16) as usize) else { return 0 };
        match offset & 12 {
            0 => entry.address as u32,
            4 => (entry.address >> 32) as u32,
            8 => entry.data,
            _ => entry.control,
        }
    }

    fn set_dword(&mut self, offset: u64, value: u32) {
        // The pending array starts past every entry, and is read-only.
        let Some(entry) = self.entries.get_mut((offset / 16) as usize) else { return };
        match offset & 12 {
            0 => entry.address = (entry.address & !0xffff_ffff) | u64::from(value & !3),
            4 => entry.address = (entry.address & 0xffff_ffff) | u64::from(value) << 32,
            8 => entry.data = value,
            _ => entry.control = value & 1,
        }
    }

    /// A read of the BAR memory that holds table and pending bits.
    pub(crate) fn read(&self, offset: u64, size: u8) -> u64 {
        match size {
            4 if offset.is_multiple_of(4) => u64::from(self.dword(offset)),
            8 if offset.is_multiple_of(8) => {
                u64::from(self.dword(offset)) | u64::from(self.dword(offset + 4)) << 32
            }
            _ => u64::MAX,
        }
    }

    /// A write to the same memory. The caller then sends what this unmasked.
    pub(crate) fn write(&mut self, offset: u64, size: u8, value: u64) {
        match size {
            4 if offset.is_multiple_of(4) => self.set_dword(offset, value as u32),
            8 if offset.is_multiple_of(8) => {
                self.set_dword(offset, value as u32);
                self.set_dword(offset + 4, (value >> 32) as u32);
            }
            _ => {}
        }
    }
}
