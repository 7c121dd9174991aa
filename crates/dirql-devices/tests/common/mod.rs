//! What the tests of devices share: a machine, register accesses, interrupts taken.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;

use dirql_devices::{PropValue, build};
use dirql_machine::pci::message::encode;
use dirql_machine::{BarKind, Choice, Chooser, Dest, DeviceId, Machine, MachineConfig, PciSlotConfig};
use dirql_mem::Pa;

pub const GSI: u32 = 17;

pub fn machine(cpus: usize) -> Machine {
    let mut m = Machine::new(MachineConfig { cpus, ram: 1 << 24, seed: 1 });
    for cpu in &mut m.cpus {
        cpu.regs.rflags |= 0x200;
    }
    m
}

pub fn text(s: &str) -> PropValue {
    PropValue::Str(s.to_string())
}

pub fn add(m: &mut Machine, model: &str, props: &[(&str, PropValue)]) -> (DeviceId, u64) {
    let props: BTreeMap<_, _> = props.iter().map(|(k, v)| ((*k).to_string(), v.clone())).collect();
    let dev = build(model, &props).map_err(|e| e.to_string()).unwrap();
    let id = m.add_device(PciSlotConfig { gsi: Some(GSI) }, dev).unwrap();
    let bdf = m.bdf(id).unwrap();
    let command = m.config_read(bdf, 4, 2);
    m.config_write(bdf, 4, 2, command | 4);
    let BarKind::Memory { pa, .. } = m.bars(id)[0].kind else { panic!("a memory BAR") };
    (id, pa.0)
}

pub fn get(m: &mut Machine, at: u64) -> u32 {
    m.mmio_read(0, Pa(at), 4) as u32
}

pub fn put(m: &mut Machine, at: u64, value: u32) {
    m.mmio_write(0, Pa(at), 4, u64::from(value));
}

pub fn counter(m: &Machine, id: DeviceId, name: &str) -> u64 {
    m.device_counters(id).into_iter().find(|(n, _)| n == name).unwrap().1
}

pub fn line(m: &mut Machine) {
    m.ioapic_route(GSI, 0x61, true, true, Dest::Cpu(0));
    m.ioapic_mask(GSI, false);
}

pub fn msix(m: &mut Machine, id: DeviceId, vectors: &[u8]) {
    for (i, v) in vectors.iter().enumerate() {
        let (address, data) = encode(*v, Dest::Cpu(0)).unwrap();
        assert!(m.msix_program(id, i as u32, address, data));
    }
    assert!(m.msix_control(id, true, false));
}

/// Takes and ends what cpu 0 can take now.
pub fn dispatch(m: &mut Machine) -> Option<u8> {
    let vector = m.pending_vector(0)?;
    assert!(m.accept(0, vector));
    assert_eq!(m.eoi(0), Some(vector));
    Some(vector)
}

/// Takes one option of one freedom, whenever it is asked; else the default.
#[derive(Clone)]
pub struct Always(pub &'static str, pub u32);

impl Chooser for Always {
    fn clone_box(&self) -> Box<dyn Chooser> {
        Box::new(self.clone())
    }

    fn choose(&mut self, choice: Choice<'_>, _: u32, default: u32) -> u32 {
        match choice {
            Choice::Device { name, .. } if name == self.0 => self.1,
            _ => default,
        }
    }
}
