//! SSE and SSE2 floating point with every exception masked and rounding to nearest, which MXCSR is held to.
//! The NaN rules are the SDM's (volume 1, 4.8.3.5): the first operand if it is one, else the second, made
//! quiet; a default NaN for invalid operations. Status flags of MXCSR aren't raised.

use super::{Env, R, Stop};
use crate::op::{Op, Opd};
use crate::regs::Cpu;
use iced_x86::Mnemonic as M;

macro_rules! arithmetic {
    ($name:ident, $cmp:ident, $f:ty, $u:ty, $quiet:expr, $default:expr) => {
        fn $name(kind: Kind, a: u64, b: u64) -> u64 {
            let (x, y) = (<$f>::from_bits(a as $u), <$f>::from_bits(b as $u));
            let r = match kind {
                // These return the second operand when either is a NaN or both are zeroes.
                Kind::Min => return if x < y { a } else { b },
                Kind::Max => return if x > y { a } else { b },
                Kind::Sqrt if y.is_nan() => return b | $quiet,
                Kind::Sqrt => y.sqrt(),
                _ if x.is_nan() => return a | $quiet,
                _ if y.is_nan() => return b | $quiet,
                Kind::Add => x + y,
                Kind::Sub => x - y,
                Kind::Mul => x * y,
                Kind::Div => x / y,
            };
            if r.is_nan() { $default } else { u64::from(r.to_bits()) }
        }

        /// The eight predicates of CMPPS and its like.
        fn $cmp(predicate: u64, a: u64, b: u64) -> bool {
            let (x, y) = (<$f>::from_bits(a as $u), <$f>::from_bits(b as $u));
            let v = match predicate & 3 {
                0 => x == y,
                1 => x < y,
                2 => x <= y,
                _ => x.is_nan() || y.is_nan(),
            };
            v != (predicate & 4 != 0)
        }
    };
}

#[derive(Clone, Copy)]
enum Kind {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    Sqrt,
}

arithmetic!(single, compare_single, f32, u32, 0x0040_0000, 0xffc0_0000);
arithmetic!(double, compare_double, f64, u64, 0x0008_0000_0000_0000, 0xfff8_0000_0000_0000);

/// Kind, whether lanes have 64 bits, and whether only the lowest is worked on.
fn arithmetic_form(m: M) -> Option<(Kind, bool, bool)> {
    Some(match m {
        M::Addps => (Kind::Add, false, false),
        M::Addpd => (Kind::Add, true, false),
        M::Addss => (Kind::Add, false, true),
        M::Addsd => (Kind::Add, true, true),
        M::Subps => (Kind::Sub, false, false),
        M::Subpd => (Kind::Sub, true, false),
        M::Subss => (Kind::Sub, false, true),
        M::Subsd => (Kind::Sub, true, true),
        M::Mulps => (Kind::Mul, false, false),
        M::Mulpd => (Kind::Mul, true, false),
        M::Mulss => (Kind::Mul, false, true),
        M::Mulsd => (Kind::Mul, true, true),
        M::Divps => (Kind::Div, false, false),
        M::Divpd => (Kind::Div, true, false),
        M::Divss => (Kind::Div, false, true),
        M::Divsd => (Kind::Div, true, true),
        M::Minps => (Kind::Min, false, false),
        M::Minpd => (Kind::Min, true, false),
        M::Minss => (Kind::Min, false, true),
        M::Minsd => (Kind::Min, true, true),
        M::Maxps => (Kind::Max, false, false),
        M::Maxpd => (Kind::Max, true, false),
        M::Maxss => (Kind::Max, false, true),
        M::Maxsd => (Kind::Max, true, true),
        M::Sqrtps => (Kind::Sqrt, false, false),
        M::Sqrtpd => (Kind::Sqrt, true, false),
        M::Sqrtss => (Kind::Sqrt, false, true),
        M::Sqrtsd => (Kind::Sqrt, true, true),
        _ => return None,
    })
}

/// Works on the lanes; with `scalar` on the lowest, the others staying `a`'s.
fn each(a: u128, b: u128, wide: bool, scalar: bool, f: impl Fn(u64, u64) -> u64) -> u128 {
    let bits = if wide { 64 } else { 32 };
    let all = u128::MAX >> (128 - bits);
    let mut out = a;
    for at in (0..if scalar { bits } else { 128 }).step_by(bits) {
        let v = f((a >> at & all) as u64, (b >> at & all) as u64);
        out = out & !(all << at) | (u128::from(v) & all) << at;
    }
    out
}

/// A float as an integer of that size; out of range and NaN give the integer indefinite value.
fn to_int(v: f64, size: u8, truncate: bool) -> u64 {
    let r = if truncate { v.trunc() } else { v.round_ties_even() };
    let limit = if size == 8 { 9_223_372_036_854_775_808.0 } else { 2_147_483_648.0 };
    if r >= -limit && r < limit {
        r as i64 as u64
    } else if size == 8 {
        1 << 63
    } else {
        0x8000_0000
    }
}

fn widen(bits: u32) -> u64 {
    let v = f32::from_bits(bits);
    if v.is_nan() {
        let sign = u64::from(bits >> 31) << 63;
        return sign | 0x7ff8_0000_0000_0000 | u64::from(bits & 0x7f_ffff) << 29;
    }
    f64::from(v).to_bits()
}

fn narrow(bits: u64) -> u32 {
    let v = f64::from_bits(bits);
    if v.is_nan() {
        return (bits >> 63 << 31) as u32 | 0x7fc0_0000 | (bits >> 29) as u32 & 0x7f_ffff;
    }
    (v as f32).to_bits()
}

impl Cpu {
    pub(crate) fn sse_float(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        let (a, b) = (op.a, op.b);
        if let Some((kind, wide, scalar)) = arithmetic_form(op.mn) {
            let size = if !scalar {
                16
            } else if wide {
                8
            } else {
                4
            };
            let y = self.vector(env, op, b, size, true)?;
            let f = if wide { double } else { single };
            self.set_xmm(a, each(self.xmm(a), y, wide, scalar, |x, y| f(kind, x, y)));
            return Ok(());
        }
        match op.mn {
            M::Cmpps | M::Cmppd | M::Cmpss | M::Cmpsd => {
                let wide = matches!(op.mn, M::Cmppd | M::Cmpsd);
                let scalar = matches!(op.mn, M::Cmpss | M::Cmpsd);
                let size = if !scalar {
                    16
                } else if wide {
                    8
                } else {
                    4
                };
                let y = self.vector(env, op, b, size, true)?;
                let f = if wide { compare_double } else { compare_single };
                let v = each(self.xmm(a), y, wide, scalar, |x, y| if f(op.imm, x, y) { u64::MAX } else { 0 });
                self.set_xmm(a, v);
            }
            M::Ucomiss | M::Comiss | M::Ucomisd | M::Comisd => {
                let wide = matches!(op.mn, M::Ucomisd | M::Comisd);
                let y = self.vector(env, op, b, if wide { 8 } else { 4 }, false)?;
                let read = |v: u128| if wide { v as u64 } else { widen(v as u32) };
                let (x, y) = (f64::from_bits(read(self.xmm(a))), f64::from_bits(read(y)));
                let unordered = x.is_nan() || y.is_nan();
                // ZF, PF and CF tell; the others are cleared (SDM, UCOMISD).
                let flags = if unordered { 0x45 } else { u64::from(x == y) << 6 | u64::from(x < y) };
                self.flags = crate::flags::Flags::from_rflags(flags);
            }
            M::Cvtsi2sd | M::Cvtsi2ss => {
                let v = super::int::sext(self.get(env, op, b, op.bsize)?, op.bsize) as i64;
                let old = self.xmm(a);
                let new = if op.mn == M::Cvtsi2sd {
                    old >> 64 << 64 | u128::from((v as f64).to_bits())
                } else {
                    old >> 32 << 32 | u128::from((v as f32).to_bits())
                };
                self.set_xmm(a, new);
            }
            M::Cvttsd2si | M::Cvtsd2si | M::Cvttss2si | M::Cvtss2si => {
                let wide = matches!(op.mn, M::Cvttsd2si | M::Cvtsd2si);
                let v = self.vector(env, op, b, if wide { 8 } else { 4 }, false)?;
                let v = f64::from_bits(if wide { v as u64 } else { widen(v as u32) });
                let truncate = matches!(op.mn, M::Cvttsd2si | M::Cvttss2si);
                self.put_opd(env, op, a, op.size, to_int(v, op.size, truncate))?;
            }
            M::Cvtss2sd => {
                let v = self.vector(env, op, b, 4, false)?;
                self.set_xmm(a, self.xmm(a) >> 64 << 64 | u128::from(widen(v as u32)));
            }
            M::Cvtsd2ss => {
                let v = self.vector(env, op, b, 8, false)?;
                self.set_xmm(a, self.xmm(a) >> 32 << 32 | u128::from(narrow(v as u64)));
            }
            M::Cvtps2pd | M::Cvtdq2pd => {
                let v = self.vector(env, op, b, 8, false)?;
                let f = |v: u32| {
                    if op.mn == M::Cvtps2pd { widen(v) } else { f64::from(v as i32).to_bits() }
                };
                self.set_xmm(a, u128::from(f((v >> 32) as u32)) << 64 | u128::from(f(v as u32)));
            }
            M::Cvtpd2ps | M::Cvtpd2dq | M::Cvttpd2dq => {
                let v = self.vector(env, op, b, 16, true)?;
                let f = |v: u64| match op.mn {
                    M::Cvtpd2ps => u128::from(narrow(v)),
                    m => u128::from(to_int(f64::from_bits(v), 4, m == M::Cvttpd2dq) as u32),
                };
                self.set_xmm(a, f((v >> 64) as u64) << 32 | f(v as u64));
            }
            M::Cvtdq2ps | M::Cvtps2dq | M::Cvttps2dq => {
                let v = self.vector(env, op, b, 16, true)?;
                let r = each(v, v, false, false, |x, _| match op.mn {
                    M::Cvtdq2ps => u64::from((x as u32 as i32 as f32).to_bits()),
                    m => to_int(f64::from_bits(widen(x as u32)), 4, m == M::Cvttps2dq),
                });
                self.set_xmm(a, r);
            }
            _ => return Err(Stop::Unsupported),
        }
        debug_assert!(b != Opd::None);
        Ok(())
    }
}
