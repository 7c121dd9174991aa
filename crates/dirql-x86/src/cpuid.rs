//! The processor that CPUID describes: only what the engine has.

/// Highest basic leaf.
const MAX_BASIC: u32 = 0xd;
/// Highest extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0008;

/// EAX, EBX, ECX and EDX for a leaf (SDM volume 2, CPUID). Leaves that don't exist give zeroes.
pub(crate) fn cpuid(leaf: u32, subleaf: u32, apic_id: u32) -> [u32; 4] {
    match leaf {
        // "DirqlX64CPU!" in EBX, EDX, ECX: a vendor of its own, so nobody applies another vendor's workarounds.
        0 => [
            MAX_BASIC,
            u32::from_le_bytes(*b"Dirq"),
            u32::from_le_bytes(*b"CPU!"),
            u32::from_le_bytes(*b"lX64"),
        ],
        1 => {
            // SSE3, PCLMULQDQ, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, hypervisor.
            // OSXSAVE follows CR4, elsewhere.
            let ecx = 1
                | 1 << 1
                | 1 << 9
                | 1 << 13
                | 1 << 19
                | 1 << 20
                | 1 << 22
                | 1 << 23
                | 1 << 25
                | 1 << 26
                | 1 << 28
                | 1 << 31;
            // PSE TSC MSR PAE CX8 APIC PGE CMOV PAT CLFSH FXSR SSE SSE2; x87 and MMX are not there.
            let edx = 1 << 3
                | 1 << 4
                | 1 << 5
                | 1 << 6
                | 1 << 8
                | 1 << 9
                | 1 << 13
                | 1 << 15
                | 1 << 16
                | 1 << 19
                | 1 << 24
                | 1 << 25
                | 1 << 26;
            // Family 6, a made-up model; CLFLUSH lines of 64 bytes.
            [0x0006_0f01, apic_id << 24 | 8 << 8, ecx, edx]
        }
        // The area of XSAVE: its components, and its size with those that are on and with all.
        0xd if subleaf == 0 => [7, 832, 832, 0],
        // XSAVEOPT, XSAVEC, XGETBV of 1.
        0xd if subleaf == 1 => [7, 832, 0, 0],
        // The upper halves of ymm: how many bytes, and where.
        0xd if subleaf == 2 => [256, 576, 0, 0],
        // AVX2 is run but not told of: its gathers are lacking. FSGSBASE (with CR4 bit 16), BMI1, BMI2, ERMS, ADX, CLFLUSHOPT.
        7 if subleaf == 0 => [0, 1 | 1 << 3 | 1 << 8 | 1 << 9 | 1 << 19 | 1 << 23, 0, 0],
        0x8000_0000 => [MAX_EXTENDED, 0, 0, 0],
        // LAHF in 64-bit mode, LZCNT, PREFETCHW; SYSCALL is not there; NX, RDTSCP, long mode.
        0x8000_0001 => [0, 0, 1 | 1 << 5 | 1 << 8, 1 << 20 | 1 << 27 | 1 << 29],
        0x8000_0002 => brand(0),
        0x8000_0003 => brand(16),
        0x8000_0004 => brand(32),
        // The TSC ticks at a constant rate.
        0x8000_0007 => [0, 0, 0, 1 << 8],
        // 48 linear and 40 physical address bits.
        0x8000_0008 => [48 << 8 | 40, 0, 0, 0],
        _ => [0; 4],
    }
}

fn brand(from: usize) -> [u32; 4] {
    let mut text = [0; 48];
    let name = b"dirql simulated x86-64 processor";
    text[..name.len()].copy_from_slice(name);
    let mut out = [0; 4];
    for (i, word) in out.iter_mut().enumerate() {
        let at = from + i * 4;
        *word = u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]);
    }
    out
}
