//! Kernel core: events, mutexes, semaphores, timers and waits, with the state of the whole `Ke` family.
//!
//! After the Microsoft documentation of each routine. Spin locks and IRQL are in `ke_lock.rs`, DPCs in `ke_dpc.rs`,
//! processors, time and threads in `ke_cpu.rs`.

use std::collections::BTreeMap;

use crate::context::{Outcome, Result, Wait, ret, void};
use crate::cx::Cx;
use crate::dispatcher::{self, EVENT_SIZE, SIGNAL};
use crate::exports;
use crate::sched::wake_waiters;
use crate::stop::Stop;
use crate::then::Then;
use crate::timer;

/// Most objects of one wait (MAXIMUM_WAIT_OBJECTS).
const MAX_WAIT_OBJECTS: u32 = 64;
/// Without a wait block array, only as many as the thread has built in (THREAD_WAIT_OBJECTS).
const THREAD_WAIT_OBJECTS: u32 = 3;
const STATUS_TIMEOUT: u64 = 0x102;
/// Handles of threads; the low two bits of a handle are free, the high half marks a kernel handle.
const HANDLE_BASE: u64 = 0xFFFF_FFFF_8010_0000;

/// What the `Ke`, `Ex`, `Ps` and `Ob` families keep outside guest memory.
#[derive(Clone, Debug, Default)]
pub struct KeState {
    /// Armed timers: due time in virtual nanoseconds, order of arming, address of the KTIMER.
    pub timers: BTreeMap<(u64, u64), u64>,
    /// The key in `timers` of each armed timer.
    pub timer_keys: BTreeMap<u64, (u64, u64)>,
    /// Order number of the last armed timer.
    pub next_timer: u64,
    /// Which processor holds each spin lock, by the lock's address.
    pub lock_owner: BTreeMap<u64, usize>,
    /// Open thread handles and the thread numbers they stand for.
    pub handles: BTreeMap<u64, u32>,
    /// Handles given out so far.
    pub next_handle: u64,
    /// References to threads taken by the driver, by address of the KTHREAD.
    pub references: BTreeMap<u64, u64>,
    /// Depth of guarded regions by thread number.
    pub guarded: BTreeMap<u32, u32>,
    /// Affinity to return to, by thread number, while a system affinity is set.
    pub user_affinity: BTreeMap<u32, u64>,
    /// Registered bug check callback records.
    pub bug_check_callbacks: Vec<u64>,
    /// System state registrations (PoRegisterSystemState): handle and flags.
    pub system_states: BTreeMap<u64, u32>,
    /// Device power states that drivers reported, by device object.
    pub power_states: BTreeMap<u64, u32>,
    /// Executive resources by address.
    pub resources: BTreeMap<u64, super::ex_resource::Resource>,
    /// Events the kernel made for waits on executive objects without a dispatcher header, by object.
    pub events: BTreeMap<u64, u64>,
    /// Queued work and its workers.
    pub work: super::ex_work::WorkQueue,
    /// UUIDs made so far.
    pub uuids: u64,
    /// Clock tick that KUSER_SHARED_DATA shows.
    pub shared_tick: u64,
    /// Locks of pageable sections by the section's address (MmLockPagableDataSection).
    pub locked_sections: BTreeMap<u64, u32>,
    /// Open event handles and the events' addresses.
    pub event_handles: BTreeMap<u64, u64>,
    /// Events with names (lower case).
    pub named_events: BTreeMap<String, u64>,
    /// Timers of devices (IoInitializeTimer), by device object.
    pub device_timers: BTreeMap<u64, super::io_more::DeviceTimer>,
    /// Blocks the kernel makes once, at their first use.
    pub singletons: BTreeMap<&'static str, u64>,
    /// Callback objects by address.
    pub callbacks: BTreeMap<u64, super::ex_callback::Callback>,
    /// DMA adapters.
    pub dma: super::hal_dma::DmaState,
}

impl KeState {
    /// Opens a handle to a thread; none when the table is full.
    pub(crate) fn open_thread_handle(&mut self, thread: u32) -> Option<u64> {
        if self.handles.len() >= 1 << 16 {
            return None;
        }
        self.next_handle += 1;
        let handle = HANDLE_BASE + 4 * self.next_handle;
        self.handles.insert(handle, thread);
        Some(handle)
    }

    /// Opens a handle to an event; none when the table is full.
    pub(crate) fn open_event_handle(&mut self, event: u64) -> Option<u64> {
        if self.event_handles.len() >= 1 << 16 {
            return None;
        }
        self.next_handle += 1;
        let handle = HANDLE_BASE + 4 * self.next_handle;
        self.event_handles.insert(handle, event);
        Some(handle)
    }

    /// Closes a handle of a thread or an event; false when it is none.
    pub(crate) fn close_thread_handle(&mut self, handle: u64) -> bool {
        self.handles.remove(&handle).is_some() || self.event_handles.remove(&handle).is_some()
    }
}

/// How the `Ke` and `Ps` families go on.
#[derive(Clone, Debug)]
pub enum KeThen {
    /// Acquire the spin lock, then return the value (the IRQL before).
    Acquire {
        /// Address of the lock.
        lock: u64,
        /// What the export returns.
        value: u64,
    },
    /// A system thread begins: call its start routine.
    ThreadStart {
        /// Start routine.
        routine: u64,
        /// Its argument.
        context: u64,
    },
    /// The start routine returned: the thread ends.
    ThreadEnd,
}

impl KeThen {
    pub(crate) fn resume(self, cx: &mut Cx<'_>, _value: u64) -> Result {
        match self {
            Self::Acquire { lock, value } => super::ke_lock::acquire(cx, lock, value),
            Self::ThreadStart { routine, context } => {
                Ok(Outcome::Call { routine, args: vec![context], then: Then::Ke(Self::ThreadEnd) })
            }
            Self::ThreadEnd => Ok(Outcome::End),
        }
    }
}

/// Carries out a wait for dispatcher objects with an optional timeout in guest memory.
fn wait_for(cx: &mut Cx<'_>, objects: Vec<u64>, all: bool, alertable: bool, timeout: u64) -> Result {
    let time = if timeout == 0 { None } else { Some(cx.r64(timeout)? as i64) };
    let mut wait = Wait::object(0);
    wait.objects = objects;
    wait.all = all;
    wait.alertable = alertable;
    if time == Some(0) {
        // A poll: allowed at DISPATCH_LEVEL and in a DPC, where it must not touch the scheduler.
        let thread = cx.k.current_thread(cx.cpu).map_or(u32::MAX, |t| t.id);
        return ret(dispatcher::try_satisfy(cx, &wait, thread)?.map_or(STATUS_TIMEOUT, u64::from));
    }
    if cx.irql() >= 2 || !cx.k.procs[cx.cpu].nest.is_empty() {
        let irql = u64::from(cx.irql());
        return Err(Stop::bug_check(
            0xB8,
            [0, 0, 0, 0],
            format!(
                "a wait with a non-zero timeout at IRQL {irql}; it is allowed below DISPATCH_LEVEL only \
                 (ATTEMPTED_SWITCH_FROM_DPC)"
            ),
        ));
    }
    wait.deadline = time.map(|t| timer::to_deadline(cx, t));
    Ok(Outcome::Wait { wait, then: Then::Ret })
}

exports! {
    [2] fn KeInitializeEvent(cx, event: u64, kind: u32, state: u8) {
        if kind > 1 {
            return Err(cx.missing(format!("KeInitializeEvent with event type {kind}")));
        }
        dispatcher::init_header(cx, event, kind as u8, EVENT_SIZE, i32::from(state != 0))?;
        void()
    }
    // Wait = TRUE only lets Windows save a dispatch between this call and the wait that must follow it.
    [2] fn KeSetEvent(cx, event: u64, _increment: u32, wait: u8) {
        if wait != 0 && cx.irql() >= 2 {
            return Err(Stop::bug_check(0xB8, [0; 4], "KeSetEvent with Wait = TRUE at DISPATCH_LEVEL or above"));
        }
        ret(u64::from(dispatcher::set_event(cx, event)? as u32))
    }
    [2] fn KeClearEvent(cx, event: u64) {
        cx.w32(event + SIGNAL, 0)?;
        void()
    }
    [2] fn KeResetEvent(cx, event: u64) {
        let before = cx.r32(event + SIGNAL)?;
        cx.w32(event + SIGNAL, 0)?;
        ret(u64::from(before))
    }
    [2] fn KePulseEvent(cx, event: u64, _increment: u32, _wait: u8) {
        let before = cx.r32(event + SIGNAL)?;
        cx.w32(event + SIGNAL, 1)?;
        wake_waiters(cx, event)?;
        cx.w32(event + SIGNAL, 0)?;
        ret(u64::from(before))
    }
    [2] fn KeReadStateEvent(cx, event: u64) { ret(u64::from(cx.r32(event + SIGNAL)?)) }

    [2] fn KeInitializeMutex(cx, mutex: u64, _level: u32) {
        dispatcher::init_mutex(cx, mutex)?;
        void()
    }
    [2] fn KeReleaseMutex(cx, mutex: u64, _wait: u8) {
        ret(u64::from(dispatcher::release_mutex(cx, mutex)? as u32))
    }
    [2] fn KeReadStateMutex(cx, mutex: u64) { ret(u64::from(cx.r32(mutex + SIGNAL)?)) }

    [2] fn KeInitializeSemaphore(cx, semaphore: u64, count: i32, limit: i32) {
        dispatcher::init_semaphore(cx, semaphore, count, limit)?;
        void()
    }
    [2] fn KeReleaseSemaphore(cx, semaphore: u64, _increment: u32, adjustment: i32, _wait: u8) {
        ret(u64::from(dispatcher::release_semaphore(cx, semaphore, adjustment)? as u32))
    }
    [2] fn KeReadStateSemaphore(cx, semaphore: u64) { ret(u64::from(cx.r32(semaphore + SIGNAL)?)) }

    [2] fn KeWaitForSingleObject(cx, object: u64, _reason: u32, _mode: u8, alertable: u8, timeout: u64) {
        wait_for(cx, vec![object], false, alertable != 0, timeout)
    }
    [2] fn KeWaitForMutexObject(cx, object: u64, _reason: u32, _mode: u8, alertable: u8, timeout: u64) {
        wait_for(cx, vec![object], false, alertable != 0, timeout)
    }
    [2] fn KeWaitForMultipleObjects(
        cx, count: u32, objects: u64, kind: u32, _reason: u32, _mode: u8, alertable: u8, timeout: u64, blocks: u64
    ) {
        let limit = if blocks == 0 { THREAD_WAIT_OBJECTS } else { MAX_WAIT_OBJECTS };
        if count == 0 || count > limit {
            return Err(Stop::bug_check(
                0x0C,
                [0; 4],
                format!("KeWaitForMultipleObjects for {count} objects; at most {limit} (MAXIMUM_WAIT_OBJECTS_EXCEEDED)"),
            ));
        }
        if kind > 1 {
            return Err(cx.missing(format!("KeWaitForMultipleObjects with wait type {kind}")));
        }
        let mut list = Vec::with_capacity(count as usize);
        for i in 0..u64::from(count) {
            list.push(cx.r64(objects.wrapping_add(8 * i))?);
        }
        // WaitAll is 0, WaitAny is 1.
        wait_for(cx, list, kind == 0, alertable != 0, timeout)
    }
    [1] fn KeDelayExecutionThread(cx, _mode: u8, alertable: u8, interval: u64) {
        let time = cx.r64(interval)? as i64;
        // A delay that is already over still gives the processor away once.
        let mut wait = Wait::until(timer::to_deadline(cx, time).max(cx.now() + 1));
        wait.alertable = alertable != 0;
        Ok(Outcome::Wait { wait, then: Then::RetValue(0) })
    }

    [2] fn KeInitializeTimer(cx, at: u64) {
        timer::init(cx, at, false)?;
        void()
    }
    [2] fn KeInitializeTimerEx(cx, at: u64, kind: u32) {
        if kind > 1 {
            return Err(cx.missing(format!("KeInitializeTimerEx with timer type {kind}")));
        }
        timer::init(cx, at, kind == 1)?;
        void()
    }
    [2] fn KeSetTimer(cx, at: u64, due: i64, dpc: u64) { ret(u64::from(timer::set(cx, at, due, 0, dpc)?)) }
    [2] fn KeSetTimerEx(cx, at: u64, due: i64, period: i32, dpc: u64) {
        if period < 0 {
            return Err(cx.missing(format!("KeSetTimerEx with a period of {period} ms")));
        }
        ret(u64::from(timer::set(cx, at, due, period as u32, dpc)?))
    }
    [2] fn KeSetCoalescableTimer(cx, at: u64, due: i64, period: u32, _tolerable_delay: u32, dpc: u64) {
        ret(u64::from(timer::set(cx, at, due, period, dpc)?))
    }
    [2] fn KeCancelTimer(cx, at: u64) { ret(u64::from(timer::cancel(cx, at)?)) }
    [2] fn KeReadStateTimer(cx, at: u64) { ret(u64::from(cx.r32(at + SIGNAL)? != 0)) }

    [15] fn KeBugCheck(cx, code: u32) {
        let _ = &cx;
        Err(Stop::bug_check(code, [0; 4], "the driver called KeBugCheck"))
    }
    [15] fn KeBugCheckEx(cx, code: u32, p1: u64, p2: u64, p3: u64, p4: u64) {
        let _ = &cx;
        Err(Stop::bug_check(code, [p1, p2, p3, p4], "the driver called KeBugCheckEx"))
    }
    // KBUGCHECK_CALLBACK_RECORD: list entry, routine at 16, buffer at 24, length at 32, component at 40, checksum at
    // 48, state at 56. The callbacks are for a crash dump, and dirql makes none, so they are kept and never called.
    [15] fn KeRegisterBugCheckCallback(cx, record: u64, routine: u64, buffer: u64, length: u32, component: u64) {
        if cx.k.ke.bug_check_callbacks.contains(&record) || cx.k.ke.bug_check_callbacks.len() >= 1024 {
            return ret(0);
        }
        cx.w64(record + 16, routine)?;
        cx.w64(record + 24, buffer)?;
        cx.w32(record + 32, length)?;
        cx.w64(record + 40, component)?;
        cx.w8(record + 56, 1)?;
        cx.k.ke.bug_check_callbacks.push(record);
        ret(1)
    }
    [15] fn KeDeregisterBugCheckCallback(cx, record: u64) {
        let Some(i) = cx.k.ke.bug_check_callbacks.iter().position(|&r| r == record) else { return ret(0) };
        cx.k.ke.bug_check_callbacks.remove(i);
        cx.w8(record + 56, 0)?;
        ret(1)
    }
}
