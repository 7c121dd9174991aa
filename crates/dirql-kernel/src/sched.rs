//! The scheduler: ready queues, waits and wake-ups. Threads are data; a switch copies registers.

use dirql_mem::Prot;
use dirql_x86::Regs;

use crate::context::{Frame, Wait};
use crate::cx::Cx;
use crate::dispatcher;
use crate::kernel::Kernel;
use crate::loader::RETURN_GATE;
use crate::stop::Stop;
use crate::then::Then;
use crate::thread::{Thread, ThreadState};

/// Pages of a kernel stack (24 KiB, as on x64 Windows), with an unmapped guard page on each side.
pub(crate) const STACK_PAGES: usize = 6;
/// Length of a quantum in virtual nanoseconds: one clock tick, 15.625 ms, is what Windows gives a thread at least.
pub(crate) const QUANTUM_NS: u64 = 15_625_000;
/// Highest number of threads alive at once; more is a driver out of control.
const MAX_THREADS: usize = 4096;
/// STATUS_TIMEOUT.
const STATUS_TIMEOUT: u64 = 0x102;
/// Size given to a guest KTHREAD; drivers treat it as opaque but for its dispatcher header.
const KTHREAD_SIZE: u64 = 0x480;
const DISPATCHER_THREAD: u8 = 6;

/// Makes a stack and gives its lowest and highest address.
pub(crate) fn new_stack(cx: &mut Cx<'_>) -> Result<(u64, u64), Stop> {
    let low = cx.k.modules.reserve((STACK_PAGES + 2) as u64 * 0x1000) + 0x1000;
    let pa = cx.m.mem.alloc_frames(STACK_PAGES)?;
    cx.m.mem.map_ram(dirql_mem::Va(low), pa, STACK_PAGES, Prot::READ | Prot::WRITE);
    Ok((low, low + STACK_PAGES as u64 * 0x1000))
}

/// Starts a thread that begins with the continuation `start`. It is ready at once.
pub(crate) fn spawn(
    cx: &mut Cx<'_>,
    name: &str,
    start: Then,
    native: bool,
    priority: u8,
) -> Result<u32, Stop> {
    if cx.k.threads.values().filter(|t| t.state != ThreadState::Terminated).count() >= MAX_THREADS {
        return Err(Stop::OutOfMemory);
    }
    let stack = new_stack(cx)?;
    let kthread = cx.k.pool.alloc(
        &mut cx.m.mem,
        KTHREAD_SIZE,
        crate::pool::PoolKind::NonPaged,
        u32::from_le_bytes(*b"Thre"),
    )?;
    cx.w8(kthread, DISPATCHER_THREAD)?;
    cx.w32(kthread + 4, 0)?;
    cx.w64(kthread + 8, kthread + 8)?;
    cx.w64(kthread + 16, kthread + 8)?;
    let id = cx.k.next_thread;
    cx.k.next_thread += 1;
    let mut regs = Regs::default();
    regs.gpr[4] = stack.1 - 0x28;
    regs.rip = RETURN_GATE;
    regs.rflags = 0x202;
    regs.mxcsr = 0x1f80;
    cx.k.threads.insert(
        id,
        Thread {
            id,
            name: name.to_owned(),
            kthread,
            regs,
            irql: 0,
            state: ThreadState::Ready,
            priority: priority.min(31),
            affinity: u64::MAX,
            frames: vec![Frame { then: start, rsp: None }],
            call_rsp: None,
            wait_then: None,
            apc_disable: 0,
            stack,
            native,
            exit_status: 0,
        },
    );
    cx.k.ready[usize::from(priority.min(31))].push_back(id);
    Ok(id)
}

/// Wakes the threads whose wait `object` may satisfy, in the order they began to wait.
pub(crate) fn wake_waiters(cx: &mut Cx<'_>, object: u64) -> Result<(), Stop> {
    let waiting: Vec<u32> = cx
        .k
        .waiters
        .iter()
        .copied()
        .filter(|id| {
            matches!(cx.k.threads.get(id).map(|t| &t.state), Some(ThreadState::Waiting(w)) if w.objects.contains(&object))
        })
        .collect();
    for id in waiting {
        let Some(ThreadState::Waiting(wait)) = cx.k.threads.get(&id).map(|t| t.state.clone()) else {
            continue;
        };
        if let Some(status) = dispatcher::try_satisfy(cx, &wait, id)? {
            ready(cx.k, id, u64::from(status));
        }
    }
    Ok(())
}

/// Ends a thread's wait: it goes on with `status` when it next runs.
pub(crate) fn ready(k: &mut Kernel, id: u32, status: u64) {
    k.waiters.retain(|&w| w != id);
    if let Some(t) = k.threads.get_mut(&id) {
        let then = t.wait_then.take().unwrap_or(Then::Ret);
        t.frames.push(Frame { then, rsp: t.call_rsp.take() });
        t.regs.rip = RETURN_GATE;
        t.regs.gpr[0] = status;
        t.state = ThreadState::Ready;
        let priority = usize::from(t.priority);
        k.ready[priority].push_back(id);
    }
}

/// Is a native wait (IRP, DPC fence, ISR fence) over?
fn native_over(cx: &Cx<'_>, wait: &Wait) -> bool {
    if let Some(irp) = wait.irp {
        return cx.k.io.completed.contains_key(&irp);
    }
    if let Some(fence) = wait.dpc_fence {
        return crate::interrupt::dpc_fence_passed(cx.k, fence);
    }
    if let Some(set) = wait.isr_fence {
        return !crate::interrupt::set_running(cx.k, set);
    }
    false
}

/// Blocks the current thread of `cx.cpu`. The wait may already be over; then the thread is ready again at once.
pub(crate) fn block(cx: &mut Cx<'_>, wait: Wait, then: Then) -> Result<(), Stop> {
    let Some(id) = cx.k.procs[cx.cpu].current else {
        return Err(Stop::Internal("a wait outside any thread".into()));
    };
    if !cx.k.procs[cx.cpu].nest.is_empty() || cx.irql() >= 2 {
        return Err(Stop::bug_check(
            0xB8,
            [0, 0, 0, 0],
            "a wait at DISPATCH_LEVEL or above (in a DPC, an ISR, or with a spin lock held)",
        ));
    }
    let now = cx.now();
    let status = if native_over(cx, &wait) { Some(0) } else { dispatcher::try_satisfy(cx, &wait, id)? };
    let status = match status {
        Some(s) => Some(u64::from(s)),
        None if wait.deadline.is_some_and(|d| d <= now) => Some(STATUS_TIMEOUT),
        None => None,
    };
    let cpu = cx.cpu;
    if let Some(status) = status {
        // Over already: no switch, go on through the return gate.
        let regs = &mut cx.m.cpus[cpu].regs;
        regs.rip = RETURN_GATE;
        regs.gpr[0] = status;
        if let Some(t) = cx.k.threads.get_mut(&id) {
            let rsp = t.call_rsp.take();
            t.frames.push(Frame { then, rsp });
        }
        return Ok(());
    }
    save_current(cx);
    if let Some(t) = cx.k.threads.get_mut(&id) {
        t.state = ThreadState::Waiting(wait);
        t.wait_then = Some(then);
    }
    cx.k.waiters.push(id);
    cx.k.procs[cpu].current = None;
    Ok(())
}

/// Ends waits that time or other parts of the kernel satisfied.
pub(crate) fn poll_waits(cx: &mut Cx<'_>) -> Result<(), Stop> {
    let now = cx.now();
    let mut i = 0;
    while i < cx.k.waiters.len() {
        let id = cx.k.waiters[i];
        let Some(ThreadState::Waiting(wait)) = cx.k.threads.get(&id).map(|t| &t.state) else {
            cx.k.waiters.remove(i);
            continue;
        };
        let over = if native_over(cx, wait) {
            Some(0)
        } else if wait.deadline.is_some_and(|d| d <= now) {
            let delay = wait.objects.is_empty();
            Some(if delay { 0 } else { STATUS_TIMEOUT })
        } else {
            None
        };
        match over {
            Some(status) => ready(cx.k, id, status),
            None => i += 1,
        }
    }
    Ok(())
}

/// Earliest deadline of a wait, in virtual nanoseconds.
pub(crate) fn next_deadline(k: &Kernel) -> Option<u64> {
    k.waiters
        .iter()
        .filter_map(|id| match k.threads.get(id).map(|t| &t.state) {
            Some(ThreadState::Waiting(w)) => w.deadline,
            _ => None,
        })
        .min()
}

/// Copies the processor's registers back into its current thread.
pub(crate) fn save_current(cx: &mut Cx<'_>) {
    let cpu = cx.cpu;
    if let Some(t) = cx.k.procs[cpu].current.and_then(|id| cx.k.threads.get_mut(&id)) {
        t.regs = cx.m.cpus[cpu].regs.clone();
        t.irql = cx.m.cpus[cpu].cr8;
    }
}

/// Ends the current thread and signals its object.
pub(crate) fn terminate_current(cx: &mut Cx<'_>, status: u32) -> Result<(), Stop> {
    let cpu = cx.cpu;
    let Some(id) = cx.k.procs[cpu].current.take() else { return Ok(()) };
    let Some(t) = cx.k.threads.get_mut(&id) else { return Ok(()) };
    t.state = ThreadState::Terminated;
    t.exit_status = status;
    t.frames.clear();
    let (kthread, native) = (t.kthread, t.native);
    cx.w32(kthread + 4, 1)?;
    if !native {
        cx.event(dirql_event::EventKind::ThreadEnd { thread: u64::from(id) });
    }
    wake_waiters(cx, kthread)
}

/// The best ready thread for a processor: its priority and its place in that queue.
pub(crate) fn ready_for(k: &Kernel, cpu: usize) -> Option<(usize, usize)> {
    (0..32).rev().find_map(|p| {
        let at =
            k.ready[p].iter().position(|id| k.threads.get(id).is_some_and(|t| t.affinity >> cpu & 1 == 1))?;
        Some((p, at))
    })
}

/// Gives the processor to the best ready thread when that beats the current one. Call at IRQL below DISPATCH_LEVEL
/// with no activation in progress.
pub(crate) fn reschedule(cx: &mut Cx<'_>) {
    let cpu = cx.cpu;
    let now = cx.now();
    let current = cx.k.current_thread(cpu).map(|t| t.priority);
    let Some((p, at)) = ready_for(cx.k, cpu) else { return };
    match current {
        Some(c) if (c as usize) > p => return,
        // Equal priority: round robin when the quantum is over.
        Some(c) if (c as usize) == p && now < cx.k.procs[cpu].quantum_end => return,
        _ => {}
    }
    let Some(id) = cx.k.ready[p].remove(at) else { return };
    if let Some(old) = cx.k.procs[cpu].current {
        save_current(cx);
        if let Some(t) = cx.k.threads.get_mut(&old) {
            t.state = ThreadState::Ready;
            let priority = usize::from(t.priority);
            cx.k.ready[priority].push_back(old);
        }
    }
    if let Some(t) = cx.k.threads.get_mut(&id) {
        t.state = ThreadState::Running(cpu);
        let (regs, irql, kthread) = (t.regs.clone(), t.irql, t.kthread);
        cx.m.cpus[cpu].regs = regs;
        cx.m.cpus[cpu].cr8 = irql;
        let kpcr = cx.k.procs[cpu].kpcr;
        // KPCR.Prcb.CurrentThread, which compilers inline as gs:[188h].
        let _ = cx.w64(kpcr + 0x188, kthread);
    }
    cx.k.procs[cpu].current = Some(id);
    cx.k.procs[cpu].quantum_end = now + QUANTUM_NS;
}
