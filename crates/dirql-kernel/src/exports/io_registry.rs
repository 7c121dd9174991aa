//! Registry keys of devices and device interfaces.

use crate::context::ret;
use crate::exports;
use crate::exports::zw_key::{give_handle, status_of};
use crate::identity::{self, CONTROL_SET};
use crate::io::read_unicode;
use crate::registry::Registry;

/// STATUS_INVALID_DEVICE_REQUEST: no PDO of a device.
const INVALID_DEVICE_REQUEST: u64 = 0xC000_0010;
const INVALID_PARAMETER: u64 = 0xC000_000D;
/// STATUS_OBJECT_PATH_INVALID: not the link of a registered interface.
const PATH_INVALID: u64 = 0xC000_0039;

exports! {
    [0] fn IoOpenDeviceRegistryKey(cx, pdo: u64, kind: u32, _access: u32, out: u64) {
        let Some(index) = cx.k.io.pdos.iter().position(|p| p.object == pdo) else {
            return ret(INVALID_DEVICE_REQUEST);
        };
        let machine = cx.k.io.pdos[index].machine;
        let path = match kind {
            // PLUGPLAY_REGKEY_DEVICE, PLUGPLAY_REGKEY_DRIVER, each in the current hardware profile with bit 2.
            1 => format!("{}\\Device Parameters", identity::enum_key(cx.m, machine)),
            2 => identity::driver_key(index),
            5 => format!(
                "{CONTROL_SET}\\Hardware Profiles\\Current\\System\\CurrentControlSet\\Enum\\{}",
                identity::instance_path(cx.m, machine)
            ),
            6 => format!(
                "{CONTROL_SET}\\Hardware Profiles\\Current\\System\\CurrentControlSet\\Control\\Class\\{}\\{index:04}",
                identity::CLASS_GUID
            ),
            _ => return ret(INVALID_PARAMETER),
        };
        match cx.k.registry.create(Registry::ROOT, &path) {
            Ok((key, _)) => give_handle(cx, key, out),
            Err(e) => ret(status_of(e)),
        }
    }
    [0] fn IoOpenDeviceInterfaceRegistryKey(cx, link: u64, _access: u32, out: u64) {
        let link = read_unicode(cx, link)?;
        let Some(i) = cx.k.io.interfaces.iter().find(|i| i.link == link) else { return ret(PATH_INVALID) };
        // The link's name with its backslashes replaced, under the interface class.
        let name = i.link.replace('\\', "#");
        let path = format!("{CONTROL_SET}\\Control\\DeviceClasses\\{}\\{name}\\#\\Device Parameters", i.guid);
        match cx.k.registry.create(Registry::ROOT, &path) {
            Ok((key, _)) => give_handle(cx, key, out),
            Err(e) => ret(status_of(e)),
        }
    }
}
