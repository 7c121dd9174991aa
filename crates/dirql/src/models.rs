//! The device models a lab may name, and the properties each takes.

/// The form of a property's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// True or false.
    Flag,
    /// A number.
    Number,
    /// A list of numbers, or one.
    Numbers,
    /// Text.
    Text,
}

/// A property of a model, as a key of `[[device]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelProperty {
    /// The key.
    pub name: &'static str,
    /// Its meaning and default.
    pub summary: &'static str,
    /// The form of its value.
    pub form: Form,
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

const fn property(name: &'static str, form: Form, summary: &'static str) -> ModelProperty {
    ModelProperty { name, summary, form }
}

const SPURIOUS: ModelProperty = property(
    "spurious",
    Form::Number,
    "how often in a run it may interrupt without cause, or repeat a message; default 0",
);

/// Every model, in the order they are listed.
pub const MODELS: &[Model] = &[
    Model {
        name: "pulse",
        summary: "the smallest interrupt source: status, enable, raise and count registers",
        id: "1234:d1a1",
        interrupts: "line",
        properties: &[
            property("sources", Form::Number, "sources, 1 to 32; default as many as interrupts"),
            property("free_running", Form::Flag, "sources are enabled from reset; default false"),
            SPURIOUS,
        ],
        available: true,
    },
    Model {
        name: "edu",
        summary: "the public QEMU edu device: factorial, raised interrupts, DMA",
        id: "1234:11e8",
        interrupts: "line",
        properties: &[
            property("dma_mask", Form::Number, "the addresses its DMA reaches; default 0x0fffffff (28 bits)"),
            property("factorial_ns", Form::Number, "how long a factorial takes; default 10000"),
            property("dma_ns", Form::Number, "how long a transfer takes; default 100000"),
            SPURIOUS,
        ],
        available: true,
    },
    Model {
        name: "ring",
        summary: "a descriptor-ring DMA engine with one message per queue",
        id: "1234:d1a2",
        interrupts: "msix:4",
        properties: &[
            property("queues", Form::Number, "queues, 1 to 32; default as many as messages"),
            property("entries", Form::Number, "the most entries of a ring, a power of two; default 256"),
            property("delay_ns", Form::Number, "how long a descriptor takes; default 2000"),
            property("parallel", Form::Number, "descriptors of a queue in hand at a time; default 4"),
            SPURIOUS,
        ],
        available: true,
    },
    Model {
        name: "uart16550",
        summary: "a 16550 serial port, as a PCI card or at ISA ports",
        id: "1234:d1a3",
        interrupts: "line",
        properties: &[
            property("input", Form::Text, "what the host sends once RTS is on; default nothing"),
            property("flow", Form::Flag, "the host waits for RTS; default true"),
            property("out2_gate", Form::Flag, "OUT2 lets the interrupt out; default true"),
            SPURIOUS,
        ],
        available: true,
    },
    Model {
        name: "stub",
        summary: "for a driver with no model of its hardware: BARs and interrupts, reads answered by choice",
        id: "1234:d1a0",
        interrupts: "msix:8",
        properties: &[
            property("io_ports", Form::Number, "size of its I/O BAR; default 256 when a BAR is left"),
            property("values", Form::Numbers, "values a register may read as; default none"),
        ],
        available: true,
    },
];

/// The model of that name.
#[must_use]
pub fn model(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|m| m.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn the_table_is_what_the_models_are() {
        let names = |m: &[&'static str]| m.iter().copied().collect::<BTreeSet<_>>();
        let here: Vec<_> = MODELS.iter().map(|m| m.name).collect();
        let there: Vec<_> = dirql_devices::MODELS.iter().map(|m| m.name).collect();
        assert_eq!(names(&here), names(&there));
        for theirs in dirql_devices::MODELS {
            let ours = model(theirs.name).unwrap();
            let mut keys: BTreeSet<_> = ours.properties.iter().map(|p| p.name).collect();
            // `arrivals` is a key of every device.
            keys.extend(theirs.props.iter().map(|p| p.name).filter(|n| *n == "arrivals"));
            assert_eq!(keys, theirs.props.iter().map(|p| p.name).collect(), "{}", ours.name);
            let device =
                dirql_devices::build(ours.name, &BTreeMap::new()).map_err(|e| e.to_string()).unwrap();
            let identity = device.pci();
            assert_eq!(ours.id, format!("{:04x}:{:04x}", identity.vendor, identity.device));
        }
    }
}
