//! The C run-time routines that `ntoskrnl.exe` exports. They run at any IRQL if the memory does. Case is ASCII's, the
//! "C" locale's. Left out: `qsort` and floating point.

use crate::context::ret;
use crate::cx::Cx;
use crate::exports;
use crate::printf::{CallArgs, ListArgs, format};
use crate::stop::Stop;

/// Longest string a routine follows, in code units.
const MAX_STRING: usize = 16 << 20;

fn step(wide: bool) -> u64 {
    if wide { 2 } else { 1 }
}

fn unit(cx: &Cx<'_>, at: u64, i: usize, wide: bool) -> Result<u16, Stop> {
    let at = at.wrapping_add(step(wide) * i as u64);
    if wide { cx.r16(at) } else { Ok(u16::from(cx.r8(at)?)) }
}

/// A string up to its zero or `max` units, whichever is first.
fn take(cx: &Cx<'_>, at: u64, wide: bool, max: usize) -> Result<Vec<u16>, Stop> {
    let mut out = Vec::new();
    while out.len() < max {
        if out.len() >= MAX_STRING {
            return Err(cx.missing("a string of more than 16 Mi characters"));
        }
        match unit(cx, at, out.len(), wide)? {
            0 => break,
            u => out.push(u),
        }
    }
    Ok(out)
}

/// A zero-terminated string.
pub(crate) fn units(cx: &Cx<'_>, at: u64, wide: bool) -> Result<Vec<u16>, Stop> {
    take(cx, at, wide, usize::MAX)
}

fn bytes_of(units: &[u16], wide: bool) -> Vec<u8> {
    if wide {
        units.iter().flat_map(|u| u.to_le_bytes()).collect()
    } else {
        units.iter().map(|&u| u8::try_from(u).unwrap_or(b'?')).collect()
    }
}

/// Writes code units, and a zero after them if asked.
fn put(cx: &mut Cx<'_>, at: u64, text: &[u16], wide: bool, zero: bool) -> Result<(), Stop> {
    let mut data = bytes_of(text, wide);
    if zero {
        data.extend(std::iter::repeat_n(0, step(wide) as usize));
    }
    cx.put(at, &data)
}

fn lower(u: u16) -> u16 {
    if (0x41..=0x5A).contains(&u) { u + 0x20 } else { u }
}

fn upper(u: u16) -> u16 {
    if (0x61..=0x7A).contains(&u) { u - 0x20 } else { u }
}

/// Compares as the C routines do, reading no further than the first difference; -1, 0 or 1.
fn compare(cx: &Cx<'_>, a: u64, b: u64, wide: bool, max: usize, fold: bool) -> Result<u64, Stop> {
    for i in 0..max.min(MAX_STRING) {
        let (mut x, mut y) = (unit(cx, a, i, wide)?, unit(cx, b, i, wide)?);
        if fold {
            (x, y) = (lower(x), lower(y));
        }
        if x != y {
            return Ok(if x < y { 0xFFFF_FFFF } else { 1 });
        }
        if x == 0 {
            break;
        }
    }
    Ok(0)
}

fn find(cx: &Cx<'_>, s: u64, c: u16, wide: bool, last: bool) -> Result<u64, Stop> {
    let text = units(cx, s, wide)?;
    let at = if c == 0 {
        Some(text.len())
    } else if last {
        text.iter().rposition(|&u| u == c)
    } else {
        text.iter().position(|&u| u == c)
    };
    Ok(at.map_or(0, |i| s.wrapping_add(step(wide) * i as u64)))
}

fn find_text(cx: &Cx<'_>, s: u64, what: u64, wide: bool) -> Result<u64, Stop> {
    let (text, what) = (units(cx, s, wide)?, units(cx, what, wide)?);
    if what.is_empty() {
        return Ok(s);
    }
    let at = text.windows(what.len()).position(|w| w == what);
    Ok(at.map_or(0, |i| s.wrapping_add(step(wide) * i as u64)))
}

fn copy(cx: &mut Cx<'_>, d: u64, s: u64, wide: bool) -> Result<u64, Stop> {
    let text = units(cx, s, wide)?;
    put(cx, d, &text, wide, true)?;
    Ok(d)
}

fn copy_n(cx: &mut Cx<'_>, d: u64, s: u64, n: u64, wide: bool) -> Result<u64, Stop> {
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    let mut text = take(cx, s, wide, n)?;
    if n > MAX_STRING {
        return Err(cx.missing("a string copy of more than 16 Mi characters"));
    }
    text.resize(n, 0);
    put(cx, d, &text, wide, false)?;
    Ok(d)
}

fn append(cx: &mut Cx<'_>, d: u64, s: u64, n: usize, wide: bool) -> Result<u64, Stop> {
    let end = units(cx, d, wide)?.len() as u64;
    let text = take(cx, s, wide, n)?;
    put(cx, d.wrapping_add(step(wide) * end), &text, wide, true)?;
    Ok(d)
}

fn parse(text: &[u16]) -> u64 {
    let blank = |u: u16| u == 32 || (9..=13).contains(&u);
    let mut at = text.iter().skip_while(|&&u| blank(u)).copied().peekable();
    let negative = at.peek() == Some(&0x2D);
    if matches!(at.peek(), Some(0x2B | 0x2D)) {
        at.next();
    }
    let mut n = 0i64;
    for u in at {
        if !(0x30..=0x39).contains(&u) {
            break;
        }
        n = n.saturating_mul(10).saturating_add(i64::from(u - 0x30));
    }
    let limit = if negative { 1i64 << 31 } else { i64::from(i32::MAX) };
    let n = n.min(limit);
    u64::from((if negative { -n } else { n }) as u32)
}

/// What a bounded routine of the printf family does when the text does not fit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Full {
    /// `_snprintf`: fill the buffer without a terminator, return -1.
    Cut,
    /// `sprintf_s`: an invalid parameter.
    Refuse,
}

/// Stores formatted text. `size` is in code units.
fn store(cx: &mut Cx<'_>, out: &[u16], d: u64, size: u64, wide: bool, full: Full) -> Result<u64, Stop> {
    let n = out.len() as u64;
    if n < size {
        put(cx, d, out, wide, true)?;
        return Ok(u64::from(n as u32));
    }
    match full {
        Full::Cut => {
            put(cx, d, &out[..size as usize], wide, false)?;
            Ok(if n == size { u64::from(n as u32) } else { 0xFFFF_FFFF })
        }
        Full::Refuse => {
            if size > 0 {
                put(cx, d, &[], wide, true)?;
            }
            Ok(0xFFFF_FFFF)
        }
    }
}

fn call(
    cx: &mut Cx<'_>,
    d: u64,
    size: u64,
    text: u64,
    fixed: usize,
    wide: bool,
    full: Full,
) -> Result<u64, Stop> {
    let text = units(cx, text, wide)?;
    let out = format(&mut CallArgs::after(cx, fixed), &text, wide)?;
    store(cx, &out, d, size, wide, full)
}

fn list(
    cx: &mut Cx<'_>,
    d: u64,
    size: u64,
    text: u64,
    list: u64,
    wide: bool,
    full: Full,
) -> Result<u64, Stop> {
    let text = units(cx, text, wide)?;
    let out = format(&mut ListArgs::new(cx, list), &text, wide)?;
    store(cx, &out, d, size, wide, full)
}

/// Copies between guest addresses as if through a buffer, so that overlap is right; in pieces.
pub(crate) fn move_bytes(cx: &mut Cx<'_>, d: u64, s: u64, n: u64) -> Result<(), Stop> {
    const PIECE: u64 = 1 << 20;
    let backwards = d.wrapping_sub(s) < n;
    let mut done = 0;
    while done < n {
        let len = PIECE.min(n - done);
        let at = if backwards { n - done - len } else { done };
        let data = cx.bytes(s.wrapping_add(at), len as usize)?;
        cx.put(d.wrapping_add(at), &data)?;
        done += len;
    }
    Ok(())
}

/// Fills guest memory.
pub(crate) fn fill_bytes(cx: &mut Cx<'_>, d: u64, n: u64, byte: u8) -> Result<(), Stop> {
    let piece = [byte; 4096];
    let mut done = 0;
    while done < n {
        let len = (n - done).min(4096);
        cx.put(d.wrapping_add(done), &piece[..len as usize])?;
        done += len;
    }
    Ok(())
}

exports! {
    [15] fn memset(cx, d: u64, c: u8, n: u64) { fill_bytes(cx, d, n, c)?; ret(d) }
    [15] fn memcpy(cx, d: u64, s: u64, n: u64) { move_bytes(cx, d, s, n)?; ret(d) }
    [15] fn memmove(cx, d: u64, s: u64, n: u64) { move_bytes(cx, d, s, n)?; ret(d) }
    [15] fn memcmp(cx, a: u64, b: u64, n: u64) {
        for i in 0..n {
            let (x, y) = (cx.r8(a.wrapping_add(i))?, cx.r8(b.wrapping_add(i))?);
            if x != y {
                return ret(if x < y { 0xFFFF_FFFF } else { 1 });
            }
        }
        ret(0)
    }
    [15] fn memchr(cx, s: u64, c: u8, n: u64) {
        for i in 0..n {
            if cx.r8(s.wrapping_add(i))? == c {
                return ret(s.wrapping_add(i));
            }
        }
        ret(0)
    }
    // Probes the stack for a frame of more than a page; every register stays, RAX with them.
    [15] fn __chkstk(cx) { ret(cx.m.cpus[cx.cpu].regs.gpr[0]) }
    [15] fn strlen(cx, s: u64) { ret(units(cx, s, false)?.len() as u64) }
    [15] fn wcslen(cx, s: u64) { ret(units(cx, s, true)?.len() as u64) }
    [15] fn strnlen(cx, s: u64, n: u64) { ret(take(cx, s, false, n as usize)?.len() as u64) }
    [15] fn wcsnlen(cx, s: u64, n: u64) { ret(take(cx, s, true, n as usize)?.len() as u64) }
    [15] fn strcmp(cx, a: u64, b: u64) { ret(compare(cx, a, b, false, usize::MAX, false)?) }
    [15] fn wcscmp(cx, a: u64, b: u64) { ret(compare(cx, a, b, true, usize::MAX, false)?) }
    [15] fn _stricmp(cx, a: u64, b: u64) { ret(compare(cx, a, b, false, usize::MAX, true)?) }
    [15] fn _wcsicmp(cx, a: u64, b: u64) { ret(compare(cx, a, b, true, usize::MAX, true)?) }
    [15] fn strncmp(cx, a: u64, b: u64, n: u64) { ret(compare(cx, a, b, false, n as usize, false)?) }
    [15] fn wcsncmp(cx, a: u64, b: u64, n: u64) { ret(compare(cx, a, b, true, n as usize, false)?) }
    [15] fn _strnicmp(cx, a: u64, b: u64, n: u64) { ret(compare(cx, a, b, false, n as usize, true)?) }
    [15] fn _wcsnicmp(cx, a: u64, b: u64, n: u64) { ret(compare(cx, a, b, true, n as usize, true)?) }
    [15] fn strcpy(cx, d: u64, s: u64) { ret(copy(cx, d, s, false)?) }
    [15] fn wcscpy(cx, d: u64, s: u64) { ret(copy(cx, d, s, true)?) }
    [15] fn strncpy(cx, d: u64, s: u64, n: u64) { ret(copy_n(cx, d, s, n, false)?) }
    [15] fn wcsncpy(cx, d: u64, s: u64, n: u64) { ret(copy_n(cx, d, s, n, true)?) }
    [15] fn strcat(cx, d: u64, s: u64) { ret(append(cx, d, s, usize::MAX, false)?) }
    [15] fn wcscat(cx, d: u64, s: u64) { ret(append(cx, d, s, usize::MAX, true)?) }
    [15] fn strncat(cx, d: u64, s: u64, n: u64) { ret(append(cx, d, s, n as usize, false)?) }
    [15] fn wcsncat(cx, d: u64, s: u64, n: u64) { ret(append(cx, d, s, n as usize, true)?) }
    [15] fn strchr(cx, s: u64, c: u8) { ret(find(cx, s, u16::from(c), false, false)?) }
    [15] fn wcschr(cx, s: u64, c: u16) { ret(find(cx, s, c, true, false)?) }
    [15] fn strrchr(cx, s: u64, c: u8) { ret(find(cx, s, u16::from(c), false, true)?) }
    [15] fn wcsrchr(cx, s: u64, c: u16) { ret(find(cx, s, c, true, true)?) }
    [15] fn strstr(cx, s: u64, what: u64) { ret(find_text(cx, s, what, false)?) }
    [15] fn wcsstr(cx, s: u64, what: u64) { ret(find_text(cx, s, what, true)?) }
    [15] fn toupper(_cx, c: u32) { ret(if c < 128 { u64::from(upper(c as u16)) } else { u64::from(c) }) }
    [15] fn tolower(_cx, c: u32) { ret(if c < 128 { u64::from(lower(c as u16)) } else { u64::from(c) }) }
    [15] fn towupper(_cx, c: u16) { ret(u64::from(upper(c))) }
    [15] fn towlower(_cx, c: u16) { ret(u64::from(lower(c))) }
    [15] fn atoi(cx, s: u64) { ret(parse(&units(cx, s, false)?)) }
    [15] fn atol(cx, s: u64) { ret(parse(&units(cx, s, false)?)) }
    [15] fn _wtoi(cx, s: u64) { ret(parse(&units(cx, s, true)?)) }
    [15] fn sprintf(cx, d: u64, text: u64) { ret(call(cx, d, u64::MAX, text, 2, false, Full::Cut)?) }
    [15] fn swprintf(cx, d: u64, text: u64) { ret(call(cx, d, u64::MAX, text, 2, true, Full::Cut)?) }
    [15] fn vsprintf(cx, d: u64, text: u64, va: u64) { ret(list(cx, d, u64::MAX, text, va, false, Full::Cut)?) }
    [15] fn _snprintf(cx, d: u64, n: u64, text: u64) { ret(call(cx, d, n, text, 3, false, Full::Cut)?) }
    [15] fn _snwprintf(cx, d: u64, n: u64, text: u64) { ret(call(cx, d, n, text, 3, true, Full::Cut)?) }
    [15] fn _vsnprintf(cx, d: u64, n: u64, text: u64, va: u64) { ret(list(cx, d, n, text, va, false, Full::Cut)?) }
    [15] fn _vsnwprintf(cx, d: u64, n: u64, text: u64, va: u64) { ret(list(cx, d, n, text, va, true, Full::Cut)?) }
    [15] fn sprintf_s(cx, d: u64, n: u64, text: u64) { ret(call(cx, d, n, text, 3, false, Full::Refuse)?) }
    [15] fn swprintf_s(cx, d: u64, n: u64, text: u64) { ret(call(cx, d, n, text, 3, true, Full::Refuse)?) }
    [15] fn vsprintf_s(cx, d: u64, n: u64, text: u64, va: u64) { ret(list(cx, d, n, text, va, false, Full::Refuse)?) }
    [15] fn vswprintf_s(cx, d: u64, n: u64, text: u64, va: u64) { ret(list(cx, d, n, text, va, true, Full::Refuse)?) }
    [15] fn strcpy_s(cx, d: u64, n: u64, s: u64) { ret(checked_copy(cx, d, n, s, false)?) }
    [15] fn wcscpy_s(cx, d: u64, n: u64, s: u64) { ret(checked_copy(cx, d, n, s, true)?) }
}

/// 0, or EINVAL 22, or ERANGE 34.
fn checked_copy(cx: &mut Cx<'_>, d: u64, n: u64, s: u64, wide: bool) -> Result<u64, Stop> {
    if d == 0 || n == 0 || s == 0 {
        return Ok(22);
    }
    let text = take(cx, s, wide, n as usize)?;
    if text.len() as u64 >= n {
        put(cx, d, &[], wide, true)?;
        return Ok(34);
    }
    put(cx, d, &text, wide, true)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_does() {
        let p = |s: &str| parse(&s.encode_utf16().collect::<Vec<_>>()) as i32;
        assert_eq!((p(" \t-12x"), p("+7"), p("x"), p("99999999999")), (-12, 7, 0, i32::MAX));
        assert_eq!(p("-99999999999"), i32::MIN);
    }
}
