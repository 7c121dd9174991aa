//! What happened in the machine, for those who watch a run.

use dirql_mem::Pa;

use crate::DeviceId;

/// Most events kept until they are taken; later ones are counted, not kept.
pub const MAX_LOG: usize = 1 << 16;

/// Something that happened, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineEvent {
    /// Virtual time in ticks (1 ns).
    pub time: u64,
    /// What.
    pub kind: MachineEventKind,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MachineEventKind {
    /// A device asserts its line or lets go.
    Line {
        /// Which device.
        device: DeviceId,
        /// Its GSI.
        gsi: u32,
        /// Asserted, or not any more.
        asserted: bool,
    },
    /// A message left a device.
    Message {
        /// Which device.
        device: DeviceId,
        /// Message or table entry.
        message: u32,
        /// The vector it carries.
        vector: u8,
    },
    /// A message is masked and waits in its pending bit.
    MessagePending {
        /// Which device.
        device: DeviceId,
        /// Message or table entry.
        message: u32,
    },
    /// A message went nowhere.
    MessageLost {
        /// Which device.
        device: DeviceId,
        /// Message or table entry.
        message: u32,
        /// Why.
        reason: String,
    },
    /// A processor's local APIC got a request.
    Request {
        /// The processor.
        cpu: u32,
        /// The vector.
        vector: u8,
        /// It merged with a request that waited already.
        merged: bool,
    },
    /// A processor accessed a device's register.
    Register {
        /// The processor.
        cpu: u32,
        /// Which device.
        device: DeviceId,
        /// BAR register number.
        bar: u8,
        /// Offset in the BAR.
        offset: u64,
        /// Bytes.
        size: u8,
        /// What was read or written.
        value: u64,
        /// It was a write.
        write: bool,
    },
    /// A processor accessed an address or port that nothing decodes: reads give all ones, writes are lost.
    Unclaimed {
        /// The processor.
        cpu: u32,
        /// Address, or port.
        at: u64,
        /// It was a port.
        port: bool,
        /// Bytes.
        size: u8,
        /// It was a write.
        write: bool,
    },
    /// A device accessed memory.
    Dma {
        /// Which device.
        device: DeviceId,
        /// First byte.
        pa: Pa,
        /// Bytes.
        len: u64,
        /// To memory.
        write: bool,
        /// Why it did not happen.
        error: Option<String>,
    },
    /// A device entered a power state.
    Power {
        /// Which device.
        device: DeviceId,
        /// 0 or 3.
        d_state: u8,
    },
    /// A device says something about itself, such as a register its driver used against the data sheet.
    Note {
        /// Which device.
        device: DeviceId,
        /// What it says.
        text: String,
    },
}

/// The events not taken yet.
#[derive(Clone, Default, Debug)]
pub(crate) struct Log {
    events: Vec<MachineEvent>,
    lost: u64,
    /// Events before this one have their time; the rest happened in a run that has not ended.
    stamped: usize,
}

impl Log {
    pub(crate) fn push(&mut self, kind: MachineEventKind) {
        if self.events.len() < MAX_LOG {
            self.events.push(MachineEvent { time: 0, kind });
        } else {
            self.lost = self.lost.saturating_add(1);
        }
    }

    pub(crate) fn stamp(&mut self, now: u64) {
        for event in self.events.iter_mut().skip(self.stamped) {
            event.time = now;
        }
        self.stamped = self.events.len();
    }

    pub(crate) fn take(&mut self) -> Vec<MachineEvent> {
        self.stamped = 0;
        std::mem::take(&mut self.events)
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }
}
