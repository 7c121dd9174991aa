//! Run-time library: the calendar, and random numbers.

use crate::context::{Result, ret, void};
use crate::cx::Cx;
use crate::exports;

const SECOND: u64 = 10_000_000;
const DAY: u64 = 86_400 * SECOND;
/// Seconds from 1601 to 1970 and to 1980.
const UNIX: u64 = 11_644_473_600;
const DOS: u64 = 11_960_006_400;

/// Year, month and day of a day counted from 1601-01-01, a Monday that begins a cycle of 400 years.
fn civil(day: u64) -> (u64, u64, u64) {
    let cycles = day / 146_097;
    let mut rest = day % 146_097;
    let mut year = 1601 + 400 * cycles;
    while rest >= year_days(year) {
        rest -= year_days(year);
        year += 1;
    }
    let mut month = 1;
    while rest >= month_days(year, month) {
        rest -= month_days(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn year_days(year: u64) -> u64 {
    365 + u64::from(leap(year))
}

fn month_days(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1601-01-01; none for a date that does not exist.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1601..=30827).contains(&year)
        || !(1..=12).contains(&month)
        || day == 0
        || day > month_days(year, month)
    {
        return None;
    }
    let before = year - 1601;
    let whole = before * 365 + before / 4 - before / 100 + before / 400;
    Some(whole + (1..month).map(|m| month_days(year, m)).sum::<u64>() + day - 1)
}

fn since(cx: &mut Cx<'_>, time: u64, out: u64, epoch: u64) -> Result {
    let seconds = cx.r64(time)? / SECOND;
    match seconds.checked_sub(epoch).map(u32::try_from) {
        Some(Ok(s)) => {
            cx.w32(out, s)?;
            ret(1)
        }
        _ => ret(0),
    }
}

/// A multiplicative generator modulo 2^31 - 1; the documentation fixes the range, not the numbers.
fn random(cx: &mut Cx<'_>, at: u64) -> Result {
    const M: u64 = 0x7fff_ffff;
    let seed = u64::from(cx.r32(at)?) % M;
    let next = (if seed == 0 { 0x2545_f491 } else { seed }) * 48_271 % M;
    cx.w32(at, next as u32)?;
    ret(next)
}

exports! {
    // TIME_FIELDS: year, month, day, hour, minute, second, milliseconds, weekday (0 is Sunday), 16 bits each.
    [15] fn RtlTimeToTimeFields(cx, time: u64, out: u64) {
        let t = cx.r64(time)? & (i64::MAX as u64);
        let (year, month, day) = civil(t / DAY);
        let second = t % DAY / SECOND;
        let fields = [
            year,
            month,
            day,
            second / 3600,
            second / 60 % 60,
            second % 60,
            t % SECOND / 10_000,
            (t / DAY + 1) % 7,
        ];
        for (i, f) in fields.into_iter().enumerate() {
            cx.w16(out + 2 * i as u64, f as u16)?;
        }
        void()
    }
    [15] fn RtlTimeFieldsToTime(cx, fields: u64, out: u64) {
        let mut f = [0u64; 7];
        for (i, v) in f.iter_mut().enumerate() {
            *v = u64::from(cx.r16(fields + 2 * i as u64)?);
        }
        let [year, month, day, hour, minute, second, milli] = f;
        match days(year, month, day) {
            Some(d) if hour < 24 && minute < 60 && second < 60 && milli < 1000 => {
                let seconds = d * 86_400 + hour * 3600 + minute * 60 + second;
                cx.w64(out, seconds * SECOND + milli * 10_000)?;
                ret(1)
            }
            _ => ret(0),
        }
    }
    [15] fn RtlTimeToSecondsSince1970(cx, time: u64, out: u64) { since(cx, time, out, UNIX) }
    [15] fn RtlTimeToSecondsSince1980(cx, time: u64, out: u64) { since(cx, time, out, DOS) }
    [15] fn RtlSecondsSince1970ToTime(cx, seconds: u32, out: u64) {
        cx.w64(out, (u64::from(seconds) + UNIX) * SECOND)?;
        void()
    }
    [15] fn RtlSecondsSince1980ToTime(cx, seconds: u32, out: u64) {
        cx.w64(out, (u64::from(seconds) + DOS) * SECOND)?;
        void()
    }
    [1] fn RtlRandom(cx, seed: u64) { random(cx, seed) }
    [1] fn RtlRandomEx(cx, seed: u64) { random(cx, seed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_goes_both_ways() {
        assert_eq!(civil(0), (1601, 1, 1));
        assert_eq!(days(1970, 1, 1).unwrap() * 86_400, UNIX);
        assert_eq!(days(1980, 1, 1).unwrap() * 86_400, DOS);
        for day in (0..400_000).step_by(97) {
            let (y, m, d) = civil(day);
            assert_eq!(days(y, m, d), Some(day));
        }
        assert_eq!(days(2023, 2, 29), None);
        assert!(days(2024, 2, 29).is_some());
    }
}
