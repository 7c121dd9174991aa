//! The compact operations that blocks are made of.

use iced_x86::Mnemonic;

/// An operand, resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opd {
    None,
    /// A general register, of the operand's size.
    Reg(u8),
    /// ah, ch, dh or bh: bits 15 to 8 of that register.
    High(u8),
    /// The memory operand.
    Mem,
    /// The immediate.
    Imm,
    Xmm(u8),
}

/// How an operation is run: the frequent forms have an arm of their own, the rest is told apart by mnemonic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum K {
    MovRR64,
    MovRR32,
    /// The immediate, already as wide as the register gets it.
    MovRI,
    Ld64,
    Ld32,
    St64,
    St32,
    Lea64,
    Add64RR,
    Add64RI,
    Add32RR,
    Add32RI,
    Sub64RR,
    Sub64RI,
    Sub32RR,
    Sub32RI,
    And64RR,
    And64RI,
    And32RR,
    And32RI,
    Or64RR,
    Or64RI,
    Or32RR,
    Or32RI,
    Xor64RR,
    Xor64RI,
    Xor32RR,
    Xor32RI,
    Cmp64RR,
    Cmp64RI,
    Cmp32RR,
    Cmp32RI,
    Test64RR,
    Test64RI,
    Test32RR,
    Test32RI,
    Jcc,
    Jmp,
    Call,
    Ret,
    PushR,
    PopR,
    /// The other integer instructions.
    Int,
    Str,
    Sys,
    Sse,
    /// Not an instruction: #UD.
    Invalid,
    /// An instruction outside of what the engine has.
    Lacks,
}

/// How an operation is run in a block that is run whole. `Nf` forms leave the flags alone, where the block sets
/// them again before anything could see them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fast {
    /// As its [`K`] says.
    Slow,
    Mov64,
    Mov32,
    MovI,
    Lea,
    Lea32,
    /// Moves that widen: from a byte, a word with zeroes, a doubleword with its sign.
    Zx8,
    Zx16,
    Sxd,
    Set,
    Cmov64,
    Cmov32,
    Load64,
    Load32,
    Load16Zx,
    Load8Zx,
    Load8,
    Load32Sx,
    /// A register and what is in memory; and memory with a register or an immediate.
    Add64RM,
    Add32RM,
    Sub64RM,
    Sub32RM,
    Cmp64RM,
    Cmp32RM,
    Cmp64MR,
    Cmp32MR,
    Cmp64MI,
    Cmp32MI,
    Cmp8MI,
    Store64,
    Store32,
    Store16,
    Store8,
    Store64I,
    Store32I,
    Load128,
    Store128,
    Add64RR,
    Add64RRNf,
    Add64RI,
    Add64RINf,
    Add32RR,
    Add32RRNf,
    Add32RI,
    Add32RINf,
    Sub64RR,
    Sub64RRNf,
    Sub64RI,
    Sub64RINf,
    Sub32RR,
    Sub32RRNf,
    Sub32RI,
    Sub32RINf,
    And64RR,
    And64RRNf,
    And64RI,
    And64RINf,
    And32RR,
    And32RRNf,
    And32RI,
    And32RINf,
    Or64RR,
    Or64RRNf,
    Or64RI,
    Or64RINf,
    Or32RR,
    Or32RRNf,
    Or32RI,
    Or32RINf,
    Xor64RR,
    Xor64RRNf,
    Xor64RI,
    Xor64RINf,
    Xor32RR,
    Xor32RRNf,
    Xor32RI,
    Xor32RINf,
    Cmp64RR,
    Cmp64RRNf,
    Cmp64RI,
    Cmp64RINf,
    Cmp32RR,
    Cmp32RRNf,
    Cmp32RI,
    Cmp32RINf,
    Test64RR,
    Test64RRNf,
    Test64RI,
    Test64RINf,
    Test32RR,
    Test32RRNf,
    Test32RI,
    Test32RINf,
    Inc64,
    Inc32,
    Dec64,
    Dec32,
    Jz,
    Jnz,
    Jb,
    Jae,
    Jbe,
    Ja,
    Js,
    Jns,
    Jl,
    Jge,
    Jle,
    Jg,
    Jcc,
    Jmp,
    Call,
    Ret,
    Push,
    Pop,
}

/// No base or no index register.
pub(crate) const NO_REG: u8 = 0xff;

/// One pre-decoded instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) k: K,
    pub(crate) fast: Fast,
    /// Numbers of the registers that `a` and `b` are.
    pub(crate) ra: u8,
    pub(crate) rb: u8,
    /// Bytes from the start of the block.
    pub(crate) off: u16,
    pub(crate) mn: Mnemonic,
    pub(crate) a: Opd,
    pub(crate) b: Opd,
    pub(crate) c: Opd,
    /// The first source of a vector instruction: `a` unless it names three registers.
    pub(crate) s1: Opd,
    /// A fourth operand.
    pub(crate) d: Opd,
    /// Of vector instructions: 0 for an SSE form, else the bytes of the vectors.
    pub(crate) vl: u8,
    /// There is an immediate.
    pub(crate) has_imm: bool,
    /// Bytes of operand `a`; of a string instruction's element; of a stack instruction's slot.
    pub(crate) size: u8,
    /// Bytes of operand `b`.
    pub(crate) bsize: u8,
    /// Bytes of the instruction.
    pub(crate) len: u8,
    /// Condition code; or of string instructions 1 for `rep`/`repe` and 2 for `repne`.
    pub(crate) aux: u8,
    pub(crate) base: u8,
    pub(crate) index: u8,
    pub(crate) shift: u8,
    /// 0 none, 1 `fs:`, 2 `gs:`.
    pub(crate) seg: u8,
    /// The address is cut to 32 bits before the segment base is added.
    pub(crate) addr32: bool,
    /// Displacement; absolute for `rip`-relative operands.
    pub(crate) disp: u64,
    /// Immediate, sign-extended; absolute target of direct branches.
    pub(crate) imm: u64,
}
