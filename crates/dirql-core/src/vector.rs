//! The arbiter: which vectors, levels and processors interrupts get (spec 6.3).

use alloc::vec::Vec;

use crate::{Affinity, Assigned, Irql, Mode, Polarity, Topology};

/// IRQ_PRIORITY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// IrqPriorityUndefined, 0, or normal, 2.
    #[default]
    Normal,
    /// IrqPriorityLow, 1.
    Low,
    /// IrqPriorityHigh, 3.
    High,
}

/// IRQ_DEVICE_POLICY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Any processor of group 0: policies 0 and 3.
    #[default]
    AllProcessors,
    /// The processors near the device: policy 1. The model has one node, so all of them.
    AllClose,
    /// One processor near the device: policy 2.
    OneClose,
    /// The processors given: policy 4. When none of them is active, any processor.
    Specified(Affinity),
    /// Message i to processor i, round and round: policy 5.
    SpreadMessages,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArbiterKind {
    /// A line. Every device on a GSI gets the same vector.
    Line {
        /// The global system interrupt.
        gsi: u32,
        /// Edge or level.
        mode: Mode,
        /// Which way it is active.
        polarity: Polarity,
    },
    /// MSI messages: a power of two, at most 16, in one aligned block of vectors.
    Msi {
        /// How many are wanted; rounded down to a power of two.
        count: u32,
    },
    /// MSI-X messages, each with a vector of its own.
    Msix {
        /// How many are wanted.
        count: u32,
    },
}

/// One request.
#[derive(Clone, Debug)]
pub struct ArbiterRequest {
    /// Line or messages.
    pub kind: ArbiterKind,
    /// The registry's DevicePriority.
    pub priority: Priority,
    /// The registry's DevicePolicy.
    pub policy: Policy,
    /// Wanted levels: empty, one for all, or one an interrupt.
    pub irqls: Vec<Irql>,
}

/// Why nothing was assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArbiterError {
    /// No vector is free at the levels allowed.
    NoVector,
    /// The GSI is in use with another mode or polarity.
    LineConflict,
    /// The GSI has a vector at another level than the one wanted.
    LevelConflict,
    /// A wanted level is no device level.
    NotADeviceIrql(Irql),
    /// The number of wanted levels is neither 0, 1 nor the number of interrupts.
    LevelCount,
    /// No messages were asked for.
    NoMessages,
}

/// Hands out vectors. Deterministic: the same requests in the same order get the same answers.
#[derive(Clone, Debug)]
pub struct Arbiter {
    topology: Topology,
}

impl Arbiter {
    /// An arbiter with every device vector free.
    pub fn new(topology: Topology) -> Arbiter {
        Arbiter { topology }
    }

    /// Assigns. Fewer messages than asked for is a success: MSI gives all or one, MSI-X as many as are free
    /// (spec D-13).
    pub fn assign(&mut self, request: &ArbiterRequest) -> Result<Vec<Assigned>, ArbiterError> {
        todo!()
    }

    /// Takes back what [`Arbiter::assign`] gave. A line's vector is free when its last device returned it.
    pub fn release(&mut self, assigned: &[Assigned]) {
        todo!()
    }
}
