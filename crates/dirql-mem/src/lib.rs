//! Guest memory of dirql: copy-on-write page frames and the address map.
//!
//! [`Memory`] is the physical memory of the simulated machine and the one address space its kernel runs in.
//! Page frames are reference counted and copied on the first write after a clone, so that cloning a machine
//! costs a pointer for each allocated frame and a restored snapshot costs a copy for each dirtied one.
//!
//! What it models: 4 KiB pages, RAM frames below and above the device hole of a PC (0xE000_0000 to 4 GiB),
//! device pages, and protection as the loader and the kernel set it. What is left out: page tables in guest
//! memory, large pages, cache attributes, and user address spaces other than the one map.

mod frame;
mod map;
mod memory;

pub use frame::{FrameId, OutOfMemory, PhysFault};
pub use map::{Access, Fault, MemFault, Prot, Target};
pub use memory::Memory;

/// Bytes in a page and in a page frame.
pub const PAGE_SIZE: usize = 4096;

/// A guest virtual address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Va(pub u64);

/// A guest physical address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pa(pub u64);

impl Va {
    /// Whether bits 63 to 47 are all equal, as a processor with 48-bit linear addresses demands
    /// (Intel SDM volume 1, 3.3.7.1).
    #[inline]
    pub fn is_canonical(self) -> bool {
        ((self.0 as i64) << 16 >> 16) as u64 == self.0
    }
}

impl std::fmt::Display for Va {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl std::fmt::Display for Pa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
