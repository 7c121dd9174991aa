//! Page frames: allocation by physical address, contents shared between clones until written.

use crate::{PAGE_SIZE, Pa};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// First physical address that is given out as RAM.
const RAM_BASE: u64 = 0x0010_0000;
/// Start of the hole where devices live, as on a PC.
const HOLE_START: u64 = 0xE000_0000;
/// End of the hole: RAM goes on here.
const HOLE_END: u64 = 0x1_0000_0000;
/// Number of frames below the hole; the index of the first frame above it.
const HOLE_INDEX: u32 = ((HOLE_START - RAM_BASE) / PAGE_SIZE as u64) as u32;
/// Frames above the hole that can be numbered at all (64 GiB); the RAM limit bounds what is really used.
const HIGH_FRAMES: u32 = 1 << 24;

pub(crate) type Page = [u8; PAGE_SIZE];

static ZERO: Page = [0; PAGE_SIZE];

/// The allocated RAM of the machine would exceed its limit, or no run of frames fits the demand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

impl std::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the guest's physical memory is exhausted")
    }
}

impl std::error::Error for OutOfMemory {}

/// A physical access touched an address where no RAM is allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PhysFault(
    /// The first address without RAM.
    pub Pa,
);

impl std::fmt::Display for PhysFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no RAM at physical address {}", self.0)
    }
}

impl std::error::Error for PhysFault {}

/// A RAM page frame: a dense number with a one to one relation to physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrameId(pub(crate) u32);

impl FrameId {
    /// The frame that holds `pa`, when `pa` is where RAM can be.
    #[inline]
    pub fn of(pa: Pa) -> Option<FrameId> {
        let pa = pa.0;
        if (RAM_BASE..HOLE_START).contains(&pa) {
            Some(FrameId(((pa - RAM_BASE) / PAGE_SIZE as u64) as u32))
        } else if pa >= HOLE_END {
            let n = (pa - HOLE_END) / PAGE_SIZE as u64;
            if n < u64::from(HIGH_FRAMES) { Some(FrameId(HOLE_INDEX + n as u32)) } else { None }
        } else {
            None
        }
    }

    /// The physical address of the frame's first byte.
    #[inline]
    pub fn pa(self) -> Pa {
        if self.0 < HOLE_INDEX {
            Pa(RAM_BASE + u64::from(self.0) * PAGE_SIZE as u64)
        } else {
            Pa(HOLE_END + u64::from(self.0 - HOLE_INDEX) * PAGE_SIZE as u64)
        }
    }
}

/// One frame's contents and what is known about them.
#[derive(Clone, Default)]
struct Slot {
    /// `None` until the first write: such a frame reads as zeroes.
    page: Option<Arc<Page>>,
    /// The page is ours alone if this equals [`Frames::epoch`]; see [`Frames::store`].
    owned: u64,
    /// A bit for each 64 bytes from which an engine decoded instructions.
    code: u64,
    allocated: bool,
}

/// All frames of a machine.
pub(crate) struct Frames {
    slots: Vec<Slot>,
    /// Free runs by first index: number of frames. Never merged across the hole.
    free: BTreeMap<u32, u32>,
    used: u64,
    limit: u64,
    /// Changes with every clone of this value, so that no `Slot::owned` of before it is current.
    epoch: AtomicU64,
    pub(crate) code_generation: u64,
    /// Pages given up on the way back to a snapshot, for the next ones to be written.
    spare: Vec<Arc<Page>>,
}

/// At most so many are kept, 1 MiB.
const SPARE: usize = 256;

impl Clone for Frames {
    fn clone(&self) -> Self {
        // Both sides move to a new epoch: every page they share must be made exclusive again before a write.
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        Frames {
            slots: self.slots.clone(),
            free: self.free.clone(),
            used: self.used,
            limit: self.limit,
            epoch: AtomicU64::new(epoch),
            code_generation: self.code_generation,
            spare: Vec::new(),
        }
    }

    /// The way back to a snapshot: pages that are still shared with it stay as they are, without a look at their
    /// reference counts.
    fn clone_from(&mut self, source: &Self) {
        let epoch = source.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        let own = *self.epoch.get_mut();
        self.slots.truncate(source.slots.len());
        let shared = self.slots.len();
        for (slot, from) in self.slots.iter_mut().zip(&source.slots) {
            match (&slot.page, &from.page) {
                (Some(a), Some(b)) if Arc::ptr_eq(a, b) => {}
                (None, None) => {}
                (_, page) => {
                    let old = std::mem::replace(&mut slot.page, page.clone());
                    if slot.owned == own && self.spare.len() < SPARE {
                        self.spare.extend(old);
                    }
                }
            }
            (slot.owned, slot.code, slot.allocated) = (from.owned, from.code, from.allocated);
        }
        self.slots.extend_from_slice(&source.slots[shared..]);
        if self.free != source.free {
            self.free.clone_from(&source.free);
        }
        (self.used, self.limit) = (source.used, source.limit);
        self.epoch = AtomicU64::new(epoch);
        self.code_generation = source.code_generation;
    }
}

/// Bits of `Slot::code` that `len` bytes at `off` touch.
fn granules(off: usize, len: usize) -> u64 {
    if len == 0 {
        return 0;
    }
    let first = off / 64;
    let last = (off + len - 1).min(PAGE_SIZE - 1) / 64;
    (u64::MAX << first) & (u64::MAX >> (63 - last))
}

impl Frames {
    pub(crate) fn new(limit_bytes: u64) -> Frames {
        Frames {
            slots: Vec::new(),
            free: BTreeMap::from([(0, HOLE_INDEX), (HOLE_INDEX, HIGH_FRAMES)]),
            used: 0,
            limit: limit_bytes / PAGE_SIZE as u64,
            epoch: AtomicU64::new(1),
            code_generation: 0,
            spare: Vec::new(),
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// First fit, lowest address first; the last byte must not lie above `highest`.
    pub(crate) fn alloc(&mut self, n: usize, highest: Pa) -> Result<Pa, OutOfMemory> {
        let n = u32::try_from(n).map_err(|_| OutOfMemory)?;
        if n == 0 || self.used + u64::from(n) > self.limit {
            return Err(OutOfMemory);
        }
        let (&start, &len) = self.free.iter().find(|&(_, &len)| len >= n).ok_or(OutOfMemory)?;
        let last = FrameId(start + n - 1).pa().0 + (PAGE_SIZE as u64 - 1);
        if last > highest.0 {
            return Err(OutOfMemory);
        }
        self.free.remove(&start);
        if len > n {
            self.free.insert(start + n, len - n);
        }
        let end = (start + n) as usize;
        if self.slots.len() < end {
            self.slots.resize_with(end, Slot::default);
        }
        for slot in &mut self.slots[start as usize..end] {
            slot.allocated = true;
        }
        self.used += u64::from(n);
        Ok(FrameId(start).pa())
    }

    /// Frames of the range that aren't allocated are passed over.
    pub(crate) fn free(&mut self, pa: Pa, n: usize) {
        let Some(FrameId(first)) = FrameId::of(pa) else { return };
        let mut code = false;
        for index in (first as usize..self.slots.len()).take(n) {
            let slot = &mut self.slots[index];
            if !slot.allocated {
                continue;
            }
            code |= slot.code != 0;
            *slot = Slot::default();
            self.used -= 1;
            self.release(index as u32);
        }
        if code {
            self.code_generation += 1;
        }
    }

    /// Puts one frame into the free runs, joined with its neighbours on the same side of the hole.
    fn release(&mut self, index: u32) {
        let (mut start, mut len) = (index, 1);
        if let Some((&s, &l)) = self.free.range(..index).next_back()
            && s + l == index
            && index != HOLE_INDEX
        {
            self.free.remove(&s);
            (start, len) = (s, l + 1);
        }
        let next = start + len;
        if next != HOLE_INDEX
            && let Some(l) = self.free.remove(&next)
        {
            len += l;
        }
        self.free.insert(start, len);
    }

    #[inline]
    pub(crate) fn is_allocated(&self, frame: FrameId) -> bool {
        self.slots.get(frame.0 as usize).is_some_and(|s| s.allocated)
    }

    /// The frame's bytes; zeroes when it isn't allocated.
    #[inline(always)]
    pub(crate) fn bytes(&self, frame: FrameId) -> &Page {
        match self.slots.get(frame.0 as usize) {
            Some(Slot { page: Some(page), .. }) => page,
            _ => &ZERO,
        }
    }

    /// Notes that an engine decoded instructions from these bytes: a later write to them moves
    /// `code_generation`.
    pub(crate) fn mark_code(&mut self, frame: FrameId, off: usize, len: usize) {
        if let Some(slot) = self.slots.get_mut(frame.0 as usize) {
            slot.code |= granules(off, len);
            // Sends every store through `exclusive`, where the code bits are looked at.
            slot.owned = 0;
        }
    }

    /// Writes bytes that lie within one frame. True when bytes marked as code were written.
    /// Nothing is written if the frame isn't allocated or the bytes leave it.
    #[inline(always)]
    pub(crate) fn store<const N: usize>(&mut self, frame: FrameId, off: usize, data: [u8; N]) -> bool {
        let epoch = *self.epoch.get_mut();
        if let Some(slot) = self.slots.get_mut(frame.0 as usize)
            && slot.owned == epoch
            && let Some(page) = &mut slot.page
            && let Some(dst) = owned_page(page).get_mut(off..off + N)
        {
            dst.copy_from_slice(&data);
            return false;
        }
        self.store_slice(frame, off, &data)
    }

    /// As `store`, but only if the page is this memory's own and holds no code: false, with nothing written, if
    /// not.
    #[inline(always)]
    pub(crate) fn store_quick<const N: usize>(&mut self, frame: FrameId, off: usize, data: [u8; N]) -> bool {
        let epoch = *self.epoch.get_mut();
        if let Some(slot) = self.slots.get_mut(frame.0 as usize)
            && slot.owned == epoch
            && let Some(page) = &mut slot.page
            && let Some(dst) = owned_page(page).get_mut(off..).and_then(|b| b.first_chunk_mut::<N>())
        {
            *dst = data;
            return true;
        }
        false
    }

    /// As `store`, for any length.
    #[inline(never)]
    pub(crate) fn store_slice(&mut self, frame: FrameId, off: usize, data: &[u8]) -> bool {
        let epoch = *self.epoch.get_mut();
        let Some(slot) = self.slots.get_mut(frame.0 as usize) else { return false };
        if !slot.allocated || off >= PAGE_SIZE || data.len() > PAGE_SIZE - off {
            return false;
        }
        let shared = slot.page.get_or_insert_with(|| Arc::new(ZERO));
        if Arc::get_mut(shared).is_none()
            && let Some(mut spare) = self.spare.pop()
            && let Some(page) = Arc::get_mut(&mut spare)
        {
            page.copy_from_slice(&shared[..]);
            *shared = spare;
        }
        let page = Arc::make_mut(shared);
        page[off..off + data.len()].copy_from_slice(data);
        let hit = slot.code & granules(off, data.len()) != 0;
        if hit {
            // Every engine drops what it decoded, so the marks of this frame start anew.
            slot.code = 0;
            self.code_generation += 1;
        }
        if slot.code == 0 {
            slot.owned = epoch;
        }
        hit
    }
}

/// Mutable access to a page that `Frames::epoch` shows to be held by one `Arc` only.
///
/// `Arc::get_mut` proves the same with two locked operations, which would cost more than the rest of a store.
#[inline(always)]
#[expect(unsafe_code, reason = "skips the reference count check on every guest store")]
fn owned_page(page: &mut Arc<Page>) -> &mut Page {
    debug_assert_eq!(Arc::strong_count(page), 1);
    // SAFETY: the only caller has found `slot.owned` equal to the current epoch. `owned` gets that value only
    // after `Arc::make_mut` left this `Arc` the only one; the `Arc`s never leave this module, are cloned only
    // by `Frames::clone`, and that moves both sides to an epoch no slot has. No `Weak` is ever made. So the
    // page has this one owner, borrowed mutably for as long as the result lives.
    unsafe { &mut *Arc::as_ptr(page).cast_mut() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocation_is_first_fit_and_reuses() {
        let mut f = Frames::new(16 * 4096);
        let a = f.alloc(4, Pa(u64::MAX)).unwrap();
        let b = f.alloc(2, Pa(u64::MAX)).unwrap();
        assert_eq!((a.0, b.0), (0x10_0000, 0x10_4000));
        f.free(a, 4);
        assert_eq!(f.alloc(5, Pa(u64::MAX)).unwrap().0, 0x10_6000);
        assert_eq!(f.alloc(3, Pa(u64::MAX)).unwrap().0, 0x10_0000);
        assert_eq!(f.alloc(7, Pa(u64::MAX)), Err(OutOfMemory));
        assert_eq!(f.alloc(1, Pa(0x10_0fff)), Err(OutOfMemory));
        assert_eq!(f.used(), 10);
    }

    #[test]
    fn clones_part_when_written() {
        let mut a = Frames::new(1 << 20);
        let id = FrameId::of(a.alloc(1, Pa(u64::MAX)).unwrap()).unwrap();
        a.store(id, 0, [1u8; 8]);
        a.store(id, 0, [2u8; 8]);
        let mut b = a.clone();
        a.store(id, 0, [3u8; 8]);
        b.store(id, 8, [4u8; 8]);
        let c = b.clone();
        b.store(id, 0, [5u8; 8]);
        assert_eq!(a.bytes(id)[0], 3);
        assert_eq!((b.bytes(id)[0], b.bytes(id)[8]), (5, 4));
        assert_eq!((c.bytes(id)[0], c.bytes(id)[8]), (2, 4));
    }

    #[test]
    fn going_back_undoes_all_and_shares_again() {
        let mut a = Frames::new(1 << 20);
        let id = FrameId::of(a.alloc(3, Pa(u64::MAX)).unwrap()).unwrap();
        let next = FrameId(id.0 + 1);
        a.store(id, 0, [1u8; 8]);
        let mut b = a.clone();
        b.store(id, 0, [2u8; 8]);
        b.store(next, 0, [2u8; 8]);
        b.alloc(5, Pa(u64::MAX)).unwrap();
        b.clone_from(&a);
        assert_eq!((b.bytes(id)[0], b.bytes(next)[0], b.used()), (1, 0, 3));
        // Neither side writes what the other has.
        a.store(id, 0, [3u8; 8]);
        b.store(id, 8, [4u8; 8]);
        assert_eq!((a.bytes(id)[0], a.bytes(id)[8]), (3, 0));
        assert_eq!((b.bytes(id)[0], b.bytes(id)[8]), (1, 4));
        assert_eq!(b.alloc(2, Pa(u64::MAX)), a.alloc(2, Pa(u64::MAX)));
    }

    #[test]
    fn code_marks_are_by_64_bytes() {
        let mut a = Frames::new(1 << 20);
        let id = FrameId::of(a.alloc(1, Pa(u64::MAX)).unwrap()).unwrap();
        a.store(id, 0, [0u8; 8]);
        a.mark_code(id, 100, 40);
        assert!(!a.store(id, 0, [0u8; 8]));
        assert!(!a.store(id, 56, [0u8; 8]));
        assert!(!a.store(id, 192, [0u8; 8]));
        assert!(a.store(id, 57, [0u8; 8]));
        assert_eq!(a.code_generation, 1);
    }

    #[test]
    fn frame_numbers_skip_the_hole() {
        for pa in [RAM_BASE, HOLE_START - 4096, HOLE_END, HOLE_END + 4096] {
            assert_eq!(FrameId::of(Pa(pa)).unwrap().pa().0, pa);
        }
        for pa in [0, RAM_BASE - 1, HOLE_START, HOLE_END - 1, u64::MAX] {
            assert_eq!(FrameId::of(Pa(pa)), None);
        }
    }
}
