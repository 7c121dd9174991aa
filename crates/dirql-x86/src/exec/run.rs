//! Running a whole block: what compilers emit most, without looking at anything between two operations. The budget
//! was checked before; a block at whose middle it ends is run by `run_ops` instead.

use super::{Env, R, alu};
use crate::op::{Fast, K, Op};
use crate::regs::Cpu;

impl Cpu {
    /// Runs all operations of a block, and the block again while it jumps to its own start within the budget.
    pub(super) fn run_block(&mut self, env: &mut Env<'_>, ops: &[Op], budget: u64) -> R<()> {
        let base = self.regs.rip;
        let len = ops.len() as u64;
        let mut start = self.done;
        'again: loop {
            let mut next = base;
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
                /// To another block, or round this one again.
                macro_rules! go {
                    ($to:expr) => {{
                        let to = $to;
                        if to == base && budget - start >= 2 * len {
                            start += len;
                            continue 'again;
                        }
                        self.done = start + len;
                        self.regs.rip = to;
                        return Ok(());
                    }};
                }
                match op.fast {
                    Fast::Mov64 => g!(op.ra) = g!(op.rb),
                    Fast::Mov32 => g!(op.ra) = g!(op.rb) & 0xffff_ffff,
                    Fast::MovI => g!(op.ra) = op.imm,
                    Fast::Lea => g!(op.ra) = self.offset(op),
                    Fast::Load64 => match self.quick_load(env, self.ea(op)) {
                        Some(v) => g!(op.ra) = u64::from_le_bytes(v),
                        None => slow!(),
                    },
                    Fast::Load32 => match self.quick_load(env, self.ea(op)) {
                        Some(v) => g!(op.ra) = u64::from(u32::from_le_bytes(v)),
                        None => slow!(),
                    },
                    Fast::Store64 => {
                        if !self.quick_store(env, self.ea(op), g!(op.rb).to_le_bytes()) {
                            slow!();
                        }
                    }
                    Fast::Store32 => {
                        if !self.quick_store(env, self.ea(op), (g!(op.rb) as u32).to_le_bytes()) {
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
                        if self.quick_store(env, rsp, g!(op.ra).to_le_bytes()) {
                            self.regs.gpr[4] = rsp;
                        } else {
                            slow!();
                        }
                    }
                    Fast::Pop => {
                        let rsp = self.regs.gpr[4];
                        if let Some(v) = self.quick_load(env, rsp) {
                            self.regs.gpr[4] = rsp.wrapping_add(8);
                            g!(op.ra) = u64::from_le_bytes(v);
                        } else {
                            slow!();
                        }
                    }
                    Fast::Jz => go!(if self.flags.zf() { op.imm } else { after!() }),
                    Fast::Jnz => go!(if self.flags.zf() { after!() } else { op.imm }),
                    Fast::Jcc => go!(if self.flags.cond(op.aux) { op.imm } else { after!() }),
                    Fast::Jmp => go!(op.imm),
                    Fast::Call => {
                        let rsp = self.regs.gpr[4].wrapping_sub(8);
                        if self.quick_store(env, rsp, after!().to_le_bytes()) {
                            self.regs.gpr[4] = rsp;
                            go!(op.imm);
                        }
                        slow!();
                        next = self.regs.rip;
                        continue;
                    }
                    Fast::Ret => {
                        let rsp = self.regs.gpr[4];
                        if let Some(v) = self.quick_load(env, rsp)
                            && dirql_mem::Va(u64::from_le_bytes(v)).is_canonical()
                        {
                            self.regs.gpr[4] = rsp.wrapping_add(8).wrapping_add(op.imm & 0xffff);
                            go!(u64::from_le_bytes(v));
                        }
                        slow!();
                        next = self.regs.rip;
                        continue;
                    }
                    Fast::Slow => {
                        slow!();
                        next = self.regs.rip;
                        continue;
                    }
                }
                if i + 1 == ops.len() {
                    next = after!();
                }
            }
            self.done = start + len;
            self.regs.rip = next;
            return Ok(());
        }
    }

    #[inline(never)]
    fn run_one(&mut self, env: &mut Env<'_>, op: &Op, budget: u64) -> R<()> {
        self.run_ops(env, std::slice::from_ref(op), budget)
    }

    /// The bytes, if they lie in one page that the TLB knows.
    #[inline(always)]
    fn quick_load<const N: usize>(&self, env: &Env<'_>, va: u64) -> Option<[u8; N]> {
        let entry = self.tlb.entry(va);
        let off = va as usize % dirql_mem::PAGE_SIZE;
        if entry.read != va >> 12 {
            return None;
        }
        let bytes = env.mem.frame(entry.frame?).get(off..)?.first_chunk::<N>()?;
        Some(*bytes)
    }

    /// Writes them, if they lie in one page that the TLB knows.
    #[inline(always)]
    fn quick_store<const N: usize>(&mut self, env: &mut Env<'_>, va: u64, data: [u8; N]) -> bool {
        let entry = self.tlb.entry(va);
        let off = va as usize % dirql_mem::PAGE_SIZE;
        if entry.write != va >> 12 || off > dirql_mem::PAGE_SIZE - N {
            return false;
        }
        let Some(frame) = entry.frame else { return false };
        env.mem.store_quick(frame, off, data)
    }
}
