//! Run-time library: conversions between strings, numbers, GUIDs and encodings.
//!
//! The ANSI code page is Latin-1, as the formatter has it; of the OEM one only ASCII is known. Upper and lower case
//! are Unicode's simple mappings of one code unit. Counted strings themselves are in `rtl.rs`.

use crate::context::{Result, ret, void};
use crate::cx::Cx;
use crate::exports;
use crate::exports::crt::units;
use crate::exports::rtl::{text, upper};
use crate::pool::PoolKind;
use crate::stop::Stop;

type Res<T> = std::result::Result<T, Stop>;

const INVALID_PARAMETER: u64 = 0xC000_000D;
const INVALID_PARAMETER_2: u64 = 0xC000_00F0;
const NO_MEMORY: u64 = 0xC000_0017;
const BUFFER_OVERFLOW: u64 = 0x8000_0005;
const BUFFER_TOO_SMALL: u64 = 0xC000_0023;
const SOME_NOT_MAPPED: u64 = 0x107;
const NAME_TOO_LONG: u64 = 0xC000_0106;
const TAG: u32 = u32::from_le_bytes(*b"RtlS");
/// Longest text that one conversion takes.
const MAX: u32 = 16 << 20;

pub(crate) fn lower(u: u16) -> u16 {
    match char::from_u32(u32::from(u)) {
        Some('A'..='Z') => u + 0x20,
        Some(c) if u >= 0x80 => {
            let mut to = c.to_lowercase();
            match (to.next().map(|l| u16::try_from(u32::from(l))), to.next()) {
                (Some(Ok(l)), None) if l >= 0x80 => l,
                _ => u,
            }
        }
        _ => u,
    }
}

/// The bytes of a counted 8-bit string.
fn bytes(cx: &Cx<'_>, at: u64) -> Res<Vec<u8>> {
    cx.bytes(cx.r64(at + 8)?, usize::from(cx.r16(at)?))
}

fn narrow(units: &[u16]) -> Vec<u8> {
    units.iter().map(|&u| u8::try_from(u).unwrap_or(b'?')).collect()
}

fn le(units: &[u16]) -> Vec<u8> {
    units.iter().flat_map(|u| u.to_le_bytes()).collect()
}

/// Stores a string and its terminator of `zero` bytes, in a buffer of its own or in the one given. Too long a string
/// is an overflow, and then nothing is stored.
fn store(cx: &mut Cx<'_>, at: u64, data: &[u8], zero: usize, alloc: bool) -> Result {
    let size = data.len() + zero;
    if size > 0xffff {
        return ret(INVALID_PARAMETER_2);
    }
    if alloc {
        let va = match cx.k.pool.alloc(&mut cx.m.mem, size.max(1) as u64, PoolKind::Paged, TAG) {
            Err(Stop::OutOfMemory) => return ret(NO_MEMORY),
            other => other?,
        };
        cx.w16(at + 2, size as u16)?;
        cx.w64(at + 8, va)?;
    } else if size > usize::from(cx.r16(at + 2)?) {
        return ret(BUFFER_OVERFLOW);
    }
    let mut all = data.to_vec();
    all.resize(size, 0);
    cx.w16(at, data.len() as u16)?;
    let buffer = cx.r64(at + 8)?;
    cx.put(buffer, &all)?;
    ret(0)
}

fn free_string(cx: &mut Cx<'_>, at: u64) -> Result {
    let buffer = cx.r64(at + 8)?;
    if buffer != 0 {
        crate::io::free(cx, buffer)?;
        cx.put(at, &[0; 16])?;
    }
    void()
}

fn number(mut value: u64, base: u32) -> Option<Vec<u16>> {
    let base = match base {
        0 | 10 => 10,
        2 | 8 | 16 => u64::from(base),
        _ => return None,
    };
    let mut out = vec![];
    loop {
        let digit = (value % base) as u16;
        out.push(if digit < 10 { 0x30 + digit } else { 0x41 + digit - 10 });
        value /= base;
        if value == 0 {
            out.reverse();
            return Some(out);
        }
    }
}

fn put_number(cx: &mut Cx<'_>, value: u64, base: u32, at: u64) -> Result {
    let Some(digits) = number(value, base) else { return ret(INVALID_PARAMETER) };
    let (max, data) = (usize::from(cx.r16(at + 2)?), le(&digits));
    if data.len() > max {
        return ret(BUFFER_OVERFLOW);
    }
    // The terminator only where there is room for it.
    let zero = if data.len() + 2 <= max { 2 } else { 0 };
    store(cx, at, &data, zero, false)
}

/// The value of a number as the run-time library reads it: blanks, a sign, a prefix when the base is 0, digits.
fn parse(text: &[u16], base: u32) -> Option<u32> {
    let mut rest = text;
    while let [c, tail @ ..] = rest
        && *c != 0
        && *c <= 0x20
    {
        rest = tail;
    }
    let mut negative = false;
    if let [c @ (0x2b | 0x2d), tail @ ..] = rest {
        negative = *c == 0x2d;
        rest = tail;
    }
    let mut base = base;
    if base == 0 {
        base = 10;
        if let [0x30, c, tail @ ..] = rest
            && let Some(b) = [(0x78, 16), (0x6f, 8), (0x62, 2)].iter().find(|p| p.0 == *c).map(|p| p.1)
        {
            base = b;
            rest = tail;
        }
    }
    if !matches!(base, 2 | 8 | 10 | 16) {
        return None;
    }
    let mut value = 0u32;
    for &c in rest {
        let Some(digit) = char::from_u32(u32::from(c)).and_then(|c| c.to_digit(base)) else { break };
        value = value.wrapping_mul(base).wrapping_add(digit);
    }
    Some(if negative { value.wrapping_neg() } else { value })
}

fn changed_case(cx: &mut Cx<'_>, to: u64, from: u64, alloc: u8, f: fn(u16) -> u16) -> Result {
    let t: Vec<u16> = text(cx, from)?.into_iter().map(f).collect();
    store(cx, to, &le(&t), 0, alloc != 0)
}

fn compare_bytes(a: &[u8], b: &[u8], fold: bool) -> u64 {
    let f = |s: &[u8]| -> Vec<u8> { if fold { s.to_ascii_uppercase() } else { s.to_vec() } };
    match f(a).cmp(&f(b)) {
        std::cmp::Ordering::Less => 0xFFFF_FFFF,
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Greater => 1,
    }
}

fn wide_at(cx: &Cx<'_>, at: u64, chars: u64) -> Res<Vec<u16>> {
    let data = cx.bytes(at, 2 * usize::try_from(chars).unwrap_or(usize::MAX / 2))?;
    Ok(data.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect())
}

fn guid_text(b: &[u8]) -> String {
    let first = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let (second, third) = (u16::from_le_bytes([b[4], b[5]]), u16::from_le_bytes([b[6], b[7]]));
    let tail: String = b[10..16].iter().map(|x| format!("{x:02X}")).collect();
    format!("{{{first:08X}-{second:04X}-{third:04X}-{:02X}{:02X}-{tail}}}", b[8], b[9])
}

fn guid(text: &str) -> Option<[u8; 16]> {
    let t = text.strip_prefix('{')?.strip_suffix('}')?;
    let lengths: Vec<usize> = t.split('-').map(str::len).collect();
    if lengths != [8, 4, 4, 4, 12] || !t.bytes().all(|c| c == b'-' || c.is_ascii_hexdigit()) {
        return None;
    }
    let n = u128::from_str_radix(&t.replace('-', ""), 16).ok()?.to_be_bytes();
    let mut out = n;
    out[0..4].reverse();
    out[4..6].reverse();
    out[6..8].reverse();
    Some(out)
}

/// Writes as much of a conversion's result as there is room for and tells its size.
fn give(cx: &mut Cx<'_>, to: u64, room: u32, done: u64, data: &[u8]) -> Result {
    let n = data.len().min(room as usize);
    cx.put(to, &data[..n])?;
    if done != 0 {
        cx.w32(done, n as u32)?;
    }
    ret(if n < data.len() { BUFFER_OVERFLOW } else { 0 })
}

/// As `give`, by the rules of the UTF-8 routines: no buffer asks for the size; part of a result is too small a buffer.
fn give_utf(cx: &mut Cx<'_>, to: u64, room: u32, done: u64, data: &[u8], lossy: bool) -> Result {
    if done != 0 {
        cx.w32(done, data.len() as u32)?;
    }
    if to != 0 {
        if data.len() > room as usize {
            return ret(BUFFER_TOO_SMALL);
        }
        cx.put(to, data)?;
    }
    ret(if lossy { SOME_NOT_MAPPED } else { 0 })
}

fn bounded(cx: &Cx<'_>, n: u32) -> Res<usize> {
    if n > MAX { Err(cx.missing(format!("a conversion of {n} bytes of text"))) } else { Ok(n as usize) }
}

exports! {
    [0] fn RtlUnicodeStringToAnsiString(cx, to: u64, from: u64, alloc: u8) {
        let t = narrow(&text(cx, from)?);
        store(cx, to, &t, 1, alloc != 0)
    }
    [0] fn RtlUnicodeStringToOemString(cx, to: u64, from: u64, alloc: u8) {
        let t = text(cx, from)?;
        if t.iter().any(|&u| u >= 0x80) {
            return Err(cx.missing("the OEM code page beyond ASCII"));
        }
        store(cx, to, &narrow(&t), 1, alloc != 0)
    }
    [0] fn RtlOemStringToUnicodeString(cx, to: u64, from: u64, alloc: u8) {
        let b = bytes(cx, from)?;
        if b.iter().any(|&c| c >= 0x80) {
            return Err(cx.missing("the OEM code page beyond ASCII"));
        }
        let t: Vec<u16> = b.into_iter().map(u16::from).collect();
        store(cx, to, &le(&t), 2, alloc != 0)
    }
    [0] fn RtlFreeAnsiString(cx, at: u64) { free_string(cx, at) }
    [0] fn RtlFreeOemString(cx, at: u64) { free_string(cx, at) }
    [0] fn RtlIntegerToUnicodeString(cx, value: u32, base: u32, at: u64) {
        put_number(cx, u64::from(value), base, at)
    }
    [0] fn RtlInt64ToUnicodeString(cx, value: u64, base: u32, at: u64) { put_number(cx, value, base, at) }
    [0] fn RtlUnicodeStringToInteger(cx, at: u64, base: u32, out: u64) {
        match parse(&text(cx, at)?, base) {
            Some(n) => {
                cx.w32(out, n)?;
                ret(0)
            }
            None => ret(INVALID_PARAMETER),
        }
    }
    [0] fn RtlCharToInteger(cx, at: u64, base: u32, out: u64) {
        match parse(&units(cx, at, false)?, base) {
            Some(n) => {
                cx.w32(out, n)?;
                ret(0)
            }
            None => ret(INVALID_PARAMETER),
        }
    }
    [0] fn RtlUpcaseUnicodeString(cx, to: u64, from: u64, alloc: u8) { changed_case(cx, to, from, alloc, upper) }
    [0] fn RtlDowncaseUnicodeString(cx, to: u64, from: u64, alloc: u8) { changed_case(cx, to, from, alloc, lower) }
    [1] fn RtlDowncaseUnicodeChar(_cx, c: u16) { ret(u64::from(lower(c))) }
    [1] fn RtlUpperChar(_cx, c: u8) { ret(u64::from(c.to_ascii_uppercase())) }
    [1] fn RtlCompareString(cx, a: u64, b: u64, fold: u8) {
        ret(compare_bytes(&bytes(cx, a)?, &bytes(cx, b)?, fold != 0))
    }
    [1] fn RtlEqualString(cx, a: u64, b: u64, fold: u8) {
        ret(u64::from(compare_bytes(&bytes(cx, a)?, &bytes(cx, b)?, fold != 0) == 0))
    }
    [1] fn RtlPrefixString(cx, a: u64, b: u64, fold: u8) {
        let (a, b) = (bytes(cx, a)?, bytes(cx, b)?);
        ret(u64::from(b.len() >= a.len() && compare_bytes(&a, &b[..a.len()], fold != 0) == 0))
    }
    [1] fn RtlCompareUnicodeStrings(cx, a: u64, n: u64, b: u64, m: u64, fold: u8) {
        let f = |t: Vec<u16>| -> Vec<u16> { if fold == 0 { t } else { t.into_iter().map(upper).collect() } };
        let (a, b) = (f(wide_at(cx, a, n)?), f(wide_at(cx, b, m)?));
        ret(match a.cmp(&b) {
            std::cmp::Ordering::Less => 0xFFFF_FFFF,
            std::cmp::Ordering::Equal => 0,
            std::cmp::Ordering::Greater => 1,
        })
    }
    [1] fn RtlCopyString(cx, to: u64, from: u64) {
        let max = usize::from(cx.r16(to + 2)?);
        let mut t = if from == 0 { vec![] } else { bytes(cx, from)? };
        t.truncate(max);
        let buffer = cx.r64(to + 8)?;
        cx.put(buffer, &t)?;
        cx.w16(to, t.len() as u16)?;
        void()
    }
    [1] fn RtlUpperString(cx, to: u64, from: u64) {
        let max = usize::from(cx.r16(to + 2)?);
        let mut t = bytes(cx, from)?.to_ascii_uppercase();
        t.truncate(max);
        let buffer = cx.r64(to + 8)?;
        cx.put(buffer, &t)?;
        cx.w16(to, t.len() as u16)?;
        void()
    }
    [1] fn RtlAppendStringToString(cx, to: u64, from: u64) {
        let t = bytes(cx, from)?;
        let (length, max) = (usize::from(cx.r16(to)?), usize::from(cx.r16(to + 2)?));
        if length + t.len() > max {
            return ret(BUFFER_TOO_SMALL);
        }
        let buffer = cx.r64(to + 8)?;
        cx.put(buffer + length as u64, &t)?;
        cx.w16(to, (length + t.len()) as u16)?;
        ret(0)
    }
    [15] fn RtlInitUnicodeStringEx(cx, at: u64, from: u64) {
        let n = if from == 0 { 0 } else { 2 * units(cx, from, true)?.len() };
        if n > 0xfffc {
            return ret(NAME_TOO_LONG);
        }
        cx.w16(at, n as u16)?;
        cx.w16(at + 2, if from == 0 { 0 } else { n as u16 + 2 })?;
        cx.w64(at + 8, from)?;
        ret(0)
    }
    [1] fn RtlValidateUnicodeString(cx, flags: u32, at: u64) {
        if flags != 0 {
            return ret(INVALID_PARAMETER);
        }
        if at == 0 {
            return ret(0);
        }
        let (length, max, buffer) = (cx.r16(at)?, cx.r16(at + 2)?, cx.r64(at + 8)?);
        let good = length & 1 == 0 && max & 1 == 0 && length <= max && (buffer != 0 || max == 0);
        ret(if good { 0 } else { INVALID_PARAMETER })
    }
    [0] fn RtlDuplicateUnicodeString(cx, flags: u32, from: u64, to: u64) {
        // RTL_DUPLICATE_UNICODE_STRING_NULL_TERMINATE, RTL_DUPLICATE_UNICODE_STRING_ALLOCATE_NULL_STRING (needs both).
        if flags & !3 != 0 || flags == 2 {
            return ret(INVALID_PARAMETER);
        }
        let t = le(&text(cx, from)?);
        if t.is_empty() && flags != 3 {
            cx.put(to, &[0; 16])?;
            return ret(0);
        }
        store(cx, to, &t, if flags & 1 != 0 { 2 } else { 0 }, true)
    }
    [0] fn RtlStringFromGUID(cx, from: u64, to: u64) {
        let t: Vec<u16> = guid_text(&cx.bytes(from, 16)?).encode_utf16().collect();
        store(cx, to, &le(&t), 2, true)
    }
    [0] fn RtlGUIDFromString(cx, from: u64, to: u64) {
        match guid(&String::from_utf16_lossy(&text(cx, from)?)) {
            Some(g) => {
                cx.put(to, &g)?;
                ret(0)
            }
            None => ret(INVALID_PARAMETER),
        }
    }
    [1] fn RtlHashUnicodeString(cx, at: u64, fold: u8, algorithm: u32, out: u64) {
        // HASH_STRING_ALGORITHM_DEFAULT is HASH_STRING_ALGORITHM_X65599.
        if algorithm > 1 || at == 0 || out == 0 {
            return ret(INVALID_PARAMETER);
        }
        let t = text(cx, at)?;
        let hash = t.iter().fold(0u32, |h, &u| {
            h.wrapping_mul(65599).wrapping_add(u32::from(if fold != 0 { upper(u) } else { u }))
        });
        cx.w32(out, hash)?;
        ret(0)
    }
    [0] fn RtlxAnsiStringToUnicodeSize(cx, at: u64) { ret(2 * (u64::from(cx.r16(at)?) + 1)) }
    [0] fn RtlxUnicodeStringToAnsiSize(cx, at: u64) { ret(u64::from(cx.r16(at)?) / 2 + 1) }
    [0] fn RtlAnsiCharToUnicodeChar(cx, at: u64) {
        let from = cx.r64(at)?;
        let c = cx.r8(from)?;
        cx.w64(at, from.wrapping_add(1))?;
        ret(u64::from(c))
    }
    [0] fn RtlUnicodeToMultiByteN(cx, to: u64, room: u32, done: u64, from: u64, size: u32) {
        let n = bounded(cx, size)?;
        let t = narrow(&wide_at(cx, from, n as u64 / 2)?);
        give(cx, to, room, done, &t)?;
        ret(0)
    }
    [0] fn RtlMultiByteToUnicodeN(cx, to: u64, room: u32, done: u64, from: u64, size: u32) {
        let n = bounded(cx, size)?;
        let t: Vec<u16> = cx.bytes(from, n)?.into_iter().map(u16::from).collect();
        give(cx, to, room & !1, done, &le(&t))?;
        ret(0)
    }
    [0] fn RtlUnicodeToMultiByteSize(cx, out: u64, _from: u64, size: u32) {
        cx.w32(out, size / 2)?;
        ret(0)
    }
    [0] fn RtlMultiByteToUnicodeSize(cx, out: u64, _from: u64, size: u32) {
        cx.w32(out, size.saturating_mul(2))?;
        ret(0)
    }
    [0] fn RtlUTF8ToUnicodeN(cx, to: u64, room: u32, done: u64, from: u64, size: u32) {
        let n = bounded(cx, size)?;
        let data = cx.bytes(from, n)?;
        let t: Vec<u16> = String::from_utf8_lossy(&data).encode_utf16().collect();
        give_utf(cx, to, room, done, &le(&t), std::str::from_utf8(&data).is_err())
    }
    [0] fn RtlUnicodeToUTF8N(cx, to: u64, room: u32, done: u64, from: u64, size: u32) {
        let n = bounded(cx, size)?;
        let t = wide_at(cx, from, n as u64 / 2)?;
        let lossy = String::from_utf16(&t).is_err();
        give_utf(cx, to, room, done, String::from_utf16_lossy(&t).as_bytes(), lossy)
    }
    /// A free build prints the assertion and goes on.
    [15] fn RtlAssert(cx, what: u64, file: u64, line: u32, message: u64) {
        let say = |at: u64| -> Res<String> {
            Ok(if at == 0 { String::new() } else { String::from_utf16_lossy(&units(cx, at, false)?) })
        };
        let (what, file, message) = (say(what)?, say(file)?, say(message)?);
        let text = format!("*** Assertion failed: {message}{what} ({file}, line {line})");
        cx.event(dirql_event::EventKind::Print { text });
        void()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(s: &str) -> Vec<u16> {
        s.encode_utf16().collect()
    }

    #[test]
    fn numbers_are_read_and_written_as_documented() {
        assert_eq!(number(0, 0), Some(wide("0")));
        assert_eq!(number(u64::MAX, 16), Some(wide("FFFFFFFFFFFFFFFF")));
        assert_eq!(number(5, 3), None);
        assert_eq!(parse(&wide("  -12x"), 10), Some(-12i32 as u32));
        assert_eq!(parse(&wide("0x1F"), 0), Some(31));
        assert_eq!(parse(&wide("0b101"), 0), Some(5));
        assert_eq!(parse(&wide("0x1F"), 16), Some(0));
        assert_eq!(parse(&wide("7"), 7), None);
    }

    #[test]
    fn a_guid_survives_its_text() {
        let bytes: Vec<u8> = (0..16).collect();
        let text = guid_text(&bytes);
        assert_eq!(text, "{03020100-0504-0706-0809-0A0B0C0D0E0F}");
        assert_eq!(guid(&text).unwrap().to_vec(), bytes);
        for bad in
            ["", "{}", "03020100-0504-0706-0809-0A0B0C0D0E0F", "{03020100-0504-0706-0809-0A0B0C0D0E0G}"]
        {
            assert_eq!(guid(bad), None, "{bad}");
        }
    }

    #[test]
    fn case_is_one_unit_to_one() {
        assert_eq!(upper(0xe9), 0xc9);
        assert_eq!(lower(0xc9), 0xe9);
        // Sharp s has no single upper case letter.
        assert_eq!(upper(0xdf), 0xdf);
    }
}
