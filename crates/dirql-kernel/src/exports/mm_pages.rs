//! Memory: pages without an address, partial MDLs, locked sections, and the machine's memory.
//!
//! MDLs and device windows are in `mm.rs`. Nothing is ever paged out, so locking only lifts the rule that pageable
//! code and data may not be touched at DISPATCH_LEVEL. Left out: sections, user address space.

use dirql_mem::{Pa, Prot, Va};

use crate::context::{Result, ret, void};
use crate::cx::Cx;
use crate::exports;
use crate::exports::ex_pool::kernel_block;
use crate::exports::mm::{MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED, MDL_SOURCE_IS_NONPAGED_POOL, TAG, mdl};
use crate::pool::PoolKind;
use crate::stop::Stop;

type Res<T> = std::result::Result<T, Stop>;

const PAGE: u64 = 0x1000;
const MDL_PARTIAL: u16 = 0x10;
const MDL_IO_SPACE: u16 = 0x800;
/// Most bytes of one MmAllocatePagesForMdl: 4 GiB less a page, what ByteCount can tell.
const MAX_PAGES: u64 = 1 << 16;
/// MM_ALLOCATE_FULLY_REQUIRED, MM_ALLOCATE_REQUIRE_CONTIGUOUS_CHUNKS.
const FULLY: u32 = 4;
const CHUNKS: u32 = 0x20;
/// Where RAM begins: the first megabyte is not used.
const RAM_BASE: u64 = 0x10_0000;

/// Pages for an MDL: as many as there are, or all.
fn pages_for_mdl(cx: &mut Cx<'_>, low: u64, high: u64, skip: u64, bytes: u64, flags: u32) -> Result {
    let wanted = bytes.div_ceil(PAGE);
    if wanted == 0 || wanted > MAX_PAGES {
        return ret(0);
    }
    let mut pfns = vec![];
    if flags & CHUNKS != 0 {
        let chunk = if skip == 0 { wanted } else { skip.div_ceil(PAGE) };
        if chunk == 0 || !wanted.is_multiple_of(chunk) {
            return ret(0);
        }
        for _ in 0..wanted / chunk {
            let Ok(Pa(pa)) = cx.m.mem.alloc_frames_below(chunk as usize, Pa(high)) else { break };
            pfns.extend((0..chunk).map(|i| pa / PAGE + i));
        }
    } else {
        for _ in 0..wanted {
            let Ok(Pa(pa)) = cx.m.mem.alloc_frames_below(1, Pa(high)) else { break };
            pfns.push(pa / PAGE);
        }
    }
    let below = pfns.iter().any(|p| p * PAGE < low);
    if below || pfns.is_empty() || (flags & FULLY != 0 && (pfns.len() as u64) < wanted) {
        for p in &pfns {
            cx.m.mem.free_frames(Pa(p * PAGE), 1);
        }
        if below {
            return Err(cx.missing(format!("pages above physical address {low:#x}")));
        }
        return ret(0);
    }
    let size = mdl::PFNS + 8 * pfns.len() as u64;
    let at = cx.k.pool.alloc(&mut cx.m.mem, size, PoolKind::NonPaged, TAG)?;
    cx.put(at, &[0; mdl::PFNS as usize])?;
    cx.w16(at + mdl::SIZE, size.min(0xffff) as u16)?;
    cx.w16(at + mdl::FLAGS, MDL_PAGES_LOCKED)?;
    cx.w32(at + mdl::COUNT, (pfns.len() as u64 * PAGE) as u32)?;
    let data: Vec<u8> = pfns.iter().flat_map(|p| p.to_le_bytes()).collect();
    cx.put(at + mdl::PFNS, &data)?;
    ret(at)
}

/// The page frames of an MDL.
fn frames(cx: &Cx<'_>, at: u64) -> Res<Vec<u64>> {
    let (count, offset) = (u64::from(cx.r32(at + mdl::COUNT)?), u64::from(cx.r32(at + mdl::OFFSET)?));
    let pages = (count + offset).div_ceil(PAGE).min(1 << 20);
    (0..pages).map(|i| cx.r64(at + mdl::PFNS + 8 * i)).collect()
}

/// Maps the pages of an MDL into system space and gives the address of its first byte.
pub(crate) fn map(cx: &mut Cx<'_>, at: u64) -> Res<u64> {
    let frames = frames(cx, at)?;
    let va = cx.k.modules.reserve(frames.len() as u64 * PAGE);
    for (i, &pfn) in frames.iter().enumerate() {
        let here = Va(va + i as u64 * PAGE);
        if dirql_mem::FrameId::of(Pa(pfn * PAGE)).is_some() {
            cx.m.mem.map_ram(here, Pa(pfn * PAGE), 1, Prot::READ | Prot::WRITE);
        } else {
            cx.m.mem.map_device(here, Pa(pfn * PAGE), 1, Prot::READ | Prot::WRITE);
        }
    }
    Ok(va + u64::from(cx.r32(at + mdl::OFFSET)?))
}

/// Takes a mapping made by [`map`] away.
pub(crate) fn unmap(cx: &mut Cx<'_>, base: u64, at: u64) -> Res<()> {
    let pages = frames(cx, at)?.len();
    cx.m.mem.unmap(Va(base & !(PAGE - 1)), pages);
    Ok(())
}

/// The address at which an MDL is mapped, after mapping it if it is not.
pub(crate) fn mapped(cx: &mut Cx<'_>, at: u64) -> Result {
    let flags = cx.r16(at + mdl::FLAGS)?;
    let old = cx.r64(at + mdl::MAPPED)?;
    if old != 0 {
        cx.w16(at + mdl::FLAGS, flags | MDL_MAPPED_TO_SYSTEM_VA)?;
        return ret(old);
    }
    let va = map(cx, at)?;
    cx.w64(at + mdl::MAPPED, va)?;
    cx.w16(at + mdl::FLAGS, flags | MDL_MAPPED_TO_SYSTEM_VA)?;
    ret(va)
}

/// The pageable section that contains an address: its first address and number of pages.
fn section(cx: &Cx<'_>, va: u64) -> Option<(u64, u64)> {
    let (m, rva) = cx.k.modules.locate(va)?;
    let s = m
        .image
        .sections
        .iter()
        .find(|s| rva >= u64::from(s.rva) && rva < u64::from(s.rva) + u64::from(s.virtual_size))?;
    Some((m.base + u64::from(s.rva), u64::from(s.virtual_size).div_ceil(PAGE)))
}

fn lock_section(cx: &mut Cx<'_>, va: u64, lock: bool) -> Result {
    let Some((base, pages)) = section(cx, va) else {
        return Err(Stop::bug_check(
            0x1A,
            [0x1234, va, 0, 0],
            format!("a pageable section was locked or unlocked at {va:#x}, which is in no driver"),
        ));
    };
    let count = cx.k.ke.locked_sections.entry(base).or_default();
    if lock {
        *count = count.saturating_add(1);
    } else if let Some(left) = count.checked_sub(1) {
        *count = left;
    } else {
        return Err(Stop::bug_check(
            0x1A,
            [0x1010, base, 0, 0],
            format!("the section at {base:#x} was unlocked more often than locked"),
        ));
    }
    let pageable = *count == 0;
    let kept =
        cx.k.modules
            .locate(base)
            .is_some_and(|(m, rva)| m.image.sections.iter().any(|s| u64::from(s.rva) == rva && s.pageable));
    for i in 0..pages {
        let here = Va(base + i * PAGE);
        if let Some((_, prot)) = cx.m.mem.translate(here) {
            let plain = Prot(prot.0 & !Prot::PAGED.0);
            cx.m.mem.protect(here, 1, if pageable && kept { plain | Prot::PAGED } else { plain });
        }
    }
    ret(base)
}

exports! {
    [2] fn IoBuildPartialMdl(cx, source: u64, target: u64, va: u64, length: u32) {
        let start = cx.r64(source + mdl::START)?.wrapping_add(u64::from(cx.r32(source + mdl::OFFSET)?));
        let count = u64::from(cx.r32(source + mdl::COUNT)?);
        let skip = va.wrapping_sub(start);
        let length = if length == 0 { count.saturating_sub(skip) } else { u64::from(length) };
        if skip > count || length > count - skip {
            return Err(Stop::bug_check(
                0x1A,
                [0x1234, source, va, length],
                format!("IoBuildPartialMdl of {length} bytes at {va:#x}, outside the source's {count} at {start:#x}"),
            ));
        }
        let offset = va & (PAGE - 1);
        let pages = (offset + length).div_ceil(PAGE);
        let room = u64::from(cx.r16(target + mdl::SIZE)?).saturating_sub(mdl::PFNS) / 8;
        if pages > room {
            return Err(Stop::bug_check(
                0x44,
                [target, pages, room, 0],
                format!("IoBuildPartialMdl needs {pages} pages and the target MDL has room for {room}"),
            ));
        }
        let first = ((va & !(PAGE - 1)).wrapping_sub(start & !(PAGE - 1))) / PAGE;
        let pfns = cx.bytes(source + mdl::PFNS + 8 * first, 8 * pages as usize)?;
        cx.put(target + mdl::PFNS, &pfns)?;
        cx.w64(target + mdl::START, va & !(PAGE - 1))?;
        cx.w32(target + mdl::OFFSET, offset as u32)?;
        cx.w32(target + mdl::COUNT, length as u32)?;
        let inherited = cx.r16(source + mdl::FLAGS)?
            & (MDL_SOURCE_IS_NONPAGED_POOL | MDL_MAPPED_TO_SYSTEM_VA | MDL_IO_SPACE);
        let own = cx.r16(target + mdl::FLAGS)? & !(MDL_SOURCE_IS_NONPAGED_POOL | MDL_MAPPED_TO_SYSTEM_VA);
        cx.w16(target + mdl::FLAGS, own | inherited | MDL_PARTIAL)?;
        let mapped = cx.r64(source + mdl::MAPPED)?;
        cx.w64(target + mdl::MAPPED, if mapped == 0 { 0 } else { mapped.wrapping_add(skip) })?;
        void()
    }
    [2] fn MmMapLockedPages(cx, at: u64, mode: u8) {
        if mode != 0 {
            return Err(cx.missing("MmMapLockedPages into user space"));
        }
        mapped(cx, at)
    }
    [2] fn MmAllocatePagesForMdl(cx, low: u64, high: u64, skip: u64, bytes: u64) {
        pages_for_mdl(cx, low, high, skip, bytes, 0)
    }
    [2] fn MmAllocatePagesForMdlEx(cx, low: u64, high: u64, skip: u64, bytes: u64, _cache: u32, flags: u32) {
        if flags & !0x3f != 0 {
            return Err(cx.missing(format!("MmAllocatePagesForMdlEx with flags {flags:#x}")));
        }
        pages_for_mdl(cx, low, high, skip, bytes, flags)
    }
    [1] fn MmFreePagesFromMdl(cx, at: u64) {
        for pfn in frames(cx, at)? {
            cx.m.mem.free_frames(Pa(pfn * PAGE), 1);
        }
        cx.w16(at + mdl::FLAGS, 0)?;
        void()
    }
    // Every mapping of an MDL is writable and none is executable.
    [2] fn MmProtectMdlSystemAddress(cx, at: u64, protect: u32) {
        // PAGE_NOACCESS 1, PAGE_READONLY 2, PAGE_READWRITE 4, PAGE_EXECUTE* 0x10 0x20 0x40.
        let prot = match protect & 0xff {
            1 => Prot::NONE,
            2 => Prot::READ,
            4 => Prot::READ | Prot::WRITE,
            0x10 => Prot::EXEC,
            0x20 => Prot::READ | Prot::EXEC,
            0x40 => Prot::READ | Prot::WRITE | Prot::EXEC,
            // STATUS_INVALID_PAGE_PROTECTION
            _ => return ret(0xC000_0045),
        };
        let flags = cx.r16(at + mdl::FLAGS)?;
        if flags & MDL_MAPPED_TO_SYSTEM_VA == 0 || flags & MDL_SOURCE_IS_NONPAGED_POOL != 0 {
            // STATUS_NOT_MAPPED_VIEW
            return ret(0xC000_0019);
        }
        let va = cx.r64(at + mdl::MAPPED)? & !(PAGE - 1);
        let pages = frames(cx, at)?.len();
        cx.m.mem.protect(Va(va), pages, prot);
        ret(0)
    }
    [15] fn MmSizeOfMdl(_cx, va: u64, length: u64) {
        ret(mdl::PFNS + 8 * ((va & (PAGE - 1)).saturating_add(length)).div_ceil(PAGE))
    }
    [2] fn MmAdvanceMdl(cx, at: u64, bytes: u32) {
        let (count, offset) = (cx.r32(at + mdl::COUNT)?, cx.r32(at + mdl::OFFSET)?);
        if bytes > count {
            // STATUS_INVALID_PARAMETER_2.
            return ret(0xC000_00F0);
        }
        let moved = u64::from(offset) + u64::from(bytes);
        let (start, mapped) = (cx.r64(at + mdl::START)?, cx.r64(at + mdl::MAPPED)?);
        let pages = moved / PAGE;
        let pfns = frames(cx, at)?;
        for (i, pfn) in pfns.iter().skip(pages as usize).enumerate() {
            cx.w64(at + mdl::PFNS + 8 * i as u64, *pfn)?;
        }
        cx.w64(at + mdl::START, start.wrapping_add(pages * PAGE))?;
        cx.w32(at + mdl::OFFSET, (moved % PAGE) as u32)?;
        cx.w32(at + mdl::COUNT, count - bytes)?;
        if mapped != 0 {
            cx.w64(at + mdl::MAPPED, mapped.wrapping_add(u64::from(bytes)))?;
        }
        ret(0)
    }
    // PHYSICAL_MEMORY_RANGE entries, ended by one of zeros, in pool that the driver frees.
    [0] fn MmGetPhysicalMemoryRanges(cx) {
        let at = kernel_block(cx, 32)?;
        let ram = cx.m.config().ram;
        for (i, v) in [RAM_BASE, ram, 0, 0].into_iter().enumerate() {
            cx.w64(at + 8 * i as u64, v)?;
        }
        ret(at)
    }
    [0] fn MmAllocateNonCachedMemory(cx, bytes: u64) {
        let bytes = bytes.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        ret(cx.k.pool.alloc(&mut cx.m.mem, bytes, PoolKind::NonPaged, TAG).unwrap_or(0))
    }
    [0] fn MmFreeNonCachedMemory(cx, at: u64, _bytes: u64) {
        crate::io::free(cx, at)?;
        void()
    }
    [1] fn MmLockPagableDataSection(cx, va: u64) { lock_section(cx, va, true) }
    [1] fn MmLockPagableSectionByHandle(cx, handle: u64) {
        lock_section(cx, handle, true)?;
        void()
    }
    [1] fn MmUnlockPagableImageSection(cx, handle: u64) {
        lock_section(cx, handle, false)?;
        void()
    }
    [2] fn MmIsNonPagedSystemAddressValid(cx, va: u64) {
        ret(u64::from(cx.m.mem.translate(Va(va)).is_some_and(|(_, p)| !p.contains(Prot::PAGED))))
    }
    // Driver Verifier is not on.
    [2] fn MmIsDriverVerifying(_cx, _driver: u64) { ret(0) }
    [0] fn MmIsVerifierEnabled(cx, flags: u64) {
        cx.w32(flags, 0)?;
        // STATUS_NOT_SUPPORTED, as documented when no verifier runs.
        ret(0xC000_00BB)
    }
    // MmLargeSystem, a client system.
    [0] fn MmQuerySystemSize(_cx) { ret(2) }
    [0] fn MmIsThisAnNtAsSystem(_cx) { ret(0) }
    // MM_COPY_ADDRESS is passed by value: a virtual or physical address. MM_COPY_MEMORY_PHYSICAL is 1, VIRTUAL 2.
    [1] fn MmCopyMemory(cx, target: u64, source: u64, bytes: u64, flags: u32, done: u64) {
        cx.w64(done, 0)?;
        if bytes > 64 << 20 || !matches!(flags, 1 | 2) {
            // STATUS_INVALID_PARAMETER.
            return ret(0xC000_000D);
        }
        let mut data = vec![0; bytes as usize];
        let read = if flags == 1 {
            cx.m.mem.read_phys(Pa(source), &mut data).is_ok()
        } else {
            cx.m.mem.read(Va(source), &mut data).is_ok()
        };
        if !read {
            // STATUS_INVALID_ADDRESS.
            return ret(0xC000_0141);
        }
        cx.put(target, &data)?;
        cx.w64(done, bytes)?;
        ret(0)
    }
}
