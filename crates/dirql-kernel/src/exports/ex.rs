//! The executive: fast mutexes, reader-writer spin locks, rundown protection and interlocked lists.
//!
//! After the Microsoft documentation of each routine. Pool and lookaside lists are in `ex_pool.rs`, resources in
//! `ex_resource.rs`, work items in `ex_work.rs`.

use crate::context::{Outcome, Result, Wait, ret, void};
use crate::cx::Cx;
use crate::dispatcher;
use crate::exports;
use crate::exports::ke_cpu::{current_kthread, guarded_region};
use crate::exports::{ex_pool, ex_resource, ex_work, ke_lock};
use crate::stop::Stop;
use crate::then::Then;

type Res<T> = std::result::Result<T, Stop>;

/// FAST_MUTEX: Count at 0, Owner, Contention, Event, OldIrql.
const OWNER: u64 = 8;
const CONTENTION: u64 = 16;
const EVENT: u64 = 24;
const OLD_IRQL: u64 = 48;
/// EX_SPIN_LOCK: held exclusively.
const EXCLUSIVE: u32 = 1 << 31;

/// PF_COMPARE_EXCHANGE_DOUBLE, PF_MMX, PF_XMMI (SSE), PF_RDTSC, PF_XMMI64 (SSE2), PF_NX, PF_COMPARE_EXCHANGE128: what
/// every x64 processor of the profile has.
pub(crate) const PROCESSOR_FEATURES: &[u8] = &[2, 3, 6, 8, 10, 12, 14];

/// How the `Ex` family goes on.
#[derive(Clone, Debug)]
pub enum ExThen {
    /// The wait for a fast mutex is over: it is ours.
    FastMutex {
        /// Address of the FAST_MUTEX.
        mutex: u64,
        /// IRQL before.
        old: u8,
    },
    /// Try again to take a reader-writer spin lock, then return the value.
    SpinRw {
        /// Address of the EX_SPIN_LOCK.
        lock: u64,
        /// Shared rather than exclusive.
        shared: bool,
        /// What the export returns.
        value: u64,
    },
    /// A resource may have become free: try again.
    Resource(ex_resource::Request),
    /// An interlocked list operation spins on its lock.
    List {
        /// Which one.
        op: ListOp,
        /// Address of the list head or the number.
        at: u64,
        /// The entry or the increment.
        with: u64,
        /// Address of the spin lock.
        lock: u64,
    },
    /// The free routine of a lookaside list returned; go on with the next entry.
    DrainLookaside(u64),
    /// A routine of a callback object returned; call the rest.
    Notify {
        /// Routines and their contexts.
        rest: Vec<(u64, u64)>,
        /// First argument of the notification.
        a: u64,
        /// Second.
        b: u64,
    },
    /// A push lock may have become free: try again.
    PushLock {
        /// Its address.
        lock: u64,
        /// Shared rather than exclusive.
        shared: bool,
    },
    /// A worker thread looks for work.
    WorkerNext,
    /// A work routine returned to its worker.
    WorkerDone,
    /// A worker thread was given work.
    WorkerGot,
}

/// An operation of the ExInterlocked family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListOp {
    /// ExInterlockedInsertHeadList.
    InsertHead,
    /// ExInterlockedInsertTailList.
    InsertTail,
    /// ExInterlockedRemoveHeadList.
    RemoveHead,
    /// ExInterlockedPushEntryList.
    Push,
    /// ExInterlockedPopEntryList.
    Pop,
    /// ExInterlockedAddUlong.
    AddUlong,
    /// ExInterlockedAddLargeInteger.
    AddLarge,
}

impl ExThen {
    pub(crate) fn resume(self, cx: &mut Cx<'_>, _value: u64) -> Result {
        match self {
            Self::FastMutex { mutex, old } => {
                own_fast_mutex(cx, mutex, old)?;
                void()
            }
            Self::SpinRw { lock, shared, value } => spin_rw(cx, lock, shared, value),
            Self::Resource(request) => ex_resource::resume(cx, request),
            Self::List { op, at, with, lock } => interlocked(cx, op, at, with, lock),
            Self::DrainLookaside(list) => ex_pool::drain_lookaside(cx, list),
            Self::Notify { rest, a, b } => super::ex_callback::notify(cx, rest, a, b),
            Self::PushLock { lock, shared } => super::ex_callback::acquire(cx, lock, shared),
            Self::WorkerNext => ex_work::next(cx),
            Self::WorkerGot => ex_work::got(cx),
            Self::WorkerDone => ex_work::done(cx),
        }
    }
}

/// The event on which threads wait for an executive object at `object` that has none in its own memory.
pub(crate) fn event_for(cx: &mut Cx<'_>, object: u64) -> Res<u64> {
    if let Some(&event) = cx.k.ke.events.get(&object) {
        return Ok(event);
    }
    let event = ex_pool::kernel_block(cx, dispatcher::EVENT_SIZE)?;
    dispatcher::init_header(cx, event, 0, dispatcher::EVENT_SIZE, 0)?;
    cx.k.ke.events.insert(object, event);
    Ok(event)
}

fn own_fast_mutex(cx: &mut Cx<'_>, mutex: u64, old: u8) -> Res<()> {
    let owner = current_kthread(cx)?;
    cx.w64(mutex + OWNER, owner)?;
    cx.w32(mutex + OLD_IRQL, u32::from(old))
}

fn acquire_fast_mutex(cx: &mut Cx<'_>, mutex: u64, old: u8) -> Result {
    let count = cx.r32(mutex)? as i32;
    cx.w32(mutex, count.wrapping_sub(1) as u32)?;
    if count == 1 {
        own_fast_mutex(cx, mutex, old)?;
        return void();
    }
    let contention = cx.r32(mutex + CONTENTION)?;
    cx.w32(mutex + CONTENTION, contention.wrapping_add(1))?;
    Ok(Outcome::Wait { wait: Wait::object(mutex + EVENT), then: Then::Ex(ExThen::FastMutex { mutex, old }) })
}

fn release_fast_mutex(cx: &mut Cx<'_>, mutex: u64) -> Res<u8> {
    let owner = cx.r64(mutex + OWNER)?;
    let me = current_kthread(cx)?;
    if owner != me {
        return Err(Stop::bug_check(
            0xC4,
            [0x34, u64::from(cx.irql()), mutex, owner],
            format!("the fast mutex at {mutex:#x} was released by a thread that does not own it"),
        ));
    }
    let old = cx.r32(mutex + OLD_IRQL)? as u8;
    cx.w64(mutex + OWNER, 0)?;
    let count = (cx.r32(mutex)? as i32).wrapping_add(1);
    cx.w32(mutex, count as u32)?;
    if count <= 0 {
        dispatcher::set_event(cx, mutex + EVENT)?;
    }
    Ok(old)
}

/// Takes the mutex when it is free, without waiting.
fn try_fast_mutex(cx: &mut Cx<'_>, mutex: u64, old: u8) -> Res<bool> {
    if cx.r32(mutex)? != 1 {
        return Ok(false);
    }
    cx.w32(mutex, 0)?;
    own_fast_mutex(cx, mutex, old)?;
    Ok(true)
}

fn spin_rw(cx: &mut Cx<'_>, lock: u64, shared: bool, value: u64) -> Result {
    let word = cx.r32(lock)?;
    let cpu = cx.cpu;
    if shared && word & EXCLUSIVE == 0 {
        cx.w32(lock, word + 1)?;
        return ret(value);
    }
    if !shared && word == 0 {
        cx.w32(lock, EXCLUSIVE)?;
        cx.k.ke.lock_owner.insert(lock, cpu);
        return ret(value);
    }
    if word & EXCLUSIVE != 0 && cx.k.ke.lock_owner.get(&lock) == Some(&cpu) {
        return Err(Stop::bug_check(
            0x0F,
            [lock, 0, 0, 0],
            format!(
                "the spin lock at {lock:#x} was acquired by the processor that holds it (SPIN_LOCK_ALREADY_OWNED)"
            ),
        ));
    }
    Ok(Outcome::Spin(Then::Ex(ExThen::SpinRw { lock, shared, value })))
}

fn release_rw(cx: &mut Cx<'_>, lock: u64, shared: bool) -> Res<()> {
    let word = cx.r32(lock)?;
    let held = if shared { word & !EXCLUSIVE != 0 } else { word & EXCLUSIVE != 0 };
    if !held {
        return Err(Stop::bug_check(
            0x10,
            [lock, 0, 0, 0],
            format!("the spin lock at {lock:#x} was released and was not held (SPIN_LOCK_NOT_OWNED)"),
        ));
    }
    if shared {
        cx.w32(lock, word - 1)
    } else {
        cx.k.ke.lock_owner.remove(&lock);
        cx.w32(lock, word & !EXCLUSIVE)
    }
}

/// Does one interlocked operation under its spin lock. It runs with interrupts off on Windows; here nothing comes
/// between its steps either.
fn interlocked(cx: &mut Cx<'_>, op: ListOp, at: u64, with: u64, lock: u64) -> Result {
    if !ke_lock::try_acquire(cx, lock)? {
        if cx.k.ke.lock_owner.get(&lock) == Some(&cx.cpu) {
            return Err(Stop::bug_check(
                0x0F,
                [lock, 0, 0, 0],
                format!(
                    "{op:?} needs the spin lock at {lock:#x}, which this processor holds (SPIN_LOCK_ALREADY_OWNED)"
                ),
            ));
        }
        return Ok(Outcome::Spin(Then::Ex(ExThen::List { op, at, with, lock })));
    }
    let value = match op {
        ListOp::InsertHead => {
            let first = cx.r64(at)?;
            cx.w64(with, first)?;
            cx.w64(with + 8, at)?;
            cx.w64(first + 8, with)?;
            cx.w64(at, with)?;
            if first == at { 0 } else { first }
        }
        ListOp::InsertTail => {
            let last = cx.r64(at + 8)?;
            cx.w64(with, at)?;
            cx.w64(with + 8, last)?;
            cx.w64(last, with)?;
            cx.w64(at + 8, with)?;
            if last == at { 0 } else { last }
        }
        ListOp::RemoveHead => {
            let first = cx.r64(at)?;
            if first == at {
                0
            } else {
                let next = cx.r64(first)?;
                cx.w64(at, next)?;
                cx.w64(next + 8, at)?;
                first
            }
        }
        ListOp::Push => {
            let first = cx.r64(at)?;
            cx.w64(with, first)?;
            cx.w64(at, with)?;
            first
        }
        ListOp::Pop => {
            let first = cx.r64(at)?;
            if first != 0 {
                let next = cx.r64(first)?;
                cx.w64(at, next)?;
            }
            first
        }
        ListOp::AddUlong => {
            let before = cx.r32(at)?;
            cx.w32(at, before.wrapping_add(with as u32))?;
            u64::from(before)
        }
        ListOp::AddLarge => {
            let before = cx.r64(at)?;
            cx.w64(at, before.wrapping_add(with))?;
            before
        }
    };
    ke_lock::release(cx, lock)?;
    ret(value)
}

exports! {
    [1] fn ExAcquireFastMutex(cx, mutex: u64) {
        let old = cx.irql();
        cx.set_irql(1);
        acquire_fast_mutex(cx, mutex, old)
    }
    [1] fn ExReleaseFastMutex(cx, mutex: u64) {
        let old = release_fast_mutex(cx, mutex)?;
        ke_lock::lower(cx, old)?;
        void()
    }
    [1] fn ExTryToAcquireFastMutex(cx, mutex: u64) {
        let old = cx.irql();
        let got = try_fast_mutex(cx, mutex, old)?;
        if got {
            cx.set_irql(1);
        }
        ret(u64::from(got))
    }
    [1] fn ExAcquireFastMutexUnsafe(cx, mutex: u64) {
        let old = cx.irql();
        acquire_fast_mutex(cx, mutex, old)
    }
    [1] fn ExReleaseFastMutexUnsafe(cx, mutex: u64) {
        release_fast_mutex(cx, mutex)?;
        void()
    }
    [2] fn KeInitializeGuardedMutex(cx, mutex: u64) {
        cx.put(mutex, &[0; 56])?;
        cx.w32(mutex, 1)?;
        dispatcher::init_header(cx, mutex + EVENT, 1, dispatcher::EVENT_SIZE, 0)?;
        void()
    }
    [1] fn KeAcquireGuardedMutex(cx, mutex: u64) {
        guarded_region(cx, true)?;
        let old = cx.irql();
        acquire_fast_mutex(cx, mutex, old)
    }
    [1] fn KeReleaseGuardedMutex(cx, mutex: u64) {
        release_fast_mutex(cx, mutex)?;
        guarded_region(cx, false)
    }

    [2] fn ExAcquireSpinLockExclusive(cx, lock: u64) {
        let old = ke_lock::raise_to_dpc(cx)?;
        spin_rw(cx, lock, false, u64::from(old))
    }
    [2] fn ExAcquireSpinLockShared(cx, lock: u64) {
        let old = ke_lock::raise_to_dpc(cx)?;
        spin_rw(cx, lock, true, u64::from(old))
    }
    [15] fn ExAcquireSpinLockExclusiveAtDpcLevel(cx, lock: u64) { spin_rw(cx, lock, false, 0) }
    [15] fn ExAcquireSpinLockSharedAtDpcLevel(cx, lock: u64) { spin_rw(cx, lock, true, 0) }
    [2] fn ExReleaseSpinLockExclusive(cx, lock: u64, irql: u8) {
        release_rw(cx, lock, false)?;
        ke_lock::lower(cx, irql)?;
        void()
    }
    [2] fn ExReleaseSpinLockShared(cx, lock: u64, irql: u8) {
        release_rw(cx, lock, true)?;
        ke_lock::lower(cx, irql)?;
        void()
    }
    [15] fn ExReleaseSpinLockExclusiveFromDpcLevel(cx, lock: u64) {
        release_rw(cx, lock, false)?;
        void()
    }
    [15] fn ExReleaseSpinLockSharedFromDpcLevel(cx, lock: u64) {
        release_rw(cx, lock, true)?;
        void()
    }

    [15] fn ExInterlockedInsertHeadList(cx, head: u64, entry: u64, lock: u64) {
        interlocked(cx, ListOp::InsertHead, head, entry, lock)
    }
    [15] fn ExInterlockedInsertTailList(cx, head: u64, entry: u64, lock: u64) {
        interlocked(cx, ListOp::InsertTail, head, entry, lock)
    }
    [15] fn ExInterlockedRemoveHeadList(cx, head: u64, lock: u64) {
        interlocked(cx, ListOp::RemoveHead, head, 0, lock)
    }
    [15] fn ExInterlockedPushEntryList(cx, head: u64, entry: u64, lock: u64) {
        interlocked(cx, ListOp::Push, head, entry, lock)
    }
    [15] fn ExInterlockedPopEntryList(cx, head: u64, lock: u64) { interlocked(cx, ListOp::Pop, head, 0, lock) }
    [15] fn ExInterlockedAddUlong(cx, at: u64, increment: u32, lock: u64) {
        interlocked(cx, ListOp::AddUlong, at, u64::from(increment), lock)
    }
    [15] fn ExInterlockedAddLargeInteger(cx, at: u64, increment: u64, lock: u64) {
        interlocked(cx, ListOp::AddLarge, at, increment, lock)
    }

    // EX_RUNDOWN_REF: bit 0 says that rundown began, the count is above it.
    [2] fn ExInitializeRundownProtection(cx, at: u64) {
        cx.w64(at, 0)?;
        void()
    }
    [2] fn ExReInitializeRundownProtection(cx, at: u64) {
        cx.w64(at, 0)?;
        void()
    }
    [2] fn ExAcquireRundownProtection(cx, at: u64) { acquire_rundown(cx, at, 1) }
    [2] fn ExAcquireRundownProtectionEx(cx, at: u64, count: u32) { acquire_rundown(cx, at, count) }
    [2] fn ExReleaseRundownProtection(cx, at: u64) { release_rundown(cx, at, 1) }
    [2] fn ExReleaseRundownProtectionEx(cx, at: u64, count: u32) { release_rundown(cx, at, count) }
    [2] fn ExRundownCompleted(cx, at: u64) {
        cx.w64(at, 1)?;
        void()
    }
    [1] fn ExWaitForRundownProtectionRelease(cx, at: u64) {
        let word = cx.r64(at)?;
        cx.w64(at, word | 1)?;
        if word >> 1 == 0 {
            return void();
        }
        let event = event_for(cx, at)?;
        cx.w32(event + dispatcher::SIGNAL, 0)?;
        Ok(Outcome::Wait { wait: Wait::object(event), then: Then::RetValue(0) })
    }

    // Version 4 in form, from a counter: unique within a run and the same in every run.
    [0] fn ExUuidCreate(cx, out: u64) {
        cx.k.ke.uuids += 1;
        let n = cx.k.ke.uuids.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let low = n & !0xf000_0000_0000_0000 | 0x4000_0000_0000_0000;
        let high = cx.k.ke.uuids.swap_bytes() & !0xc0 | 0x80;
        cx.w64(out, low)?;
        cx.w64(out + 8, high)?;
        ret(0)
    }
    [15] fn ExGetPreviousMode(cx) { let _ = &cx; ret(0) }
    // The lab's time zone is UTC.
    [15] fn ExSystemTimeToLocalTime(cx, from: u64, to: u64) {
        let time = cx.r64(from)?;
        cx.w64(to, time)?;
        void()
    }
    [15] fn ExLocalTimeToSystemTime(cx, from: u64, to: u64) {
        let time = cx.r64(from)?;
        cx.w64(to, time)?;
        void()
    }
    [15] fn ExIsProcessorFeaturePresent(cx, feature: u32) {
        let _ = &cx;
        ret(u64::from(PROCESSOR_FEATURES.iter().any(|&f| u32::from(f) == feature)))
    }
}

fn acquire_rundown(cx: &mut Cx<'_>, at: u64, count: u32) -> Result {
    let word = cx.r64(at)?;
    if word & 1 != 0 {
        return ret(0);
    }
    cx.w64(at, word.wrapping_add(2 * u64::from(count)))?;
    ret(1)
}

fn release_rundown(cx: &mut Cx<'_>, at: u64, count: u32) -> Result {
    let word = cx.r64(at)?;
    let Some(left) = (word >> 1).checked_sub(u64::from(count)) else {
        return Err(Stop::bug_check(
            0x1E,
            [0xC000_000D, cx.caller(), at, word],
            format!("the rundown protection at {at:#x} was released more often than acquired"),
        ));
    };
    cx.w64(at, left << 1 | word & 1)?;
    if left == 0 && word & 1 != 0 {
        let event = event_for(cx, at)?;
        dispatcher::set_event(cx, event)?;
    }
    void()
}
