//! The local APIC of one processor: which vectors wait, which are in service, which may be delivered.
//!
//! Modelled after Intel SDM vol. 3, "Advanced Programmable Interrupt Controller": IRR, ISR and TMR as 256-bit
//! sets, TPR as CR8, priority classes of sixteen vectors. Left out: the register page at 0xFEE00000 (the kernel
//! drives the APIC through this interface), the error register, and the local vector table except the timer,
//! which is in `clock.rs`.

/// A set of vectors, as the APIC keeps them: one bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct VectorSet([u64; 4]);

impl VectorSet {
    /// Adds a vector; true when it was not there yet.
    pub fn insert(&mut self, vector: u8) -> bool {
        let word = &mut self.0[usize::from(vector >> 6)];
        let bit = 1u64 << (vector & 63);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    /// Takes a vector out; true when it was there.
    pub fn remove(&mut self, vector: u8) -> bool {
        let word = &mut self.0[usize::from(vector >> 6)];
        let bit = 1u64 << (vector & 63);
        let had = *word & bit != 0;
        *word &= !bit;
        had
    }

    /// Whether the vector is in the set.
    pub fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 6)] & (1 << (vector & 63)) != 0
    }

    /// The highest vector, which is the one with the highest priority.
    pub fn highest(&self) -> Option<u8> {
        self.iter().next()
    }

    /// The vectors from the highest down.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=255u8).rev().filter(|v| self.contains(*v))
    }
}

/// The interrupt state of one processor.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct LocalApic {
    irr: VectorSet,
    isr: VectorSet,
    /// Vectors whose last request came from a level-triggered I/O APIC entry: their EOI is broadcast.
    tmr: VectorSet,
    merged: u64,
}

impl LocalApic {
    /// A request for `vector` arrives. A second one while the first still waits merges with it; one more may be
    /// in service, so at most two are outstanding for a vector (SDM; spec 5.1). True when the bit was clear.
    pub fn request(&mut self, vector: u8, level: bool) -> bool {
        if level {
            self.tmr.insert(vector);
        } else {
            self.tmr.remove(vector);
        }
        let fresh = self.irr.insert(vector);
        if !fresh {
            self.merged = self.merged.saturating_add(1);
        }
        fresh
    }

    /// The highest vector that waits and may interrupt now: its class is above CR8 and above the class of
    /// everything in service (spec 5.1). The interrupt flag is the caller's to look at.
    pub fn deliverable(&self, cr8: u8) -> Option<u8> {
        let vector = self.irr.highest()?;
        (vector >> 4 > self.processor_class(cr8)).then_some(vector)
    }

    /// The class that masks the processor: the greater of TPR and in-service class (the upper half of PPR).
    pub fn processor_class(&self, cr8: u8) -> u8 {
        self.isr.highest().map_or(0, |v| v >> 4).max(cr8 & 15)
    }

    /// The processor takes `vector`: it moves from waiting to in service. False (and nothing changes) when the
    /// vector does not wait.
    pub fn accept(&mut self, vector: u8) -> bool {
        if !self.irr.remove(vector) {
            return false;
        }
        self.isr.insert(vector);
        true
    }

    /// End of interrupt: the highest vector in service leaves. Gives the vector and whether its EOI goes on to
    /// the I/O APIC (it was level-triggered).
    pub fn eoi(&mut self) -> Option<(u8, bool)> {
        let vector = self.isr.highest()?;
        self.isr.remove(vector);
        Some((vector, self.tmr.contains(vector)))
    }

    /// Drops a waiting request, as disconnecting a vector does. True when one waited.
    pub fn withdraw(&mut self, vector: u8) -> bool {
        self.irr.remove(vector)
    }

    /// The vectors that wait.
    pub fn waiting(&self) -> VectorSet {
        self.irr
    }

    /// The vectors in service.
    pub fn in_service(&self) -> VectorSet {
        self.isr
    }

    /// How many requests merged with one that waited already.
    pub fn merged(&self) -> u64 {
        self.merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_class_above_tpr_wins() {
        let mut apic = LocalApic::default();
        apic.request(0x51, false);
        apic.request(0x71, false);
        assert_eq!(apic.deliverable(0), Some(0x71));
        assert_eq!(apic.deliverable(6), Some(0x71));
        assert_eq!(apic.deliverable(7), None);
        assert!(apic.accept(0x71));
        assert_eq!(apic.deliverable(0), None, "class 5 waits behind class 7 in service");
        assert_eq!(apic.eoi(), Some((0x71, false)));
        assert_eq!(apic.deliverable(0), Some(0x51));
    }

    #[test]
    fn same_class_waits_until_eoi_even_at_low_tpr() {
        let mut apic = LocalApic::default();
        apic.request(0x51, false);
        assert!(apic.accept(0x51));
        apic.request(0x5f, false);
        assert_eq!(apic.deliverable(0), None);
        apic.eoi();
        assert_eq!(apic.deliverable(0), Some(0x5f));
    }

    #[test]
    fn at_most_one_waits_and_one_is_in_service() {
        let mut apic = LocalApic::default();
        assert!(apic.request(0x61, false));
        assert!(apic.accept(0x61));
        assert!(apic.request(0x61, false));
        assert!(!apic.request(0x61, false));
        assert_eq!(apic.merged(), 1);
        apic.eoi();
        assert!(apic.accept(0x61));
        apic.eoi();
        assert_eq!(apic.deliverable(0), None);
        assert_eq!(apic.eoi(), None);
    }

    #[test]
    fn only_level_vectors_broadcast_their_eoi() {
        let mut apic = LocalApic::default();
        apic.request(0x61, true);
        apic.accept(0x61);
        assert_eq!(apic.eoi(), Some((0x61, true)));
        apic.request(0x61, false);
        apic.accept(0x61);
        assert_eq!(apic.eoi(), Some((0x61, false)));
    }
}
