//! Power. Devices stay in D0 and the system in S0 unless the workload says otherwise.

use crate::context::{ret, void};
use crate::exports;

exports! {
    // Since Vista power IRPs are no longer held back for this call.
    [2] fn PoStartNextPowerIrp(cx, _irp: u64) { let _ = &cx; void() }
    [2] fn PoCallDriver(cx, device: u64, irp: u64) { crate::io::call_driver(cx, device, irp) }
    // Gives the state before. The first report of a device finds PowerDeviceD0; a system state has nothing to keep.
    [2] fn PoSetPowerState(cx, device: u64, kind: u32, state: u32) {
        if kind > 1 {
            return Err(cx.missing(format!("PoSetPowerState with power state type {kind}")));
        }
        let before = if kind == 0 {
            state
        } else {
            cx.k.ke.power_states.insert(device, state).unwrap_or(1)
        };
        ret(u64::from(before))
    }
    [2] fn PoRegisterSystemState(cx, handle: u64, flags: u32) {
        let handle = if handle != 0 {
            handle
        } else {
            cx.k.ke.next_handle += 1;
            0x8000_0000 | cx.k.ke.next_handle
        };
        cx.k.ke.system_states.insert(handle, flags);
        ret(handle)
    }
    [2] fn PoUnregisterSystemState(cx, handle: u64) {
        cx.k.ke.system_states.remove(&handle);
        void()
    }
    // A hint that the system is in use; it never sleeps by itself.
    [2] fn PoSetSystemState(cx, _flags: u32) { let _ = &cx; void() }
}
