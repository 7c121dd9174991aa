//! The MSI capability (spec 2.7, 6.4; PCI 3.0, 6.8.1): 64-bit address, 1 to 32 messages, optional mask bits.

use super::cfg::ConfigSpace;

/// Capability id.
pub const CAP_MSI: u8 = 0x05;

/// What a device declares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsiSpec {
    /// Messages: 1, 2, 4, 8, 16 or 32.
    pub messages: u8,
    /// Mask and pending bits for each message.
    pub maskable: bool,
}

/// The MSI capability of a function. All its state is in the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Msi {
    at: u16,
    spec: MsiSpec,
}

impl Msi {
    pub(crate) fn install(cfg: &mut ConfigSpace, spec: MsiSpec) -> Option<Msi> {
        let at = cfg.add_capability(CAP_MSI, if spec.maskable { 24 } else { 14 })?;
        let capable = u32::from(spec.messages).trailing_zeros();
        cfg.set(at + 2, 2, capable << 1 | 1 << 7 | u32::from(spec.maskable) << 8);
        cfg.allow(at + 2, 2, 0x71);
        cfg.allow(at + 4, 4, !3);
        cfg.allow(at + 8, 4, !0);
        cfg.allow(at + 12, 2, 0xffff);
        if spec.maskable {
            cfg.allow(at + 16, 4, u32::MAX >> (32 - u32::from(spec.messages)));
        }
        Some(Msi { at, spec })
    }

    pub(crate) fn spec(self) -> MsiSpec {
        self.spec
    }

    pub(crate) fn offset(self) -> u16 {
        self.at
    }

    pub(crate) fn enabled(self, cfg: &ConfigSpace) -> bool {
        cfg.read(self.at + 2, 2) & 1 != 0
    }

    /// How many messages software enabled, never more than the device has.
    pub(crate) fn granted(self, cfg: &ConfigSpace) -> u32 {
        (1u32 << (cfg.read(self.at + 2, 2) >> 4 & 7)).min(u32::from(self.spec.messages))
    }

    /// Address and data of message `i`: the device puts the number into the low bits of the data.
    pub(crate) fn message(self, cfg: &ConfigSpace, i: u32) -> (u64, u32) {
        let address = u64::from(cfg.read(self.at + 4, 4)) | u64::from(cfg.read(self.at + 8, 4)) << 32;
        let low = self.granted(cfg) - 1;
        (address, (cfg.read(self.at + 12, 2) & !low) | (i & low))
    }

    pub(crate) fn masked(self, cfg: &ConfigSpace, i: u32) -> bool {
        self.spec.maskable && cfg.read(self.at + 16, 4) >> (i & 31) & 1 != 0
    }

    pub(crate) fn pending(self, cfg: &ConfigSpace) -> u32 {
        if self.spec.maskable { cfg.read(self.at + 20, 4) } else { 0 }
    }

    pub(crate) fn set_pending(self, cfg: &mut ConfigSpace, i: u32, pending: bool) {
        if self.spec.maskable {
            let bit = 1u32 << (i & 31);
            let old = self.pending(cfg);
            cfg.set(self.at + 20, 4, if pending { old | bit } else { old & !bit });
        }
    }

    /// Programs address, data, the log2 of the messages enabled, and the enable bit, as an OS does.
    pub(crate) fn program(self, cfg: &mut ConfigSpace, address: u64, data: u16, messages: u32, enable: bool) {
        cfg.write(self.at + 4, 4, address as u32);
        cfg.write(self.at + 8, 4, (address >> 32) as u32);
        cfg.write(self.at + 12, 2, u32::from(data));
        let mme = messages.clamp(1, u32::from(self.spec.messages)).ilog2();
        cfg.write(self.at + 2, 2, mme << 4 | u32::from(enable));
    }

    pub(crate) fn mask(self, cfg: &mut ConfigSpace, i: u32, masked: bool) {
        if self.spec.maskable {
            let bit = 1u32 << (i & 31);
            let old = cfg.read(self.at + 16, 4);
            cfg.write(self.at + 16, 4, if masked { old | bit } else { old & !bit });
        }
    }
}
