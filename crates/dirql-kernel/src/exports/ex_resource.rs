//! Executive resources (ERESOURCE): many readers or one writer, recursive.
//!
//! The 104 bytes in guest memory are opaque to drivers; the owners are kept outside. A thread that waits for exclusive
//! access holds new readers off, but for the routine that is documented to starve it.

use std::collections::BTreeMap;

use crate::context::{Outcome, Result, Wait, ret, void};
use crate::cx::Cx;
use crate::dispatcher;
use crate::exports;
use crate::exports::ex::{ExThen, event_for};
use crate::stop::Stop;
use crate::then::Then;

/// Size of ERESOURCE on x64.
const SIZE: usize = 104;

/// Who owns a resource.
#[derive(Clone, Debug, Default)]
pub struct Resource {
    /// The thread with exclusive access and how often it has it.
    pub exclusive: Option<(u32, u32)>,
    /// Threads with shared access and how often.
    pub shared: BTreeMap<u32, u32>,
    /// Threads that wait for exclusive access.
    pub waiting_exclusive: u32,
}

/// An acquisition in progress.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Address of the ERESOURCE.
    pub at: u64,
    /// How.
    pub mode: Mode,
    /// It waits already.
    pub waiting: bool,
}

/// How a resource is acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For writing.
    Exclusive,
    /// For reading, behind waiting writers.
    Shared,
    /// For reading, past waiting writers.
    StarveExclusive,
}

fn thread(cx: &Cx<'_>) -> std::result::Result<u32, Stop> {
    cx.k.current_thread(cx.cpu)
        .map(|t| t.id)
        .ok_or_else(|| cx.missing("a resource acquired outside any thread"))
}

fn unknown(cx: &Cx<'_>, at: u64) -> Stop {
    Stop::bug_check(
        0xE3,
        [at, cx.caller(), 0, 2],
        format!("the resource at {at:#x} is used and was not initialised, or was deleted"),
    )
}

fn acquire(cx: &mut Cx<'_>, at: u64, mode: Mode, wait: bool) -> Result {
    let me = thread(cx)?;
    let Some(r) = cx.k.ke.resources.get_mut(&at) else { return Err(unknown(cx, at)) };
    if try_acquire(r, me, mode) {
        return ret(1);
    }
    if !wait {
        return ret(0);
    }
    if mode == Mode::Exclusive {
        r.waiting_exclusive = r.waiting_exclusive.saturating_add(1);
    }
    wait_again(cx, Request { at, mode, waiting: true })
}

fn try_acquire(r: &mut Resource, me: u32, mode: Mode) -> bool {
    match (&mut r.exclusive, mode) {
        (Some((owner, count)), _) if *owner == me => {
            *count = count.saturating_add(1);
            true
        }
        (Some(_), _) => false,
        (None, Mode::Exclusive) => {
            let free = r.shared.is_empty();
            if free {
                r.exclusive = Some((me, 1));
            }
            free
        }
        (None, _) => {
            let free =
                r.waiting_exclusive == 0 || mode == Mode::StarveExclusive || r.shared.contains_key(&me);
            if free {
                *r.shared.entry(me).or_default() += 1;
            }
            free
        }
    }
}

fn wait_again(cx: &mut Cx<'_>, request: Request) -> Result {
    let event = event_for(cx, request.at)?;
    cx.w32(event + dispatcher::SIGNAL, 0)?;
    Ok(Outcome::Wait { wait: Wait::object(event), then: Then::Ex(ExThen::Resource(request)) })
}

/// The resource was released: try again.
pub(crate) fn resume(cx: &mut Cx<'_>, request: Request) -> Result {
    let me = thread(cx)?;
    let Some(r) = cx.k.ke.resources.get_mut(&request.at) else { return Err(unknown(cx, request.at)) };
    if !try_acquire(r, me, request.mode) {
        return wait_again(cx, request);
    }
    if request.waiting && request.mode == Mode::Exclusive {
        r.waiting_exclusive = r.waiting_exclusive.saturating_sub(1);
    }
    ret(1)
}

fn release(cx: &mut Cx<'_>, at: u64, me: u32) -> Result {
    let Some(r) = cx.k.ke.resources.get_mut(&at) else { return Err(unknown(cx, at)) };
    let owned = if let Some((owner, count)) = &mut r.exclusive
        && *owner == me
    {
        *count -= 1;
        if *count == 0 {
            r.exclusive = None;
        }
        true
    } else if let Some(count) = r.shared.get_mut(&me) {
        *count -= 1;
        if *count == 0 {
            r.shared.remove(&me);
        }
        true
    } else {
        false
    };
    if !owned {
        return Err(Stop::bug_check(
            0xE3,
            [at, u64::from(me), 0, 3],
            format!(
                "the resource at {at:#x} was released by a thread that does not own it (RESOURCE_NOT_OWNED)"
            ),
        ));
    }
    if r.exclusive.is_none() {
        signal(cx, at)?;
    }
    void()
}

/// Lets every waiter try again.
fn signal(cx: &mut Cx<'_>, at: u64) -> std::result::Result<(), Stop> {
    let event = event_for(cx, at)?;
    dispatcher::set_event(cx, event)?;
    Ok(())
}

exports! {
    [2] fn ExInitializeResourceLite(cx, at: u64) {
        cx.put(at, &[0; SIZE])?;
        cx.k.ke.resources.insert(at, Resource::default());
        ret(0)
    }
    [2] fn ExDeleteResourceLite(cx, at: u64) {
        if cx.k.ke.resources.remove(&at).is_none() {
            return Err(unknown(cx, at));
        }
        ret(0)
    }
    [1] fn ExAcquireResourceExclusiveLite(cx, at: u64, wait: u8) { acquire(cx, at, Mode::Exclusive, wait != 0) }
    [1] fn ExAcquireResourceSharedLite(cx, at: u64, wait: u8) { acquire(cx, at, Mode::Shared, wait != 0) }
    [1] fn ExAcquireSharedWaitForExclusive(cx, at: u64, wait: u8) { acquire(cx, at, Mode::Shared, wait != 0) }
    [1] fn ExAcquireSharedStarveExclusive(cx, at: u64, wait: u8) {
        acquire(cx, at, Mode::StarveExclusive, wait != 0)
    }
    [2] fn ExReleaseResourceLite(cx, at: u64) {
        let me = thread(cx)?;
        release(cx, at, me)
    }
    [2] fn ExConvertExclusiveToSharedLite(cx, at: u64) {
        let me = thread(cx)?;
        let Some(r) = cx.k.ke.resources.get_mut(&at) else { return Err(unknown(cx, at)) };
        let Some((owner, count)) = r.exclusive.take_if(|e| e.0 == me) else {
            return Err(Stop::bug_check(0xE3, [at, u64::from(me), 0, 3], "a resource converted by a thread that does not own it"));
        };
        r.shared.insert(owner, count);
        signal(cx, at)?;
        void()
    }
    [2] fn ExIsResourceAcquiredExclusiveLite(cx, at: u64) {
        let me = thread(cx)?;
        let Some(r) = cx.k.ke.resources.get(&at) else { return Err(unknown(cx, at)) };
        ret(u64::from(r.exclusive.is_some_and(|e| e.0 == me)))
    }
    [2] fn ExIsResourceAcquiredSharedLite(cx, at: u64) {
        let me = thread(cx)?;
        let Some(r) = cx.k.ke.resources.get(&at) else { return Err(unknown(cx, at)) };
        let exclusive = r.exclusive.filter(|e| e.0 == me).map_or(0, |e| e.1);
        ret(u64::from(exclusive + r.shared.get(&me).copied().unwrap_or(0)))
    }
}
