//! The processor's registers.

use crate::block::Cache;
use crate::exception::Exception;
use crate::flags::Flags;
use crate::tlb::Tlb;

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
    /// Bits 255 to 128 of ymm0 to ymm15.
    pub ymm_high: [u128; 16],
    /// SSE control and status.
    pub mxcsr: u32,
    /// x87 control word. There is no other x87 state: x87 instructions are lacking.
    pub fcw: u16,
}

impl Default for Regs {
    fn default() -> Regs {
        Regs {
            gpr: [0; 16],
            rip: 0,
            rflags: crate::rflags::FIXED,
            xmm: [0; 16],
            ymm_high: [0; 16],
            mxcsr: 0x1f80,
            fcw: 0x27f,
        }
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
    /// CR3, kept but not used: the map is [`dirql_mem::Memory`]'s.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// XCR0: the state components that are on. Bit 0 x87, 1 SSE, 2 AVX.
    pub xcr0: u64,
    /// Debug registers, kept without effect.
    pub dr: [u64; 8],
    id: u32,
    // What follows is scratch of a run, or can be made anew from memory.
    /// Absent only during a run.
    pub(crate) cache: Option<Cache>,
    pub(crate) tlb: Tlb,
    pub(crate) map_generation: u64,
    pub(crate) code_generation: u64,
    /// The arithmetic flags during a run.
    pub(crate) flags: Flags,
    /// Where the operation being run continues.
    pub(crate) next: u64,
    /// Bits of `exec::after`.
    pub(crate) after: u8,
    /// An address wasn't canonical; `exec` makes it a stack fault where it is one.
    pub(crate) non_canonical: bool,
    /// Why an operation stopped with `Stop::Exception`.
    pub(crate) exception: Exception,
    /// Instructions retired in this run.
    pub(crate) done: u64,
    /// Budget left at a string or system operation.
    pub(crate) left: u64,
    /// Accesses are recorded, here.
    pub(crate) logging: bool,
    pub(crate) log: Vec<MemoryAccess>,
    /// Stores to RAM are held back.
    pub(crate) hold: bool,
    /// Stores held back, in order.
    pub(crate) held: Vec<(u64, Vec<u8>)>,
}

/// One access of an instruction to memory, as [`Cpu::set_logging`] has it recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryAccess {
    /// Instructions of this run that had retired before the accessing one.
    pub retired: u64,
    /// The accessing instruction.
    pub rip: u64,
    /// The linear address of the first byte.
    pub va: u64,
    /// How many bytes.
    pub len: u8,
    /// A write; else a read. An instruction that does both makes two records.
    pub write: bool,
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cpu")
            .field("id", &self.id)
            .field("regs", &self.regs)
            .field("cr8", &self.cr8)
            .finish_non_exhaustive()
    }
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
            // With OSXSAVE, as Windows sets it.
            cr4: 0x4_06f8,
            xcr0: 7,
            dr: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            id,
            cache: Some(Cache::default()),
            tlb: Tlb::new(),
            map_generation: 0,
            code_generation: 0,
            flags: Flags::default(),
            non_canonical: false,
            next: 0,
            after: 0,
            exception: Exception::InvalidOpcode,
            done: 0,
            left: 0,
            logging: false,
            log: Vec::new(),
            hold: false,
            held: Vec::new(),
        }
    }

    /// Starts or ends the recording of memory accesses, instruction fetches apart. Nothing bounds the record but the
    /// budget of the runs: an instruction makes a few entries.
    pub fn set_logging(&mut self, on: bool) {
        if on != self.logging {
            self.logging = on;
            self.log = Vec::new();
        }
    }

    /// Takes the accesses recorded since the last call.
    pub fn take_log(&mut self) -> Vec<MemoryAccess> {
        std::mem::take(&mut self.log)
    }

    /// The accesses recorded, oldest first.
    pub fn log(&self) -> &[MemoryAccess] {
        &self.log
    }

    /// Forgets the accesses recorded, and keeps the room they took: quicker than [`take_log`](Self::take_log).
    pub fn clear_log(&mut self) {
        self.log.clear();
    }

    /// From now on stores to RAM are held back until [`Cpu::release_stores`]. Around one unlocked
    /// read-modify-write instruction this is what other processors see of it: its read now, its write later.
    pub fn hold_stores(&mut self) {
        self.hold = true;
        self.tlb.flush();
    }

    /// Ends the holding, and makes the held stores visible, in order.
    ///
    /// # Errors
    /// A page that could be written when the instruction ran no longer can.
    pub fn release_stores(&mut self, mem: &mut dirql_mem::Memory) -> Result<(), dirql_mem::MemFault> {
        self.hold = false;
        for (va, data) in std::mem::take(&mut self.held) {
            mem.write(dirql_mem::Va(va), &data)?;
        }
        Ok(())
    }

    /// Whether stores are held back.
    pub fn holds_stores(&self) -> bool {
        self.hold
    }

    /// The APIC ID.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Forgets decoded blocks and translations: needed before running with a memory that isn't the one of the
    /// last run, or a clone of it taken together with this processor.
    pub fn flush_caches(&mut self) {
        self.cache = None;
        self.tlb.flush();
    }
}
