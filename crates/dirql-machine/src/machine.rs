//! The machine as its embedder uses it.

use dirql_mem::Memory;
use dirql_x86::{Cpu, rflags};

use crate::DeviceId;
use crate::choice::{Chooser, DefaultPolicy, Script};
use crate::device::Device;
use crate::event::MachineEvent;
use crate::hw::{Hw, Slot};
use crate::ioapic::{Dest, GSI_COUNT, IoRequest, Wiring};
use crate::lapic::LocalApic;
use crate::pci::bar::{BarInfo, BarKind};
use crate::pci::cfg::{CMD_INTX_DISABLE, COMMAND};
use crate::pci::{AddDeviceError, Bdf, Function};

/// What a machine is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MachineConfig {
    /// Processors, 1 to 64 (other numbers are brought into that range).
    pub cpus: usize,
    /// Most bytes of RAM it may allocate.
    pub ram: u64,
    /// For choosers that want one; the machine itself has no randomness.
    pub seed: u64,
}

/// Where a device is put.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct PciSlotConfig {
    /// The GSI its pin is wired to; several devices may share one. By default each has its own, from 16 up.
    pub gsi: Option<u32>,
}

/// Where a device on the ISA bus is.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct IsaSlotConfig {
    /// Ports, and memory in the hole from 0xA0000 to 0xFFFFF.
    pub regions: Vec<BarKind>,
    /// Its interrupt request line.
    pub irq: Option<u32>,
}

/// Whether a region is one that an ISA device can decode here.
fn isa_region(region: BarKind) -> bool {
    match region {
        BarKind::Io { port, len } => len > 0 && port.checked_add(len).is_some_and(|end| end <= 0x1_0000),
        BarKind::Memory { pa, len, .. } => {
            len > 0 && pa.0 >= 0xA_0000 && pa.0.checked_add(len).is_some_and(|end| end <= 0x10_0000)
        }
    }
}

fn overlap(a: BarKind, b: BarKind) -> bool {
    match (a, b) {
        (BarKind::Io { port: a, len: m }, BarKind::Io { port: b, len: n }) => {
            a < b.saturating_add(n) && b < a.saturating_add(m)
        }
        (BarKind::Memory { pa: a, len: m, .. }, BarKind::Memory { pa: b, len: n, .. }) => {
            a.0 < b.0.saturating_add(n) && b.0 < a.0.saturating_add(m)
        }
        _ => false,
    }
}

/// Processors, memory, devices and what joins them.
#[derive(Clone)]
pub struct Machine {
    /// Guest memory.
    pub mem: Memory,
    /// The processors, by number.
    pub cpus: Vec<Cpu>,
    pub(crate) hw: Hw,
    pub(crate) retired: u64,
    config: MachineConfig,
}

impl Machine {
    /// A machine with the default policy for its choices.
    pub fn new(config: MachineConfig) -> Machine {
        let cpus = config.cpus.clamp(1, 64);
        Machine {
            mem: Memory::new(config.ram),
            cpus: (0..cpus as u32).map(Cpu::new).collect(),
            hw: Hw::new(cpus, Box::new(DefaultPolicy)),
            retired: 0,
            config: MachineConfig { cpus, ..config },
        }
    }

    /// What it was made from.
    pub fn config(&self) -> MachineConfig {
        self.config
    }

    /// Puts another in charge of the machine's choices.
    pub fn set_chooser(&mut self, chooser: Box<dyn Chooser>) {
        self.hw.chooser = chooser;
    }

    /// The script in charge of the choices, when it is one.
    pub fn script(&mut self) -> Option<&mut Script> {
        self.hw.chooser.script()
    }

    pub(crate) fn settle(&mut self) {
        self.hw.settle(&self.cpus, &mut self.mem);
    }

    // Devices.

    /// Puts a device on bus 0 and assigns its BARs as firmware does. Bus mastering is off, as after reset.
    ///
    /// # Errors
    /// Why it does not fit.
    pub fn add_device(
        &mut self,
        slot: PciSlotConfig,
        dev: Box<dyn Device>,
    ) -> Result<DeviceId, AddDeviceError> {
        let number = self.hw.slots.len() as u32;
        let before = self.hw.slots.iter().filter(|s| s.function.is_pci()).count();
        let device = u8::try_from(before + 1).ok().filter(|d| *d < 32).ok_or(AddDeviceError::NoSlot)?;
        let gsi = slot.gsi.unwrap_or(16 + number);
        if gsi >= GSI_COUNT {
            return Err(AddDeviceError::Gsi(gsi));
        }
        let bdf = Bdf { bus: 0, device, function: 0 };
        let function = Function::new(bdf, &dev.pci(), Some(gsi), &mut self.hw.firmware)?;
        self.hw.slots.push(Slot::new(dev, function));
        let id = DeviceId(number);
        self.hw.touched(id);
        self.settle();
        Ok(id)
    }

    /// Puts a device on the ISA bus, at the regions and the IRQ that it is set to. Its regions are numbered as
    /// BARs, in order. IRQ `n` is GSI `n`, edge-triggered and active high below 16.
    ///
    /// # Errors
    /// Why it does not fit.
    pub fn add_isa_device(
        &mut self,
        slot: IsaSlotConfig,
        dev: Box<dyn Device>,
    ) -> Result<DeviceId, AddDeviceError> {
        if let Some(gsi) = slot.irq.filter(|g| *g >= GSI_COUNT) {
            return Err(AddDeviceError::Gsi(gsi));
        }
        // The machine decodes the configuration ports itself, before any device.
        let mut taken = vec![BarKind::Io { port: 0xCF8, len: 8 }];
        taken.extend(self.hw.slots.iter().flat_map(|s| s.function.bars()).map(|b| b.kind));
        for &region in &slot.regions {
            if !isa_region(region) || taken.iter().any(|t| overlap(*t, region)) {
                return Err(AddDeviceError::Region(region));
            }
            taken.push(region);
        }
        let id = DeviceId(self.hw.slots.len() as u32);
        self.hw.slots.push(Slot::new(dev, Function::isa(slot.regions, slot.irq)));
        self.hw.touched(id);
        self.settle();
        Ok(id)
    }

    /// The devices, in order; a removed one stays in the list.
    pub fn devices(&self) -> Vec<DeviceId> {
        (0..self.hw.slots.len() as u32).map(DeviceId).collect()
    }

    /// The PCI side of a device.
    pub fn pci(&self, id: DeviceId) -> Option<&Function> {
        self.hw.slot(id).map(|s| &s.function)
    }

    /// Where a device is; `None` on the ISA bus.
    pub fn bdf(&self, id: DeviceId) -> Option<Bdf> {
        self.pci(id).and_then(|f| f.bdf)
    }

    /// The device at a configuration address, unless it was removed.
    pub fn device_at(&self, bdf: Bdf) -> Option<DeviceId> {
        self.hw.at(bdf)
    }

    /// A device's BARs, the one for its MSI-X table included.
    pub fn bars(&self, id: DeviceId) -> Vec<BarInfo> {
        self.pci(id).map(Function::bars).unwrap_or_default()
    }

    /// Pulls a device out: nothing decodes any more, its line is let go, its events are forgotten.
    pub fn detach(&mut self, id: DeviceId) {
        if let Some(slot) = self.hw.slot_mut(id) {
            slot.present = false;
            self.hw.clock.forget(id.0);
            self.hw.refresh_line(id, &self.cpus);
            self.settle();
        }
    }

    /// Whether a device is there.
    pub fn present(&self, id: DeviceId) -> bool {
        self.hw.slot(id).is_some_and(|s| s.present)
    }

    /// Reads configuration space; ones where nothing is.
    pub fn config_read(&self, bdf: Bdf, offset: u16, size: u8) -> u32 {
        self.hw.config_read(bdf, offset, size)
    }

    /// Writes configuration space, with everything that follows from it.
    pub fn config_write(&mut self, bdf: Bdf, offset: u16, size: u8, value: u32) {
        self.hw.config_write(bdf, offset, size, value);
        self.settle();
    }

    fn change(&mut self, id: DeviceId, f: impl FnOnce(&mut Function) -> bool) -> bool {
        let Some(slot) = self.hw.slot_mut(id).filter(|s| s.present) else { return false };
        let done = f(&mut slot.function);
        self.hw.touched(id);
        self.settle();
        done
    }

    /// How many messages the MSI capability has; `None` without one.
    pub fn msi_count(&self, id: DeviceId) -> Option<u32> {
        self.pci(id)?.msi.map(|m| u32::from(m.spec().messages))
    }

    /// How many entries the MSI-X table has; `None` without one.
    pub fn msix_count(&self, id: DeviceId) -> Option<u32> {
        self.pci(id)?.msix.as_ref().map(|x| x.len())
    }

    /// Where the MSI or MSI-X capability is in configuration space: (MSI, MSI-X).
    pub fn message_capabilities(&self, id: DeviceId) -> (Option<u16>, Option<u16>) {
        self.pci(id)
            .map_or((None, None), |f| (f.msi.map(|m| m.offset()), f.msix.as_ref().map(|x| x.offset())))
    }

    /// Programs MSI: address, data of message 0, messages enabled (rounded down to a power of two), enable bit.
    /// False without the capability.
    pub fn msi_program(
        &mut self,
        id: DeviceId,
        address: u64,
        data: u16,
        messages: u32,
        enable: bool,
    ) -> bool {
        self.change(id, |f| f.msi.map(|m| m.program(&mut f.cfg, address, data, messages, enable)).is_some())
    }

    /// Masks or unmasks an MSI message. False when the capability has no mask bits.
    pub fn msi_mask(&mut self, id: DeviceId, message: u32, masked: bool) -> bool {
        self.change(id, |f| match f.msi.filter(|m| m.spec().maskable) {
            Some(m) => {
                m.mask(&mut f.cfg, message, masked);
                true
            }
            None => false,
        })
    }

    /// Programs an MSI-X entry; its mask stays. False when there is no such entry.
    pub fn msix_program(&mut self, id: DeviceId, entry: u32, address: u64, data: u32) -> bool {
        self.change(id, |f| f.msix.as_mut().is_some_and(|x| x.program(entry, address, data)))
    }

    /// Masks or unmasks an MSI-X entry. False when there is no such entry.
    pub fn msix_mask(&mut self, id: DeviceId, entry: u32, masked: bool) -> bool {
        self.change(id, |f| f.msix.as_mut().is_some_and(|x| x.mask(entry, masked)))
    }

    /// Sets the enable and function mask bits of MSI-X. False without the capability.
    pub fn msix_control(&mut self, id: DeviceId, enable: bool, function_mask: bool) -> bool {
        self.change(id, |f| match &f.msix {
            Some(x) => {
                x.set_control(&mut f.cfg, enable, function_mask);
                true
            }
            None => false,
        })
    }

    /// Sets or clears INTx Disable in the command register.
    pub fn intx_disable(&mut self, id: DeviceId, disabled: bool) -> bool {
        self.change(id, |f| {
            let old = u32::from(f.cfg.command() & !CMD_INTX_DISABLE);
            f.config_write(COMMAND, 2, old | if disabled { u32::from(CMD_INTX_DISABLE) } else { 0 });
            true
        })
    }

    // The workload's side of devices.

    /// Makes a source of a device raise its interrupt.
    ///
    /// # Errors
    /// Why it can't.
    pub fn device_raise(&mut self, id: DeviceId, source: u32) -> Result<(), String> {
        let done = self.hw.call(id, Some(&mut self.mem), |d, ctx| d.raise(ctx, source));
        self.settle();
        done.unwrap_or_else(|| Err("the device is not there".to_string()))
    }

    /// Sets a device's register by name.
    ///
    /// # Errors
    /// Why it can't.
    pub fn device_set(&mut self, id: DeviceId, register: &str, value: u64) -> Result<(), String> {
        let done = self.hw.call(id, Some(&mut self.mem), |d, ctx| d.set(ctx, register, value));
        self.settle();
        done.unwrap_or_else(|| Err("the device is not there".to_string()))
    }

    /// A device's registers and counters by name.
    pub fn device_counters(&self, id: DeviceId) -> Vec<(String, u64)> {
        self.hw.slot(id).map(|s| s.dev.registers()).unwrap_or_default()
    }

    /// The arrivals that hardware may make happen now: devices and their sources, in order.
    pub fn possible_arrivals(&self) -> Vec<(DeviceId, u32)> {
        let present = self.hw.slots.iter().enumerate().filter(|(_, s)| s.present);
        present
            .flat_map(|(i, s)| s.dev.possible_arrivals().into_iter().map(move |a| (DeviceId(i as u32), a)))
            .collect()
    }

    /// One of them happens. False when it may not.
    pub fn arrive(&mut self, id: DeviceId, source: u32) -> bool {
        let done = self.hw.call(id, Some(&mut self.mem), |d, ctx| d.arrive(ctx, source));
        self.settle();
        done.unwrap_or(false)
    }

    /// Every processor is idle: the next arrival of the first device that has one happens. True if one did.
    pub fn idle_arrival(&mut self) -> bool {
        for id in self.devices() {
            let done = self.hw.call(id, Some(&mut self.mem), |d, ctx| d.arrival(ctx));
            self.settle();
            if done == Some(true) {
                return true;
            }
        }
        false
    }

    // Interrupts.

    /// The highest vector that may interrupt this processor now: its interrupt flag is set, the class is above CR8
    /// and above what is in service (spec 5.1).
    pub fn pending_vector(&self, cpu: usize) -> Option<u8> {
        let core = self.cpus.get(cpu)?;
        if core.regs.rflags & rflags::IF == 0 {
            return None;
        }
        self.hw.lapics.get(cpu)?.deliverable(core.cr8)
    }

    /// The processor takes a vector. False when it does not wait.
    pub fn accept(&mut self, cpu: usize, vector: u8) -> bool {
        self.hw.lapics.get_mut(cpu).is_some_and(|a| a.accept(vector))
    }

    /// End of interrupt of the highest vector in service; a level line still asserted asks again at once. Gives
    /// the vector that ended.
    pub fn eoi(&mut self, cpu: usize) -> Option<u8> {
        let (vector, level) = self.hw.lapics.get_mut(cpu)?.eoi()?;
        if level {
            for request in self.hw.ioapic.eoi(vector) {
                self.hw.deliver(request, &self.cpus);
            }
        }
        self.settle();
        Some(vector)
    }

    /// A processor's local APIC, to look at.
    pub fn lapic(&self, cpu: usize) -> Option<&LocalApic> {
        self.hw.lapics.get(cpu)
    }

    /// How the board wires a GSI; program its entry accordingly.
    pub fn wiring(&self, gsi: u32) -> Option<Wiring> {
        self.hw.ioapic.wiring(gsi)
    }

    /// Whether any device asserts this line, whatever the entry's mask.
    pub fn line_asserted(&self, gsi: u32) -> bool {
        self.hw.ioapic.asserted(gsi)
    }

    /// Programs a redirection entry, leaving its mask. A PCI line is level and active low ([`wiring`](Self::wiring)):
    /// the wrong polarity interrupts while the line is idle, as on hardware.
    pub fn ioapic_route(&mut self, gsi: u32, vector: u8, level: bool, active_low: bool, dest: Dest) {
        let request = self.hw.ioapic.route(gsi, vector, level, active_low, dest);
        self.routed(request);
    }

    /// Masks or unmasks a redirection entry.
    pub fn ioapic_mask(&mut self, gsi: u32, masked: bool) {
        let request = self.hw.ioapic.mask(gsi, masked);
        self.routed(request);
    }

    fn routed(&mut self, request: Option<IoRequest>) {
        if let Some(request) = request {
            self.hw.deliver(request, &self.cpus);
        }
        self.settle();
    }

    /// Sends an interprocessor interrupt.
    pub fn send_ipi(&mut self, cpu: usize, vector: u8) {
        self.hw.request(cpu as u32, IoRequest { vector, level: false, dest: Dest::Cpu(cpu as u32) });
        self.settle();
    }

    // Time.

    /// Virtual time in ticks of 1 ns.
    pub fn now(&self) -> u64 {
        self.hw.clock.now()
    }

    /// When the next timed event is due.
    pub fn next_event_time(&self) -> Option<u64> {
        self.hw.clock.next()
    }

    /// Time passes without instructions, up to `time` but not past the next event; due events run. Gives the time
    /// reached.
    pub fn advance_to(&mut self, time: u64) -> u64 {
        let until = self.hw.clock.next().map_or(time, |next| next.min(time));
        self.hw.clock.advance_to(until);
        self.run_due_events();
        self.now()
    }

    /// Idle: jumps to the next timed event and runs what is due. False when nothing is scheduled.
    pub fn advance_to_next_event(&mut self) -> bool {
        let Some(next) = self.hw.clock.next() else { return false };
        self.hw.clock.advance_to(next);
        self.run_due_events();
        true
    }

    /// Runs the timed events that are due.
    pub fn run_due_events(&mut self) {
        self.hw.run_due(&self.cpus, &mut self.mem);
    }

    /// Arms a processor's periodic timer (its clock interrupt) with a period in ns; 0 stops it.
    pub fn set_timer(&mut self, cpu: usize, vector: u8, period: u64) {
        if cpu < self.cpus.len() {
            self.hw.clock.set_timer(cpu as u32, vector, period);
        }
    }

    // The log.

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<MachineEvent> {
        self.hw.log.take()
    }

    /// How many events were not kept because nobody took them.
    pub fn events_lost(&self) -> u64 {
        self.hw.log.lost()
    }
}
