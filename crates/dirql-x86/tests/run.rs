//! Runs small pieces of machine code: exact budgets, precise faults, exits, clones.

use dirql_mem::{Memory, Pa, Prot, Va};
use dirql_x86::{Bus, Cpu, Exception, Exit};

const CODE: u64 = 0xFFFF_F800_0000_0000;
const DATA: u64 = 0xFFFF_F800_0010_0000;

struct NoBus;

impl Bus for NoBus {
    fn mmio_read(&mut self, pa: Pa, _: u8) -> u64 {
        pa.0
    }
    fn mmio_write(&mut self, _: Pa, _: u8, _: u64) {}
    fn port_in(&mut self, _: u16, _: u8) -> u32 {
        0
    }
    fn port_out(&mut self, _: u16, _: u8, _: u32) {}
    fn rdtsc(&mut self, retired: u64) -> u64 {
        retired
    }
    fn rdmsr(&mut self, _: u32) -> Option<u64> {
        None
    }
    fn wrmsr(&mut self, _: u32, _: u64) -> bool {
        false
    }
}

fn machine(code: &[u8]) -> (Cpu, Memory) {
    let mut mem = Memory::new(1 << 20);
    let pa = mem.alloc_frames(4).unwrap();
    mem.map_ram(Va(CODE), pa, 2, Prot::READ | Prot::WRITE | Prot::EXEC);
    mem.map_ram(Va(DATA), Pa(pa.0 + 0x2000), 2, Prot::READ | Prot::WRITE);
    mem.map_device(Va(DATA + 0x10_0000), Pa(0xF000_0000), 1, Prot::READ | Prot::WRITE);
    mem.write(Va(CODE), code).unwrap();
    let mut cpu = Cpu::new(0);
    cpu.regs.rip = CODE;
    cpu.regs.gpr[4] = DATA + 0x1000;
    (cpu, mem)
}

/// mov ecx, 10; again: add rax, rcx; dec rcx; jnz again; hlt
const SUM: &[u8] = &[0xb9, 10, 0, 0, 0, 0x48, 1, 0xc8, 0x48, 0xff, 0xc9, 0x75, 0xf8, 0xf4];

#[test]
fn budgets_are_exact_and_splitting_changes_nothing() {
    let (mut whole, mut mem) = machine(SUM);
    assert_eq!(whole.run(&mut mem, &mut NoBus, 1000), (32, Exit::Halt));
    assert_eq!(whole.regs.gpr[0], 55);
    for step in 1..32 {
        let (mut cpu, mut mem) = machine(SUM);
        let mut total = 0;
        loop {
            let (n, exit) = cpu.run(&mut mem, &mut NoBus, step);
            total += n;
            if exit == Exit::Halt {
                break;
            }
            assert_eq!((n, exit), (step, Exit::Budget));
            // A clone goes on as the original would.
            (cpu, mem) = (cpu.clone(), mem.clone());
        }
        assert_eq!((total, &cpu.regs), (32, &whole.regs));
    }
}

#[test]
fn faults_change_nothing() {
    // add [rdi], rax, with rdi crossing into an unmapped page
    let (mut cpu, mut mem) = machine(&[0x48, 0x01, 0x07]);
    cpu.regs.gpr[7] = DATA + 0x1ffc;
    let before = cpu.regs.clone();
    let (n, exit) = cpu.run(&mut mem, &mut NoBus, 9);
    let fault = Exception::PageFault { addr: DATA + 0x2000, write: true, execute: false, present: false };
    assert_eq!((n, exit), (0, Exit::Exception(fault)));
    assert_eq!(cpu.regs, before);
    assert_eq!(cpu.cr2, DATA + 0x2000);
}

#[test]
fn repeated_strings_stop_between_repetitions() {
    let (mut cpu, mut mem) = machine(&[0xf3, 0xaa, 0xf4]); // rep stosb; hlt
    cpu.regs.gpr[7] = DATA;
    cpu.regs.gpr[1] = 10;
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 4), (4, Exit::Budget));
    assert_eq!((cpu.regs.rip, cpu.regs.gpr[1]), (CODE, 6));
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 100), (7, Exit::Halt));
    assert_eq!(cpu.regs.gpr[7], DATA + 10);
}

#[test]
fn code_that_writes_itself_sees_it() {
    // mov byte [rip+1], 7; mov al, 1; hlt: the first changes the second's immediate
    let (mut cpu, mut mem) = machine(&[0xc6, 5, 1, 0, 0, 0, 7, 0xb0, 1, 0xf4]);
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 9), (3, Exit::Halt));
    assert_eq!(cpu.regs.gpr[0], 7);
}

#[test]
fn what_the_embedder_must_see_stops_the_run() {
    // mov r15, cr8; mov cr8, rax; sti; mov eax, [rdi]; pause; int3
    let code = [0x44, 0x0f, 0x20, 0xc0, 0x44, 0x0f, 0x22, 0xc0, 0xfb, 0x8b, 0x07, 0xf3, 0x90, 0xcc];
    let (mut cpu, mut mem) = machine(&code);
    cpu.regs.gpr[7] = DATA + 0x10_0004;
    cpu.regs.gpr[0] = 5;
    cpu.cr8 = 2;
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 1), (1, Exit::Budget));
    assert_eq!(cpu.regs.gpr[0], 2);
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 9), (1, Exit::Cr8Changed));
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 9), (1, Exit::InterruptFlag));
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 9), (1, Exit::Device));
    assert_eq!(cpu.regs.gpr[0], 0xF000_0004);
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 9), (1, Exit::Pause));
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 9), (0, Exit::Exception(Exception::Breakpoint)));
}

/// `DIRQL_FUZZ_CASES` sets how many pieces of random code are run, `DIRQL_FUZZ_SEED` makes others.
#[test]
fn random_bytes_never_panic_and_keep_the_budget() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let mut x = 0x1234_5678_9abc_def1_u64 ^ number("DIRQL_FUZZ_SEED", 0) << 1;
    for _ in 0..number("DIRQL_FUZZ_CASES", 3000) {
        let mut code = [0u8; 64];
        for b in &mut code {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            *b = (x >> 32) as u8;
        }
        let (mut cpu, mut mem) = machine(&code);
        for n in [3, 5, 6, 7] {
            cpu.regs.gpr[n] = DATA + x % 0x1800;
        }
        cpu.set_logging(x & 1 == 0);
        let (n, _) = cpu.run(&mut mem, &mut NoBus, 100);
        assert!(n <= 100);
    }
}

/// The byte registers that need a REX prefix are numbered apart from al..bh by the decoder.
#[test]
fn byte_registers_of_rex_are_the_low_bytes_of_theirs() {
    // mov r10d, 0x101; mov sil, 7; add r10b, sil; test r10b, r10b; setne ah; hlt
    let (mut cpu, mut mem) = machine(&[
        0x41, 0xba, 1, 1, 0, 0, 0x40, 0xb6, 7, 0x41, 0, 0xf2, 0x45, 0x84, 0xd2, 0x0f, 0x95, 0xc4, 0xf4,
    ]);
    cpu.run(&mut mem, &mut NoBus, 100);
    assert_eq!(cpu.regs.gpr[10], 0x108);
    assert_eq!(cpu.regs.gpr[0] >> 8 & 0xff, 1, "test r10b, r10b; setne ah");
    assert_eq!(cpu.regs.gpr[6] & 0xff, 7);
}

/// add [rcx], eax; mov edx, [rcx]; hlt
const ADD: &[u8] = &[0x01, 0x01, 0x8b, 0x11, 0xf4];

#[test]
fn accesses_are_recorded_with_their_instruction() {
    let (mut cpu, mut mem) = machine(ADD);
    cpu.regs.gpr[1] = DATA;
    cpu.set_logging(true);
    cpu.run(&mut mem, &mut NoBus, 100);
    let log: Vec<_> =
        cpu.take_log().iter().map(|a| (a.retired, a.rip - CODE, a.va - DATA, a.len, a.write)).collect();
    assert_eq!(log, [(0, 0, 0, 4, false), (0, 0, 0, 4, true), (1, 2, 0, 4, false)]);
    assert!(cpu.take_log().is_empty());
}

#[test]
fn a_held_store_is_seen_by_none_until_it_is_released() {
    let (mut cpu, mut mem) = machine(ADD);
    cpu.regs.gpr[1] = DATA;
    cpu.regs.gpr[0] = 5;
    cpu.hold_stores();
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 1), (1, Exit::Budget));
    assert_eq!(mem.read_u32(Va(DATA)).unwrap(), 0);
    mem.write_u32(Va(DATA), 7).unwrap();
    cpu.release_stores(&mut mem).unwrap();
    assert_eq!(mem.read_u32(Va(DATA)).unwrap(), 5, "the other's 7 is lost");
}

/// Random straight code of the frequent forms, looped: a whole run and a run stopped at every instruction agree.
#[test]
fn whole_blocks_do_what_single_steps_do() {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 24) as u32
    };
    for _ in 0..400 {
        let mut code = Vec::new();
        for _ in 0..24 {
            let r = next();
            // Registers but rsp (4), rdi (7) and rbp (5, the counter): eax, ecx, edx, ebx.
            let (a, b) = (r as u8 & 3, (r >> 2) as u8 & 3);
            if r & 0x10 != 0 {
                code.push(0x48);
            }
            const ALU: [u8; 9] = [0x01, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31, 0x39, 0x85];
            match r >> 8 & 15 {
                0..=4 => code.extend([ALU[(r >> 16) as usize % 9], 0xc0 | b << 3 | a]),
                5 => code.extend([0x83, 0xc0 | ((r >> 16) as u8 & 7) << 3 | a, (r >> 20) as u8]),
                6 => code.extend([0xff, 0xc0 | (r >> 16) as u8 & 8 | a]),
                7 => code.extend([0x89, 0xc0 | b << 3 | a]),
                8 => code.extend([0x8b, 0x47 | a << 3, (r >> 16) as u8 & 0x7f]),
                9 => code.extend([0x89, 0x47 | a << 3, (r >> 16) as u8 & 0x7f]),
                10 => code.extend([0x8d, 0x44 | b << 3, 0x08 | a, 9]),
                11 => code.extend([0x50 | a, 0x58 | b]),
                12 => code.extend([0x70 | (r >> 16) as u8 & 15, 0]),
                13 => code.extend([0x0f, 0x90 | (r >> 16) as u8 & 15, 0xc0 | a]),
                14 => code.extend([0xf7, 0xd8 | a]),
                _ => code.push(0x9c),
            }
            if code.last() == Some(&0x9c) {
                code.push(0x58 | a);
            }
        }
        // dec ebp; jnz start; hlt
        code.extend([0xff, 0xcd, 0x0f, 0x85]);
        let back = -(code.len() as i32 + 4);
        code.extend(back.to_le_bytes());
        code.push(0xf4);
        let (mut whole, mut mem) = machine(&code);
        whole.regs.gpr[5] = 3;
        whole.regs.gpr[7] = DATA + 0x100;
        let (mut single, mut other) = (whole.clone(), mem.clone());
        let (n, exit) = whole.run(&mut mem, &mut NoBus, 10_000);
        assert_eq!(exit, Exit::Halt);
        let mut total = 0;
        while total < n {
            let (m, _) = single.run(&mut other, &mut NoBus, 1);
            assert_eq!(m, 1);
            total += m;
        }
        assert_eq!(whole.regs, single.regs, "{code:02x?}");
        for at in (DATA..DATA + 0x1000).step_by(8) {
            assert_eq!(mem.read_u64(Va(at)).unwrap(), other.read_u64(Va(at)).unwrap());
        }
    }
}

#[test]
fn extended_state_is_saved_and_restored() {
    for save in [0x21, 0x61] {
        // mov eax, 7; xor edx, edx; xor ecx, ecx; then xsave [rdi] (or with 0xc7 /4 xsavec [rdi]); hlt
        let mut code = vec![0xb8, 7, 0, 0, 0, 0x31, 0xd2, 0x31, 0xc9, 0x0f];
        code.extend(if save == 0x21 { [0xae, 0x27] } else { [0xc7, 0x27] });
        // vzeroall; xgetbv; mov eax, 7; xrstor [rdi]; hlt
        code.extend([
            0xc5, 0xfc, 0x77, 0x0f, 0x01, 0xd0, 0x89, 0xc3, 0xb8, 7, 0, 0, 0, 0x0f, 0xae, 0x2f, 0xf4,
        ]);
        let (mut cpu, mut mem) = machine(&code);
        cpu.regs.gpr[7] = DATA;
        for n in 0..16 {
            cpu.regs.xmm[n] = n as u128 + 1;
            cpu.regs.ymm_high[n] = 0x100 << n;
        }
        let before = cpu.regs.clone();
        assert_eq!(cpu.run(&mut mem, &mut NoBus, 100).1, Exit::Halt);
        assert_eq!((cpu.regs.xmm, cpu.regs.ymm_high), (before.xmm, before.ymm_high));
        assert_eq!(cpu.regs.gpr[3], 7, "xgetbv");
        assert_eq!(mem.read_u64(Va(DATA + 512)).unwrap(), 7);
        assert_eq!(mem.read_u64(Va(DATA + 576 + 16)).unwrap(), 0x200);
        // Not aligned to 64 bytes.
        cpu.regs.gpr[7] = DATA + 16;
        cpu.regs.rip = CODE;
        let fault = Exit::Exception(Exception::GeneralProtection(0));
        assert_eq!(cpu.run(&mut mem, &mut NoBus, 100).1, fault);
        // The embedder turns AVX off.
        cpu.xcr0 = 3;
        cpu.regs.rip = CODE + 12;
        assert_eq!(cpu.run(&mut mem, &mut NoBus, 100).1, Exit::Exception(Exception::InvalidOpcode));
    }
}

#[test]
fn interrupt_return_takes_the_whole_frame() {
    // iretq, with a frame that goes on at the hlt
    let (mut cpu, mut mem) = machine(&[0x48, 0xcf, 0x90, 0x90, 0xf4]);
    let rsp = DATA + 0x800;
    cpu.regs.gpr[4] = rsp;
    for (n, v) in [CODE + 4, 0x10, 0x41, DATA + 0x900, 0x18].into_iter().enumerate() {
        mem.write_u64(Va(rsp + 8 * n as u64), v).unwrap();
    }
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 9), (2, Exit::Halt));
    assert_eq!((cpu.regs.gpr[4], cpu.regs.rflags & 0xcd5), (DATA + 0x900, 0x41));
    // A code segment that isn't there.
    mem.write_u64(Va(rsp + 8), 0x60).unwrap();
    (cpu.regs.rip, cpu.regs.gpr[4]) = (CODE, rsp);
    let fault = Exit::Exception(Exception::GeneralProtection(0x60));
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 9), (0, fault));
    assert_eq!(cpu.regs.gpr[4], rsp);
}

#[test]
fn segment_registers_read_as_windows_has_them() {
    // mov eax, cs; mov ecx, gs; mov ds, edx; mov ds, eax
    let (mut cpu, mut mem) = machine(&[0x8c, 0xc8, 0x8c, 0xe9, 0x8e, 0xda, 0x8e, 0xd8]);
    cpu.regs.gpr[2] = 0x2b;
    let (n, exit) = cpu.run(&mut mem, &mut NoBus, 9);
    assert!(matches!(exit, Exit::Unsupported { .. }), "{exit:?}");
    assert_eq!((n, cpu.regs.gpr[0], cpu.regs.gpr[1]), (3, 0x10, 0x2b));
}

#[test]
fn the_record_is_the_same_however_the_run_is_cut() {
    // again: mov rax, [rdi]; add [rdi+8], rax; push rax; pop rcx; rep movsb; mov ecx, 3; jmp again
    let code = [
        0x48, 0x8b, 7, 0x48, 1, 0x47, 8, 0x50, 0x59, 0xb9, 3, 0, 0, 0, 0xf3, 0xa4, 0x48, 0x83, 0xef, 3, 0xeb,
        0xea,
    ];
    let record = |every: u64| {
        let (mut cpu, mut mem) = machine(&code);
        (cpu.regs.gpr[7], cpu.regs.gpr[6]) = (DATA + 0x200, DATA + 0x100);
        cpu.set_logging(true);
        let mut all = Vec::new();
        let mut done = 0;
        while done < 240 {
            let (n, exit) = cpu.run(&mut mem, &mut NoBus, every.min(240 - done));
            assert_eq!(exit, Exit::Budget);
            all.extend(cpu.log().iter().map(|a| (done + a.retired, a.rip, a.va, a.len, a.write)));
            cpu.clear_log();
            done += n;
        }
        all
    };
    let whole = record(240);
    assert!(whole.len() > 200);
    for every in [1, 2, 3, 7, 50] {
        assert_eq!(record(every), whole, "every {every}");
    }
}

#[test]
fn remapped_code_is_decoded_anew_and_clones_keep_their_own() {
    // mov eax, 1; hlt
    let code = |n: u8| [0xb8, n, 0, 0, 0, 0xf4];
    let (mut cpu, mut mem) = machine(&code(1));
    let go = |cpu: &mut Cpu, mem: &mut Memory| {
        cpu.regs.rip = CODE;
        assert_eq!(cpu.run(mem, &mut NoBus, 9), (2, Exit::Halt));
        cpu.regs.gpr[0]
    };
    assert_eq!(go(&mut cpu, &mut mem), 1);
    let (mut other_cpu, mut other_mem) = (cpu.clone(), mem.clone());
    // Another frame at the same address, in one of the two.
    let pa = mem.alloc_frames(1).unwrap();
    mem.write_phys(pa, &code(2)).unwrap();
    mem.map_ram(Va(CODE), pa, 1, Prot::READ | Prot::EXEC);
    assert_eq!(go(&mut cpu, &mut mem), 2);
    assert_eq!(go(&mut other_cpu, &mut other_mem), 1);
    // Written by the kernel or by DMA, in the other.
    other_mem.write(Va(CODE), &code(3)).unwrap();
    assert_eq!(go(&mut other_cpu, &mut other_mem), 3);
    mem.write_phys(pa, &code(4)).unwrap();
    assert_eq!(go(&mut cpu, &mut mem), 4);
    // Not executable, then gone.
    mem.protect(Va(CODE), 1, Prot::READ);
    cpu.regs.rip = CODE;
    let fault =
        |present| Exit::Exception(Exception::PageFault { addr: CODE, write: false, execute: true, present });
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 9), (0, fault(true)));
    mem.unmap(Va(CODE), 1);
    assert_eq!(cpu.run(&mut mem, &mut NoBus, 9), (0, fault(false)));
    assert_eq!(go(&mut other_cpu, &mut other_mem), 3);
}
