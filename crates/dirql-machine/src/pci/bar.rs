//! Base address registers: what a device declares, what firmware assigned, how an address is decoded.
//!
//! After PCI 3.0, 6.2.5. "Firmware" is [`BarAllocator`]: naturally aligned, ascending from 0xE0000000 for memory
//! and from port 0xC000, in the order devices are added. Software may move a BAR; decoding follows the register.

use dirql_mem::Pa;

use super::cfg::{BAR0, ConfigSpace};

/// First address of the memory window for BARs.
pub const MEMORY_WINDOW: u64 = 0xE000_0000;
/// First address after the window: the I/O APIC's page is here.
pub const MEMORY_WINDOW_END: u64 = 0xFEC0_0000;
/// First port of the window for I/O BARs.
pub const IO_WINDOW: u32 = 0xC000;

/// A region a device declares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarSpec {
    /// Memory of `len` bytes: a power of two from 16 to 256 MiB.
    Memory {
        /// Bytes.
        len: u64,
        /// Reads have no side effects.
        prefetch: bool,
        /// Takes two registers.
        is64: bool,
    },
    /// Ports: a power of two from 4 to 256.
    Io {
        /// Ports.
        len: u32,
    },
}

impl BarSpec {
    /// Plain 32-bit memory that is not prefetchable.
    pub fn memory(len: u64) -> BarSpec {
        BarSpec::Memory { len, prefetch: false, is64: false }
    }

    /// How many registers it takes.
    pub fn registers(self) -> u8 {
        match self {
            BarSpec::Memory { is64: true, .. } => 2,
            _ => 1,
        }
    }

    /// Whether the size is one that a BAR can have.
    pub fn valid(self) -> bool {
        match self {
            BarSpec::Memory { len, .. } => len.is_power_of_two() && (16..=256 << 20).contains(&len),
            BarSpec::Io { len } => len.is_power_of_two() && (4..=256).contains(&len),
        }
    }
}

/// Where a BAR is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarKind {
    /// Memory.
    Memory {
        /// Physical address.
        pa: Pa,
        /// Bytes.
        len: u64,
        /// Reads have no side effects.
        prefetch: bool,
        /// Takes two registers.
        is64: bool,
    },
    /// Ports.
    Io {
        /// First port.
        port: u32,
        /// Ports.
        len: u32,
    },
}

/// One BAR as software sees it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarInfo {
    /// Register number, 0 to 5.
    pub index: u8,
    /// Where it is.
    pub kind: BarKind,
}

/// A BAR of a function: its register and its declaration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bar {
    pub(crate) index: u8,
    pub(crate) spec: BarSpec,
}

impl Bar {
    fn register(self) -> u16 {
        BAR0 + 4 * u16::from(self.index)
    }

    /// Puts the read-only bits and the write mask into the header: the sizing protocol follows from the mask.
    pub(crate) fn install(self, cfg: &mut ConfigSpace) {
        let at = self.register();
        match self.spec {
            BarSpec::Memory { len, prefetch, is64 } => {
                cfg.set(at, 4, u32::from(is64) << 2 | u32::from(prefetch) << 3);
                let mask = !(len - 1) & !0xf;
                cfg.allow(at, 4, mask as u32);
                if is64 {
                    cfg.allow(at + 4, 4, (mask >> 32) as u32);
                }
            }
            BarSpec::Io { len } => {
                cfg.set(at, 4, 1);
                cfg.allow(at, 4, !(len - 1) & !3);
            }
        }
    }

    pub(crate) fn assign(self, cfg: &mut ConfigSpace, base: u64) {
        let at = self.register();
        cfg.write(at, 4, base as u32);
        if self.spec.registers() == 2 {
            cfg.write(at + 4, 4, (base >> 32) as u32);
        }
    }

    pub(crate) fn info(self, cfg: &ConfigSpace) -> BarInfo {
        let low = cfg.read(self.register(), 4);
        let kind = match self.spec {
            BarSpec::Memory { len, prefetch, is64 } => {
                let high = if is64 { u64::from(cfg.read(self.register() + 4, 4)) << 32 } else { 0 };
                BarKind::Memory { pa: Pa(high | u64::from(low & !0xf)), len, prefetch, is64 }
            }
            BarSpec::Io { len } => BarKind::Io { port: low & !3, len },
        };
        BarInfo { index: self.index, kind }
    }
}

/// Gives addresses to BARs as firmware does at boot.
#[derive(Clone, Debug)]
pub(crate) struct BarAllocator {
    memory: u64,
    io: u32,
}

impl Default for BarAllocator {
    fn default() -> Self {
        BarAllocator { memory: MEMORY_WINDOW, io: IO_WINDOW }
    }
}

impl BarAllocator {
    /// The next free, naturally aligned place; memory is kept page-aligned so that a page belongs to one BAR.
    /// `None` when the window is full.
    pub(crate) fn place(&mut self, spec: BarSpec) -> Option<u64> {
        match spec {
            BarSpec::Memory { len, .. } => {
                let len = len.max(4096);
                let base = self.memory.checked_next_multiple_of(len)?;
                let end = base.checked_add(len).filter(|e| *e <= MEMORY_WINDOW_END)?;
                self.memory = end;
                Some(base)
            }
            BarSpec::Io { len } => {
                let base = self.io.checked_next_multiple_of(len)?;
                let end = base.checked_add(len).filter(|e| *e <= 0x1_0000)?;
                self.io = end;
                Some(u64::from(base))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_ones_reads_back_the_size() {
        let mut cfg = ConfigSpace::default();
        let bar = Bar { index: 0, spec: BarSpec::memory(0x10_0000) };
        bar.install(&mut cfg);
        bar.assign(&mut cfg, 0xE010_0000);
        assert_eq!(cfg.read(BAR0, 4), 0xE010_0000);
        cfg.write(BAR0, 4, u32::MAX);
        assert_eq!(!(cfg.read(BAR0, 4) & !0xf) + 1, 0x10_0000);
    }

    #[test]
    fn a_wide_bar_sizes_through_both_registers_and_io_keeps_its_bit() {
        let mut cfg = ConfigSpace::default();
        Bar { index: 2, spec: BarSpec::Memory { len: 4096, prefetch: true, is64: true } }.install(&mut cfg);
        cfg.write(BAR0 + 8, 4, u32::MAX);
        cfg.write(BAR0 + 12, 4, u32::MAX);
        assert_eq!(cfg.read(BAR0 + 8, 4), 0xffff_f00c);
        assert_eq!(cfg.read(BAR0 + 12, 4), u32::MAX);
        Bar { index: 0, spec: BarSpec::Io { len: 32 } }.install(&mut cfg);
        cfg.write(BAR0, 4, u32::MAX);
        assert_eq!(cfg.read(BAR0, 4), 0xffff_ffe1);
    }

    #[test]
    fn the_window_ends() {
        let mut firmware = BarAllocator::default();
        let big = BarSpec::memory(256 << 20);
        assert_eq!(firmware.place(BarSpec::memory(16)), Some(0xE000_0000));
        assert_eq!(firmware.place(BarSpec::memory(4096)), Some(0xE000_1000));
        assert_eq!(firmware.place(big), None, "0xF0000000 + 256 MiB reaches the I/O APIC");
        assert_eq!(firmware.place(BarSpec::Io { len: 32 }), Some(0xC000));
    }
}
