//! Kernel timers and the clock that drivers read.
//!
//! A KTIMER lives in guest memory with its wdm.h layout; which timers are armed is kept here, ordered by due time and
//! then by the order of arming. A timer expires at its due time to the nanosecond: the 15.625 ms granularity of the
//! clock interrupt, and coalescing, are left out.

use dirql_event::EventKind;

use crate::cx::Cx;
use crate::dispatcher::{SIGNAL, TIMER_SIZE, init_header};
use crate::kernel::Kernel;
use crate::stop::Stop;

/// System time at virtual time 0: 2024-01-01 00:00 UTC, in 100 ns units since 1601 (FILETIME).
pub(crate) const BOOT_TIME: u64 = 133_485_408_000_000_000;
/// One clock tick in 100 ns units, as `KeQueryTimeIncrement` gives it.
pub(crate) const TIME_INCREMENT: u64 = 156_250;
/// Timers armed at once; more is a driver out of control.
const MAX_TIMERS: usize = 1 << 16;

/// KTIMER.DueTime, interrupt time in 100 ns units.
const DUE_TIME: u64 = 24;
/// KTIMER.TimerListEntry.
const LIST: u64 = 32;
/// KTIMER.Dpc.
const DPC: u64 = 48;
/// KTIMER.Period in milliseconds.
const PERIOD: u64 = 60;
/// DISPATCHER_HEADER byte 3 of a timer: TimerMiscFlags, with the bit "inserted".
const MISC: u64 = 3;
const INSERTED: u8 = 0x40;

type Res<T> = std::result::Result<T, Stop>;

/// System time now, in 100 ns units since 1601.
pub(crate) fn system_time(cx: &Cx<'_>) -> u64 {
    BOOT_TIME + cx.now() / 100
}

/// Virtual time in nanoseconds that a LARGE_INTEGER time names: negative is relative to now, positive is system time.
pub(crate) fn to_deadline(cx: &Cx<'_>, time: i64) -> u64 {
    if time <= 0 {
        cx.now().saturating_add(time.unsigned_abs().saturating_mul(100))
    } else {
        (time as u64).saturating_sub(BOOT_TIME).saturating_mul(100)
    }
}

/// Initialises a KTIMER.
pub(crate) fn init(cx: &mut Cx<'_>, at: u64, synchronization: bool) -> Res<()> {
    if cx.k.ke.timer_keys.contains_key(&at) {
        return Err(Stop::bug_check(
            0xC7,
            [0, at, 0, 0],
            format!("the timer at {at:#x} was initialised while it was set"),
        ));
    }
    init_header(cx, at, if synchronization { 9 } else { 8 }, TIMER_SIZE, 0)?;
    cx.w64(at + DUE_TIME, 0)?;
    cx.w64(at + LIST, 0)?;
    cx.w64(at + LIST + 8, 0)?;
    cx.w64(at + DPC, 0)?;
    cx.w64(at + DPC + 8, 0)
}

/// Arms a timer; true when it was armed before.
pub(crate) fn set(cx: &mut Cx<'_>, at: u64, due: i64, period_ms: u32, dpc: u64) -> Res<bool> {
    let kind = cx.r8(at)?;
    if !matches!(kind, 8 | 9) {
        return Err(Stop::bug_check(
            0xC7,
            [0, at, 0, 0],
            format!("KeSetTimer on {at:#x}, which is not an initialised timer (type {kind})"),
        ));
    }
    let before = disarm(cx, at);
    let deadline = to_deadline(cx, due);
    cx.w32(at + SIGNAL, 0)?;
    cx.w64(at + DPC, dpc)?;
    cx.w32(at + PERIOD, period_ms)?;
    arm(cx, at, deadline)?;
    Ok(before)
}

/// Disarms a timer; true when it was armed.
pub(crate) fn cancel(cx: &mut Cx<'_>, at: u64) -> Res<bool> {
    let before = disarm(cx, at);
    if before {
        let misc = cx.r8(at + MISC)?;
        cx.w8(at + MISC, misc & !INSERTED)?;
    }
    Ok(before)
}

fn arm(cx: &mut Cx<'_>, at: u64, deadline: u64) -> Res<()> {
    if cx.k.ke.timers.len() >= MAX_TIMERS {
        return Err(Stop::OutOfMemory);
    }
    cx.w64(at + DUE_TIME, deadline / 100)?;
    let misc = cx.r8(at + MISC)?;
    cx.w8(at + MISC, misc | INSERTED)?;
    let ke = &mut cx.k.ke;
    ke.next_timer += 1;
    let key = (deadline, ke.next_timer);
    ke.timers.insert(key, at);
    ke.timer_keys.insert(at, key);
    Ok(())
}

fn disarm(cx: &mut Cx<'_>, at: u64) -> bool {
    let Some(key) = cx.k.ke.timer_keys.remove(&at) else { return false };
    cx.k.ke.timers.remove(&key);
    true
}

/// When the next armed timer is due, in virtual nanoseconds.
pub(crate) fn next_due(k: &Kernel) -> Option<u64> {
    k.ke.timers.keys().next().map(|key| key.0)
}

/// Expires every timer that is due: signals it, wakes its waiters, queues its DPC, and arms a periodic one again.
pub(crate) fn expire(cx: &mut Cx<'_>) -> Res<()> {
    let now = cx.now();
    // Taken first: a short period that is due again already expires at the next boundary, so this ends.
    let due: Vec<((u64, u64), u64)> =
        cx.k.ke.timers.range(..=(now, u64::MAX)).map(|(&key, &at)| (key, at)).collect();
    for (key, at) in due {
        // An earlier expiry may have woken nothing that runs yet, so the timer is still armed; be strict all the same.
        if cx.k.ke.timers.get(&key) != Some(&at) {
            continue;
        }
        disarm(cx, at);
        expire_one(cx, at, key.0).map_err(|stop| match stop {
            Stop::Fault(_) => Stop::bug_check(
                0xC7,
                [0, at, 0, 0],
                format!("the memory of the timer at {at:#x} was freed while the timer was set"),
            ),
            other => other,
        })?;
    }
    Ok(())
}

fn expire_one(cx: &mut Cx<'_>, at: u64, due: u64) -> Res<()> {
    let kind = cx.r8(at)?;
    if !matches!(kind, 8 | 9) {
        return Err(Stop::bug_check(
            0xC7,
            [0, at, 0, 0],
            format!("the memory of the timer at {at:#x} was overwritten while the timer was set"),
        ));
    }
    cx.event(EventKind::Timer { timer: at });
    let misc = cx.r8(at + MISC)?;
    cx.w8(at + MISC, misc & !INSERTED)?;
    let period = cx.r32(at + PERIOD)?;
    if period != 0 {
        arm(cx, at, due.saturating_add(u64::from(period) * 1_000_000))?;
    }
    cx.w32(at + SIGNAL, 1)?;
    let dpc = cx.r64(at + DPC)?;
    crate::sched::wake_waiters(cx, at)?;
    if dpc != 0 {
        // Documented as unused; Windows passes the system time (spec 4.7).
        let time = system_time(cx);
        crate::interrupt::insert_dpc(cx, dpc, time & 0xffff_ffff, time >> 32)?;
    }
    Ok(())
}
