//! The I/O APIC: one redirection entry for each global system interrupt (GSI).
//!
//! Modelled after Intel 82093AA and SDM vol. 3: edge and level entries, polarity, mask, remote IRR. A line has
//! several drivers (wired OR); a PCI line idles high and is pulled low. Edges on a masked entry are lost, as the
//! 82093AA says; a level still asserted when the entry is unmasked or ended is sent at once. Left out: the
//! index/data register window, the delivery status bit, NMI/SMI/INIT/ExtINT delivery.

use std::collections::BTreeSet;

/// How many GSIs there are.
pub const GSI_COUNT: u32 = 64;

/// Where an interrupt goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dest {
    /// One processor, by number (fixed delivery, physical destination).
    Cpu(u32),
    /// Any one processor of the mask (lowest-priority delivery); which one is a choice.
    AnyOf(u64),
    /// Every processor of the mask (fixed delivery, logical destination).
    AllOf(u64),
}

/// A request that leaves the I/O APIC for the local APICs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoRequest {
    /// The vector asked for.
    pub vector: u8,
    /// Level-triggered: the EOI comes back.
    pub level: bool,
    /// To whom.
    pub dest: Dest,
}

/// How the board wires a GSI, as firmware tables tell a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wiring {
    /// Level-triggered (PCI), else edge (ISA).
    pub level: bool,
    /// Active low (PCI), else high (ISA).
    pub active_low: bool,
}

#[derive(Clone, Debug)]
struct Pin {
    vector: u8,
    level: bool,
    active_low: bool,
    masked: bool,
    remote_irr: bool,
    dest: Dest,
    wire_active_low: bool,
    asserted_by: BTreeSet<u32>,
}

impl Pin {
    /// Whether the entry sees its active level: the electrical level against the entry's polarity.
    fn active(&self) -> bool {
        let high = self.asserted_by.is_empty() == self.wire_active_low;
        high != self.active_low
    }

    fn request(&self) -> IoRequest {
        IoRequest { vector: self.vector, level: self.level, dest: self.dest }
    }

    fn fire_level(&mut self) -> Option<IoRequest> {
        if self.level && self.active() && !self.masked && !self.remote_irr {
            self.remote_irr = true;
            Some(self.request())
        } else {
            None
        }
    }
}

/// The I/O APIC. Entries are masked at reset.
#[derive(Clone, Debug)]
pub struct IoApic {
    pins: Vec<Pin>,
}

impl Default for IoApic {
    fn default() -> Self {
        let pin = |gsi: u32| Pin {
            vector: 0,
            level: gsi >= 16,
            active_low: gsi >= 16,
            masked: true,
            remote_irr: false,
            dest: Dest::Cpu(0),
            wire_active_low: gsi >= 16,
            asserted_by: BTreeSet::new(),
        };
        IoApic { pins: (0..GSI_COUNT).map(pin).collect() }
    }
}

impl IoApic {
    fn pin(&mut self, gsi: u32) -> Option<&mut Pin> {
        self.pins.get_mut(usize::try_from(gsi).ok()?)
    }

    /// How the board wires this GSI: 0 to 15 as ISA (edge, active high), the rest as PCI (level, active low).
    /// `None` for a number past [`GSI_COUNT`].
    pub fn wiring(&self, gsi: u32) -> Option<Wiring> {
        let pin = self.pins.get(usize::try_from(gsi).ok()?)?;
        Some(Wiring { level: pin.wire_active_low, active_low: pin.wire_active_low })
    }

    /// Programs an entry; its mask is left as it is. An unmasked level entry whose line is active fires at once.
    pub fn route(
        &mut self,
        gsi: u32,
        vector: u8,
        level: bool,
        active_low: bool,
        dest: Dest,
    ) -> Option<IoRequest> {
        let pin = self.pin(gsi)?;
        if (pin.vector, pin.level) != (vector, level) {
            pin.remote_irr = false;
        }
        (pin.vector, pin.level, pin.active_low, pin.dest) = (vector, level, active_low, dest);
        pin.fire_level()
    }

    /// Masks or unmasks an entry. A level line that is active fires when unmasked.
    pub fn mask(&mut self, gsi: u32, masked: bool) -> Option<IoRequest> {
        let pin = self.pin(gsi)?;
        pin.masked = masked;
        pin.fire_level()
    }

    /// A source drives its line or lets go. The line is the OR of its sources.
    pub fn drive(&mut self, gsi: u32, source: u32, asserted: bool) -> Option<IoRequest> {
        let pin = self.pin(gsi)?;
        let before = pin.active();
        if asserted {
            pin.asserted_by.insert(source);
        } else {
            pin.asserted_by.remove(&source);
        }
        if pin.level {
            return pin.fire_level();
        }
        (pin.active() && !before && !pin.masked).then(|| pin.request())
    }

    /// The EOI of `vector` arrives from a processor. Every level entry with that vector forgets its remote IRR,
    /// and one whose line is still active asks again (spec 5.1).
    pub fn eoi(&mut self, vector: u8) -> Vec<IoRequest> {
        let mut again = Vec::new();
        for pin in self.pins.iter_mut().filter(|p| p.level && p.remote_irr && p.vector == vector) {
            pin.remote_irr = false;
            again.extend(pin.fire_level());
        }
        again
    }

    /// Whether any source asserts this line (whatever the mask says).
    pub fn asserted(&self, gsi: u32) -> bool {
        usize::try_from(gsi).ok().and_then(|g| self.pins.get(g)).is_some_and(|p| !p.asserted_by.is_empty())
    }

    /// The sources that assert this line, by device number.
    pub fn sources(&self, gsi: u32) -> Vec<u32> {
        let pin = usize::try_from(gsi).ok().and_then(|g| self.pins.get(g));
        pin.map(|p| p.asserted_by.iter().copied().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed() -> IoApic {
        let mut io = IoApic::default();
        assert_eq!(io.route(17, 0x61, true, true, Dest::Cpu(0)), None);
        assert_eq!(io.mask(17, false), None);
        io
    }

    #[test]
    fn a_level_line_asks_once_and_again_after_eoi_while_asserted() {
        let mut io = routed();
        assert_eq!(io.drive(17, 1, true).map(|r| r.vector), Some(0x61));
        assert_eq!(io.drive(17, 1, true), None, "remote IRR holds the next one back");
        assert_eq!(io.eoi(0x61).len(), 1);
        io.drive(17, 1, false);
        assert!(io.eoi(0x61).is_empty());
    }

    #[test]
    fn a_shared_line_is_the_or_of_its_sources() {
        let mut io = routed();
        assert!(io.drive(17, 1, true).is_some());
        assert!(io.drive(17, 2, true).is_none());
        io.drive(17, 1, false);
        assert!(io.asserted(17));
        assert_eq!(io.eoi(0x61).len(), 1, "device 2 still asserts");
        io.drive(17, 2, false);
        assert!(io.eoi(0x61).is_empty());
    }

    #[test]
    fn an_edge_on_a_masked_entry_is_lost_and_a_level_is_not() {
        let mut io = IoApic::default();
        io.route(4, 0x41, false, false, Dest::Cpu(0));
        assert_eq!(io.drive(4, 1, true), None);
        assert_eq!(io.mask(4, false), None);
        io.drive(4, 1, false);
        assert!(io.drive(4, 1, true).is_some());
        assert!(io.drive(4, 1, true).is_none(), "no edge without a fall");

        let mut io = IoApic::default();
        io.route(17, 0x61, true, true, Dest::Cpu(0));
        assert_eq!(io.drive(17, 1, true), None);
        assert!(io.mask(17, false).is_some());
    }

    #[test]
    fn the_wrong_polarity_storms_on_an_idle_line() {
        let mut io = IoApic::default();
        io.route(17, 0x61, true, false, Dest::Cpu(0));
        assert!(io.mask(17, false).is_some(), "a PCI line idles high");
        assert_eq!(io.eoi(0x61).len(), 1);
        assert!(io.drive(17, 1, true).is_none());
    }

    #[test]
    fn a_gsi_out_of_range_is_nothing() {
        let mut io = IoApic::default();
        assert_eq!(io.drive(GSI_COUNT, 0, true), None);
        assert_eq!(io.route(u32::MAX, 0x61, true, true, Dest::Cpu(0)), None);
        assert_eq!(io.wiring(u32::MAX), None);
    }
}
