//! References to objects. Threads are counted; other objects live as long as their makers keep them.

use crate::context::{Result, ret};
use crate::cx::Cx;
use crate::exports;
use crate::exports::ke_cpu::{current_kthread, thread_at};
use crate::exports::ps::system_process;
use crate::stop::Stop;

const STATUS_INVALID_HANDLE: u64 = 0xC000_0008;
const STATUS_OBJECT_TYPE_MISMATCH: u64 = 0xC000_0024;
/// NtCurrentProcess() and NtCurrentThread().
const CURRENT_PROCESS: u64 = u64::MAX;
const CURRENT_THREAD: u64 = u64::MAX - 1;

fn reference(cx: &mut Cx<'_>, object: u64) -> Result {
    if thread_at(cx, object).is_none() {
        return ret(1);
    }
    let count = cx.k.ke.references.entry(object).or_default();
    *count = count.saturating_add(1);
    ret(*count)
}

fn dereference(cx: &mut Cx<'_>, object: u64) -> Result {
    if thread_at(cx, object).is_none() {
        return ret(1);
    }
    let count = cx.k.ke.references.entry(object).or_default();
    let Some(left) = count.checked_sub(1) else {
        return Err(Stop::bug_check(
            0x18,
            [0, object, 1, 0],
            format!(
                "the thread object at {object:#x} was dereferenced more often than referenced (REFERENCE_BY_POINTER)"
            ),
        ));
    };
    *count = left;
    ret(left)
}

/// Is `kind`, a POBJECT_TYPE, the type that the data export `name` holds (or not given)?
fn type_is(cx: &Cx<'_>, kind: u64, name: &str) -> std::result::Result<bool, Stop> {
    match cx.k.modules.export_address(name) {
        _ if kind == 0 => Ok(true),
        Some(at) => Ok(cx.r64(at)? == kind),
        None => Ok(false),
    }
}

fn by_handle(cx: &mut Cx<'_>, handle: u64, kind: u64, out: u64, info: u64) -> Result {
    let (object, name) = match handle {
        CURRENT_THREAD => (current_kthread(cx)?, "PsThreadType"),
        CURRENT_PROCESS => (system_process(cx)?, "PsProcessType"),
        _ => match cx.k.ke.handles.get(&handle).and_then(|id| cx.k.threads.get(id)) {
            Some(t) => (t.kthread, "PsThreadType"),
            None if cx.k.ke.event_handles.contains_key(&handle) => {
                (cx.k.ke.event_handles[&handle], "ExEventObjectType")
            }
            None => {
                cx.w64(out, 0)?;
                return ret(STATUS_INVALID_HANDLE);
            }
        },
    };
    if !type_is(cx, kind, name)? {
        cx.w64(out, 0)?;
        return ret(STATUS_OBJECT_TYPE_MISMATCH);
    }
    reference(cx, object)?;
    cx.w64(out, object)?;
    if info != 0 {
        // OBJECT_HANDLE_INFORMATION: attributes, then all access.
        cx.w32(info, 0)?;
        cx.w32(info + 4, 0x001f_ffff)?;
    }
    ret(0)
}

exports! {
    [0] fn ObReferenceObjectByHandle(cx, handle: u64, _access: u32, kind: u64, _mode: u8, out: u64, info: u64) {
        by_handle(cx, handle, kind, out, info)
    }
    [0] fn ObReferenceObjectByHandleWithTag(
        cx, handle: u64, _access: u32, kind: u64, _mode: u8, _tag: u32, out: u64, info: u64
    ) {
        by_handle(cx, handle, kind, out, info)
    }
    [2] fn ObfReferenceObject(cx, object: u64) { reference(cx, object) }
    [2] fn ObfReferenceObjectWithTag(cx, object: u64, _tag: u32) { reference(cx, object) }
    [2] fn ObfDereferenceObject(cx, object: u64) { dereference(cx, object) }
    [2] fn ObfDereferenceObjectWithTag(cx, object: u64, _tag: u32) { dereference(cx, object) }
    [2] fn ObDereferenceObjectDeferDelete(cx, object: u64) { dereference(cx, object) }
    [2] fn ObReferenceObjectByPointer(cx, object: u64, _access: u32, kind: u64, _mode: u8) {
        if thread_at(cx, object).is_some() && !type_is(cx, kind, "PsThreadType")? {
            return ret(STATUS_OBJECT_TYPE_MISMATCH);
        }
        reference(cx, object)?;
        ret(0)
    }
    [2] fn ObReferenceObjectByPointerWithTag(cx, object: u64, _access: u32, kind: u64, _mode: u8, _tag: u32) {
        if thread_at(cx, object).is_some() && !type_is(cx, kind, "PsThreadType")? {
            return ret(STATUS_OBJECT_TYPE_MISMATCH);
        }
        reference(cx, object)?;
        ret(0)
    }
}
