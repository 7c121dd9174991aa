//! Everything outside the processors and the memory, and how it hangs together.
//!
//! Devices act while a processor is in the middle of an instruction. What they do (drive the pin, send a message,
//! schedule) is queued and carried out by [`Hw::settle`] at the next boundary, when the time is exact and the
//! task priorities of all processors are known.

use dirql_mem::Memory;
use dirql_x86::Cpu;

use crate::DeviceId;
use crate::choice::{Choice, Chooser, ask};
use crate::clock::{Clock, Timed};
use crate::device::{Action, Device, DeviceCtx};
use crate::event::{Log, MachineEventKind};
use crate::ioapic::{Dest, IoApic, IoRequest};
use crate::lapic::LocalApic;
use crate::pci::bar::BarAllocator;
use crate::pci::{Bdf, Function, MessageOutcome, message};

/// A device in its slot.
pub(crate) struct Slot {
    pub(crate) dev: Box<dyn Device>,
    pub(crate) function: Function,
    /// False once it was pulled out.
    pub(crate) present: bool,
    /// What it drives on its GSI now.
    driving: bool,
    /// The power state it was told last.
    d_state: u8,
}

impl Clone for Slot {
    fn clone(&self) -> Self {
        Slot {
            dev: self.dev.clone_box(),
            function: self.function.clone(),
            present: self.present,
            driving: self.driving,
            d_state: self.d_state,
        }
    }
}

impl Slot {
    pub(crate) fn new(dev: Box<dyn Device>, function: Function) -> Slot {
        Slot { dev, function, present: true, driving: false, d_state: 0 }
    }
}

pub(crate) struct Hw {
    pub(crate) slots: Vec<Slot>,
    pub(crate) ioapic: IoApic,
    pub(crate) lapics: Vec<LocalApic>,
    pub(crate) clock: Clock,
    pub(crate) log: Log,
    pub(crate) chooser: Box<dyn Chooser>,
    pub(crate) firmware: BarAllocator,
    /// Port 0xCF8.
    pub(crate) config_address: u32,
    actions: Vec<(DeviceId, Action)>,
}

impl Clone for Hw {
    fn clone(&self) -> Self {
        Hw {
            slots: self.slots.clone(),
            ioapic: self.ioapic.clone(),
            lapics: self.lapics.clone(),
            clock: self.clock.clone(),
            log: self.log.clone(),
            chooser: self.chooser.clone_box(),
            firmware: self.firmware.clone(),
            config_address: self.config_address,
            actions: self.actions.clone(),
        }
    }
}

impl Hw {
    pub(crate) fn new(cpus: usize, chooser: Box<dyn Chooser>) -> Hw {
        Hw {
            slots: Vec::new(),
            ioapic: IoApic::default(),
            lapics: vec![LocalApic::default(); cpus],
            clock: Clock::default(),
            log: Log::default(),
            chooser,
            firmware: BarAllocator::default(),
            config_address: 0,
            actions: Vec::new(),
        }
    }

    pub(crate) fn slot(&self, id: DeviceId) -> Option<&Slot> {
        self.slots.get(id.0 as usize)
    }

    pub(crate) fn slot_mut(&mut self, id: DeviceId) -> Option<&mut Slot> {
        self.slots.get_mut(id.0 as usize)
    }

    /// Calls a device that is present. With memory it is between instructions, without in the middle of one.
    pub(crate) fn call<R>(
        &mut self,
        id: DeviceId,
        mem: Option<&mut Memory>,
        f: impl FnOnce(&mut dyn Device, &mut DeviceCtx<'_>) -> R,
    ) -> Option<R> {
        let slot = self.slots.get_mut(id.0 as usize).filter(|s| s.present)?;
        let mut ctx = DeviceCtx {
            id,
            now: mem.is_some().then(|| self.clock.now()),
            function: &slot.function,
            actions: &mut self.actions,
            mem,
            chooser: &mut *self.chooser,
            log: &mut self.log,
        };
        Some(f(&mut *slot.dev, &mut ctx))
    }

    /// Something in a function's header or table changed: settle what follows at the boundary.
    pub(crate) fn touched(&mut self, id: DeviceId) {
        self.actions.push((id, Action::Reconfigured));
    }

    /// The device behind a configuration address.
    pub(crate) fn at(&self, bdf: Bdf) -> Option<DeviceId> {
        let found = self.slots.iter().position(|s| s.present && s.function.bdf == Some(bdf))?;
        Some(DeviceId(found as u32))
    }

    pub(crate) fn config_read(&self, bdf: Bdf, offset: u16, size: u8) -> u32 {
        match self.at(bdf).and_then(|id| self.slot(id)) {
            Some(slot) => slot.function.config_read(offset, size),
            None => u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4))),
        }
    }

    pub(crate) fn config_write(&mut self, bdf: Bdf, offset: u16, size: u8, value: u32) {
        if let Some(id) = self.at(bdf) {
            if let Some(slot) = self.slot_mut(id) {
                slot.function.config_write(offset, size, value);
            }
            self.touched(id);
        }
    }

    /// Carries out what devices did, in order, and gives the log its time.
    pub(crate) fn settle(&mut self, cpus: &[Cpu], mem: &mut Memory) {
        while !self.actions.is_empty() {
            for (id, action) in std::mem::take(&mut self.actions) {
                match action {
                    Action::Pin(asserted) => {
                        if let Some(slot) = self.slot_mut(id) {
                            slot.function.set_pin(asserted);
                        }
                        self.refresh_line(id, cpus);
                    }
                    Action::Message(i) => self.send(id, i, cpus),
                    Action::Schedule(delay, event) => {
                        if !self.clock.schedule(delay, Timed::Device { device: id.0, id: event }) {
                            let text = "too many timed events wait; this one is dropped".to_string();
                            self.log.push(MachineEventKind::Note { device: id, text });
                        }
                    }
                    Action::Reconfigured => self.reconfigured(id, cpus, mem),
                }
            }
        }
        self.log.stamp(self.clock.now());
    }

    fn reconfigured(&mut self, id: DeviceId, cpus: &[Cpu], mem: &mut Memory) {
        let Some(slot) = self.slot_mut(id) else { return };
        let state = slot.function.d_state();
        if state != slot.d_state {
            slot.d_state = state;
            self.log.push(MachineEventKind::Power { device: id, d_state: state });
            self.call(id, Some(mem), |dev, ctx| dev.power(ctx, state));
        }
        self.refresh_line(id, cpus);
        let released = self.slot_mut(id).map(|s| s.function.take_released()).unwrap_or_default();
        for i in released {
            self.send(id, i, cpus);
        }
        self.call(id, Some(mem), |dev, ctx| dev.reconfigured(ctx));
    }

    /// Makes the line follow the function.
    pub(crate) fn refresh_line(&mut self, id: DeviceId, cpus: &[Cpu]) {
        let Some(slot) = self.slot_mut(id) else { return };
        let asserted = slot.present && slot.function.intx();
        let Some(gsi) = slot.function.gsi().filter(|_| asserted != slot.driving) else { return };
        slot.driving = asserted;
        self.log.push(MachineEventKind::Line { device: id, gsi, asserted });
        if let Some(request) = self.ioapic.drive(gsi, id.0, asserted) {
            self.deliver(request, cpus);
        }
    }

    fn send(&mut self, id: DeviceId, i: u32, cpus: &[Cpu]) {
        let Some(slot) = self.slot_mut(id).filter(|s| s.present) else { return };
        let kind = match slot.function.message(i) {
            MessageOutcome::Pending => MachineEventKind::MessagePending { device: id, message: i },
            MessageOutcome::Lost(why) => {
                MachineEventKind::MessageLost { device: id, message: i, reason: why.to_string() }
            }
            MessageOutcome::Send { address, data } => match message::decode(address, data, cpus.len() as u32)
            {
                Ok(found) => {
                    let vector = found.vector;
                    self.log.push(MachineEventKind::Message { device: id, message: i, vector });
                    self.deliver(IoRequest { vector, level: false, dest: found.dest }, cpus);
                    return;
                }
                Err(bad) => {
                    let reason = format!("address {address:#x}, data {data:#x}: {bad}");
                    MachineEventKind::MessageLost { device: id, message: i, reason }
                }
            },
        };
        self.log.push(kind);
    }

    /// Brings a request to the local APICs it is for.
    pub(crate) fn deliver(&mut self, request: IoRequest, cpus: &[Cpu]) {
        let all = |mask: u64| (0..cpus.len().min(64) as u32).filter(move |c| mask >> c & 1 != 0);
        match request.dest {
            Dest::Cpu(cpu) => self.request(cpu, request),
            Dest::AllOf(mask) => all(mask).for_each(|cpu| self.request(cpu, request)),
            Dest::AnyOf(mask) => {
                let candidates: Vec<u32> = all(mask).collect();
                // Lowest processor priority first, then lowest number (min_by_key keeps the first).
                let class = |cpu: u32| self.lapics[cpu as usize].processor_class(cpus[cpu as usize].cr8);
                let Some(default) = (0..candidates.len()).min_by_key(|&i| class(candidates[i])) else {
                    return;
                };
                let choice = Choice::Acceptor { vector: request.vector, candidates: &candidates };
                let pick = ask(&mut *self.chooser, choice, candidates.len() as u32, default as u32);
                self.request(candidates[pick as usize], request);
            }
        }
    }

    pub(crate) fn request(&mut self, cpu: u32, request: IoRequest) {
        if let Some(apic) = self.lapics.get_mut(cpu as usize) {
            let merged = !apic.request(request.vector, request.level);
            self.log.push(MachineEventKind::Request { cpu, vector: request.vector, merged });
        }
    }

    /// Runs the events that are due, each settled before the next.
    pub(crate) fn run_due(&mut self, cpus: &[Cpu], mem: &mut Memory) {
        while let Some(what) = self.clock.take_due() {
            match what {
                Timed::Device { device, id } => {
                    self.call(DeviceId(device), Some(&mut *mem), |dev, ctx| dev.event(ctx, id));
                }
                Timed::Tick { cpu, vector, .. } => {
                    self.request(cpu, IoRequest { vector, level: false, dest: Dest::Cpu(cpu) });
                }
            }
            self.settle(cpus, mem);
        }
    }
}
