//! Callback objects and push locks.
//!
//! The system's own callback objects exist and are never notified: it does not change power source, processors or the
//! time. A push lock is a word in the driver's memory: bit 0 is the exclusive owner, the count of shared ones is above
//! bit 3; waiters are the scheduler's, and one that was woken tries again.

use crate::context::{Outcome, Result, Wait, ret, void};
use crate::cx::Cx;
use crate::dispatcher;
use crate::exports;
use crate::exports::ex::{ExThen, event_for};
use crate::exports::ex_pool::kernel_block;
use crate::io::read_unicode;
use crate::stop::Stop;
use crate::then::Then;

const NAME_NOT_FOUND: u64 = 0xC000_0034;
const NAME_COLLISION: u64 = 0xC000_0035;
const EXCLUSIVE: u64 = 1;
const SHARED: u64 = 16;
/// Registrations of one object; more is a driver out of control.
const MAX_REGISTRATIONS: usize = 4096;
const SYSTEM: [&str; 3] = ["\\callback\\powerstate", "\\callback\\setsystemtime", "\\callback\\processoradd"];

/// A callback object.
#[derive(Clone, Debug)]
pub struct Callback {
    name: String,
    multiple: bool,
    list: Vec<(u64, u64, u64)>,
}

/// Calls the rest of a callback object's routines, in the order they were registered.
pub(crate) fn notify(cx: &mut Cx<'_>, mut rest: Vec<(u64, u64)>, a: u64, b: u64) -> Result {
    if rest.is_empty() {
        let _ = &cx;
        return void();
    }
    let (routine, context) = rest.remove(0);
    Ok(Outcome::Call { routine, args: vec![context, a, b], then: Then::Ex(ExThen::Notify { rest, a, b }) })
}

/// Takes a push lock, or waits for it.
pub(crate) fn acquire(cx: &mut Cx<'_>, lock: u64, shared: bool) -> Result {
    let word = cx.r64(lock)?;
    let free = if shared { word & EXCLUSIVE == 0 } else { word == 0 };
    if free {
        cx.w64(lock, if shared { word + SHARED } else { EXCLUSIVE })?;
        return void();
    }
    let event = event_for(cx, lock)?;
    cx.w32(event + dispatcher::SIGNAL, 0)?;
    Ok(Outcome::Wait { wait: Wait::object(event), then: Then::Ex(ExThen::PushLock { lock, shared }) })
}

fn release(cx: &mut Cx<'_>, lock: u64, shared: bool) -> Result {
    let word = cx.r64(lock)?;
    let held = if shared { word >= SHARED } else { word & EXCLUSIVE != 0 };
    if !held {
        return Err(Stop::bug_check(
            0x1E,
            [0xC000_000D, cx.caller(), lock, word],
            format!("the push lock at {lock:#x} was released and was not held"),
        ));
    }
    let left = if shared { word - SHARED } else { word & !EXCLUSIVE };
    cx.w64(lock, left)?;
    if left == 0
        && let Some(&event) = cx.k.ke.events.get(&lock)
    {
        dispatcher::set_event(cx, event)?;
    }
    void()
}

exports! {
    [0] fn ExCreateCallback(cx, out: u64, attributes: u64, create: u8, multiple: u8) {
        let at = cx.r64(attributes + 16)?;
        let name = if at == 0 { String::new() } else { read_unicode(cx, at)?.to_lowercase() };
        let found = cx.k.ke.callbacks.iter().find(|(_, c)| !name.is_empty() && c.name == name).map(|(&at, _)| at);
        if let Some(at) = found {
            cx.w64(out, at)?;
            return ret(0);
        }
        let system = SYSTEM.contains(&name.as_str());
        if create == 0 && !system {
            return ret(NAME_NOT_FOUND);
        }
        if cx.k.ke.callbacks.len() >= MAX_REGISTRATIONS {
            return ret(NAME_COLLISION);
        }
        let at = kernel_block(cx, 64)?;
        cx.k.ke.callbacks.insert(at, Callback { name, multiple: multiple != 0 || system, list: vec![] });
        cx.w64(out, at)?;
        ret(0)
    }
    [1] fn ExRegisterCallback(cx, object: u64, routine: u64, context: u64) {
        let Some(c) = cx.k.ke.callbacks.get(&object) else {
            return Err(cx.missing(format!("ExRegisterCallback with {object:#x}, which is no callback object")));
        };
        if (!c.multiple && !c.list.is_empty()) || c.list.len() >= MAX_REGISTRATIONS {
            return ret(0);
        }
        let handle = kernel_block(cx, 64)?;
        if let Some(c) = cx.k.ke.callbacks.get_mut(&object) {
            c.list.push((handle, routine, context));
        }
        ret(handle)
    }
    [1] fn ExUnregisterCallback(cx, handle: u64) {
        for c in cx.k.ke.callbacks.values_mut() {
            c.list.retain(|r| r.0 != handle);
        }
        crate::io::free(cx, handle)?;
        void()
    }
    [2] fn ExNotifyCallback(cx, object: u64, a: u64, b: u64) {
        let list = cx.k.ke.callbacks.get(&object).map(|c| c.list.iter().map(|r| (r.1, r.2)).collect());
        match list {
            Some(list) => notify(cx, list, a, b),
            None => Err(cx.missing(format!("ExNotifyCallback with {object:#x}, which is no callback object"))),
        }
    }

    [15] fn ExInitializePushLock(cx, lock: u64) {
        cx.w64(lock, 0)?;
        void()
    }
    [1] fn ExAcquirePushLockExclusiveEx(cx, lock: u64, _flags: u32) { acquire(cx, lock, false) }
    [1] fn ExAcquirePushLockSharedEx(cx, lock: u64, _flags: u32) { acquire(cx, lock, true) }
    [1] fn ExReleasePushLockExclusiveEx(cx, lock: u64, _flags: u32) { release(cx, lock, false) }
    [1] fn ExReleasePushLockSharedEx(cx, lock: u64, _flags: u32) { release(cx, lock, true) }
    [1] fn ExReleasePushLockEx(cx, lock: u64, _flags: u32) {
        let shared = cx.r64(lock)? & EXCLUSIVE == 0;
        release(cx, lock, shared)
    }
}
