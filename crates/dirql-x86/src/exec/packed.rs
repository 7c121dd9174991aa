//! Packed integer instructions on sixteen bytes, from SSE2 to SSE4.2. The 32-byte forms of AVX2 do the same with
//! each half. Mnemonics are those without the V: lowering maps the others to them.

use iced_x86::Mnemonic as M;

/// Applies `f` to each lane of `bits` bits of both.
pub(crate) fn lanes(a: u128, b: u128, bits: u32, f: impl Fn(u64, u64) -> u64) -> u128 {
    let all = u64::MAX >> (64 - bits);
    let mut out = 0;
    for at in (0..128).step_by(bits as usize) {
        let v = f((a >> at) as u64 & all, (b >> at) as u64 & all) & all;
        out |= u128::from(v) << at;
    }
    out
}

/// Sign-extends a lane.
pub(crate) fn sx(v: u64, bits: u32) -> i64 {
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
pub(crate) fn shift_lanes(m: M, v: u128, count: u64) -> Option<u128> {
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
pub(crate) fn packed(m: M, a: u128, b: u128, imm: u64) -> Option<u128> {
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
        M::Pcmpeqq => lanes(a, b, 64, |x, y| flag(x == y)),
        M::Pcmpgtq => lanes(a, b, 64, |x, y| flag(x as i64 > y as i64)),
        M::Pminsb => lanes(a, b, 8, |x, y| sx(x, 8).min(sx(y, 8)) as u64),
        M::Pmaxsb => lanes(a, b, 8, |x, y| sx(x, 8).max(sx(y, 8)) as u64),
        M::Pminsd => lanes(a, b, 32, |x, y| sx(x, 32).min(sx(y, 32)) as u64),
        M::Pmaxsd => lanes(a, b, 32, |x, y| sx(x, 32).max(sx(y, 32)) as u64),
        M::Pminuw => lanes(a, b, 16, u64::min),
        M::Pmaxuw => lanes(a, b, 16, u64::max),
        M::Packusdw => pack(a, b, 32, false),
        M::Pmuldq => lanes(a, b, 64, |x, y| (sx(x & 0xffff_ffff, 32) * sx(y & 0xffff_ffff, 32)) as u64),
        M::Pmulhrsw => lanes(a, b, 16, |x, y| (((sx(x, 16) * sx(y, 16)) >> 14) + 1) as u64 >> 1),
        M::Pmaddubsw => lanes(a, b, 16, |x, y| {
            let v = (x & 0xff) as i64 * sx(y & 0xff, 8) + (x >> 8) as i64 * sx(y >> 8, 8);
            saturate(v, -32768, 32767)
        }),
        M::Pabsb => lanes(b, 0, 8, |x, _| sx(x, 8).unsigned_abs()),
        M::Pabsw => lanes(b, 0, 16, |x, _| sx(x, 16).unsigned_abs()),
        M::Pabsd => lanes(b, 0, 32, |x, _| sx(x, 32).unsigned_abs()),
        M::Psignb => lanes(a, b, 8, |x, y| (sx(x, 8) * sx(y, 8).signum()) as u64),
        M::Psignw => lanes(a, b, 16, |x, y| (sx(x, 16) * sx(y, 16).signum()) as u64),
        M::Psignd => lanes(a, b, 32, |x, y| (sx(x, 32) * sx(y, 32).signum()) as u64),
        M::Phaddw => pairs(a, b, 16, |x, y| x + y),
        M::Phaddd => pairs(a, b, 32, |x, y| x + y),
        M::Phsubw => pairs(a, b, 16, |x, y| x - y),
        M::Phsubd => pairs(a, b, 32, |x, y| x - y),
        M::Phaddsw => pairs(a, b, 16, |x, y| (x + y).clamp(-32768, 32767)),
        M::Phsubsw => pairs(a, b, 16, |x, y| (x - y).clamp(-32768, 32767)),
        M::Phminposuw => {
            let at = |i: u32| (b >> (16 * i)) as u16;
            let (least, i) = (0..8).map(|i| (at(i), i)).min().unwrap_or((0, 0));
            u128::from(least) | u128::from(i) << 16
        }
        M::Mpsadbw => {
            let byte = |v: u128, i: u64| (v >> (8 * i)) as u8;
            let (from_a, from_b) = ((imm >> 2 & 1) * 4, (imm & 3) * 4);
            (0..8u64).fold(0, |out, i| {
                let sum: u16 =
                    (0..4).map(|k| u16::from(byte(a, from_a + i + k).abs_diff(byte(b, from_b + k)))).sum();
                out | u128::from(sum) << (16 * i)
            })
        }
        M::Pblendw => select(a, b, 16, imm),
        M::Blendps | M::Vpblendd => select(a, b, 32, imm),
        M::Blendpd => select(a, b, 64, imm),
        M::Movddup => b & u128::from(u64::MAX) | b << 64,
        M::Movsldup => {
            let low = b & 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff;
            low | low << 32
        }
        M::Movshdup => {
            let high = b >> 32 & 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff;
            high | high << 32
        }
        M::Vpermilps if imm <= 0xff => shuffle32(b, imm),
        M::Vpermilpd if imm <= 0xff => {
            let at = |i: u64| b >> (64 * (imm >> i & 1)) & u128::from(u64::MAX);
            at(0) | at(1) << 64
        }
        M::Vpermilps => {
            (0..4).fold(0, |out, i| out | (a >> (32 * (b >> (32 * i) & 3)) & 0xffff_ffff) << (32 * i))
        }
        M::Vpermilpd => (0..2)
            .fold(0, |out, i| out | (a >> (64 * (b >> (64 * i + 1) & 1)) & u128::from(u64::MAX)) << (64 * i)),
        M::Vpsllvd => lanes(a, b, 32, |x, n| if n < 32 { x << n } else { 0 }),
        M::Vpsllvq => lanes(a, b, 64, |x, n| if n < 64 { x << n } else { 0 }),
        M::Vpsrlvd => lanes(a, b, 32, |x, n| if n < 32 { x >> n } else { 0 }),
        M::Vpsrlvq => lanes(a, b, 64, |x, n| if n < 64 { x >> n } else { 0 }),
        M::Vpsravd => lanes(a, b, 32, |x, n| (sx(x, 32) >> n.min(31)) as u64),
        M::Pclmulqdq => super::crypto::carryless(a, b, imm),
        M::Aesenc => super::crypto::aes(a, b, false, false),
        M::Aesenclast => super::crypto::aes(a, b, false, true),
        M::Aesdec => super::crypto::aes(a, b, true, false),
        M::Aesdeclast => super::crypto::aes(a, b, true, true),
        M::Aesimc => super::crypto::aes_inverse_mix(b),
        M::Aeskeygenassist => super::crypto::aes_key_assist(b, imm),
        _ => return None,
    })
}

/// Lanes of `b` where the immediate has a one, else of `a`.
fn select(a: u128, b: u128, bits: u32, imm: u64) -> u128 {
    let all = u128::MAX >> (128 - bits);
    (0..128 / bits).fold(0, |out, i| out | (if imm >> i & 1 != 0 { b } else { a }) & all << (i * bits))
}

/// Neighbours within `a`, then within `b`.
fn pairs(a: u128, b: u128, bits: u32, f: impl Fn(i64, i64) -> i64) -> u128 {
    let all = u64::MAX >> (64 - bits);
    let n = 128 / bits;
    (0..n).fold(0, |out, i| {
        let v = if i < n / 2 { a } else { b };
        let at = 2 * (i % (n / 2)) * bits;
        let lane = |at: u32| sx((v >> at) as u64 & all, bits);
        out | u128::from(f(lane(at), lane(at + bits)) as u64 & all) << (i * bits)
    })
}
