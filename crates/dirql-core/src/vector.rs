//! The arbiter: which vectors, levels and processors interrupts get (spec 6.3).

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::{Affinity, Assigned, AssignedKind, Irql, Mode, Polarity, Share, Topology, Windows};

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

impl ArbiterKind {
    /// The request after the registry's MessageNumberLimit (`None` or 0: no limit) and the most messages that a
    /// function may have on this Windows (spec 6.1: 2048 from Windows 8 on, 910 before). Lines stay as they are.
    #[must_use]
    pub fn limited(self, limit: Option<u32>, windows: Windows) -> ArbiterKind {
        let most = if windows >= Windows::W8 { MSIX_MESSAGES } else { MSIX_MESSAGES_BEFORE_8 };
        let limit = limit.filter(|&limit| limit > 0).map_or(most, |limit| limit.min(most));
        match self {
            ArbiterKind::Line { .. } => self,
            ArbiterKind::Msi { count } => ArbiterKind::Msi { count: count.min(limit) },
            ArbiterKind::Msix { count } => ArbiterKind::Msix { count: count.min(limit) },
        }
    }
}

/// IRQ_GROUP_POLICY (spec I-26).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupPolicy {
    /// GroupAffinityAllGroupZero, 0: the default since Windows 7.
    #[default]
    GroupZero,
    /// GroupAffinityDontCare, 1: the group with the fewest interrupts for each of its processors, the lowest when
    /// several are equal.
    DontCare,
}

/// Who takes an interrupt whose affinity has several processors (spec I-7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// Any one processor of the set, each time anew.
    #[default]
    Lowest,
    /// The arbiter picks one for good, as systems with many processors do: the one with the fewest interrupts.
    Fixed,
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

/// A GSI that has a vector.
#[derive(Clone, Copy, Debug)]
struct Line {
    assigned: Assigned,
    users: u32,
}

/// Hands out vectors. Deterministic: the same requests in the same order get the same answers.
///
/// A vector belongs to one source on every processor, so the whole machine has 159 of them.
#[derive(Clone, Debug)]
pub struct Arbiter {
    topology: Topology,
    delivery: Delivery,
    /// The vectors given out, and where each may be delivered.
    used: BTreeMap<u8, Affinity>,
    lines: BTreeMap<u32, Line>,
}

/// Corrected machine check interrupts sit here.
const CMCI_VECTOR: u8 = 0x35;
/// Messages a multi-message MSI block has at most (spec D-14).
const MSI_BLOCK: u32 = 16;
/// Messages one function has at most, from Windows 8 on and before.
const MSIX_MESSAGES: u32 = 2048;
const MSIX_MESSAGES_BEFORE_8: u32 = 910;

impl Arbiter {
    /// An arbiter with every device vector free.
    pub fn new(topology: Topology) -> Arbiter {
        Arbiter { topology, delivery: Delivery::Lowest, used: BTreeMap::new(), lines: BTreeMap::new() }
    }

    /// The same arbiter under a delivery profile.
    #[must_use]
    pub fn with_delivery(self, delivery: Delivery) -> Arbiter {
        Arbiter { delivery, ..self }
    }

    /// Assigns. Fewer messages than asked for is a success: MSI gives all or one, MSI-X as many as are free
    /// (spec D-13).
    ///
    /// # Errors
    ///
    /// See [`ArbiterError`]; nothing is taken then.
    pub fn assign(&mut self, request: &ArbiterRequest) -> Result<Vec<Assigned>, ArbiterError> {
        self.assign_by_group(request, GroupPolicy::GroupZero)
    }

    /// [`Arbiter::assign`] under a group policy. A policy that names processors is not changed by it.
    ///
    /// # Errors
    ///
    /// As [`Arbiter::assign`].
    pub fn assign_by_group(
        &mut self,
        request: &ArbiterRequest,
        groups: GroupPolicy,
    ) -> Result<Vec<Assigned>, ArbiterError> {
        let count = match request.kind {
            ArbiterKind::Line { .. } => 1,
            ArbiterKind::Msi { count } | ArbiterKind::Msix { count } => count,
        };
        if count == 0 {
            return Err(ArbiterError::NoMessages);
        }
        if let Some(&bad) = request.irqls.iter().find(|irql| !irql.is_device()) {
            return Err(ArbiterError::NotADeviceIrql(bad));
        }
        if request.irqls.len() > 1 && u32::try_from(request.irqls.len()) != Ok(count) {
            return Err(ArbiterError::LevelCount);
        }
        let group = match groups {
            GroupPolicy::GroupZero => 0,
            GroupPolicy::DontCare => self.quietest_group(),
        };
        match request.kind {
            ArbiterKind::Line { gsi, mode, polarity } => self.line(request, gsi, mode, polarity, group),
            ArbiterKind::Msi { count } => self.msi(request, count, group),
            ArbiterKind::Msix { count } => self.msix(request, count.min(MSIX_MESSAGES), group),
        }
    }

    /// Takes back what [`Arbiter::assign`] gave. A line's vector is free when its last device returned it.
    pub fn release(&mut self, assigned: &[Assigned]) {
        for one in assigned {
            match one.kind {
                AssignedKind::Message { .. } => {
                    self.used.remove(&one.vector);
                }
                AssignedKind::Line { gsi } => {
                    let Some(line) = self.lines.get_mut(&gsi) else { continue };
                    line.users = line.users.saturating_sub(1);
                    if line.users == 0 {
                        self.used.remove(&line.assigned.vector);
                        self.lines.remove(&gsi);
                    }
                }
            }
        }
    }

    fn line(
        &mut self,
        request: &ArbiterRequest,
        gsi: u32,
        mode: Mode,
        polarity: Polarity,
        group: u16,
    ) -> Result<Vec<Assigned>, ArbiterError> {
        let wanted = request.irqls.first().copied();
        if let Some(line) = self.lines.get_mut(&gsi) {
            if line.assigned.mode != mode || line.assigned.polarity != polarity {
                return Err(ArbiterError::LineConflict);
            }
            if wanted.is_some_and(|irql| irql != line.assigned.irql) {
                return Err(ArbiterError::LevelConflict);
            }
            line.users += 1;
            return Ok(vec![line.assigned]);
        }
        let vector = self.free_vector(request.priority, wanted).ok_or(ArbiterError::NoVector)?;
        let assigned = Assigned {
            kind: AssignedKind::Line { gsi },
            vector,
            irql: Irql::of_vector(vector),
            affinity: self.affinity(request.policy, None, group),
            mode,
            polarity,
            share: Share::Shared,
        };
        self.used.insert(vector, assigned.affinity);
        self.lines.insert(gsi, Line { assigned, users: 1 });
        Ok(vec![assigned])
    }

    fn msi(
        &mut self,
        request: &ArbiterRequest,
        count: u32,
        group: u16,
    ) -> Result<Vec<Assigned>, ArbiterError> {
        // One block sits in one class, so all its messages have one level.
        let wanted = request.irqls.first().copied();
        if request.irqls.iter().any(|&irql| Some(irql) != wanted) {
            return Err(ArbiterError::LevelConflict);
        }
        let size = 1u32 << count.min(MSI_BLOCK).ilog2();
        let (base, size) = match self.free_block(request.priority, wanted, size) {
            Some(base) => (base, size),
            None => (self.free_vector(request.priority, wanted).ok_or(ArbiterError::NoVector)?, 1),
        };
        let affinity = self.affinity(request.policy, None, group);
        let messages = (base..).zip(0..size).map(|(vector, index)| message(index, vector, affinity));
        let messages: Vec<Assigned> = messages.collect();
        self.used.extend(messages.iter().map(|one| (one.vector, one.affinity)));
        Ok(messages)
    }

    fn msix(
        &mut self,
        request: &ArbiterRequest,
        count: u32,
        group: u16,
    ) -> Result<Vec<Assigned>, ArbiterError> {
        let mut messages = Vec::new();
        for index in 0..count {
            let wanted = match request.irqls.as_slice() {
                [one] => Some(*one),
                many => many.get(index as usize).copied(),
            };
            let Some(vector) = self.free_vector(request.priority, wanted) else { break };
            let affinity = self.affinity(request.policy, Some(index), group);
            self.used.insert(vector, affinity);
            messages.push(message(index, vector, affinity));
        }
        if messages.is_empty() { Err(ArbiterError::NoVector) } else { Ok(messages) }
    }

    /// The levels to try, best first: from the priority's start downward, then upward.
    fn levels(priority: Priority, wanted: Option<Irql>) -> Vec<Irql> {
        if let Some(irql) = wanted {
            return vec![irql];
        }
        let start = match priority {
            Priority::High => 11,
            Priority::Normal => 9,
            Priority::Low => 5,
        };
        let (low, high) = (Irql::DEVICE_LOW.0, Irql::DEVICE_HIGH.0);
        (low..=start).rev().chain(start + 1..=high).map(Irql).collect()
    }

    fn is_free(&self, vector: u8) -> bool {
        vector != CMCI_VECTOR && !self.used.contains_key(&vector)
    }

    /// Slot 0 of every level first, then slot 1: neighbours in a request get different levels.
    fn free_vector(&self, priority: Priority, wanted: Option<Irql>) -> Option<u8> {
        let levels = Self::levels(priority, wanted);
        (0..16u8)
            .flat_map(|slot| levels.iter().map(move |level| level.0 << 4 | slot))
            .find(|&vector| self.is_free(vector))
    }

    /// An aligned block inside one level. `size` is a power of two, at most 16.
    fn free_block(&self, priority: Priority, wanted: Option<Irql>, size: u32) -> Option<u8> {
        let size = u8::try_from(size).ok()?;
        let levels = Self::levels(priority, wanted);
        (0..16u8)
            .step_by(size.into())
            .flat_map(|slot| levels.iter().map(move |level| level.0 << 4 | slot))
            .find(|&base| (0..size).all(|i| self.is_free(base + i)))
    }

    /// How many interrupts a processor of a group may receive.
    fn load(&self, group: u16, bit: u32) -> usize {
        self.used.values().filter(|a| a.group == group && a.mask >> bit & 1 == 1).count()
    }

    /// The group with the fewest interrupts for each processor.
    fn quietest_group(&self) -> u16 {
        let groups = 0..u16::try_from(self.topology.groups()).unwrap_or(u16::MAX);
        let per_processor = |group: &u16| {
            let here = self.used.values().filter(|a| a.group == *group).count() as u64;
            // In 1/65536 of an interrupt: whole numbers order alike everywhere.
            (here << 16) / u64::from(self.topology.active(*group).count_ones().max(1))
        };
        groups.filter(|&group| self.topology.active(group) != 0).min_by_key(per_processor).unwrap_or(0)
    }

    /// The processors of an interrupt in a group; `message` is its number when each message may differ.
    fn affinity(&self, policy: Policy, message: Option<u32>, group: u16) -> Affinity {
        let all = Affinity { group, mask: self.topology.active(group) };
        let nth = |n: u32| {
            let bit = (0..64).filter(|bit| all.mask >> bit & 1 == 1).nth(n as usize);
            bit.map_or(all, |bit| Affinity { group, mask: 1 << bit })
        };
        let set = match policy {
            Policy::AllProcessors | Policy::AllClose => all,
            Policy::OneClose => nth(0),
            Policy::Specified(wanted) => {
                let mask = wanted.mask & self.topology.active(wanted.group);
                if mask == 0 { all } else { Affinity { group: wanted.group, mask } }
            }
            Policy::SpreadMessages => match message {
                Some(index) => nth(index % all.mask.count_ones().max(1)),
                None => all,
            },
        };
        match self.delivery {
            Delivery::Lowest => set,
            Delivery::Fixed => {
                let bits = (0..64u32).filter(|bit| set.mask >> bit & 1 == 1);
                let one = bits.min_by_key(|&bit| self.load(set.group, bit));
                one.map_or(set, |bit| Affinity { group: set.group, mask: 1 << bit })
            }
        }
    }
}

fn message(index: u32, vector: u8, affinity: Affinity) -> Assigned {
    Assigned {
        kind: AssignedKind::Message { index, entry: index },
        vector,
        irql: Irql::of_vector(vector),
        affinity,
        mode: Mode::Latched,
        polarity: Polarity::ActiveHigh,
        share: Share::DeviceExclusive,
    }
}
