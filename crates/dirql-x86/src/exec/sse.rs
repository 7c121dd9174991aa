//! Vector moves and the ways data goes between lanes, registers and memory; SSE and AVX forms alike. An SSE form
//! keeps bits 255 to 128 of its destination, a VEX form clears those it doesn't write (SDM volume 2, 2.3.10).

use super::packed::{packed, shift_lanes};
use super::{Env, R, alu};
use crate::exception::Exception;
use crate::op::{Op, Opd};
use crate::regs::Cpu;
use iced_x86::Mnemonic as M;

const LOW: u128 = u64::MAX as u128;

impl Op {
    /// Bytes of the vectors it works on.
    pub(crate) fn vec_bytes(&self) -> u8 {
        if self.vl == 32 { 32 } else { 16 }
    }
}

impl Cpu {
    /// Both halves of a vector register; zeroes for anything else.
    #[inline]
    pub(crate) fn halves(&self, opd: Opd) -> [u128; 2] {
        match opd {
            Opd::Xmm(n) => {
                let n = usize::from(n & 15);
                [self.regs.xmm[n], self.regs.ymm_high[n]]
            }
            _ => [0; 2],
        }
    }

    /// Writes a vector register as the encoding says: SSE forms leave the high half alone.
    #[inline]
    pub(crate) fn set_vector(&mut self, op: &Op, opd: Opd, v: [u128; 2]) {
        if let Opd::Xmm(n) = opd {
            let n = usize::from(n & 15);
            self.regs.xmm[n] = v[0];
            match op.vl {
                0 => {}
                32 => self.regs.ymm_high[n] = v[1],
                _ => self.regs.ymm_high[n] = 0,
            }
        }
    }

    /// Works on the low halves and, of 32-byte vectors, on the high ones. The function is told which.
    pub(crate) fn both(
        &self,
        op: &Op,
        scalar: bool,
        a: [u128; 2],
        b: [u128; 2],
        mut f: impl FnMut(usize, u128, u128) -> u128,
    ) -> [u128; 2] {
        let low = f(0, a[0], b[0]);
        [low, if op.vl == 32 && !scalar { f(1, a[1], b[1]) } else { 0 }]
    }

    /// Reads a vector operand: a register, or `size` bytes of memory, zero-extended. `aligned` counts for SSE
    /// forms only.
    pub(crate) fn vector(
        &mut self,
        env: &mut Env<'_>,
        op: &Op,
        opd: Opd,
        size: u8,
        aligned: bool,
    ) -> R<[u128; 2]> {
        match opd {
            Opd::Xmm(_) => Ok(self.halves(opd)),
            Opd::Mem => self.load_vector(env, op, size, aligned && op.vl == 0),
            _ => Ok([u128::from(self.get(env, op, opd, size)?), 0]),
        }
    }

    fn load_vector(&mut self, env: &mut Env<'_>, op: &Op, size: u8, aligned: bool) -> R<[u128; 2]> {
        let at = self.ea(op);
        if aligned && size >= 16 && !at.is_multiple_of(u64::from(size)) {
            return self.raise(Exception::GeneralProtection(0));
        }
        Ok(match size {
            32 => {
                let v: [u8; 32] = self.load(env, at)?;
                let half = |o: usize| u128::from_le_bytes(std::array::from_fn(|i| v[o + i]));
                [half(0), half(16)]
            }
            16 => [u128::from_le_bytes(self.load(env, at)?), 0],
            _ => [u128::from(self.load_n(env, at, size)?), 0],
        })
    }

    fn store_vector(&mut self, env: &mut Env<'_>, op: &Op, v: [u128; 2], aligned: bool) -> R<()> {
        let at = self.ea(op);
        let size = op.vec_bytes();
        if aligned && !at.is_multiple_of(u64::from(size)) {
            return self.raise(Exception::GeneralProtection(0));
        }
        if size == 16 {
            return self.store(env, at, v[0].to_le_bytes());
        }
        let (low, high) = (v[0].to_le_bytes(), v[1].to_le_bytes());
        let bytes: [u8; 32] = std::array::from_fn(|i| if i < 16 { low[i] } else { high[i - 16] });
        self.store(env, at, bytes)
    }

    #[inline(never)]
    pub(crate) fn sse(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        if op.vl != 0 && !self.avx_enabled() {
            return self.raise(Exception::InvalidOpcode);
        }
        let (a, b) = (op.a, op.b);
        let size = op.vec_bytes();
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
                let v = match b {
                    Opd::Mem => self.load_vector(env, op, size, aligned)?,
                    _ => self.halves(b),
                };
                if a == Opd::Mem {
                    self.store_vector(env, op, v, aligned)?;
                } else {
                    self.set_vector(op, a, v);
                }
            }
            M::Movd | M::Movq => {
                let size = if op.mn == M::Movd { 4 } else { 8 };
                let v = self.vector(env, op, b, size, false)?[0] & if size == 4 { 0xffff_ffff } else { LOW };
                match a {
                    Opd::Xmm(_) => self.set_vector(op, a, [v, 0]),
                    _ => self.put_opd(env, op, a, size, v as u64)?,
                }
            }
            M::Movss | M::Movsd => {
                let (size, low) = if op.mn == M::Movss { (4, 0xffff_ffff) } else { (8, LOW) };
                let v = self.vector(env, op, b, size, false)?[0];
                match (a, b) {
                    (Opd::Mem, _) => self.put_opd(env, op, a, size, v as u64)?,
                    (_, Opd::Mem) => self.set_vector(op, a, [v, 0]),
                    _ => self.set_vector(op, a, [self.halves(op.s1)[0] & !low | v & low, 0]),
                }
            }
            M::Movlps | M::Movlpd | M::Movhps | M::Movhpd => {
                let shift = if matches!(op.mn, M::Movhps | M::Movhpd) { 64 } else { 0 };
                if a == Opd::Mem {
                    self.put_opd(env, op, a, 8, (self.halves(b)[0] >> shift) as u64)?;
                } else {
                    let v = self.vector(env, op, b, 8, false)?[0];
                    self.set_vector(op, a, [self.halves(op.s1)[0] & !(LOW << shift) | v << shift, 0]);
                }
            }
            M::Movhlps => {
                self.set_vector(op, a, [self.halves(op.s1)[0] & !LOW | self.halves(b)[0] >> 64, 0]);
            }
            M::Movlhps => {
                self.set_vector(op, a, [self.halves(op.s1)[0] & LOW | self.halves(b)[0] << 64, 0]);
            }
            M::Movmskps | M::Movmskpd | M::Pmovmskb => {
                let bits = match op.mn {
                    M::Movmskps => 32,
                    M::Movmskpd => 64,
                    _ => 8,
                };
                let v = self.halves(b);
                let signs = |v: u128| {
                    (0..128 / bits).fold(0, |out, i| out | ((v >> (i * bits + bits - 1)) as u64 & 1) << i)
                };
                let high = if op.vl == 32 { signs(v[1]) << (128 / bits) } else { 0 };
                self.put_opd(env, op, a, 8, signs(v[0]) | high)?;
            }
            M::Pinsrw | M::Pinsrb | M::Pinsrd | M::Pinsrq => {
                let bits = element_bits(op.mn);
                let v = u128::from(self.get(env, op, b, (bits / 8) as u8)?);
                let at = (op.imm as u32 & (128 / bits - 1)) * bits;
                let all = u128::MAX >> (128 - bits);
                self.set_vector(op, a, [self.halves(op.s1)[0] & !(all << at) | v << at, 0]);
            }
            M::Pextrw | M::Pextrb | M::Pextrd | M::Pextrq | M::Extractps => {
                let bits = element_bits(op.mn);
                let at = (op.imm as u32 & (128 / bits - 1)) * bits;
                let v = (self.halves(b)[0] >> at) as u64 & (u64::MAX >> (64 - bits));
                let size = if a == Opd::Mem { (bits / 8) as u8 } else { 8 };
                self.put_opd(env, op, a, size, v)?;
            }
            M::Insertps => {
                let v = self.vector(env, op, b, 4, false)?[0];
                let from = if b == Opd::Mem { 0 } else { op.imm as u32 >> 6 & 3 };
                let at = 32 * (op.imm as u32 >> 4 & 3);
                let mut r =
                    self.halves(op.s1)[0] & !(0xffff_ffff << at) | (v >> (32 * from) & 0xffff_ffff) << at;
                for i in 0..4 {
                    if op.imm >> i & 1 != 0 {
                        r &= !(0xffff_ffff << (32 * i));
                    }
                }
                self.set_vector(op, a, [r, 0]);
            }
            M::Ptest | M::Vtestps | M::Vtestpd => {
                let (x, y) = (self.halves(a), self.vector(env, op, b, size, true)?);
                let signs = match op.mn {
                    M::Ptest => u128::MAX,
                    M::Vtestps => 0x8000_0000_8000_0000_8000_0000_8000_0000,
                    _ => 0x8000_0000_0000_0000_8000_0000_0000_0000,
                };
                let n = usize::from(size / 16);
                alu::logic(&mut self.flags, 1, 64);
                self.flags.z = u64::from((0..n).any(|i| x[i] & y[i] & signs != 0));
                self.flags.cf = (0..n).all(|i| !x[i] & y[i] & signs == 0);
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
                    if b == Opd::Imm { op.imm & 0xff } else { self.vector(env, op, b, 16, true)?[0] as u64 };
                let x = self.halves(op.s1);
                let v = self.both(op, false, x, [0; 2], |_, x, _| shift_lanes(op.mn, x, count).unwrap_or(0));
                self.set_vector(op, a, v);
            }
            M::Pblendvb | M::Blendvps | M::Blendvpd => {
                let bits = match op.mn {
                    M::Pblendvb => 8,
                    M::Blendvps => 32,
                    _ => 64,
                };
                let mask = self.halves(if op.vl == 0 { Opd::Xmm(0) } else { op.d });
                let y = self.vector(env, op, b, size, true)?;
                let v = self.both(op, false, self.halves(op.s1), y, |half, x, y| {
                    let all = u128::MAX >> (128 - bits);
                    (0..128 / bits).fold(0, |out, i| {
                        let take = mask[half] >> (i * bits + bits - 1) & 1 != 0;
                        out | (if take { y } else { x }) & all << (i * bits)
                    })
                });
                self.set_vector(op, a, v);
            }
            M::Pmovsxbw
            | M::Pmovsxbd
            | M::Pmovsxbq
            | M::Pmovsxwd
            | M::Pmovsxwq
            | M::Pmovsxdq
            | M::Pmovzxbw
            | M::Pmovzxbd
            | M::Pmovzxbq
            | M::Pmovzxwd
            | M::Pmovzxwq
            | M::Pmovzxdq => {
                let (from, to) = match op.mn {
                    M::Pmovsxbw | M::Pmovzxbw => (8, 16),
                    M::Pmovsxbd | M::Pmovzxbd => (8, 32),
                    M::Pmovsxbq | M::Pmovzxbq => (8, 64),
                    M::Pmovsxwd | M::Pmovzxwd => (16, 32),
                    M::Pmovsxwq | M::Pmovzxwq => (16, 64),
                    _ => (32, 64),
                };
                let signed = matches!(
                    op.mn,
                    M::Pmovsxbw | M::Pmovsxbd | M::Pmovsxbq | M::Pmovsxwd | M::Pmovsxwq | M::Pmovsxdq
                );
                let bytes = (u32::from(size) * from / to) as u8;
                let v = self.vector(env, op, b, bytes, false)?[0];
                let n = 128 / to;
                let half = |start: u32| {
                    (0..n).fold(0, |out, i| {
                        let x = (v >> ((start + i) * from)) as u64 & (u64::MAX >> (64 - from));
                        let x = if signed { super::packed::sx(x, from) as u64 } else { x };
                        out | u128::from(x & (u64::MAX >> (64 - to))) << (i * to)
                    })
                };
                self.set_vector(op, a, [half(0), if op.vl == 32 { half(n) } else { 0 }]);
            }
            M::Pcmpestri | M::Pcmpestri64 | M::Pcmpestrm | M::Pcmpestrm64 | M::Pcmpistri | M::Pcmpistrm => {
                self.string_compare(env, op)?;
            }
            M::Maskmovdqu => {
                // The first operand is the memory at rdi.
                let (v, mask) = if op.vl == 0 { (b, op.c) } else { (op.s1, b) };
                let v = self.halves(v)[0].to_le_bytes();
                let mask = self.halves(mask)[0].to_le_bytes();
                let at = self.offset_rdi(op);
                for i in 0..16u64 {
                    if mask[i as usize] & 0x80 != 0 {
                        self.probe_write(env, at.wrapping_add(i), 1)?;
                    }
                }
                for i in 0..16u64 {
                    if mask[i as usize] & 0x80 != 0 {
                        self.store(env, at.wrapping_add(i), [v[i as usize]])?;
                    }
                }
            }
            M::Ldmxcsr | M::Stmxcsr => return self.system(env, op),
            m if op.vl != 0 && self.avx_only(env, op, m)? => {}
            m => {
                let imm = if op.has_imm { op.imm & 0xff } else { 0x100 };
                if packed(m, 0, 0, imm).is_none() {
                    return self.sse_float(env, op);
                }
                let bytes = if m == M::Movddup && op.vl != 32 { 8 } else { size };
                let y = self.vector(env, op, b, bytes, bytes >= 16)?;
                let v = self.both(op, false, self.halves(op.s1), y, |half, x, y| {
                    // Where the halves have bits of their own in the immediate.
                    let imm = match (m, half) {
                        (M::Blendps | M::Vpblendd, 1) => imm >> 4,
                        (M::Blendpd | M::Shufpd, 1) => imm >> 2,
                        (M::Vpermilpd, 1) if op.has_imm => imm >> 2,
                        (M::Mpsadbw, 1) => imm >> 3,
                        _ => imm,
                    };
                    packed(m, x, y, imm).unwrap_or(0)
                });
                self.set_vector(op, a, v);
            }
        }
        Ok(())
    }

    fn offset_rdi(&self, op: &Op) -> u64 {
        let rdi = self.regs.gpr[7];
        (if op.addr32 { rdi & 0xffff_ffff } else { rdi }).wrapping_add(self.segment(op.seg))
    }

    fn string_compare(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        let explicit = !matches!(op.mn, M::Pcmpistri | M::Pcmpistrm);
        let index = matches!(op.mn, M::Pcmpestri | M::Pcmpestri64 | M::Pcmpistri);
        // These take misaligned memory even in their SSE form.
        let y = self.vector(env, op, op.b, 16, false)?[0];
        let x = self.halves(op.a)[0];
        let length = |v: u64| {
            explicit.then_some(if matches!(op.mn, M::Pcmpestri64 | M::Pcmpestrm64) {
                v as i64
            } else {
                i64::from(v as i32)
            })
        };
        let found = super::pcmpstr::compare(x, length(self.regs.gpr[0]), y, length(self.regs.gpr[2]), op.imm);
        if index {
            let v = match (found.mask, op.imm & 0x40 != 0) {
                (0, _) => found.lanes,
                (m, true) => 15 - m.leading_zeros(),
                (m, false) => m.trailing_zeros(),
            };
            self.regs.gpr[1] = u64::from(v);
        } else {
            let all = u128::MAX >> (128 - found.bits);
            let v = if op.imm & 0x40 == 0 {
                u128::from(found.mask)
            } else {
                (0..found.lanes).fold(0, |out, i| {
                    if found.mask >> i & 1 != 0 { out | all << (i * found.bits) } else { out }
                })
            };
            self.set_vector(op, Opd::Xmm(0), [v, 0]);
        }
        let [cf, zf, sf, of] = found.flags.map(u64::from);
        self.flags = crate::flags::Flags::from_rflags(cf | zf << 6 | sf << 7 | of << 11);
        Ok(())
    }

    /// Instructions without an SSE form. False for all others.
    fn avx_only(&mut self, env: &mut Env<'_>, op: &Op, m: M) -> R<bool> {
        let (a, b) = (op.a, op.b);
        let size = op.vec_bytes();
        match m {
            M::Vzeroupper => self.regs.ymm_high = [0; 16],
            M::Vzeroall => {
                self.regs.xmm = [0; 16];
                self.regs.ymm_high = [0; 16];
            }
            M::Vbroadcastss
            | M::Vbroadcastsd
            | M::Vpbroadcastb
            | M::Vpbroadcastw
            | M::Vpbroadcastd
            | M::Vpbroadcastq => {
                let bits: u32 = match m {
                    M::Vpbroadcastb => 8,
                    M::Vpbroadcastw => 16,
                    M::Vpbroadcastd | M::Vbroadcastss => 32,
                    _ => 64,
                };
                let v = self.vector(env, op, b, (bits / 8) as u8, false)?[0] & (u128::MAX >> (128 - bits));
                let v = (0..128 / bits).fold(0, |out, i| out | v << (i * bits));
                self.set_vector(op, a, [v, v]);
            }
            M::Vbroadcastf128 | M::Vbroadcasti128 => {
                let v = self.vector(env, op, b, 16, false)?[0];
                self.set_vector(op, a, [v, v]);
            }
            M::Vinsertf128 | M::Vinserti128 => {
                let y = self.vector(env, op, b, 16, false)?[0];
                let mut v = self.halves(op.s1);
                v[(op.imm & 1) as usize] = y;
                self.set_vector(op, a, v);
            }
            M::Vextractf128 | M::Vextracti128 => {
                let v = self.halves(b)[(op.imm & 1) as usize];
                if a == Opd::Mem {
                    let at = self.ea(op);
                    self.store(env, at, v.to_le_bytes())?;
                } else if let Opd::Xmm(n) = a {
                    self.regs.xmm[usize::from(n & 15)] = v;
                    self.regs.ymm_high[usize::from(n & 15)] = 0;
                }
            }
            M::Vperm2f128 | M::Vperm2i128 => {
                let y = self.vector(env, op, b, 32, false)?;
                let x = self.halves(op.s1);
                let from = [x[0], x[1], y[0], y[1]];
                let pick = |imm: u64| if imm & 8 != 0 { 0 } else { from[(imm & 3) as usize] };
                self.set_vector(op, a, [pick(op.imm), pick(op.imm >> 4)]);
            }
            M::Vpermq | M::Vpermpd => {
                let y = self.vector(env, op, b, 32, false)?;
                let q = [y[0] as u64, (y[0] >> 64) as u64, y[1] as u64, (y[1] >> 64) as u64];
                let at = |i: u64| u128::from(q[(op.imm >> (2 * i) & 3) as usize]);
                self.set_vector(op, a, [at(0) | at(1) << 64, at(2) | at(3) << 64]);
            }
            M::Vpermd | M::Vpermps => {
                let y = self.vector(env, op, b, 32, false)?;
                let x = self.halves(op.s1);
                let v = x.map(|order| {
                    (0..4).fold(0, |out, i| {
                        let k = (order >> (32 * i)) as u32 & 7;
                        out | (y[(k / 4) as usize] >> (32 * (k % 4)) & 0xffff_ffff) << (32 * i)
                    })
                });
                self.set_vector(op, a, v);
            }
            M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq => {
                let bytes: u64 = if matches!(m, M::Vmaskmovps | M::Vpmaskmovd) { 4 } else { 8 };
                let mask = self.halves(op.s1);
                let at = self.ea(op);
                let n = u64::from(size) / bytes;
                let lane =
                    |v: [u128; 2], i: u64| (v[(i * bytes / 16) as usize] >> (i * bytes % 16 * 8)) as u64;
                let on = |i: u64| lane(mask, i) >> (bytes * 8 - 1) & 1 != 0;
                if a == Opd::Mem {
                    let v = self.halves(b);
                    for i in (0..n).filter(|&i| on(i)) {
                        self.probe_write(env, at.wrapping_add(i * bytes), bytes as usize)?;
                    }
                    for i in (0..n).filter(|&i| on(i)) {
                        self.store_n(env, at.wrapping_add(i * bytes), bytes as u8, lane(v, i))?;
                    }
                } else {
                    let mut v = [0u128; 2];
                    for i in (0..n).filter(|&i| on(i)) {
                        let x = self.load_n(env, at.wrapping_add(i * bytes), bytes as u8)?;
                        v[(i * bytes / 16) as usize] |= u128::from(x) << (i * bytes % 16 * 8);
                    }
                    self.set_vector(op, a, v);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn element_bits(m: M) -> u32 {
    match m {
        M::Pinsrb | M::Pextrb => 8,
        M::Pinsrw | M::Pextrw => 16,
        M::Pinsrd | M::Pextrd | M::Extractps => 32,
        _ => 64,
    }
}
