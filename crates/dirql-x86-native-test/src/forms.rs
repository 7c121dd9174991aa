//! All encodings of the supported sets, found by decoding.

use crate::case::Rng;
use iced_x86::{CpuidFeature as F, Decoder, DecoderOptions, Instruction, Mnemonic as M, OpKind, Register};
use std::collections::BTreeMap;

/// The bytes of an instruction.
#[derive(Clone, Copy)]
pub struct Form {
    /// Bytes.
    pub bytes: [u8; 16],
    /// How many.
    pub len: usize,
}

/// Forms by encoding (`iced_x86::Code`).
pub struct Forms(Vec<Vec<Form>>);

/// Of each encoding so many forms are kept: prefixes, registers, addressing.
const KEEP: usize = 48;

/// The instruction sets under test. Their presence in the engine is what CPUID says.
fn supported(f: F) -> bool {
    matches!(
        f,
        F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::X64
            | F::CMOV
            | F::SSE
            | F::SSE2
            | F::SSE3
            | F::SSSE3
            | F::SSE4_1
            | F::SSE4_2
            | F::POPCNT
            | F::LZCNT
            | F::BMI1
            | F::BMI2
            | F::ADX
            | F::MOVBE
            | F::CX8
            | F::CMPXCHG16B
            | F::AES
            | F::PCLMULQDQ
            | F::AVX
            | F::AVX2
            | F::PREFETCHW
            | F::CLFSH
            | F::CLFLUSHOPT
            | F::MULTIBYTENOP
            | F::PAUSE
    )
}

/// What cannot be compared: it needs ring 0 or tells of the host, or the child's own state depends on it.
fn testable(i: &Instruction) -> bool {
    if i.is_privileged() || !i.cpuid_features().iter().all(|&f| supported(f)) {
        return false;
    }
    if matches!(
        i.mnemonic(),
        M::Syscall
            | M::Sysret
            | M::Sysenter
            | M::Sysexit
            | M::Cpuid
            | M::Int
            | M::Int1
            | M::Popf
            | M::Popfq
            | M::In
            | M::Out
            | M::Insb
            | M::Insw
            | M::Insd
            | M::Outsb
            | M::Outsw
            | M::Outsd
            | M::Iret
            | M::Iretd
            | M::Iretq
            | M::Retf
            | M::Lar
            | M::Lsl
            | M::Verr
            | M::Verw
            | M::Str
            | M::Sldt
            | M::Smsw
            | M::Sgdt
            | M::Sidt
            | M::Hlt
            | M::Cli
            | M::Sti
            | M::Lss
            | M::Lfs
            | M::Lgs
            | M::Wait
            | M::Enter
            | M::Emms
            | M::Rcpps
            | M::Rcpss
            | M::Rsqrtps
            | M::Rsqrtss
            | M::Vrcpps
            | M::Vrcpss
            | M::Vrsqrtps
            | M::Vrsqrtss
            | M::Cvtpi2pd
            | M::Cvtpi2ps
            | M::Pushf
            | M::Pushfq
    ) {
        return false;
    }
    if matches!(i.segment_prefix(), Register::FS | Register::GS) || i.is_vsib() {
        return false;
    }
    // A bit string that begins at its own index, and a call to where the stack is, go anywhere.
    if matches!(i.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc) && i.op0_kind() == OpKind::Memory {
        let index = i.op1_register().full_register();
        if i.memory_base().full_register() == index || i.memory_index().full_register() == index {
            return false;
        }
    }
    if i.mnemonic() == M::Call && (i.op0_register() == Register::RSP || i.memory_base() == Register::RSP) {
        return false;
    }
    (0..i.op_count()).all(|n| match i.op_kind(n) {
        OpKind::Register => {
            let r = i.op_register(n);
            !(r.is_mm() || r.is_st() || r.is_segment_register() || r.is_cr() || r.is_dr() || r.is_tr())
        }
        OpKind::FarBranch16 | OpKind::FarBranch32 | OpKind::NearBranch16 | OpKind::NearBranch32 => false,
        OpKind::Memory => !matches!(i.mnemonic(), M::Jmp | M::Call) || i.memory_size().size() == 8,
        _ => true,
    })
}

impl Forms {
    /// Finds them; takes about a second.
    pub fn find() -> Forms {
        let mut rng = Rng(0x1234_5678_9abc_def1);
        let mut found: BTreeMap<u16, Vec<Form>> = BTreeMap::new();
        for _ in 0..KEEP {
            for map in 0..7u8 {
                for opcode in 0..=255u8 {
                    for prefix in 0..4usize {
                        for _ in 0..if map == 0 { 1 } else { 2 } {
                            try_one(&mut found, map, opcode, prefix, &mut rng);
                        }
                        if map >= 4 {
                            for _ in 0..4 {
                                try_one(&mut found, map, opcode, prefix, &mut rng);
                            }
                        }
                    }
                }
            }
        }
        Forms(found.into_values().collect())
    }

    /// How many encodings there are.
    pub fn encodings(&self) -> usize {
        self.0.len()
    }

    /// Turn by turn through the encodings, any form of each.
    pub fn pick(&self, n: u64, rng: &mut Rng) -> Form {
        let forms = &self.0[(n % self.0.len() as u64) as usize];
        forms[rng.below(forms.len() as u64) as usize]
    }
}

fn try_one(found: &mut BTreeMap<u16, Vec<Form>>, map: u8, opcode: u8, prefix: usize, rng: &mut Rng) {
    let mut b: Vec<u8> = Vec::with_capacity(24);
    let r = rng.word();
    if map < 4 {
        if r & 0x1f00 == 0 {
            b.push(0x67);
        }
        if r & 0x30000 == 0 {
            b.push(0xf0);
        }
        match prefix {
            1 => b.push(0x66),
            2 => b.push(0xf2),
            3 => b.push(0xf3),
            _ => {}
        }
        if prefix > 1 && r & 0xe000 == 0 {
            b.push(0x66);
        }
        if r & 0x40000 == 0 {
            b.push(0x40 | (r >> 20) as u8 & 15);
        }
        match map {
            1 => b.push(0x0f),
            2 => b.extend([0x0f, 0x38]),
            3 => b.extend([0x0f, 0x3a]),
            _ => {}
        }
    } else {
        // A VEX prefix of three bytes: inverted R, X, B and map; W, inverted vvvv, L, pp.
        let two = map == 4 && r & 0x100 != 0;
        let vvvv = if r & 0x600 == 0 {
            (r >> 24) as u8 & 15
        } else if r & 0x200 != 0 {
            15
        } else {
            (r >> 24) as u8 & 15
        };
        let l = (r >> 11) as u8 & 1;
        if two {
            b.extend([0xc5, (r >> 12) as u8 & 0x80 | vvvv << 3 | l << 2 | prefix as u8]);
        } else {
            let w = (r >> 13) as u8 & 1;
            b.extend([0xc4, (r >> 40) as u8 & 0xe0 | (map - 3), w << 7 | vvvv << 3 | l << 2 | prefix as u8]);
        }
    }
    b.push(opcode);
    let mut modrm = (r >> 32) as u8;
    if r & 0x8000_0000 != 0 {
        modrm |= 0xc0;
    }
    b.push(modrm);
    while b.len() < 24 {
        let v = rng.word() as u8;
        b.push(if v < 0x60 { v & 7 } else { v });
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&b[..16]);
    let mut decoder = Decoder::with_ip(64, &bytes[..15], 0x1000, DecoderOptions::NONE);
    let i = decoder.decode();
    if i.is_invalid() || !testable(&i) {
        return;
    }
    let list = found.entry(i.code() as u16).or_default();
    if list.len() < KEEP {
        bytes[i.len()..].fill(0xcc);
        list.push(Form { bytes, len: i.len() });
    }
}
