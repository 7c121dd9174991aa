//! Exceptions an instruction can raise.

/// An exception of the SDM's volume 3, chapter 6. Faults and traps alike leave `rip` at the instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exception {
    /// #DE: division by zero or a quotient that doesn't fit.
    DivideError,
    /// #DB: `int1`, or the trap flag.
    Debug,
    /// #BP: `int3`.
    Breakpoint,
    /// #OF: `into` or `int 4`.
    Overflow,
    /// #UD: no such instruction, or `ud2`.
    InvalidOpcode,
    /// #SS: a stack address that isn't canonical.
    StackFault,
    /// #GP with its error code.
    GeneralProtection(u32),
    /// #PF.
    PageFault {
        /// The address that could not be accessed; also in CR2.
        addr: u64,
        /// It was a write.
        write: bool,
        /// It was an instruction fetch.
        execute: bool,
        /// A page is there, but doesn't allow the access.
        present: bool,
    },
    /// #AC.
    AlignmentCheck,
    /// #MF: an x87 error.
    X87,
    /// #XM: an unmasked SSE floating-point exception.
    Simd,
    /// `int 29h`, the fast fail of Windows; the code is ECX.
    FastFail(u32),
    /// `int n` with another number.
    Software(u8),
}

impl std::fmt::Display for Exception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exception::DivideError => f.write_str("divide error (#DE)"),
            Exception::Debug => f.write_str("debug trap (#DB)"),
            Exception::Breakpoint => f.write_str("breakpoint (#BP)"),
            Exception::Overflow => f.write_str("overflow trap (#OF)"),
            Exception::InvalidOpcode => f.write_str("invalid opcode (#UD)"),
            Exception::StackFault => f.write_str("stack fault (#SS)"),
            Exception::GeneralProtection(code) => write!(f, "general protection (#GP({code:#x}))"),
            Exception::PageFault { addr, write, execute, present } => {
                let what = match (execute, write) {
                    (true, _) => "executing",
                    (_, true) => "writing",
                    _ => "reading",
                };
                let why = if *present { "the page forbids it" } else { "no page there" };
                write!(f, "page fault (#PF) {what} {addr:#x}: {why}")
            }
            Exception::AlignmentCheck => f.write_str("alignment check (#AC)"),
            Exception::X87 => f.write_str("x87 floating-point error (#MF)"),
            Exception::Simd => f.write_str("SIMD floating-point exception (#XM)"),
            Exception::FastFail(code) => write!(f, "fast fail with code {code:#x} (int 29h)"),
            Exception::Software(n) => write!(f, "software interrupt {n:#x}"),
        }
    }
}
