//! Resource lists, byte for byte (spec 2.3, 2.4, 11): what START_DEVICE carries and what FILTER_RESOURCE_REQUIREMENTS passes.
//!
//! [`ResourceList`] is a CM_RESOURCE_LIST of one full descriptor, raw or translated. [`Requirements`] is an
//! IO_RESOURCE_REQUIREMENTS_LIST. Both encode to bytes for guest memory and decode from what a driver left there.

/// `InterfaceType` of the PCI bus.
pub const PCI_BUS: u32 = 5;
/// `InterfaceType` of the ISA bus.
pub const ISA: u32 = 1;

/// CmResourceType values.
pub mod resource_type {
    /// Nothing.
    pub const NULL: u8 = 0;
    /// I/O ports.
    pub const PORT: u8 = 1;
    /// Interrupt line or message.
    pub const INTERRUPT: u8 = 2;
    /// Memory.
    pub const MEMORY: u8 = 3;
    /// DMA channel.
    pub const DMA: u8 = 4;
    /// Driver-defined data.
    pub const DEVICE_SPECIFIC: u8 = 5;
    /// Bus numbers.
    pub const BUS_NUMBER: u8 = 6;
    /// Memory of 4 GiB and more.
    pub const MEMORY_LARGE: u8 = 7;
    /// Bus driver's private data, which drivers skip.
    pub const DEVICE_PRIVATE: u8 = 0x81;
}

/// CmResourceShare values.
pub mod share {
    /// Not decided.
    pub const UNDETERMINED: u8 = 0;
    /// One device only.
    pub const DEVICE_EXCLUSIVE: u8 = 1;
    /// One driver only.
    pub const DRIVER_EXCLUSIVE: u8 = 2;
    /// Shared.
    pub const SHARED: u8 = 3;
}

/// `Flags` of interrupt, port and memory descriptors.
pub mod flags {
    /// Interrupt: edge triggered.
    pub const INTERRUPT_LATCHED: u16 = 1;
    /// Interrupt: a message; always with LATCHED.
    pub const INTERRUPT_MESSAGE: u16 = 2;
    /// Interrupt requirement: policy fields are valid.
    pub const INTERRUPT_POLICY_INCLUDED: u16 = 4;
    /// Port: I/O space.
    pub const PORT_IO: u16 = 1;
    /// Memory: read and write is 0, read only 1.
    pub const MEMORY_READ_ONLY: u16 = 1;
    /// Memory: prefetchable.
    pub const MEMORY_PREFETCHABLE: u16 = 4;
}

/// `MinimumVector`/`MaximumVector` that ask for messages: this for the last one, less one for each further message.
pub const MESSAGE_TOKEN: u32 = 0xffff_fffe;

/// One CM_PARTIAL_RESOURCE_DESCRIPTOR: 20 bytes, packed to 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// CmResourceType, see [`resource_type`].
    pub kind: u8,
    /// CmResourceShare, see [`share`].
    pub share: u8,
    /// See [`flags`].
    pub flags: u16,
    /// The union, 16 bytes.
    pub data: [u8; 16],
}

/// An interrupt descriptor's fields: Level is the DIRQL when translated, the bus level when raw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupt {
    /// `u.Interrupt.Level`.
    pub level: u16,
    /// `u.Interrupt.Group`; not 0 only for binaries built with NT_PROCESSOR_GROUPS.
    pub group: u16,
    /// `u.Interrupt.Vector`.
    pub vector: u32,
    /// `u.Interrupt.Affinity`.
    pub affinity: u64,
}

impl Descriptor {
    /// Bytes of a descriptor.
    pub const SIZE: usize = 20;

    /// A memory range.
    #[must_use]
    pub fn memory(start: u64, length: u32, flags: u16) -> Self {
        Self::range(resource_type::MEMORY, start, length, flags)
    }

    /// A port range.
    #[must_use]
    pub fn port(start: u64, length: u32) -> Self {
        Self::range(resource_type::PORT, start, length, flags::PORT_IO)
    }

    fn range(kind: u8, start: u64, length: u32, flags: u16) -> Self {
        let mut data = [0; 16];
        data[..8].copy_from_slice(&start.to_le_bytes());
        data[8..12].copy_from_slice(&length.to_le_bytes());
        Self { kind, share: share::DEVICE_EXCLUSIVE, flags, data }
    }

    /// A line interrupt, raw or translated.
    #[must_use]
    pub fn line(interrupt: Interrupt, latched: bool, share: u8) -> Self {
        let flags = if latched { flags::INTERRUPT_LATCHED } else { 0 };
        Self { kind: resource_type::INTERRUPT, share, flags, data: interrupt.encode() }
    }

    /// A translated message interrupt.
    #[must_use]
    pub fn message(interrupt: Interrupt) -> Self {
        Self {
            kind: resource_type::INTERRUPT,
            share: share::DEVICE_EXCLUSIVE,
            flags: flags::INTERRUPT_LATCHED | flags::INTERRUPT_MESSAGE,
            data: interrupt.encode(),
        }
    }

    /// A raw message interrupt: `count` messages from `vector` (one for MSI-X).
    #[must_use]
    pub fn raw_message(group: u16, count: u16, vector: u32, affinity: u64) -> Self {
        Self::message(Interrupt { level: group, group: count, vector, affinity })
    }

    /// A bus driver's private descriptor; START lists carry them between the BARs.
    #[must_use]
    pub fn device_private(words: [u32; 3]) -> Self {
        let mut data = [0; 16];
        for (to, word) in data.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        Self { kind: resource_type::DEVICE_PRIVATE, share: share::DEVICE_EXCLUSIVE, flags: 0, data }
    }

    /// The interrupt fields, for an interrupt descriptor. For a raw message `level` is the group and `group` the message count.
    #[must_use]
    pub fn interrupt(&self) -> Option<Interrupt> {
        (self.kind == resource_type::INTERRUPT).then(|| Interrupt::decode(&self.data))
    }

    /// Whether it is a message interrupt.
    #[must_use]
    pub fn is_message(&self) -> bool {
        self.kind == resource_type::INTERRUPT && self.flags & flags::INTERRUPT_MESSAGE != 0
    }

    /// Start and length of a port or memory range.
    #[must_use]
    pub fn as_range(&self) -> Option<(u64, u32)> {
        matches!(self.kind, resource_type::PORT | resource_type::MEMORY)
            .then(|| (u64_at(&self.data, 0), u32_at(&self.data, 8)))
    }

    /// The 20 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[0] = self.kind;
        out[1] = self.share;
        out[2..4].copy_from_slice(&self.flags.to_le_bytes());
        out[4..].copy_from_slice(&self.data);
        out
    }

    /// Reads 20 bytes.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let mut data = [0; 16];
        data.copy_from_slice(&bytes[4..]);
        Self { kind: bytes[0], share: bytes[1], flags: u16::from_le_bytes([bytes[2], bytes[3]]), data }
    }
}

impl Interrupt {
    fn encode(self) -> [u8; 16] {
        let mut data = [0; 16];
        data[..2].copy_from_slice(&self.level.to_le_bytes());
        data[2..4].copy_from_slice(&self.group.to_le_bytes());
        data[4..8].copy_from_slice(&self.vector.to_le_bytes());
        data[8..].copy_from_slice(&self.affinity.to_le_bytes());
        data
    }

    fn decode(data: &[u8; 16]) -> Self {
        Self {
            level: u16::from_le_bytes([data[0], data[1]]),
            group: u16::from_le_bytes([data[2], data[3]]),
            vector: u32_at(data, 4),
            affinity: u64_at(data, 8),
        }
    }
}

/// A CM_RESOURCE_LIST with one full descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceList {
    /// `InterfaceType`, [`PCI_BUS`] for PCI.
    pub interface_type: u32,
    /// `BusNumber`.
    pub bus_number: u32,
    /// The descriptors, in START_DEVICE order: BARs, then interrupts.
    pub descriptors: Vec<Descriptor>,
}

impl ResourceList {
    /// The most descriptors [`ResourceList::decode`] accepts: a 2048-message MSI-X function with its BARs fits.
    pub const MAX_DESCRIPTORS: u32 = 4096;

    /// The list as it lies in guest memory.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.descriptors.len()).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(20 + self.descriptors.len() * Descriptor::SIZE);
        for word in [1, self.interface_type, self.bus_number, 0x0001_0001, count] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        self.descriptors.iter().for_each(|d| out.extend_from_slice(&d.encode()));
        out
    }

    /// Reads a list of one full descriptor; `None` when it is cut short, has another count or too many descriptors.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..20)?;
        let count = u32_at(head, 16);
        if u32_at(head, 0) != 1 || count > Self::MAX_DESCRIPTORS {
            return None;
        }
        let body = bytes.get(20..)?.get(..usize::try_from(count).ok()? * Descriptor::SIZE)?;
        let descriptors = body
            .chunks_exact(Descriptor::SIZE)
            .filter_map(|c| c.try_into().ok())
            .map(Descriptor::decode)
            .collect();
        Some(Self { interface_type: u32_at(head, 4), bus_number: u32_at(head, 8), descriptors })
    }
}

/// One IO_RESOURCE_DESCRIPTOR: 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requirement {
    /// `Option`: 0 required, 1 preferred, 2 default, 8 alternative.
    pub option: u8,
    /// CmResourceType.
    pub kind: u8,
    /// CmResourceShare.
    pub share: u8,
    /// See [`flags`].
    pub flags: u16,
    /// The union, 24 bytes.
    pub data: [u8; 24],
}

impl Requirement {
    /// Bytes of a requirement.
    pub const SIZE: usize = 32;

    /// A memory range of `length` bytes, anywhere from `minimum` to `maximum`.
    #[must_use]
    pub fn memory(length: u32, alignment: u32, minimum: u64, maximum: u64) -> Self {
        Self::range(resource_type::MEMORY, 0, length, alignment, minimum, maximum)
    }

    /// A port range.
    #[must_use]
    pub fn port(length: u32, alignment: u32, minimum: u64, maximum: u64) -> Self {
        Self::range(resource_type::PORT, flags::PORT_IO, length, alignment, minimum, maximum)
    }

    fn range(kind: u8, flags: u16, length: u32, alignment: u32, minimum: u64, maximum: u64) -> Self {
        let mut data = [0; 24];
        data[..4].copy_from_slice(&length.to_le_bytes());
        data[4..8].copy_from_slice(&alignment.to_le_bytes());
        data[8..16].copy_from_slice(&minimum.to_le_bytes());
        data[16..].copy_from_slice(&maximum.to_le_bytes());
        Self { option: 0, kind, share: share::DEVICE_EXCLUSIVE, flags, data }
    }

    /// An interrupt line between two vectors.
    #[must_use]
    pub fn line(minimum: u32, maximum: u32, latched: bool, share: u8) -> Self {
        let flags = if latched { flags::INTERRUPT_LATCHED } else { 0 };
        Self { option: 0, kind: resource_type::INTERRUPT, share, flags, data: vectors(minimum, maximum) }
    }

    /// `count` messages in one descriptor, as multi-message MSI asks for them.
    #[must_use]
    pub fn messages(count: u32) -> Self {
        let minimum = MESSAGE_TOKEN.saturating_sub(count.saturating_sub(1));
        Self {
            option: 0,
            kind: resource_type::INTERRUPT,
            share: share::DEVICE_EXCLUSIVE,
            flags: flags::INTERRUPT_LATCHED | flags::INTERRUPT_MESSAGE,
            data: vectors(minimum, MESSAGE_TOKEN),
        }
    }

    /// Minimum and maximum vector of an interrupt requirement.
    #[must_use]
    pub fn vectors(&self) -> Option<(u32, u32)> {
        (self.kind == resource_type::INTERRUPT).then(|| (u32_at(&self.data, 0), u32_at(&self.data, 4)))
    }

    /// AffinityPolicy, Group, PriorityPolicy and TargetedProcessors, when POLICY_INCLUDED says that they are valid.
    #[must_use]
    pub fn policy(&self) -> Option<(u16, u16, u32, u64)> {
        (self.kind == resource_type::INTERRUPT && self.flags & flags::INTERRUPT_POLICY_INCLUDED != 0).then(
            || {
                let policy = u32_at(&self.data, 8);
                (policy as u16, (policy >> 16) as u16, u32_at(&self.data, 12), u64_at(&self.data, 16))
            },
        )
    }

    /// The 32 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..4].copy_from_slice(&[self.option, self.kind, self.share, 0]);
        out[4..6].copy_from_slice(&self.flags.to_le_bytes());
        out[8..].copy_from_slice(&self.data);
        out
    }

    /// Reads 32 bytes.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let mut data = [0; 24];
        data.copy_from_slice(&bytes[8..]);
        let flags = u16::from_le_bytes([bytes[4], bytes[5]]);
        Self { option: bytes[0], kind: bytes[1], share: bytes[2], flags, data }
    }
}

fn vectors(minimum: u32, maximum: u32) -> [u8; 24] {
    let mut data = [0; 24];
    data[..4].copy_from_slice(&minimum.to_le_bytes());
    data[4..8].copy_from_slice(&maximum.to_le_bytes());
    data
}

/// An IO_RESOURCE_REQUIREMENTS_LIST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// `InterfaceType`.
    pub interface_type: u32,
    /// `BusNumber`.
    pub bus_number: u32,
    /// `SlotNumber`.
    pub slot_number: u32,
    /// The alternative lists, the preferred one first.
    pub alternatives: Vec<Vec<Requirement>>,
}

impl Requirements {
    /// The most requirements, over all alternatives, that [`Requirements::decode`] accepts.
    pub const MAX_REQUIREMENTS: usize = 8192;

    /// The list as it lies in guest memory; `ListSize` is its length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 32];
        for list in &self.alternatives {
            let count = u32::try_from(list.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&0x0001_0001_u32.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
            list.iter().for_each(|r| out.extend_from_slice(&r.encode()));
        }
        let size = u32::try_from(out.len()).unwrap_or(u32::MAX);
        let lists = u32::try_from(self.alternatives.len()).unwrap_or(u32::MAX);
        for (at, word) in
            [(0, size), (4, self.interface_type), (8, self.bus_number), (12, self.slot_number), (28, lists)]
        {
            out[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Reads a list; `None` when it is cut short, contradicts its `ListSize` or has too many requirements.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..usize::try_from(u32_at(bytes.get(..4)?, 0)).ok()?)?;
        let head = bytes.get(..32)?;
        let (mut at, mut total, mut alternatives) = (32_usize, 0_usize, Vec::new());
        for _ in 0..u32_at(head, 28) {
            let count = usize::try_from(u32_at(bytes.get(at + 4..at + 8)?, 0)).ok()?;
            total = total.checked_add(count).filter(|&t| t <= Self::MAX_REQUIREMENTS)?;
            let body = bytes.get(at + 8..)?.get(..count * Requirement::SIZE)?;
            alternatives.push(
                body.chunks_exact(Requirement::SIZE)
                    .filter_map(|c| c.try_into().ok())
                    .map(Requirement::decode)
                    .collect(),
            );
            at += 8 + body.len();
        }
        Some(Self {
            interface_type: u32_at(head, 4),
            bus_number: u32_at(head, 8),
            slot_number: u32_at(head, 12),
            alternatives,
        })
    }
}

/// The callers index inside arrays whose length they know.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        text.split_whitespace().map(|b| u8::from_str_radix(b, 16).expect("hex")).collect()
    }

    fn translated(level: u16, vector: u32, affinity: u64) -> Interrupt {
        Interrupt { level, group: 0, vector, affinity }
    }

    /// Spec 11, the 80-byte list.
    #[test]
    fn translated_list_is_byte_exact() {
        let list = ResourceList {
            interface_type: PCI_BUS,
            bus_number: 0,
            descriptors: vec![
                Descriptor::memory(0xfebf_0000, 0x1000, 0),
                Descriptor::message(translated(9, 0x91, 1)),
                Descriptor::message(translated(8, 0x81, 2)),
            ],
        };
        let bytes = hex("01 00 00 00 05 00 00 00 00 00 00 00 01 00 01 00 03 00 00 00
             03 01 00 00 00 00 bf fe 00 00 00 00 00 10 00 00 00 00 00 00
             02 01 03 00 09 00 00 00 91 00 00 00 01 00 00 00 00 00 00 00
             02 01 03 00 08 00 00 00 81 00 00 00 02 00 00 00 00 00 00 00");
        assert_eq!(list.encode(), bytes);
        assert_eq!(ResourceList::decode(&bytes), Some(list));
        for len in 0..bytes.len() {
            assert_eq!(ResourceList::decode(&bytes[..len]), None);
        }
        let mut many = bytes;
        many[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(ResourceList::decode(&many), None);
    }

    /// Spec 11, the single descriptors.
    #[test]
    fn descriptors_are_byte_exact() {
        let cases = [
            (
                Descriptor::raw_message(0, 1, 0x91, 1),
                "02 01 03 00 00 00 01 00 91 00 00 00 01 00 00 00 00 00 00 00",
            ),
            (
                Descriptor::raw_message(0, 4, 0x80, 15),
                "02 01 03 00 00 00 04 00 80 00 00 00 0f 00 00 00 00 00 00 00",
            ),
            (
                Descriptor::message(translated(8, 0x80, 15)),
                "02 01 03 00 08 00 00 00 80 00 00 00 0f 00 00 00 00 00 00 00",
            ),
            (
                Descriptor::line(translated(7, 0x71, 15), false, share::SHARED),
                "02 03 00 00 07 00 00 00 71 00 00 00 0f 00 00 00 00 00 00 00",
            ),
        ];
        for (descriptor, text) in cases {
            assert_eq!(descriptor.encode().to_vec(), hex(text));
            assert_eq!(Descriptor::decode(&descriptor.encode()), descriptor);
        }
        assert_eq!(
            Requirement::messages(4).encode().to_vec(),
            hex(
                "00 02 01 00 03 00 00 00 fb ff ff ff fe ff ff ff 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
            )
        );
    }

    #[test]
    fn requirements_round_trip_and_refuse_damage() {
        let list = Requirements {
            interface_type: PCI_BUS,
            bus_number: 0,
            slot_number: 3,
            alternatives: vec![
                vec![Requirement::memory(0x1000, 0x1000, 0, 0xffff_ffff), Requirement::messages(4)],
                vec![Requirement::line(0, 23, false, share::SHARED)],
            ],
        };
        let bytes = list.encode();
        assert_eq!(bytes.len(), 32 + 8 + 64 + 8 + 32);
        assert_eq!(Requirements::decode(&bytes), Some(list));
        for len in 0..bytes.len() {
            assert_eq!(Requirements::decode(&bytes[..len]), None);
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            let _ = Requirements::decode(&damaged);
        }
    }
}
