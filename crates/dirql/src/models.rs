//! The device models a lab may name, and the properties each takes.

/// A property of a model, as a key of `[[device]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelProperty {
    /// The key.
    pub name: &'static str,
    /// Its meaning and default.
    pub summary: &'static str,
    /// Whether it is true or false; otherwise it is a number, or a list of them.
    pub is_bool: bool,
}

/// A device model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name in the lab.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// Its bus identity, vendor:device.
    pub id: &'static str,
    /// `interrupts` when the lab says nothing.
    pub interrupts: &'static str,
    /// Its own keys.
    pub properties: &'static [ModelProperty],
    /// Whether this dirql has it. Those it has not are named so that a lab written for them is understood.
    pub available: bool,
}

/// Every model, in the order they are listed.
pub const MODELS: &[Model] = &[
    Model {
        name: "pulse",
        summary: "the smallest interrupt source: status, enable, raise and count registers",
        id: "1234:d1a1",
        interrupts: "line",
        properties: &[
            ModelProperty {
                name: "sources",
                summary: "sources, 1 to 32; default as many as interrupts",
                is_bool: false,
            },
            ModelProperty {
                name: "free_running",
                summary: "sources are enabled from reset; default false",
                is_bool: true,
            },
        ],
        available: true,
    },
    Model {
        name: "edu",
        summary: "the public QEMU edu device: factorial, raised interrupts, DMA",
        id: "1234:11e8",
        interrupts: "line",
        properties: &[ModelProperty {
            name: "dma_mask",
            summary: "the addresses its DMA reaches; default 0x0fffffff (28 bits)",
            is_bool: false,
        }],
        available: true,
    },
    Model {
        name: "stub",
        summary: "for a driver with no model of its hardware: BARs and interrupts, reads answered by choice",
        id: "1234:0001",
        interrupts: "msix:8",
        properties: &[],
        available: true,
    },
    Model {
        name: "uart16550",
        summary: "a 16550 serial port",
        id: "1234:1655",
        interrupts: "line",
        properties: &[],
        available: false,
    },
    Model {
        name: "ring",
        summary: "a descriptor-ring DMA engine with one message per queue",
        id: "1234:0002",
        interrupts: "msix:4",
        properties: &[],
        available: false,
    },
];

/// The model of that name.
#[must_use]
pub fn model(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|m| m.name == name)
}
