//! Whole routines, compiled for the host: the same object code run by the processor and by the engine.
#![allow(clippy::print_stderr, reason = "says why a test can't run")]
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use dirql_mem::{Memory, PAGE_SIZE, Prot, Va};
use dirql_x86::{Cpu, Exit};
use dirql_x86_native_test::engine::NoBus;
use std::ffi::CString;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

const BUFFER: u64 = 0xFFFF_F900_0000_0000;
const STACK: u64 = 0xFFFF_FA00_0000_0000;
const GATE: u64 = 0xFFFF_FB00_0000_0000;
const BYTES: usize = 8192;
const NAMES: [&str; 8] = ["crc", "fnv", "sha", "moves", "format", "wide", "floats", "sort"];

type Routine = extern "C" fn(*mut u8, u64, u64) -> u64;

/// The library in this process, and its routines.
#[expect(unsafe_code, reason = "loads and calls compiled C")]
fn load(path: &Path) -> Vec<(Routine, u64)> {
    let name = CString::new(path.to_string_lossy().as_bytes()).expect("no zero in a path");
    // SAFETY: the library has no constructors.
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null(), "{path:?} can't be loaded");
    let find = |name: &str| {
        let c = CString::new(name).expect("no zero in a name");
        // SAFETY: a handle and a name that live.
        let at = unsafe { libc::dlsym(library, c.as_ptr()) };
        assert!(!at.is_null(), "{name} isn't there");
        // SAFETY: each routine is declared so in `routines.c`.
        (unsafe { std::mem::transmute::<*mut libc::c_void, Routine>(at) }, at as u64)
    };
    NAMES.iter().map(|n| find(n)).collect()
}

/// A machine with the library where it is in this process.
fn machine(library: &Path) -> Memory {
    let mut mem = Memory::new(64 << 20);
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    let own = std::fs::File::open("/proc/self/mem").expect("Linux has it");
    for line in maps.lines().filter(|l| l.ends_with(&*library.to_string_lossy())) {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let Some((from, to)) = range.split_once('-') else { continue };
        let [from, to] = [from, to].map(|n| u64::from_str_radix(n, 16).expect("a number in base 16"));
        if !rights.starts_with('r') {
            continue;
        }
        let pages = (to - from) as usize / PAGE_SIZE;
        let pa = mem.alloc_frames(pages).expect("it is small");
        let mut prot = Prot::READ;
        for (letter, p) in [('w', Prot::WRITE), ('x', Prot::EXEC)] {
            if rights.contains(letter) {
                prot = prot | p;
            }
        }
        mem.map_ram(Va(from), pa, pages, prot);
        let mut bytes = vec![0; pages * PAGE_SIZE];
        own.read_exact_at(&mut bytes, from).expect("it is mapped");
        mem.write(Va(from), &bytes).expect("it is mapped");
    }
    for (va, pages, prot) in [
        (BUFFER, BYTES / PAGE_SIZE, Prot::READ | Prot::WRITE),
        (STACK, 4, Prot::READ | Prot::WRITE),
        (GATE, 1, Prot::READ | Prot::GATE),
    ] {
        let pa = mem.alloc_frames(pages).expect("it is small");
        mem.map_ram(Va(va), pa, pages, prot);
    }
    mem
}

#[test]
fn compiled_routines_give_what_they_give_on_the_processor() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/routines.c");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut kinds: Vec<&[&str]> = vec![&["-O0"], &["-Os"], &["-O2"], &["-O3"]];
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
        kinds.push(&["-O3", "-mavx2", "-mbmi", "-mbmi2", "-mpopcnt", "-mlzcnt"]);
    }
    for (n, kind) in kinds.iter().enumerate() {
        let library = dir.join(format!("routines{n}.so"));
        let made = Command::new("gcc")
            .args(*kind)
            .args([
                "-shared",
                "-fPIC",
                "-nostdlib",
                "-ffreestanding",
                "-fvisibility=hidden",
                "-Wl,-Bsymbolic",
            ])
            .args([
                "-fno-strict-aliasing",
                "-fno-tree-loop-distribute-patterns",
                "-fno-stack-protector",
                "-o",
            ])
            .arg(&library)
            .arg(&source)
            .arg("-lgcc")
            .status();
        match made {
            Ok(status) => assert!(status.success(), "gcc {kind:?}"),
            Err(e) => return eprintln!("SKIPPED: gcc can't be run: {e}"),
        }
        let routines = load(&library);
        let mem = machine(&library);
        let mut total = 0;
        for (name, (routine, at)) in NAMES.iter().zip(routines) {
            for seed in [0, 1, 0x8000_0000_0000_0000, 0x1234_5678_9abc_def1, u64::MAX] {
                #[repr(align(64))]
                struct Buffer([u8; BYTES]);
                let mut buffer = Buffer([0; BYTES]);
                let mut x = seed | 1;
                for b in &mut buffer.0 {
                    x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    *b = (x >> 56) as u8;
                }
                let mut mem = mem.clone();
                mem.write(Va(BUFFER), &buffer.0).expect("it is mapped");
                let rsp = STACK + 0x3ff8;
                mem.write_u64(Va(rsp), GATE).expect("it is mapped");
                let mut cpu = Cpu::new(0);
                cpu.regs.rip = at;
                cpu.regs.gpr[4] = rsp;
                (cpu.regs.gpr[7], cpu.regs.gpr[6], cpu.regs.gpr[2]) = (BUFFER, BYTES as u64, seed);
                let (retired, exit) = cpu.run(&mut mem, &mut NoBus, 100_000_000);
                assert_eq!(exit, Exit::Gate(GATE), "{name} {kind:?} after {retired}");
                total += retired;
                let result = routine(buffer.0.as_mut_ptr(), BYTES as u64, seed);
                assert_eq!(cpu.regs.gpr[0], result, "{name} {kind:?} of {seed:#x}");
                let mut after = vec![0; BYTES];
                mem.read(Va(BUFFER), &mut after).expect("it is mapped");
                let differs = after.iter().zip(&buffer.0).position(|(a, b)| a != b);
                assert_eq!(differs, None, "{name} {kind:?} of {seed:#x}");
            }
        }
        eprintln!("{kind:?}: {total} instructions");
    }
}
