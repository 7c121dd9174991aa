//! What the kernel's HAL does to the machine, in the machine's terms.

use dirql_core::{Mode, Polarity};
use dirql_machine::{Dest, DeviceId, Machine};

const COMMAND: u16 = 4;
/// Memory and port decoding, and bus mastering: what firmware and the bus driver turn on for a started device.
const DECODE_AND_MASTER: u32 = 7;

/// Vendor and device number; a device on the ISA bus has none.
pub(crate) fn identity(m: &Machine, id: DeviceId) -> Option<(u16, u16)> {
    m.bdf(id).map(|_| (config(m, id, 0) as u16, config(m, id, 2) as u16))
}

/// INTERFACE_TYPE of the device's bus: Isa is 1, PCIBus 5.
pub(crate) fn interface_type(m: &Machine, id: DeviceId) -> u32 {
    if m.bdf(id).is_some() { 5 } else { 1 }
}

/// How the board wires a line: PCI ones level and active low, ISA ones edge and active high.
pub(crate) fn wiring(m: &Machine, gsi: u32) -> (Mode, Polarity) {
    match m.wiring(gsi) {
        Some(w) if !w.level => {
            (Mode::Latched, if w.active_low { Polarity::ActiveLow } else { Polarity::ActiveHigh })
        }
        _ => (Mode::Level, Polarity::ActiveLow),
    }
}

/// Reads two bytes of configuration space.
fn config(m: &Machine, id: DeviceId, offset: u16) -> u32 {
    m.bdf(id).map_or(0xffff, |bdf| m.config_read(bdf, offset, 2))
}

/// Turns decoding and bus mastering on.
pub(crate) fn enable_decoding(m: &mut Machine, id: DeviceId) {
    let old = config(m, id, COMMAND);
    if let Some(bdf) = m.bdf(id) {
        m.config_write(bdf, COMMAND, 2, old | DECODE_AND_MASTER);
    }
}

/// Masks or unmasks a message at the device; false when it has no means to.
pub(crate) fn message_mask(m: &mut Machine, id: DeviceId, entry: u32, masked: bool) -> bool {
    if m.msix_count(id).is_some() { m.msix_mask(id, entry, masked) } else { m.msi_mask(id, entry, masked) }
}

/// Programs the messages of a device, all masked where it can mask, and turns the capability on.
pub(crate) fn program_messages(m: &mut Machine, id: DeviceId, messages: &[(u32, u64, u32)]) {
    let Some(&(_, address, data)) = messages.first() else { return };
    if m.msix_count(id).is_some() {
        for &(entry, address, data) in messages {
            m.msix_program(id, entry, address, data);
            m.msix_mask(id, entry, true);
        }
        m.msix_control(id, true, false);
    } else {
        m.msi_program(id, address, data as u16, messages.len() as u32, true);
        for &(message, ..) in messages {
            m.msi_mask(id, message, true);
        }
    }
}

/// The I/O APIC destination of a processor mask: one processor fixed, several by lowest priority (spec 2.7).
pub(crate) fn dest(mask: u64) -> Dest {
    if mask.count_ones() == 1 { Dest::Cpu(mask.trailing_zeros()) } else { Dest::AnyOf(mask) }
}

/// Puts a device into D0 or D3 through its power-management capability, as the bus driver does.
pub(crate) fn set_d_state(m: &mut Machine, id: DeviceId, state: u8) {
    const STATUS: u16 = 6;
    const CAPABILITIES: u16 = 0x34;
    const POWER_MANAGEMENT: u32 = 1;
    let Some(bdf) = m.bdf(id) else { return };
    if m.config_read(bdf, STATUS, 2) & 0x10 == 0 {
        return;
    }
    let mut at = m.config_read(bdf, CAPABILITIES, 1) as u16;
    for _ in 0..48 {
        if at == 0 {
            return;
        }
        if m.config_read(bdf, at, 1) == POWER_MANAGEMENT {
            let old = m.config_read(bdf, at + 4, 2);
            m.config_write(bdf, at + 4, 2, old & !3 | u32::from(state & 3));
            return;
        }
        at = m.config_read(bdf, at + 1, 1) as u16;
    }
}
