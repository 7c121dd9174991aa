//! Run-time library: counted strings, memory, and version. Conversions, the calendar, bitmaps, the registry and security
//! descriptors are in the other `rtl_` files.

use crate::context::{Result, ret, void};
use crate::cx::Cx;
use crate::exports;
use crate::exports::crt::{fill_bytes, move_bytes, units};
use crate::pool::PoolKind;
use crate::stop::Stop;

const STATUS_BUFFER_TOO_SMALL: u64 = 0xC000_0023;
const STATUS_NO_MEMORY: u64 = 0xC000_0017;
const TAG: u32 = u32::from_le_bytes(*b"RtlS");

/// How a run-time routine goes on.
#[derive(Clone, Debug)]
pub enum RtlThen {
    /// The QueryRoutine of a registry query returned.
    Query(Box<crate::exports::rtl_registry::Query>),
}

impl RtlThen {
    /// Goes on.
    ///
    /// # Errors
    /// Whatever ends the run.
    pub fn resume(self, cx: &mut Cx<'_>, value: u64) -> Result {
        match self {
            Self::Query(q) => crate::exports::rtl_registry::resume(cx, *q, value),
        }
    }
}

fn init(cx: &mut Cx<'_>, dst: u64, src: u64, wide: bool) -> std::result::Result<(), Stop> {
    let zero = if wide { 2 } else { 1 };
    let (len, max) = if src == 0 {
        (0, 0)
    } else {
        let bytes = units(cx, src, wide)?.len() as u64 * zero;
        let len = bytes.min(0xFFFE - zero);
        (len, len + zero)
    };
    cx.w16(dst, len as u16)?;
    cx.w16(dst.wrapping_add(2), max as u16)?;
    cx.w64(dst.wrapping_add(8), src)
}

/// The code units of a UNICODE_STRING.
pub(crate) fn text(cx: &Cx<'_>, s: u64) -> std::result::Result<Vec<u16>, Stop> {
    let bytes = cx.bytes(cx.r64(s.wrapping_add(8))?, usize::from(cx.r16(s)? & !1))?;
    Ok(bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect())
}

/// Upper case of one code unit: Unicode's simple mapping, where it is one to one.
pub(crate) fn upper(u: u16) -> u16 {
    match char::from_u32(u32::from(u)) {
        Some('a'..='z') => u - 0x20,
        Some(c) if u >= 0x80 => {
            let mut to = c.to_uppercase();
            match (to.next().map(|l| u16::try_from(u32::from(l))), to.next()) {
                (Some(Ok(l)), None) if l >= 0x80 => l,
                _ => u,
            }
        }
        _ => u,
    }
}

fn folded(cx: &Cx<'_>, s: u64, fold: u8) -> std::result::Result<Vec<u16>, Stop> {
    let t = text(cx, s)?;
    Ok(if fold == 0 { t } else { t.into_iter().map(upper).collect() })
}

fn append(cx: &mut Cx<'_>, dst: u64, more: &[u16]) -> Result {
    let (len, max) = (u64::from(cx.r16(dst)?), u64::from(cx.r16(dst.wrapping_add(2))?));
    let total = len + 2 * more.len() as u64;
    if total > max {
        return ret(STATUS_BUFFER_TOO_SMALL);
    }
    let buffer = cx.r64(dst.wrapping_add(8))?;
    let mut data: Vec<u8> = more.iter().flat_map(|u| u.to_le_bytes()).collect();
    if total + 2 <= max {
        data.extend([0, 0]);
    }
    cx.put(buffer.wrapping_add(len), &data)?;
    cx.w16(dst, total as u16)?;
    ret(0)
}

exports! {
    [15] fn RtlInitUnicodeString(cx, dst: u64, src: u64) { init(cx, dst, src, true)?; void() }
    [15] fn RtlInitAnsiString(cx, dst: u64, src: u64) { init(cx, dst, src, false)?; void() }
    [15] fn RtlInitString(cx, dst: u64, src: u64) { init(cx, dst, src, false)?; void() }
    [1] fn RtlCopyUnicodeString(cx, dst: u64, src: u64) {
        let max = usize::from(cx.r16(dst.wrapping_add(2))? / 2);
        let mut t = if src == 0 { Vec::new() } else { text(cx, src)? };
        t.truncate(max);
        cx.w16(dst, 0)?;
        append(cx, dst, &t)?;
        void()
    }
    [1] fn RtlAppendUnicodeStringToString(cx, dst: u64, src: u64) { let t = text(cx, src)?; append(cx, dst, &t) }
    [1] fn RtlAppendUnicodeToString(cx, dst: u64, src: u64) {
        let t = if src == 0 { Vec::new() } else { units(cx, src, true)? };
        append(cx, dst, &t)
    }
    [1] fn RtlEqualUnicodeString(cx, a: u64, b: u64, fold: u8) {
        ret(u64::from(folded(cx, a, fold)? == folded(cx, b, fold)?))
    }
    [1] fn RtlCompareUnicodeString(cx, a: u64, b: u64, fold: u8) {
        ret(match folded(cx, a, fold)?.cmp(&folded(cx, b, fold)?) {
            std::cmp::Ordering::Less => 0xFFFF_FFFF,
            std::cmp::Ordering::Equal => 0,
            std::cmp::Ordering::Greater => 1,
        })
    }
    [1] fn RtlPrefixUnicodeString(cx, a: u64, b: u64, fold: u8) {
        ret(u64::from(folded(cx, b, fold)?.starts_with(&folded(cx, a, fold)?)))
    }
    [1] fn RtlUpcaseUnicodeChar(_cx, c: u16) { ret(u64::from(upper(c))) }
    [0] fn RtlCreateUnicodeString(cx, dst: u64, src: u64) {
        let t = units(cx, src, true)?;
        if t.len() > 0x7FFE {
            return ret(0);
        }
        let va = match cx.k.pool.alloc(&mut cx.m.mem, 2 * t.len() as u64 + 2, PoolKind::Paged, TAG) {
            Err(Stop::OutOfMemory) => return ret(0),
            other => other?,
        };
        move_bytes(cx, va, src, 2 * t.len() as u64)?;
        init(cx, dst, va, true)?;
        ret(1)
    }
    [0] fn RtlFreeUnicodeString(cx, s: u64) {
        let buffer = cx.r64(s.wrapping_add(8))?;
        if buffer != 0 {
            if let Err(e) = cx.k.pool.free(&mut cx.m.mem, buffer) {
                return Err(Stop::bug_check(0xC2, [0x46, buffer, 0, 0], format!("RtlFreeUnicodeString: {e:?}")));
            }
            fill_bytes(cx, s, 16, 0)?;
        }
        void()
    }
    [0] fn RtlAnsiStringToUnicodeString(cx, dst: u64, src: u64, alloc: u8) {
        let n = usize::from(cx.r16(src)?);
        let bytes = cx.bytes(cx.r64(src.wrapping_add(8))?, n)?;
        if n > 0x7FFE {
            return ret(0xC000_00F0);
        }
        if alloc != 0 {
            let va = match cx.k.pool.alloc(&mut cx.m.mem, 2 * n as u64 + 2, PoolKind::Paged, TAG) {
                Err(Stop::OutOfMemory) => return ret(STATUS_NO_MEMORY),
                other => other?,
            };
            cx.w16(dst.wrapping_add(2), 2 * n as u16 + 2)?;
            cx.w64(dst.wrapping_add(8), va)?;
        } else if 2 * n + 2 > usize::from(cx.r16(dst.wrapping_add(2))?) {
            return ret(0x8000_0005);
        }
        cx.w16(dst, 0)?;
        let t: Vec<u16> = bytes.into_iter().map(u16::from).collect();
        append(cx, dst, &t)
    }
    [15] fn RtlCompareMemory(cx, a: u64, b: u64, n: u64) {
        for i in 0..n {
            if cx.r8(a.wrapping_add(i))? != cx.r8(b.wrapping_add(i))? {
                return ret(i);
            }
        }
        ret(n)
    }
    [15] fn RtlZeroMemory(cx, d: u64, n: u64) { fill_bytes(cx, d, n, 0)?; void() }
    [15] fn RtlFillMemory(cx, d: u64, n: u64, byte: u8) { fill_bytes(cx, d, n, byte)?; void() }
    [15] fn RtlMoveMemory(cx, d: u64, s: u64, n: u64) { move_bytes(cx, d, s, n)?; void() }
    [15] fn RtlCopyMemory(cx, d: u64, s: u64, n: u64) { move_bytes(cx, d, s, n)?; void() }
    // RTL_OSVERSIONINFOW, or with a size of 284 the RTL_OSVERSIONINFOEXW.
    [0] fn RtlGetVersion(cx, info: u64) {
        let build = cx.k.windows_build;
        let version = crate::windows::version(build);
        for (at, v) in [(4, version.major), (8, version.minor), (12, build), (16, 2)] {
            cx.w32(info.wrapping_add(at), v)?;
        }
        let pack = if version.service_pack == 0 {
            String::new()
        } else {
            format!("Service Pack {}", version.service_pack)
        };
        for (i, unit) in pack.encode_utf16().chain([0]).enumerate() {
            cx.w16(info.wrapping_add(20 + 2 * i as u64), unit)?;
        }
        if cx.r32(info)? == 284 {
            cx.w16(info.wrapping_add(276), version.service_pack)?;
            cx.w16(info.wrapping_add(278), 0)?;
            cx.w16(info.wrapping_add(280), 0)?;
            // VER_NT_SERVER or VER_NT_WORKSTATION.
            cx.w8(info.wrapping_add(282), if version.server { 3 } else { 1 })?;
            cx.w8(info.wrapping_add(283), 0)?;
        }
        ret(0)
    }
}
