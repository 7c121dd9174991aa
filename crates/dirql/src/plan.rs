//! A lab as the kernel's plan: devices on a machine's bus, and the workload's steps.

use std::collections::BTreeMap;

use dirql_core::{
    Affinity, Config, Delivery as CoreDelivery, Locks as CoreLocks, Policy, Priority, Windows as CoreWindows,
};
use dirql_devices::PropValue;
use dirql_kernel::identity::Setting as RegistrySetting;
use dirql_kernel::life::{Do, Expect, Plan, PlanDevice, Step as PlanStep, Wants};
use dirql_kernel::registry::{self, sz};
use dirql_machine::{BarKind, BarSpec, IsaSlotConfig, Machine, MachineConfig, PciIdentity, PciSlotConfig};
use dirql_mem::Pa;

use crate::lab::{
    Action, Bus, Delivery, DeviceLab, Interrupts, Lab, Locks, PowerTarget, SetTarget, Setting, Step, WaitFor,
    Windows,
};
use crate::problem::InputError;

/// The first GSI that PCI lines use: below it are the ISA interrupts.
const FIRST_GSI: u32 = 16;
/// How many PCI lines the board has, as chipsets do.
const GSIS: u32 = 8;
/// The handle an `open` without a name makes.
const DEFAULT_HANDLE: &str = "default";
/// Guest RAM a machine may use.
const RAM: u64 = 1 << 30;

/// A machine with the lab's devices on its bus, and the plan for its kernel.
///
/// # Errors
/// A device's model refuses a property, or the bus has no room.
pub(crate) fn plan(lab: &Lab) -> Result<(Machine, Plan), InputError> {
    let mut machine =
        Machine::new(MachineConfig { cpus: lab.machine.cpus as usize, ram: RAM, seed: lab.machine.seed });
    let driven: Vec<&String> = lab.drivers.iter().flat_map(|d| &d.devices).collect();
    let mut devices = vec![];
    for (i, d) in lab.devices.iter().enumerate() {
        let wrong = |message: String| {
            InputError::new(lab.path.as_deref(), format!("device \"{}\": {message}", d.name), None)
        };
        let model = dirql_devices::build(&d.model, &properties(d)).map_err(|e| wrong(e.to_string()))?;
        let gsi = match d.bus {
            Bus::Pci => d.gsi.unwrap_or(FIRST_GSI + i as u32 % GSIS),
            Bus::Isa => d.irq.first().copied().unwrap_or(0),
        };
        let id = match d.bus {
            Bus::Pci => machine.add_device(PciSlotConfig { gsi: Some(gsi) }, model),
            Bus::Isa => {
                let slot = isa(d, &model.pci()).map_err(wrong)?;
                machine.add_isa_device(slot, model)
            }
        }
        .map_err(|e| wrong(e.to_string()))?;
        devices.push(PlanDevice {
            name: d.name.clone(),
            model: d.model.clone(),
            machine: id,
            wants: wants(d, gsi, lab.machine.windows),
            irqls: d.irql.clone(),
            policy: policy(d),
            priority: priority(d),
            driven: driven.contains(&&d.name),
        });
    }
    let mut steps = vec![];
    let mut threads: BTreeMap<String, Vec<PlanStep>> = BTreeMap::new();
    let first = devices.first().map(|d| d.name.clone()).unwrap_or_default();
    let mut handles: BTreeMap<Option<&str>, String> = BTreeMap::new();
    check_registers(lab, &machine, &devices)?;
    for (index, (step, thread)) in lab.flat_steps().into_iter().enumerate() {
        // A handle opened on a thread is that thread's default, and no other's.
        let handle = handles.entry(thread).or_insert_with(|| DEFAULT_HANDLE.to_owned());
        let converted = convert(step, index as u32, &first, handle)?;
        match thread {
            None => steps.extend(converted),
            Some(t) => threads.entry(t.to_owned()).or_default().extend(converted),
        }
    }
    Ok((machine, Plan { devices, steps, threads, manual: lab.manual_life }))
}

/// The fixed regions of an ISA device. A model's must be those of its data sheet, in its order of BARs; a stub takes
/// any.
fn isa(d: &DeviceLab, identity: &PciIdentity) -> Result<IsaSlotConfig, String> {
    let ports = d.ports.iter().map(|&(first, last)| BarKind::Io {
        port: u32::from(first),
        len: u32::from(last) - u32::from(first) + 1,
    });
    let memory = d.memory.iter().map(|&(first, last)| BarKind::Memory {
        pa: Pa(first),
        len: (last - first).saturating_add(1),
        prefetch: false,
        is64: false,
    });
    let regions: Vec<BarKind> = ports.chain(memory).collect();
    let fits = |(spec, region): (&BarSpec, &BarKind)| match (*spec, *region) {
        (BarSpec::Io { len: a }, BarKind::Io { len: b, .. }) => a == b,
        (BarSpec::Memory { len: a, .. }, BarKind::Memory { len: b, .. }) => a == b,
        _ => false,
    };
    let own = &identity.bars;
    if d.model != "stub" && (own.len() != regions.len() || !own.iter().zip(&regions).all(fits)) {
        let wanted = own.iter().map(|b| match b {
            BarSpec::Io { len } => format!("{len} ports"),
            BarSpec::Memory { len, .. } => format!("{len:#x} bytes of memory"),
        });
        let wanted = wanted.collect::<Vec<_>>().join(" and ");
        return Err(format!("on the ISA bus a {} needs `ports` and `memory` for {wanted}", d.model));
    }
    Ok(IsaSlotConfig { regions, irq: d.irq.first().copied() })
}

/// Names of registers are checked before the run, so that a misspelt one is bad input and not a failed step.
fn check_registers(lab: &Lab, machine: &Machine, devices: &[PlanDevice]) -> Result<(), InputError> {
    let written = lab.flat_steps().into_iter().filter_map(|(s, _)| match &s.action {
        Action::Set(SetTarget::Register { device, register, .. }) => Some((device, register)),
        _ => None,
    });
    let read = lab.check.devices.iter().flat_map(|(d, registers)| registers.keys().map(move |r| (d, r)));
    let models: BTreeMap<&str, &PlanDevice> = devices.iter().map(|d| (d.name.as_str(), d)).collect();
    for ((device, register), check) in written.map(|w| (w, false)).chain(read.map(|r| (r, true))) {
        let Some(plan) = models.get(device.as_str()) else { continue };
        let names: Vec<String> =
            machine.device_counters(plan.machine).into_iter().map(|(name, _)| name).collect();
        // The stub's cells are named by place, bar0+0x10; they can be set, not looked at.
        let cell = !check && plan.model == "stub" && register.starts_with("bar");
        if !cell && !names.iter().any(|n| n.eq_ignore_ascii_case(register)) {
            let valid: Vec<&str> = names.iter().map(String::as_str).collect();
            return Err(InputError::new(
                lab.path.as_deref(),
                format!("device \"{device}\" ({}) has no register `{register}`", plan.model),
                Some(&crate::problem::suggestion(register, &valid, "registers")),
            ));
        }
    }
    Ok(())
}

/// A number of the device's hardware key, by path.
fn number(d: &DeviceLab, key: &str) -> Option<u64> {
    match d.registry.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v) {
        Some(Setting::Number(n)) => Some(*n),
        Some(Setting::Bool(b)) => Some(u64::from(*b)),
        _ => None,
    }
}

const AFFINITY_POLICY: &str = "Interrupt Management\\Affinity Policy\\";

/// Where the device's interrupts go (spec 1.4): the lab's own keys, else its registry's.
fn policy(d: &DeviceLab) -> Policy {
    let own = |key: &str| number(d, &format!("{AFFINITY_POLICY}{key}"));
    let mask = d.affinity.first().copied().or_else(|| own("AssignmentSetOverride"));
    let asked = d.policy.map(u64::from).or_else(|| own("DevicePolicy"));
    match (asked, mask) {
        // A set of processors alone says that it is specified.
        (Some(4) | None, Some(mask)) => Policy::Specified(Affinity { group: 0, mask }),
        (Some(1), _) => Policy::AllClose,
        (Some(2), _) => Policy::OneClose,
        (Some(5), _) => Policy::SpreadMessages,
        _ => Policy::AllProcessors,
    }
}

fn priority(d: &DeviceLab) -> Priority {
    match d.priority.map(u64::from).or_else(|| number(d, &format!("{AFFINITY_POLICY}DevicePriority"))) {
        Some(1) => Priority::Low,
        Some(3) => Priority::High,
        _ => Priority::Normal,
    }
}

fn wants(d: &DeviceLab, gsi: u32, windows: Windows) -> Wants {
    let number = |key: &str| number(d, key).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let base = "Interrupt Management\\MessageSignaledInterruptProperties\\";
    let limit = number(&format!("{base}MessageNumberLimit")).unwrap_or(u32::MAX).max(1);
    // An explicit MSISupported = 0 leaves the device its line (spec 6.2), and so does a Windows before Vista, which
    // knows no messages.
    let messages = windows >= Windows::Vista && number(&format!("{base}MSISupported")) != Some(0);
    match d.interrupts {
        Interrupts::None => Wants::None,
        Interrupts::Line(_) => Wants::Line(gsi),
        Interrupts::Msi(_) | Interrupts::Msix(_) if !messages => Wants::Line(gsi),
        Interrupts::Msi(n) => Wants::Msi(n.min(limit)),
        Interrupts::Msix(n) => Wants::Msix(n.min(limit)),
    }
}

fn properties(d: &DeviceLab) -> BTreeMap<String, PropValue> {
    let mut out = BTreeMap::new();
    for (key, value) in &d.properties {
        let value = match value {
            Setting::Number(n) => PropValue::Int(*n),
            Setting::Bool(b) => PropValue::Bool(*b),
            Setting::Text(t) => PropValue::Str(t.clone()),
            Setting::Numbers(n) => PropValue::List(n.iter().map(|n| PropValue::Int(*n)).collect()),
            Setting::Texts(t) => PropValue::List(t.iter().cloned().map(PropValue::Str).collect()),
        };
        out.insert(key.clone(), value);
    }
    out.insert("interrupts".into(), PropValue::Str(d.interrupts.to_string()));
    let id = |(vendor, device): (u16, u16)| PropValue::Str(format!("{vendor:04x}:{device:04x}"));
    out.extend(d.id.map(|v| ("id".into(), id(v))));
    out.extend(d.subsystem.map(|v| ("subsystem".into(), id(v))));
    out.extend(d.class.map(|c| ("class".into(), PropValue::Int(u64::from(c)))));
    if !d.bars.is_empty() {
        out.insert("bars".into(), PropValue::List(d.bars.iter().map(|n| PropValue::Int(*n)).collect()));
    }
    if d.arrivals > 0 {
        out.insert("arrivals".into(), PropValue::Int(u64::from(d.arrivals)));
    }
    out
}

/// Registry values of the lab as the kernel takes them.
pub(crate) fn settings(values: &crate::lab::Registry) -> Vec<RegistrySetting> {
    values
        .iter()
        .map(|(path, value)| {
            // The hardware key is the device's `Device Parameters`: naming it again says the same.
            let bare = match path.split_once('\\') {
                Some((first, rest)) if first.eq_ignore_ascii_case("Device Parameters") => rest,
                _ => path,
            };
            let (kind, data) = match value {
                Setting::Number(n) => match u32::try_from(*n) {
                    Ok(n) => (registry::REG_DWORD, n.to_le_bytes().to_vec()),
                    Err(_) => (registry::REG_QWORD, n.to_le_bytes().to_vec()),
                },
                Setting::Bool(b) => (registry::REG_DWORD, u32::from(*b).to_le_bytes().to_vec()),
                Setting::Text(t) => (registry::REG_SZ, sz(t)),
                Setting::Numbers(n) => (registry::REG_BINARY, n.iter().map(|&b| b as u8).collect()),
                Setting::Texts(t) => {
                    let mut data: Vec<u8> = t.iter().flat_map(|t| sz(t)).collect();
                    data.extend([0, 0]);
                    (registry::REG_MULTI_SZ, data)
                }
            };
            RegistrySetting { path: bare.to_owned(), kind, data }
        })
        .collect()
}

/// The core's profile.
pub(crate) fn profile(lab: &Lab) -> Config {
    let m = &lab.machine;
    Config {
        windows: match m.windows {
            Windows::Windows2000 => CoreWindows::W2000,
            Windows::Xp => CoreWindows::Xp,
            Windows::Server2003 => CoreWindows::W2003,
            Windows::Vista => CoreWindows::Vista,
            Windows::Windows7 => CoreWindows::W7,
            Windows::Windows8 => CoreWindows::W8,
            Windows::Windows8_1 => CoreWindows::W8_1,
            Windows::Windows10 => CoreWindows::W10,
            Windows::Windows11 => CoreWindows::W11,
        },
        locks: match m.locks {
            Locks::PerMessage => CoreLocks::PerMessage,
            Locks::PerSet => CoreLocks::PerSet,
        },
        alternative_status: m.alternative_status,
        pdo_bugcheck: m.pdo_bugcheck,
        delivery: match m.delivery {
            Delivery::Lowest => CoreDelivery::Lowest,
            Delivery::Fixed => CoreDelivery::Fixed,
        },
        ..Config::default()
    }
}

/// The build number drivers are told.
pub(crate) fn build_number(w: Windows) -> u32 {
    match w {
        Windows::Windows2000 => 2195,
        Windows::Xp => 2600,
        Windows::Server2003 => 3790,
        Windows::Vista => 6002,
        Windows::Windows7 => 7601,
        Windows::Windows8 => 9200,
        Windows::Windows8_1 => 9600,
        Windows::Windows10 => 19045,
        Windows::Windows11 => 22631,
    }
}

fn convert(step: &Step, index: u32, first: &str, last: &mut String) -> Result<Vec<PlanStep>, InputError> {
    let device = |d: &Option<String>| d.clone().unwrap_or_else(|| first.to_owned());
    let handle = |h: &Option<String>| h.clone().unwrap_or_else(|| last.clone());
    let action = match &step.action {
        Action::Open { name, handle } => {
            let handle = handle.clone().unwrap_or_else(|| DEFAULT_HANDLE.to_owned());
            last.clone_from(&handle);
            Do::Open { name: name.clone(), handle }
        }
        Action::Close { handle: h } => Do::Close { handle: handle(h) },
        Action::Ioctl { internal, handle: h, code, input, output_length, request } => Do::Ioctl {
            handle: handle(h),
            internal: *internal,
            code: *code,
            input: input.clone(),
            output: *output_length,
            request: request.clone(),
        },
        Action::Read { handle: h, length, offset, request } => {
            Do::Read { handle: handle(h), length: *length, offset: *offset, request: request.clone() }
        }
        Action::Write { handle: h, input, offset, request } => {
            Do::Write { handle: handle(h), data: input.clone(), offset: *offset, request: request.clone() }
        }
        Action::Cancel { request } => Do::Cancel(request.clone()),
        Action::Wait(WaitFor::Request(r)) => Do::WaitRequest(r.clone()),
        Action::Wait(WaitFor::Thread(t)) => Do::WaitThread(t.clone()),
        Action::Wait(WaitFor::Time(ns)) => Do::Delay(*ns),
        Action::Pnp { device: d, minor, .. } => Do::Pnp { device: device(d), minor: *minor as u8 },
        Action::Power { device: d, target: PowerTarget::Device(state) } => {
            Do::Power { device: device(d), state: *state as u8 }
        }
        Action::Raise { device: d, source } => Do::Raise { device: device(d), source: *source },
        Action::Set(SetTarget::Register { device, register, value: Setting::Number(value) }) => {
            Do::Set { device: device.clone(), register: register.to_lowercase(), value: *value }
        }
        Action::Remove { device: d } => Do::Pnp { device: device(d), minor: 2 },
        Action::SurpriseRemove { device: d } => Do::Pnp { device: device(d), minor: 0x17 },
        other => {
            // The lab's own list of what is lacking refuses these before a run begins.
            return Err(InputError::new(
                None,
                format!("step {index}: `{}` cannot be run", other.verb()),
                None,
            ));
        }
    };
    let e = &step.expect;
    let expect =
        Expect { status: e.status, output: e.output.clone(), within: e.within, information: e.information };
    let mut out = vec![];
    // In order: the query first, then the remove.
    if let Action::Remove { device: d } = &step.action {
        let action = Do::Pnp { device: device(d), minor: 1 };
        out.push(PlanStep { index, what: "query_remove".into(), action, expect: Expect::default() });
    }
    out.push(PlanStep { index, what: step.action.to_string(), action, expect });
    Ok(out)
}
