//! Kernel pool: nonpaged, paged and physically contiguous memory.
//!
//! Models what a driver can see of pool (Microsoft's pages for ExAllocatePoolWithTag and ExFreePoolWithTag): a block of
//! a page or more starts on a page, a smaller one on 16 bytes and within one page. Bookkeeping is outside guest memory,
//! so a driver cannot destroy it. To bring out bugs, a freed large block is unmapped for good, a freed small block is
//! filled with [`FREED`] and reused as late as possible. Left out: quotas, special pool, lookaside reuse.

use std::collections::{BTreeMap, VecDeque};

use dirql_mem::{Memory, PAGE_SIZE, Pa, Prot, Va};

use crate::stop::Stop;

/// Byte that fills freed small blocks.
pub const FREED: u8 = 0xDD;
/// Byte that [`Pool::scribble`] fills a block with, for allocations whose content Windows leaves undefined.
pub const UNDEFINED: u8 = 0xCD;

const PAGE: u64 = PAGE_SIZE as u64;
const LARGEST_SMALL: u64 = 2048;
const REMEMBERED: usize = 4096;
const NONPAGED_BASE: u64 = 0xFFFF_A000_0000_0000;
const PAGED_BASE: u64 = 0xFFFF_B000_0000_0000;
const CONTIGUOUS_BASE: u64 = 0xFFFF_B800_0000_0000;
const REGION: u64 = 0x0000_0800_0000_0000;

/// Which pool a block is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoolKind {
    /// Always resident; usable at any IRQL.
    NonPaged,
    /// May be paged out; usable below DISPATCH_LEVEL only.
    Paged,
    /// Physically contiguous, resident (MmAllocateContiguousMemory, common buffers).
    Contiguous,
}

/// A block of pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolBlock {
    /// Guest address of its first byte.
    pub va: u64,
    /// Bytes asked for.
    pub size: u64,
    /// Which pool.
    pub kind: PoolKind,
    /// Pool tag, first character in the low byte.
    pub tag: u32,
    /// Ordinal of the allocation in this run, from 1.
    pub number: u64,
    /// The driver asked for it; otherwise it is the kernel's own.
    pub driver: bool,
}

/// Why a block could not be freed; each is a driver bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// No block starts at this address; the block it points into, if any.
    NotAllocated {
        /// The live block that contains the address.
        inside: Option<PoolBlock>,
    },
    /// The block was freed before.
    AlreadyFreed {
        /// What it was.
        block: PoolBlock,
    },
    /// The block has another tag than the one given.
    TagMismatch {
        /// The block, still allocated.
        block: PoolBlock,
        /// The tag given.
        given: u32,
    },
}

/// The pools.
#[derive(Clone, Debug)]
pub struct Pool {
    limit: u64,
    used: u64,
    count: u64,
    next_page: [u64; 3],
    live: BTreeMap<u64, PoolBlock>,
    freed: BTreeMap<u64, PoolBlock>,
    freed_order: VecDeque<(u64, u64)>,
    small: BTreeMap<(PoolKind, u64), VecDeque<u64>>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            limit: 256 << 20,
            used: 0,
            count: 0,
            next_page: [NONPAGED_BASE, PAGED_BASE, CONTIGUOUS_BASE],
            live: BTreeMap::new(),
            freed: BTreeMap::new(),
            freed_order: VecDeque::new(),
            small: BTreeMap::new(),
        }
    }
}

/// A pool tag as people write it; bytes that are not printable become dots.
#[must_use]
pub fn tag_name(tag: u32) -> String {
    tag.to_le_bytes().iter().map(|&b| if (0x20..0x7f).contains(&b) { b as char } else { '.' }).collect()
}

fn pages(size: u64) -> u64 {
    size.div_ceil(PAGE).max(1)
}

fn class(size: u64) -> u64 {
    size.max(1).next_multiple_of(16)
}

fn prot(kind: PoolKind) -> Prot {
    match kind {
        PoolKind::NonPaged => Prot::READ | Prot::WRITE | Prot::EXEC,
        PoolKind::Paged => Prot::READ | Prot::WRITE | Prot::PAGED,
        PoolKind::Contiguous => Prot::READ | Prot::WRITE,
    }
}

impl Pool {
    /// Sets the most bytes that may be allocated at once; 256 MiB unless set.
    pub fn set_limit(&mut self, bytes: u64) {
        self.limit = bytes;
    }

    /// Allocates a zero-filled block. A size of 0 gives a block of its own, as Windows does.
    ///
    /// # Errors
    /// [`Stop::OutOfMemory`] when the pool's limit or the machine's memory is used up; an allocation routine that may
    /// fail returns NULL to the driver then.
    pub fn alloc(&mut self, mem: &mut Memory, size: u64, kind: PoolKind, tag: u32) -> Result<u64, Stop> {
        if kind == PoolKind::Contiguous {
            return self.alloc_contiguous(mem, size, u64::MAX, 0, tag);
        }
        self.admit(size)?;
        let va = if size > LARGEST_SMALL {
            let n = pages(size);
            let pa = mem.alloc_frames(n as usize)?;
            let va = self.reserve(kind, n)?;
            mem.map_ram(Va(va), pa, n as usize, prot(kind));
            va
        } else {
            self.alloc_small(mem, class(size), kind)?
        };
        Ok(self.record(va, size, kind, tag))
    }

    /// Allocates physically contiguous, zero-filled memory below or at physical address `highest`. `boundary` (0: none)
    /// is a power of two that the block may not cross.
    ///
    /// # Errors
    /// [`Stop::OutOfMemory`] when there is none.
    pub fn alloc_contiguous(
        &mut self,
        mem: &mut Memory,
        size: u64,
        highest: u64,
        boundary: u64,
        tag: u32,
    ) -> Result<u64, Stop> {
        self.admit(size)?;
        let n = pages(size) as usize;
        let take = |mem: &mut Memory| {
            if highest == u64::MAX { mem.alloc_frames(n) } else { mem.alloc_frames_below(n, Pa(highest)) }
        };
        let crosses = |pa: Pa| boundary != 0 && pa.0 / boundary != (pa.0 + size.max(1) - 1) / boundary;
        let mut pa = take(mem)?;
        if crosses(pa) {
            // Frames ascend, so the next try starts after this one; hold it until then and give it back.
            if size > boundary {
                mem.free_frames(pa, n);
                return Err(Stop::OutOfMemory);
            }
            let mut held = vec![pa];
            let found = loop {
                match take(mem) {
                    Ok(next) if crosses(next) && held.len() < 64 => held.push(next),
                    Ok(next) if crosses(next) => {
                        held.push(next);
                        break None;
                    }
                    Ok(next) => break Some(next),
                    Err(_) => break None,
                }
            };
            held.into_iter().for_each(|pa| mem.free_frames(pa, n));
            pa = found.ok_or(Stop::OutOfMemory)?;
        }
        let va = self.reserve(PoolKind::Contiguous, n as u64)?;
        mem.map_ram(Va(va), pa, n, prot(PoolKind::Contiguous));
        Ok(self.record(va, size, PoolKind::Contiguous, tag))
    }

    /// Marks a live block as the driver's: what is left of those when the driver is gone has leaked.
    pub fn hand_over(&mut self, va: u64) {
        if let Some(block) = self.live.get_mut(&va) {
            block.driver = true;
        }
    }

    /// Fills a block with [`UNDEFINED`], for the routines whose memory Windows leaves uninitialized.
    ///
    /// # Errors
    /// The block is not mapped, which is a fault of the kernel.
    pub fn scribble(&self, mem: &mut Memory, va: u64) -> Result<(), Stop> {
        if let Some(block) = self.live.get(&va) {
            fill(mem, va, block.size, UNDEFINED)?;
        }
        Ok(())
    }

    /// Frees a block.
    ///
    /// # Errors
    /// See [`FreeError`]; nothing changes.
    pub fn free(&mut self, mem: &mut Memory, va: u64) -> Result<PoolBlock, FreeError> {
        let Some(block) = self.live.remove(&va) else {
            return Err(match self.freed.get(&va) {
                Some(&block) => FreeError::AlreadyFreed { block },
                None => FreeError::NotAllocated { inside: self.block_at(va) },
            });
        };
        self.used -= charge(block.size);
        if block.size > LARGEST_SMALL || block.kind == PoolKind::Contiguous {
            let n = pages(block.size);
            if block.kind == PoolKind::Contiguous {
                if let Some(pa) = mem.virt_to_phys(Va(va)) {
                    mem.free_frames(pa, n as usize);
                }
            } else {
                for page in 0..n {
                    if let Some(pa) = mem.virt_to_phys(Va(va + page * PAGE)) {
                        mem.free_frames(pa, 1);
                    }
                }
            }
            mem.unmap(Va(va), n as usize);
        } else {
            // The block was mapped when it was allocated and small pages are never unmapped.
            let _ = fill(mem, va, class(block.size), FREED);
            self.small.entry((block.kind, class(block.size))).or_default().push_back(va);
        }
        self.freed.insert(va, block);
        self.freed_order.push_back((va, block.number));
        while self.freed_order.len() > REMEMBERED {
            if let Some((old, number)) = self.freed_order.pop_front()
                && self.freed.get(&old).is_some_and(|b| b.number == number)
            {
                self.freed.remove(&old);
            }
        }
        Ok(block)
    }

    /// Frees a block if its tag is `tag` (0: any).
    ///
    /// # Errors
    /// See [`FreeError`]; nothing changes.
    pub fn free_tagged(&mut self, mem: &mut Memory, va: u64, tag: u32) -> Result<PoolBlock, FreeError> {
        match self.live.get(&va) {
            Some(&block) if tag != 0 && block.tag != tag => Err(FreeError::TagMismatch { block, given: tag }),
            _ => self.free(mem, va),
        }
    }

    /// The live block that contains an address.
    #[must_use]
    pub fn block_at(&self, va: u64) -> Option<PoolBlock> {
        let (_, block) = self.live.range(..=va).next_back()?;
        (va - block.va < block.size.max(1)).then_some(*block)
    }

    /// The freed block that contains an address, if it is remembered: what a use after free touched.
    #[must_use]
    pub fn freed_at(&self, va: u64) -> Option<PoolBlock> {
        let (_, block) = self.freed.range(..=va).next_back()?;
        (va - block.va < block.size.max(1)).then_some(*block)
    }

    /// Every live block, by address.
    pub fn live(&self) -> impl Iterator<Item = &PoolBlock> {
        self.live.values()
    }

    /// Live blocks and their bytes by tag: what a driver leaks when nothing should be left.
    #[must_use]
    pub fn live_by_tag(&self) -> BTreeMap<u32, (u64, u64)> {
        let mut tags = BTreeMap::new();
        for block in self.live.values() {
            let entry: &mut (u64, u64) = tags.entry(block.tag).or_default();
            entry.0 += 1;
            entry.1 += block.size;
        }
        tags
    }

    fn admit(&self, size: u64) -> Result<(), Stop> {
        match self.used.checked_add(size).and_then(|n| n.checked_add(PAGE)) {
            Some(total) if total <= self.limit => Ok(()),
            _ => Err(Stop::OutOfMemory),
        }
    }

    fn record(&mut self, va: u64, size: u64, kind: PoolKind, tag: u32) -> u64 {
        self.count += 1;
        self.used += charge(size);
        self.freed.remove(&va);
        self.live.insert(va, PoolBlock { va, size, kind, tag, number: self.count, driver: false });
        va
    }

    /// Address space for `n` pages and a page left unmapped after them, so that running off the end faults.
    fn reserve(&mut self, kind: PoolKind, n: u64) -> Result<u64, Stop> {
        let (i, base) = match kind {
            PoolKind::NonPaged => (0, NONPAGED_BASE),
            PoolKind::Paged => (1, PAGED_BASE),
            PoolKind::Contiguous => (2, CONTIGUOUS_BASE),
        };
        let va = self.next_page[i];
        let next = va + (n + 1) * PAGE;
        if next - base > REGION {
            return Err(Stop::OutOfMemory);
        }
        self.next_page[i] = next;
        Ok(va)
    }

    fn alloc_small(&mut self, mem: &mut Memory, class: u64, kind: PoolKind) -> Result<u64, Stop> {
        if self.small.get(&(kind, class)).is_none_or(VecDeque::is_empty) {
            let pa = mem.alloc_frames(1)?;
            let page = self.reserve(kind, 1)?;
            mem.map_ram(Va(page), pa, 1, prot(kind));
            let list = self.small.entry((kind, class)).or_default();
            // From 16 on: only a block of a page or more is page-aligned in Windows, so no driver may count on it.
            list.extend((0..(PAGE - 16) / class).map(|i| page + 16 + i * class));
        }
        let list = self.small.entry((kind, class)).or_default();
        let Some(va) = list.pop_front() else { return Err(Stop::OutOfMemory) };
        fill(mem, va, class, 0)?;
        Ok(va)
    }
}

/// What a block counts against the limit.
fn charge(size: u64) -> u64 {
    if size > LARGEST_SMALL { pages(size) * PAGE } else { class(size) }
}

fn fill(mem: &mut Memory, va: u64, len: u64, byte: u8) -> Result<(), Stop> {
    let chunk = [byte; PAGE_SIZE];
    let mut done = 0;
    while done < len {
        let n = (len - done).min(PAGE);
        mem.write(Va(va + done), &chunk[..n as usize])?;
        done += n;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: u32 = u32::from_le_bytes(*b"Test");

    fn pool() -> (Pool, Memory) {
        (Pool::default(), Memory::new(64 << 20))
    }

    #[test]
    fn alignment_is_as_documented() {
        let (mut pool, mut mem) = pool();
        for size in [0, 1, 15, 16, 17, 2047, 2048] {
            let va = pool.alloc(&mut mem, size, PoolKind::NonPaged, TAG).unwrap();
            assert_eq!(va % 16, 0);
            assert_eq!(va / PAGE, (va + size.max(1) - 1) / PAGE, "{size} crosses a page");
        }
        for size in [4096, 4097, 100_000] {
            assert_eq!(pool.alloc(&mut mem, size, PoolKind::Paged, TAG).unwrap() % PAGE, 0);
        }
    }

    #[test]
    fn misuse_is_told_apart() {
        let (mut pool, mut mem) = pool();
        let a = pool.alloc(&mut mem, 40, PoolKind::NonPaged, TAG).unwrap();
        let FreeError::NotAllocated { inside: Some(b) } = pool.free(&mut mem, a + 8).unwrap_err() else {
            panic!()
        };
        assert_eq!(b.va, a);
        assert!(matches!(pool.free_tagged(&mut mem, a, 7), Err(FreeError::TagMismatch { .. })));
        assert_eq!(pool.free_tagged(&mut mem, a, TAG).unwrap().size, 40);
        assert!(matches!(pool.free(&mut mem, a), Err(FreeError::AlreadyFreed { .. })));
        assert_eq!(pool.free(&mut mem, 0x1000), Err(FreeError::NotAllocated { inside: None }));
    }

    #[test]
    fn freed_memory_is_poisoned_or_gone_and_new_memory_is_zero() {
        let (mut pool, mut mem) = pool();
        let a = pool.alloc(&mut mem, 32, PoolKind::NonPaged, TAG).unwrap();
        mem.write(Va(a), &[7; 32]).unwrap();
        pool.free(&mut mem, a).unwrap();
        assert_eq!(mem.read_u8(Va(a)).unwrap(), FREED);
        assert!(pool.freed_at(a + 3).is_some());
        for _ in 0..300 {
            let b = pool.alloc(&mut mem, 32, PoolKind::NonPaged, TAG).unwrap();
            assert_eq!(mem.read_u64(Va(b)).unwrap(), 0);
        }
        let large = pool.alloc(&mut mem, 8192, PoolKind::NonPaged, TAG).unwrap();
        assert!(mem.read_u8(Va(large + 8192)).is_err());
        pool.free(&mut mem, large).unwrap();
        assert!(mem.read_u8(Va(large)).is_err());
    }

    #[test]
    fn the_limit_holds_and_is_given_back() {
        let (mut pool, mut mem) = pool();
        pool.set_limit(1 << 20);
        assert_eq!(pool.alloc(&mut mem, u64::MAX, PoolKind::Paged, TAG), Err(Stop::OutOfMemory));
        let a = pool.alloc(&mut mem, 900 << 10, PoolKind::Paged, TAG).unwrap();
        assert_eq!(pool.alloc(&mut mem, 200 << 10, PoolKind::Paged, TAG), Err(Stop::OutOfMemory));
        pool.free(&mut mem, a).unwrap();
        assert!(pool.alloc(&mut mem, 900 << 10, PoolKind::Paged, TAG).is_ok());
        assert_eq!(pool.live_by_tag()[&TAG], (1, 900 << 10));
    }
}
