//! KUSER_SHARED_DATA: the page that drivers read inline for time and version (ntddk.h gives its layout).
//!
//! Its times move at every clock tick, 15.625 ms, as Windows moves them, and no finer. What is not listed here reads
//! as zero.

use dirql_mem::{Prot, Va};

use crate::cx::Cx;
use crate::loader::SHARED_DATA;
use crate::stop::Stop;
use crate::timer::{BOOT_TIME, TIME_INCREMENT};

const TICK_COUNT_MULTIPLIER: u64 = 0x4;
const INTERRUPT_TIME: u64 = 0x8;
const SYSTEM_TIME: u64 = 0x14;
const IMAGE_NUMBER: u64 = 0x2c;
const NT_SYSTEM_ROOT: u64 = 0x30;
const NT_BUILD_NUMBER: u64 = 0x260;
const NT_PRODUCT_TYPE: u64 = 0x264;
const NT_MAJOR: u64 = 0x26c;
const PROCESSOR_FEATURES: u64 = 0x274;
const PHYSICAL_PAGES: u64 = 0x2e8;
const TICK_COUNT: u64 = 0x320;
const ACTIVE_PROCESSORS: u64 = 0x3c0;

/// Major and minor version that a build number belongs to.
pub(crate) fn version(build: u32) -> (u32, u32) {
    match build {
        ..2600 => (5, 0),
        2600..3790 => (5, 1),
        3790..6000 => (5, 2),
        6000..7600 => (6, 0),
        7600..9200 => (6, 1),
        9200..9600 => (6, 2),
        9600..10240 => (6, 3),
        _ => (10, 0),
    }
}

/// Maps the page and fills in what never changes.
pub(crate) fn map(cx: &mut Cx<'_>) -> Result<(), Stop> {
    let pa = cx.m.mem.alloc_frames(1)?;
    // Only readable for the driver; the kernel writes through the page table before it is closed.
    cx.m.mem.map_ram(Va(SHARED_DATA), pa, 1, Prot::READ | Prot::WRITE);
    let build = cx.k.windows_build;
    let (major, minor) = version(build);
    let root: Vec<u8> = "C:\\Windows".encode_utf16().flat_map(u16::to_le_bytes).collect();
    cx.put(SHARED_DATA + NT_SYSTEM_ROOT, &root)?;
    // One tick is 15.625 ms: a multiplier with 24 fraction bits.
    cx.w32(SHARED_DATA + TICK_COUNT_MULTIPLIER, 0x0fa0_0000)?;
    // IMAGE_FILE_MACHINE_AMD64, low and high bound.
    cx.w32(SHARED_DATA + IMAGE_NUMBER, 0x8664_8664)?;
    cx.w32(SHARED_DATA + NT_BUILD_NUMBER, build)?;
    // NtProductWinNt, and that it is valid.
    cx.w32(SHARED_DATA + NT_PRODUCT_TYPE, 1)?;
    cx.w8(SHARED_DATA + NT_PRODUCT_TYPE + 4, 1)?;
    cx.w32(SHARED_DATA + NT_MAJOR, major)?;
    cx.w32(SHARED_DATA + NT_MAJOR + 4, minor)?;
    for feature in super::exports::ex::PROCESSOR_FEATURES {
        cx.w8(SHARED_DATA + PROCESSOR_FEATURES + u64::from(*feature), 1)?;
    }
    let pages = cx.m.config().ram / 0x1000;
    cx.w32(SHARED_DATA + PHYSICAL_PAGES, pages as u32)?;
    let cpus = cx.k.procs.len() as u32;
    cx.w32(SHARED_DATA + ACTIVE_PROCESSORS, cpus)?;
    write(cx, 0)?;
    cx.m.mem.protect(Va(SHARED_DATA), 1, Prot::READ);
    Ok(())
}

/// Writes the times of a clock tick: each a low part and two copies of the high part.
fn write(cx: &mut Cx<'_>, tick: u64) -> Result<(), Stop> {
    let interrupt = tick * TIME_INCREMENT;
    for (at, value) in [(INTERRUPT_TIME, interrupt), (SYSTEM_TIME, BOOT_TIME + interrupt), (TICK_COUNT, tick)]
    {
        cx.w32(SHARED_DATA + at, value as u32)?;
        cx.w32(SHARED_DATA + at + 4, (value >> 32) as u32)?;
        cx.w32(SHARED_DATA + at + 8, (value >> 32) as u32)?;
    }
    Ok(())
}

/// Lets the clock tick, if one was due since the last call.
pub(crate) fn tick(cx: &mut Cx<'_>) -> Result<(), Stop> {
    let tick = cx.now() / 100 / TIME_INCREMENT;
    if tick == cx.k.ke.shared_tick {
        return Ok(());
    }
    cx.k.ke.shared_tick = tick;
    cx.m.mem.protect(Va(SHARED_DATA), 1, Prot::READ | Prot::WRITE);
    write(cx, tick)?;
    cx.m.mem.protect(Va(SHARED_DATA), 1, Prot::READ);
    Ok(())
}
