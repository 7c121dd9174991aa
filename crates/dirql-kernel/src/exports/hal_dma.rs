//! DMA adapters: `IoGetDmaAdapter` and the DMA_OPERATIONS behind it, versions 1 to 3.
//!
//! After the Microsoft pages of DEVICE_DESCRIPTION, DMA_OPERATIONS and each routine. There is no IOMMU: a logical
//! address is the physical one, and x64 keeps caches coherent. A transfer of an adapter without scatter/gather goes
//! through a contiguous buffer when its pages are not contiguous, as map registers do. Left out and named when called:
//! system DMA controllers, DMA domains, common-buffer vectors, and most of the `Ex` operations of version 3.

use std::collections::{BTreeMap, VecDeque};

use dirql_mem::Pa;

use crate::context::{Outcome, Result, ret, void};
use crate::cx::Cx;
use crate::exports;
use crate::exports::ex_pool::kernel_block;
use crate::io::device;
use crate::stop::Stop;
use crate::then::Then;

type Res<T> = std::result::Result<T, Stop>;

const PAGE: u64 = 0x1000;
const TAG: u32 = u32::from_le_bytes(*b"Dma ");
const BUFFER_TOO_SMALL: u64 = 0xC000_0023;
const INSUFFICIENT_RESOURCES: u64 = 0xC000_009A;
const INVALID_PARAMETER: u64 = 0xC000_000D;
/// Most map registers of one adapter, and so pages of one transfer.
const MAX_REGISTERS: u64 = 1 << 16;
/// DMA_TRANSFER_CONTEXT_SIZE_V1.
const CONTEXT_SIZE: usize = 128;
/// Distinguishes map register bases from addresses in reports; the value is opaque to drivers.
const BASE: u64 = 0x1000;

/// MDL.
mod mdl {
    pub(super) const NEXT: u64 = 0;
    pub(super) const START: u64 = 32;
    pub(super) const COUNT: u64 = 40;
    pub(super) const OFFSET: u64 = 44;
    pub(super) const PFNS: u64 = 48;
}

/// SCATTER_GATHER_LIST: elements of 24 bytes after 16.
const LIST_HEAD: u64 = 16;
const ELEMENT: u64 = 24;

/// A request for an adapter's channel.
#[derive(Clone, Debug)]
struct Channel {
    device: u64,
    routine: u64,
    context: u64,
    registers: u64,
}

/// The buffer that stands for a run of map registers.
#[derive(Clone, Debug)]
struct Bounce {
    va: u64,
    pa: u64,
    pages: u64,
}

/// An adapter object.
#[derive(Clone, Debug)]
struct Adapter {
    scatter_gather: bool,
    highest: u64,
    registers: u64,
    busy: bool,
    queue: VecDeque<Channel>,
    bounces: BTreeMap<u64, Bounce>,
    lists: BTreeMap<u64, bool>,
    next_base: u64,
}

/// All adapters, by the address of their DMA_ADAPTER.
#[derive(Clone, Debug, Default)]
pub struct DmaState {
    adapters: BTreeMap<u64, Adapter>,
}

/// How a DMA routine goes on.
#[derive(Clone, Debug)]
pub enum HalThen {
    /// An AdapterControl routine returned what is to happen with the channel; then return this value.
    Channel {
        /// The adapter.
        adapter: u64,
        /// Map register base it was given.
        base: u64,
        /// What the export returns.
        value: u64,
    },
}

impl HalThen {
    pub(crate) fn resume(self, cx: &mut Cx<'_>, action: u64) -> Result {
        let Self::Channel { adapter, base, value } = self;
        match action as u32 {
            // KeepObject.
            1 => ret(value),
            // DeallocateObject, DeallocateObjectKeepRegisters.
            kind @ (2 | 3) => {
                if kind == 2 {
                    free_registers(cx, adapter, base)?;
                }
                free_channel(cx, adapter, value)
            }
            other => Err(Stop::bug_check(
                0xE6,
                [0, adapter, u64::from(other), 0],
                format!("an AdapterControl routine returned {other}, which is no IO_ALLOCATION_ACTION"),
            )),
        }
    }
}

fn get<'a>(cx: &'a mut Cx<'_>, at: u64) -> Res<&'a mut Adapter> {
    if !cx.k.ke.dma.adapters.contains_key(&at) {
        return Err(Stop::bug_check(
            0xE6,
            [0x13, at, 0, 0],
            format!("DMA routine called with {at:#x}, which is no DMA adapter or was put back"),
        ));
    }
    cx.k.ke.dma.adapters.get_mut(&at).ok_or_else(|| Stop::Internal("a DMA adapter vanished".into()))
}

/// The table of routines of each version, in the order of DMA_OPERATIONS behind its Size.
const OPERATIONS: &[&str] = &[
    "HalPutDmaAdapter",
    "HalAllocateCommonBuffer",
    "HalFreeCommonBuffer",
    "IoAllocateAdapterChannel",
    "IoFlushAdapterBuffers",
    "IoFreeAdapterChannel",
    "IoFreeMapRegisters",
    "IoMapTransfer",
    "HalpDmaGetAlignment",
    "HalReadDmaCounter",
    "HalpDmaGetScatterGatherList",
    "HalpDmaPutScatterGatherList",
    "HalpDmaCalculateScatterGatherList",
    "HalpDmaBuildScatterGatherList",
    "HalpDmaBuildMdlFromScatterGatherList",
    "HalpDmaGetAdapterInfo",
    "HalpDmaGetTransferInfo",
    "HalpDmaInitializeTransferContext",
    "HalpDmaAllocateCommonBufferEx",
    "HalpDmaAllocateAdapterChannelEx",
    "HalpDmaConfigureAdapterChannel",
    "HalpDmaCancelAdapterChannel",
    "HalpDmaMapTransferEx",
    "HalpDmaGetScatterGatherListEx",
    "HalpDmaBuildScatterGatherListEx",
    "HalpDmaFlushAdapterBuffersEx",
    "HalpDmaFreeAdapterObject",
    "HalpDmaCancelMappedTransfer",
    "HalpDmaAllocateDomainCommonBuffer",
    "HalpDmaFlushDmaBuffer",
    "HalpDmaJoinDmaDomain",
    "HalpDmaLeaveDmaDomain",
    "HalpDmaGetDmaDomain",
    "HalpDmaAllocateCommonBufferWithBounds",
    "HalpDmaAllocateCommonBufferVector",
    "HalpDmaGetCommonBufferFromVectorByIndex",
    "HalpDmaFreeCommonBufferFromVector",
    "HalpDmaFreeCommonBufferVector",
    "HalpDmaCreateCommonBufferFromMdl",
];
/// Routines of version 1; version 2 has those of scatter/gather sizes besides, version 3 all.
const VERSION_1: usize = 12;
const VERSION_2: usize = 15;

fn new_adapter(cx: &mut Cx<'_>, description: u64, registers_out: u64) -> Result {
    let version = cx.r32(description)?;
    let (master, scatter_gather) = (cx.r8(description + 4)? != 0, cx.r8(description + 5)? != 0);
    let (wide32, wide64) = (cx.r8(description + 8)? != 0, cx.r8(description + 11)? != 0);
    let maximum = cx.r32(description + 0x20)?;
    if version > 3 {
        return ret(0);
    }
    if !master {
        return Err(
            cx.missing("a DMA adapter of the system DMA controller (DEVICE_DESCRIPTION.Master is FALSE)")
        );
    }
    let highest = if version == 3 {
        match cx.r32(description + 0x28)? {
            0 => u64::from(u32::MAX),
            bits @ 1..=63 => (1 << bits) - 1,
            _ => u64::MAX,
        }
    } else if wide64 {
        u64::MAX
    } else if wide32 {
        u64::from(u32::MAX)
    } else {
        // 24 bits, what ISA masters reach.
        0xff_ffff
    };
    let registers = (u64::from(maximum).div_ceil(PAGE) + 1).min(MAX_REGISTERS);
    let count = match version {
        0 | 1 => VERSION_1,
        2 => VERSION_2,
        _ => OPERATIONS.len(),
    };
    let size = 8 + 8 * count as u64;
    let at = match kernel_block(cx, 0x10 + size) {
        Err(Stop::OutOfMemory) => return ret(0),
        other => other?,
    };
    cx.w16(at, version.max(1) as u16)?;
    cx.w16(at + 2, 0x10)?;
    cx.w32(at + 4, 0)?;
    let table = at + 0x10;
    cx.w64(at + 8, table)?;
    cx.w64(table, size)?;
    for (i, name) in OPERATIONS.iter().take(count).enumerate() {
        let to =
            cx.k.modules
                .export_address(name)
                .ok_or_else(|| Stop::Internal(format!("{name} has no address")))?;
        cx.w64(table + 8 + 8 * i as u64, to)?;
    }
    if registers_out != 0 {
        cx.w32(registers_out, registers as u32)?;
    }
    cx.k.ke.dma.adapters.insert(
        at,
        Adapter {
            scatter_gather,
            highest,
            registers,
            busy: false,
            queue: VecDeque::new(),
            bounces: BTreeMap::new(),
            lists: BTreeMap::new(),
            next_base: 0,
        },
    );
    ret(at)
}

/// The physically contiguous runs of a part of an MDL chain, as address and length; none if it ends before the length.
fn runs(cx: &Cx<'_>, mut at: u64, mut skip: u64, length: u64) -> Res<Option<Vec<(u64, u64)>>> {
    let mut out: Vec<(u64, u64)> = vec![];
    let mut left = length;
    let mut chain = 0;
    while left > 0 {
        chain += 1;
        if at == 0 || chain > 4096 {
            return Ok(None);
        }
        let count = u64::from(cx.r32(at + mdl::COUNT)?);
        let offset = u64::from(cx.r32(at + mdl::OFFSET)?);
        while skip < count && left > 0 {
            let place = offset + skip;
            let pfn = cx.r64(at + mdl::PFNS + 8 * (place / PAGE))?;
            let pa = pfn * PAGE + place % PAGE;
            let n = (PAGE - place % PAGE).min(count - skip).min(left);
            match out.last_mut() {
                Some((start, len)) if *start + *len == pa => *len += n,
                _ => out.push((pa, n)),
            }
            skip += n;
            left -= n;
        }
        skip = skip.saturating_sub(count);
        at = cx.r64(at + mdl::NEXT)?;
    }
    Ok(Some(out))
}

/// How far into an MDL a virtual address of its buffer is.
fn into(cx: &Cx<'_>, at: u64, va: u64) -> Res<u64> {
    let start = cx.r64(at + mdl::START)?.wrapping_add(u64::from(cx.r32(at + mdl::OFFSET)?));
    Ok(va.wrapping_sub(start))
}

fn reachable(cx: &mut Cx<'_>, adapter: u64, runs: &[(u64, u64)]) -> Res<()> {
    let highest = get(cx, adapter)?.highest;
    match runs.iter().find(|(pa, n)| pa + n - 1 > highest) {
        Some((pa, _)) => {
            Err(cx.missing(format!("a transfer at {pa:#x} for a device that reaches to {highest:#x} only")))
        }
        None => Ok(()),
    }
}

fn write_list(cx: &mut Cx<'_>, at: u64, runs: &[(u64, u64)]) -> Res<()> {
    cx.w64(at, runs.len() as u64)?;
    cx.w64(at + 8, 0)?;
    for (i, &(pa, n)) in runs.iter().enumerate() {
        let e = at + LIST_HEAD + ELEMENT * i as u64;
        cx.w64(e, pa)?;
        cx.w64(e + 8, n)?;
        cx.w64(e + 16, 0)?;
    }
    Ok(())
}

fn current_irp(cx: &Cx<'_>, object: u64) -> Res<u64> {
    if object == 0 { Ok(0) } else { cx.r64(object + device::CURRENT_IRP) }
}

/// What a scatter/gather operation is about.
struct Transfer {
    adapter: u64,
    object: u64,
    mdl: u64,
    skip: u64,
    length: u32,
}

/// Builds a list and gives it to the driver's routine, or stores it when there is none.
fn scatter_gather(
    cx: &mut Cx<'_>,
    t: &Transfer,
    call: (u64, u64),
    given: Option<(u64, u32)>,
    out: u64,
) -> Result {
    get(cx, t.adapter)?;
    let Some(runs) = runs(cx, t.mdl, t.skip, u64::from(t.length))? else { return ret(BUFFER_TOO_SMALL) };
    reachable(cx, t.adapter, &runs)?;
    let need = LIST_HEAD + ELEMENT * runs.len() as u64;
    let list = match given {
        Some((buffer, room)) if u64::from(room) >= need => buffer,
        Some(_) => return ret(BUFFER_TOO_SMALL),
        None => match kernel_block(cx, need) {
            Err(Stop::OutOfMemory) => return ret(INSUFFICIENT_RESOURCES),
            other => other?,
        },
    };
    write_list(cx, list, &runs)?;
    get(cx, t.adapter)?.lists.insert(list, given.is_none());
    if out != 0 {
        cx.w64(out, list)?;
    }
    let (routine, context) = call;
    if routine == 0 {
        return ret(0);
    }
    let irp = current_irp(cx, t.object)?;
    Ok(Outcome::Call { routine, args: vec![t.object, irp, list, context], then: Then::RetValue(0) })
}

fn put_list(cx: &mut Cx<'_>, adapter: u64, list: u64) -> Result {
    match get(cx, adapter)?.lists.remove(&list) {
        Some(true) => {
            crate::io::free(cx, list)?;
            void()
        }
        Some(false) => void(),
        None => Err(Stop::bug_check(
            0xE6,
            [0, adapter, list, 0],
            format!("PutScatterGatherList of {list:#x}, which is no list of this adapter or was put already"),
        )),
    }
}

/// Gives the channel to the next request, if it is free.
fn start_channel(cx: &mut Cx<'_>, adapter: u64, value: u64) -> Result {
    let a = get(cx, adapter)?;
    if a.busy {
        return ret(value);
    }
    let Some(c) = a.queue.pop_front() else { return ret(value) };
    a.busy = true;
    a.next_base += 1;
    let base = BASE * a.next_base;
    if !a.scatter_gather && c.registers > 0 {
        let highest = a.highest;
        let va = cx.k.pool.alloc_contiguous(&mut cx.m.mem, c.registers * PAGE, highest, 0, TAG)?;
        let pa = cx.m.mem.virt_to_phys(dirql_mem::Va(va)).map_or(0, |p| p.0);
        get(cx, adapter)?.bounces.insert(base, Bounce { va, pa, pages: c.registers });
    }
    let irp = current_irp(cx, c.device)?;
    Ok(Outcome::Call {
        routine: c.routine,
        args: vec![c.device, irp, base, c.context],
        then: Then::Hal(HalThen::Channel { adapter, base, value }),
    })
}

fn free_channel(cx: &mut Cx<'_>, adapter: u64, value: u64) -> Result {
    get(cx, adapter)?.busy = false;
    start_channel(cx, adapter, value)
}

fn free_registers(cx: &mut Cx<'_>, adapter: u64, base: u64) -> Res<()> {
    if let Some(b) = get(cx, adapter)?.bounces.remove(&base) {
        crate::io::free(cx, b.va)?;
    }
    Ok(())
}

fn allocate_channel(cx: &mut Cx<'_>, adapter: u64, c: Channel) -> Result {
    let a = get(cx, adapter)?;
    if c.registers > a.registers {
        return ret(INSUFFICIENT_RESOURCES);
    }
    if a.queue.len() >= 4096 {
        return Err(Stop::OutOfMemory);
    }
    a.queue.push_back(c);
    start_channel(cx, adapter, 0)
}

/// Copies between a transfer's pages and the buffer that stands for its map registers.
fn copy(cx: &mut Cx<'_>, pages: &[(u64, u64)], buffer: u64, to_buffer: bool) -> Res<()> {
    let mut at = buffer;
    for &(pa, n) in pages {
        let mut data = vec![0; n as usize];
        let (from, to) = if to_buffer { (pa, at) } else { (at, pa) };
        let short = |_| Stop::Internal("a DMA buffer is outside memory".into());
        cx.m.mem.read_phys(Pa(from), &mut data).map_err(short)?;
        cx.m.mem.write_phys(Pa(to), &data).map_err(short)?;
        at += n;
    }
    Ok(())
}

/// Maps the next part of a transfer: gives its logical address, and the length that is contiguous.
fn map_transfer(cx: &mut Cx<'_>, adapter: u64, t: (u64, u64), va: u64, length: u64, write: u8) -> Result {
    let (at, base) = t;
    let wanted = cx.r32(length)?;
    let skip = into(cx, at, va)?;
    let Some(runs) = runs(cx, at, skip, u64::from(wanted))? else {
        return Err(Stop::bug_check(
            0xE6,
            [3, at, u64::from(wanted), 0],
            format!("MapTransfer of {wanted} bytes, more than the MDL at {at:#x} has from there"),
        ));
    };
    let Some(&(pa, n)) = runs.first() else { return ret(0) };
    let a = get(cx, adapter)?;
    let near = pa + n - 1 <= a.highest;
    let bounce = a.bounces.get(&base).cloned();
    match bounce {
        Some(b) if !near || runs.len() > 1 => {
            let offset = va & (PAGE - 1);
            let room = (b.pages * PAGE).saturating_sub(offset);
            if u64::from(wanted) > room {
                return Err(Stop::bug_check(
                    0xE6,
                    [0x0F, base, b.pages, u64::from(wanted)],
                    format!("MapTransfer of {wanted} bytes with {} map registers", b.pages),
                ));
            }
            if write != 0 {
                copy(cx, &runs, b.pa + offset, true)?;
            }
            ret(b.pa + offset)
        }
        _ => {
            reachable(cx, adapter, &runs[..1])?;
            cx.w32(length, n as u32)?;
            ret(pa)
        }
    }
}

fn flush(cx: &mut Cx<'_>, adapter: u64, t: (u64, u64), skip: u64, length: u32, write: u8) -> Result {
    let (at, base) = t;
    let Some(b) = get(cx, adapter)?.bounces.get(&base).cloned() else { return ret(1) };
    let Some(runs) = runs(cx, at, skip, u64::from(length))? else { return ret(0) };
    if write == 0 && runs.len() > 1 {
        let offset = (u64::from(cx.r32(at + mdl::OFFSET)?) + skip) & (PAGE - 1);
        copy(cx, &runs, b.pa + offset, false)?;
    }
    ret(1)
}

fn common_buffer(cx: &mut Cx<'_>, adapter: u64, length: u32, highest: u64, logical: u64) -> Result {
    let highest = get(cx, adapter)?.highest.min(highest);
    let length = u64::from(length).next_multiple_of(PAGE);
    let va = match cx.k.pool.alloc_contiguous(&mut cx.m.mem, length, highest, 0, TAG) {
        Err(Stop::OutOfMemory) => return ret(0),
        other => other?,
    };
    let pa = cx.m.mem.virt_to_phys(dirql_mem::Va(va)).map_or(0, |p| p.0);
    cx.w64(logical, pa)?;
    ret(va)
}

fn put_adapter(cx: &mut Cx<'_>, adapter: u64) -> Result {
    get(cx, adapter)?;
    if let Some(a) = cx.k.ke.dma.adapters.remove(&adapter) {
        for b in a.bounces.values() {
            crate::io::free(cx, b.va)?;
        }
    }
    crate::io::free(cx, adapter)?;
    void()
}

fn absent(cx: &Cx<'_>, name: &str) -> Result {
    Err(cx.missing(format!("DMA_OPERATIONS.{name}")))
}

exports! {
    [0] fn IoGetDmaAdapter(cx, _pdo: u64, description: u64, registers: u64) {
        new_adapter(cx, description, registers)
    }
    [0] fn HalGetAdapter(cx, description: u64, registers: u64) { new_adapter(cx, description, registers) }
    [0] fn HalPutDmaAdapter(cx, adapter: u64) { put_adapter(cx, adapter) }
    [0] fn HalAllocateCommonBuffer(cx, adapter: u64, length: u32, logical: u64, _cached: u8) {
        common_buffer(cx, adapter, length, u64::MAX, logical)
    }
    [0] fn HalFreeCommonBuffer(cx, adapter: u64, _length: u32, _logical: u64, va: u64, _cached: u8) {
        get(cx, adapter)?;
        crate::io::free(cx, va)?;
        void()
    }
    [2] fn IoAllocateAdapterChannel(cx, adapter: u64, object: u64, registers: u32, routine: u64, context: u64) {
        let registers = u64::from(registers);
        allocate_channel(cx, adapter, Channel { device: object, routine, context, registers })
    }
    [2] fn IoFlushAdapterBuffers(cx, adapter: u64, at: u64, base: u64, va: u64, length: u32, write: u8) {
        let skip = into(cx, at, va)?;
        flush(cx, adapter, (at, base), skip, length, write)
    }
    [2] fn IoFreeAdapterChannel(cx, adapter: u64) {
        if !get(cx, adapter)?.busy {
            return Err(Stop::bug_check(
                0xE6,
                [1, adapter, 0, 0],
                "FreeAdapterChannel for a channel that is not allocated",
            ));
        }
        free_channel(cx, adapter, 0)
    }
    [2] fn IoFreeMapRegisters(cx, adapter: u64, base: u64, _count: u32) {
        free_registers(cx, adapter, base)?;
        void()
    }
    [2] fn IoMapTransfer(cx, adapter: u64, at: u64, base: u64, va: u64, length: u64, write: u8) {
        map_transfer(cx, adapter, (at, base), va, length, write)
    }
    [2] fn HalpDmaGetAlignment(cx, adapter: u64) {
        get(cx, adapter)?;
        ret(1)
    }
    [2] fn HalReadDmaCounter(cx, _adapter: u64) {
        Err(cx.missing("ReadDmaCounter: the counter of a system DMA controller"))
    }
    [2] fn HalpDmaGetScatterGatherList(
        cx, adapter: u64, object: u64, at: u64, va: u64, length: u32, routine: u64, context: u64, _write: u8
    ) {
        let skip = into(cx, at, va)?;
        scatter_gather(cx, &Transfer { adapter, object, mdl: at, skip, length }, (routine, context), None, 0)
    }
    [2] fn HalpDmaPutScatterGatherList(cx, adapter: u64, list: u64, _write: u8) { put_list(cx, adapter, list) }
    [2] fn HalpDmaCalculateScatterGatherList(
        cx, adapter: u64, at: u64, va: u64, length: u32, size: u64, registers: u64
    ) {
        get(cx, adapter)?;
        let pages = if at == 0 {
            ((va & (PAGE - 1)) + u64::from(length)).div_ceil(PAGE)
        } else {
            // Each MDL of the chain may begin within a page.
            let mut pages = 0;
            let (mut next, mut left) = (at, u64::from(length));
            for _ in 0..4096 {
                if next == 0 || left == 0 {
                    break;
                }
                let (count, offset) = (u64::from(cx.r32(next + mdl::COUNT)?), u64::from(cx.r32(next + mdl::OFFSET)?));
                let n = count.min(left);
                pages += (offset + n).div_ceil(PAGE);
                left -= n;
                next = cx.r64(next + mdl::NEXT)?;
            }
            pages
        };
        cx.w32(size, (LIST_HEAD + ELEMENT * pages) as u32)?;
        if registers != 0 {
            cx.w32(registers, pages as u32)?;
        }
        ret(0)
    }
    [2] fn HalpDmaBuildScatterGatherList(
        cx, adapter: u64, object: u64, at: u64, va: u64, length: u32, routine: u64, context: u64, _write: u8,
        buffer: u64, room: u32
    ) {
        let skip = into(cx, at, va)?;
        let t = Transfer { adapter, object, mdl: at, skip, length };
        scatter_gather(cx, &t, (routine, context), Some((buffer, room)), 0)
    }
    // Without an IOMMU the pages of the list are those of the original MDL.
    [2] fn HalpDmaBuildMdlFromScatterGatherList(cx, adapter: u64, _list: u64, original: u64, target: u64) {
        get(cx, adapter)?;
        cx.w64(target, original)?;
        ret(0)
    }
    [2] fn HalpDmaGetAdapterInfo(cx, _adapter: u64, _info: u64) { absent(cx, "GetDmaAdapterInfo") }
    [2] fn HalpDmaGetTransferInfo(cx) { absent(cx, "GetDmaTransferInfo") }
    [2] fn HalpDmaInitializeTransferContext(cx, adapter: u64, context: u64) {
        get(cx, adapter)?;
        cx.put(context, &[0; CONTEXT_SIZE])?;
        ret(0)
    }
    [0] fn HalpDmaAllocateCommonBufferEx(
        cx, adapter: u64, maximum: u64, length: u32, logical: u64, _cached: u8, _node: u32
    ) {
        let highest = if maximum == 0 { u64::MAX } else { cx.r64(maximum)? };
        common_buffer(cx, adapter, length, highest, logical)
    }
    [2] fn HalpDmaAllocateAdapterChannelEx(cx) { absent(cx, "AllocateAdapterChannelEx") }
    [2] fn HalpDmaConfigureAdapterChannel(cx) { absent(cx, "ConfigureAdapterChannel") }
    [2] fn HalpDmaCancelAdapterChannel(cx, adapter: u64, _object: u64, _context: u64) {
        // Nothing is ever queued by a transfer context.
        get(cx, adapter)?;
        ret(0)
    }
    [2] fn HalpDmaMapTransferEx(cx) { absent(cx, "MapTransferEx") }
    [2] fn HalpDmaGetScatterGatherListEx(
        cx, adapter: u64, object: u64, _transfer: u64, at: u64, offset: u64, length: u32, flags: u32, routine: u64,
        context: u64, _write: u8, _completion: u64, _completion_context: u64, out: u64
    ) {
        // DMA_SYNCHRONOUS_CALLBACK is how it always is; without it the routine must be there.
        if flags & !1 != 0 || (routine == 0 && flags & 1 == 0) {
            return ret(INVALID_PARAMETER);
        }
        scatter_gather(cx, &Transfer { adapter, object, mdl: at, skip: offset, length }, (routine, context), None, out)
    }
    [2] fn HalpDmaBuildScatterGatherListEx(cx) { absent(cx, "BuildScatterGatherListEx") }
    [2] fn HalpDmaFlushAdapterBuffersEx(cx, adapter: u64, at: u64, base: u64, offset: u64, length: u32, write: u8) {
        let done = flush(cx, adapter, (at, base), offset, length, write)?;
        // A status, not a truth value.
        match done {
            Outcome::Ret(0) => ret(INVALID_PARAMETER),
            _ => ret(0),
        }
    }
    [2] fn HalpDmaFreeAdapterObject(cx, adapter: u64, action: u32) {
        match action {
            2 | 3 => free_channel(cx, adapter, 0),
            _ => void(),
        }
    }
    [2] fn HalpDmaCancelMappedTransfer(cx) { absent(cx, "CancelMappedTransfer") }
    [0] fn HalpDmaAllocateDomainCommonBuffer(cx) { absent(cx, "AllocateDomainCommonBuffer") }
    [2] fn HalpDmaFlushDmaBuffer(cx) { absent(cx, "FlushDmaBuffer") }
    [0] fn HalpDmaJoinDmaDomain(cx) { absent(cx, "JoinDmaDomain") }
    [0] fn HalpDmaLeaveDmaDomain(cx) { absent(cx, "LeaveDmaDomain") }
    [2] fn HalpDmaGetDmaDomain(cx) { absent(cx, "GetDmaDomain") }
    [0] fn HalpDmaAllocateCommonBufferWithBounds(cx) { absent(cx, "AllocateCommonBufferWithBounds") }
    [0] fn HalpDmaAllocateCommonBufferVector(cx) { absent(cx, "AllocateCommonBufferVector") }
    [2] fn HalpDmaGetCommonBufferFromVectorByIndex(cx) { absent(cx, "GetCommonBufferFromVectorByIndex") }
    [0] fn HalpDmaFreeCommonBufferFromVector(cx) { absent(cx, "FreeCommonBufferFromVector") }
    [0] fn HalpDmaFreeCommonBufferVector(cx) { absent(cx, "FreeCommonBufferVector") }
    [0] fn HalpDmaCreateCommonBufferFromMdl(cx) { absent(cx, "CreateCommonBufferFromMdl") }
}
