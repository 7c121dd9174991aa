//! SSE and SSE2 moves, logic and packed integers, with some of SSSE3 and SSE4.1. All two-operand forms work on
//! the sixteen bytes of a register; an aligned form with a misaligned memory operand raises #GP.

use super::{Env, R, Stop};
use crate::exception::Exception;
use crate::op::{Op, Opd};
use crate::regs::Cpu;
use iced_x86::Mnemonic as M;

/// Applies `f` to each lane of `bits` bits of both.
fn lanes(a: u128, b: u128, bits: u32, f: impl Fn(u64, u64) -> u64) -> u128 {
    let all = u64::MAX >> (64 - bits);
    let mut out = 0;
    for at in (0..128).step_by(bits as usize) {
        let v = f((a >> at) as u64 & all, (b >> at) as u64 & all) & all;
        out |= u128::from(v) << at;
    }
    out
}

/// Sign-extends a lane.
fn sx(v: u64, bits: u32) -> i64 {
    (v << (64 - bits)) as i64 >> (64 - bits)
}

fn saturate(v: i64, low: i64, high: i64) -> u64 {
    v.clamp(low, high) as u64
}

/// Lanes of both operands taken in turn, from the low or the high half.
fn unpack(a: u128, b: u128, bits: u32, high: bool) -> u128 {
    let all = u128::MAX >> (128 - bits);
    let mut out = 0;
    let from = if high { 64 } else { 0 };
    for i in 0..64 / bits {
        out |= (a >> (from + i * bits) & all) << (2 * i * bits);
        out |= (b >> (from + i * bits) & all) << ((2 * i + 1) * bits);
    }
    out
}

/// Narrows the lanes of `a`, then of `b`, to half their width.
fn pack(a: u128, b: u128, bits: u32, signed: bool) -> u128 {
    let half = bits / 2;
    let (low, high) =
        if signed { (-(1i64 << (half - 1)), (1i64 << (half - 1)) - 1) } else { (0, (1i64 << half) - 1) };
    let mut out = 0;
    let n = 128 / bits;
    for (k, v) in [a, b].into_iter().enumerate() {
        for i in 0..n {
            let lane = saturate(sx((v >> (i * bits)) as u64, bits), low, high) & (u64::MAX >> (64 - half));
            out |= u128::from(lane) << ((k as u32 * n + i) * half);
        }
    }
    out
}

fn shuffle32(v: u128, order: u64) -> u128 {
    (0..4).fold(0, |out, i| out | (v >> (32 * (order >> (2 * i) & 3)) & 0xffff_ffff) << (32 * i))
}

fn shuffle16(v: u64, order: u64) -> u64 {
    (0..4).fold(0, |out, i| out | (v >> (16 * (order >> (2 * i) & 3)) & 0xffff) << (16 * i))
}

/// A packed shift by one count for all lanes.
fn shift_lanes(m: M, v: u128, count: u64) -> Option<u128> {
    let (bits, kind) = match m {
        M::Psllw => (16, 0),
        M::Pslld => (32, 0),
        M::Psllq => (64, 0),
        M::Psrlw => (16, 1),
        M::Psrld => (32, 1),
        M::Psrlq => (64, 1),
        M::Psraw => (16, 2),
        M::Psrad => (32, 2),
        M::Pslldq => return Some(if count > 15 { 0 } else { v << (8 * count) }),
        M::Psrldq => return Some(if count > 15 { 0 } else { v >> (8 * count) }),
        _ => return None,
    };
    Some(lanes(v, 0, bits, |x, _| match kind {
        2 => (sx(x, bits) >> count.min(u64::from(bits) - 1)) as u64,
        _ if count >= u64::from(bits) => 0,
        0 => x << count,
        _ => x >> count,
    }))
}

/// Packed integer operations of two registers.
fn packed(m: M, a: u128, b: u128, imm: u64) -> Option<u128> {
    let flag = |set: bool| if set { u64::MAX } else { 0 };
    Some(match m {
        M::Pxor | M::Xorps | M::Xorpd => a ^ b,
        M::Pand | M::Andps | M::Andpd => a & b,
        M::Por | M::Orps | M::Orpd => a | b,
        M::Pandn | M::Andnps | M::Andnpd => !a & b,
        M::Paddb => lanes(a, b, 8, u64::wrapping_add),
        M::Paddw => lanes(a, b, 16, u64::wrapping_add),
        M::Paddd => lanes(a, b, 32, u64::wrapping_add),
        M::Paddq => lanes(a, b, 64, u64::wrapping_add),
        M::Psubb => lanes(a, b, 8, u64::wrapping_sub),
        M::Psubw => lanes(a, b, 16, u64::wrapping_sub),
        M::Psubd => lanes(a, b, 32, u64::wrapping_sub),
        M::Psubq => lanes(a, b, 64, u64::wrapping_sub),
        M::Paddsb => lanes(a, b, 8, |x, y| saturate(sx(x, 8) + sx(y, 8), -128, 127)),
        M::Paddsw => lanes(a, b, 16, |x, y| saturate(sx(x, 16) + sx(y, 16), -32768, 32767)),
        M::Psubsb => lanes(a, b, 8, |x, y| saturate(sx(x, 8) - sx(y, 8), -128, 127)),
        M::Psubsw => lanes(a, b, 16, |x, y| saturate(sx(x, 16) - sx(y, 16), -32768, 32767)),
        M::Paddusb => lanes(a, b, 8, |x, y| (x + y).min(0xff)),
        M::Paddusw => lanes(a, b, 16, |x, y| (x + y).min(0xffff)),
        M::Psubusb => lanes(a, b, 8, u64::saturating_sub),
        M::Psubusw => lanes(a, b, 16, u64::saturating_sub),
        M::Pcmpeqb => lanes(a, b, 8, |x, y| flag(x == y)),
        M::Pcmpeqw => lanes(a, b, 16, |x, y| flag(x == y)),
        M::Pcmpeqd => lanes(a, b, 32, |x, y| flag(x == y)),
        M::Pcmpgtb => lanes(a, b, 8, |x, y| flag(sx(x, 8) > sx(y, 8))),
        M::Pcmpgtw => lanes(a, b, 16, |x, y| flag(sx(x, 16) > sx(y, 16))),
        M::Pcmpgtd => lanes(a, b, 32, |x, y| flag(sx(x, 32) > sx(y, 32))),
        M::Pmullw => lanes(a, b, 16, u64::wrapping_mul),
        M::Pmulld => lanes(a, b, 32, u64::wrapping_mul),
        M::Pmulhw => lanes(a, b, 16, |x, y| ((sx(x, 16) * sx(y, 16)) >> 16) as u64),
        M::Pmulhuw => lanes(a, b, 16, |x, y| (x * y) >> 16),
        M::Pmuludq => lanes(a, b, 64, |x, y| (x & 0xffff_ffff) * (y & 0xffff_ffff)),
        M::Pmaddwd => lanes(a, b, 32, |x, y| {
            (sx(x & 0xffff, 16) * sx(y & 0xffff, 16) + sx(x >> 16, 16) * sx(y >> 16, 16)) as u64
        }),
        M::Pminub => lanes(a, b, 8, u64::min),
        M::Pmaxub => lanes(a, b, 8, u64::max),
        M::Pminud => lanes(a, b, 32, u64::min),
        M::Pmaxud => lanes(a, b, 32, u64::max),
        M::Pminsw => lanes(a, b, 16, |x, y| sx(x, 16).min(sx(y, 16)) as u64),
        M::Pmaxsw => lanes(a, b, 16, |x, y| sx(x, 16).max(sx(y, 16)) as u64),
        M::Pavgb => lanes(a, b, 8, |x, y| (x + y + 1) >> 1),
        M::Pavgw => lanes(a, b, 16, |x, y| (x + y + 1) >> 1),
        M::Psadbw => {
            lanes(a, b, 64, |x, y| (0..8).map(|i| (x >> (8 * i) & 0xff).abs_diff(y >> (8 * i) & 0xff)).sum())
        }
        M::Punpcklbw => unpack(a, b, 8, false),
        M::Punpcklwd => unpack(a, b, 16, false),
        M::Punpckldq | M::Unpcklps => unpack(a, b, 32, false),
        M::Punpcklqdq | M::Unpcklpd => unpack(a, b, 64, false),
        M::Punpckhbw => unpack(a, b, 8, true),
        M::Punpckhwd => unpack(a, b, 16, true),
        M::Punpckhdq | M::Unpckhps => unpack(a, b, 32, true),
        M::Punpckhqdq | M::Unpckhpd => unpack(a, b, 64, true),
        M::Packsswb => pack(a, b, 16, true),
        M::Packssdw => pack(a, b, 32, true),
        M::Packuswb => pack(a, b, 16, false),
        M::Pshufd => shuffle32(b, imm),
        M::Pshuflw => b >> 64 << 64 | u128::from(shuffle16(b as u64, imm)),
        M::Pshufhw => u128::from(shuffle16((b >> 64) as u64, imm)) << 64 | u128::from(b as u64),
        M::Shufps => {
            let low = shuffle32(a, imm & 15) & u128::from(u64::MAX);
            low | (shuffle32(b, imm >> 4) & u128::from(u64::MAX)) << 64
        }
        M::Shufpd => {
            let low = (a >> (64 * (imm & 1))) as u64;
            let high = (b >> (64 * (imm >> 1 & 1))) as u64;
            u128::from(high) << 64 | u128::from(low)
        }
        M::Pshufb => lanes(b, 0, 8, |x, _| if x & 0x80 != 0 { 0 } else { (a >> (8 * (x & 15))) as u64 }),
        M::Palignr => {
            let n = imm & 0xff;
            match n {
                0 => b,
                1..=15 => b >> (8 * n) | a << (128 - 8 * n),
                16..=31 => a >> (8 * (n - 16)),
                _ => 0,
            }
        }
        _ => return None,
    })
}

impl Cpu {
    pub(crate) fn xmm(&self, opd: Opd) -> u128 {
        match opd {
            Opd::Xmm(n) => self.regs.xmm[usize::from(n & 15)],
            _ => 0,
        }
    }

    pub(crate) fn set_xmm(&mut self, opd: Opd, v: u128) {
        if let Opd::Xmm(n) = opd {
            self.regs.xmm[usize::from(n & 15)] = v;
        }
    }

    /// Reads a vector operand: a register, or `size` bytes of memory, zero-extended.
    pub(crate) fn vector(
        &mut self,
        env: &mut Env<'_>,
        op: &Op,
        opd: Opd,
        size: u8,
        aligned: bool,
    ) -> R<u128> {
        match opd {
            Opd::Xmm(_) => Ok(self.xmm(opd)),
            Opd::Mem if size == 16 => {
                let at = self.ea(op);
                if aligned && !at.is_multiple_of(16) {
                    return self.raise(Exception::GeneralProtection(0));
                }
                Ok(u128::from_le_bytes(self.load(env, at)?))
            }
            _ => Ok(u128::from(self.get(env, op, opd, size)?)),
        }
    }

    fn store_vector(&mut self, env: &mut Env<'_>, op: &Op, v: u128, aligned: bool) -> R<()> {
        let at = self.ea(op);
        if aligned && !at.is_multiple_of(16) {
            return self.raise(Exception::GeneralProtection(0));
        }
        self.store(env, at, v.to_le_bytes())
    }

    #[inline(never)]
    pub(crate) fn sse(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        const LOW: u128 = u64::MAX as u128;
        let (a, b) = (op.a, op.b);
        match op.mn {
            M::Movaps
            | M::Movapd
            | M::Movdqa
            | M::Movntps
            | M::Movntpd
            | M::Movntdq
            | M::Movntdqa
            | M::Movups
            | M::Movupd
            | M::Movdqu
            | M::Lddqu => {
                let aligned = !matches!(op.mn, M::Movups | M::Movupd | M::Movdqu | M::Lddqu);
                let v = self.vector(env, op, b, 16, aligned)?;
                if a == Opd::Mem {
                    self.store_vector(env, op, v, aligned)?;
                } else {
                    self.set_xmm(a, v);
                }
            }
            M::Movd | M::Movq => {
                let size = if op.mn == M::Movd { 4 } else { 8 };
                let v = self.vector(env, op, b, size, false)? & if size == 4 { 0xffff_ffff } else { LOW };
                match a {
                    Opd::Xmm(_) => self.set_xmm(a, v),
                    _ => self.put_opd(env, op, a, size, v as u64)?,
                }
            }
            M::Movss | M::Movsd => {
                let (size, low) = if op.mn == M::Movss { (4, 0xffff_ffff) } else { (8, LOW) };
                let v = self.vector(env, op, b, size, false)?;
                match (a, b) {
                    (Opd::Mem, _) => self.put_opd(env, op, a, size, v as u64)?,
                    (_, Opd::Mem) => self.set_xmm(a, v),
                    _ => self.set_xmm(a, self.xmm(a) & !low | v & low),
                }
            }
            M::Movlps | M::Movlpd | M::Movhps | M::Movhpd => {
                let shift = if matches!(op.mn, M::Movhps | M::Movhpd) { 64 } else { 0 };
                if a == Opd::Mem {
                    self.put_opd(env, op, a, 8, (self.xmm(b) >> shift) as u64)?;
                } else {
                    let v = self.vector(env, op, b, 8, false)?;
                    self.set_xmm(a, self.xmm(a) & !(LOW << shift) | v << shift);
                }
            }
            M::Movhlps => self.set_xmm(a, self.xmm(a) & !LOW | self.xmm(b) >> 64),
            M::Movlhps => self.set_xmm(a, self.xmm(a) & LOW | self.xmm(b) << 64),
            M::Movmskps | M::Movmskpd | M::Pmovmskb => {
                let bits = match op.mn {
                    M::Movmskps => 32,
                    M::Movmskpd => 64,
                    _ => 8,
                };
                let v = self.xmm(b);
                let signs =
                    (0..128 / bits).fold(0, |out, i| out | ((v >> (i * bits + bits - 1)) as u64 & 1) << i);
                self.put_opd(env, op, a, 8, signs)?;
            }
            M::Pinsrw | M::Pinsrb | M::Pinsrd | M::Pinsrq => {
                let bits = element_bits(op.mn);
                let v = u128::from(self.get(env, op, b, (bits / 8) as u8)?);
                let at = (op.imm as u32 & (128 / bits - 1)) * bits;
                let all = u128::MAX >> (128 - bits);
                self.set_xmm(a, self.xmm(a) & !(all << at) | v << at);
            }
            M::Pextrw | M::Pextrb | M::Pextrd | M::Pextrq => {
                let bits = element_bits(op.mn);
                let at = (op.imm as u32 & (128 / bits - 1)) * bits;
                let v = (self.xmm(b) >> at) as u64 & (u64::MAX >> (64 - bits));
                let size = if a == Opd::Mem { (bits / 8) as u8 } else { 8 };
                self.put_opd(env, op, a, size, v)?;
            }
            M::Ptest => {
                let (x, y) = (self.xmm(a), self.vector(env, op, b, 16, true)?);
                super::alu::logic(&mut self.flags, 1, 64);
                self.flags.z = u64::from(x & y != 0);
                self.flags.cf = !x & y == 0;
            }
            M::Psllw
            | M::Pslld
            | M::Psllq
            | M::Psrlw
            | M::Psrld
            | M::Psrlq
            | M::Psraw
            | M::Psrad
            | M::Pslldq
            | M::Psrldq => {
                let count =
                    if b == Opd::Imm { op.imm & 0xff } else { self.vector(env, op, b, 16, true)? as u64 };
                match shift_lanes(op.mn, self.xmm(a), count) {
                    Some(v) => self.set_xmm(a, v),
                    None => return Err(Stop::Unsupported),
                }
            }
            m => {
                if packed(m, 0, 0, 0).is_none() {
                    return self.sse_float(env, op);
                }
                let y = self.vector(env, op, b, 16, true)?;
                if let Some(v) = packed(m, self.xmm(a), y, op.imm & 0xff) {
                    self.set_xmm(a, v);
                }
            }
        }
        Ok(())
    }
}

fn element_bits(m: M) -> u32 {
    match m {
        M::Pinsrb | M::Pextrb => 8,
        M::Pinsrw | M::Pextrw => 16,
        M::Pinsrd | M::Pextrd => 32,
        _ => 64,
    }
}
