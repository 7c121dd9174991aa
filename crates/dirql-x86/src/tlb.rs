//! The software TLB: recent translations of RAM pages.

use dirql_mem::FrameId;

const ENTRIES: usize = 256;
/// No page has this number.
const NONE: u64 = u64::MAX;

#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// Page number that may be read here.
    pub(crate) read: u64,
    /// Page number that may be written here.
    pub(crate) write: u64,
    pub(crate) frame: Option<FrameId>,
}

/// A direct-mapped table by page number. Device pages never enter it.
#[derive(Clone)]
pub(crate) struct Tlb(Box<[Entry; ENTRIES]>);

impl Tlb {
    pub(crate) fn new() -> Tlb {
        Tlb(Box::new([Entry { read: NONE, write: NONE, frame: None }; ENTRIES]))
    }

    pub(crate) fn flush(&mut self) {
        self.0.fill(Entry { read: NONE, write: NONE, frame: None });
    }

    #[inline(always)]
    pub(crate) fn entry(&self, va: u64) -> &Entry {
        &self.0[(va >> 12) as usize % ENTRIES]
    }

    pub(crate) fn fill(&mut self, va: u64, frame: FrameId, readable: bool, writable: bool) {
        let page = va >> 12;
        self.0[page as usize % ENTRIES] = Entry {
            read: if readable { page } else { NONE },
            write: if writable { page } else { NONE },
            frame: Some(frame),
        };
    }
}
