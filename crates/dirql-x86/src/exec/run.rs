//! Running a whole block: what compilers emit most, without looking at anything between two operations. The budget
//! was checked before; a block at whose middle it ends is run by `run_ops` instead.

use super::{Env, R, alu};
use crate::block::Cache;
use crate::op::{Fast, K, Op};
use crate::regs::{Cpu, MemoryAccess};

impl Cpu {
    /// Runs all operations of a block, and of those it leads to while they are at hand and the budget covers them.
    /// With `LOG` each access to memory is recorded.
    pub(super) fn run_block<const LOG: bool>(
        &mut self,
        env: &mut Env<'_>,
        cache: &Cache,
        first: &[Op],
        budget: u64,
    ) -> R<()> {
        let mut ops = first;
        let mut base = self.regs.rip;
        let mut start = self.done;
        loop {
            let mut to = None;
            for (i, op) in ops.iter().enumerate() {
                macro_rules! g {
                    ($n:expr) => {
                        self.regs.gpr[usize::from($n & 15)]
                    };
                }
                /// What follows the operation.
                macro_rules! after {
                    () => {
                        base.wrapping_add(u64::from(op.off) + u64::from(op.len))
                    };
                }
                /// The exact way: it may fault, stop, or say that there is something to look at.
                macro_rules! slow {
                    () => {{
                        self.done = start + i as u64;
                        self.regs.rip = base.wrapping_add(u64::from(op.off));
                        self.run_one(env, op, budget)?;
                        if self.after != 0 || op.k == K::Str && op.aux != 0 {
                            return Ok(());
                        }
                    }};
                }
                macro_rules! alu {
                    ($f:ident, $bits:literal, $y:expr) => {
                        g!(op.ra) = alu::$f(&mut self.flags, g!(op.ra), $y, $bits)
                    };
                    (drop $f:ident, $bits:literal, $y:expr) => {{
                        alu::$f(&mut self.flags, g!(op.ra), $y, $bits);
                    }};
                }
                macro_rules! logic {
                    ($o:tt, $bits:literal, $y:expr) => {
                        g!(op.ra) = alu::logic(&mut self.flags, g!(op.ra) $o $y, $bits)
                    };
                }
                macro_rules! test {
                    ($bits:literal, $y:expr) => {{
                        alu::logic(&mut self.flags, g!(op.ra) & $y, $bits);
                    }};
                }
                macro_rules! low {
                    ($v:expr) => {
                        g!(op.ra) = $v & 0xffff_ffff
                    };
                }
                /// To another block, or round this one again: only the last operation does that.
                macro_rules! go {
                    ($to:expr) => {{
                        to = Some($to);
                        break;
                    }};
                }
                macro_rules! branch {
                    ($taken:expr) => {
                        go!(if $taken { op.imm } else { after!() })
                    };
                }
                macro_rules! load {
                    ($va:expr) => {
                        self.quick_load::<LOG, _>(env, $va, start + i as u64, base, op)
                    };
                }
                macro_rules! store {
                    ($va:expr, $data:expr) => {
                        self.quick_store::<LOG, _>(env, $va, $data, start + i as u64, base, op)
                    };
                }
                /// What is in memory, widened, or the exact way.
                macro_rules! with {
                    ($t:ty, |$v:ident| $do:expr) => {
                        match load!(self.ea(op)) {
                            Some(bytes) => {
                                let $v = u64::from(<$t>::from_le_bytes(bytes));
                                $do;
                            }
                            None => slow!(),
                        }
                    };
                }
                match op.fast {
                    Fast::Mov64 => g!(op.ra) = g!(op.rb),
                    Fast::Mov32 => g!(op.ra) = g!(op.rb) & 0xffff_ffff,
                    Fast::MovI => g!(op.ra) = op.imm,
                    Fast::Lea => g!(op.ra) = self.offset(op),
                    Fast::Lea32 => g!(op.ra) = self.offset(op) & 0xffff_ffff,
                    Fast::Zx8 => g!(op.ra) = g!(op.rb) & 0xff,
                    Fast::Zx16 => g!(op.ra) = g!(op.rb) & 0xffff,
                    Fast::Sxd => g!(op.ra) = g!(op.rb) as i32 as u64,
                    Fast::Set => g!(op.ra) = g!(op.ra) & !0xff | u64::from(self.flags.cond(op.aux)),
                    Fast::Cmov64 => {
                        if self.flags.cond(op.aux) {
                            g!(op.ra) = g!(op.rb);
                        }
                    }
                    Fast::Cmov32 => {
                        // The upper half is cleared either way.
                        let from = if self.flags.cond(op.aux) { op.rb } else { op.ra };
                        g!(op.ra) = g!(from) & 0xffff_ffff;
                    }
                    Fast::Load64 => with!(u64, |v| g!(op.ra) = v),
                    Fast::Load32 => with!(u32, |v| g!(op.ra) = v),
                    Fast::Load16Zx => with!(u16, |v| g!(op.ra) = v),
                    Fast::Load8Zx => with!(u8, |v| g!(op.ra) = v),
                    Fast::Load8 => with!(u8, |v| g!(op.ra) = g!(op.ra) & !0xff | v),
                    Fast::Load32Sx => with!(u32, |v| g!(op.ra) = v as i32 as u64),
                    Fast::Add64RM => with!(u64, |v| alu!(add, 64, v)),
                    Fast::Add32RM => with!(u32, |v| alu!(add, 32, v)),
                    Fast::Sub64RM => with!(u64, |v| alu!(sub, 64, v)),
                    Fast::Sub32RM => with!(u32, |v| alu!(sub, 32, v)),
                    Fast::Cmp64RM => with!(u64, |v| alu!(drop sub, 64, v)),
                    Fast::Cmp32RM => with!(u32, |v| alu!(drop sub, 32, v)),
                    Fast::Cmp64MR => with!(u64, |v| {
                        alu::sub(&mut self.flags, v, g!(op.rb), 64);
                    }),
                    Fast::Cmp32MR => with!(u32, |v| {
                        alu::sub(&mut self.flags, v, g!(op.rb), 32);
                    }),
                    Fast::Cmp64MI => with!(u64, |v| {
                        alu::sub(&mut self.flags, v, op.imm, 64);
                    }),
                    Fast::Cmp32MI => with!(u32, |v| {
                        alu::sub(&mut self.flags, v, op.imm, 32);
                    }),
                    Fast::Cmp8MI => with!(u8, |v| {
                        alu::sub(&mut self.flags, v, op.imm, 8);
                    }),
                    Fast::Store64 => {
                        if !store!(self.ea(op), g!(op.rb).to_le_bytes()) {
                            slow!();
                        }
                    }
                    Fast::Store32 => {
                        if !store!(self.ea(op), (g!(op.rb) as u32).to_le_bytes()) {
                            slow!();
                        }
                    }
                    Fast::Store16 => {
                        if !store!(self.ea(op), (g!(op.rb) as u16).to_le_bytes()) {
                            slow!();
                        }
                    }
                    Fast::Store8 => {
                        if !store!(self.ea(op), [g!(op.rb) as u8]) {
                            slow!();
                        }
                    }
                    Fast::Store64I => {
                        if !store!(self.ea(op), op.imm.to_le_bytes()) {
                            slow!();
                        }
                    }
                    Fast::Store32I => {
                        if !store!(self.ea(op), (op.imm as u32).to_le_bytes()) {
                            slow!();
                        }
                    }
                    Fast::Load128 => match load!(self.ea(op)) {
                        Some(v) => self.regs.xmm[usize::from(op.ra & 15)] = u128::from_le_bytes(v),
                        None => slow!(),
                    },
                    Fast::Store128 => {
                        if !store!(self.ea(op), self.regs.xmm[usize::from(op.rb & 15)].to_le_bytes()) {
                            slow!();
                        }
                    }
                    Fast::Add64RR => alu!(add, 64, g!(op.rb)),
                    Fast::Add64RRNf => g!(op.ra) = g!(op.ra).wrapping_add(g!(op.rb)),
                    Fast::Add64RI => alu!(add, 64, op.imm),
                    Fast::Add64RINf => g!(op.ra) = g!(op.ra).wrapping_add(op.imm),
                    Fast::Add32RR => alu!(add, 32, g!(op.rb)),
                    Fast::Add32RRNf => low!((g!(op.ra).wrapping_add(g!(op.rb)))),
                    Fast::Add32RI => alu!(add, 32, op.imm),
                    Fast::Add32RINf => low!((g!(op.ra).wrapping_add(op.imm))),
                    Fast::Sub64RR => alu!(sub, 64, g!(op.rb)),
                    Fast::Sub64RRNf => g!(op.ra) = g!(op.ra).wrapping_sub(g!(op.rb)),
                    Fast::Sub64RI => alu!(sub, 64, op.imm),
                    Fast::Sub64RINf => g!(op.ra) = g!(op.ra).wrapping_sub(op.imm),
                    Fast::Sub32RR => alu!(sub, 32, g!(op.rb)),
                    Fast::Sub32RRNf => low!((g!(op.ra).wrapping_sub(g!(op.rb)))),
                    Fast::Sub32RI => alu!(sub, 32, op.imm),
                    Fast::Sub32RINf => low!((g!(op.ra).wrapping_sub(op.imm))),
                    Fast::And64RR => logic!(&, 64, g!(op.rb)),
                    Fast::And64RRNf => g!(op.ra) = g!(op.ra) & g!(op.rb),
                    Fast::And64RI => logic!(&, 64, op.imm),
                    Fast::And64RINf => g!(op.ra) = g!(op.ra) & op.imm,
                    Fast::And32RR => logic!(&, 32, g!(op.rb)),
                    Fast::And32RRNf => low!((g!(op.ra) & g!(op.rb))),
                    Fast::And32RI => logic!(&, 32, op.imm),
                    Fast::And32RINf => low!((g!(op.ra) & op.imm)),
                    Fast::Or64RR => logic!(|, 64, g!(op.rb)),
                    Fast::Or64RRNf => g!(op.ra) = g!(op.ra) | g!(op.rb),
                    Fast::Or64RI => logic!(|, 64, op.imm),
                    Fast::Or64RINf => g!(op.ra) = g!(op.ra) | op.imm,
                    Fast::Or32RR => logic!(|, 32, g!(op.rb)),
                    Fast::Or32RRNf => low!((g!(op.ra) | g!(op.rb))),
                    Fast::Or32RI => logic!(|, 32, op.imm),
                    Fast::Or32RINf => low!((g!(op.ra) | op.imm)),
                    Fast::Xor64RR => logic!(^, 64, g!(op.rb)),
                    Fast::Xor64RRNf => g!(op.ra) = g!(op.ra) ^ g!(op.rb),
                    Fast::Xor64RI => logic!(^, 64, op.imm),
                    Fast::Xor64RINf => g!(op.ra) = g!(op.ra) ^ op.imm,
                    Fast::Xor32RR => logic!(^, 32, g!(op.rb)),
                    Fast::Xor32RRNf => low!((g!(op.ra) ^ g!(op.rb))),
                    Fast::Xor32RI => logic!(^, 32, op.imm),
                    Fast::Xor32RINf => low!((g!(op.ra) ^ op.imm)),
                    Fast::Cmp64RR => alu!(drop sub, 64, g!(op.rb)),
                    Fast::Cmp64RRNf => {}
                    Fast::Cmp64RI => alu!(drop sub, 64, op.imm),
                    Fast::Cmp64RINf => {}
                    Fast::Cmp32RR => alu!(drop sub, 32, g!(op.rb)),
                    Fast::Cmp32RRNf => {}
                    Fast::Cmp32RI => alu!(drop sub, 32, op.imm),
                    Fast::Cmp32RINf => {}
                    Fast::Test64RR => test!(64, g!(op.rb)),
                    Fast::Test64RRNf => {}
                    Fast::Test64RI => test!(64, op.imm),
                    Fast::Test64RINf => {}
                    Fast::Test32RR => test!(32, g!(op.rb)),
                    Fast::Test32RRNf => {}
                    Fast::Test32RI => test!(32, op.imm),
                    Fast::Test32RINf => {}
                    Fast::Inc64 => {
                        let carry = self.flags.cf;
                        alu!(add, 64, 1);
                        self.flags.cf = carry;
                    }
                    Fast::Inc32 => {
                        let carry = self.flags.cf;
                        alu!(add, 32, 1);
                        self.flags.cf = carry;
                    }
                    Fast::Dec64 => {
                        let carry = self.flags.cf;
                        alu!(sub, 64, 1);
                        self.flags.cf = carry;
                    }
                    Fast::Dec32 => {
                        let carry = self.flags.cf;
                        alu!(sub, 32, 1);
                        self.flags.cf = carry;
                    }
                    Fast::Push => {
                        let rsp = self.regs.gpr[4].wrapping_sub(8);
                        if store!(rsp, g!(op.ra).to_le_bytes()) {
                            self.regs.gpr[4] = rsp;
                        } else {
                            slow!();
                        }
                    }
                    Fast::Pop => {
                        let rsp = self.regs.gpr[4];
                        if let Some(v) = load!(rsp) {
                            self.regs.gpr[4] = rsp.wrapping_add(8);
                            g!(op.ra) = u64::from_le_bytes(v);
                        } else {
                            slow!();
                        }
                    }
                    Fast::Jz => branch!(self.flags.zf()),
                    Fast::Jnz => branch!(!self.flags.zf()),
                    Fast::Jb => branch!(self.flags.cf),
                    Fast::Jae => branch!(!self.flags.cf),
                    Fast::Jbe => branch!(self.flags.cond(6)),
                    Fast::Ja => branch!(self.flags.cond(7)),
                    Fast::Js => branch!(self.flags.sf()),
                    Fast::Jns => branch!(!self.flags.sf()),
                    Fast::Jl => branch!(self.flags.cond(12)),
                    Fast::Jge => branch!(self.flags.cond(13)),
                    Fast::Jle => branch!(self.flags.cond(14)),
                    Fast::Jg => branch!(self.flags.cond(15)),
                    Fast::Jcc => branch!(self.flags.cond(op.aux)),
                    Fast::Jmp => go!(op.imm),
                    Fast::Call => {
                        let rsp = self.regs.gpr[4].wrapping_sub(8);
                        if store!(rsp, after!().to_le_bytes()) {
                            self.regs.gpr[4] = rsp;
                            go!(op.imm);
                        }
                        slow!();
                        go!(self.regs.rip);
                    }
                    Fast::Ret => {
                        let rsp = self.regs.gpr[4];
                        if let Some(v) = load!(rsp)
                            && dirql_mem::Va(u64::from_le_bytes(v)).is_canonical()
                        {
                            self.regs.gpr[4] = rsp.wrapping_add(8).wrapping_add(op.imm & 0xffff);
                            go!(u64::from_le_bytes(v));
                        }
                        slow!();
                        go!(self.regs.rip);
                    }
                    Fast::Slow => slow!(),
                }
            }
            let to = to.unwrap_or_else(|| match ops.last() {
                // It may have jumped.
                None | Some(Op { fast: Fast::Slow, .. }) => self.regs.rip,
                Some(op) => base.wrapping_add(u64::from(op.off) + u64::from(op.len)),
            });
            start += ops.len() as u64;
            if to != base {
                let Some(there) = cache.at_hand(to) else {
                    self.done = start;
                    self.regs.rip = to;
                    return Ok(());
                };
                (base, ops) = (to, there);
            }
            if budget - start < ops.len() as u64 {
                self.done = start;
                self.regs.rip = to;
                return Ok(());
            }
        }
    }

    #[inline(never)]
    fn run_one(&mut self, env: &mut Env<'_>, op: &Op, budget: u64) -> R<()> {
        self.run_ops(env, std::slice::from_ref(op), budget)
    }

    /// The bytes, if they lie in one page that the TLB knows.
    #[inline(always)]
    fn quick_load<const LOG: bool, const N: usize>(
        &mut self,
        env: &Env<'_>,
        va: u64,
        retired: u64,
        base: u64,
        op: &Op,
    ) -> Option<[u8; N]> {
        let entry = self.tlb.entry(va);
        let off = va as usize % dirql_mem::PAGE_SIZE;
        if entry.read != va >> 12 {
            return None;
        }
        let bytes = *env.mem.frame(entry.frame?).get(off..)?.first_chunk::<N>()?;
        if LOG {
            let rip = base.wrapping_add(u64::from(op.off));
            self.log.push(MemoryAccess { retired, rip, va, len: N as u8, write: false });
        }
        Some(bytes)
    }

    /// Writes them, if they lie in one page that the TLB knows.
    #[inline(always)]
    fn quick_store<const LOG: bool, const N: usize>(
        &mut self,
        env: &mut Env<'_>,
        va: u64,
        data: [u8; N],
        retired: u64,
        base: u64,
        op: &Op,
    ) -> bool {
        let entry = self.tlb.entry(va);
        let off = va as usize % dirql_mem::PAGE_SIZE;
        if entry.write != va >> 12 || off > dirql_mem::PAGE_SIZE - N {
            return false;
        }
        let Some(frame) = entry.frame else { return false };
        let done = env.mem.store_quick(frame, off, data);
        if LOG && done {
            let rip = base.wrapping_add(u64::from(op.off));
            self.log.push(MemoryAccess { retired, rip, va, len: N as u8, write: true });
        }
        done
    }
}
