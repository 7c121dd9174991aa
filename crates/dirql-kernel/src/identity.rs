//! What the PnP manager knows a PCI device by: hardware identifiers, the instance path and its registry keys.
//!
//! After the Microsoft pages "Identifiers for PCI devices" and "Registry keys for drivers". The instance identifier of
//! a device without a serial number is chosen by the PnP manager; here it ends, as on Windows, with the device's slot.

use dirql_machine::{DeviceId, Machine};

use crate::life::{PlanDevice, Wants};
use crate::registry::{REG_DWORD, REG_MULTI_SZ, REG_SZ, Registry, RegistryError, sz};

/// Root of what the registry holds of the running system.
pub(crate) const CONTROL_SET: &str = "\\Registry\\Machine\\System\\CurrentControlSet";
/// The setup class of devices that have no other.
pub(crate) const CLASS_GUID: &str = "{4d36e97d-e325-11ce-bfc1-08002be10318}";
/// Its name.
pub(crate) const CLASS_NAME: &str = "System";

/// A registry value of the lab: its key's path under the device's or service's own key, name, REG_ type and data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Path of the key and name of the value, separated by backslashes.
    pub path: String,
    /// REG_ type.
    pub kind: u32,
    /// Data; strings are UTF-16LE with their terminator.
    pub data: Vec<u8>,
}

fn byte(m: &Machine, id: DeviceId, offset: u16) -> u32 {
    m.bdf(id).map_or(0xff, |b| m.config_read(b, offset, 1))
}

fn word(m: &Machine, id: DeviceId, offset: u16) -> u32 {
    m.bdf(id).map_or(0xffff, |b| m.config_read(b, offset, 2))
}

/// Bus, device and function number.
pub(crate) fn place(m: &Machine, id: DeviceId) -> (u32, u32, u32) {
    m.bdf(id).map_or((0, 0, 0), |b| (u32::from(b.bus), u32::from(b.device), u32::from(b.function)))
}

/// The hardware identifier of a device on the ISA bus, which has none of its own.
const ISA_ID: &str = "ISA\\DIRQL";

/// Hardware identifiers, most specific first.
pub(crate) fn hardware_ids(m: &Machine, id: DeviceId) -> Vec<String> {
    if m.bdf(id).is_none() {
        return vec![ISA_ID.into()];
    }
    let (vendor, device) = (word(m, id, 0), word(m, id, 2));
    let revision = byte(m, id, 8);
    let (sub_vendor, sub) = (word(m, id, 0x2c), word(m, id, 0x2e));
    let class = byte(m, id, 0xb) << 8 | byte(m, id, 0xa);
    let base = format!("PCI\\VEN_{vendor:04X}&DEV_{device:04X}");
    vec![
        format!("{base}&SUBSYS_{sub:04X}{sub_vendor:04X}&REV_{revision:02X}"),
        format!("{base}&SUBSYS_{sub:04X}{sub_vendor:04X}"),
        format!("{base}&CC_{class:04X}{:02X}", byte(m, id, 9)),
        format!("{base}&CC_{class:04X}"),
    ]
}

/// Compatible identifiers, most specific first.
pub(crate) fn compatible_ids(m: &Machine, id: DeviceId) -> Vec<String> {
    if m.bdf(id).is_none() {
        return vec![];
    }
    let (vendor, device) = (word(m, id, 0), word(m, id, 2));
    let (class, interface) = (byte(m, id, 0xb) << 8 | byte(m, id, 0xa), byte(m, id, 9));
    let base = format!("PCI\\VEN_{vendor:04X}");
    vec![
        format!("{base}&DEV_{device:04X}&REV_{:02X}", byte(m, id, 8)),
        format!("{base}&DEV_{device:04X}"),
        format!("{base}&CC_{class:04X}{interface:02X}"),
        format!("{base}&CC_{class:04X}"),
        base,
        format!("PCI\\CC_{class:04X}{interface:02X}"),
        format!("PCI\\CC_{class:04X}"),
    ]
}

/// The instance path, such as `PCI\VEN_1234&DEV_D1A1&SUBSYS_00000000&REV_01\3&11583659&0&08`.
pub(crate) fn instance_path(m: &Machine, id: DeviceId) -> String {
    if m.bdf(id).is_none() {
        // Devices of one kind are told apart by number.
        return format!("{ISA_ID}\\{:04}", id.0);
    }
    let (bus, device, function) = place(m, id);
    let first = hardware_ids(m, id).into_iter().next().unwrap_or_default();
    format!("{first}\\3&11583659&{bus:x}&{:02X}", device << 3 | function)
}

/// The absolute path of a device's hardware key, above its `Device Parameters`.
pub(crate) fn enum_key(m: &Machine, id: DeviceId) -> String {
    format!("{CONTROL_SET}\\Enum\\{}", instance_path(m, id))
}

/// The absolute path of the driver (software) key of the device with this place in the lab.
pub(crate) fn driver_key(index: usize) -> String {
    format!("{CONTROL_SET}\\Control\\Class\\{CLASS_GUID}\\{index:04}")
}

fn multi(texts: &[String]) -> Vec<u8> {
    let mut data: Vec<u8> = texts.iter().flat_map(|t| sz(t)).collect();
    data.extend([0, 0]);
    data
}

fn apply(r: &mut Registry, base: &str, settings: &[Setting]) -> Result<(), RegistryError> {
    for s in settings {
        let (key, name) = s.path.rsplit_once('\\').unwrap_or(("", &s.path));
        r.set_value(&format!("{base}\\{key}"), name, s.kind, &s.data)?;
    }
    Ok(())
}

/// Writes what setup and the PnP manager have written before a driver's first start: the service key, each device's
/// hardware and driver keys with the lab's values in them, and the few system keys that drivers look at.
pub(crate) fn populate(
    r: &mut Registry,
    m: &Machine,
    service: &str,
    build: u32,
    devices: &[(PlanDevice, Vec<Setting>)],
    service_settings: &[Setting],
) -> Result<(), RegistryError> {
    let dword = |n: u32| n.to_le_bytes();
    for path in ["Control\\Session Manager", "Control\\Class", "Services"] {
        r.create(Registry::ROOT, &format!("{CONTROL_SET}\\{path}"))?;
    }
    for path in ["\\Registry\\Machine\\Hardware\\DeviceMap", "\\Registry\\User\\.Default"] {
        r.create(Registry::ROOT, path)?;
    }
    let version = "\\Registry\\Machine\\Software\\Microsoft\\Windows NT\\CurrentVersion";
    for name in ["CurrentBuild", "CurrentBuildNumber"] {
        r.set_value(version, name, REG_SZ, &sz(&build.to_string()))?;
    }
    r.set_value(version, "SystemRoot", REG_SZ, &sz("C:\\Windows"))?;
    let key = format!("{CONTROL_SET}\\Services\\{service}");
    // SERVICE_KERNEL_DRIVER, started on demand, errors are logged.
    for (name, value) in [("Type", 1), ("Start", 3), ("ErrorControl", 1)] {
        r.set_value(&key, name, REG_DWORD, &dword(value))?;
    }
    r.set_value(&key, "ImagePath", REG_SZ, &sz(&format!("\\SystemRoot\\System32\\drivers\\{service}.sys")))?;
    apply(r, &key, service_settings)?;
    for (i, (d, settings)) in devices.iter().enumerate() {
        let key = enum_key(m, d.machine);
        let (bus, device, function) = place(m, d.machine);
        for (name, ids) in
            [("HardwareID", hardware_ids(m, d.machine)), ("CompatibleIDs", compatible_ids(m, d.machine))]
        {
            r.set_value(&key, name, REG_MULTI_SZ, &multi(&ids))?;
        }
        for (name, text) in [
            ("DeviceDesc", d.name.as_str()),
            ("Class", CLASS_NAME),
            ("ClassGUID", CLASS_GUID),
            ("Driver", &format!("{CLASS_GUID}\\{i:04}")),
            ("Service", if d.driven { service } else { "" }),
            ("LocationInformation", &format!("PCI bus {bus}, device {device}, function {function}")),
        ] {
            if !text.is_empty() {
                r.set_value(&key, name, REG_SZ, &sz(text))?;
            }
        }
        let hardware = format!("{key}\\Device Parameters");
        r.create(Registry::ROOT, &hardware)?;
        if matches!(d.wants, Wants::Msi(_) | Wants::Msix(_)) {
            // What the INF of a device that interrupts by messages writes; the lab may say otherwise below.
            let properties = format!("{hardware}\\Interrupt Management\\MessageSignaledInterruptProperties");
            r.set_value(&properties, "MSISupported", REG_DWORD, &dword(1))?;
        }
        apply(r, &hardware, settings)?;
        r.set_value(&driver_key(i), "DriverDesc", REG_SZ, &sz(&d.name))?;
    }
    Ok(())
}
