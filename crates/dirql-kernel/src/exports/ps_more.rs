//! Processes as a driver sees them where there is only one, and what it may ask of the system.

use crate::context::{Outcome, Result, Wait, ret, void};
use crate::cx::Cx;
use crate::exports;
use crate::exports::ex_pool::kernel_block;
use crate::exports::ke_cpu::thread_at;
use crate::exports::ps::{SYSTEM_PID, system_process, tid};
use crate::then::Then;
use crate::timer::{BOOT_TIME, TIME_INCREMENT, system_time};

const INVALID_CID: u64 = 0xC000_000B;
const INFO_LENGTH_MISMATCH: u64 = 0xC000_0004;
const NO_YIELD_PERFORMED: u64 = 0x4000_0024;

fn only_system(cx: &Cx<'_>, process: u64, what: &str) -> std::result::Result<(), crate::stop::Stop> {
    if process == system_process(cx)? {
        Ok(())
    } else {
        Err(cx.missing(format!("{what} of {process:#x}, which is not the System process")))
    }
}

/// SYSTEM_BASIC_INFORMATION or SYSTEM_TIMEOFDAY_INFORMATION.
fn system_information(cx: &mut Cx<'_>, class: u32, buffer: u64, length: u32, needed: u64) -> Result {
    let mut data = vec![];
    let u32s = |data: &mut Vec<u8>, values: &[u64]| {
        for v in values {
            data.extend((*v as u32).to_le_bytes());
        }
    };
    let cpus = cx.k.procs.len() as u64;
    match class {
        0 => {
            let pages = cx.m.config().ram / 0x1000;
            u32s(&mut data, &[0, TIME_INCREMENT, 0x1000, pages, 0x100, pages, 0x1_0000, 0]);
            let mask = if cpus >= 64 { u64::MAX } else { (1 << cpus) - 1 };
            for v in [0x1_0000, 0x7FFF_FFFE_FFFF, mask, cpus] {
                data.extend(v.to_le_bytes());
            }
        }
        3 => {
            for v in [BOOT_TIME, system_time(cx), 0, 0, 0, 0] {
                data.extend(v.to_le_bytes());
            }
        }
        other => return Err(cx.missing(format!("ZwQuerySystemInformation: information class {other}"))),
    }
    if needed != 0 {
        cx.w32(needed, data.len() as u32)?;
    }
    if (length as usize) < data.len() {
        return ret(INFO_LENGTH_MISMATCH);
    }
    cx.put(buffer, &data)?;
    ret(0)
}

exports! {
    [0] fn PsLookupProcessByProcessId(cx, id: u64, out: u64) {
        if id != SYSTEM_PID {
            return ret(INVALID_CID);
        }
        let process = system_process(cx)?;
        cx.w64(out, process)?;
        ret(0)
    }
    [0] fn PsLookupThreadByThreadId(cx, id: u64, out: u64) {
        let found = cx.k.threads.values().find(|t| tid(t.id) == id).map(|t| t.kthread);
        let Some(thread) = found else { return ret(INVALID_CID) };
        let count = cx.k.ke.references.entry(thread).or_default();
        *count = count.saturating_add(1);
        cx.w64(out, thread)?;
        ret(0)
    }
    // There is no other address space to attach to.
    [2] fn KeStackAttachProcess(cx, process: u64, state: u64) {
        only_system(cx, process, "KeStackAttachProcess")?;
        cx.put(state, &[0; 48])?;
        void()
    }
    [2] fn KeUnstackDetachProcess(_cx, _state: u64) { void() }
    [2] fn KeAttachProcess(cx, process: u64) {
        only_system(cx, process, "KeAttachProcess")?;
        void()
    }
    [2] fn KeDetachProcess(_cx) { void() }
    [2] fn PsGetProcessImageFileName(cx, process: u64) {
        only_system(cx, process, "PsGetProcessImageFileName")?;
        if let Some(&at) = cx.k.ke.singletons.get("system name") {
            return ret(at);
        }
        let at = kernel_block(cx, 16)?;
        cx.put(at, b"System\0\0\0\0\0\0\0\0\0\0")?;
        cx.k.ke.singletons.insert("system name", at);
        ret(at)
    }
    // The System process has no user part.
    [2] fn PsGetProcessPeb(cx, process: u64) {
        only_system(cx, process, "PsGetProcessPeb")?;
        ret(0)
    }
    [2] fn PsGetProcessWow64Process(cx, process: u64) {
        only_system(cx, process, "PsGetProcessWow64Process")?;
        ret(0)
    }
    [2] fn PsGetProcessSessionId(cx, process: u64) {
        only_system(cx, process, "PsGetProcessSessionId")?;
        ret(0)
    }
    [2] fn PsGetCurrentProcessSessionId(_cx) { ret(0) }
    [2] fn PsGetThreadProcess(cx, thread: u64) {
        if thread_at(cx, thread).is_none() {
            return Err(cx.missing(format!("PsGetThreadProcess of {thread:#x}, which is no thread")));
        }
        ret(system_process(cx)?)
    }
    [2] fn PsGetThreadProcessId(cx, thread: u64) {
        if thread_at(cx, thread).is_none() {
            return Err(cx.missing(format!("PsGetThreadProcessId of {thread:#x}, which is no thread")));
        }
        ret(SYSTEM_PID)
    }
    [0] fn ZwQuerySystemInformation(cx, class: u32, buffer: u64, length: u32, needed: u64) {
        system_information(cx, class, buffer, length, needed)
    }
    [0] fn NtQuerySystemInformation(cx, class: u32, buffer: u64, length: u32, needed: u64) {
        system_information(cx, class, buffer, length, needed)
    }
    [0] fn ZwYieldExecution(cx) {
        let mine = cx.k.current_thread(cx.cpu).map_or(0, |t| usize::from(t.priority));
        if cx.k.ready.iter().skip(mine).all(std::collections::VecDeque::is_empty) {
            return ret(NO_YIELD_PERFORMED);
        }
        let wait = Wait::until(cx.now() + 1);
        Ok(Outcome::Wait { wait, then: Then::RetValue(0) })
    }
}
