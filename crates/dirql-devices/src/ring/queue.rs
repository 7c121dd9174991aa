//! One queue of `ring`: its registers, its rings in memory, the work in hand.

use dirql_machine::DeviceCtx;
use dirql_mem::Pa;

pub(super) const DESCRIPTOR: u64 = 32;
pub(super) const COMPLETION: u64 = 16;

const QUIET: u16 = 1;
const RUNNING: u32 = 1;
const ERROR: u32 = 2;

/// Errors that stop a queue, as QSTATUS gives them.
pub(super) const READ_FAILED: u32 = 1;
pub(super) const WRITE_FAILED: u32 = 2;
pub(super) const NOT_VALID: u32 = 3;
pub(super) const BAD_DOORBELL: u32 = 4;

/// Statuses of a completion.
const DONE: u32 = 0;
const UNKNOWN: u32 = 1;
const BAD_LENGTH: u32 = 2;
const REFUSED: u32 = 3;

/// What a submission descriptor says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    source: u64,
    destination: u64,
    length: u32,
    operation: u16,
    flags: u16,
    cookie: u32,
}

impl Descriptor {
    fn parse(b: &[u8; DESCRIPTOR as usize]) -> Descriptor {
        let word = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let wide = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Descriptor {
            source: wide(0),
            destination: wide(8),
            length: word(16),
            operation: word(20) as u16,
            flags: (word(20) >> 16) as u16,
            cookie: word(24),
        }
    }

    pub(super) fn quiet(self) -> bool {
        self.flags & QUIET != 0
    }

    /// Does the work: gives the completion's status and result, and what is to be written where.
    pub(super) fn perform(self, ctx: &mut DeviceCtx<'_>, longest: u32) -> (u32, u32, Option<(Pa, Vec<u8>)>) {
        if self.operation != 0 && self.length > longest {
            return (BAD_LENGTH, 0, None);
        }
        let mut data = vec![0; if self.operation == 0 { 0 } else { self.length as usize }];
        match self.operation {
            0 => (DONE, 0, None),
            1 => match ctx.dma_read(Pa(self.source), &mut data) {
                Ok(()) => (DONE, self.length, Some((Pa(self.destination), data))),
                Err(_) => (REFUSED, 0, None),
            },
            2 => {
                data.fill(self.source as u8);
                (DONE, self.length, Some((Pa(self.destination), data)))
            }
            3 => match ctx.dma_read(Pa(self.source), &mut data) {
                Ok(()) => (DONE, data.iter().fold(0u32, |sum, b| sum.wrapping_add(u32::from(*b))), None),
                Err(_) => (REFUSED, 0, None),
            },
            _ => (UNKNOWN, 0, None),
        }
    }

    /// The same with the data's write refused.
    pub(super) fn refused() -> (u32, u32) {
        (REFUSED, 0)
    }
}

/// A descriptor in hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// The event that ends it carries this; an event with a tag that nobody has is stale.
    pub(super) tag: u64,
    pub(super) descriptor: Descriptor,
    /// Its time is over and the completion ring was full.
    pub(super) due: bool,
}

/// The queue.
#[derive(Clone, Default, Debug)]
pub(super) struct Queue {
    pub(super) sq_base: u64,
    pub(super) cq_base: u64,
    pub(super) size: u32,
    pub(super) enabled: bool,
    pub(super) running: bool,
    pub(super) error: u32,
    pub(super) sq_tail: u32,
    pub(super) sq_head: u32,
    pub(super) cq_head: u32,
    pub(super) cq_tail: u32,
    phase: bool,
    pub(super) completed: u32,
    pub(super) signalled: u32,
    pub(super) work: Vec<Work>,
    /// A fetch is scheduled already.
    pub(super) fetching: bool,
    /// A cause that is held back to be merged with the next: the tag of the event that ends the wait.
    pub(super) held_cause: Option<u64>,
}

impl Queue {
    pub(super) fn status(&self) -> u32 {
        u32::from(self.running) * RUNNING | if self.error == 0 { 0 } else { ERROR | self.error << 8 }
    }

    /// Begins at the start of both rings. False when what they are set to is not valid.
    pub(super) fn start(&mut self, most: u32) -> bool {
        let bytes = u64::from(self.size) * DESCRIPTOR;
        let aligned = |base: u64| base.is_multiple_of(64) && base.checked_add(bytes).is_some();
        if !self.size.is_power_of_two()
            || !(2..=most).contains(&self.size)
            || !aligned(self.sq_base)
            || !aligned(self.cq_base)
        {
            return false;
        }
        (self.sq_tail, self.sq_head, self.cq_head, self.cq_tail) = (0, 0, 0, 0);
        (self.phase, self.running) = (true, true);
        true
    }

    /// Drops what is in hand.
    pub(super) fn stop(&mut self) {
        self.running = false;
        self.work.clear();
        self.held_cause = None;
    }

    fn after(&self, index: u32) -> u32 {
        (index + 1) & (self.size - 1)
    }

    pub(super) fn full(&self) -> bool {
        self.after(self.cq_tail) == self.cq_head
    }

    /// Reads the next descriptor; `None` when there is none.
    pub(super) fn fetch(&mut self, ctx: &mut DeviceCtx<'_>) -> Option<Result<Descriptor, ()>> {
        if self.sq_head == self.sq_tail {
            return None;
        }
        let at = Pa(self.sq_base + u64::from(self.sq_head) * DESCRIPTOR);
        let mut bytes = [0; DESCRIPTOR as usize];
        if ctx.dma_read(at, &mut bytes).is_err() {
            return Some(Err(()));
        }
        self.sq_head = self.after(self.sq_head);
        Some(Ok(Descriptor::parse(&bytes)))
    }

    /// The next completion and where it goes: everything but the last four bytes, and those. The ring is not full.
    pub(super) fn completion(&mut self, d: Descriptor, status: u32, result: u32) -> [(Pa, Vec<u8>); 2] {
        let at = self.cq_base + u64::from(self.cq_tail) * COMPLETION;
        let last = u32::from(self.phase) | status << 1;
        self.cq_tail = self.after(self.cq_tail);
        if self.cq_tail == 0 {
            self.phase = !self.phase;
        }
        self.completed = self.completed.wrapping_add(1);
        let body = [d.cookie, result, self.sq_head].iter().flat_map(|w| w.to_le_bytes()).collect();
        [(Pa(at), body), (Pa(at + 12), last.to_le_bytes().to_vec())]
    }
}
