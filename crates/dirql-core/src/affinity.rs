//! Processor groups and sets of processors in them.

use alloc::vec::Vec;

use crate::CpuId;

/// A set of processors inside one group, as GROUP_AFFINITY says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Affinity {
    /// The processor group.
    pub group: u16,
    /// One bit a processor of the group.
    pub mask: u64,
}

impl Affinity {
    /// Whether every processor of `self` is in `other` too.
    pub const fn is_subset_of(self, other: Affinity) -> bool {
        self.group == other.group && self.mask & !other.mask == 0
    }
}

/// The active processors of the machine, group by group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topology {
    /// The active mask of each group. Processor indexes count its set bits, group after group.
    groups: Vec<u64>,
}

impl Topology {
    /// One group per element; the element is the mask of its active processors.
    pub fn new(groups: Vec<u64>) -> Topology {
        Topology { groups }
    }

    /// `cpus` processors in one group (at most 64 are counted).
    pub fn single_group(cpus: u32) -> Topology {
        let mask = if cpus >= 64 { u64::MAX } else { (1u64 << cpus) - 1 };
        Topology { groups: alloc::vec![mask] }
    }

    /// The active processors of a group; empty when there is no such group.
    pub fn active(&self, group: u16) -> u64 {
        self.groups.get(usize::from(group)).copied().unwrap_or(0)
    }

    /// How many processors there are.
    pub fn cpus(&self) -> u32 {
        self.groups.iter().map(|mask| mask.count_ones()).sum()
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The group and the number in it of a processor.
    pub fn locate(&self, cpu: CpuId) -> Option<(u16, u8)> {
        let mut left = cpu.0;
        for (group, &mask) in self.groups.iter().enumerate() {
            let here = mask.count_ones();
            if left >= here {
                left -= here;
                continue;
            }
            let number = (0..64u8).filter(|bit| mask >> bit & 1 == 1).nth(left as usize)?;
            return Some((u16::try_from(group).ok()?, number));
        }
        None
    }

    /// The processor with this number in this group, when it is active.
    pub fn index(&self, group: u16, number: u8) -> Option<CpuId> {
        let mask = self.active(group);
        if number >= 64 || mask >> number & 1 == 0 {
            return None;
        }
        let before: u32 = self.groups[..usize::from(group)].iter().map(|mask| mask.count_ones()).sum();
        let below = (mask & ((1u64 << number) - 1)).count_ones();
        Some(CpuId(before + below))
    }

    /// Whether a processor is in an affinity.
    pub fn contains(&self, affinity: Affinity, cpu: CpuId) -> bool {
        self.locate(cpu)
            .is_some_and(|(group, number)| group == affinity.group && affinity.mask >> number & 1 == 1)
    }
}
