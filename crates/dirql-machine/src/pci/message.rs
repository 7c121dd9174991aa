//! The x86 form of an interrupt message: what an address and a data value mean (SDM vol. 3, "Message Signalled
//! Interrupts"; spec 2.7).

use crate::ioapic::Dest;

/// What a message asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// The vector.
    pub vector: u8,
    /// Who gets it.
    pub dest: Dest,
}

/// Why a message means no interrupt here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadMessage {
    /// The address is not in 0xFEE00000-0xFEEFFFFF: it is an ordinary memory write.
    NotApic,
    /// Vectors below 16 are reserved.
    Vector(u8),
    /// A delivery mode other than fixed and lowest priority (SMI, NMI, INIT, ExtINT).
    Mode(u8),
    /// No processor has this destination.
    Nobody,
}

impl std::fmt::Display for BadMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadMessage::NotApic => write!(f, "the address is outside 0xFEE00000-0xFEEFFFFF"),
            BadMessage::Vector(v) => write!(f, "vector {v:#04x} is reserved"),
            BadMessage::Mode(m) => write!(f, "delivery mode {m} is not modelled"),
            BadMessage::Nobody => write!(f, "no processor has this destination"),
        }
    }
}

/// Decodes a message for a machine of `cpus` processors, whose APIC ids are their numbers and whose logical ids
/// are one bit each in the flat model (the first eight processors).
///
/// # Errors
/// What makes the message no interrupt.
pub fn decode(address: u64, data: u32, cpus: u32) -> Result<Decoded, BadMessage> {
    if address >> 20 != 0xFEE {
        return Err(BadMessage::NotApic);
    }
    let (id, redirect, logical) = ((address >> 12) as u8, address & 8 != 0, address & 4 != 0);
    let (vector, mode) = (data as u8, (data >> 8 & 7) as u8);
    if mode > 1 {
        return Err(BadMessage::Mode(mode));
    }
    if vector < 16 {
        return Err(BadMessage::Vector(vector));
    }
    let everyone = if cpus >= 64 { u64::MAX } else { (1u64 << cpus) - 1 };
    let mask = match (logical, id) {
        (true, set) => u64::from(set) & everyone,
        (false, 0xff) => everyone,
        (false, id) if u32::from(id) < cpus => return Ok(Decoded { vector, dest: Dest::Cpu(u32::from(id)) }),
        _ => 0,
    };
    let dest = match mask.count_ones() {
        0 => return Err(BadMessage::Nobody),
        1 => Dest::Cpu(mask.trailing_zeros()),
        // The redirection hint asks for the processor with the lowest priority of the set, as mode 1 does.
        _ if mode == 1 || redirect => Dest::AnyOf(mask),
        _ => Dest::AllOf(mask),
    };
    Ok(Decoded { vector, dest })
}

/// Encodes vector and destination as spec 2.7 (I-7) says: one processor is fixed and physical, several are lowest
/// priority and flat logical. `None` when a set of several has a processor past the eighth, which the flat model
/// can't name, or is empty.
pub fn encode(vector: u8, dest: Dest) -> Option<(u64, u32)> {
    const BASE: u64 = 0xFEE0_0000;
    let mask = match dest {
        Dest::Cpu(cpu) => return (cpu < 255).then(|| (BASE | u64::from(cpu) << 12, u32::from(vector))),
        Dest::AnyOf(mask) | Dest::AllOf(mask) => mask,
    };
    if mask == 0 || mask > 0xff {
        return (mask.count_ones() == 1)
            .then(|| (BASE | u64::from(mask.trailing_zeros()) << 12, u32::from(vector)));
    }
    Some(match dest {
        Dest::AllOf(_) => (BASE | mask << 12 | 4, u32::from(vector)),
        _ if mask.count_ones() == 1 => (BASE | u64::from(mask.trailing_zeros()) << 12, u32::from(vector)),
        _ => (BASE | mask << 12 | 8 | 4, u32::from(vector) | 1 << 8),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        for dest in [Dest::Cpu(0), Dest::Cpu(3), Dest::AnyOf(0b1010), Dest::AllOf(0b11)] {
            let (address, data) = encode(0x71, dest).unwrap();
            assert_eq!(decode(address, data, 4), Ok(Decoded { vector: 0x71, dest }));
        }
        assert_eq!(encode(0x71, Dest::AnyOf(0b11)), Some((0xFEE0_300C, 0x171)));
        assert_eq!(encode(0x71, Dest::AnyOf(0b10)), Some((0xFEE0_1000, 0x71)));
        assert_eq!(encode(0x71, Dest::AnyOf(0x101)), None);
    }

    #[test]
    fn what_is_no_interrupt_is_named() {
        assert_eq!(decode(0x1000, 0x71, 2), Err(BadMessage::NotApic));
        assert_eq!(decode(0xFEE0_0000, 5, 2), Err(BadMessage::Vector(5)));
        assert_eq!(decode(0xFEE0_0000, 0x471, 2), Err(BadMessage::Mode(4)));
        assert_eq!(decode(0xFEE0_7000, 0x71, 2), Err(BadMessage::Nobody));
    }
}
