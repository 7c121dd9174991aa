//! Prints how many instructions a second the engine runs on small loops.
#![allow(clippy::print_stdout, reason = "it is a measuring program")]

use dirql_mem::{Memory, Pa, Prot, Va};
use dirql_x86::{Bus, Cpu};

const CODE: u64 = 0xFFFF_F800_0000_0000;

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

fn main() {
    // add rax, rcx; xor rdx, rax; sub rcx, 1; jmp
    let arithmetic: &[u8] = &[0x48, 1, 0xc8, 0x48, 0x31, 0xc2, 0x48, 0x83, 0xe9, 1, 0xeb, 0xf4];
    // mov rax, [rdi]; add rax, 1; mov [rdi], rax; jmp
    let memory: &[u8] = &[0x48, 0x8b, 7, 0x48, 0x83, 0xc0, 1, 0x48, 0x89, 7, 0xeb, 0xf4];
    // call f; jmp; f: push rbx; pop rbx; ret
    let calls: &[u8] = &[0xe8, 2, 0, 0, 0, 0xeb, 0xf9, 0x53, 0x5b, 0xc3];
    for (name, code) in [("arithmetic", arithmetic), ("memory", memory), ("calls", calls)] {
        let mut mem = Memory::new(1 << 20);
        let Ok(pa) = mem.alloc_frames(2) else { return };
        mem.map_ram(Va(CODE), pa, 2, Prot::READ | Prot::WRITE | Prot::EXEC);
        if mem.write(Va(CODE), code).is_err() {
            return;
        }
        let mut cpu = Cpu::new(0);
        cpu.regs.rip = CODE;
        cpu.regs.gpr[7] = CODE + 0x1800;
        cpu.regs.gpr[4] = CODE + 0x2000;
        let start = std::time::Instant::now();
        let (n, _) = cpu.run(&mut mem, &mut NoBus, 100_000_000);
        println!("{name}: {:.0} M instructions/s", n as f64 / start.elapsed().as_secs_f64() / 1e6);
    }
}
