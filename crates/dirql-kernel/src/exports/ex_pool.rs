//! Pool allocation and lookaside lists, with the S-lists under them.
//!
//! Lookaside lists have the wdm.h layout, because drivers' headers inline allocation from them. SLIST_HEADER is the
//! x64 form: depth in the low 16 bits of the first word, a sequence number above, the first entry in the second word.

use crate::context::{Outcome, Result, ret, void};
use crate::cx::Cx;
use crate::exports;
use crate::exports::ex::ExThen;
use crate::pool::{FreeError, PoolKind, tag_name};
use crate::stop::Stop;
use crate::then::Then;

type Res<T> = std::result::Result<T, Stop>;

/// POOL_RAISE_IF_ALLOCATION_FAILURE, POOL_NX_ALLOCATION, POOL_ZERO_ALLOCATION, POOL_COLD_ALLOCATION, cache aligned,
/// POOL_QUOTA_FAIL_INSTEAD_OF_RAISE; bit 0 is the paged bit.
const RAISE: u32 = 0x10;
const ZERO: u32 = 0x400;
const KNOWN_TYPE: u32 = 1 | 4 | 8 | RAISE | 0x100 | 0x200 | ZERO;
/// "None", the tag of ExAllocatePool.
const NO_TAG: u32 = u32::from_le_bytes(*b"None");

/// POOL_FLAG_* of ExAllocatePool2.
mod flag {
    pub(super) const USE_QUOTA: u64 = 0x1;
    pub(super) const UNINITIALIZED: u64 = 0x2;
    pub(super) const SESSION: u64 = 0x4;
    pub(super) const CACHE_ALIGNED: u64 = 0x8;
    pub(super) const RAISE: u64 = 0x20;
    pub(super) const NON_PAGED: u64 = 0x40;
    pub(super) const NON_PAGED_EXECUTE: u64 = 0x80;
    pub(super) const PAGED: u64 = 0x100;
}

/// GENERAL_LOOKASIDE.
const DEPTH: u64 = 16;
const FREE_ROUTINE: u64 = 56;
const LOOKASIDE_SIZE: usize = 128;
/// Entries taken off one list at its deletion; S-lists count in 16 bits.
const MAX_ENTRIES: u32 = 1 << 16;

/// Memory for the kernel's own objects.
pub(crate) fn kernel_block(cx: &mut Cx<'_>, size: u64) -> Res<u64> {
    cx.k.pool.alloc(&mut cx.m.mem, size, PoolKind::NonPaged, u32::from_le_bytes(*b"Ke  "))
}

/// Allocates for the driver; NULL when there is no memory.
fn allocate(cx: &mut Cx<'_>, paged: bool, size: u64, tag: u32, zero: bool, raise: bool) -> Result {
    if paged && cx.irql() >= 2 {
        let irql = u64::from(cx.irql());
        return Err(Stop::bug_check(
            0xC2,
            [8, irql, 1, size],
            format!(
                "{size} bytes of paged pool asked for at IRQL {irql}; it is allowed at APC_LEVEL or below"
            ),
        ));
    }
    let kind = if paged { PoolKind::Paged } else { PoolKind::NonPaged };
    match cx.k.pool.alloc(&mut cx.m.mem, size, kind, tag) {
        Ok(at) => {
            cx.k.pool.hand_over(at);
            if !zero {
                cx.k.pool.scribble(&mut cx.m.mem, at)?;
            }
            ret(at)
        }
        Err(Stop::OutOfMemory) if !raise => ret(0),
        other => other.and_then(ret),
    }
}

fn by_type(cx: &mut Cx<'_>, kind: u32, size: u64, tag: u32, raise: bool) -> Result {
    if kind & !KNOWN_TYPE != 0 {
        return Err(cx.missing(format!("pool type {kind:#x}")));
    }
    allocate(cx, kind & 1 != 0, size, tag, kind & ZERO != 0, raise || kind & RAISE != 0)
}

fn by_flags(cx: &mut Cx<'_>, flags: u64, size: u64, tag: u32) -> Result {
    use flag::{CACHE_ALIGNED, NON_PAGED, NON_PAGED_EXECUTE, PAGED, SESSION, UNINITIALIZED, USE_QUOTA};
    // Flags above 32 bits are optional: a system that does not know them ignores them (POOL_FLAG_OPTIONAL_START).
    let required = flags & 0xffff_ffff;
    let known =
        USE_QUOTA | UNINITIALIZED | CACHE_ALIGNED | flag::RAISE | NON_PAGED | NON_PAGED_EXECUTE | PAGED;
    if required & SESSION != 0 || required & !known != 0 {
        return Err(cx.missing(format!("pool flags {flags:#x}")));
    }
    let kinds = required & (NON_PAGED | NON_PAGED_EXECUTE | PAGED);
    if kinds.count_ones() != 1 || tag == 0 || size == 0 {
        // Documented to fail.
        return ret(0);
    }
    allocate(cx, kinds == PAGED, size, tag, required & UNINITIALIZED == 0, required & flag::RAISE != 0)
}

/// Frees a block of the driver.
pub(crate) fn free(cx: &mut Cx<'_>, at: u64, tag: u32) -> Res<()> {
    let caller = cx.caller();
    let error = match cx.k.pool.free_tagged(&mut cx.m.mem, at, tag) {
        Ok(block) if block.kind == PoolKind::Paged && cx.irql() >= 2 => {
            let irql = u64::from(cx.irql());
            return Err(Stop::bug_check(
                0xC2,
                [9, irql, 1, at],
                format!("paged pool at {at:#x} freed at IRQL {irql}; it is allowed at APC_LEVEL or below"),
            ));
        }
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    Err(match error {
        FreeError::AlreadyFreed { block } => Stop::bug_check(
            0xC2,
            [7, u64::from(block.tag), block.size, at],
            format!("the pool block at {at:#x} (tag {}) was freed twice", tag_name(block.tag)),
        ),
        FreeError::TagMismatch { block, given } => Stop::bug_check(
            0xC2,
            [0x0A, at, u64::from(block.tag), u64::from(given)],
            format!(
                "the pool block at {at:#x} has the tag {} and was freed with the tag {}",
                tag_name(block.tag),
                tag_name(given)
            ),
        ),
        FreeError::NotAllocated { inside } => Stop::bug_check(
            0xC2,
            [0x46, at, 0, caller],
            match inside {
                Some(b) => format!("{at:#x} was freed, which lies inside the pool block at {:#x}", b.va),
                None => format!("{at:#x} was freed, which is no pool block"),
            },
        ),
    })
}

/// Takes the first entry off an S-list; 0 when it is empty.
fn slist_pop(cx: &mut Cx<'_>, head: u64) -> Res<u64> {
    let first = cx.r64(head + 8)? & !15;
    if first == 0 {
        return Ok(0);
    }
    let next = cx.r64(first)?;
    let word = cx.r64(head)?;
    cx.w64(head, word & !0xffff | u64::from((word as u16).wrapping_sub(1)))?;
    cx.w64(head + 8, next)?;
    Ok(first)
}

/// Puts an entry first; gives the entry that was.
fn slist_push(cx: &mut Cx<'_>, head: u64, entry: u64) -> Res<u64> {
    if entry & 15 != 0 {
        return Err(Stop::bug_check(
            0x1E,
            [0x8000_0002, cx.caller(), entry, 0],
            format!("the S-list entry {entry:#x} is not aligned to 16 bytes (STATUS_DATATYPE_MISALIGNMENT)"),
        ));
    }
    let first = cx.r64(head + 8)? & !15;
    let word = cx.r64(head)?;
    cx.w64(entry, first)?;
    let sequence = (word >> 16).wrapping_add(1);
    cx.w64(head, sequence << 16 | u64::from((word as u16).wrapping_add(1)))?;
    cx.w64(head + 8, entry)?;
    Ok(first)
}

fn init_lookaside(cx: &mut Cx<'_>, list: u64, kind: u32, n: [u64; 4], tag: u32) -> Result {
    let [allocate, free, flags, size] = n;
    let default = |cx: &Cx<'_>, given: u64, name: &str| {
        if given != 0 { Some(given) } else { cx.k.modules.export_address(name) }
    };
    let (Some(allocate), Some(free)) =
        (default(cx, allocate, "ExAllocatePoolWithTag"), default(cx, free, "ExFreePool"))
    else {
        return Err(Stop::Internal("the pool exports have no address".into()));
    };
    if size > u64::from(u32::MAX) {
        return Err(cx.missing(format!("lookaside entries of {size} bytes")));
    }
    cx.put(list, &[0; LOOKASIDE_SIZE])?;
    // The depth Windows starts with, and the most it grows to.
    cx.w16(list + DEPTH, 4)?;
    cx.w16(list + 18, 256)?;
    cx.w32(list + 36, kind | flags as u32)?;
    cx.w32(list + 40, tag)?;
    // An entry must hold the link of the list.
    cx.w32(list + 44, size.max(8) as u32)?;
    cx.w64(list + 48, allocate)?;
    cx.w64(list + FREE_ROUTINE, free)?;
    void()
}

/// Frees what a lookaside list still holds, one entry after the other.
pub(crate) fn drain_lookaside(cx: &mut Cx<'_>, list: u64) -> Result {
    let routine = cx.r64(list + FREE_ROUTINE)?;
    let own = cx.k.modules.export_address("ExFreePool") == Some(routine);
    for _ in 0..MAX_ENTRIES {
        let entry = slist_pop(cx, list)?;
        if entry == 0 {
            return void();
        }
        if !own {
            return Ok(Outcome::Call {
                routine,
                args: vec![entry],
                then: Then::Ex(ExThen::DrainLookaside(list)),
            });
        }
        free(cx, entry, 0)?;
    }
    Err(cx.missing("a lookaside list of more than 65536 entries"))
}

exports! {
    [2] fn ExAllocatePool(cx, kind: u32, size: u64) { by_type(cx, kind, size, NO_TAG, false) }
    [2] fn ExAllocatePoolWithTag(cx, kind: u32, size: u64, tag: u32) { by_type(cx, kind, size, tag, false) }
    [2] fn ExAllocatePoolWithTagPriority(cx, kind: u32, size: u64, tag: u32, _priority: u32) {
        by_type(cx, kind, size, tag, false)
    }
    // Quota is not charged to the system process. Bit 3 asks for NULL rather than an exception.
    [2] fn ExAllocatePoolWithQuotaTag(cx, kind: u32, size: u64, tag: u32) {
        by_type(cx, kind, size, tag, kind & 8 == 0)
    }
    [2] fn ExAllocatePool2(cx, flags: u64, size: u64, tag: u32) { by_flags(cx, flags, size, tag) }
    [2] fn ExAllocatePool3(cx, flags: u64, size: u64, tag: u32, _parameters: u64, count: u32) {
        if count != 0 {
            return Err(cx.missing("ExAllocatePool3 with extended parameters"));
        }
        by_flags(cx, flags, size, tag)
    }
    [2] fn ExFreePool(cx, at: u64) {
        free(cx, at, 0)?;
        void()
    }
    [2] fn ExFreePoolWithTag(cx, at: u64, tag: u32) {
        free(cx, at, tag)?;
        void()
    }
    [2] fn ExFreePool2(cx, at: u64, tag: u32, _parameters: u64, count: u32) {
        if count != 0 {
            return Err(cx.missing("ExFreePool2 with extended parameters"));
        }
        free(cx, at, tag)?;
        void()
    }

    [15] fn InitializeSListHead(cx, head: u64) {
        cx.w64(head, 0)?;
        cx.w64(head + 8, 0)?;
        void()
    }
    [15] fn ExpInterlockedPopEntrySList(cx, head: u64) { ret(slist_pop(cx, head)?) }
    [15] fn ExpInterlockedPushEntrySList(cx, head: u64, entry: u64) { ret(slist_push(cx, head, entry)?) }
    [15] fn ExpInterlockedFlushSList(cx, head: u64) {
        let first = cx.r64(head + 8)? & !15;
        let word = cx.r64(head)?;
        cx.w64(head, word & !0xffff)?;
        cx.w64(head + 8, 0)?;
        ret(first)
    }
    [15] fn ExQueryDepthSList(cx, head: u64) { ret(u64::from(cx.r16(head)?)) }

    [2] fn ExInitializeNPagedLookasideList(
        cx, list: u64, allocate: u64, free: u64, flags: u32, size: u64, tag: u32, _depth: u16
    ) {
        init_lookaside(cx, list, 0, [allocate, free, u64::from(flags), size], tag)
    }
    [1] fn ExInitializePagedLookasideList(
        cx, list: u64, allocate: u64, free: u64, flags: u32, size: u64, tag: u32, _depth: u16
    ) {
        init_lookaside(cx, list, 1, [allocate, free, u64::from(flags), size], tag)
    }
    [2] fn ExDeleteNPagedLookasideList(cx, list: u64) { drain_lookaside(cx, list) }
    [1] fn ExDeletePagedLookasideList(cx, list: u64) { drain_lookaside(cx, list) }
}
