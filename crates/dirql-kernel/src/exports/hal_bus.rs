//! `hal.dll`: bus addresses and PCI configuration space, for drivers of before Plug and Play.
//!
//! One PCI segment with one bus. Bus addresses are physical addresses, as on every PC.

use crate::context::{Result, ret};
use crate::cx::Cx;
use crate::exports;

/// BUS_DATA_TYPE PCIConfiguration.
const PCI_CONFIGURATION: u32 = 4;
/// BUS_DATA_TYPE Cmos.
const CMOS: u32 = 0;
const CONFIGURATION_SPACE: u32 = 256;

/// Reads or writes configuration space; what the routines return: bytes done, 2 for an empty slot, 0 for no such bus.
fn bus_data(
    cx: &mut Cx<'_>,
    kind: u32,
    place: (u32, u32),
    buffer: u64,
    range: (u32, u32),
    write: bool,
) -> Result {
    let (bus, slot) = place;
    let (offset, length) = range;
    if kind == CMOS {
        return Err(cx.missing("the CMOS memory of the real-time clock"));
    }
    // PCI_SLOT_NUMBER: device in the low five bits, function in the next three.
    let (device, function) = ((slot & 0x1f) as u8, (slot >> 5 & 7) as u8);
    if kind != PCI_CONFIGURATION || bus != 0 {
        return ret(0);
    }
    let bdf =
        cx.m.devices()
            .into_iter()
            .filter_map(|d| cx.m.bdf(d))
            .find(|b| (b.bus, b.device, b.function) == (0, device, function));
    let Some(bdf) = bdf else {
        if !write && length >= 2 {
            // PCI_INVALID_VENDOR_ID.
            cx.w16(buffer, 0xffff)?;
        }
        return ret(2);
    };
    let end = offset.saturating_add(length).min(CONFIGURATION_SPACE);
    let mut at = offset;
    while at < end {
        // The widest aligned access that fits: registers with side effects are to be written whole.
        let size = [4u32, 2, 1].into_iter().find(|s| at % s == 0 && at + s <= end).unwrap_or(1);
        let va = buffer.wrapping_add(u64::from(at - offset));
        if write {
            let bytes = cx.bytes(va, size as usize)?;
            let value = bytes.iter().rev().fold(0u32, |v, &b| v << 8 | u32::from(b));
            cx.m.config_write(bdf, at as u16, size as u8, value);
        } else {
            let value = cx.m.config_read(bdf, at as u16, size as u8).to_le_bytes();
            cx.put(va, &value[..size as usize])?;
        }
        at += size;
    }
    ret(u64::from(end.saturating_sub(offset)))
}

exports! {
    [2] fn HalGetBusData(cx, kind: u32, bus: u32, slot: u32, buffer: u64, length: u32) {
        bus_data(cx, kind, (bus, slot), buffer, (0, length), false)
    }
    [2] fn HalGetBusDataByOffset(cx, kind: u32, bus: u32, slot: u32, buffer: u64, offset: u32, length: u32) {
        bus_data(cx, kind, (bus, slot), buffer, (offset, length), false)
    }
    [2] fn HalSetBusData(cx, kind: u32, bus: u32, slot: u32, buffer: u64, length: u32) {
        bus_data(cx, kind, (bus, slot), buffer, (0, length), true)
    }
    [2] fn HalSetBusDataByOffset(cx, kind: u32, bus: u32, slot: u32, buffer: u64, offset: u32, length: u32) {
        bus_data(cx, kind, (bus, slot), buffer, (offset, length), true)
    }
    // The address space, 0 memory or 1 ports, stays what it is: ports are not mapped into memory on x64.
    [2] fn HalTranslateBusAddress(cx, interface: u32, bus: u32, address: u64, space: u64, out: u64) {
        let known = matches!(interface, 0 | 1 | 5) && bus == 0;
        if !known || cx.r32(space)? > 1 {
            return ret(0);
        }
        cx.w64(out, address)?;
        ret(1)
    }
}
