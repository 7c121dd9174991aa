//! The run loop, operand and memory access.

mod alu;
mod crypto;
mod float;
mod int;
mod packed;
mod pcmpstr;
mod run;
mod sse;
mod string;
mod system;
mod xsave;

use crate::block::{self, Cache, Found};
use crate::exception::Exception;
use crate::exit::{Bus, Exit};
use crate::flags::Flags;
use crate::op::{K, NO_REG, Op, Opd};
use crate::regs::{Cpu, MemoryAccess};
use crate::rflags;
use alu::{add, logic, sub};
use dirql_mem::{FrameId, Memory, PAGE_SIZE, Pa, Prot, Target, Va};

/// Why an operation did not retire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// [`Cpu::exception`] says which.
    Exception,
    Unsupported,
}

pub(crate) type R<T> = Result<T, Stop>;

/// What the run loop must look at after the operation retired.
pub(crate) mod after {
    pub(crate) const CODE: u8 = 1;
    pub(crate) const DEVICE: u8 = 2;
    pub(crate) const CR8: u8 = 4;
    pub(crate) const IF: u8 = 8;
    pub(crate) const HALT: u8 = 16;
    pub(crate) const PAUSE: u8 = 32;
}

/// The world around the processor during a run.
pub(crate) struct Env<'a> {
    pub(crate) mem: &'a mut Memory,
    pub(crate) bus: &'a mut dyn Bus,
}

/// A translated page.
#[derive(Clone, Copy)]
enum Place {
    Ram(FrameId),
    /// Physical address of the byte.
    Device(Pa),
}

/// All ones in the low `size` bytes.
#[inline(always)]
pub(crate) fn mask(size: u8) -> u64 {
    u64::MAX >> (64 - u32::from(size.clamp(1, 8)) * 8)
}

impl Cpu {
    /// Runs at most `budget` instructions; each repetition of a repeated string instruction counts as one.
    /// Returns how many retired, and why it stopped.
    ///
    /// A processor keeps what it decoded from `mem`: run it with that memory or, for a clone of the processor,
    /// a clone of it taken at the same time; or call [`flush_caches`](Cpu::flush_caches) between.
    pub fn run<B: Bus>(&mut self, mem: &mut Memory, bus: &mut B, budget: u64) -> (u64, Exit) {
        self.run_dyn(&mut Env { mem, bus }, budget)
    }

    fn synchronise(&mut self, mem: &Memory, cache: &mut Cache) {
        if self.code_generation != mem.code_generation() {
            self.code_generation = mem.code_generation();
            cache.flush();
        }
        if self.map_generation != mem.map_generation() {
            self.map_generation = mem.map_generation();
            cache.flush_near();
            self.tlb.flush();
        }
    }

    fn run_dyn(&mut self, env: &mut Env<'_>, budget: u64) -> (u64, Exit) {
        let mut cache = self.cache.take().unwrap_or_default();
        self.synchronise(env.mem, &mut cache);
        self.flags = Flags::from_rflags(self.regs.rflags);
        self.done = 0;
        let exit = loop {
            let left = budget - self.done;
            if left == 0 {
                break Exit::Budget;
            }
            let rip = self.regs.rip;
            let single;
            let mut crosses = false;
            let ops = match cache.find(env.mem, rip) {
                Found::Cached(index) => cache.ops(index),
                Found::Single(op) => {
                    // It may overwrite itself unnoticed, so it is run once and decoded anew.
                    crosses = true;
                    single = [op];
                    &single[..]
                }
                Found::Gate => break Exit::Gate(rip),
                Found::NonCanonical => break Exit::Exception(Exception::GeneralProtection(0)),
                Found::Fault(addr, present) => {
                    self.cr2 = addr;
                    break Exit::Exception(Exception::PageFault {
                        addr,
                        write: false,
                        execute: true,
                        present,
                    });
                }
            };
            let stop = if left >= ops.len() as u64 && !self.hold && !crosses {
                if self.logging {
                    self.run_block::<true>(env, &cache, ops, budget)
                } else {
                    self.run_block::<false>(env, &cache, ops, budget)
                }
            } else {
                self.run_ops(env, &ops[..ops.len().min(left as usize)], budget)
            };
            if let Err(stop) = stop {
                break match stop {
                    Stop::Exception => Exit::Exception(self.exception),
                    Stop::Unsupported => {
                        Exit::Unsupported { rip: self.regs.rip, text: block::text_at(env.mem, self.regs.rip) }
                    }
                };
            }
            if self.after != 0 {
                let what = std::mem::take(&mut self.after);
                if what & after::CODE != 0 {
                    self.code_generation = env.mem.code_generation();
                    cache.flush();
                }
                if what & after::HALT != 0 {
                    break Exit::Halt;
                } else if what & after::CR8 != 0 {
                    break Exit::Cr8Changed;
                } else if what & after::IF != 0 {
                    break Exit::InterruptFlag;
                } else if what & after::DEVICE != 0 {
                    break Exit::Device;
                } else if what & after::PAUSE != 0 {
                    break Exit::Pause;
                }
            }
        };
        if std::mem::take(&mut self.after) & after::CODE != 0 {
            cache.flush();
            self.code_generation = env.mem.code_generation();
        }
        self.cache = Some(cache);
        self.regs.rflags = self.regs.rflags & !rflags::ARITH | self.flags.to_rflags();
        (self.done, exit)
    }

    /// Runs operations in a row until one stops, jumps, or leaves something to look at.
    #[inline(never)]
    fn run_ops(&mut self, env: &mut Env<'_>, ops: &[Op], budget: u64) -> R<()> {
        let start = self.done;
        let mut rip = self.regs.rip;
        let logging = self.logging;
        for (i, op) in ops.iter().enumerate() {
            self.next = rip.wrapping_add(u64::from(op.len));
            if logging {
                self.regs.rip = rip;
            }
            if logging || matches!(op.k, K::Str | K::Sys) {
                self.done = start + i as u64;
                self.left = budget - self.done;
            }
            let result = self.step(env, op);
            let repeated = op.k == K::Str && op.aux != 0;
            if result.is_err() || self.after != 0 || repeated {
                if std::mem::take(&mut self.non_canonical) && matches!(op.base, 4 | 5) && op.seg == 0 {
                    // Based on rsp or rbp, it is the stack segment's fault.
                    self.exception = Exception::StackFault;
                }
                // A repeated string operation has counted its repetitions, but for the last.
                if !repeated {
                    self.done = start + i as u64;
                }
                if result.is_ok() {
                    self.done += 1;
                    rip = self.next;
                }
                self.regs.rip = rip;
                return result;
            }
            rip = self.next;
        }
        self.done = start + ops.len() as u64;
        self.regs.rip = rip;
        Ok(())
    }

    #[inline(always)]
    fn r(&self, opd: Opd) -> u64 {
        match opd {
            Opd::Reg(n) => self.regs.gpr[usize::from(n & 15)],
            _ => 0,
        }
    }

    #[inline(always)]
    fn set(&mut self, opd: Opd, v: u64) {
        if let Opd::Reg(n) = opd {
            self.regs.gpr[usize::from(n & 15)] = v;
        }
    }

    #[inline(always)]
    fn step(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        macro_rules! alu {
            ($f:ident, $bits:literal, $b:expr, keep) => {{
                let (x, y) = (self.r(op.a), $b);
                let v = $f(&mut self.flags, x, y, $bits);
                self.set(op.a, v);
            }};
            ($f:ident, $bits:literal, $b:expr, drop) => {{
                let (x, y) = (self.r(op.a), $b);
                $f(&mut self.flags, x, y, $bits);
            }};
            ($f:tt, $bits:literal, $b:expr, logic) => {{
                let v = self.r(op.a) $f $b;
                let v = logic(&mut self.flags, v, $bits);
                self.set(op.a, v);
            }};
        }
        match op.k {
            K::MovRR64 => self.set(op.a, self.r(op.b)),
            K::MovRR32 => self.set(op.a, self.r(op.b) & 0xffff_ffff),
            K::MovRI => self.set(op.a, op.imm),
            K::Ld64 => {
                let v = u64::from_le_bytes(self.load(env, self.ea(op))?);
                self.set(op.a, v);
            }
            K::Ld32 => {
                let v = u32::from_le_bytes(self.load(env, self.ea(op))?);
                self.set(op.a, u64::from(v));
            }
            K::St64 => self.store(env, self.ea(op), self.r(op.b).to_le_bytes())?,
            K::St32 => self.store(env, self.ea(op), (self.r(op.b) as u32).to_le_bytes())?,
            K::Lea64 => self.set(op.a, self.offset(op)),
            K::Add64RR => alu!(add, 64, self.r(op.b), keep),
            K::Add64RI => alu!(add, 64, op.imm, keep),
            K::Add32RR => alu!(add, 32, self.r(op.b), keep),
            K::Add32RI => alu!(add, 32, op.imm, keep),
            K::Sub64RR => alu!(sub, 64, self.r(op.b), keep),
            K::Sub64RI => alu!(sub, 64, op.imm, keep),
            K::Sub32RR => alu!(sub, 32, self.r(op.b), keep),
            K::Sub32RI => alu!(sub, 32, op.imm, keep),
            K::Cmp64RR => alu!(sub, 64, self.r(op.b), drop),
            K::Cmp64RI => alu!(sub, 64, op.imm, drop),
            K::Cmp32RR => alu!(sub, 32, self.r(op.b), drop),
            K::Cmp32RI => alu!(sub, 32, op.imm, drop),
            K::And64RR => alu!(&, 64, self.r(op.b), logic),
            K::And64RI => alu!(&, 64, op.imm, logic),
            K::And32RR => alu!(&, 32, self.r(op.b), logic),
            K::And32RI => alu!(&, 32, op.imm, logic),
            K::Or64RR => alu!(|, 64, self.r(op.b), logic),
            K::Or64RI => alu!(|, 64, op.imm, logic),
            K::Or32RR => alu!(|, 32, self.r(op.b), logic),
            K::Or32RI => alu!(|, 32, op.imm, logic),
            K::Xor64RR => alu!(^, 64, self.r(op.b), logic),
            K::Xor64RI => alu!(^, 64, op.imm, logic),
            K::Xor32RR => alu!(^, 32, self.r(op.b), logic),
            K::Xor32RI => alu!(^, 32, op.imm, logic),
            K::Test64RR => {
                let v = self.r(op.a) & self.r(op.b);
                logic(&mut self.flags, v, 64);
            }
            K::Test64RI => {
                let v = self.r(op.a) & op.imm;
                logic(&mut self.flags, v, 64);
            }
            K::Test32RR => {
                let v = self.r(op.a) & self.r(op.b);
                logic(&mut self.flags, v, 32);
            }
            K::Test32RI => {
                let v = self.r(op.a) & op.imm;
                logic(&mut self.flags, v, 32);
            }
            K::Jcc => {
                if self.flags.cond(op.aux) {
                    self.next = op.imm;
                }
            }
            K::Jmp => self.next = op.imm,
            K::Call => {
                self.push(env, self.next, 8)?;
                self.next = op.imm;
            }
            K::Ret => self.ret(env, op)?,
            K::PushR => self.push(env, self.r(op.a), 8)?,
            K::PopR => {
                let v = self.pop(env, 8)?;
                self.set(op.a, v);
            }
            K::Int => self.int(env, op)?,
            K::Str => self.string(env, op)?,
            K::Sys => self.system(env, op)?,
            K::Sse => self.sse(env, op)?,
            K::Invalid => return self.raise(Exception::InvalidOpcode),
            K::Lacks => return Err(Stop::Unsupported),
        }
        Ok(())
    }

    #[cold]
    pub(crate) fn raise<T>(&mut self, exception: Exception) -> R<T> {
        if let Exception::PageFault { addr, .. } = exception {
            self.cr2 = addr;
        }
        self.exception = exception;
        Err(Stop::Exception)
    }

    /// The memory operand's offset, without its segment.
    #[inline(always)]
    pub(crate) fn offset(&self, op: &Op) -> u64 {
        let mut at = op.disp;
        if op.base != NO_REG {
            at = at.wrapping_add(self.regs.gpr[usize::from(op.base & 15)]);
        }
        if op.index != NO_REG {
            at = at.wrapping_add(self.regs.gpr[usize::from(op.index & 15)] << (op.shift & 3));
        }
        if op.addr32 { at & 0xffff_ffff } else { at }
    }

    #[inline(always)]
    pub(crate) fn segment(&self, seg: u8) -> u64 {
        match seg {
            0 => 0,
            1 => self.fs_base,
            _ => self.gs_base,
        }
    }

    /// The memory operand's linear address.
    #[inline(always)]
    pub(crate) fn ea(&self, op: &Op) -> u64 {
        self.offset(op).wrapping_add(self.segment(op.seg))
    }

    /// Translates, checks, and fills the TLB.
    fn resolve(&mut self, env: &mut Env<'_>, va: u64, write: bool) -> R<Place> {
        if !Va(va).is_canonical() {
            self.non_canonical = true;
            return self.raise(Exception::GeneralProtection(0));
        }
        let fault = |present| Exception::PageFault { addr: va, write, execute: false, present };
        let Some((target, prot)) = env.mem.translate(Va(va)) else { return self.raise(fault(false)) };
        if !prot.contains(if write { Prot::WRITE } else { Prot::READ }) {
            return self.raise(fault(true));
        }
        match target {
            Target::Ram(frame) => {
                // A store that is to be held back takes the slow path: it must not find the page here.
                if !self.hold {
                    self.tlb.fill(va, frame, prot.contains(Prot::READ), prot.contains(Prot::WRITE));
                }
                Ok(Place::Ram(frame))
            }
            Target::Device(pa) => Ok(Place::Device(pa)),
        }
    }

    /// Reads N bytes at a linear address.
    #[inline(always)]
    pub(crate) fn load<const N: usize>(&mut self, env: &mut Env<'_>, va: u64) -> R<[u8; N]> {
        let entry = self.tlb.entry(va);
        let off = va as usize % PAGE_SIZE;
        if entry.read == va >> 12
            && off <= PAGE_SIZE - N
            && let Some(frame) = entry.frame
        {
            let mut out = [0; N];
            out.copy_from_slice(&env.mem.frame(frame)[off..off + N]);
            self.note(va, N, false);
            return Ok(out);
        }
        self.load_slow(env, va)
    }

    #[inline(never)]
    fn load_slow<const N: usize>(&mut self, env: &mut Env<'_>, va: u64) -> R<[u8; N]> {
        let mut out = [0; N];
        let off = va as usize % PAGE_SIZE;
        let first = (PAGE_SIZE - off).min(N);
        let a = self.resolve(env, va, false)?;
        let b = if first < N { Some(self.resolve(env, va.wrapping_add(first as u64), false)?) } else { None };
        self.note(va, N, false);
        self.fetch(env, a, off, &mut out[..first]);
        if let Some(b) = b {
            self.fetch(env, b, 0, &mut out[first..]);
        }
        Ok(out)
    }

    fn fetch(&mut self, env: &mut Env<'_>, place: Place, off: usize, out: &mut [u8]) {
        match place {
            Place::Ram(frame) => out.copy_from_slice(&env.mem.frame(frame)[off..off + out.len()]),
            Place::Device(pa) => {
                self.after |= after::DEVICE;
                // An access of an odd size, as one that crosses a page makes, is split into bytes.
                let unit = if out.len() > 8 && out.len().is_multiple_of(8) { 8 } else { out.len() };
                let unit = if matches!(unit, 1 | 2 | 4 | 8) { unit } else { 1 };
                for (i, chunk) in out.chunks_mut(unit).enumerate() {
                    let v = env.bus.mmio_read(Pa(pa.0.wrapping_add((i * unit) as u64)), unit as u8);
                    chunk.copy_from_slice(&v.to_le_bytes()[..unit]);
                }
            }
        }
    }

    /// Writes N bytes at a linear address; all or nothing.
    #[inline(always)]
    pub(crate) fn store<const N: usize>(&mut self, env: &mut Env<'_>, va: u64, data: [u8; N]) -> R<()> {
        let entry = self.tlb.entry(va);
        let off = va as usize % PAGE_SIZE;
        if entry.write == va >> 12
            && off <= PAGE_SIZE - N
            && let Some(frame) = entry.frame
        {
            if env.mem.store(frame, off, data) {
                self.after |= after::CODE;
            }
            self.note(va, N, true);
            return Ok(());
        }
        self.store_slow(env, va, &data)
    }

    #[inline(never)]
    fn store_slow(&mut self, env: &mut Env<'_>, va: u64, data: &[u8]) -> R<()> {
        let off = va as usize % PAGE_SIZE;
        let first = (PAGE_SIZE - off).min(data.len());
        let a = self.resolve(env, va, true)?;
        let b = if first < data.len() {
            Some(self.resolve(env, va.wrapping_add(first as u64), true)?)
        } else {
            None
        };
        self.note(va, data.len(), true);
        if self.hold && matches!(a, Place::Ram(_)) && b.is_none_or(|b| matches!(b, Place::Ram(_))) {
            self.held.push((va, data.to_vec()));
            return Ok(());
        }
        self.put(env, a, off, &data[..first]);
        if let Some(b) = b {
            self.put(env, b, 0, &data[first..]);
        }
        Ok(())
    }

    /// Records an access, when accesses are recorded.
    #[inline(always)]
    fn note(&mut self, va: u64, len: usize, write: bool) {
        if self.logging {
            self.log.push(MemoryAccess { retired: self.done, rip: self.regs.rip, va, len: len as u8, write });
        }
    }

    fn put(&mut self, env: &mut Env<'_>, place: Place, off: usize, data: &[u8]) {
        match place {
            Place::Ram(frame) => {
                for (i, &byte) in data.iter().enumerate() {
                    if env.mem.store(frame, off + i, [byte]) {
                        self.after |= after::CODE;
                    }
                }
            }
            Place::Device(pa) => {
                self.after |= after::DEVICE;
                let unit = if data.len() > 8 && data.len().is_multiple_of(8) { 8 } else { data.len() };
                let unit = if matches!(unit, 1 | 2 | 4 | 8) { unit } else { 1 };
                for (i, chunk) in data.chunks(unit).enumerate() {
                    let mut v = [0; 8];
                    v[..unit].copy_from_slice(chunk);
                    env.bus.mmio_write(
                        Pa(pa.0.wrapping_add((i * unit) as u64)),
                        unit as u8,
                        u64::from_le_bytes(v),
                    );
                }
            }
        }
    }

    /// Faults now if a write of that many bytes would, so that an instruction with several effects can't fail
    /// halfway.
    #[inline(always)]
    pub(crate) fn probe_write(&mut self, env: &mut Env<'_>, va: u64, size: usize) -> R<()> {
        let off = va as usize % PAGE_SIZE;
        if self.tlb.entry(va).write == va >> 12 && off + size <= PAGE_SIZE {
            return Ok(());
        }
        self.resolve(env, va, true)?;
        if off + size > PAGE_SIZE {
            self.resolve(env, va.wrapping_add((PAGE_SIZE - off) as u64), true)?;
        }
        Ok(())
    }

    /// Reads 1, 2, 4 or 8 bytes, zero-extended.
    #[inline(always)]
    pub(crate) fn load_n(&mut self, env: &mut Env<'_>, va: u64, size: u8) -> R<u64> {
        Ok(match size {
            1 => u64::from(self.load::<1>(env, va)?[0]),
            2 => u64::from(u16::from_le_bytes(self.load(env, va)?)),
            4 => u64::from(u32::from_le_bytes(self.load(env, va)?)),
            8 => u64::from_le_bytes(self.load(env, va)?),
            _ => return Err(Stop::Unsupported),
        })
    }

    /// Writes the low 1, 2, 4 or 8 bytes.
    #[inline(always)]
    pub(crate) fn store_n(&mut self, env: &mut Env<'_>, va: u64, size: u8, v: u64) -> R<()> {
        match size {
            1 => self.store(env, va, [v as u8]),
            2 => self.store(env, va, (v as u16).to_le_bytes()),
            4 => self.store(env, va, (v as u32).to_le_bytes()),
            8 => self.store(env, va, v.to_le_bytes()),
            _ => Err(Stop::Unsupported),
        }
    }

    /// Reads a general operand, zero-extended from `size` bytes.
    #[inline(always)]
    pub(crate) fn get(&mut self, env: &mut Env<'_>, op: &Op, opd: Opd, size: u8) -> R<u64> {
        match opd {
            Opd::Reg(n) => Ok(self.regs.gpr[usize::from(n & 15)] & mask(size)),
            Opd::High(n) => Ok(self.regs.gpr[usize::from(n & 3)] >> 8 & 0xff),
            Opd::Imm => Ok(op.imm & mask(size)),
            Opd::Mem => self.load_n(env, self.ea(op), size),
            Opd::None | Opd::Xmm(_) => Err(Stop::Unsupported),
        }
    }

    /// Writes a general operand: 4 bytes clear the upper half of a register, 1 and 2 keep the rest.
    #[inline(always)]
    pub(crate) fn put_opd(&mut self, env: &mut Env<'_>, op: &Op, opd: Opd, size: u8, v: u64) -> R<()> {
        match opd {
            Opd::Reg(n) => {
                let reg = &mut self.regs.gpr[usize::from(n & 15)];
                *reg = match size {
                    8 => v,
                    4 => v & 0xffff_ffff,
                    _ => *reg & !mask(size) | v & mask(size),
                };
                Ok(())
            }
            Opd::High(n) => {
                let reg = &mut self.regs.gpr[usize::from(n & 3)];
                *reg = *reg & !0xff00 | (v & 0xff) << 8;
                Ok(())
            }
            Opd::Mem => self.store_n(env, self.ea(op), size, v),
            Opd::Imm | Opd::None | Opd::Xmm(_) => Err(Stop::Unsupported),
        }
    }

    /// Reads an operand that will be written: a page that can't be written faults as a write, before anything.
    #[inline(always)]
    pub(crate) fn get_rmw(&mut self, env: &mut Env<'_>, op: &Op, opd: Opd, size: u8) -> R<u64> {
        if opd == Opd::Mem {
            self.probe_write(env, self.ea(op), usize::from(size))?;
        }
        self.get(env, op, opd, size)
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, env: &mut Env<'_>, v: u64, size: u8) -> R<()> {
        let rsp = self.regs.gpr[4].wrapping_sub(u64::from(size));
        if !Va(rsp).is_canonical() {
            return self.raise(Exception::StackFault);
        }
        self.store_n(env, rsp, size, v)?;
        self.regs.gpr[4] = rsp;
        Ok(())
    }

    /// What `pop` would read; rsp stays.
    #[inline(always)]
    pub(crate) fn peek(&mut self, env: &mut Env<'_>, at: u64, size: u8) -> R<u64> {
        if !Va(at).is_canonical() {
            return self.raise(Exception::StackFault);
        }
        self.load_n(env, at, size)
    }

    #[inline(always)]
    pub(crate) fn pop(&mut self, env: &mut Env<'_>, size: u8) -> R<u64> {
        let v = self.peek(env, self.regs.gpr[4], size)?;
        self.regs.gpr[4] = self.regs.gpr[4].wrapping_add(u64::from(size));
        Ok(v)
    }

    /// A jump to a computed address.
    #[inline(always)]
    pub(crate) fn jump(&mut self, target: u64) -> R<()> {
        if !Va(target).is_canonical() {
            return self.raise(Exception::GeneralProtection(0));
        }
        self.next = target;
        Ok(())
    }

    #[inline(always)]
    fn ret(&mut self, env: &mut Env<'_>, op: &Op) -> R<()> {
        let rsp = self.regs.gpr[4];
        let target = self.peek(env, rsp, 8)?;
        self.jump(target)?;
        self.regs.gpr[4] = rsp.wrapping_add(8).wrapping_add(op.imm & 0xffff);
        Ok(())
    }
}
