//! Work items: routines that run at PASSIVE_LEVEL on the kernel's worker threads.
//!
//! Workers are made when work waits and none is idle, and stay. Priorities of the queues (critical 13, delayed 12)
//! are left out: one queue, in order, on threads of priority 12.

use std::collections::VecDeque;

use crate::context::{Outcome, Result, Wait, ret, void};
use crate::cx::Cx;
use crate::dispatcher;
use crate::exports;
use crate::exports::ex::ExThen;
use crate::exports::ex_pool;
use crate::stop::Stop;
use crate::then::Then;

/// Most worker threads; work beyond them waits.
const MAX_WORKERS: u32 = 64;
/// Work queued at once; more is a driver out of control.
const MAX_QUEUED: usize = 1 << 16;
const WORKER_PRIORITY: u8 = 12;

/// IO_WORKITEM, whose layout is ours: the routine, the object, the context.
const IO_ROUTINE: u64 = 32;
const IO_OBJECT: u64 = 40;
const IO_CONTEXT: u64 = 48;
const IO_SIZE: u64 = 88;

/// Work that waits for a worker.
#[derive(Clone, Debug)]
pub struct Work {
    /// Address of the work item.
    pub item: u64,
    /// Routine to call.
    pub routine: u64,
    /// Its arguments.
    pub args: Vec<u64>,
}

/// The queue and its workers.
#[derive(Clone, Debug, Default)]
pub struct WorkQueue {
    /// Work in order.
    pub queue: VecDeque<Work>,
    /// Workers that wait.
    pub idle: u32,
    /// Workers there are.
    pub workers: u32,
    /// The semaphore they wait on; 0 until it is made.
    pub semaphore: u64,
}

/// Queues work and sees that a worker will take it.
pub(crate) fn queue(cx: &mut Cx<'_>, work: Work) -> Result {
    if cx.k.ke.work.queue.iter().any(|w| w.item == work.item) {
        return Err(Stop::bug_check(
            0xE4,
            [1, work.item, 0, 0],
            format!(
                "the work item at {:#x} was queued while it was queued already (WORKER_INVALID)",
                work.item
            ),
        ));
    }
    if cx.k.ke.work.queue.len() >= MAX_QUEUED {
        return Err(Stop::OutOfMemory);
    }
    if cx.k.ke.work.semaphore == 0 {
        let semaphore = ex_pool::kernel_block(cx, dispatcher::SEMAPHORE_SIZE)?;
        dispatcher::init_semaphore(cx, semaphore, 0, i32::MAX)?;
        cx.k.ke.work.semaphore = semaphore;
    }
    cx.k.ke.work.queue.push_back(work);
    let w = &cx.k.ke.work;
    if (w.idle as usize) < w.queue.len() && w.workers < MAX_WORKERS {
        cx.k.ke.work.workers += 1;
        cx.k.ke.work.idle += 1;
        crate::sched::spawn(cx, "system worker", Then::Ex(ExThen::WorkerNext), true, WORKER_PRIORITY)?;
    }
    let semaphore = cx.k.ke.work.semaphore;
    dispatcher::release_semaphore(cx, semaphore, 1)?;
    void()
}

/// A worker, already counted as idle, waits for work.
fn wait(cx: &Cx<'_>) -> Result {
    Ok(Outcome::Wait { wait: Wait::object(cx.k.ke.work.semaphore), then: Then::Ex(ExThen::WorkerGot) })
}

/// A worker begins: `queue` counted it as idle.
pub(crate) fn next(cx: &mut Cx<'_>) -> Result {
    wait(cx)
}

/// A worker was woken: the first work is its own. Without any, the routine it called has returned.
pub(crate) fn got(cx: &mut Cx<'_>) -> Result {
    cx.k.ke.work.idle = cx.k.ke.work.idle.saturating_sub(1);
    let Some(work) = cx.k.ke.work.queue.pop_front() else {
        cx.k.ke.work.idle += 1;
        return wait(cx);
    };
    Ok(Outcome::Call { routine: work.routine, args: work.args, then: Then::Ex(ExThen::WorkerDone) })
}

/// A work routine returned.
pub(crate) fn done(cx: &mut Cx<'_>) -> Result {
    if cx.irql() != 0 {
        let irql = u64::from(cx.irql());
        return Err(Stop::bug_check(
            0xE1,
            [0, irql, 0, 0],
            format!("a work routine returned at IRQL {irql} (WORKER_THREAD_RETURNED_AT_BAD_IRQL)"),
        ));
    }
    cx.k.ke.work.idle += 1;
    wait(cx)
}

fn queue_io(cx: &mut Cx<'_>, item: u64, routine: u64, context: u64, ex: bool) -> Result {
    let object = cx.r64(item + IO_OBJECT)?;
    cx.w64(item + IO_ROUTINE, routine)?;
    cx.w64(item + IO_CONTEXT, context)?;
    let args = if ex { vec![object, context, item] } else { vec![object, context] };
    queue(cx, Work { item, routine, args })
}

exports! {
    // WORK_QUEUE_ITEM: list entry, routine at 16, parameter at 24.
    [2] fn ExQueueWorkItem(cx, item: u64, kind: u32) {
        if kind > 2 {
            return Err(cx.missing(format!("ExQueueWorkItem on queue type {kind}")));
        }
        let routine = cx.r64(item + 16)?;
        let parameter = cx.r64(item + 24)?;
        queue(cx, Work { item, routine, args: vec![parameter] })
    }
    [2] fn IoAllocateWorkItem(cx, object: u64) {
        let item = match ex_pool::kernel_block(cx, IO_SIZE) {
            Ok(item) => item,
            Err(Stop::OutOfMemory) => return ret(0),
            Err(other) => return Err(other),
        };
        cx.w64(item + IO_OBJECT, object)?;
        ret(item)
    }
    [2] fn IoFreeWorkItem(cx, item: u64) {
        if cx.k.ke.work.queue.iter().any(|w| w.item == item) {
            return Err(Stop::bug_check(
                0xE4,
                [0, item, 0, 0],
                format!("the work item at {item:#x} was freed while it was queued (WORKER_INVALID)"),
            ));
        }
        ex_pool::free(cx, item, 0)?;
        void()
    }
    [2] fn IoSizeofWorkItem(cx) { let _ = &cx; ret(IO_SIZE) }
    [2] fn IoInitializeWorkItem(cx, object: u64, item: u64) {
        cx.put(item, &[0; IO_SIZE as usize])?;
        cx.w64(item + IO_OBJECT, object)?;
        void()
    }
    [2] fn IoUninitializeWorkItem(cx, item: u64) {
        if cx.k.ke.work.queue.iter().any(|w| w.item == item) {
            return Err(Stop::bug_check(0xE4, [0, item, 0, 0], "a work item was uninitialised while it was queued"));
        }
        void()
    }
    [2] fn IoQueueWorkItem(cx, item: u64, routine: u64, _kind: u32, context: u64) {
        queue_io(cx, item, routine, context, false)
    }
    [2] fn IoQueueWorkItemEx(cx, item: u64, routine: u64, _kind: u32, context: u64) {
        queue_io(cx, item, routine, context, true)
    }
}
