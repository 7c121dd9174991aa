//! `hal.dll`: time. Port and register access are compiler intrinsics on x64 and never reach an export; bus
//! configuration through the HAL is left out and reported by name.

use crate::context::ret;
use crate::exports;

exports! {
    [15] fn KeQueryPerformanceCounter(cx, frequency: u64) {
        // 10 MHz, as Windows 10 and later report.
        if frequency != 0 {
            cx.w64(frequency, 10_000_000)?;
        }
        ret(cx.now() / 100)
    }
}
