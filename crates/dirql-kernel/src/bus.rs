//! The PCI and ISA bus drivers: what the PDO at the bottom of a device stack answers.

use crate::context::{Outcome, Result};
use crate::cx::Cx;
use crate::io::{self, IoThen, STATUS_NOT_SUPPORTED, irp, stack};
use crate::then::Then;

const IRP_MJ_POWER: u8 = 0x16;
const IRP_MJ_SYSTEM_CONTROL: u8 = 0x17;
const IRP_MJ_PNP: u8 = 0x1b;

const START_DEVICE: u8 = 0x00;
const SURPRISE_REMOVAL: u8 = 0x17;
const QUERY_CAPABILITIES: u8 = 0x09;
const READ_CONFIG: u8 = 0x0f;
const WRITE_CONFIG: u8 = 0x10;

/// A request reached the PDO.
pub(crate) fn dispatch(cx: &mut Cx<'_>, target: u64, at: u64) -> Result {
    let here = cx.r64(at + irp::CURRENT_STACK)?;
    let (major, minor) = (cx.r8(here)?, cx.r8(here + stack::MINOR)?);
    let device = cx.k.io.pdos.iter().find(|p| p.object == target).map(|p| p.machine);
    // A PDO completes a PnP request it does not handle with the status it came with.
    let mut status = cx.r32(at + irp::STATUS)?;
    match (major, minor) {
        // Start, the three remove/stop triples and surprise removal: the bus has nothing to refuse.
        (IRP_MJ_PNP, START_DEVICE..=0x06 | SURPRISE_REMOVAL) => status = 0,
        (IRP_MJ_PNP, QUERY_CAPABILITIES) => {
            let caps = cx.r64(here + stack::PARAMS)?;
            // DEVICE_CAPABILITIES: Address at 8, UINumber at 12, DeviceState[7] at 16 (D0 in S0, D3 asleep).
            cx.w32(caps + 12, u32::MAX)?;
            for (i, state) in [0u32, 1, 4, 4, 4, 4, 4].into_iter().enumerate() {
                cx.w32(caps + 16 + 4 * i as u64, state)?;
            }
            status = 0;
        }
        // Only PCI has configuration space: on ISA the request keeps the status it came with.
        (IRP_MJ_PNP, READ_CONFIG | WRITE_CONFIG) if device.is_some_and(|d| cx.m.bdf(d).is_some()) => {
            // Parameters.ReadWriteConfig: WhichSpace, Buffer, Offset, Length.
            let p = here + stack::PARAMS;
            let (buffer, offset, length) = (cx.r64(p + 8)?, cx.r32(p + 0x10)?, cx.r32(p + 0x18)?.min(4096));
            if let Some(bdf) = device.and_then(|d| cx.m.bdf(d)) {
                for i in 0..length {
                    let a = (offset + i) as u16;
                    if a >= 256 {
                        break;
                    }
                    if minor == READ_CONFIG {
                        let byte = cx.m.config_read(bdf, a, 1) as u8;
                        cx.w8(buffer + u64::from(i), byte)?;
                    } else {
                        let byte = cx.r8(buffer + u64::from(i))?;
                        cx.m.config_write(bdf, a, 1, u32::from(byte));
                    }
                }
            }
            cx.w64(at + irp::INFORMATION, u64::from(length))?;
            status = 0;
        }
        (IRP_MJ_PNP, _) => {}
        (IRP_MJ_POWER, 2) => {
            // IRP_MN_SET_POWER: Type at +8 of the parameters (1 is DevicePowerState), State at +16.
            let p = here + stack::PARAMS;
            let (kind, state) = (cx.r32(p + 8)?, cx.r32(p + 16)?);
            if let (1, Some(device)) = (kind, device) {
                crate::board::set_d_state(cx.m, device, state.saturating_sub(1) as u8);
            }
            status = 0;
        }
        (IRP_MJ_POWER, _) => status = 0,
        (IRP_MJ_SYSTEM_CONTROL, _) => {}
        _ => status = STATUS_NOT_SUPPORTED,
    }
    cx.w32(at + irp::STATUS, status)?;
    match io::complete(cx, at)? {
        Outcome::Call { routine, args, then: Then::Io(IoThen::Complete(next)) } => {
            Ok(Outcome::Call { routine, args, then: Then::Io(IoThen::CompleteWith(next, status)) })
        }
        _ => Ok(Outcome::Ret(u64::from(status))),
    }
}
