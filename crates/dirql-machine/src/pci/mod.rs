//! One PCI function: header, BARs, capabilities, and when it may interrupt.

pub mod bar;
pub mod cfg;
pub mod message;
pub mod msi;
pub mod msix;

use bar::{Bar, BarAllocator, BarInfo, BarKind, BarSpec};
use cfg::{
    CMD_INTX_DISABLE, CMD_IO, CMD_MASTER, CMD_MEMORY, COMMAND, ConfigSpace, INT_LINE, INT_PIN, STATUS,
    STATUS_INTX,
};
use msi::{Msi, MsiSpec};
use msix::MsiX;

/// Capability id of power management.
pub const CAP_PM: u8 = 0x01;

/// The interrupts a function can make. A function with messages usually has its pin too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interrupts {
    /// It has the pin INTA.
    pub pin: bool,
    /// Its MSI capability.
    pub msi: Option<MsiSpec>,
    /// Entries of its MSI-X table, 1 to 2048.
    pub msix: Option<u16>,
}

impl Interrupts {
    /// None at all.
    pub fn none() -> Self {
        Interrupts::default()
    }

    /// INTA only.
    pub fn line() -> Self {
        Interrupts { pin: true, ..Interrupts::default() }
    }

    /// `messages` by MSI (without mask bits), and the pin.
    pub fn msi(messages: u8) -> Self {
        Interrupts { pin: true, msi: Some(MsiSpec { messages, maskable: false }), msix: None }
    }

    /// `entries` by MSI-X, and the pin.
    pub fn msix(entries: u16) -> Self {
        Interrupts { pin: true, msi: None, msix: Some(entries) }
    }

    /// The most sources that can be told apart.
    pub fn count(self) -> u32 {
        let messages = u32::from(self.msi.map_or(0, |m| m.messages)).max(u32::from(self.msix.unwrap_or(0)));
        messages.max(u32::from(self.pin))
    }
}

/// What a device says it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PciIdentity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and interface, as 0xCCSSII.
    pub class: u32,
    /// Subsystem vendor and device.
    pub subsystem: (u16, u16),
    /// Its regions, in order; a 64-bit one takes two registers.
    pub bars: Vec<BarSpec>,
    /// Its interrupts.
    pub interrupts: Interrupts,
}

/// Where a function is: bus, device, function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bdf {
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl std::fmt::Display for Bdf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// Why a device could not be put into its slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AddDeviceError {
    /// All 31 device numbers of the bus are taken.
    NoSlot,
    /// A BAR's size is not one a BAR can have.
    BarSize(BarSpec),
    /// The BARs (and the MSI-X table) take more than six registers.
    TooManyBars,
    /// The address window for BARs is full.
    WindowFull(BarSpec),
    /// MSI messages must be a power of two up to 32, MSI-X entries 1 to 2048.
    Messages(u32),
    /// There is no such GSI.
    Gsi(u32),
    /// An ISA region is empty, wraps, or lies on another device's or the machine's own.
    Region(BarKind),
}

impl std::fmt::Display for AddDeviceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AddDeviceError::NoSlot => write!(f, "the bus holds 31 devices and all are taken"),
            AddDeviceError::BarSize(b) => {
                write!(f, "{b:?}: a BAR is a power of two, 16 bytes to 256 MiB of memory or 4 to 256 ports")
            }
            AddDeviceError::TooManyBars => write!(f, "BARs and MSI-X table take more than six registers"),
            AddDeviceError::WindowFull(b) => write!(f, "{b:?} does not fit: the window for BARs is full"),
            AddDeviceError::Messages(n) => {
                write!(f, "{n} messages: MSI has 1, 2, 4, 8, 16 or 32, MSI-X 1 to 2048")
            }
            AddDeviceError::Region(BarKind::Io { port, len }) => {
                write!(f, "ports {port:#x}+{len:#x}: empty, past 0xffff, or taken")
            }
            AddDeviceError::Region(BarKind::Memory { pa, len, .. }) => {
                write!(f, "memory {:#x}+{len:#x}: empty, outside 0xa0000-0xfffff, or taken", pa.0)
            }
            AddDeviceError::Gsi(g) => write!(f, "GSI {g}: there are {}", crate::ioapic::GSI_COUNT),
        }
    }
}

impl std::error::Error for AddDeviceError {}

/// What became of a message a device wanted to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageOutcome {
    /// It goes out with this address and data.
    Send {
        /// Address.
        address: u64,
        /// Data.
        data: u32,
    },
    /// Masked: its pending bit is set and it goes out when unmasked.
    Pending,
    /// Lost, for this reason.
    Lost(&'static str),
}

/// A function on the bus.
#[derive(Clone, Debug)]
pub struct Function {
    /// `None` for a device that is not on PCI.
    pub(crate) bdf: Option<Bdf>,
    pub(crate) cfg: ConfigSpace,
    bars: Vec<Bar>,
    /// Where a device that is not on PCI decodes, by the numbers its model knows as BARs.
    fixed: Vec<BarInfo>,
    pub(crate) msi: Option<Msi>,
    pub(crate) msix: Option<MsiX>,
    /// Its power-management capability; a device that is not on PCI has none and stays in D0.
    power: Option<u16>,
    gsi: Option<u32>,
    /// What the device wants its pin to be.
    pin: bool,
}

impl Function {
    pub(crate) fn new(
        bdf: Bdf,
        id: &PciIdentity,
        gsi: Option<u32>,
        firmware: &mut BarAllocator,
    ) -> Result<Function, AddDeviceError> {
        let mut cfg = ConfigSpace::default();
        cfg.set(0, 4, u32::from(id.vendor) | u32::from(id.device) << 16);
        cfg.set(8, 4, u32::from(id.revision) | id.class << 8);
        cfg.set(0x2c, 4, u32::from(id.subsystem.0) | u32::from(id.subsystem.1) << 16);
        let command = CMD_IO | CMD_MEMORY | CMD_MASTER | CMD_INTX_DISABLE;
        cfg.allow(COMMAND, 2, u32::from(command));
        cfg.allow(INT_LINE, 1, 0xff);

        let mut specs = id.bars.clone();
        if let Some(entries) = id.interrupts.msix {
            if entries == 0 || entries > msix::MAX_ENTRIES {
                return Err(AddDeviceError::Messages(u32::from(entries)));
            }
            specs.push(BarSpec::memory(msix::bar_len(entries)));
        }
        let mut bars = Vec::new();
        let mut index = 0u8;
        for spec in specs {
            if !spec.valid() {
                return Err(AddDeviceError::BarSize(spec));
            }
            if index + spec.registers() > 6 {
                return Err(AddDeviceError::TooManyBars);
            }
            let bar = Bar { index, spec };
            bar.install(&mut cfg);
            bar.assign(&mut cfg, firmware.place(spec).ok_or(AddDeviceError::WindowFull(spec))?);
            index += spec.registers();
            bars.push(bar);
        }

        // The capability area holds all three: 8 + 24 + 12 bytes of 192.
        let power = cfg.add_capability(CAP_PM, 8).ok_or(AddDeviceError::TooManyBars)?;
        cfg.set(power + 2, 2, 3); // version 1.2, D0 and D3hot only
        cfg.set(power + 4, 2, 1 << 3); // no soft reset: registers survive D3hot
        let msi = match id.interrupts.msi {
            Some(s) if !s.messages.is_power_of_two() || s.messages > 32 => {
                return Err(AddDeviceError::Messages(u32::from(s.messages)));
            }
            Some(s) => Msi::install(&mut cfg, s),
            None => None,
        };
        let table = bars.last().map_or(0, |b: &Bar| b.index);
        let msix = id.interrupts.msix.and_then(|n| MsiX::install(&mut cfg, n, table));
        let gsi = gsi.filter(|_| id.interrupts.pin);
        if let Some(gsi) = gsi {
            cfg.set(INT_PIN, 1, 1);
            cfg.set(INT_LINE, 1, gsi & 0xff);
        }
        let ports = bars.iter().any(|b| matches!(b.spec, BarSpec::Io { .. }));
        let memory = bars.iter().any(|b| matches!(b.spec, BarSpec::Memory { .. }));
        cfg.set(COMMAND, 2, u32::from(ports) | u32::from(memory) << 1);
        Ok(Function {
            bdf: Some(bdf),
            cfg,
            bars,
            fixed: Vec::new(),
            msi,
            msix,
            power: Some(power),
            gsi,
            pin: false,
        })
    }

    /// A device on the ISA bus: it decodes what jumpers or firmware gave it, always; it has no configuration
    /// space, no messages and no power states, and is no bus master.
    pub(crate) fn isa(regions: Vec<BarKind>, gsi: Option<u32>) -> Function {
        let mut cfg = ConfigSpace::default();
        cfg.set(COMMAND, 2, u32::from(CMD_IO | CMD_MEMORY));
        let fixed = (0u8..).zip(regions).map(|(index, kind)| BarInfo { index, kind }).collect();
        Function {
            bdf: None,
            cfg,
            bars: Vec::new(),
            fixed,
            msi: None,
            msix: None,
            power: None,
            gsi,
            pin: false,
        }
    }

    /// Whether it is a PCI function; else it is on the ISA bus.
    pub fn is_pci(&self) -> bool {
        self.bdf.is_some()
    }

    /// The device's BARs as their registers stand now, the one with the MSI-X table included; on ISA its fixed
    /// regions.
    pub fn bars(&self) -> Vec<BarInfo> {
        if !self.fixed.is_empty() {
            return self.fixed.clone();
        }
        self.bars.iter().map(|b| b.info(&self.cfg)).collect()
    }

    /// The register number of the BAR that holds the MSI-X table.
    pub fn msix_bar(&self) -> Option<u8> {
        self.msix.as_ref().map(MsiX::bar)
    }

    /// The GSI its pin is wired to; `None` without a pin.
    pub fn gsi(&self) -> Option<u32> {
        self.gsi
    }

    /// The power state: 0 for D0, 3 for D3hot.
    pub fn d_state(&self) -> u8 {
        self.power.map_or(0, |power| (self.cfg.read(power + 4, 2) & 3) as u8)
    }

    /// Whether DMA and messages may leave: bus master is on and the function is in D0.
    pub fn may_master(&self) -> bool {
        self.cfg.command() & CMD_MASTER != 0 && self.d_state() == 0
    }

    /// Which BAR decodes this memory address, and the offset in it.
    pub(crate) fn decode_memory(&self, at: u64, size: u8) -> Option<(u8, u64)> {
        if self.cfg.command() & CMD_MEMORY == 0 || self.d_state() != 0 {
            return None;
        }
        self.bars().into_iter().find_map(|b| match b.kind {
            BarKind::Memory { pa, len, .. } => {
                let offset = at.checked_sub(pa.0)?;
                (offset < len && u64::from(size) <= len - offset).then_some((b.index, offset))
            }
            BarKind::Io { .. } => None,
        })
    }

    /// Which BAR decodes this port, and the offset in it.
    pub(crate) fn decode_port(&self, at: u32, size: u8) -> Option<(u8, u64)> {
        if self.cfg.command() & CMD_IO == 0 || self.d_state() != 0 {
            return None;
        }
        self.bars().into_iter().find_map(|b| match b.kind {
            BarKind::Io { port, len } => {
                let offset = at.checked_sub(port)?;
                (offset < len && u32::from(size) <= len - offset).then_some((b.index, u64::from(offset)))
            }
            BarKind::Memory { .. } => None,
        })
    }

    /// A configuration write by software. A power state the function lacks (D1, D2) is discarded, as the PCI power
    /// management specification says.
    pub fn config_write(&mut self, offset: u16, size: u8, value: u32) {
        let field = self.power.map(|power| power + 4);
        for i in 0..u16::from(size.min(4)) {
            let byte = value >> (8 * i) & 0xff;
            let at = offset.saturating_add(i);
            self.cfg.write(at, 1, byte);
            if let Some(field) = field.filter(|f| *f == at && matches!(byte & 3, 0 | 3)) {
                let old = self.cfg.read(field, 1) & !3;
                self.cfg.set(field, 1, old | byte & 3);
            }
        }
    }

    /// A configuration read by software.
    pub fn config_read(&self, offset: u16, size: u8) -> u32 {
        self.cfg.read(offset, size)
    }

    /// The device drives its pin or lets go. The status bit follows the device, not INTx Disable.
    pub(crate) fn set_pin(&mut self, asserted: bool) {
        self.pin = asserted;
        let rest = self.cfg.read(STATUS, 2) & !u32::from(STATUS_INTX);
        self.cfg.set(STATUS, 2, rest | if asserted { u32::from(STATUS_INTX) } else { 0 });
    }

    /// Whether the function asserts INTA now: the device wants it, INTx Disable is clear, no messages are enabled,
    /// and it is in D0.
    pub fn intx(&self) -> bool {
        self.pin
            && self.cfg.command() & CMD_INTX_DISABLE == 0
            && self.messages_granted() == 0
            && self.d_state() == 0
    }

    /// How many messages the function may send: 0 while neither MSI nor MSI-X is enabled.
    pub fn messages_granted(&self) -> u32 {
        match (&self.msix, self.msi) {
            (Some(x), _) if x.enabled(&self.cfg) => x.len(),
            (_, Some(m)) if m.enabled(&self.cfg) => m.granted(&self.cfg),
            _ => 0,
        }
    }

    fn masked(&self, i: u32) -> bool {
        match (&self.msix, self.msi) {
            (Some(x), _) if x.enabled(&self.cfg) => x.masked(&self.cfg, i),
            (_, Some(m)) => m.masked(&self.cfg, i),
            _ => true,
        }
    }

    /// Whether message `i` would leave at once.
    pub fn message_open(&self, i: u32) -> bool {
        i < self.messages_granted() && self.may_master() && !self.masked(i)
    }

    /// The device wants message `i` sent.
    pub(crate) fn message(&mut self, i: u32) -> MessageOutcome {
        let granted = self.messages_granted();
        if granted == 0 {
            return MessageOutcome::Lost("MSI and MSI-X are disabled");
        }
        if i >= granted {
            return MessageOutcome::Lost("the message was not granted");
        }
        if self.d_state() != 0 {
            return MessageOutcome::Lost("the function is not in D0");
        }
        let masked = self.masked(i);
        if masked || !self.may_master() {
            // Without bus mastering the message can't leave; hardware holds it as it holds a masked one when it
            // has pending bits, else it is lost.
            self.set_pending(i, true);
            return if self.is_pending(i) {
                MessageOutcome::Pending
            } else {
                MessageOutcome::Lost("bus mastering is disabled")
            };
        }
        let found = match (&self.msix, self.msi) {
            (Some(x), _) if x.enabled(&self.cfg) => x.message(i),
            (_, Some(m)) => Some(m.message(&self.cfg, i)),
            _ => None,
        };
        match found {
            Some((address, data)) => MessageOutcome::Send { address, data },
            None => MessageOutcome::Lost("there is no such message"),
        }
    }

    fn set_pending(&mut self, i: u32, pending: bool) {
        match (&mut self.msix, self.msi) {
            (Some(x), _) if x.enabled(&self.cfg) => x.set_pending(i, pending),
            (_, Some(m)) => m.set_pending(&mut self.cfg, i, pending),
            _ => {}
        }
    }

    /// Whether message `i` waits in its pending bit.
    pub fn is_pending(&self, i: u32) -> bool {
        match (&self.msix, self.msi) {
            (Some(x), _) if x.enabled(&self.cfg) => x.pending(i),
            (_, Some(m)) => i < 32 && m.pending(&self.cfg) >> i & 1 != 0,
            _ => false,
        }
    }

    /// Takes the messages that waited and may leave now, clearing their pending bits.
    pub(crate) fn take_released(&mut self) -> Vec<u32> {
        let ready: Vec<u32> =
            (0..self.messages_granted()).filter(|&i| self.is_pending(i) && self.message_open(i)).collect();
        for &i in &ready {
            self.set_pending(i, false);
        }
        ready
    }
}
