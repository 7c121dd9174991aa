//! Floating point of SSE to AVX. The arithmetic is [`crate::soft`]'s. Flags are raised in MXCSR; an unmasked one
//! raises #XM, and nothing else has changed then.

use super::{R, Stop};
use crate::exception::Exception;
use crate::op::Op;
use crate::regs::Cpu;
use crate::soft::{self, DOUBLE, EQUAL, Format, GREATER, Kind, LESS, SINGLE, UNORDERED};
use iced_x86::Mnemonic as M;

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
fn each(a: u128, b: u128, wide: bool, scalar: bool, mut f: impl FnMut(u64, u64) -> u64) -> u128 {
    let bits = if wide { 64 } else { 32 };
    let all = u128::MAX >> (128 - bits);
    let mut out = a;
    for at in (0..if scalar { bits } else { 128 }).step_by(bits) {
        let v = f((a >> at & all) as u64, (b >> at & all) as u64);
        out = out & !(all << at) | (u128::from(v) & all) << at;
    }
    out
}

/// The 32 predicates of VCMPPS; SSE has the first eight. A truth table, and whether any NaN is invalid.
fn predicate(imm: u64) -> (u8, bool) {
    let table = match imm & 15 {
        0 => EQUAL,
        1 => LESS,
        2 => LESS | EQUAL,
        3 => UNORDERED,
        4 => LESS | GREATER | UNORDERED,
        5 => EQUAL | GREATER | UNORDERED,
        6 => GREATER | UNORDERED,
        7 => LESS | EQUAL | GREATER,
        8 => EQUAL | UNORDERED,
        9 => LESS | UNORDERED,
        10 => LESS | EQUAL | UNORDERED,
        11 => 0,
        12 => LESS | GREATER,
        13 => EQUAL | GREATER,
        14 => GREATER,
        _ => LESS | EQUAL | GREATER | UNORDERED,
    };
    let signals = matches!(imm & 15, 1 | 2 | 5 | 6 | 9 | 10 | 13 | 14);
    (table, signals != (imm & 16 != 0))
}

fn format(wide: bool) -> Format {
    if wide { DOUBLE } else { SINGLE }
}

impl Cpu {
    /// Puts the flags into MXCSR. Call it before anything else is changed.
    fn float_done(&mut self, f: soft::Env) -> R<()> {
        let unmasked = !(self.regs.mxcsr >> 7) & 0x3f;
        // Invalid, denormal and division by zero are found before anything is computed.
        let early = f.flags & 7;
        if early & unmasked != 0 {
            self.regs.mxcsr |= early;
            return self.raise(Exception::Simd);
        }
        self.regs.mxcsr |= f.flags;
        if f.flags & unmasked != 0 { self.raise(Exception::Simd) } else { Ok(()) }
    }

    pub(crate) fn sse_float(&mut self, env: &mut super::Env<'_>, op: &Op) -> R<()> {
        let (a, b) = (op.a, op.b);
        let mut f = soft::Env::new(self.regs.mxcsr);
        let size = op.vec_bytes();
        let s1 = self.halves(op.s1);
        if let Some((kind, wide, scalar)) = arithmetic_form(op.mn) {
            let bytes = if !scalar {
                size
            } else if wide {
                8
            } else {
                4
            };
            let y = self.vector(env, op, b, bytes, !scalar)?;
            let of = format(wide);
            let v = self.both(op, scalar, s1, y, |_, s, y| {
                each(s, y, wide, scalar, |x, y| of.arithmetic(&mut f, kind, x, y))
            });
            self.float_done(f)?;
            self.set_vector(op, a, v);
            return Ok(());
        }
        match op.mn {
            M::Cmpps | M::Cmppd | M::Cmpss | M::Cmpsd => {
                let wide = matches!(op.mn, M::Cmppd | M::Cmpsd);
                let scalar = matches!(op.mn, M::Cmpss | M::Cmpsd);
                let bytes = if !scalar {
                    size
                } else if wide {
                    8
                } else {
                    4
                };
                let y = self.vector(env, op, b, bytes, !scalar)?;
                let (table, signals) = predicate(op.imm & if op.vl == 0 { 7 } else { 31 });
                let v = self.both(op, scalar, s1, y, |_, s, y| {
                    each(s, y, wide, scalar, |x, y| {
                        if table & format(wide).compare(&mut f, x, y, signals) != 0 { u64::MAX } else { 0 }
                    })
                });
                self.float_done(f)?;
                self.set_vector(op, a, v);
            }
            M::Ucomiss | M::Comiss | M::Ucomisd | M::Comisd => {
                let wide = matches!(op.mn, M::Ucomisd | M::Comisd);
                let y = self.vector(env, op, b, if wide { 8 } else { 4 }, false)?[0] as u64;
                let signals = matches!(op.mn, M::Comiss | M::Comisd);
                let r = format(wide).compare(&mut f, self.halves(a)[0] as u64, y, signals);
                self.float_done(f)?;
                // ZF, PF and CF tell; the others are cleared (SDM, UCOMISD).
                let flags = match r {
                    UNORDERED => 0x45,
                    EQUAL => 0x40,
                    LESS => 1,
                    _ => 0,
                };
                self.flags = crate::flags::Flags::from_rflags(flags);
            }
            M::Cvtsi2sd | M::Cvtsi2ss => {
                let v = super::int::sext(self.get(env, op, b, op.bsize)?, op.bsize) as i64;
                let wide = op.mn == M::Cvtsi2sd;
                let r = format(wide).of_int(&mut f, v);
                self.float_done(f)?;
                self.set_scalar(op, s1, r, wide);
            }
            M::Cvttsd2si | M::Cvtsd2si | M::Cvttss2si | M::Cvtss2si => {
                let wide = matches!(op.mn, M::Cvttsd2si | M::Cvtsd2si);
                let v = self.vector(env, op, b, if wide { 8 } else { 4 }, false)?[0] as u64;
                let truncate = matches!(op.mn, M::Cvttsd2si | M::Cvttss2si);
                let r = format(wide).to_int(&mut f, v, u32::from(op.size) * 8, truncate);
                self.float_done(f)?;
                self.put_opd(env, op, a, op.size, r)?;
            }
            M::Cvtss2sd | M::Cvtsd2ss => {
                let wide = op.mn == M::Cvtss2sd;
                let v = self.vector(env, op, b, if wide { 4 } else { 8 }, false)?[0] as u64;
                let r = format(!wide).convert(&mut f, format(wide), v);
                self.float_done(f)?;
                self.set_scalar(op, s1, r, wide);
            }
            M::Cvtps2pd | M::Cvtdq2pd => {
                let v = self.vector(env, op, b, if op.vl == 32 { 16 } else { 8 }, false)?[0];
                let mut lane = |i: u32| {
                    let x = (v >> (32 * i)) as u32;
                    u128::from(if op.mn == M::Cvtps2pd {
                        SINGLE.convert(&mut f, DOUBLE, u64::from(x))
                    } else {
                        DOUBLE.of_int(&mut f, i64::from(x as i32))
                    })
                };
                let low = lane(0) | lane(1) << 64;
                let high = if op.vl == 32 { lane(2) | lane(3) << 64 } else { 0 };
                self.float_done(f)?;
                self.set_vector(op, a, [low, high]);
            }
            M::Cvtpd2ps | M::Cvtpd2dq | M::Cvttpd2dq => {
                let v = self.vector(env, op, b, size, true)?;
                let mut lane = |x: u128| {
                    u128::from(match op.mn {
                        M::Cvtpd2ps => DOUBLE.convert(&mut f, SINGLE, x as u64),
                        m => DOUBLE.to_int(&mut f, x as u64, 32, m == M::Cvttpd2dq),
                    })
                };
                let mut r = lane(v[0]) | lane(v[0] >> 64) << 32;
                if op.vl == 32 {
                    r |= lane(v[1]) << 64 | lane(v[1] >> 64) << 96;
                }
                self.float_done(f)?;
                self.set_vector(op, a, [r, 0]);
            }
            M::Cvtdq2ps | M::Cvtps2dq | M::Cvttps2dq => {
                let v = self.vector(env, op, b, size, true)?;
                let r = self.both(op, false, v, v, |_, v, _| {
                    each(v, v, false, false, |x, _| match op.mn {
                        M::Cvtdq2ps => SINGLE.of_int(&mut f, i64::from(x as u32 as i32)),
                        m => SINGLE.to_int(&mut f, x, 32, m == M::Cvttps2dq),
                    })
                });
                self.float_done(f)?;
                self.set_vector(op, a, r);
            }
            M::Roundps | M::Roundpd | M::Roundss | M::Roundsd => {
                let wide = matches!(op.mn, M::Roundpd | M::Roundsd);
                let scalar = matches!(op.mn, M::Roundss | M::Roundsd);
                let bytes = if !scalar {
                    size
                } else if wide {
                    8
                } else {
                    4
                };
                let y = self.vector(env, op, b, bytes, !scalar)?;
                let v = self.both(op, scalar, s1, y, |_, s, y| {
                    each(s, y, wide, scalar, |_, y| format(wide).round_to_int(&mut f, y, op.imm))
                });
                self.float_done(f)?;
                self.set_vector(op, a, v);
            }
            M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss => {
                let scalar = matches!(op.mn, M::Rcpss | M::Rsqrtss);
                let root = matches!(op.mn, M::Rsqrtps | M::Rsqrtss);
                let y = self.vector(env, op, b, if scalar { 4 } else { size }, !scalar)?;
                let v = self.both(op, scalar, s1, y, |_, s, y| {
                    each(s, y, false, scalar, |_, y| SINGLE.approximate(y, root))
                });
                self.set_vector(op, a, v);
            }
            M::Haddps | M::Haddpd | M::Hsubps | M::Hsubpd | M::Addsubps | M::Addsubpd => {
                let wide = matches!(op.mn, M::Haddpd | M::Hsubpd | M::Addsubpd);
                let y = self.vector(env, op, b, size, true)?;
                let bits = if wide { 64 } else { 32 };
                let all = u128::MAX >> (128 - bits);
                let n = 128 / bits;
                let v = self.both(op, false, s1, y, |_, s, y| {
                    (0..n).fold(0, |out, i| {
                        let at = |v: u128, k: u32| (v >> (k * bits) & all) as u64;
                        let (x, z, kind) = if matches!(op.mn, M::Addsubps | M::Addsubpd) {
                            (at(s, i), at(y, i), if i % 2 == 0 { Kind::Sub } else { Kind::Add })
                        } else {
                            let from = if i < n / 2 { s } else { y };
                            let k = 2 * (i % (n / 2));
                            let add = matches!(op.mn, M::Haddps | M::Haddpd);
                            (at(from, k), at(from, k + 1), if add { Kind::Add } else { Kind::Sub })
                        };
                        out | u128::from(format(wide).arithmetic(&mut f, kind, x, z)) << (i * bits)
                    })
                });
                self.float_done(f)?;
                self.set_vector(op, a, v);
            }
            M::Dpps | M::Dppd => {
                let wide = op.mn == M::Dppd;
                let y = self.vector(env, op, b, size, true)?;
                let of = format(wide);
                let v = self.both(op, false, s1, y, |_, s, y| {
                    let bits = if wide { 64 } else { 32 };
                    let all = u128::MAX >> (128 - bits);
                    let mut part = |i: u32| {
                        if op.imm >> (4 + i) & 1 == 0 {
                            return 0;
                        }
                        let at = |v: u128| (v >> (i * bits) & all) as u64;
                        of.arithmetic(&mut f, Kind::Mul, at(s), at(y))
                    };
                    let sum = if wide {
                        let p = [part(0), part(1)];
                        of.arithmetic(&mut f, Kind::Add, p[0], p[1])
                    } else {
                        let p = [part(0), part(1), part(2), part(3)];
                        let low = of.arithmetic(&mut f, Kind::Add, p[0], p[1]);
                        let high = of.arithmetic(&mut f, Kind::Add, p[2], p[3]);
                        of.arithmetic(&mut f, Kind::Add, low, high)
                    };
                    (0..128 / bits).fold(0, |out, i| {
                        if op.imm >> i & 1 != 0 { out | u128::from(sum) << (i * bits) } else { out }
                    })
                });
                self.float_done(f)?;
                self.set_vector(op, a, v);
            }
            _ => return Err(Stop::Unsupported),
        }
        Ok(())
    }

    /// The lowest lane is `r`, the rest of sixteen bytes comes from the first source.
    fn set_scalar(&mut self, op: &Op, s1: [u128; 2], r: u64, wide: bool) {
        let bits = if wide { 64 } else { 32 };
        self.set_vector(op, op.a, [s1[0] >> bits << bits | u128::from(r), 0]);
    }
}
