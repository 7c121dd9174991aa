//! Dispatcher objects: events, mutexes, semaphores, timers and threads as what a thread can wait for.
//!
//! After the wdm.h layouts and the Microsoft documentation of `KeWaitForSingleObject` and its kin. The state is the
//! object's header in guest memory, as on Windows, so a driver that frees or overwrites a live object breaks it here
//! too. Who waits is the scheduler's knowledge, not the header's: the wait list in the header stays empty. Left out:
//! queue objects, and priority boosts on a wake-up.

use crate::context::Wait;
use crate::cx::Cx;
use crate::sched::wake_waiters;
use crate::stop::Stop;

/// Size of KEVENT in bytes; in the header it is counted in 32-bit units, as for all of these.
pub(crate) const EVENT_SIZE: u64 = 24;
/// Size of KMUTANT.
pub(crate) const MUTANT_SIZE: u64 = 56;
/// Size of KSEMAPHORE.
pub(crate) const SEMAPHORE_SIZE: u64 = 32;
/// Size of KTIMER.
pub(crate) const TIMER_SIZE: u64 = 64;

/// DISPATCHER_HEADER.SignalState.
pub(crate) const SIGNAL: u64 = 4;
/// DISPATCHER_HEADER.WaitListHead.
const WAIT_LIST: u64 = 8;
/// KMUTANT.OwnerThread.
const MUTANT_OWNER: u64 = 40;
/// KMUTANT.Abandoned and ApcDisable.
const MUTANT_ABANDONED: u64 = 48;
const MUTANT_APC_DISABLE: u64 = 49;
/// KSEMAPHORE.Limit.
const SEMAPHORE_LIMIT: u64 = 24;

/// STATUS_ABANDONED_WAIT_0.
const STATUS_ABANDONED: u32 = 0x80;
/// STATUS_MUTANT_NOT_OWNED.
const STATUS_MUTANT_NOT_OWNED: u64 = 0xC000_0046;
/// STATUS_MUTANT_LIMIT_EXCEEDED.
const STATUS_MUTANT_LIMIT: u64 = 0xC000_0191;
/// STATUS_SEMAPHORE_LIMIT_EXCEEDED.
const STATUS_SEMAPHORE_LIMIT: u64 = 0xC000_0047;

type Res<T> = std::result::Result<T, Stop>;

/// `DISPATCHER_HEADER.Type` of what can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Stays signalled until it is cleared.
    NotificationEvent,
    /// One wait consumes the signal.
    SynchronizationEvent,
    /// KMUTEX: owned by a thread, recursive.
    Mutant,
    /// A count.
    Semaphore,
    /// Signalled when it has ended.
    Thread,
    /// Stays signalled after expiry.
    NotificationTimer,
    /// One wait consumes the expiry.
    SynchronizationTimer,
}

impl Kind {
    fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            0 => Self::NotificationEvent,
            1 => Self::SynchronizationEvent,
            2 => Self::Mutant,
            5 => Self::Semaphore,
            6 => Self::Thread,
            8 => Self::NotificationTimer,
            9 => Self::SynchronizationTimer,
            _ => return None,
        })
    }

    /// Of the object at `at`.
    fn of(cx: &Cx<'_>, at: u64) -> Res<Self> {
        // Bit 7 marks a locked header on newer systems; it is not part of the type.
        let raw = cx.r8(at)? & 0x7f;
        Self::from_raw(raw)
            .ok_or_else(|| cx.missing(format!("a wait for the object at {at:#x}, of dispatcher type {raw}")))
    }
}

/// Writes a dispatcher header.
pub(crate) fn init_header(cx: &mut Cx<'_>, at: u64, kind: u8, size: u64, signal: i32) -> Res<()> {
    cx.w8(at, kind)?;
    cx.w8(at + 1, 0)?;
    cx.w8(at + 2, (size / 4) as u8)?;
    cx.w8(at + 3, 0)?;
    cx.w32(at + SIGNAL, signal as u32)?;
    cx.w64(at + WAIT_LIST, at + WAIT_LIST)?;
    cx.w64(at + WAIT_LIST + 8, at + WAIT_LIST)
}

/// Signal state of an object.
pub(crate) fn signal_state(cx: &Cx<'_>, at: u64) -> Res<i32> {
    Ok(cx.r32(at + SIGNAL)? as i32)
}

/// Sets an event and lets waiters go on; gives the state before.
pub(crate) fn set_event(cx: &mut Cx<'_>, at: u64) -> Res<i32> {
    let before = signal_state(cx, at)?;
    cx.w32(at + SIGNAL, 1)?;
    wake_waiters(cx, at)?;
    Ok(before)
}

/// Writes a KMUTANT that nobody owns.
pub(crate) fn init_mutex(cx: &mut Cx<'_>, at: u64) -> Res<()> {
    init_header(cx, at, 2, MUTANT_SIZE, 1)?;
    cx.w64(at + 24, at + 24)?;
    cx.w64(at + 32, at + 24)?;
    cx.w64(at + MUTANT_OWNER, 0)?;
    cx.w8(at + MUTANT_ABANDONED, 0)?;
    // A kernel mutex disables kernel APCs for its owner (KeInitializeMutex).
    cx.w8(at + MUTANT_APC_DISABLE, 1)
}

/// Writes a KSEMAPHORE.
pub(crate) fn init_semaphore(cx: &mut Cx<'_>, at: u64, count: i32, limit: i32) -> Res<()> {
    init_header(cx, at, 5, SEMAPHORE_SIZE, count)?;
    cx.w32(at + SEMAPHORE_LIMIT, limit as u32)
}

/// Releases a mutex that the current thread owns; gives the state before.
pub(crate) fn release_mutex(cx: &mut Cx<'_>, at: u64) -> Res<i32> {
    let state = signal_state(cx, at)?;
    let owner = cx.r64(at + MUTANT_OWNER)?;
    let (id, kthread) = match cx.k.current_thread(cx.cpu) {
        Some(t) => (t.id, t.kthread),
        None => (0, 0),
    };
    if owner == 0 || owner != kthread {
        return Err(Stop::bug_check(
            0x1E,
            [STATUS_MUTANT_NOT_OWNED, cx.caller(), at, owner],
            format!(
                "the mutex at {at:#x} was released by a thread that does not own it (STATUS_MUTANT_NOT_OWNED)"
            ),
        ));
    }
    let after = state.saturating_add(1);
    cx.w32(at + SIGNAL, after as u32)?;
    if after == 1 {
        cx.w64(at + MUTANT_OWNER, 0)?;
        let disable = u32::from(cx.r8(at + MUTANT_APC_DISABLE)?);
        if let Some(t) = cx.k.threads.get_mut(&id) {
            t.apc_disable = t.apc_disable.saturating_sub(disable);
        }
        wake_waiters(cx, at)?;
    }
    Ok(state)
}

/// Adds to a semaphore; gives the count before.
pub(crate) fn release_semaphore(cx: &mut Cx<'_>, at: u64, adjustment: i32) -> Res<i32> {
    let state = signal_state(cx, at)?;
    let limit = cx.r32(at + SEMAPHORE_LIMIT)? as i32;
    let after = state.checked_add(adjustment).filter(|&a| a <= limit && adjustment > 0);
    let Some(after) = after else {
        return Err(Stop::bug_check(
            0x1E,
            [STATUS_SEMAPHORE_LIMIT, cx.caller(), at, limit as u64],
            format!(
                "the semaphore at {at:#x} was released by {adjustment} from {state}, over its limit of {limit} \
                 (STATUS_SEMAPHORE_LIMIT_EXCEEDED)"
            ),
        ));
    };
    cx.w32(at + SIGNAL, after as u32)?;
    wake_waiters(cx, at)?;
    Ok(state)
}

/// Could `thread` pass the object now?
fn signalled(cx: &Cx<'_>, at: u64, kthread: u64) -> Res<bool> {
    let kind = Kind::of(cx, at)?;
    let state = signal_state(cx, at)?;
    Ok(state > 0 || kind == Kind::Mutant && kthread != 0 && cx.r64(at + MUTANT_OWNER)? == kthread)
}

/// Takes from the object what a satisfied wait takes; true when it is an abandoned mutex.
fn consume(cx: &mut Cx<'_>, at: u64, thread: u32, kthread: u64) -> Res<bool> {
    let state = signal_state(cx, at)?;
    match Kind::of(cx, at)? {
        Kind::SynchronizationEvent | Kind::SynchronizationTimer => cx.w32(at + SIGNAL, 0)?,
        Kind::Semaphore => cx.w32(at + SIGNAL, state.saturating_sub(1) as u32)?,
        Kind::Mutant => {
            let Some(after) = state.checked_sub(1) else {
                return Err(Stop::bug_check(
                    0x1E,
                    [STATUS_MUTANT_LIMIT, cx.caller(), at, 0],
                    format!(
                        "the mutex at {at:#x} was acquired again too often (STATUS_MUTANT_LIMIT_EXCEEDED)"
                    ),
                ));
            };
            cx.w32(at + SIGNAL, after as u32)?;
            if after == 0 {
                cx.w64(at + MUTANT_OWNER, kthread)?;
                let disable = u32::from(cx.r8(at + MUTANT_APC_DISABLE)?);
                if let Some(t) = cx.k.threads.get_mut(&thread) {
                    t.apc_disable = t.apc_disable.saturating_add(disable);
                }
                if cx.r8(at + MUTANT_ABANDONED)? != 0 {
                    cx.w8(at + MUTANT_ABANDONED, 0)?;
                    return Ok(true);
                }
            }
        }
        Kind::NotificationEvent | Kind::NotificationTimer | Kind::Thread => {}
    }
    Ok(false)
}

/// Satisfies the wait if its objects allow it now, and gives the wait status: STATUS_WAIT_0 plus the index of the
/// object for a wait for any, plain STATUS_WAIT_0 for a wait for all. A wait without objects is never satisfied here.
pub(crate) fn try_satisfy(cx: &mut Cx<'_>, wait: &Wait, thread: u32) -> Res<Option<u32>> {
    if wait.objects.is_empty() {
        return Ok(None);
    }
    let kthread = cx.k.threads.get(&thread).map_or(0, |t| t.kthread);
    if wait.all {
        for &at in &wait.objects {
            if !signalled(cx, at, kthread)? {
                return Ok(None);
            }
        }
        let mut abandoned = false;
        for &at in &wait.objects {
            abandoned |= consume(cx, at, thread, kthread)?;
        }
        return Ok(Some(if abandoned { STATUS_ABANDONED } else { 0 }));
    }
    for (i, &at) in wait.objects.iter().enumerate() {
        if signalled(cx, at, kthread)? {
            let abandoned = consume(cx, at, thread, kthread)?;
            return Ok(Some(i as u32 + if abandoned { STATUS_ABANDONED } else { 0 }));
        }
    }
    Ok(None)
}
