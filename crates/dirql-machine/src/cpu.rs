//! Running a processor on the machine: the bus it sees.
//!
//! BARs decode memory and ports; 0xCF8/0xCFC reach configuration space (PCI 3.0, 3.2.2.3.2). Whatever nothing
//! decodes reads as ones, and is logged.

use dirql_mem::Pa;
use dirql_x86::{Bus, Exit};

use crate::DeviceId;
use crate::event::MachineEventKind;
use crate::hw::Hw;
use crate::machine::Machine;
use crate::pci::Bdf;

struct CpuBus<'a> {
    hw: &'a mut Hw,
    cpu: u32,
}

fn ones(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
}

impl CpuBus<'_> {
    fn unclaimed(&mut self, at: u64, port: bool, size: u8, write: bool) {
        self.hw.log.push(MachineEventKind::Unclaimed { cpu: self.cpu, at, port, size, write });
    }

    fn read(&mut self, device: DeviceId, bar: u8, offset: u64, size: u8) -> u64 {
        let table = self.hw.slot(device).and_then(|s| s.function.msix.as_ref()).filter(|x| x.bar() == bar);
        let value = match table {
            Some(x) => x.read(offset, size),
            None => self.hw.call(device, None, |d, ctx| d.read(ctx, bar, offset, size)).unwrap_or(u64::MAX),
        } & ones(size);
        let (cpu, write) = (self.cpu, false);
        self.hw.log.push(MachineEventKind::Register { cpu, device, bar, offset, size, value, write });
        value
    }

    fn write(&mut self, device: DeviceId, bar: u8, offset: u64, size: u8, value: u64) {
        let (cpu, write, value) = (self.cpu, true, value & ones(size));
        self.hw.log.push(MachineEventKind::Register { cpu, device, bar, offset, size, value, write });
        let table =
            self.hw.slot_mut(device).and_then(|s| s.function.msix.as_mut()).filter(|x| x.bar() == bar);
        if let Some(x) = table {
            x.write(offset, size, value);
            self.hw.touched(device);
        } else {
            self.hw.call(device, None, |d, ctx| d.write(ctx, bar, offset, size, value));
        }
    }

    fn memory(&self, pa: Pa, size: u8) -> Option<(DeviceId, u8, u64)> {
        let slots = self.hw.slots.iter().enumerate().filter(|(_, s)| s.present);
        slots.into_iter().find_map(|(i, s)| {
            s.function.decode_memory(pa.0, size).map(|(bar, offset)| (DeviceId(i as u32), bar, offset))
        })
    }

    fn port(&self, port: u16, size: u8) -> Option<(DeviceId, u8, u64)> {
        let slots = self.hw.slots.iter().enumerate().filter(|(_, s)| s.present);
        slots.into_iter().find_map(|(i, s)| {
            s.function
                .decode_port(u32::from(port), size)
                .map(|(bar, offset)| (DeviceId(i as u32), bar, offset))
        })
    }

    /// Where 0xCF8 points, when it is enabled and the port is in its data window.
    fn config_target(&self, port: u16, size: u8) -> Option<(Bdf, u16)> {
        let address = self.hw.config_address;
        let within = port.checked_sub(0xCFC).filter(|o| *o + u16::from(size) <= 4)?;
        if address >> 31 == 0 {
            return None;
        }
        let bdf = Bdf {
            bus: (address >> 16) as u8,
            device: (address >> 11) as u8 & 31,
            function: (address >> 8) as u8 & 7,
        };
        Some((bdf, (address as u16 & 0xfc) + within))
    }
}

impl Bus for CpuBus<'_> {
    fn mmio_read(&mut self, pa: Pa, size: u8) -> u64 {
        match self.memory(pa, size) {
            Some((device, bar, offset)) => self.read(device, bar, offset, size),
            None => {
                self.unclaimed(pa.0, false, size, false);
                ones(size)
            }
        }
    }

    fn mmio_write(&mut self, pa: Pa, size: u8, value: u64) {
        match self.memory(pa, size) {
            Some((device, bar, offset)) => self.write(device, bar, offset, size, value),
            None => self.unclaimed(pa.0, false, size, true),
        }
    }

    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        if port == 0xCF8 && size == 4 {
            return self.hw.config_address;
        }
        if let Some((bdf, offset)) = self.config_target(port, size) {
            return self.hw.config_read(bdf, offset, size);
        }
        match self.port(port, size) {
            Some((device, bar, offset)) => self.read(device, bar, offset, size) as u32,
            None => {
                self.unclaimed(u64::from(port), true, size, false);
                ones(size) as u32
            }
        }
    }

    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        if port == 0xCF8 && size == 4 {
            self.hw.config_address = value & 0x80ff_fffc;
        } else if let Some((bdf, offset)) = self.config_target(port, size) {
            self.hw.config_write(bdf, offset, size, value);
        } else if let Some((device, bar, offset)) = self.port(port, size) {
            self.write(device, bar, offset, size, u64::from(value));
        } else {
            self.unclaimed(u64::from(port), true, size, true);
        }
    }

    fn rdtsc(&mut self, retired_in_this_run: u64) -> u64 {
        self.hw.clock.now().saturating_add(retired_in_this_run)
    }

    fn rdmsr(&mut self, msr: u32) -> Option<u64> {
        match msr {
            // IA32_APIC_BASE: globally enabled; bit 8 marks the bootstrap processor (SDM vol. 4).
            0x1b => Some(0xFEE0_0800 | u64::from(self.cpu == 0) << 8),
            _ => None,
        }
    }

    fn wrmsr(&mut self, _msr: u32, _value: u64) -> bool {
        false
    }
}

impl Machine {
    /// Runs a processor for at most `budget` instructions; virtual time passes with them. It stops early, with
    /// [`Exit::Budget`], where a timed event falls due, and carries that event out; [`Machine::retired`] tells how
    /// far it came. A processor that does not exist runs nothing.
    pub fn run_cpu(&mut self, cpu: usize, budget: u64) -> Exit {
        self.retired = 0;
        self.run_due_events();
        let Some(core) = self.cpus.get_mut(cpu) else { return Exit::Budget };
        let due = self.hw.clock.next().map_or(u64::MAX, |t| t.saturating_sub(self.hw.clock.now()));
        let mut bus = CpuBus { hw: &mut self.hw, cpu: cpu as u32 };
        let (retired, exit) = core.run(&mut self.mem, &mut bus, budget.min(due));
        self.retired = retired;
        self.hw.clock.advance(retired);
        self.settle();
        self.run_due_events();
        exit
    }

    /// How many instructions the last [`run_cpu`](Self::run_cpu) retired.
    pub fn retired(&self) -> u64 {
        self.retired
    }

    /// Reads a register as a processor would, without an instruction: for a kernel's own port and register
    /// routines.
    pub fn mmio_read(&mut self, cpu: usize, pa: Pa, size: u8) -> u64 {
        let value = CpuBus { hw: &mut self.hw, cpu: cpu as u32 }.mmio_read(pa, size);
        self.settle();
        value
    }

    /// Writes a register as a processor would.
    pub fn mmio_write(&mut self, cpu: usize, pa: Pa, size: u8, value: u64) {
        CpuBus { hw: &mut self.hw, cpu: cpu as u32 }.mmio_write(pa, size, value);
        self.settle();
    }

    /// Reads a port as a processor would.
    pub fn port_in(&mut self, cpu: usize, port: u16, size: u8) -> u32 {
        let value = CpuBus { hw: &mut self.hw, cpu: cpu as u32 }.port_in(port, size);
        self.settle();
        value
    }

    /// Writes a port as a processor would.
    pub fn port_out(&mut self, cpu: usize, port: u16, size: u8, value: u32) {
        CpuBus { hw: &mut self.hw, cpu: cpu as u32 }.port_out(port, size, value);
        self.settle();
    }
}
