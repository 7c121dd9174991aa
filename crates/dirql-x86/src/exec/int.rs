//! Integer instructions beyond the frequent forms.

use super::{Env, R, Stop, alu, mask};
use crate::exception::Exception;
use crate::op::{Op, Opd};
use crate::regs::Cpu;
use crate::rflags;
use dirql_mem::Va;
use iced_x86::Mnemonic as M;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSP: usize = 4;
const RBP: usize = 5;

/// Sign-extends from `size` bytes.
#[inline(always)]
pub(crate) fn sext(v: u64, size: u8) -> u64 {
    let shift = 64 - u32::from(size.clamp(1, 8)) * 8;
    ((v << shift) as i64 >> shift) as u64
}

impl Cpu {
    /// rax, rdx and so on as an operand of `size` bytes.
    fn low(&self, reg: usize, size: u8) -> u64 {
        self.regs.gpr[reg & 15] & mask(size)
    }

    fn set_low(&mut self, reg: usize, size: u8, v: u64) {
        let old = self.regs.gpr[reg & 15];
        self.regs.gpr[reg & 15] = match size {
            8 => v,
            4 => v & 0xffff_ffff,
            _ => old & !mask(size) | v & mask(size),
        };
    }

    #[inline(never)]
    pub(crate) fn int(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        let size = op.size;
        let bits = u32::from(size) * 8;
        let (a, b) = (op.a, op.b);
        match op.mn {
            M::Mov => {
                let v = self.get(env, op, b, size)?;
                self.put_opd(env, op, a, size, v)?;
            }
            M::Movnti => {
                let v = self.get(env, op, b, size)?;
                self.put_opd(env, op, a, size, v)?;
            }
            M::Movzx => {
                let v = self.get(env, op, b, op.bsize)?;
                self.put_opd(env, op, a, size, v)?;
            }
            M::Movsx | M::Movsxd => {
                let v = self.get(env, op, b, op.bsize)?;
                self.put_opd(env, op, a, size, sext(v, op.bsize))?;
            }
            M::Movbe => {
                let v = self.get(env, op, b, size)?;
                self.put_opd(env, op, a, size, v.swap_bytes() >> (64 - bits))?;
            }
            M::Lea => self.put_opd(env, op, a, size, self.offset(op))?,
            M::Add | M::Adc | M::Sub | M::Sbb | M::And | M::Or | M::Xor => {
                let x = self.get_rmw(env, op, a, size)?;
                let y = self.get(env, op, b, size)?;
                let mut f = self.flags;
                let carry = f.cf;
                let v = match op.mn {
                    M::Add => alu::add(&mut f, x, y, bits),
                    M::Adc => alu::adc(&mut f, x, y, carry, bits),
                    M::Sub => alu::sub(&mut f, x, y, bits),
                    M::Sbb => alu::sbb(&mut f, x, y, carry, bits),
                    M::And => alu::logic(&mut f, x & y, bits),
                    M::Or => alu::logic(&mut f, x | y, bits),
                    _ => alu::logic(&mut f, x ^ y, bits),
                };
                self.put_opd(env, op, a, size, v)?;
                self.flags = f;
            }
            M::Cmp => {
                let x = self.get(env, op, a, size)?;
                let y = self.get(env, op, b, size)?;
                alu::sub(&mut self.flags, x, y, bits);
            }
            M::Test => {
                let x = self.get(env, op, a, size)?;
                let y = self.get(env, op, b, size)?;
                alu::logic(&mut self.flags, x & y, bits);
            }
            M::Inc | M::Dec => {
                let x = self.get_rmw(env, op, a, size)?;
                let carry = self.flags.cf;
                let v = if op.mn == M::Inc {
                    alu::add(&mut self.flags, x, 1, bits)
                } else {
                    alu::sub(&mut self.flags, x, 1, bits)
                };
                self.flags.cf = carry;
                self.put_opd(env, op, a, size, v)?;
            }
            M::Neg => {
                let x = self.get_rmw(env, op, a, size)?;
                let v = alu::sub(&mut self.flags, 0, x, bits);
                self.put_opd(env, op, a, size, v)?;
            }
            M::Not => {
                let x = self.get_rmw(env, op, a, size)?;
                self.put_opd(env, op, a, size, !x)?;
            }
            M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr => {
                let x = self.get_rmw(env, op, a, size)?;
                let count = self.get(env, op, b, 1)?;
                let v = self.shift(op.mn, x, count, bits);
                // A count of zero writes the same value: it changes no flag, but clears bits 63 to 32.
                self.put_opd(env, op, a, size, v)?;
            }
            M::Shld | M::Shrd => {
                let x = self.get_rmw(env, op, a, size)?;
                let y = self.get(env, op, b, size)?;
                let count = if op.c == Opd::Imm { op.imm } else { self.regs.gpr[RCX] };
                let v = self.double_shift(op.mn == M::Shld, x, y, count, bits);
                self.put_opd(env, op, a, size, v)?;
            }
            M::Mul | M::Imul if b == Opd::None => {
                let x = self.get(env, op, a, size)?;
                self.multiply(x, size, op.mn == M::Imul);
            }
            M::Imul => {
                let (x, y) = if op.c == Opd::None {
                    (self.get(env, op, a, size)?, self.get(env, op, b, size)?)
                } else {
                    (self.get(env, op, b, size)?, op.imm)
                };
                let wide = i128::from(sext(x, size) as i64) * i128::from(sext(y, size) as i64);
                let v = wide as u64 & mask(size);
                alu::logic(&mut self.flags, v, bits);
                self.flags.cf = wide != i128::from(sext(v, size) as i64);
                self.flags.of = self.flags.cf;
                self.put_opd(env, op, a, size, v)?;
            }
            M::Div | M::Idiv => {
                let d = self.get(env, op, a, size)?;
                if !self.divide(d, size, op.mn == M::Idiv) {
                    return self.raise(Exception::DivideError);
                }
            }
            M::Bt | M::Bts | M::Btr | M::Btc => self.bit_test(env, op)?,
            M::Bsf | M::Bsr => {
                let x = self.get(env, op, b, size)?;
                // With a zero source the destination stays, as processors do and AMD documents; its upper half too.
                if x == 0 {
                    alu::logic(&mut self.flags, 0, bits);
                } else {
                    let v = if op.mn == M::Bsf { x.trailing_zeros() } else { 63 - x.leading_zeros() };
                    alu::logic(&mut self.flags, x, bits);
                    self.put_opd(env, op, a, size, u64::from(v))?;
                }
            }
            M::Tzcnt | M::Lzcnt | M::Popcnt => {
                let x = self.get(env, op, b, size)?;
                let v = match op.mn {
                    M::Tzcnt => x.trailing_zeros().min(bits),
                    M::Lzcnt => x.leading_zeros() - (64 - bits),
                    _ => x.count_ones(),
                };
                if op.mn == M::Popcnt {
                    alu::logic(&mut self.flags, x, bits);
                    self.flags.sp = 1;
                } else {
                    alu::logic(&mut self.flags, u64::from(v), bits);
                    self.flags.cf = x == 0;
                }
                self.put_opd(env, op, a, size, u64::from(v))?;
            }
            M::Andn => {
                let x = self.get(env, op, b, size)?;
                let y = self.get(env, op, op.c, size)?;
                let v = alu::logic(&mut self.flags, !x & y, bits);
                self.put_opd(env, op, a, size, v)?;
            }
            M::Blsi | M::Blsr | M::Blsmsk => {
                let x = self.get(env, op, b, size)?;
                let v = match op.mn {
                    M::Blsi => x & x.wrapping_neg(),
                    M::Blsr => x & x.wrapping_sub(1),
                    _ => x ^ x.wrapping_sub(1),
                };
                let v = alu::logic(&mut self.flags, v, bits);
                self.flags.cf = (x == 0) != (op.mn == M::Blsi);
                self.put_opd(env, op, a, size, v)?;
            }
            M::Bextr => {
                let x = self.get(env, op, b, size)?;
                let control = self.get(env, op, op.c, size)?;
                let (start, len) = (control as u32 & 0xff, control as u32 >> 8 & 0xff);
                let x = if start < bits { x >> start } else { 0 };
                let v = if len < bits { x & ((1 << len) - 1) } else { x };
                alu::logic(&mut self.flags, v, bits);
                self.put_opd(env, op, a, size, v)?;
            }
            M::Bzhi => {
                let x = self.get(env, op, b, size)?;
                let n = self.get(env, op, op.c, size)? as u32 & 0xff;
                let v = if n < bits { x & ((1 << n) - 1) } else { x };
                alu::logic(&mut self.flags, v, bits);
                self.flags.cf = n >= bits;
                self.put_opd(env, op, a, size, v)?;
            }
            M::Shlx | M::Shrx | M::Sarx => {
                let x = self.get(env, op, b, size)?;
                let n = self.get(env, op, op.c, size)? as u32 & (bits - 1);
                let v = match op.mn {
                    M::Shlx => x << n,
                    M::Shrx => x >> n,
                    _ => (sext(x, size) as i64 >> n) as u64,
                };
                self.put_opd(env, op, a, size, v)?;
            }
            M::Rorx => {
                let x = self.get(env, op, b, size)?;
                let n = op.imm as u32 & (bits - 1);
                let v = if n == 0 { x } else { x >> n | x << (bits - n) };
                self.put_opd(env, op, a, size, v)?;
            }
            M::Mulx => {
                let y = self.get(env, op, op.c, size)?;
                let wide = u128::from(self.low(RDX, size)) * u128::from(y);
                self.put_opd(env, op, b, size, wide as u64)?;
                self.put_opd(env, op, a, size, (wide >> bits) as u64)?;
            }
            M::Pdep | M::Pext => {
                let x = self.get(env, op, b, size)?;
                let mut left = self.get(env, op, op.c, size)?;
                let (mut v, mut k) = (0, 0);
                while left != 0 {
                    let at = left.trailing_zeros();
                    let (from, to) = if op.mn == M::Pdep { (k, at) } else { (at, k) };
                    v |= (x >> from & 1) << to;
                    left &= left - 1;
                    k += 1;
                }
                self.put_opd(env, op, a, size, v)?;
            }
            M::Adcx | M::Adox => {
                let x = self.get(env, op, a, size)?;
                let y = self.get(env, op, b, size)?;
                let carry = if op.mn == M::Adcx { self.flags.cf } else { self.flags.of };
                let wide = u128::from(x) + u128::from(y) + u128::from(carry);
                let carry = wide >> bits != 0;
                if op.mn == M::Adcx {
                    self.flags.cf = carry;
                } else {
                    self.flags.of = carry;
                }
                self.put_opd(env, op, a, size, wide as u64)?;
            }
            M::Crc32 => {
                let y = self.get(env, op, b, op.bsize)?;
                let mut crc = self.regs.gpr[usize::from(if let Opd::Reg(n) = a { n } else { 0 } & 15)] as u32;
                for byte in y.to_le_bytes().iter().take(usize::from(op.bsize)) {
                    crc ^= u32::from(*byte);
                    for _ in 0..8 {
                        // The Castagnoli polynomial, bit-reversed.
                        crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
                    }
                }
                self.put_opd(env, op, a, 8, u64::from(crc))?;
            }
            M::Bswap => {
                let x = self.get(env, op, a, size)?;
                // With 16 bits the result is undefined; processors give zero.
                let v = if size == 2 { 0 } else { x.swap_bytes() >> (64 - bits) };
                self.put_opd(env, op, a, size, v)?;
            }
            M::Xchg => {
                let (x, y) = if b == Opd::Mem {
                    let y = self.get_rmw(env, op, b, size)?;
                    (self.get(env, op, a, size)?, y)
                } else {
                    (self.get_rmw(env, op, a, size)?, self.get(env, op, b, size)?)
                };
                if a == Opd::Mem {
                    self.put_opd(env, op, a, size, y)?;
                    self.put_opd(env, op, b, size, x)?;
                } else {
                    self.put_opd(env, op, b, size, x)?;
                    self.put_opd(env, op, a, size, y)?;
                }
            }
            M::Xadd => {
                let x = self.get_rmw(env, op, a, size)?;
                let y = self.get(env, op, b, size)?;
                let v = alu::add(&mut self.flags, x, y, bits);
                if a == Opd::Mem {
                    // The address may depend on the register: memory first.
                    self.put_opd(env, op, a, size, v)?;
                    self.put_opd(env, op, b, size, x)?;
                } else {
                    self.put_opd(env, op, b, size, x)?;
                    self.put_opd(env, op, a, size, v)?;
                }
            }
            M::Cmpxchg => {
                let x = self.get_rmw(env, op, a, size)?;
                let y = self.get(env, op, b, size)?;
                alu::sub(&mut self.flags, self.regs.gpr[RAX], x, bits);
                if self.flags.zf() {
                    self.put_opd(env, op, a, size, y)?;
                } else {
                    if a == Opd::Mem {
                        // The processor always ends the locked cycle with a write (SDM, CMPXCHG).
                        self.put_opd(env, op, a, size, x)?;
                    }
                    self.set_low(RAX, size, x);
                }
            }
            M::Cmpxchg8b | M::Cmpxchg16b => self.compare_exchange_pair(env, op)?,
            M::Push => {
                let v = match a {
                    Opd::Imm => op.imm,
                    _ => self.get(env, op, a, size)?,
                };
                self.push(env, v, size)?;
            }
            M::Pop => {
                let v = self.peek(env, self.regs.gpr[RSP], size)?;
                // A memory operand based on rsp uses its value after the pop (SDM, POP).
                let before = self.regs.gpr[RSP];
                self.regs.gpr[RSP] = before.wrapping_add(u64::from(size));
                if let Err(stop) = self.put_opd(env, op, a, size, v) {
                    self.regs.gpr[RSP] = before;
                    return Err(stop);
                }
            }
            M::Enter => {
                if op.aux != 0 {
                    // A nesting level, or 16-bit operands: no compiler makes them.
                    return Err(Stop::Unsupported);
                }
                let rsp = self.regs.gpr[RSP].wrapping_sub(8);
                self.push(env, self.regs.gpr[RBP], 8)?;
                self.regs.gpr[RBP] = rsp;
                self.regs.gpr[RSP] = rsp.wrapping_sub(op.imm & 0xffff);
            }
            M::Leave => {
                let rbp = self.regs.gpr[RBP];
                let size = op.aux;
                let v = self.peek(env, rbp, size)?;
                self.regs.gpr[RSP] = rbp.wrapping_add(u64::from(size));
                self.set_low(RBP, size, v);
            }
            M::Call => {
                let target = self.get(env, op, a, 8)?;
                if !Va(target).is_canonical() {
                    return self.raise(Exception::GeneralProtection(0));
                }
                self.push(env, self.next, 8)?;
                self.next = target;
            }
            M::Jmp => {
                let target = self.get(env, op, a, 8)?;
                self.jump(target)?;
            }
            M::Loop | M::Loope | M::Loopne => {
                let size = if op.addr32 { 4 } else { 8 };
                let n = self.low(RCX, size).wrapping_sub(1) & mask(size);
                self.set_low(RCX, size, n);
                let more = match op.mn {
                    M::Loope => self.flags.zf(),
                    M::Loopne => !self.flags.zf(),
                    _ => true,
                };
                if n != 0 && more {
                    self.next = op.imm;
                }
            }
            M::Jrcxz | M::Jecxz => {
                if self.low(RCX, if op.mn == M::Jrcxz { 8 } else { 4 }) == 0 {
                    self.next = op.imm;
                }
            }
            M::Pushfq | M::Pushf => {
                let v = (self.regs.rflags & !rflags::ARITH | self.flags.to_rflags()) & !0x30000;
                self.push(env, v, if op.mn == M::Pushf { 2 } else { 8 })?;
            }
            M::Popfq | M::Popf => {
                let v = self.peek(env, self.regs.gpr[RSP], if op.mn == M::Popf { 2 } else { 8 })?;
                if v & rflags::TF != 0 {
                    return Err(Stop::Unsupported);
                }
                self.regs.gpr[RSP] = self.regs.gpr[RSP].wrapping_add(if op.mn == M::Popf { 2 } else { 8 });
                self.set_rflags(v, op.mn == M::Popf);
            }
            M::Lahf => {
                let v = self.flags.to_rflags() & 0xd5 | 2;
                self.regs.gpr[RAX] = self.regs.gpr[RAX] & !0xff00 | v << 8;
            }
            M::Sahf => {
                let v = self.regs.gpr[RAX] >> 8 & 0xd5;
                let overflow = self.flags.of;
                self.flags = crate::flags::Flags::from_rflags(v);
                self.flags.of = overflow;
            }
            M::Cbw => self.set_low(RAX, 2, sext(self.regs.gpr[RAX], 1)),
            M::Cwde => self.set_low(RAX, 4, sext(self.regs.gpr[RAX], 2)),
            M::Cdqe => self.set_low(RAX, 8, sext(self.regs.gpr[RAX], 4)),
            M::Cwd => self.set_low(RDX, 2, sext(sext(self.regs.gpr[RAX], 2) >> 16, 2)),
            M::Cdq => self.set_low(RDX, 4, sext(self.regs.gpr[RAX], 4) >> 32),
            M::Cqo => self.set_low(RDX, 8, (self.regs.gpr[RAX] as i64 >> 63) as u64),
            M::Clc => self.flags.cf = false,
            M::Stc => self.flags.cf = true,
            M::Cmc => self.flags.cf = !self.flags.cf,
            M::Cld => self.regs.rflags &= !rflags::DF,
            M::Std => self.regs.rflags |= rflags::DF,
            M::Xlatb => {
                let at = self.regs.gpr[RBX]
                    .wrapping_add(self.regs.gpr[RAX] & 0xff)
                    .wrapping_add(self.segment(op.seg));
                let v = self.load_n(env, at, 1)?;
                self.set_low(RAX, 1, v);
            }
            m if is_setcc(m) => {
                let v = u64::from(self.flags.cond(op.aux));
                self.put_opd(env, op, a, 1, v)?;
            }
            m if is_cmov(m) => {
                // The source is read, and 32-bit destinations are zero-extended, whatever the condition says.
                let y = self.get(env, op, b, size)?;
                let x = self.get(env, op, a, size)?;
                let v = if self.flags.cond(op.aux) { y } else { x };
                self.put_opd(env, op, a, size, v)?;
            }
            _ => return Err(Stop::Unsupported),
        }
        Ok(())
    }

    /// What `popf` and `iret` may change at ring 0.
    pub(super) fn set_rflags(&mut self, v: u64, low_word: bool) {
        let before = self.regs.rflags;
        // AC, ID, NT, IOPL, IF, DF; not VM, RF, VIF and VIP.
        let mut may = 0x0024_7600_u64;
        if low_word {
            may &= 0xffff;
        }
        self.regs.rflags = before & !may | v & may | rflags::FIXED;
        self.flags = crate::flags::Flags::from_rflags(v);
        if before & rflags::IF == 0 && self.regs.rflags & rflags::IF != 0 {
            self.after |= super::after::IF;
        }
    }

    fn shift(&mut self, m: M, x: u64, count: u64, bits: u32) -> u64 {
        let f = &mut self.flags;
        let n = count as u32 & if bits == 64 { 63 } else { 31 };
        if n == 0 {
            return x;
        }
        let top = |v: u64| v >> (bits - 1) & 1 != 0;
        let all = u64::MAX >> (64 - bits);
        match m {
            M::Shl | M::Sal => {
                let wide = u128::from(x) << n;
                let r = wide as u64 & all;
                let carry = wide >> bits & 1 != 0;
                alu::logic(f, r, bits);
                f.cf = carry;
                f.of = top(r) != carry;
                r
            }
            M::Shr => {
                let r = if n < bits { x >> n } else { 0 };
                let carry = n <= bits && x >> (n - 1) & 1 != 0;
                alu::logic(f, r, bits);
                f.cf = carry;
                f.of = top(x);
                r
            }
            M::Sar => {
                let s = sext(x, (bits / 8) as u8) as i64;
                let r = (s >> n) as u64 & all;
                alu::logic(f, r, bits);
                f.cf = s >> (n - 1) & 1 != 0;
                f.of = false;
                r
            }
            M::Rol | M::Ror => {
                let k = n % bits;
                let k = if m == M::Rol { k } else { (bits - k) % bits };
                let r = if k == 0 { x } else { (x << k | x >> (bits - k)) & all };
                if m == M::Rol {
                    f.cf = r & 1 != 0;
                    f.of = top(r) != f.cf;
                } else {
                    f.cf = top(r);
                    f.of = top(r) != top(r << 1);
                }
                r
            }
            _ => {
                // Through carry: a rotation of one bit more.
                let k = n % (bits + 1);
                let wide = u128::from(x) | u128::from(f.cf) << bits;
                let k = if m == M::Rcl { k } else { (bits + 1 - k) % (bits + 1) };
                let whole = (1u128 << (bits + 1)) - 1;
                let r = if k == 0 { wide } else { (wide << k | wide >> (bits + 1 - k)) & whole };
                let v = r as u64 & all;
                f.cf = r >> bits & 1 != 0;
                f.of = if m == M::Rcl { top(v) != f.cf } else { top(v) != top(v << 1) };
                v
            }
        }
    }

    fn double_shift(&mut self, left: bool, x: u64, y: u64, count: u64, bits: u32) -> u64 {
        let n = count as u32 & if bits == 64 { 63 } else { 31 };
        if n == 0 {
            return x;
        }
        let all = u64::MAX >> (64 - bits);
        // More than 16 of a 16-bit operand is undefined; shift the doubled source on, as processors do.
        let (r, carry) = if left {
            let wide = u128::from(x) << bits | u128::from(y);
            let wide = if bits == 16 { wide << 16 | u128::from(x) } else { wide };
            let high = if bits == 16 { 32 } else { bits };
            ((wide << n >> high) as u64 & all, wide >> (high + bits - n) & 1 != 0)
        } else {
            let wide = u128::from(y) << bits | u128::from(x);
            let wide = if bits == 16 { wide | u128::from(x) << 32 } else { wide };
            ((wide >> n) as u64 & all, wide >> (n - 1) & 1 != 0)
        };
        let f = &mut self.flags;
        alu::logic(f, r, bits);
        f.cf = carry;
        f.of = (r ^ x) >> (bits - 1) & 1 != 0;
        r
    }

    fn multiply(&mut self, x: u64, size: u8, signed: bool) {
        let bits = u32::from(size) * 8;
        let a = self.low(RAX, size);
        let wide = if signed {
            (i128::from(sext(a, size) as i64) * i128::from(sext(x, size) as i64)) as u128
        } else {
            u128::from(a) * u128::from(x)
        };
        let low = wide as u64 & mask(size);
        let high = (wide >> bits) as u64 & mask(size);
        if size == 1 {
            self.set_low(RAX, 2, high << 8 | low);
        } else {
            self.set_low(RAX, size, low);
            self.set_low(RDX, size, high);
        }
        let lost = high != if signed { sext_high(low, size) } else { 0 };
        alu::logic(&mut self.flags, low, bits);
        self.flags.cf = lost;
        self.flags.of = lost;
    }

    /// False when the quotient doesn't fit or the divisor is zero.
    fn divide(&mut self, d: u64, size: u8, signed: bool) -> bool {
        let bits = u32::from(size) * 8;
        if d == 0 {
            return false;
        }
        let n = if size == 1 {
            u128::from(self.low(RAX, 2))
        } else {
            u128::from(self.low(RDX, size)) << bits | u128::from(self.low(RAX, size))
        };
        let (q, r) = if signed {
            let shift = 128 - 2 * bits;
            let n = (n << shift) as i128 >> shift;
            let d = i128::from(sext(d, size) as i64);
            let (Some(q), Some(r)) = (n.checked_div(d), n.checked_rem(d)) else { return false };
            let limit = 1i128 << (bits - 1);
            if q >= limit || q < -limit {
                return false;
            }
            (q as u64, r as u64)
        } else {
            let q = n / u128::from(d);
            if q >> bits != 0 {
                return false;
            }
            (q as u64, (n % u128::from(d)) as u64)
        };
        if size == 1 {
            self.set_low(RAX, 2, (r & 0xff) << 8 | q & 0xff);
        } else {
            self.set_low(RAX, size, q);
            self.set_low(RDX, size, r);
        }
        true
    }

    /// With a register index the memory operand is a bit string that reaches both ways.
    fn bit_test(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        let size = op.size;
        let bits = u64::from(size) * 8;
        let index = self.get(env, op, op.b, size)?;
        let bit = index & (bits - 1);
        let writes = op.mn != M::Bt;
        let at = if op.a == Opd::Mem {
            let mut off = self.offset(op);
            if op.b != Opd::Imm {
                let step = (sext(index, size) as i64 >> bits.trailing_zeros()).wrapping_mul(i64::from(size));
                off = off.wrapping_add(step as u64);
                if op.addr32 {
                    off &= 0xffff_ffff;
                }
            }
            Some(off.wrapping_add(self.segment(op.seg)))
        } else {
            None
        };
        let x = match at {
            Some(at) => {
                if writes {
                    self.probe_write(env, at, usize::from(size))?;
                }
                self.load_n(env, at, size)?
            }
            None => self.get(env, op, op.a, size)?,
        };
        let v = match op.mn {
            M::Bts => x | 1 << bit,
            M::Btr => x & !(1 << bit),
            M::Btc => x ^ 1 << bit,
            _ => x,
        };
        if writes {
            match at {
                Some(at) => self.store_n(env, at, size, v)?,
                None => self.put_opd(env, op, op.a, size, v)?,
            }
        }
        self.flags.cf = x >> bit & 1 != 0;
        Ok(())
    }

    fn compare_exchange_pair(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        let at = self.ea(op);
        let half: u8 = if op.mn == M::Cmpxchg16b { 8 } else { 4 };
        if half == 8 && !at.is_multiple_of(16) {
            return self.raise(Exception::GeneralProtection(0));
        }
        self.probe_write(env, at, usize::from(half) * 2)?;
        let low = self.load_n(env, at, half)?;
        let high = self.load_n(env, at.wrapping_add(u64::from(half)), half)?;
        let equal = low == self.low(RAX, half) && high == self.low(RDX, half);
        let (new_low, new_high) =
            if equal { (self.low(RBX, half), self.low(RCX, half)) } else { (low, high) };
        self.store_n(env, at, half, new_low)?;
        self.store_n(env, at.wrapping_add(u64::from(half)), half, new_high)?;
        if !equal {
            self.set_low(RAX, half, low);
            self.set_low(RDX, half, high);
        }
        // Only ZF changes.
        let flags = self.flags.to_rflags() & !rflags::ZF | if equal { rflags::ZF } else { 0 };
        self.flags = crate::flags::Flags::from_rflags(flags);
        Ok(())
    }
}

/// The upper half that a sign extension of the lower one has.
fn sext_high(low: u64, size: u8) -> u64 {
    if low >> (u32::from(size) * 8 - 1) & 1 != 0 { mask(size) } else { 0 }
}

fn is_setcc(m: M) -> bool {
    matches!(
        m,
        M::Seto
            | M::Setno
            | M::Setb
            | M::Setae
            | M::Sete
            | M::Setne
            | M::Setbe
            | M::Seta
            | M::Sets
            | M::Setns
            | M::Setp
            | M::Setnp
            | M::Setl
            | M::Setge
            | M::Setle
            | M::Setg
    )
}

fn is_cmov(m: M) -> bool {
    matches!(
        m,
        M::Cmovo
            | M::Cmovno
            | M::Cmovb
            | M::Cmovae
            | M::Cmove
            | M::Cmovne
            | M::Cmovbe
            | M::Cmova
            | M::Cmovs
            | M::Cmovns
            | M::Cmovp
            | M::Cmovnp
            | M::Cmovl
            | M::Cmovge
            | M::Cmovle
            | M::Cmovg
    )
}
