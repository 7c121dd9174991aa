//! Spin locks and IRQL.
//!
//! A spin lock is the word in guest memory, 0 when free and 1 when held (spec 2.5); who holds it is kept beside, so
//! that a second acquisition by the same processor is named (bug check 0xF) where Windows would spin for ever.
//! Queued spin locks give no order here: the lock goes to the processor that runs first after a release.

use crate::context::{Outcome, Result, ret, void};
use crate::cx::Cx;
use crate::exports;
use crate::exports::ke::KeThen;
use crate::stop::Stop;
use crate::then::Then;

const DISPATCH_LEVEL: u8 = 2;
/// KLOCK_QUEUE_HANDLE.LockQueue.Lock and OldIrql.
const HANDLE_LOCK: u64 = 8;
const HANDLE_IRQL: u64 = 16;

type Res<T> = std::result::Result<T, Stop>;

/// Takes the lock if it is free.
pub(crate) fn try_acquire(cx: &mut Cx<'_>, lock: u64) -> Res<bool> {
    if cx.r64(lock)? == 0 {
        cx.w64(lock, 1)?;
        let cpu = cx.cpu;
        cx.k.ke.lock_owner.insert(lock, cpu);
        return Ok(true);
    }
    Ok(false)
}

/// Takes the lock, spinning while another processor holds it, then returns `value` to the driver.
pub(crate) fn acquire(cx: &mut Cx<'_>, lock: u64, value: u64) -> Result {
    if try_acquire(cx, lock)? {
        return ret(value);
    }
    if cx.k.ke.lock_owner.get(&lock) == Some(&cx.cpu) {
        return Err(Stop::bug_check(
            0x0F,
            [lock, 0, 0, 0],
            format!(
                "the spin lock at {lock:#x} was acquired by the processor that holds it (SPIN_LOCK_ALREADY_OWNED)"
            ),
        ));
    }
    Ok(Outcome::Spin(Then::Ke(KeThen::Acquire { lock, value })))
}

/// Gives the lock back.
pub(crate) fn release(cx: &mut Cx<'_>, lock: u64) -> Res<()> {
    let owner = cx.k.ke.lock_owner.get(&lock).copied();
    if cx.r64(lock)? == 0 || owner.is_some_and(|o| o != cx.cpu) {
        return Err(Stop::bug_check(
            0x10,
            [lock, 0, 0, 0],
            format!(
                "the spin lock at {lock:#x} was released by a processor that does not hold it (SPIN_LOCK_NOT_OWNED)"
            ),
        ));
    }
    cx.w64(lock, 0)?;
    cx.k.ke.lock_owner.remove(&lock);
    Ok(())
}

/// Raises to DISPATCH_LEVEL and gives the IRQL before.
pub(crate) fn raise_to_dpc(cx: &mut Cx<'_>) -> Res<u8> {
    let old = cx.irql();
    raise(cx, DISPATCH_LEVEL)?;
    Ok(old)
}

fn raise(cx: &mut Cx<'_>, to: u8) -> Res<()> {
    let old = cx.irql();
    if to < old || to > 15 {
        return Err(Stop::bug_check(
            0x09,
            [0, u64::from(to), 0, cx.caller()],
            format!("IRQL raised from {old} to {to} (IRQL_NOT_GREATER_OR_EQUAL)"),
        ));
    }
    cx.set_irql(to);
    Ok(())
}

/// Lowers the IRQL.
pub(crate) fn lower(cx: &mut Cx<'_>, to: u8) -> Res<()> {
    let old = cx.irql();
    if to > old {
        return Err(Stop::bug_check(
            0x0A,
            [0, u64::from(to), 0, cx.caller()],
            format!("IRQL lowered from {old} to {to} (IRQL_NOT_LESS_OR_EQUAL)"),
        ));
    }
    cx.set_irql(to);
    Ok(())
}

/// The caller of an ...AtDpcLevel routine must be at DISPATCH_LEVEL or above.
fn at_dpc_level(cx: &Cx<'_>, lock: u64, code: u64, what: &str) -> Res<()> {
    let irql = cx.irql();
    if irql < DISPATCH_LEVEL {
        return Err(Stop::bug_check(
            0xC4,
            [code, u64::from(irql), lock, 0],
            format!("{what} at IRQL {irql}; it must be called at DISPATCH_LEVEL or above"),
        ));
    }
    Ok(())
}

exports! {
    [15] fn KeInitializeSpinLock(cx, lock: u64) {
        cx.w64(lock, 0)?;
        cx.k.ke.lock_owner.remove(&lock);
        void()
    }
    [2] fn KeAcquireSpinLockRaiseToDpc(cx, lock: u64) {
        let old = raise_to_dpc(cx)?;
        acquire(cx, lock, u64::from(old))
    }
    [2] fn KeAcquireSpinLockForDpc(cx, lock: u64) {
        let old = raise_to_dpc(cx)?;
        acquire(cx, lock, u64::from(old))
    }
    [2] fn KeReleaseSpinLock(cx, lock: u64, irql: u8) {
        at_dpc_level(cx, lock, 0x32, "KeReleaseSpinLock")?;
        release(cx, lock)?;
        lower(cx, irql)?;
        void()
    }
    [2] fn KeReleaseSpinLockForDpc(cx, lock: u64, irql: u8) {
        at_dpc_level(cx, lock, 0x32, "KeReleaseSpinLockForDpc")?;
        release(cx, lock)?;
        lower(cx, irql)?;
        void()
    }
    [15] fn KeAcquireSpinLockAtDpcLevel(cx, lock: u64) {
        at_dpc_level(cx, lock, 0x40, "KeAcquireSpinLockAtDpcLevel")?;
        acquire(cx, lock, 0)
    }
    [15] fn KeReleaseSpinLockFromDpcLevel(cx, lock: u64) {
        at_dpc_level(cx, lock, 0x41, "KeReleaseSpinLockFromDpcLevel")?;
        release(cx, lock)?;
        void()
    }
    [15] fn KeTryToAcquireSpinLockAtDpcLevel(cx, lock: u64) {
        at_dpc_level(cx, lock, 0x40, "KeTryToAcquireSpinLockAtDpcLevel")?;
        ret(u64::from(try_acquire(cx, lock)?))
    }
    [15] fn KeTestSpinLock(cx, lock: u64) { ret(u64::from(cx.r64(lock)? == 0)) }
    [2] fn KeAcquireInStackQueuedSpinLock(cx, lock: u64, handle: u64) {
        let old = raise_to_dpc(cx)?;
        cx.w64(handle, 0)?;
        cx.w64(handle + HANDLE_LOCK, lock)?;
        cx.w8(handle + HANDLE_IRQL, old)?;
        acquire(cx, lock, 0)
    }
    [2] fn KeReleaseInStackQueuedSpinLock(cx, handle: u64) {
        let lock = cx.r64(handle + HANDLE_LOCK)?;
        let irql = cx.r8(handle + HANDLE_IRQL)?;
        at_dpc_level(cx, lock, 0x32, "KeReleaseInStackQueuedSpinLock")?;
        release(cx, lock)?;
        lower(cx, irql)?;
        void()
    }
    [15] fn KeAcquireInStackQueuedSpinLockAtDpcLevel(cx, lock: u64, handle: u64) {
        at_dpc_level(cx, lock, 0x40, "KeAcquireInStackQueuedSpinLockAtDpcLevel")?;
        cx.w64(handle, 0)?;
        cx.w64(handle + HANDLE_LOCK, lock)?;
        acquire(cx, lock, 0)
    }
    [15] fn KeReleaseInStackQueuedSpinLockFromDpcLevel(cx, handle: u64) {
        let lock = cx.r64(handle + HANDLE_LOCK)?;
        at_dpc_level(cx, lock, 0x41, "KeReleaseInStackQueuedSpinLockFromDpcLevel")?;
        release(cx, lock)?;
        void()
    }
    [2] fn KeAcquireInStackQueuedSpinLockForDpc(cx, lock: u64, handle: u64) {
        let old = raise_to_dpc(cx)?;
        cx.w64(handle, 0)?;
        cx.w64(handle + HANDLE_LOCK, lock)?;
        cx.w8(handle + HANDLE_IRQL, old)?;
        acquire(cx, lock, 0)
    }
    [2] fn KeReleaseInStackQueuedSpinLockForDpc(cx, handle: u64) {
        let lock = cx.r64(handle + HANDLE_LOCK)?;
        let irql = cx.r8(handle + HANDLE_IRQL)?;
        release(cx, lock)?;
        lower(cx, irql)?;
        void()
    }

    [15] fn KeGetCurrentIrql(cx) { ret(u64::from(cx.irql())) }
    [15] fn KfRaiseIrql(cx, irql: u8) {
        let old = cx.irql();
        raise(cx, irql)?;
        ret(u64::from(old))
    }
    [15] fn KeRaiseIrqlToDpcLevel(cx) { ret(u64::from(raise_to_dpc(cx)?)) }
    // SYNCH_LEVEL is 12 on x64 (spec 1.5).
    [15] fn KeRaiseIrqlToSynchLevel(cx) {
        let old = cx.irql();
        raise(cx, 12)?;
        ret(u64::from(old))
    }
    [15] fn KeLowerIrql(cx, irql: u8) {
        lower(cx, irql)?;
        void()
    }
    [15] fn KfLowerIrql(cx, irql: u8) {
        lower(cx, irql)?;
        void()
    }
}
