//! Processors, time, priorities and regions: what a driver asks about where and when it runs.
//!
//! One processor group. Time is virtual: see `timer.rs`.

use crate::context::{Outcome, Result, Wait, ret, void};
use crate::cx::Cx;
use crate::exports;
use crate::stop::Stop;
use crate::then::Then;
use crate::thread::ThreadState;
use crate::timer::{TIME_INCREMENT, system_time};

const STATUS_INVALID_PARAMETER: u64 = 0xC000_000D;
/// ALL_PROCESSOR_GROUPS.
const ALL_GROUPS: u16 = 0xffff;

/// Mask of the processors there are.
fn active(cx: &Cx<'_>) -> u64 {
    let n = cx.k.procs.len();
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}

/// Address of the KTHREAD of the current thread; on an idle processor what its KPCR holds.
pub(crate) fn current_kthread(cx: &Cx<'_>) -> std::result::Result<u64, Stop> {
    match cx.k.current_thread(cx.cpu) {
        Some(t) => Ok(t.kthread),
        None => cx.r64(cx.k.procs[cx.cpu].kpcr + 0x188),
    }
}

/// Number of the thread whose KTHREAD is at `at`.
pub(crate) fn thread_at(cx: &Cx<'_>, at: u64) -> Option<u32> {
    cx.k.threads.values().find(|t| t.kthread == at).map(|t| t.id)
}

/// Gives the current thread an affinity and moves it there; the export returns `value`.
fn set_affinity(cx: &mut Cx<'_>, affinity: u64, value: u64) -> Result {
    let cpu = cx.cpu;
    let Some(id) = cx.k.procs[cpu].current else { return ret(value) };
    if let Some(t) = cx.k.threads.get_mut(&id) {
        t.affinity = affinity;
    }
    if affinity >> cpu & 1 == 1 {
        return ret(value);
    }
    if cx.irql() >= 2 {
        return Err(cx.missing("a change of affinity away from the current processor at DISPATCH_LEVEL"));
    }
    // A wait of a moment is the simplest way off this processor; the scheduler picks an allowed one afterwards.
    let wait = Wait::until(cx.now() + 1);
    Ok(Outcome::Wait { wait, then: Then::RetValue(value) })
}

/// KeSetSystemAffinityThread: gives the affinity to go back to.
fn system_affinity(cx: &mut Cx<'_>, mask: u64) -> Result {
    let wanted = mask & active(cx);
    if wanted == 0 {
        return Err(Stop::bug_check(
            0x1E,
            [0xC000_000D, cx.caller(), mask, 0],
            "a thread affinity with no active processor",
        ));
    }
    let Some((id, old)) = cx.k.current_thread(cx.cpu).map(|t| (t.id, t.affinity)) else {
        return Err(cx.missing("a thread affinity outside any thread"));
    };
    let previous = if cx.k.ke.user_affinity.contains_key(&id) { old & active(cx) } else { 0 };
    cx.k.ke.user_affinity.entry(id).or_insert(old);
    set_affinity(cx, wanted, previous)
}

fn revert_affinity(cx: &mut Cx<'_>) -> Result {
    let Some(id) = cx.k.procs[cx.cpu].current else { return void() };
    match cx.k.ke.user_affinity.remove(&id) {
        Some(old) => set_affinity(cx, old, 0),
        None => void(),
    }
}

fn change_region(cx: &mut Cx<'_>, enter: bool) -> Result {
    let Some(id) = cx.k.procs[cx.cpu].current else { return void() };
    let Some(t) = cx.k.threads.get_mut(&id) else { return void() };
    t.apc_disable = match (enter, t.apc_disable) {
        (true, n) => n.saturating_add(1),
        (false, 0) => {
            return Err(Stop::bug_check(
                0x01,
                [0; 4],
                "a critical or guarded region was left that was not entered (APC_INDEX_MISMATCH)",
            ));
        }
        (false, n) => n - 1,
    };
    void()
}

pub(crate) fn guarded_region(cx: &mut Cx<'_>, enter: bool) -> Result {
    if let Some(id) = cx.k.procs[cx.cpu].current {
        let depth = cx.k.ke.guarded.entry(id).or_default();
        *depth = if enter { depth.saturating_add(1) } else { depth.saturating_sub(1) };
        if *depth == 0 {
            cx.k.ke.guarded.remove(&id);
        }
    }
    change_region(cx, enter)
}

fn set_priority(cx: &mut Cx<'_>, at: u64, priority: i32) -> Result {
    let Some(id) = thread_at(cx, at) else {
        return Err(cx.missing(format!("a priority change of {at:#x}, which is no thread")));
    };
    if !(1..=31).contains(&priority) {
        return Err(Stop::bug_check(
            0x1E,
            [0xC000_000D, cx.caller(), at, 0],
            format!("thread priority {priority}"),
        ));
    }
    let Some(t) = cx.k.threads.get_mut(&id) else { return ret(0) };
    let old = t.priority;
    t.priority = priority as u8;
    if t.state == ThreadState::Ready {
        cx.k.ready[usize::from(old)].retain(|&r| r != id);
        cx.k.ready[priority as usize].push_back(id);
    }
    ret(u64::from(old))
}

exports! {
    [15] fn KeQuerySystemTime(cx, out: u64) {
        let time = system_time(cx);
        cx.w64(out, time)?;
        void()
    }
    [15] fn KeQuerySystemTimePrecise(cx, out: u64) {
        let time = system_time(cx);
        cx.w64(out, time)?;
        void()
    }
    [15] fn KeQueryTickCount(cx, out: u64) {
        let ticks = cx.now() / 100 / TIME_INCREMENT;
        cx.w64(out, ticks)?;
        void()
    }
    [15] fn KeQueryInterruptTime(cx) { ret(cx.now() / 100) }
    [15] fn KeQueryInterruptTimePrecise(cx, qpc: u64) {
        let time = cx.now() / 100;
        if qpc != 0 {
            cx.w64(qpc, time)?;
        }
        ret(time)
    }
    [15] fn KeQueryUnbiasedInterruptTime(cx) { ret(cx.now() / 100) }
    [15] fn KeQueryTimeIncrement(cx) { let _ = &cx; ret(TIME_INCREMENT) }
    [15] fn KeStallExecutionProcessor(cx, microseconds: u32) {
        let later = cx.now().saturating_add(u64::from(microseconds) * 1000);
        cx.m.advance_to(later);
        void()
    }

    [15] fn KeGetCurrentProcessorNumber(cx) { ret(cx.cpu as u64) }
    [15] fn KeGetCurrentProcessorNumberEx(cx, out: u64) {
        let cpu = cx.cpu;
        if out != 0 {
            cx.w32(out, (cpu as u32) << 16)?;
        }
        ret(cpu as u64)
    }
    [15] fn KeGetProcessorNumberFromIndex(cx, index: u32, out: u64) {
        if index as usize >= cx.k.procs.len() {
            return ret(STATUS_INVALID_PARAMETER);
        }
        cx.w32(out, index << 16)?;
        ret(0)
    }
    [15] fn KeGetProcessorIndexFromNumber(cx, number: u64) {
        let (group, cpu) = (cx.r16(number)?, cx.r8(number + 2)?);
        let valid = group == 0 && usize::from(cpu) < cx.k.procs.len();
        // INVALID_PROCESSOR_INDEX.
        ret(if valid { u64::from(cpu) } else { 0xffff_ffff })
    }
    [15] fn KeQueryActiveProcessors(cx) { ret(active(cx)) }
    [15] fn KeQueryActiveProcessorCount(cx, mask: u64) {
        let all = active(cx);
        if mask != 0 {
            cx.w64(mask, all)?;
        }
        ret(cx.k.procs.len() as u64)
    }
    [15] fn KeQueryActiveProcessorCountEx(cx, group: u16) {
        ret(if group == 0 || group == ALL_GROUPS { cx.k.procs.len() as u64 } else { 0 })
    }
    [15] fn KeQueryMaximumProcessorCount(cx) { ret(cx.k.procs.len() as u64) }
    [15] fn KeQueryMaximumProcessorCountEx(cx, group: u16) {
        ret(if group == 0 || group == ALL_GROUPS { cx.k.procs.len() as u64 } else { 0 })
    }
    [15] fn KeQueryActiveGroupCount(cx) { let _ = &cx; ret(1) }
    [15] fn KeQueryMaximumGroupCount(cx) { let _ = &cx; ret(1) }
    [15] fn KeQueryGroupAffinity(cx, group: u16) { ret(if group == 0 { active(cx) } else { 0 }) }
    [15] fn KeQueryHighestNodeNumber(cx) { let _ = &cx; ret(0) }

    [2] fn KeSetSystemAffinityThread(cx, mask: u64) { system_affinity(cx, mask) }
    [2] fn KeSetSystemAffinityThreadEx(cx, mask: u64) { system_affinity(cx, mask) }
    [2] fn KeRevertToUserAffinityThread(cx) { revert_affinity(cx) }
    [2] fn KeRevertToUserAffinityThreadEx(cx, mask: u64) {
        if mask == 0 { revert_affinity(cx) } else { set_affinity(cx, mask, 0) }
    }
    [2] fn KeGetCurrentThread(cx) { ret(current_kthread(cx)?) }
    [0] fn KeSetPriorityThread(cx, thread: u64, priority: i32) { set_priority(cx, thread, priority) }
    [2] fn KeQueryPriorityThread(cx, thread: u64) {
        let Some(id) = thread_at(cx, thread) else {
            return Err(cx.missing(format!("KeQueryPriorityThread of {thread:#x}, which is no thread")));
        };
        ret(cx.k.threads.get(&id).map_or(0, |t| u64::from(t.priority)))
    }
    [1] fn KeEnterCriticalRegion(cx) { change_region(cx, true) }
    [1] fn KeLeaveCriticalRegion(cx) { change_region(cx, false) }
    [1] fn KeEnterGuardedRegion(cx) { guarded_region(cx, true) }
    [1] fn KeLeaveGuardedRegion(cx) { guarded_region(cx, false) }
    [2] fn KeAreApcsDisabled(cx) {
        ret(u64::from(cx.k.current_thread(cx.cpu).is_some_and(|t| t.apc_disable > 0)))
    }
    [2] fn KeAreAllApcsDisabled(cx) {
        let guarded = cx.k.procs[cx.cpu].current.is_some_and(|id| cx.k.ke.guarded.contains_key(&id));
        ret(u64::from(guarded || cx.irql() >= 1))
    }

    // On x64 the floating point registers are the thread's own in kernel mode too, so there is nothing to save.
    [2] fn KeSaveFloatingPointState(cx, _save: u64) { let _ = &cx; ret(0) }
    [2] fn KeRestoreFloatingPointState(cx, _save: u64) { let _ = &cx; ret(0) }
    [2] fn KeSaveExtendedProcessorState(cx, mask: u64, _save: u64) {
        if mask & !3 != 0 {
            return Err(cx.missing(format!("KeSaveExtendedProcessorState for the features {mask:#x}")));
        }
        ret(0)
    }
    [2] fn KeRestoreExtendedProcessorState(cx, _save: u64) { let _ = &cx; void() }
    // x64 keeps caches coherent with DMA, so there is nothing to flush.
    [2] fn KeFlushIoBuffers(cx, _mdl: u64, _read: u8, _dma: u8) { let _ = &cx; void() }
}
