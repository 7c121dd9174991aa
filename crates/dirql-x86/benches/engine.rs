//! How fast the engine runs: the same guest loops plain, with every access observed, and stopping exactly every so
//! many instructions; then clones, the way back to one, and the building of blocks.
//!
//! It counts processor time of its own where Linux tells it (so that a busy machine matters little), else the
//! clock's, and prints the median of seven rounds. The ratios are what to compare between machines.
#![allow(clippy::print_stdout, missing_docs, reason = "it is a measuring program")]

use dirql_mem::{Memory, Pa, Prot, Va};
use dirql_x86::{Bus, Cpu, Exit};
use std::time::Instant;

const CODE: u64 = 0xFFFF_F800_0000_0000;
const DATA: u64 = 0xFFFF_F800_0100_0000;
const ROUNDS: usize = 7;

struct NoBus;

impl Bus for NoBus {
    fn mmio_read(&mut self, _: Pa, _: u8) -> u64 {
        0
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

/// Nanoseconds: of this process on a processor, where the host is Linux.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library has no clock of processor time")]
fn now(_: Instant) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes only to the structure it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Nanoseconds since some moment.
#[cfg(not(target_os = "linux"))]
fn now(start: Instant) -> f64 {
    start.elapsed().as_nanos() as f64
}

/// The median time in nanoseconds of what `round` does.
fn median(mut round: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let before = now(start);
            round();
            now(start) - before
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

/// A machine of `pages` written pages of data, with this code.
fn machine(code: &[u8], pages: usize) -> (Cpu, Memory) {
    let mut mem = Memory::new(1 << 26);
    let code_pages = code.len() / 4096 + 1;
    let at = mem.alloc_frames(code_pages).expect("the limit allows it");
    mem.map_ram(Va(CODE), at, code_pages, Prot::READ | Prot::EXEC);
    mem.write(Va(CODE), code).expect("it is mapped");
    let at = mem.alloc_frames(pages).expect("the limit allows it");
    mem.map_ram(Va(DATA), at, pages, Prot::READ | Prot::WRITE);
    for page in 0..pages as u64 {
        mem.write_u64(Va(DATA + page * 4096), page).expect("it is mapped");
    }
    let mut cpu = Cpu::new(0);
    cpu.regs.rip = CODE;
    cpu.regs.gpr[4] = DATA + 0x1000;
    cpu.regs.gpr[6] = DATA + 0x2000;
    cpu.regs.gpr[7] = DATA + 0x4000;
    (cpu, mem)
}

fn loops() {
    let cases: [(&str, &[u8]); 6] = [
        // add rax, rcx; xor rdx, rax; sub rcx, 1; jmp
        ("arithmetic", &[0x48, 1, 0xc8, 0x48, 0x31, 0xc2, 0x48, 0x83, 0xe9, 1, 0xeb, 0xf4]),
        // mov rax, [rdi]; add rax, 1; mov [rdi], rax; cmp rax, 0; jne
        (
            "load, store",
            &[0x48, 0x8b, 7, 0x48, 0x83, 0xc0, 1, 0x48, 0x89, 7, 0x48, 0x83, 0xf8, 0, 0x75, 0xf0],
        ),
        // call f; jmp; f: push rbx; pop rbx; ret
        ("calls", &[0xe8, 2, 0, 0, 0, 0xeb, 0xf9, 0x53, 0x5b, 0xc3]),
        // lock xadd [rdi], rax; lock inc dword [rdi]; jmp
        ("locked", &[0xf0, 0x48, 0x0f, 0xc1, 7, 0xf0, 0xff, 7, 0xeb, 0xf6]),
        // again: xor ecx, ecx; next: movups xmm0, [rsi+rcx]; movups [rdi+rcx], xmm0; add rcx, 16; cmp ecx, 4096; jb
        // next; jmp again
        (
            "memcpy",
            &[
                0x31, 0xc9, 0x0f, 0x10, 4, 0x0e, 0x0f, 0x11, 4, 0x0f, 0x48, 0x83, 0xc1, 16, 0x81, 0xf9, 0,
                0x10, 0, 0, 0x72, 0xec, 0xeb, 0xe8,
            ],
        ),
        // again: mov ecx, 4096; rep movsb; sub rsi, 4096; sub rdi, 4096; jmp again
        (
            "rep movsb",
            &[
                0xb9, 0, 0x10, 0, 0, 0xf3, 0xa4, 0x48, 0x81, 0xee, 0, 0x10, 0, 0, 0x48, 0x81, 0xef, 0, 0x10,
                0, 0, 0xeb, 0xe9,
            ],
        ),
    ];
    println!("loop          M instr/s   observed  every 1000  every 100  every 10   (times of plain)");
    for (name, code) in cases {
        const N: u64 = 6_000_000;
        let time = |every: u64, log: bool| {
            let (mut cpu, mut mem) = machine(code, 16);
            cpu.set_logging(log);
            median(|| {
                let mut left = N;
                while left > 0 {
                    let (n, exit) = cpu.run(&mut mem, &mut NoBus, left.min(every));
                    assert_eq!(exit, Exit::Budget);
                    left -= n;
                    cpu.clear_log();
                }
            })
        };
        let plain = time(N, false);
        let of = |every, log| time(every, log) / plain;
        println!(
            "{name:<12} {:>10.0} {:>10.2} {:>11.2} {:>10.2} {:>9.2}",
            N as f64 / plain * 1e3,
            of(10_000, true),
            of(1000, false),
            of(100, false),
            of(10, false),
        );
    }
}

fn clones() {
    const TIMES: u32 = 200;
    // jmp to itself
    let (mut cpu, mut mem) = machine(&[0xeb, 0xfe], 512);
    cpu.run(&mut mem, &mut NoBus, 100);
    let each = |ns: f64| ns / f64::from(TIMES) / 1e3;
    let clone = median(|| {
        for _ in 0..TIMES {
            std::hint::black_box((cpu.clone(), mem.clone()));
        }
    });
    let dirty = |mem: &mut Memory| {
        for page in 0..100 {
            mem.write_u64(Va(DATA + page * 4096), 1).expect("it is mapped");
        }
    };
    let (mut dirtying, mut back) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut works: Vec<Memory> = (0..TIMES).map(|_| mem.clone()).collect();
        let start = Instant::now();
        let times = [
            now(start),
            {
                works.iter_mut().for_each(dirty);
                now(start)
            },
            {
                works.iter_mut().for_each(|work| work.clone_from(&mem));
                now(start)
            },
        ];
        dirtying.push(times[1] - times[0]);
        back.push(times[2] - times[1]);
    }
    let middle = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        each(times[ROUNDS / 2])
    };
    println!("clone and drop of a processor and 2 MB: {:.1} us", each(clone));
    println!("100 of its pages dirtied: {:.1} us", middle(&mut dirtying));
    println!("gone back from there: {:.1} us", middle(&mut back));
}

/// Code that is run once: blocks of six instructions over 64 KiB.
fn cold() {
    let mut code = Vec::new();
    while code.len() < 60_000 {
        // mov rax, [rdi]; add rax, 1; mov [rdi], rax; test eax, eax; lea rcx, [rax+4]; jmp to the next
        code.extend([
            0x48, 0x8b, 7, 0x48, 0x83, 0xc0, 1, 0x48, 0x89, 7, 0x85, 0xc0, 0x48, 0x8d, 0x48, 4, 0xeb, 0,
        ]);
    }
    let budget = code.len() as u64 / 18 * 6;
    let time = median(|| {
        let (mut cpu, mut mem) = machine(&code, 16);
        assert_eq!(cpu.run(&mut mem, &mut NoBus, budget), (budget, Exit::Budget));
    });
    println!("code run once, decoding counted: {:.1} M instr/s", budget as f64 / time * 1e3);
}

fn main() {
    loops();
    clones();
    cold();
}
