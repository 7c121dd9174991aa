//! Run-time library: bitmaps.
//!
//! RTL_BITMAP is a size in bits and the address of 32-bit words; bit n is bit n mod 32 of word n / 32.

use crate::context::{Result, ret, void};
use crate::cx::Cx;
use crate::exports;
use crate::stop::Stop;

type Res<T> = std::result::Result<T, Stop>;

/// "Not found".
const NONE: u64 = 0xFFFF_FFFF;
/// Largest bitmap that is handled: 512 Mi bits.
const MAX: u32 = 1 << 29;

struct Bits {
    words: Vec<u32>,
    size: u32,
    buffer: u64,
}

impl Bits {
    fn load(cx: &Cx<'_>, at: u64) -> Res<Self> {
        let (size, buffer) = (cx.r32(at)?, cx.r64(at + 8)?);
        if size > MAX {
            return Err(cx.missing(format!("a bitmap of {size} bits")));
        }
        let data = cx.bytes(buffer, 4 * size.div_ceil(32) as usize)?;
        let words = data.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        Ok(Self { words, size, buffer })
    }

    fn get(&self, bit: u32) -> bool {
        self.words.get((bit / 32) as usize).is_some_and(|w| w >> (bit % 32) & 1 == 1)
    }

    /// Length of the run of equal bits that starts at a bit.
    fn run(&self, start: u32) -> u32 {
        let value = self.get(start);
        (start..self.size).take_while(|&b| self.get(b) == value).count() as u32
    }

    /// Runs of bits that have a value: start and length.
    fn runs(&self, value: bool) -> Vec<(u32, u32)> {
        let (mut out, mut at) = (vec![], 0);
        while at < self.size {
            let n = self.run(at);
            if self.get(at) == value {
                out.push((at, n));
            }
            at += n;
        }
        out
    }

    /// First place at or after `hint`, then before it, where `n` bits in a row have the value.
    fn find(&self, n: u32, hint: u32, value: bool) -> Option<u32> {
        if n > self.size {
            return None;
        }
        let hint = if hint < self.size { hint } else { 0 };
        if n == 0 {
            return Some(hint & !7);
        }
        let within = |from: u32, to: u32| {
            let mut at = from;
            while at < to {
                let len = self.run(at).min(self.size - at);
                if self.get(at) == value && len >= n {
                    return Some(at);
                }
                at += len;
            }
            None
        };
        within(hint, self.size).or_else(|| within(0, hint))
    }
}

fn check(cx: &Cx<'_>, at: u64, start: u32, n: u32, what: &str) -> Res<()> {
    let size = cx.r32(at)?;
    if u64::from(start) + u64::from(n) > u64::from(size) {
        return Err(Stop::bug_check(
            0x1E,
            [0xC000_000D, cx.caller(), u64::from(start), u64::from(n)],
            format!("{what} of {n} bits from {start} of a bitmap of {size}"),
        ));
    }
    Ok(())
}

fn fill(cx: &mut Cx<'_>, at: u64, start: u32, n: u32, value: bool) -> Res<()> {
    let b = Bits::load(cx, at)?;
    let end = start.saturating_add(n).min(b.size);
    let mut bit = start;
    while bit < end {
        let last = (bit | 31).min(end - 1);
        let mask = (u32::MAX << (bit % 32)) & (u32::MAX >> (31 - last % 32));
        let word = b.words.get((bit / 32) as usize).copied().unwrap_or(0);
        cx.w32(b.buffer + 4 * u64::from(bit / 32), if value { word | mask } else { word & !mask })?;
        bit = last + 1;
    }
    Ok(())
}

fn find(cx: &mut Cx<'_>, at: u64, n: u32, hint: u32, value: bool, change: bool) -> Result {
    let Some(start) = Bits::load(cx, at)?.find(n, hint, value) else { return ret(NONE) };
    if change {
        fill(cx, at, start, n, !value)?;
    }
    ret(u64::from(start))
}

fn all_equal(cx: &Cx<'_>, at: u64, start: u32, n: u32, value: bool) -> Result {
    let b = Bits::load(cx, at)?;
    let fits = n > 0 && u64::from(start) + u64::from(n) <= u64::from(b.size);
    ret(u64::from(fits && b.get(start) == value && b.run(start) >= n))
}

fn count(cx: &Cx<'_>, at: u64, value: bool) -> Result {
    ret(Bits::load(cx, at)?.runs(value).iter().map(|r| u64::from(r.1)).sum())
}

fn longest(cx: &mut Cx<'_>, at: u64, out: u64, value: bool) -> Result {
    let mut best = (0, 0);
    for r in Bits::load(cx, at)?.runs(value) {
        if r.1 > best.1 {
            best = r;
        }
    }
    cx.w32(out, best.0)?;
    ret(u64::from(best.1))
}

fn next_run(cx: &mut Cx<'_>, at: u64, from: u32, out: u64) -> Result {
    let runs = Bits::load(cx, at)?.runs(false);
    // A run that contains the starting bit counts from there.
    match runs.into_iter().find(|&(s, n)| s.saturating_add(n) > from) {
        Some((start, n)) => {
            let first = start.max(from);
            cx.w32(out, first)?;
            ret(u64::from(start + n - first))
        }
        None => {
            cx.w32(out, from)?;
            ret(0)
        }
    }
}

fn one(cx: &mut Cx<'_>, at: u64, bit: u32, value: bool) -> Result {
    check(cx, at, bit, 1, "a change")?;
    fill(cx, at, bit, 1, value)?;
    void()
}

exports! {
    [15] fn RtlInitializeBitMap(cx, at: u64, buffer: u64, size: u32) {
        cx.w32(at, size)?;
        cx.w64(at + 8, buffer)?;
        void()
    }
    [15] fn RtlSetBit(cx, at: u64, bit: u32) { one(cx, at, bit, true) }
    [15] fn RtlClearBit(cx, at: u64, bit: u32) { one(cx, at, bit, false) }
    [15] fn RtlTestBit(cx, at: u64, bit: u32) {
        check(cx, at, bit, 1, "RtlTestBit")?;
        let word = cx.r32(cx.r64(at + 8)? + 4 * u64::from(bit / 32))?;
        ret(u64::from(word >> (bit % 32) & 1))
    }
    [15] fn RtlSetBits(cx, at: u64, start: u32, n: u32) {
        check(cx, at, start, n, "RtlSetBits")?;
        fill(cx, at, start, n, true)?;
        void()
    }
    [15] fn RtlClearBits(cx, at: u64, start: u32, n: u32) {
        check(cx, at, start, n, "RtlClearBits")?;
        fill(cx, at, start, n, false)?;
        void()
    }
    [15] fn RtlSetAllBits(cx, at: u64) {
        let size = cx.r32(at)?.next_multiple_of(32);
        let buffer = cx.r64(at + 8)?;
        crate::exports::crt::fill_bytes(cx, buffer, u64::from(size) / 8, 0xff)?;
        void()
    }
    [15] fn RtlClearAllBits(cx, at: u64) {
        let size = cx.r32(at)?.next_multiple_of(32);
        let buffer = cx.r64(at + 8)?;
        crate::exports::crt::fill_bytes(cx, buffer, u64::from(size) / 8, 0)?;
        void()
    }
    [15] fn RtlFindClearBits(cx, at: u64, n: u32, hint: u32) { find(cx, at, n, hint, false, false) }
    [15] fn RtlFindSetBits(cx, at: u64, n: u32, hint: u32) { find(cx, at, n, hint, true, false) }
    [15] fn RtlFindClearBitsAndSet(cx, at: u64, n: u32, hint: u32) { find(cx, at, n, hint, false, true) }
    [15] fn RtlFindSetBitsAndClear(cx, at: u64, n: u32, hint: u32) { find(cx, at, n, hint, true, true) }
    [15] fn RtlAreBitsSet(cx, at: u64, start: u32, n: u32) { all_equal(cx, at, start, n, true) }
    [15] fn RtlAreBitsClear(cx, at: u64, start: u32, n: u32) { all_equal(cx, at, start, n, false) }
    [15] fn RtlNumberOfSetBits(cx, at: u64) { count(cx, at, true) }
    [15] fn RtlNumberOfClearBits(cx, at: u64) { count(cx, at, false) }
    [15] fn RtlFindLongestRunClear(cx, at: u64, out: u64) { longest(cx, at, out, false) }
    [15] fn RtlFindFirstRunClear(cx, at: u64, out: u64) { next_run(cx, at, 0, out) }
    [15] fn RtlFindNextForwardRunClear(cx, at: u64, from: u32, out: u64) { next_run(cx, at, from, out) }
    [15] fn RtlFindLeastSignificantBit(_cx, set: u64) {
        ret(if set == 0 { 0xff } else { u64::from(set.trailing_zeros()) })
    }
    [15] fn RtlFindMostSignificantBit(_cx, set: u64) {
        ret(if set == 0 { 0xff } else { u64::from(63 - set.leading_zeros()) })
    }
}
