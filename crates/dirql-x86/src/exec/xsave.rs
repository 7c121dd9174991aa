//! XSAVE and its relatives (SDM volume 1, chapter 13): state components 0 (x87, of which only the control word
//! exists), 1 (SSE) and 2 (AVX). XSAVES and XRSTORS are left out, and CPUID doesn't tell of them.

use super::{Env, R};
use crate::exception::Exception;
use crate::op::Op;
use crate::regs::Cpu;
use iced_x86::Mnemonic as M;

const X87: u64 = 1;
const SSE: u64 = 2;
const AVX: u64 = 4;
/// All components there are.
pub(crate) const ALL: u64 = X87 | SSE | AVX;
/// Where the upper halves of ymm are in both formats, the first extended component.
const AVX_AT: u64 = 576;
const OSXSAVE: u64 = 1 << 18;
const INIT_MXCSR: u32 = 0x1f80;
const INIT_FCW: u16 = 0x37f;
const COMPACT: u64 = 1 << 63;

impl Cpu {
    /// The operating system has turned the extended state on.
    pub(crate) fn osxsave(&self) -> bool {
        self.cr4 & OSXSAVE != 0
    }

    /// AVX instructions may be run (SDM volume 1, 14.3).
    #[inline]
    pub(crate) fn avx_enabled(&self) -> bool {
        self.osxsave() && self.xcr0 & (SSE | AVX) == SSE | AVX
    }

    fn requested(&self) -> u64 {
        self.xcr0 & (self.regs.gpr[2] << 32 | self.regs.gpr[0] & 0xffff_ffff)
    }

    /// The components that aren't as after a reset.
    fn in_use(&self) -> u64 {
        (u64::from(self.regs.fcw != INIT_FCW) * X87)
            | (u64::from(self.regs.xmm.iter().any(|&v| v != 0)) * SSE)
            | (u64::from(self.regs.ymm_high.iter().any(|&v| v != 0)) * AVX)
    }

    pub(crate) fn xsave_family(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        if !self.osxsave() {
            return self.raise(Exception::InvalidOpcode);
        }
        match op.mn {
            M::Xgetbv => {
                let v = match self.regs.gpr[1] as u32 {
                    0 => self.xcr0,
                    1 => self.xcr0 & self.in_use(),
                    _ => return self.raise(Exception::GeneralProtection(0)),
                };
                self.set_edx_eax(v);
            }
            M::Xsetbv => {
                let v = self.edx_eax();
                if self.regs.gpr[1] as u32 != 0 || v & !ALL != 0 || v & X87 == 0 || v & (SSE | AVX) == AVX {
                    return self.raise(Exception::GeneralProtection(0));
                }
                self.xcr0 = v;
            }
            _ => {
                let at = self.ea(op);
                if !at.is_multiple_of(64) {
                    return self.raise(Exception::GeneralProtection(0));
                }
                if matches!(op.mn, M::Xrstor | M::Xrstor64) {
                    return self.xrstor(env, at);
                }
                self.xsave(env, at, matches!(op.mn, M::Xsavec | M::Xsavec64))?;
            }
        }
        Ok(())
    }

    fn xsave(&mut self, env: &mut Env<'_>, at: u64, compact: bool) -> R<()> {
        let wanted = self.requested();
        let used = self.in_use();
        let end = if wanted & AVX != 0 { AVX_AT + 256 } else { AVX_AT };
        self.probe_write(env, at, end as usize)?;
        let old = u64::from_le_bytes(self.load(env, at.wrapping_add(512))?);
        // The compacted form leaves out what is as after a reset.
        let written =
            if compact { wanted & (used | (u64::from(self.regs.mxcsr != INIT_MXCSR) * SSE)) } else { wanted };
        if written & X87 != 0 {
            let mut head = [0u8; 24];
            head[0..2].copy_from_slice(&self.regs.fcw.to_le_bytes());
            self.store(env, at, head)?;
            self.store(env, at.wrapping_add(32), [0u8; 128])?;
        }
        if if compact { written & SSE } else { wanted & (SSE | AVX) } != 0 {
            self.store(
                env,
                at.wrapping_add(24),
                (0xffff_u64 << 32 | u64::from(self.regs.mxcsr)).to_le_bytes(),
            )?;
        }
        for n in 0..16u64 {
            if written & SSE != 0 {
                let v = self.regs.xmm[n as usize].to_le_bytes();
                self.store(env, at.wrapping_add(160 + 16 * n), v)?;
            }
            if written & AVX != 0 {
                let v = self.regs.ymm_high[n as usize].to_le_bytes();
                self.store(env, at.wrapping_add(AVX_AT + 16 * n), v)?;
            }
        }
        if compact {
            self.store(env, at.wrapping_add(512), written.to_le_bytes())?;
            self.store(env, at.wrapping_add(520), (wanted | COMPACT).to_le_bytes())
        } else {
            self.store(env, at.wrapping_add(512), (old & !wanted | used & wanted).to_le_bytes())
        }
    }

    fn xrstor(&mut self, env: &mut Env<'_>, at: u64) -> R<()> {
        let header: [u8; 64] = self.load(env, at.wrapping_add(512))?;
        let word = |n: usize| u64::from_le_bytes(std::array::from_fn(|i| header[n * 8 + i]));
        let (there, form) = (word(0), word(1));
        let compact = form & COMPACT != 0;
        let known = if compact { form & !COMPACT } else { self.xcr0 };
        let reserved = (2..8).any(|n| word(n) != 0);
        if there & !known != 0 || known & !self.xcr0 != 0 || reserved || !compact && form != 0 {
            return self.raise(Exception::GeneralProtection(0));
        }
        let wanted = self.requested();
        // All is read before anything changes.
        let mut regs = self.regs.clone();
        let head: [u8; 32] = self.load(env, at)?;
        if wanted & X87 != 0 {
            regs.fcw = if there & X87 != 0 { u16::from_le_bytes([head[0], head[1]]) } else { INIT_FCW };
        }
        let mxcsr = u32::from_le_bytes([head[24], head[25], head[26], head[27]]);
        if compact && wanted & SSE != 0 && there & SSE == 0 {
            regs.mxcsr = INIT_MXCSR;
        } else if if compact { wanted & SSE } else { wanted & (SSE | AVX) } != 0 {
            if mxcsr & !0xffff != 0 {
                return self.raise(Exception::GeneralProtection(0));
            }
            regs.mxcsr = mxcsr;
        }
        for (component, from) in [(SSE, 160), (AVX, AVX_AT)] {
            for n in 0..16u64 {
                if wanted & component == 0 {
                    continue;
                }
                let v = if there & component == 0 {
                    0
                } else {
                    u128::from_le_bytes(self.load(env, at.wrapping_add(from + 16 * n))?)
                };
                let file = if component == SSE { &mut regs.xmm } else { &mut regs.ymm_high };
                file[n as usize] = v;
            }
        }
        self.regs = regs;
        Ok(())
    }
}
