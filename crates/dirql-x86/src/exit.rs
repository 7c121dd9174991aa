//! Why a run ended, and what the engine asks of the machine around it.

use crate::Exception;
use dirql_mem::Pa;

/// Why [`Cpu::run`](crate::Cpu::run) returned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The budget is used up, to the instruction.
    Budget,
    /// `rip` (the value) is in a gate page; nothing there was executed. After a call, `[rsp]` is the return address.
    Gate(u64),
    /// `mov cr8` retired: the IRQL changed, so interrupts may be deliverable now.
    Cr8Changed,
    /// `sti`, `popfq` or the like set the interrupt flag.
    InterruptFlag,
    /// An instruction with a device register or port access retired; the bus was called.
    Device,
    /// `hlt` retired.
    Halt,
    /// `pause` retired.
    Pause,
    /// The instruction at `rip` raised this and changed nothing.
    Exception(Exception),
    /// A valid instruction that this engine lacks; nothing changed.
    Unsupported {
        /// Where it is.
        rip: u64,
        /// The instruction in Intel syntax.
        text: String,
    },
}

/// What is outside the processor.
pub trait Bus {
    /// Reads `size` (1, 2, 4 or 8) bytes of a device register.
    fn mmio_read(&mut self, pa: Pa, size: u8) -> u64;
    /// Writes `size` (1, 2, 4 or 8) bytes of a device register.
    fn mmio_write(&mut self, pa: Pa, size: u8, value: u64);
    /// Reads an I/O port of 1, 2 or 4 bytes.
    fn port_in(&mut self, port: u16, size: u8) -> u32;
    /// Writes an I/O port of 1, 2 or 4 bytes.
    fn port_out(&mut self, port: u16, size: u8, value: u32);
    /// The time stamp counter, given how many instructions of this run have retired.
    fn rdtsc(&mut self, retired_in_this_run: u64) -> u64;
    /// Reads a model-specific register that the engine doesn't hold itself; `None` raises #GP.
    fn rdmsr(&mut self, msr: u32) -> Option<u64>;
    /// Writes such a register; false raises #GP.
    fn wrmsr(&mut self, msr: u32, value: u64) -> bool;
}
