//! Debugger output: DbgPrint and its kin. Text becomes an event; filters by component and level are left out, so
//! everything that a driver prints is shown.

use dirql_event::EventKind;

use crate::context::ret;
use crate::cx::Cx;
use crate::exports;
use crate::exports::crt::units;
use crate::printf::{CallArgs, ListArgs, format};
use crate::stop::Stop;

fn emit(cx: &mut Cx<'_>, units: &[u16]) {
    // Narrow text is Latin-1 in the formatter, so that a driver's bytes survive it; see `printf`.
    let text = String::from_utf16_lossy(units);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text).to_owned();
    cx.event(EventKind::Print { text });
}

fn print(cx: &mut Cx<'_>, text: u64, fixed: usize) -> Result<(), Stop> {
    let text = units(cx, text, false)?;
    let out = format(&mut CallArgs::after(cx, fixed), &text, false)?;
    emit(cx, &out);
    Ok(())
}

fn print_list(cx: &mut Cx<'_>, prefix: u64, text: u64, list: u64) -> Result<(), Stop> {
    let mut all = if prefix == 0 { Vec::new() } else { units(cx, prefix, false)? };
    let text = units(cx, text, false)?;
    all.extend(format(&mut ListArgs::new(cx, list), &text, false)?);
    emit(cx, &all);
    Ok(())
}

exports! {
    [15] fn DbgPrint(cx, text: u64) { print(cx, text, 1)?; ret(0) }
    [15] fn DbgPrintReturnControlC(cx, text: u64) { print(cx, text, 1)?; ret(0) }
    [15] fn DbgPrintEx(cx, _component: u32, _level: u32, text: u64) { print(cx, text, 3)?; ret(0) }
    [15] fn vDbgPrintEx(cx, _component: u32, _level: u32, text: u64, list: u64) {
        print_list(cx, 0, text, list)?;
        ret(0)
    }
    [15] fn vDbgPrintExWithPrefix(cx, prefix: u64, _component: u32, _level: u32, text: u64, list: u64) {
        print_list(cx, prefix, text, list)?;
        ret(0)
    }
    [15] fn DbgQueryDebugFilterState(_cx, _component: u32, _level: u32) { ret(1) }
    // No debugger is attached, so a break is what it is on such a machine: an unhandled STATUS_BREAKPOINT.
    [15] fn DbgBreakPoint(cx) { Err(broke(cx)) }
    [15] fn DbgBreakPointWithStatus(cx, _status: u32) { Err(broke(cx)) }
    // STATUS_DEBUGGER_INACTIVE
    [2] fn KdDisableDebugger(_cx) { ret(0xC000_0354) }
    [2] fn KdEnableDebugger(_cx) { ret(0xC000_0354) }
    [15] fn KdRefreshDebuggerNotPresent(_cx) { ret(1) }
}

fn broke(cx: &Cx<'_>) -> Stop {
    let at = cx.caller();
    Stop::bug_check(0x7E, [0x8000_0003, at, 0, 0], "the driver hit a breakpoint and no debugger is attached")
}
