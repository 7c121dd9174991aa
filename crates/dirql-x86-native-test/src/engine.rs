//! The engine's side.

use crate::case::{AT, CODE, Case, DATA, PAD, State};
use dirql_mem::{Memory, Pa, Prot, Va};
use dirql_x86::{Bus, Cpu, Exception, Exit};

/// No device, no port.
pub struct NoBus;

impl Bus for NoBus {
    fn mmio_read(&mut self, _: Pa, _: u8) -> u64 {
        0
    }
    fn mmio_write(&mut self, _: Pa, _: u8, _: u64) {}
    fn port_in(&mut self, _: u16, _: u8) -> u32 {
        0
    }
    fn port_out(&mut self, _: u16, _: u8, _: u32) {}
    fn rdtsc(&mut self, retired: u64) -> u64 {
        retired
    }
    fn rdmsr(&mut self, _: u32) -> Option<u64> {
        None
    }
    fn wrmsr(&mut self, _: u32, _: u64) -> bool {
        false
    }
}

/// A machine that runs case after case.
pub struct Engine {
    cpu: Cpu,
    mem: Memory,
}

impl Default for Engine {
    fn default() -> Engine {
        let mut mem = Memory::new(1 << 20);
        if let Ok(pa) = mem.alloc_frames(4) {
            mem.map_ram(Va(CODE), pa, 1, Prot::READ | Prot::WRITE | Prot::EXEC);
            mem.map_ram(Va(DATA), Pa(pa.0 + 0x1000), 2, Prot::READ | Prot::WRITE);
            mem.map_ram(Va(DATA + 0x2000), Pa(pa.0 + 0x3000), 1, Prot::READ);
        }
        Engine { cpu: Cpu::new(0), mem }
    }
}

impl Engine {
    /// Runs it; `Err` when the engine says that it lacks the instruction.
    pub fn run(&mut self, case: &Case) -> Result<State, String> {
        let Engine { cpu, mem } = self;
        let outside = |e: dirql_mem::MemFault| e.to_string();
        mem.write(Va(AT), &case.bytes).map_err(outside)?;
        mem.write(Va(case.window), &case.before.memory).map_err(outside)?;
        let b = &case.before;
        cpu.regs.gpr = b.gpr;
        cpu.regs.rip = AT;
        cpu.regs.rflags = b.rflags;
        cpu.regs.mxcsr = b.mxcsr as u32;
        cpu.cr2 = 0;
        for (n, v) in b.ymm.iter().enumerate() {
            cpu.regs.xmm[n] = v[0];
            cpu.regs.ymm_high[n] = v[1];
        }
        let code = &case.bytes[..case.len as usize];
        let decoded = iced_x86::Decoder::with_ip(64, code, AT, iced_x86::DecoderOptions::NONE).decode();
        let repeats = (decoded.has_rep_prefix() || decoded.has_repne_prefix())
            && decoded.is_string_instruction()
            && b.gpr[1] < 16;
        let mut exit = Exit::Budget;
        // Half of the cases are run as a whole block, with the 0xcc that follows: the engine has a quicker way then.
        let block = !repeats
            && case.bytes[case.len as usize..].first() == Some(&0xcc)
            && decoded.flow_control() == iced_x86::FlowControl::Next
            && !decoded.is_string_instruction()
            && b.gpr[0] & 1 == 0;
        let budget = if repeats { u64::from(b.gpr[1] as u32).max(1) } else { 1 + u64::from(block) };
        for _ in 0..64 {
            // A repeated string instruction stops after each repetition.
            exit = cpu.run(mem, &mut NoBus, budget).1;
            if exit != Exit::Budget || cpu.regs.rip != AT {
                break;
            }
        }
        let mut out =
            State { gpr: cpu.regs.gpr, rflags: cpu.regs.rflags, mxcsr: u64::from(cpu.regs.mxcsr), ..*b };
        (out.exit, out.error, out.cr2) = match exit {
            Exit::Budget | Exit::Pause if cpu.regs.rip == AT + case.len => (0, 0, 0),
            Exit::Budget if cpu.regs.rip == PAD => (1, 0, 0),
            // A comparison that ended early: the engine went on, into the 0xcc that follows.
            Exit::Exception(Exception::Breakpoint) if (repeats || block) && cpu.regs.rip == AT + case.len => {
                (0, 0, 0)
            }
            Exit::Exception(e) => match e {
                Exception::DivideError => (0x100, 0, 0),
                Exception::Breakpoint => (0x103, 0, 0),
                Exception::InvalidOpcode => (0x106, 0, 0),
                Exception::StackFault => (0x10c, 0, 0),
                Exception::GeneralProtection(_) => (0x10d, 0, 0),
                Exception::PageFault { addr, write, present, .. } => {
                    (0x10e, u64::from(present) | u64::from(write) << 1, addr)
                }
                Exception::X87 => (0x110, 0, 0),
                Exception::AlignmentCheck => (0x111, 0, 0),
                Exception::Simd => (0x113, 0, 0),
                other => return Err(format!("ended with {other}")),
            },
            Exit::Unsupported { text, .. } => return Err(text),
            other => return Err(format!("ended with {other:?} at {:#x}", cpu.regs.rip)),
        };
        for (n, v) in out.ymm.iter_mut().enumerate() {
            *v = [cpu.regs.xmm[n], cpu.regs.ymm_high[n]];
        }
        mem.read(Va(case.window), &mut out.memory).map_err(outside)?;
        Ok(out)
    }
}
