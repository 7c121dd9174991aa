//! System instructions, hints and the state of control registers.

use super::{Env, R, Stop, after};
use crate::cpuid::cpuid;
use crate::exception::Exception;
use crate::op::{Op, Opd};
use crate::regs::Cpu;
use crate::rflags;
use iced_x86::Mnemonic as M;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;

/// The selectors of 64-bit Windows in kernel mode.
const CODE_SELECTOR: u64 = 0x10;
const STACK_SELECTOR: u64 = 0x18;
const TASK_SELECTOR: u64 = 0x40;
/// ES, CS, SS, DS, FS, GS.
const SELECTORS: [u64; 6] = [0x2b, CODE_SELECTOR, STACK_SELECTOR, 0x2b, 0x53, 0x2b];

const MSR_FS_BASE: u32 = 0xC000_0100;
const MSR_GS_BASE: u32 = 0xC000_0101;
const MSR_KERNEL_GS_BASE: u32 = 0xC000_0102;

/// Marks in `Op::aux` of what kind a named register is; see `decode`.
const DEBUG: u8 = 0x40;
const SEGMENT: u8 = 0x80;

impl Cpu {
    pub(crate) fn edx_eax(&self) -> u64 {
        self.regs.gpr[RDX] << 32 | self.regs.gpr[RAX] & 0xffff_ffff
    }

    pub(crate) fn set_edx_eax(&mut self, v: u64) {
        self.regs.gpr[RAX] = v & 0xffff_ffff;
        self.regs.gpr[RDX] = v >> 32;
    }

    #[inline(never)]
    pub(crate) fn system(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        match op.mn {
            M::Nop | M::Reservednop | M::Endbr64 | M::Endbr32 | M::Mfence | M::Lfence | M::Sfence => {}
            // Hints and cache maintenance touch nothing: the model has no caches.
            M::Prefetch | M::Prefetchw | M::Prefetchnta | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 => {}
            M::Wbinvd | M::Invd | M::Invlpg | M::Wait | M::Fnclex => {}
            M::Clflush | M::Clflushopt => {
                self.load::<1>(env, self.ea(op))?;
            }
            M::Pause => self.after |= after::PAUSE,
            M::Hlt => self.after |= after::HALT,
            M::Cli => self.regs.rflags &= !rflags::IF,
            M::Sti => {
                if self.regs.rflags & rflags::IF == 0 {
                    self.after |= after::IF;
                }
                self.regs.rflags |= rflags::IF;
            }
            M::Cpuid => {
                let mut out = cpuid(self.regs.gpr[RAX] as u32, self.regs.gpr[RCX] as u32, self.id());
                if self.regs.gpr[RAX] as u32 == 1 && self.osxsave() {
                    out[2] |= 1 << 27;
                }
                for (reg, v) in [RAX, RBX, RCX, RDX].into_iter().zip(out) {
                    self.regs.gpr[reg] = u64::from(v);
                }
            }
            M::Rdtsc | M::Rdtscp => {
                let v = env.bus.rdtsc(self.done);
                self.set_edx_eax(v);
                if op.mn == M::Rdtscp {
                    self.regs.gpr[RCX] = u64::from(self.id());
                }
            }
            M::Rdmsr => {
                let v = match self.regs.gpr[RCX] as u32 {
                    MSR_FS_BASE => Some(self.fs_base),
                    MSR_GS_BASE => Some(self.gs_base),
                    MSR_KERNEL_GS_BASE => Some(self.kernel_gs_base),
                    msr => env.bus.rdmsr(msr),
                };
                match v {
                    Some(v) => self.set_edx_eax(v),
                    None => return self.raise(Exception::GeneralProtection(0)),
                }
            }
            M::Wrmsr => {
                let v = self.edx_eax();
                let msr = self.regs.gpr[RCX] as u32;
                let ok = match msr {
                    MSR_FS_BASE | MSR_GS_BASE | MSR_KERNEL_GS_BASE if !dirql_mem::Va(v).is_canonical() => {
                        false
                    }
                    MSR_FS_BASE => {
                        self.fs_base = v;
                        true
                    }
                    MSR_GS_BASE => {
                        self.gs_base = v;
                        true
                    }
                    MSR_KERNEL_GS_BASE => {
                        self.kernel_gs_base = v;
                        true
                    }
                    _ => env.bus.wrmsr(msr, v),
                };
                if !ok {
                    return self.raise(Exception::GeneralProtection(0));
                }
            }
            M::Rdfsbase => self.put_opd(env, op, op.a, op.size, self.fs_base)?,
            M::Rdgsbase => self.put_opd(env, op, op.a, op.size, self.gs_base)?,
            M::Wrfsbase | M::Wrgsbase => {
                let v = self.get(env, op, op.a, op.size)?;
                if !dirql_mem::Va(v).is_canonical() {
                    return self.raise(Exception::GeneralProtection(0));
                }
                if op.mn == M::Wrfsbase {
                    self.fs_base = v;
                } else {
                    self.gs_base = v;
                }
            }
            M::Xgetbv
            | M::Xsetbv
            | M::Xsave
            | M::Xsave64
            | M::Xsaveopt
            | M::Xsaveopt64
            | M::Xsavec
            | M::Xsavec64
            | M::Xrstor
            | M::Xrstor64 => self.xsave_family(env, op)?,
            // Windows has no local descriptors, and its task register names its one task segment.
            M::Sldt => self.put_opd(env, op, op.a, op.size, 0)?,
            M::Str => self.put_opd(env, op, op.a, op.size, TASK_SELECTOR)?,
            M::Iretq => self.iretq(env)?,
            M::Swapgs => std::mem::swap(&mut self.gs_base, &mut self.kernel_gs_base),
            M::Mov => return self.mov_special(env, op),
            M::Clts => self.cr0 &= !8,
            M::Smsw => self.put_opd(env, op, op.a, op.size, self.cr0)?,
            M::In => {
                let (port, size) = (self.port(op, op.b), op.size);
                let v = env.bus.port_in(port, size);
                self.after |= after::DEVICE;
                self.put_opd(env, op, Opd::Reg(0), size, u64::from(v))?;
            }
            M::Out => {
                let (port, size) = (self.port(op, op.a), op.bsize);
                let v = self.regs.gpr[RAX] & super::mask(size);
                env.bus.port_out(port, size, v as u32);
                self.after |= after::DEVICE;
            }
            M::Int1 => return self.raise(Exception::Debug),
            M::Int3 => return self.raise(Exception::Breakpoint),
            M::Int => {
                let exception = match op.imm as u8 {
                    3 => Exception::Breakpoint,
                    4 => Exception::Overflow,
                    0x29 => Exception::FastFail(self.regs.gpr[RCX] as u32),
                    n => Exception::Software(n),
                };
                return self.raise(exception);
            }
            M::Ud0 | M::Ud1 | M::Ud2 => return self.raise(Exception::InvalidOpcode),
            M::Stmxcsr => {
                let at = self.ea(op);
                self.store(env, at, self.regs.mxcsr.to_le_bytes())?;
            }
            M::Ldmxcsr => {
                let v = u32::from_le_bytes(self.load(env, self.ea(op))?);
                self.set_mxcsr(v)?;
            }
            M::Fnstcw => {
                let at = self.ea(op);
                self.store(env, at, self.regs.fcw.to_le_bytes())?;
            }
            M::Fldcw => self.regs.fcw = u16::from_le_bytes(self.load(env, self.ea(op))?),
            M::Fninit => self.regs.fcw = 0x37f,
            M::Fxsave | M::Fxsave64 => self.fxsave(env, op)?,
            M::Fxrstor | M::Fxrstor64 => self.fxrstor(env, op)?,
            _ => return Err(Stop::Unsupported),
        }
        Ok(())
    }

    fn port(&self, op: &Op, opd: Opd) -> u16 {
        if opd == Opd::Imm { op.imm as u16 & 0xff } else { self.regs.gpr[RDX] as u16 }
    }

    /// A return to the same ring (SDM volume 2, IRET). To another ring, or with the trap flag, is lacking.
    fn iretq(&mut self, env: &mut Env<'_>) -> R<()> {
        let rsp = self.regs.gpr[4];
        let mut frame = [0; 5];
        for (n, word) in frame.iter_mut().enumerate() {
            *word = self.peek(env, rsp.wrapping_add(8 * n as u64), 8)?;
        }
        let [rip, cs, flags, rsp, ss] = frame;
        let (cs, ss) = (cs & 0xffff, ss & 0xffff);
        if cs & 3 != 0 || flags & rflags::TF != 0 {
            return Err(Stop::Unsupported);
        }
        for (selector, good) in [(cs, CODE_SELECTOR), (ss, STACK_SELECTOR)] {
            // In 64-bit mode SS may be null.
            if selector != good && (selector != 0 || good == CODE_SELECTOR) {
                return self.raise(Exception::GeneralProtection(selector as u32 & 0xfffc));
            }
        }
        self.jump(rip)?;
        self.set_rflags(flags, false);
        self.regs.gpr[4] = rsp;
        Ok(())
    }

    /// Moves from and to control and debug registers, and from segment registers; a segment register takes no other
    /// value than Windows gives it.
    fn mov_special(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        let n = op.aux & 0x3f;
        if op.aux & SEGMENT != 0 {
            let Some(&selector) = SELECTORS.get(usize::from(n)) else { return Err(Stop::Unsupported) };
            // To memory it is a word, whatever the operand size.
            if op.b == Opd::None {
                let size = if op.a == Opd::Mem { 2 } else { op.size };
                return self.put_opd(env, op, op.a, size, selector);
            }
            let v = self.get(env, op, op.b, 2)?;
            // FS and GS would get the base of their descriptor as well.
            return if v == selector && n < 4 && n != 1 { Ok(()) } else { Err(Stop::Unsupported) };
        }
        // The general register is the operand that lowering kept.
        let general = if op.a == Opd::None { op.b } else { op.a };
        if op.a != Opd::None {
            let v = match (op.aux & DEBUG != 0, n) {
                (true, n) => self.dr[usize::from(n & 7)],
                (_, 0) => self.cr0,
                (_, 2) => self.cr2,
                (_, 3) => self.cr3,
                (_, 4) => self.cr4,
                (_, 8) => u64::from(self.cr8),
                _ => return self.raise(Exception::InvalidOpcode),
            };
            return self.put_opd(env, op, general, 8, v);
        }
        let v = self.get(env, op, general, 8)?;
        match (op.aux & DEBUG != 0, n) {
            (true, n) => self.dr[usize::from(n & 7)] = v,
            (_, 0) => self.cr0 = v,
            (_, 2) => self.cr2 = v,
            (_, 3) => self.cr3 = v,
            (_, 4) => self.cr4 = v,
            (_, 8) => {
                // Bits 63 to 4 are reserved (SDM volume 3, 10.8.6).
                if v > 15 {
                    return self.raise(Exception::GeneralProtection(0));
                }
                self.cr8 = v as u8;
                self.after |= after::CR8;
            }
            _ => return self.raise(Exception::InvalidOpcode),
        }
        Ok(())
    }

    /// Sets MXCSR. Reserved bits raise #GP.
    fn set_mxcsr(&mut self, v: u32) -> R<()> {
        if v & !0xffff != 0 {
            return self.raise(Exception::GeneralProtection(0));
        }
        self.regs.mxcsr = v;
        Ok(())
    }

    fn fx_area(&mut self, op: &Op) -> R<u64> {
        let at = self.ea(op);
        if !at.is_multiple_of(16) { self.raise(Exception::GeneralProtection(0)) } else { Ok(at) }
    }

    /// The 512-byte area: x87 part as after `fninit`, MXCSR and its mask, xmm0 to xmm15 (SDM volume 1, 10.5).
    fn fxsave(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        let at = self.fx_area(op)?;
        self.probe_write(env, at, 512)?;
        let mut head = [0u8; 32];
        head[0..2].copy_from_slice(&self.regs.fcw.to_le_bytes());
        head[24..28].copy_from_slice(&self.regs.mxcsr.to_le_bytes());
        head[28..32].copy_from_slice(&0xffff_u32.to_le_bytes());
        self.store(env, at, head)?;
        self.store(env, at.wrapping_add(32), [0u8; 128])?;
        for n in 0..16 {
            let v = self.regs.xmm[n].to_le_bytes();
            self.store(env, at.wrapping_add(160 + 16 * n as u64), v)?;
        }
        Ok(())
    }

    fn fxrstor(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        let at = self.fx_area(op)?;
        let head: [u8; 32] = self.load(env, at)?;
        let mut xmm = [0u128; 16];
        for (n, v) in xmm.iter_mut().enumerate() {
            *v = u128::from_le_bytes(self.load(env, at.wrapping_add(160 + 16 * n as u64))?);
        }
        self.set_mxcsr(u32::from_le_bytes([head[24], head[25], head[26], head[27]]))?;
        self.regs.fcw = u16::from_le_bytes([head[0], head[1]]);
        self.regs.xmm = xmm;
        Ok(())
    }
}
