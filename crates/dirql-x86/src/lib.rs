//! The x86-64 engine of dirql: a pre-decoded interpreter exact to one instruction.
//!
//! It models a processor in 64-bit mode at ring 0 after the Intel 64 and IA-32 Architectures Software
//! Developer's Manual ("SDM"). Instructions are decoded once into compact operations, kept in blocks, and run
//! by a loop. [`Cpu::run`] stops exactly where its budget ends, at gates (see [`dirql_mem::Prot::GATE`]), at
//! what an embedder must see (device accesses, CR8, the interrupt flag, `hlt`), and at exceptions, which are
//! precise: the faulting instruction has changed nothing.
//!
//! Left out: x87 and MMX arithmetic, gathers, rings other than 0, descriptor tables, debug registers' effects. A valid
//! instruction that is lacking ends the run with [`Exit::Unsupported`] and its text. CPUID tells only of what
//! is there.

mod block;
mod cpuid;
mod decode;
mod exception;
mod exec;
mod exit;
mod flags;
mod op;
mod regs;
mod soft;
mod tlb;

pub use exception::Exception;
pub use exit::{Bus, Exit};
pub use flags::rflags;
pub use regs::{Cpu, MemoryAccess, Regs};
