//! Threads and processes. There is one process, System.

use dirql_event::EventKind;

use crate::context::{Outcome, Result, ret};
use crate::cx::Cx;
use crate::exports;
use crate::exports::ke::KeThen;
use crate::exports::ke_cpu::{current_kthread, thread_at};
use crate::stop::Stop;
use crate::then::Then;

/// Identity of the System process.
pub(crate) const SYSTEM_PID: u64 = 4;
/// NtCurrentProcess().
const CURRENT_PROCESS: u64 = u64::MAX;
/// Normal priority of a system thread.
const NORMAL: u8 = 8;

/// Address of the System process's object.
pub(crate) fn system_process(cx: &Cx<'_>) -> std::result::Result<u64, Stop> {
    match cx.k.modules.export_address("PsInitialSystemProcess") {
        Some(at) => cx.r64(at),
        None => Err(cx.missing("the System process object")),
    }
}

/// A thread's identity as its CLIENT_ID has it.
pub(crate) fn tid(id: u32) -> u64 {
    // The System process has 4, and the first thread must not share it.
    4 * (u64::from(id) + 2)
}

fn process(cx: &Cx<'_>) -> Result {
    ret(system_process(cx)?)
}

exports! {
    [0] fn PsCreateSystemThread(
        cx, handle: u64, _access: u32, _attributes: u64, process: u64, client: u64, routine: u64, context: u64
    ) {
        if process != 0 && process != CURRENT_PROCESS {
            return Err(cx.missing("PsCreateSystemThread in another process"));
        }
        let name = format!("system thread {}", cx.k.modules.describe(routine));
        let start = Then::Ke(KeThen::ThreadStart { routine, context });
        let id = match crate::sched::spawn(cx, &name, start, false, NORMAL) {
            Ok(id) => id,
            // STATUS_INSUFFICIENT_RESOURCES.
            Err(Stop::OutOfMemory) => return ret(0xC000_009A),
            Err(other) => return Err(other),
        };
        let Some(h) = cx.k.ke.open_thread_handle(id) else { return Err(Stop::OutOfMemory) };
        cx.w64(handle, h)?;
        if client != 0 {
            cx.w64(client, SYSTEM_PID)?;
            cx.w64(client + 8, tid(id))?;
        }
        cx.event(EventKind::ThreadStart { thread: u64::from(id), routine });
        ret(0)
    }
    [0] fn PsTerminateSystemThread(cx, status: u32) {
        if cx.k.current_thread(cx.cpu).is_none_or(|t| t.native) {
            // STATUS_INVALID_PARAMETER: not a system thread of the driver.
            return ret(0xC000_000D);
        }
        crate::sched::terminate_current(cx, status)?;
        Ok(Outcome::End)
    }
    [2] fn PsGetCurrentThread(cx) { ret(current_kthread(cx)?) }
    [2] fn PsGetCurrentThreadId(cx) { ret(cx.k.current_thread(cx.cpu).map_or(0, |t| tid(t.id))) }
    [2] fn PsGetThreadId(cx, thread: u64) {
        match thread_at(cx, thread) {
            Some(id) => ret(tid(id)),
            None => Err(cx.missing(format!("PsGetThreadId of {thread:#x}, which is no thread"))),
        }
    }
    [2] fn PsGetCurrentProcess(cx) { process(cx) }
    [2] fn IoGetCurrentProcess(cx) { process(cx) }
    [2] fn PsGetCurrentProcessId(cx) { let _ = &cx; ret(SYSTEM_PID) }
    [2] fn PsGetProcessId(cx, object: u64) {
        if object != system_process(cx)? {
            return Err(cx.missing(format!("PsGetProcessId of {object:#x}, which is no process")));
        }
        ret(SYSTEM_PID)
    }
    [2] fn PsIsSystemThread(cx, thread: u64) { ret(u64::from(thread_at(cx, thread).is_some())) }
    [2] fn PsIsThreadTerminating(cx, thread: u64) {
        let id = thread_at(cx, thread);
        let ended = id.and_then(|id| cx.k.threads.get(&id)).map(|t| t.state == crate::thread::ThreadState::Terminated);
        ret(u64::from(ended.unwrap_or(true)))
    }
    // A free build: FALSE, which is also what a driver gets with no pointers at all.
    [0] fn PsGetVersion(cx, major: u64, minor: u64, build: u64, csd: u64) {
        let number = cx.k.windows_build;
        let version = crate::windows::version(number);
        for (at, value) in [(major, version.major), (minor, version.minor), (build, number)] {
            if at != 0 {
                cx.w32(at, value)?;
            }
        }
        if csd != 0 {
            // An empty UNICODE_STRING: no service pack named.
            cx.w16(csd, 0)?;
        }
        ret(0)
    }
}
