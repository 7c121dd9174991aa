//! Lowering: from what `iced-x86` decodes to compact operations.

use crate::op::{Fast, K, NO_REG, Op, Opd};
use iced_x86::{
    Code, ConditionCode, EncodingKind, FlowControl, Instruction, Mnemonic as M, OpKind, Register,
};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What a lowered instruction means for its block.
pub(crate) struct Lowered {
    pub(crate) op: Op,
    /// Control does not simply go on with the next instruction.
    pub(crate) ends: bool,
}

fn operand(i: &Instruction, n: u32) -> Opd {
    if n >= i.op_count() {
        return Opd::None;
    }
    match i.op_kind(n) {
        OpKind::Register => {
            let r = i.op_register(n);
            match r {
                Register::AH | Register::CH | Register::DH | Register::BH => Opd::High(r.number() as u8 & 3),
                _ if r.is_gpr() => Opd::Reg(r.full_register().number() as u8),
                _ if (r.is_xmm() || r.is_ymm()) && r.number() < 16 => Opd::Xmm(r.number() as u8),
                _ => Opd::None,
            }
        }
        OpKind::Memory => Opd::Mem,
        OpKind::Immediate8
        | OpKind::Immediate8_2nd
        | OpKind::Immediate16
        | OpKind::Immediate32
        | OpKind::Immediate64
        | OpKind::Immediate8to16
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => Opd::Imm,
        _ => Opd::None,
    }
}

fn operand_size(i: &Instruction, n: u32) -> usize {
    if n >= i.op_count() {
        return 0;
    }
    match i.op_kind(n) {
        OpKind::Register => i.op_register(n).size(),
        OpKind::Immediate8
        | OpKind::Immediate8_2nd
        | OpKind::Immediate16
        | OpKind::Immediate32
        | OpKind::Immediate64
        | OpKind::Immediate8to16
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => 0,
        _ => i.memory_size().size(),
    }
}

/// A hot form of a two-operand ALU instruction on registers, or `None`.
fn hot_alu(m: M, size: u8, imm: bool) -> Option<K> {
    let forms: [K; 4] = match m {
        M::Add => [K::Add64RR, K::Add64RI, K::Add32RR, K::Add32RI],
        M::Sub => [K::Sub64RR, K::Sub64RI, K::Sub32RR, K::Sub32RI],
        M::And => [K::And64RR, K::And64RI, K::And32RR, K::And32RI],
        M::Or => [K::Or64RR, K::Or64RI, K::Or32RR, K::Or32RI],
        M::Xor => [K::Xor64RR, K::Xor64RI, K::Xor32RR, K::Xor32RI],
        M::Cmp => [K::Cmp64RR, K::Cmp64RI, K::Cmp32RR, K::Cmp32RI],
        M::Test => [K::Test64RR, K::Test64RI, K::Test32RR, K::Test32RI],
        _ => return None,
    };
    match size {
        8 => Some(forms[usize::from(imm)]),
        4 => Some(forms[2 + usize::from(imm)]),
        _ => None,
    }
}

fn string_kind(m: M) -> bool {
    matches!(
        m,
        M::Movsb
            | M::Movsw
            | M::Movsq
            | M::Stosb
            | M::Stosw
            | M::Stosd
            | M::Stosq
            | M::Lodsb
            | M::Lodsw
            | M::Lodsd
            | M::Lodsq
            | M::Scasb
            | M::Scasw
            | M::Scasd
            | M::Scasq
            | M::Cmpsb
            | M::Cmpsw
            | M::Cmpsq
            | M::Insb
            | M::Insw
            | M::Insd
            | M::Outsb
            | M::Outsw
            | M::Outsd
    )
}

fn system_kind(m: M) -> bool {
    matches!(
        m,
        M::Cpuid
            | M::Rdtsc
            | M::Rdtscp
            | M::Rdmsr
            | M::Wrmsr
            | M::Cli
            | M::Sti
            | M::Hlt
            | M::Pause
            | M::In
            | M::Out
            | M::Swapgs
            | M::Lgdt
            | M::Lidt
            | M::Sgdt
            | M::Sidt
            | M::Str
            | M::Sldt
            | M::Ltr
            | M::Lldt
            | M::Smsw
            | M::Clts
            | M::Int
            | M::Int1
            | M::Int3
            | M::Ud0
            | M::Ud1
            | M::Ud2
            | M::Invlpg
            | M::Wbinvd
            | M::Invd
            | M::Clflush
            | M::Clflushopt
            | M::Prefetch
            | M::Prefetchw
            | M::Prefetchnta
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Mfence
            | M::Lfence
            | M::Sfence
            | M::Nop
            | M::Endbr64
            | M::Endbr32
            | M::Fxsave
            | M::Fxsave64
            | M::Fxrstor
            | M::Fxrstor64
            | M::Ldmxcsr
            | M::Stmxcsr
            | M::Rdfsbase
            | M::Rdgsbase
            | M::Wrfsbase
            | M::Wrgsbase
            | M::Xgetbv
            | M::Xsetbv
            | M::Xsave
            | M::Xsave64
            | M::Xsaveopt
            | M::Xsaveopt64
            | M::Xsavec
            | M::Xsavec64
            | M::Xrstor
            | M::Xrstor64
            | M::Iretq
            | M::Fnstcw
            | M::Fldcw
            | M::Fninit
            | M::Wait
            | M::Fnclex
            | M::Reservednop
    )
}

/// Lowers a decoded instruction; `iced` has checked that it is one.
pub(crate) fn lower(i: &Instruction) -> Lowered {
    let m = i.mnemonic();
    let mut op = Op {
        k: K::Int,
        fast: Fast::Slow,
        ra: 0,
        rb: 0,
        off: 0,
        mn: m,
        a: operand(i, 0),
        b: operand(i, 1),
        c: operand(i, 2),
        s1: Opd::None,
        d: operand(i, 3),
        vl: 0,
        has_imm: (0..i.op_count()).any(|n| operand(i, n) == Opd::Imm),
        size: u8::try_from(operand_size(i, 0)).unwrap_or(0),
        bsize: u8::try_from(operand_size(i, 1)).unwrap_or(0),
        len: i.len() as u8,
        aux: 0,
        base: NO_REG,
        index: NO_REG,
        shift: 0,
        seg: 0,
        addr32: false,
        disp: 0,
        imm: 0,
    };
    let mut strange = false;
    let mut vector = false;
    for n in 0..i.op_count() {
        match i.op_kind(n) {
            OpKind::Register => {
                let r = i.op_register(n);
                vector |= r.is_xmm() || r.is_ymm();
                strange |= r.is_zmm() || r.is_mm() || r.is_st() || r.is_k() || r.is_bnd() || r.is_tmm();
                if r.is_segment_register() || r.is_cr() || r.is_dr() {
                    op.k = K::Sys;
                    // Control and debug registers are named by their number in `aux`; segments by 0x80 on.
                    op.aux = r.number() as u8
                        | if r.is_dr() { 0x40 } else { 0 }
                        | if r.is_segment_register() { 0x80 } else { 0 };
                }
            }
            OpKind::Memory => {
                op.disp = i.memory_displacement64();
                let base = i.memory_base();
                let index = i.memory_index();
                if base.is_gpr() {
                    op.base = base.number() as u8;
                }
                if index.is_gpr() {
                    op.index = index.number() as u8;
                } else if index != Register::None {
                    strange = true;
                }
                op.shift = i.memory_index_scale().trailing_zeros() as u8;
                op.addr32 = base.is_gpr32() || index.is_gpr32() || base == Register::EIP;
            }
            OpKind::NearBranch64 => op.imm = i.near_branch_target(),
            OpKind::FarBranch16 | OpKind::FarBranch32 | OpKind::NearBranch16 | OpKind::NearBranch32 => {
                strange = true
            }
            OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegEDI => op.addr32 = true,
            OpKind::Immediate8_2nd => {}
            OpKind::MemorySegRSI | OpKind::MemoryESRDI | OpKind::MemorySegRDI => {}
            _ => op.imm = i.immediate(n),
        }
    }
    op.seg = match i.memory_segment() {
        Register::FS => 1,
        Register::GS => 2,
        _ => 0,
    };
    if i.condition_code() != ConditionCode::None {
        op.aux = condition(i.condition_code());
    }
    let ends = i.flow_control() != FlowControl::Next;
    let evex = !matches!(i.encoding(), EncodingKind::Legacy | EncodingKind::VEX);
    let vex = i.encoding() == EncodingKind::VEX;
    vector |= matches!(m, M::Vzeroupper | M::Vzeroall | M::Vldmxcsr | M::Vstmxcsr);
    // With a memory operand these name no vector register.
    vector |= matches!(plain(m), M::Cvtsd2si | M::Cvttsd2si | M::Cvtss2si | M::Cvttss2si);
    if strange || evex || i.is_jcc_short_or_near() && op.size == 2 {
        op.k = K::Lacks;
    } else if string_kind(m)
        || m == M::Movsd && !vector && i.op_count() == 2 && op.a == Opd::None
        || m == M::Cmpsd && op.a == Opd::None
    {
        op.k = K::Str;
        op.size = i.memory_size().size() as u8;
        op.aux = if i.has_repne_prefix() { 2 } else { u8::from(i.has_rep_prefix()) };
        return Lowered { op, ends: op.aux != 0 };
    } else if vector {
        op.k = K::Sse;
        vector_form(&mut op, i, vex);
    } else if system_kind(m) {
        op.k = K::Sys;
        if m == M::Pause || m == M::Nop {
            op.aux = 0;
        }
    } else if op.k == K::Int {
        hot(&mut op, i);
    }
    Lowered { op, ends }
}

/// Brings the two, three and four operand forms to one: destination `a`, sources `s1` and `b`, then `d`; and the
/// mnemonic to that of SSE where there is one.
fn vector_form(op: &mut Op, i: &Instruction, vex: bool) {
    op.s1 = op.a;
    if !vex {
        return;
    }
    let ymm = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_ymm());
    op.vl = if ymm || i.memory_size().size() == 32 { 32 } else { 16 };
    op.mn = plain(op.mn);
    match op.c {
        Opd::None => {}
        // A shift by an immediate has a destination of its own.
        Opd::Imm if i.op_count() == 3 => {
            if shifts_by_imm(op.mn) {
                op.s1 = op.b;
                op.b = Opd::Imm;
            }
        }
        _ => {
            op.s1 = op.b;
            op.b = op.c;
            op.bsize = u8::try_from(operand_size(i, 2)).unwrap_or(0);
        }
    }
}

fn shifts_by_imm(m: M) -> bool {
    matches!(
        m,
        M::Psllw
            | M::Pslld
            | M::Psllq
            | M::Psrlw
            | M::Psrld
            | M::Psrlq
            | M::Psraw
            | M::Psrad
            | M::Pslldq
            | M::Psrldq
    )
}

/// The SSE mnemonic of an AVX one, or itself: `vpaddb` does to each half what `paddb` does.
fn plain(m: M) -> M {
    static TABLE: LazyLock<Vec<M>> = LazyLock::new(|| {
        let names: BTreeMap<String, M> = M::values().map(|m| (format!("{m:?}").to_lowercase(), m)).collect();
        M::values()
            .map(|m| {
                let name = format!("{m:?}").to_lowercase();
                name.strip_prefix('v').and_then(|n| names.get(n)).copied().unwrap_or(m)
            })
            .collect()
    });
    TABLE.get(m as usize).copied().unwrap_or(m)
}

/// Chooses a frequent form.
fn hot(op: &mut Op, i: &Instruction) {
    use Opd::{Imm, Mem, Reg};
    op.k = match (op.mn, op.a, op.b, op.size) {
        (M::Mov, Reg(_), Reg(_), 8) => K::MovRR64,
        (M::Mov, Reg(_), Reg(_), 4) => K::MovRR32,
        (M::Mov, Reg(_), Imm, 8) => K::MovRI,
        (M::Mov, Reg(_), Imm, 4) => {
            op.imm &= 0xffff_ffff;
            K::MovRI
        }
        (M::Mov, Reg(_), Mem, 8) => K::Ld64,
        (M::Mov, Reg(_), Mem, 4) => K::Ld32,
        (M::Mov, Mem, Reg(_), 8) => K::St64,
        (M::Mov, Mem, Reg(_), 4) => K::St32,
        (M::Lea, Reg(_), Mem, 8) => K::Lea64,
        (_, Reg(_), Reg(_), size) if op.bsize == size => hot_alu(op.mn, size, false).unwrap_or(K::Int),
        (_, Reg(_), Imm, size) => {
            if let Some(k) = hot_alu(op.mn, size, true) {
                if size == 4 {
                    op.imm &= 0xffff_ffff;
                }
                k
            } else {
                K::Int
            }
        }
        (M::Push, Reg(_), _, 8) => K::PushR,
        (M::Pop, Reg(_), _, 8) => K::PopR,
        (M::Call, Opd::None, ..) => K::Call,
        (M::Jmp, Opd::None, ..) => K::Jmp,
        (M::Ret, ..) => K::Ret,
        _ if i.is_jcc_short_or_near() => K::Jcc,
        _ => K::Int,
    };
    if matches!(op.mn, M::Push | M::Pop) && op.size == 0 {
        // An immediate: 8 bytes on the stack unless the operand-size prefix says 2.
        op.size = if i.stack_pointer_increment().unsigned_abs() == 2 { 2 } else { 8 };
    }
    if op.mn == M::Leave {
        op.aux = if i.code() == Code::Leavew { 2 } else { 8 };
    }
    if matches!(op.mn, M::Loop | M::Loope | M::Loopne) {
        // The counter is ecx with an address-size prefix.
        op.addr32 =
            matches!(i.code(), Code::Loop_rel8_64_ECX | Code::Loope_rel8_64_ECX | Code::Loopne_rel8_64_ECX);
    }
    if op.mn == M::Enter {
        op.imm = u64::from(i.immediate16());
        op.aux = u8::from(i.immediate8_2nd() != 0 || i.code() != Code::Enterq_imm16_imm8);
    }
}

fn condition(cc: ConditionCode) -> u8 {
    match cc {
        ConditionCode::None | ConditionCode::o => 0,
        ConditionCode::no => 1,
        ConditionCode::b => 2,
        ConditionCode::ae => 3,
        ConditionCode::e => 4,
        ConditionCode::ne => 5,
        ConditionCode::be => 6,
        ConditionCode::a => 7,
        ConditionCode::s => 8,
        ConditionCode::ns => 9,
        ConditionCode::p => 10,
        ConditionCode::np => 11,
        ConditionCode::l => 12,
        ConditionCode::ge => 13,
        ConditionCode::le => 14,
        ConditionCode::g => 15,
    }
}

/// Chooses how the operations of a whole block are run; going backwards, flags that are set again before anything
/// could see them aren't computed. What can fault, stop or read flags sees them.
pub(crate) fn finish(ops: &mut [Op]) {
    let mut off = 0u16;
    for op in ops.iter_mut() {
        op.off = off;
        off = off.wrapping_add(u16::from(op.len));
        let number = |o: Opd| if let Opd::Reg(n) | Opd::Xmm(n) = o { n & 15 } else { 0 };
        (op.ra, op.rb) = (number(op.a), number(op.b));
    }
    let mut dead = false;
    for op in ops.iter_mut().rev() {
        op.fast = match op.k {
            K::MovRR64 => Fast::Mov64,
            K::MovRR32 => Fast::Mov32,
            K::MovRI => Fast::MovI,
            K::Lea64 => Fast::Lea,
            K::Ld64 => Fast::Load64,
            K::Ld32 => Fast::Load32,
            K::St64 => Fast::Store64,
            K::St32 => Fast::Store32,
            K::Jcc => match op.aux {
                2 => Fast::Jb,
                3 => Fast::Jae,
                4 => Fast::Jz,
                5 => Fast::Jnz,
                6 => Fast::Jbe,
                7 => Fast::Ja,
                8 => Fast::Js,
                9 => Fast::Jns,
                12 => Fast::Jl,
                13 => Fast::Jge,
                14 => Fast::Jle,
                15 => Fast::Jg,
                _ => Fast::Jcc,
            },
            K::Jmp => Fast::Jmp,
            K::Call => Fast::Call,
            K::Ret => Fast::Ret,
            K::PushR => Fast::Push,
            K::PopR => Fast::Pop,
            K::Int if matches!(op.mn, M::Inc | M::Dec) && matches!(op.a, Opd::Reg(_)) && op.size >= 4 => {
                match (op.mn == M::Inc, op.size == 8) {
                    (true, true) => Fast::Inc64,
                    (true, false) => Fast::Inc32,
                    (false, true) => Fast::Dec64,
                    (false, false) => Fast::Dec32,
                }
            }
            K::Int => other_form(op).unwrap_or(Fast::Slow),
            K::Sse if op.vl == 0 && matches!(op.mn, M::Movups | M::Movupd | M::Movdqu) => {
                match (op.a, op.b) {
                    (Opd::Xmm(_), Opd::Mem) => Fast::Load128,
                    (Opd::Mem, Opd::Xmm(_)) => Fast::Store128,
                    _ => Fast::Slow,
                }
            }
            k => alu_form(k, dead).unwrap_or(Fast::Slow),
        };
        dead = match op.fast {
            Fast::Mov64 | Fast::Mov32 | Fast::MovI | Fast::Lea => dead,
            Fast::Lea32 | Fast::Zx8 | Fast::Zx16 | Fast::Sxd => dead,
            // INC and DEC keep CF: what is before them stays as needed as it was.
            Fast::Inc64 | Fast::Inc32 | Fast::Dec64 | Fast::Dec32 => dead,
            _ => alu_form(op.k, false).is_some(),
        };
    }
}

/// Less frequent forms that are worth an arm of their own all the same.
fn other_form(op: &Op) -> Option<Fast> {
    use Opd::{Imm, Mem, Reg};
    Some(match (op.mn, op.a, op.b, op.size, op.bsize) {
        (M::Lea, Reg(_), Mem, 4, _) => Fast::Lea32,
        (M::Movzx, Reg(_), Reg(_), 4 | 8, 1) => Fast::Zx8,
        (M::Movzx, Reg(_), Reg(_), 4 | 8, 2) => Fast::Zx16,
        (M::Movzx, Reg(_), Mem, 4 | 8, 1) => Fast::Load8Zx,
        (M::Movzx, Reg(_), Mem, 4 | 8, 2) => Fast::Load16Zx,
        (M::Movsxd, Reg(_), Reg(_), 8, 4) => Fast::Sxd,
        (M::Movsxd, Reg(_), Mem, 8, 4) => Fast::Load32Sx,
        (M::Mov, Reg(_), Mem, 1, _) => Fast::Load8,
        (M::Mov, Mem, Reg(_), 1, 1) => Fast::Store8,
        (M::Mov, Mem, Reg(_), 2, 2) => Fast::Store16,
        (M::Mov, Mem, Imm, 8, _) => Fast::Store64I,
        (M::Mov, Mem, Imm, 4, _) => Fast::Store32I,
        (M::Add, Reg(_), Mem, 8, _) => Fast::Add64RM,
        (M::Add, Reg(_), Mem, 4, _) => Fast::Add32RM,
        (M::Sub, Reg(_), Mem, 8, _) => Fast::Sub64RM,
        (M::Sub, Reg(_), Mem, 4, _) => Fast::Sub32RM,
        (M::Cmp, Reg(_), Mem, 8, _) => Fast::Cmp64RM,
        (M::Cmp, Reg(_), Mem, 4, _) => Fast::Cmp32RM,
        (M::Cmp, Mem, Reg(_), 8, _) => Fast::Cmp64MR,
        (M::Cmp, Mem, Reg(_), 4, _) => Fast::Cmp32MR,
        (M::Cmp, Mem, Imm, 8, _) => Fast::Cmp64MI,
        (M::Cmp, Mem, Imm, 4, _) => Fast::Cmp32MI,
        (M::Cmp, Mem, Imm, 1, _) => Fast::Cmp8MI,
        (M::Cmove | M::Cmovne | M::Cmovb | M::Cmovae | M::Cmovl | M::Cmovge, Reg(_), Reg(_), 8, 8) => {
            Fast::Cmov64
        }
        (M::Cmova | M::Cmovbe | M::Cmovg | M::Cmovle | M::Cmovs | M::Cmovns, Reg(_), Reg(_), 8, 8) => {
            Fast::Cmov64
        }
        (M::Cmove | M::Cmovne | M::Cmovb | M::Cmovae | M::Cmovl | M::Cmovge, Reg(_), Reg(_), 4, 4) => {
            Fast::Cmov32
        }
        (M::Cmova | M::Cmovbe | M::Cmovg | M::Cmovle | M::Cmovs | M::Cmovns, Reg(_), Reg(_), 4, 4) => {
            Fast::Cmov32
        }
        (M::Sete | M::Setne | M::Setb | M::Setae | M::Setl | M::Setge, Reg(_), _, 1, _) => Fast::Set,
        (M::Seta | M::Setbe | M::Setg | M::Setle | M::Sets | M::Setns, Reg(_), _, 1, _) => Fast::Set,
        _ => return None,
    })
}

/// The arithmetic forms, without flags when they are `dead`.
fn alu_form(k: K, dead: bool) -> Option<Fast> {
    let (with, without) = match k {
        K::Add64RR => (Fast::Add64RR, Fast::Add64RRNf),
        K::Add64RI => (Fast::Add64RI, Fast::Add64RINf),
        K::Add32RR => (Fast::Add32RR, Fast::Add32RRNf),
        K::Add32RI => (Fast::Add32RI, Fast::Add32RINf),
        K::Sub64RR => (Fast::Sub64RR, Fast::Sub64RRNf),
        K::Sub64RI => (Fast::Sub64RI, Fast::Sub64RINf),
        K::Sub32RR => (Fast::Sub32RR, Fast::Sub32RRNf),
        K::Sub32RI => (Fast::Sub32RI, Fast::Sub32RINf),
        K::And64RR => (Fast::And64RR, Fast::And64RRNf),
        K::And64RI => (Fast::And64RI, Fast::And64RINf),
        K::And32RR => (Fast::And32RR, Fast::And32RRNf),
        K::And32RI => (Fast::And32RI, Fast::And32RINf),
        K::Or64RR => (Fast::Or64RR, Fast::Or64RRNf),
        K::Or64RI => (Fast::Or64RI, Fast::Or64RINf),
        K::Or32RR => (Fast::Or32RR, Fast::Or32RRNf),
        K::Or32RI => (Fast::Or32RI, Fast::Or32RINf),
        K::Xor64RR => (Fast::Xor64RR, Fast::Xor64RRNf),
        K::Xor64RI => (Fast::Xor64RI, Fast::Xor64RINf),
        K::Xor32RR => (Fast::Xor32RR, Fast::Xor32RRNf),
        K::Xor32RI => (Fast::Xor32RI, Fast::Xor32RINf),
        K::Cmp64RR => (Fast::Cmp64RR, Fast::Cmp64RRNf),
        K::Cmp64RI => (Fast::Cmp64RI, Fast::Cmp64RINf),
        K::Cmp32RR => (Fast::Cmp32RR, Fast::Cmp32RRNf),
        K::Cmp32RI => (Fast::Cmp32RI, Fast::Cmp32RINf),
        K::Test64RR => (Fast::Test64RR, Fast::Test64RRNf),
        K::Test64RI => (Fast::Test64RI, Fast::Test64RINf),
        K::Test32RR => (Fast::Test32RR, Fast::Test32RRNf),
        K::Test32RI => (Fast::Test32RI, Fast::Test32RINf),
        _ => return None,
    };
    Some(if dead { without } else { with })
}
