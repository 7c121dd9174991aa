//! Memory: device windows, physical addresses, contiguous memory and MDLs.

use dirql_mem::{Pa, Prot, Target, Va};

use crate::context::{ret, void};
use crate::cx::Cx;
use crate::io;
use crate::pool::PoolKind;
use crate::stop::Stop;

const PAGE: u64 = 0x1000;
/// Longest device window: larger than any BAR that the machine's firmware places.
const MAX_WINDOW: u64 = 1 << 30;
/// Offsets in MDL; the page-frame numbers follow its 48 bytes.
pub(crate) mod mdl {
    pub(crate) const NEXT: u64 = 0;
    pub(crate) const SIZE: u64 = 8;
    pub(crate) const FLAGS: u64 = 10;
    pub(crate) const MAPPED: u64 = 24;
    pub(crate) const START: u64 = 32;
    pub(crate) const COUNT: u64 = 40;
    pub(crate) const OFFSET: u64 = 44;
    pub(crate) const PFNS: u64 = 48;
}
pub(crate) const MDL_MAPPED_TO_SYSTEM_VA: u16 = 1;
pub(crate) const MDL_PAGES_LOCKED: u16 = 2;
pub(crate) const MDL_SOURCE_IS_NONPAGED_POOL: u16 = 4;
pub(crate) const TAG: u32 = u32::from_le_bytes(*b"Mdl ");

fn window(cx: &mut Cx<'_>, pa: u64, bytes: u64) -> std::result::Result<u64, Stop> {
    if bytes == 0 || bytes > MAX_WINDOW || pa.checked_add(bytes).is_none() {
        return Ok(0);
    }
    let first = pa & !(PAGE - 1);
    let pages = (pa + bytes - first).div_ceil(PAGE);
    let at = cx.k.modules.reserve(pages * PAGE);
    cx.m.mem.map_device(Va(at), Pa(first), pages as usize, Prot::READ | Prot::WRITE);
    Ok(at + (pa - first))
}

fn physical(cx: &Cx<'_>, va: u64) -> Option<u64> {
    match cx.m.mem.translate(Va(va))?.0 {
        Target::Device(pa) => Some(pa.0),
        Target::Ram(_) => cx.m.mem.virt_to_phys(Va(va)).map(|pa| pa.0),
    }
}

fn new_mdl(cx: &mut Cx<'_>, va: u64, length: u32) -> std::result::Result<u64, Stop> {
    let pages = ((va & (PAGE - 1)) + u64::from(length)).div_ceil(PAGE);
    let size = mdl::PFNS + 8 * pages;
    let at = cx.k.pool.alloc(&mut cx.m.mem, size, PoolKind::NonPaged, TAG)?;
    cx.put(at, &vec![0; size as usize])?;
    cx.w16(at + mdl::SIZE, size as u16)?;
    cx.w64(at + mdl::START, va & !(PAGE - 1))?;
    cx.w32(at + mdl::COUNT, length)?;
    cx.w32(at + mdl::OFFSET, (va & (PAGE - 1)) as u32)?;
    Ok(at)
}

/// Fills in the pages of an MDL that describes nonpaged memory.
fn build(cx: &mut Cx<'_>, at: u64, flags: u16) -> std::result::Result<(), Stop> {
    let start = cx.r64(at + mdl::START)?;
    let (count, offset) = (cx.r32(at + mdl::COUNT)?, cx.r32(at + mdl::OFFSET)?);
    let pages = (u64::from(count) + u64::from(offset)).div_ceil(PAGE);
    for i in 0..pages {
        let va = start.wrapping_add(i * PAGE);
        let Some(pa) = physical(cx, va) else {
            return Err(Stop::bug_check(
                0x76,
                [0, 0, 0, 0],
                format!("an MDL describes {va:#x}, which is not mapped"),
            ));
        };
        cx.w64(at + mdl::PFNS + 8 * i, pa / PAGE)?;
    }
    cx.w64(at + mdl::MAPPED, start + u64::from(offset))?;
    let old = cx.r16(at + mdl::FLAGS)?;
    cx.w16(at + mdl::FLAGS, old | flags)
}

/// An MDL of the kernel's own over a buffer in nonpaged pool, locked and mapped.
pub(crate) fn mdl_for(cx: &mut Cx<'_>, va: u64, length: u32) -> std::result::Result<u64, Stop> {
    let at = new_mdl(cx, va, length)?;
    build(cx, at, MDL_PAGES_LOCKED | MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL)?;
    Ok(at)
}

crate::exports! {
    [2] fn MmMapIoSpace(cx, pa: u64, bytes: u64, _cache: u32) {
        let at = window(cx, pa, bytes)?;
        ret(at)
    }
    [2] fn MmMapIoSpaceEx(cx, pa: u64, bytes: u64, _protect: u32) {
        let at = window(cx, pa, bytes)?;
        ret(at)
    }
    [2] fn MmUnmapIoSpace(cx, at: u64, bytes: u64) {
        let first = at & !(PAGE - 1);
        if bytes > MAX_WINDOW {
            return Err(Stop::bug_check(0x1A, [at, bytes, 0, 0], "MmUnmapIoSpace with a length that was never mapped"));
        }
        cx.m.mem.unmap(Va(first), (at + bytes - first).div_ceil(PAGE) as usize);
        void()
    }
    [15] fn MmGetPhysicalAddress(cx, va: u64) { ret(physical(cx, va).unwrap_or(0)) }
    [2] fn MmIsAddressValid(cx, va: u64) { ret(u64::from(cx.m.mem.translate(Va(va)).is_some())) }

    [2] fn MmAllocateContiguousMemory(cx, bytes: u64, highest: u64) {
        let at = cx.k.pool.alloc_contiguous(&mut cx.m.mem, bytes, highest, 0, TAG).unwrap_or(0);
        cx.k.pool.hand_over(at);
        ret(at)
    }
    [2] fn MmAllocateContiguousMemorySpecifyCache(cx, bytes: u64, lowest: u64, highest: u64, boundary: u64, _cache: u32) {
        let at = cx.k.pool.alloc_contiguous(&mut cx.m.mem, bytes, highest, boundary, TAG).unwrap_or(0);
        cx.k.pool.hand_over(at);
        if at != 0 && physical(cx, at).is_some_and(|pa| pa < lowest) {
            return Err(cx.missing(format!("contiguous memory above physical address {lowest:#x}")));
        }
        ret(at)
    }
    [2] fn MmFreeContiguousMemory(cx, at: u64) {
        io::free(cx, at)?;
        void()
    }
    [2] fn MmFreeContiguousMemorySpecifyCache(cx, at: u64, _bytes: u64, _cache: u32) {
        io::free(cx, at)?;
        void()
    }

    [2] fn IoAllocateMdl(cx, va: u64, length: u32, secondary: u8, _quota: u8, irp: u64) {
        let at = new_mdl(cx, va, length)?;
        if irp != 0 {
            if secondary == 0 {
                cx.w64(irp + io::irp::MDL, at)?;
            } else {
                let mut last = cx.r64(irp + io::irp::MDL)?;
                for _ in 0..4096 {
                    let next = cx.r64(last + mdl::NEXT)?;
                    if next == 0 {
                        break;
                    }
                    last = next;
                }
                cx.w64(last + mdl::NEXT, at)?;
            }
        }
        ret(at)
    }
    [2] fn IoFreeMdl(cx, at: u64) {
        io::free(cx, at)?;
        void()
    }
    [2] fn MmBuildMdlForNonPagedPool(cx, at: u64) {
        build(cx, at, MDL_SOURCE_IS_NONPAGED_POOL)?;
        void()
    }
    [2] fn MmProbeAndLockPages(cx, at: u64, _mode: u8, _operation: u32) {
        build(cx, at, MDL_PAGES_LOCKED)?;
        void()
    }
    [2] fn MmUnlockPages(cx, at: u64) {
        let flags = cx.r16(at + mdl::FLAGS)?;
        cx.w16(at + mdl::FLAGS, flags & !MDL_PAGES_LOCKED)?;
        void()
    }
    /// A buffer that is in system space already is its own mapping.
    [2] fn MmMapLockedPagesSpecifyCache(cx, at: u64, mode: u8, _cache: u32, _base: u64, _bugcheck: u32, _priority: u32) {
        if mode != 0 {
            return Err(cx.missing("MmMapLockedPagesSpecifyCache into user space"));
        }
        super::mm_pages::mapped(cx, at)
    }
    [2] fn MmUnmapLockedPages(cx, base: u64, at: u64) {
        let flags = cx.r16(at + mdl::FLAGS)?;
        let buffer = cx.r64(at + mdl::START)?.wrapping_add(u64::from(cx.r32(at + mdl::OFFSET)?));
        if flags & MDL_MAPPED_TO_SYSTEM_VA == 0 {
            return Err(Stop::bug_check(
                0xDA,
                [0x400, base, at, 0],
                format!("MmUnmapLockedPages of the MDL at {at:#x}, which is not mapped"),
            ));
        }
        if base != buffer && flags & MDL_SOURCE_IS_NONPAGED_POOL == 0 {
            super::mm_pages::unmap(cx, base, at)?;
            cx.w64(at + mdl::MAPPED, 0)?;
        }
        cx.w16(at + mdl::FLAGS, flags & !MDL_MAPPED_TO_SYSTEM_VA)?;
        void()
    }
    [0] fn MmGetSystemRoutineAddress(cx, name: u64) {
        let name = io::read_unicode(cx, name)?;
        ret(cx.k.modules.export_address(&name).unwrap_or(0))
    }
}
