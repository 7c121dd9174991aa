//! The processor's registers.

use crate::exit::{Bus, Exit};
use dirql_mem::Memory;

/// The registers a thread of the guest owns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Regs {
    /// rax rcx rdx rbx rsp rbp rsi rdi r8 to r15.
    pub gpr: [u64; 16],
    /// Address of the next instruction.
    pub rip: u64,
    /// RFLAGS; up to date whenever the engine isn't running.
    pub rflags: u64,
    /// xmm0 to xmm15.
    pub xmm: [u128; 16],
    /// SSE control and status.
    pub mxcsr: u32,
    /// x87 control word. There is no other x87 state: x87 instructions are lacking.
    pub fcw: u16,
}

impl Default for Regs {
    fn default() -> Regs {
        Regs { gpr: [0; 16], rip: 0, rflags: crate::rflags::FIXED, xmm: [0; 16], mxcsr: 0x1f80, fcw: 0x27f }
    }
}

/// One processor.
#[derive(Clone)]
pub struct Cpu {
    /// The registers a context switch saves.
    pub regs: Regs,
    /// The task priority: the IRQL on Windows.
    pub cr8: u8,
    /// Base of `gs:`, the KPCR in kernel mode.
    pub gs_base: u64,
    /// What `swapgs` exchanges with `gs_base`.
    pub kernel_gs_base: u64,
    /// Base of `fs:`.
    pub fs_base: u64,
    /// CR0.
    pub cr0: u64,
    /// CR2: the address of the last page fault.
    pub cr2: u64,
    /// CR3, kept but not used: the map is [`Memory`]'s.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// Debug registers, kept without effect.
    pub dr: [u64; 8],
    id: u32,
}

impl Cpu {
    /// A processor with that APIC ID, in 64-bit mode with paging on and interrupts off.
    pub fn new(id: u32) -> Cpu {
        Cpu {
            regs: Regs::default(),
            cr8: 0,
            gs_base: 0,
            kernel_gs_base: 0,
            fs_base: 0,
            cr0: 0x8005_0033,
            cr2: 0,
            cr3: 0,
            cr4: 0x6f8,
            dr: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            id,
        }
    }

    /// The APIC ID.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Runs at most `budget` instructions; a repeated string instruction counts once for each repetition.
    /// Returns how many retired, and why it stopped.
    pub fn run<B: Bus>(&mut self, mem: &mut Memory, bus: &mut B, budget: u64) -> (u64, Exit) {
        let _ = (mem, bus, budget);
        (0, Exit::Unsupported { rip: self.regs.rip, text: "the interpreter".to_string() })
    }
}
