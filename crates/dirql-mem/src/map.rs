//! The virtual address map: leaves of 512 pages, shared between clones until changed.

use crate::{FrameId, PAGE_SIZE, Pa, Va};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What may be done with a page, and what the embedder wants to know about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Prot(pub u8);

impl Prot {
    /// Nothing is allowed.
    pub const NONE: Prot = Prot(0);
    /// Data may be read.
    pub const READ: Prot = Prot(1);
    /// Data may be written.
    pub const WRITE: Prot = Prot(2);
    /// Instructions may be fetched.
    pub const EXEC: Prot = Prot(4);
    /// Executing here leaves the engine: export stubs and return points.
    pub const GATE: Prot = Prot(8);
    /// User-mode memory.
    pub const USER: Prot = Prot(16);
    /// Pageable memory: touching it at DISPATCH_LEVEL or above is a rule break the kernel looks for. The
    /// engine treats it as ordinary.
    pub const PAGED: Prot = Prot(32);

    /// Whether every bit of `other` is set.
    #[inline]
    pub const fn contains(self, other: Prot) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Prot {
    type Output = Prot;
    fn bitor(self, rhs: Prot) -> Prot {
        Prot(self.0 | rhs.0)
    }
}

impl std::fmt::Debug for Prot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (bit, letter) in ["r", "w", "x", "g", "u", "p"].iter().enumerate() {
            f.write_str(if self.0 >> bit & 1 == 1 { letter } else { "-" })?;
        }
        Ok(())
    }
}

/// What a virtual address maps to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// RAM: the frame that holds the page.
    Ram(FrameId),
    /// A device's register page: the physical address of the byte asked for.
    Device(Pa),
}

/// Why a virtual access is impossible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// No page there.
    NotPresent,
    /// A page is there but doesn't allow the access; also a kernel copy from or to device memory.
    Protection,
    /// Bits 63 to 47 of the address aren't equal.
    NonCanonical,
}

/// Kind of access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Execute,
}

/// A virtual access that could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemFault {
    /// The first byte that could not be accessed.
    pub va: Va,
    /// What was tried.
    pub access: Access,
    /// Why it failed.
    pub kind: Fault,
}

impl std::fmt::Display for MemFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let access = match self.access {
            Access::Read => "read",
            Access::Write => "write",
            Access::Execute => "execute",
        };
        let kind = match self.kind {
            Fault::NotPresent => "no page is mapped there",
            Fault::Protection => "the page doesn't allow it",
            Fault::NonCanonical => "the address isn't canonical",
        };
        write!(f, "cannot {access} {}: {kind}", self.va)
    }
}

impl std::error::Error for MemFault {}

/// A page's mapping in 8 bytes: physical page address, 0x200 device, 0x100 present, low byte protection.
#[derive(Clone, Copy, Default)]
struct Pte(u64);

const PRESENT: u64 = 0x100;
const DEVICE: u64 = 0x200;
const LEAF: u64 = 512;

/// The map of one address space.
#[derive(Clone, Default)]
pub(crate) struct Map {
    leaves: BTreeMap<u64, Arc<[Pte; LEAF as usize]>>,
}

/// Page number in the 36 bits a canonical address has; `None` for others.
fn page_number(va: Va) -> Option<u64> {
    va.is_canonical().then_some(va.0 >> 12)
}

impl Map {
    /// Maps one page.
    pub(crate) fn set(&mut self, va: Va, pa: Pa, device: bool, prot: Prot) {
        let Some(vpn) = page_number(va) else { return };
        let pte = Pte(pa.0 & !0xfff | PRESENT | if device { DEVICE } else { 0 } | u64::from(prot.0));
        let leaf = self.leaves.entry(vpn / LEAF).or_insert_with(|| Arc::new([Pte(0); LEAF as usize]));
        Arc::make_mut(leaf)[(vpn % LEAF) as usize] = pte;
    }

    /// Takes one page out.
    pub(crate) fn clear(&mut self, va: Va) {
        let Some(vpn) = page_number(va) else { return };
        if let Some(leaf) = self.leaves.get_mut(&(vpn / LEAF))
            && leaf[(vpn % LEAF) as usize].0 != 0
        {
            let entries = Arc::make_mut(leaf);
            entries[(vpn % LEAF) as usize] = Pte(0);
            if entries.iter().all(|pte| pte.0 == 0) {
                self.leaves.remove(&(vpn / LEAF));
            }
        }
    }

    /// Changes one mapped page's protection.
    pub(crate) fn protect(&mut self, va: Va, prot: Prot) {
        let Some(vpn) = page_number(va) else { return };
        if let Some(leaf) = self.leaves.get_mut(&(vpn / LEAF)) {
            let old = leaf[(vpn % LEAF) as usize].0;
            if old & PRESENT != 0 {
                Arc::make_mut(leaf)[(vpn % LEAF) as usize] = Pte(old & !0xff | u64::from(prot.0));
            }
        }
    }

    /// Physical address of the byte, whether a device is there, and the page's protection.
    pub(crate) fn get(&self, va: Va) -> Option<(Pa, bool, Prot)> {
        let vpn = page_number(va)?;
        let pte = self.leaves.get(&(vpn / LEAF))?[(vpn % LEAF) as usize].0;
        if pte & PRESENT == 0 {
            return None;
        }
        let pa = Pa(pte & !0xfff | va.0 & (PAGE_SIZE as u64 - 1));
        Some((pa, pte & DEVICE != 0, Prot(pte as u8)))
    }
}
