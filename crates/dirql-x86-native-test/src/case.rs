//! A case: an instruction, the registers and the memory it starts from, and how it ended.

use crate::forms::{Form, Forms};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic as M, OpKind, Register};

/// Page of the code.
pub const CODE: u64 = 0x4000_0000;
/// Where the instruction is.
pub const AT: u64 = CODE + 0x100;
/// Where taken branches land.
pub const PAD: u64 = CODE + 0x140;
/// Two pages that can be read and written, then one that can only be read; nothing around them.
pub const DATA: u64 = 0x4100_0000;
/// Bytes of memory that a case shows.
pub const WINDOW: usize = 256;

/// Registers and the window of memory, as the child process lays them out.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct State {
    /// rax rcx rdx rbx rsp rbp rsi rdi r8 to r15.
    pub gpr: [u64; 16],
    /// RFLAGS.
    pub rflags: u64,
    /// MXCSR.
    pub mxcsr: u64,
    /// 0 went on, 1 branched to [`PAD`], otherwise 0x100 and the exception's number.
    pub exit: u64,
    /// The error code of a page fault, without the bit that tells user mode.
    pub error: u64,
    /// The address of a page fault.
    pub cr2: u64,
    /// Keeps `ymm` at 32 bytes.
    pub pad: [u64; 3],
    /// Low and high half of ymm0 to ymm15.
    pub ymm: [[u128; 2]; 16],
    /// The bytes at [`Case::window`].
    pub memory: [u8; WINDOW],
}

/// One instruction to try.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Case {
    /// The instruction's bytes.
    pub bytes: [u8; 16],
    /// How many there are.
    pub len: u64,
    /// Where the window is.
    pub window: u64,
    /// Before.
    pub before: State,
}

/// xorshift64*: the same cases on every host.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    /// 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.word() >> 16) % n.max(1)
    }

    /// An integer, often at a boundary.
    pub fn value(&mut self) -> u64 {
        match self.below(4) {
            0 => {
                const EDGES: [u64; 12] = [
                    0,
                    1,
                    2,
                    0x7f,
                    0x80,
                    0xff,
                    0x7fff,
                    0x8000,
                    0x7fff_ffff,
                    0x8000_0000,
                    u64::MAX >> 1,
                    1 << 63,
                ];
                let v = EDGES[self.below(12) as usize];
                if self.below(3) == 0 { !v } else { v }
            }
            1 => {
                let by = self.below(64);
                self.word() >> by
            }
            _ => self.word(),
        }
    }

    /// A vector half: bytes, or floats with their edges.
    pub fn vector(&mut self) -> u128 {
        match self.below(4) {
            0 => u128::from(self.word()) << 64 | u128::from(self.word()),
            1 => (0..4).fold(0, |v, i| v | u128::from(self.single()) << (32 * i)),
            2 => u128::from(self.double()) << 64 | u128::from(self.double()),
            _ => u128::from(self.value()) << 64 | u128::from(self.value()),
        }
    }

    fn single(&mut self) -> u32 {
        const EDGES: [u32; 14] = [
            0,
            0x3f80_0000,
            0x7f80_0000,
            0x7fc0_0001,
            0x7f80_0001,
            1,
            0x007f_ffff,
            0x0080_0000,
            0x7f7f_ffff,
            0x4f00_0000,
            0x4eff_ffff,
            0x3f00_0000,
            0x3fc0_0000,
            0x5f00_0000,
        ];
        let r = self.word() as u32;
        match self.below(4) {
            0 => r,
            1 => r & 0x807f_ffff | (0x78 + self.below(16) as u32) << 23,
            2 => ((self.below(2000) as f32 - 1000.0) * 0.5).to_bits(),
            _ => EDGES[self.below(14) as usize] | r & 0x8000_0000,
        }
    }

    fn double(&mut self) -> u64 {
        const EDGES: [u64; 16] = [
            0,
            0x3ff0 << 48,
            0x7ff0 << 48,
            0x7ff8_0000_0000_0001,
            0x7ff0_0000_0000_0001,
            1,
            0x000f_ffff_ffff_ffff,
            0x0010 << 48,
            0x7fef_ffff_ffff_ffff,
            0x41e0 << 48,
            0x43e0 << 48,
            0x41df_ffff_ffc0_0000,
            0x3fe0 << 48,
            0x3ff8 << 48,
            0x36a0 << 48,
            0x47ef_ffff_f000_0000,
        ];
        let r = self.word();
        match self.below(4) {
            0 => r,
            1 => r & 0x800f_ffff_ffff_ffff | (0x3f8 + self.below(16)) << 56 >> 4,
            2 => ((self.below(2000) as f64 - 1000.0) * 0.5).to_bits(),
            _ => EDGES[self.below(16) as usize] | r & 1 << 63,
        }
    }
}

/// An address worth trying: in the middle, at the edges of pages, in the page that can't be written.
fn target(rng: &mut Rng) -> (u64, u64) {
    let (window, at) = match rng.below(16) {
        // Over the boundary between two good pages.
        0..=2 => (DATA + 0x1000 - 128, 128 - 40 + rng.below(48)),
        // The end of what can be written, where a read goes on and a write fails.
        3 => (DATA + 0x2000 - 256, 256 - 40 + rng.below(48)),
        4 => (DATA + 0x2000, 64 + rng.below(64)),
        // Before the first page, and behind the last.
        5 => (DATA, rng.below(24)),
        6 => (DATA + 0x3000 - 256, 256 - 48 + rng.below(8)),
        7 => (DATA + 0x800, 96 + rng.below(64)),
        _ => (DATA + 0x800, 96 + 32 * rng.below(2)),
    };
    (window, window + at)
}

fn gpr(r: Register) -> Option<usize> {
    r.is_gpr().then(|| r.full_register().number())
}

/// Makes case number `n` of the forms: the same number gives the same case.
pub fn make(forms: &Forms, n: u64, seed: u64) -> (Case, Instruction) {
    let mut rng = Rng((n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed | 1);
    for _ in 0..4 {
        rng.word();
    }
    let form: Form = forms.pick(n, &mut rng);
    let (mut window, mut ea) = target(&mut rng);
    let mut bytes = form.bytes;
    let mut decoder = Decoder::with_ip(64, &bytes[..form.len], AT, DecoderOptions::NONE);
    let mut i = decoder.decode();
    if matches!(i.mnemonic(), M::Jmp | M::Call) {
        // Where it goes must be in the window.
        (window, ea) = (DATA + 0x800, DATA + 0x800 + 96);
    }
    let offsets = decoder.get_constant_offsets(&i);
    let mut state = State {
        gpr: std::array::from_fn(|_| rng.value()),
        rflags: rng.word() & 0x8d5 | 0x202,
        mxcsr: 0x1f80,
        exit: 0,
        error: 0,
        cr2: 0,
        pad: [0; 3],
        ymm: std::array::from_fn(|_| [rng.vector(), rng.vector()]),
        memory: [0; WINDOW],
    };
    match rng.below(8) {
        0 => state.mxcsr |= rng.word() & 0xe040,
        1 => state.mxcsr = rng.word() & 0xffff,
        2 => state.mxcsr |= rng.below(64),
        _ => {}
    }
    if rng.below(8) == 0 {
        state.rflags |= 0x400;
    }
    for chunk in state.memory.chunks_mut(16) {
        chunk.copy_from_slice(&rng.vector().to_le_bytes());
    }
    // Near branches go to the pad.
    if matches!(i.op0_kind(), OpKind::NearBranch64) {
        let rel = (PAD - AT - form.len as u64) as u32;
        let size = offsets.immediate_size();
        bytes[offsets.immediate_offset()..][..size].copy_from_slice(&rel.to_le_bytes()[..size]);
    }
    state.gpr[4] = window + 128 + rng.below(3) * 8;
    // Aim the memory operand.
    if (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) && i.mnemonic() != M::Lea {
        let disp = i.memory_displacement64();
        let scale = u64::from(i.memory_index_scale());
        let (base, index) = (gpr(i.memory_base()), gpr(i.memory_index()));
        let small = i.memory_base().is_gpr32() || i.memory_index().is_gpr32();
        match (base, index) {
            (Some(b), Some(x)) if b != x => {
                let v = rng.below(0x1000);
                state.gpr[x] = v;
                state.gpr[b] = ea.wrapping_sub(disp).wrapping_sub(v * scale);
            }
            (Some(b), Some(_)) => {
                let v = (ea.wrapping_sub(disp) & if small { 0xffff_ffff } else { u64::MAX }) / (1 + scale);
                state.gpr[b] = v;
                ea = v.wrapping_mul(1 + scale).wrapping_add(disp);
            }
            (Some(b), None) => state.gpr[b] = ea.wrapping_sub(disp),
            (None, Some(x)) => {
                let v = (ea.wrapping_sub(disp) & if small { 0xffff_ffff } else { u64::MAX }) / scale;
                state.gpr[x] = v;
                ea = v.wrapping_mul(scale).wrapping_add(disp);
            }
            (None, None) => {
                let rip = i.memory_base() == Register::RIP || i.memory_base() == Register::EIP;
                let d = if rip { ea.wrapping_sub(AT + form.len as u64) } else { ea };
                let size = offsets.displacement_size();
                bytes[offsets.displacement_offset()..][..size].copy_from_slice(&d.to_le_bytes()[..size]);
            }
        }
        if small {
            ea &= 0xffff_ffff;
            for r in [base, index].into_iter().flatten() {
                state.gpr[r] = state.gpr[r] & 0xffff_ffff | rng.word() << 32;
            }
        }
        if rng.below(200) == 0 && !small && base.is_some() && index.is_none() {
            // Not canonical, unless the displacement makes it so again.
            state.gpr[base.unwrap_or(0)] ^= 0x4000_0000_0000_0000;
        }
    }
    i = Decoder::with_ip(64, &bytes[..form.len], AT, DecoderOptions::NONE).decode();
    let address = [gpr(i.memory_base()), gpr(i.memory_index())];
    let put = |state: &mut State, at: u64, v: u64| {
        let off = at.wrapping_sub(window) as usize;
        if off <= WINDOW - 8 {
            state.memory[off..off + 8].copy_from_slice(&v.to_le_bytes());
        }
    };
    match i.mnemonic() {
        M::Bt | M::Bts | M::Btr | M::Btc if i.op0_kind() == OpKind::Memory => {
            if let Some(r) = gpr(i.op1_register())
                && !address.contains(&Some(r))
            {
                let near = (rng.below(512) as i64 - 256) as u64;
                let size = i.op1_register().size() as u32;
                state.gpr[r] = if size == 8 { near } else { near & 0xffff_ffff | rng.word() << 32 };
            }
        }
        M::Xlatb => state.gpr[3] = window,
        M::Maskmovdqu | M::Vmaskmovdqu => state.gpr[7] = ea,
        M::Leave | M::Enter => state.gpr[5] = window + 128,
        M::Ret => {
            let at = state.gpr[4];
            put(&mut state, at, PAD);
        }
        M::Jmp | M::Call => {
            if let (OpKind::Register, Some(r)) = (i.op0_kind(), gpr(i.op0_register())) {
                state.gpr[r] = PAD;
                if r == 4 && i.mnemonic() == M::Call {
                    state.gpr[r] = window + 128;
                }
            } else {
                put(&mut state, ea, PAD);
            }
        }
        M::Div | M::Idiv if rng.below(2) == 0 && !address.contains(&Some(2)) => {
            state.gpr[2] = if rng.below(2) == 0 { 0 } else { (state.gpr[0] as i64 >> 63) as u64 };
        }
        M::Cmpxchg | M::Cmpxchg8b | M::Cmpxchg16b if rng.below(2) == 0 => {
            let off = ea.wrapping_sub(window) as usize;
            if off <= WINDOW - 16 && !address.contains(&Some(0)) && !address.contains(&Some(2)) {
                let word = |o: usize| u64::from_le_bytes(std::array::from_fn(|k| state.memory[off + o + k]));
                let wide = i.mnemonic() == M::Cmpxchg16b;
                let (a, d) = (word(0), word(if wide { 8 } else { 4 }));
                state.gpr[0] = a;
                state.gpr[2] = d;
            }
        }
        M::Ldmxcsr | M::Vldmxcsr => {
            let v = rng.word() & if rng.below(8) == 0 { 0x1ffff } else { 0xffff };
            put(&mut state, ea, v);
        }
        _ => {}
    }
    if (0..i.op_count()).any(|n| {
        matches!(i.op_kind(n), OpKind::MemorySegRSI | OpKind::MemoryESRDI | OpKind::MemorySegRDI)
            || matches!(i.op_kind(n), OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegEDI)
    }) {
        state.gpr[6] = ea;
        state.gpr[7] = match rng.below(4) {
            0 => ea,
            1 => ea + rng.below(16),
            _ => window + 64 + rng.below(64),
        };
        state.gpr[1] = rng.below(9);
        if rng.below(2) == 0 {
            // Something to find and runs of equal bytes.
            state.gpr[0] = 0x0101_0101_0101_0101;
            state.memory.fill(1);
            state.memory[(ea - window) as usize % WINDOW] = rng.below(3) as u8;
        }
    }
    (Case { bytes, len: form.len as u64, window, before: state }, i)
}
