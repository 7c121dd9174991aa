//! String instructions. A repeated one can be stopped between any two repetitions, with its registers showing
//! what is done and `rip` still at it; each repetition counts as an instruction of the budget.

use super::{Env, R, Stop, alu};
use crate::op::Op;
use crate::regs::Cpu;
use crate::rflags;
use iced_x86::Mnemonic as M;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RSI: usize = 6;
const RDI: usize = 7;

/// With an address-size prefix counts and addresses have 32 bits.
fn address_mask(op: &Op) -> u64 {
    if op.addr32 { 0xffff_ffff } else { u64::MAX }
}

impl Cpu {
    #[inline(never)]
    pub(crate) fn string(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        if op.aux == 0 {
            return self.string_once(env, op);
        }
        let wide = address_mask(op);
        if self.regs.gpr[RCX] & wide == 0 {
            // With a 32-bit count the upper half is cleared all the same.
            self.regs.gpr[RCX] &= wide;
            return Ok(());
        }
        let compares = matches!(
            op.mn,
            M::Scasb | M::Scasw | M::Scasd | M::Scasq | M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq
        );
        let flags = self.flags;
        loop {
            if let Err(stop) = self.string_once(env, op) {
                // A fault shows the flags from before the instruction (SDM, REP).
                self.flags = flags;
                return Err(stop);
            }
            self.regs.gpr[RCX] = self.regs.gpr[RCX].wrapping_sub(1) & wide;
            self.left = self.left.saturating_sub(1);
            if self.regs.gpr[RCX] == 0 || compares && self.flags.zf() != (op.aux == 1) {
                return Ok(());
            }
            if self.left == 0 || self.after != 0 {
                // Not finished: the same instruction goes on at the next run.
                self.next = self.next.wrapping_sub(u64::from(op.len));
                return Ok(());
            }
            self.done += 1;
        }
    }

    fn string_once(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        let size = op.size;
        let step =
            if self.regs.rflags & rflags::DF != 0 { u64::from(size).wrapping_neg() } else { u64::from(size) };
        let bits = u32::from(size) * 8;
        let wide = address_mask(op);
        let (rsi, rdi) = (self.regs.gpr[RSI] & wide, self.regs.gpr[RDI] & wide);
        let source = rsi.wrapping_add(self.segment(op.seg));
        let (mut si, mut di) = (false, false);
        match op.mn {
            M::Movsb | M::Movsw | M::Movsd | M::Movsq => {
                self.probe_write_after_read(env, source, rdi, size)?;
                let v = self.load_n(env, source, size)?;
                self.store_n(env, rdi, size, v)?;
                (si, di) = (true, true);
            }
            M::Stosb | M::Stosw | M::Stosd | M::Stosq => {
                self.store_n(env, rdi, size, self.regs.gpr[RAX])?;
                di = true;
            }
            M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => {
                let v = self.load_n(env, source, size)?;
                self.put_opd(env, op, crate::op::Opd::Reg(0), size, v)?;
                si = true;
            }
            M::Scasb | M::Scasw | M::Scasd | M::Scasq => {
                let v = self.load_n(env, rdi, size)?;
                alu::sub(&mut self.flags, self.regs.gpr[RAX], v, bits);
                di = true;
            }
            M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => {
                let a = self.load_n(env, source, size)?;
                let b = self.load_n(env, rdi, size)?;
                alu::sub(&mut self.flags, a, b, bits);
                (si, di) = (true, true);
            }
            M::Insb | M::Insw | M::Insd => {
                self.probe_write(env, rdi, usize::from(size))?;
                let v = env.bus.port_in(self.regs.gpr[RDX] as u16, size);
                self.after |= super::after::DEVICE;
                self.store_n(env, rdi, size, u64::from(v))?;
                di = true;
            }
            M::Outsb | M::Outsw | M::Outsd => {
                let v = self.load_n(env, source, size)?;
                env.bus.port_out(self.regs.gpr[RDX] as u16, size, v as u32);
                self.after |= super::after::DEVICE;
                si = true;
            }
            _ => return Err(Stop::Unsupported),
        }
        if si {
            self.regs.gpr[RSI] = rsi.wrapping_add(step) & wide;
        }
        if di {
            self.regs.gpr[RDI] = rdi.wrapping_add(step) & wide;
        }
        Ok(())
    }

    /// For a move whose source may be a device register: the destination must not fault after the read. A RAM
    /// source that faults comes first, as the processor reads first.
    fn probe_write_after_read(&mut self, env: &mut Env<'_>, source: u64, to: u64, size: u8) -> R<()> {
        if self.tlb.entry(source).read != source >> 12
            && env.mem.virt_to_phys(dirql_mem::Va(source)).is_some()
        {
            self.probe_write(env, to, usize::from(size))?;
        }
        Ok(())
    }
}
