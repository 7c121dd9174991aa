//! Structured exceptions: how a processor fault or a raised status finds the driver's handlers.
//!
//! After Microsoft's pages "x64 exception handling" and "Structured exception handling", and the layouts of CONTEXT,
//! EXCEPTION_RECORD and DISPATCHER_CONTEXT in the SDK's headers. Two passes: the search calls each frame's language
//! handler until one takes the exception; the unwind calls them again, to run `__finally` blocks, up to the frame that
//! took it. Both are data ([`SehThen`]): a handler is guest code called through the return gate, and kernel routines
//! that stand between two guest frames are passed as what they are, entries of the context's frame list.
//!
//! Left out, and named when met: unwinding out of the last frame (an exit unwind) and STATUS_UNWIND_CONSOLIDATE, which
//! C++ `catch` needs and kernel code may not use.

use dirql_mem::{Fault, MemFault, Va};
use dirql_x86::{Exception, Regs};

use crate::context::{Outcome, Result};
use crate::cx::Cx;
use crate::kernel::ActivationKind;
use crate::loader::{GATE_BASE, GATE_STEP, RETURN_GATE};
use crate::stop::{BugCheck, Stop};
use crate::system::{call_rsp, frames, set_call_rsp};
use crate::then::Then;
use crate::unwind::{self, Handler, MAX_FRAMES, Seen};

/// Size of a CONTEXT.
pub(crate) const CONTEXT_SIZE: u64 = 0x4D0;
/// Size of an EXCEPTION_RECORD, rounded up to 16.
const RECORD_SIZE: u64 = 0xA0;
/// Size of a DISPATCHER_CONTEXT.
const DISPATCHER_SIZE: u64 = 0x50;
const RSP: usize = 4;

/// `ExceptionFlags` of winnt.h.
mod flag {
    pub(super) const NONCONTINUABLE: u32 = 1;
    pub(super) const UNWINDING: u32 = 2;
    pub(super) const EXIT_UNWIND: u32 = 4;
    pub(super) const STACK_INVALID: u32 = 8;
    pub(super) const NESTED_CALL: u32 = 0x10;
    pub(super) const TARGET_UNWIND: u32 = 0x20;
    pub(super) const COLLIDED_UNWIND: u32 = 0x40;
}

/// `EXCEPTION_DISPOSITION`, what a language handler returns.
const CONTINUE_EXECUTION: u32 = 0;
const CONTINUE_SEARCH: u32 = 1;
const NESTED_EXCEPTION: u32 = 2;

const STATUS_ACCESS_VIOLATION: u32 = 0xC000_0005;
const STATUS_NONCONTINUABLE: u32 = 0xC000_0025;
const STATUS_INVALID_DISPOSITION: u32 = 0xC000_0026;
const STATUS_UNWIND: u32 = 0xC000_0027;
const STATUS_BAD_STACK: u32 = 0xC000_0028;
const STATUS_UNWIND_CONSOLIDATE: u32 = 0x8000_0029;

/// How exception handling goes on.
#[derive(Clone, Debug)]
pub enum SehThen {
    /// A language handler returned, in the search for one that takes the exception.
    Dispatched(Box<Search>),
    /// A language handler returned, in the unwind.
    Unwound(Box<Unwind>),
    /// A filter of `__C_specific_handler` returned.
    Filtered(Box<Scan>),
    /// A `__finally` block returned.
    Finished(Box<Scan>),
}

/// A walk over the guest frames of the current context and the kernel routines between them.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    /// Registers in the frame reached.
    pub(crate) regs: Regs,
    /// Kernel frames below it.
    depth: usize,
    passed: usize,
}

/// What a walk found.
struct Found {
    seen: Seen,
    caller: Regs,
    /// Establisher frame of an exception in progress that was passed on the way here.
    nested: Option<u64>,
    /// The walk passed an unwind in progress and takes it up: the scope it stands at.
    collided: Option<u32>,
}

impl Walk {
    /// From these registers, in code called through all of the context's kernel frames.
    fn from(cx: &mut Cx<'_>, regs: Regs) -> Self {
        let depth = frames(cx).map_or(0, |(f, _)| f.len());
        Self { regs, depth, passed: 0 }
    }

    /// From the guest caller of the kernel routine that runs, or from the guest code that runs.
    pub(crate) fn here(cx: &mut Cx<'_>) -> Self {
        let mut regs = cx.m.cpus[cx.cpu].regs.clone();
        if let Some(rsp) = call_rsp(cx) {
            regs.gpr[RSP] = rsp;
            if unwind::pop_return(&cx.m.mem, &mut regs).is_none() {
                regs.rip = 0;
            }
        }
        Self::from(cx, regs)
    }

    /// The frame the walk stands in, crossing kernel routines; `None` at the end of the stack. It moves on only when
    /// [`Found::caller`] is put into `regs`.
    fn look(&mut self, cx: &mut Cx<'_>) -> Option<Found> {
        let (mut nested, mut collided) = (None, None);
        self.passed += 1;
        if self.passed > MAX_FRAMES {
            return None;
        }
        while self.regs.rip == RETURN_GATE {
            self.depth = self.depth.checked_sub(1)?;
            let frame = frames(cx)?.0.get(self.depth)?.clone();
            match (frame.then, frame.rsp) {
                (Then::Seh(SehThen::Dispatched(s)), _) => {
                    self.regs = s.trap;
                    nested = nested.max(Some(s.establisher));
                }
                (Then::Seh(SehThen::Unwound(u)), _) => {
                    self.regs = u.walk.regs;
                    self.depth = self.depth.min(u.walk.depth);
                    collided = Some(cx.r32(u.dispatcher.wrapping_add(0x48)).unwrap_or(0));
                }
                (_, Some(rsp)) => {
                    self.regs.gpr[RSP] = rsp;
                    unwind::pop_return(&cx.m.mem, &mut self.regs)?;
                }
                // The kernel's own continuation of the routine below it.
                (_, None) => {}
            }
        }
        let mut caller = self.regs.clone();
        let seen = unwind::step(&cx.m.mem, &cx.k.modules, &mut caller)?;
        Some(Found { seen, caller, nested, collided })
    }
}

/// The guest addresses a stack walk passes, innermost first: where each frame executes.
pub(crate) fn stack(cx: &mut Cx<'_>, limit: usize) -> Vec<u64> {
    let mut walk = Walk::here(cx);
    let mut all = vec![];
    while all.len() < limit
        && let Some(found) = walk.look(cx)
    {
        all.push(found.seen.pc);
        walk.regs = found.caller;
    }
    all
}

/// A search for a handler.
#[derive(Clone, Debug)]
pub struct Search {
    record: u64,
    context: u64,
    dispatcher: u64,
    sp: u64,
    trap: Regs,
    walk: Walk,
    caller: Regs,
    establisher: u64,
    nested: u64,
}

/// An unwind in progress.
#[derive(Clone, Debug)]
pub struct Unwind {
    record: u64,
    context: u64,
    dispatcher: u64,
    sp: u64,
    target: u64,
    target_ip: u64,
    value: u64,
    walk: Walk,
    caller: Regs,
    is_target: bool,
}

/// `__C_specific_handler` at work on a scope table.
#[derive(Clone, Debug)]
pub struct Scan {
    record: u64,
    establisher: u64,
    context: u64,
    dispatcher: u64,
    base: u64,
    table: u64,
    next: u32,
    count: u32,
    pc: u32,
    sp: u64,
}

impl SehThen {
    /// Goes on.
    ///
    /// # Errors
    /// Whatever ends the run.
    pub fn resume(self, cx: &mut Cx<'_>, value: u64) -> Result {
        match self {
            Self::Dispatched(s) => dispatched(cx, s, value as u32),
            Self::Unwound(u) => unwound(cx, u, value as u32),
            Self::Filtered(scan) => filtered(cx, scan, value as u32 as i32),
            Self::Finished(scan) => scan_unwind(cx, scan),
        }
    }
}

/// Writes a CONTEXT (CONTEXT_FULL with segments).
pub(crate) fn write_context(cx: &mut Cx<'_>, at: u64, r: &Regs) -> std::result::Result<(), Stop> {
    let mut c = vec![0u8; CONTEXT_SIZE as usize];
    let mut put = |at: usize, bytes: &[u8]| c[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x30, &0x0010_000Fu32.to_le_bytes());
    put(0x34, &r.mxcsr.to_le_bytes());
    for (i, selector) in [0x10u16, 0x2B, 0x2B, 0x53, 0x2B, 0x18].into_iter().enumerate() {
        put(0x38 + 2 * i, &selector.to_le_bytes());
    }
    put(0x44, &(r.rflags as u32).to_le_bytes());
    for (i, value) in r.gpr.iter().enumerate() {
        put(0x78 + 8 * i, &value.to_le_bytes());
    }
    put(0xF8, &r.rip.to_le_bytes());
    put(0x100, &r.fcw.to_le_bytes());
    put(0x118, &r.mxcsr.to_le_bytes());
    put(0x11C, &0xFFFFu32.to_le_bytes());
    for (i, value) in r.xmm.iter().enumerate() {
        put(0x1A0 + 16 * i, &value.to_le_bytes());
    }
    cx.put(at, &c)
}

/// Registers as a CONTEXT says, over `regs` where its flags leave something out.
pub(crate) fn read_context(cx: &Cx<'_>, at: u64, regs: &mut Regs) -> std::result::Result<(), Stop> {
    let c = cx.bytes(at, CONTEXT_SIZE as usize)?;
    let q = |at: usize| c[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    let flags = q(0x30) as u32;
    if flags & 1 != 0 {
        // IF stays set below any interrupt's reach, and bit 1 always is.
        regs.rflags = u64::from(q(0x44) as u32) & 0x0024_0FD5 | 2;
        regs.gpr[RSP] = q(0x98);
        regs.rip = q(0xF8);
    }
    if flags & 2 != 0 {
        for i in (0..16).filter(|&i| i != RSP) {
            regs.gpr[i] = q(0x78 + 8 * i);
        }
    }
    if flags & 8 != 0 {
        regs.mxcsr = (q(0x30) >> 32) as u32 & 0xFFFF;
        for i in 0..16 {
            regs.xmm[i] = u128::from(q(0x1A0 + 16 * i)) | u128::from(q(0x1A8 + 16 * i)) << 64;
        }
    }
    Ok(())
}

/// An exception to be raised.
pub(crate) struct Raise<'a> {
    pub(crate) code: u32,
    pub(crate) continuable: bool,
    pub(crate) address: u64,
    pub(crate) information: &'a [u64],
    /// Address of the exception that was being handled.
    pub(crate) chained: u64,
    /// An EXCEPTION_RECORD that the driver supplies; nothing is written over it.
    pub(crate) record: Option<u64>,
    /// Where the stack is free below, when that is not the trap's stack pointer.
    pub(crate) below: Option<u64>,
}

/// Raises an exception in the context `trap`: the search for a handler begins.
pub(crate) fn raise(cx: &mut Cx<'_>, trap: Regs, what: &Raise<'_>) -> Result {
    set_call_rsp(cx, None);
    let address = what.address;
    begin(cx, trap, what).map_err(|stop| match stop {
        Stop::Fault(f) => Stop::BugCheck(BugCheck {
            code: 0x7F,
            params: [8, 0, 0, 0],
            reason: format!(
                "no room on the kernel stack for the exception raised at {address:#x}: {f} (double fault)"
            ),
            rip: address,
        }),
        other => other,
    })
}

fn begin(cx: &mut Cx<'_>, trap: Regs, what: &Raise<'_>) -> Result {
    let context = (what.below.unwrap_or(trap.gpr[RSP]) & !15).wrapping_sub(CONTEXT_SIZE);
    let own = context.wrapping_sub(RECORD_SIZE);
    let dispatcher = own.wrapping_sub(DISPATCHER_SIZE);
    // The context that handlers see as the dispatcher's; an unwind they start writes there.
    let sp = dispatcher.wrapping_sub(CONTEXT_SIZE);
    write_context(cx, context, &trap)?;
    let record = match what.record {
        Some(at) => at,
        None => {
            cx.put(own, &[0; RECORD_SIZE as usize])?;
            cx.w32(own, what.code)?;
            cx.w32(own + 4, if what.continuable { 0 } else { flag::NONCONTINUABLE })?;
            cx.w64(own + 8, what.chained)?;
            cx.w64(own + 0x10, what.address)?;
            cx.w32(own + 0x18, what.information.len() as u32)?;
            for (i, &value) in what.information.iter().enumerate().take(15) {
                cx.w64(own + 0x20 + 8 * i as u64, value)?;
            }
            own
        }
    };
    write_context(cx, sp, &trap)?;
    let walk = Walk::from(cx, trap.clone());
    let caller = trap.clone();
    search(
        cx,
        Box::new(Search { record, context, dispatcher, sp, trap, walk, caller, establisher: 0, nested: 0 }),
    )
}

/// Calls the next language handler, or ends the search without one.
fn search(cx: &mut Cx<'_>, mut s: Box<Search>) -> Result {
    loop {
        let Some(found) = s.walk.look(cx) else { return unhandled(cx, &s) };
        if let Some(nested) = found.nested {
            s.nested = s.nested.max(nested);
        }
        let seen = &found.seen;
        if let Some(h) = seen.handler.filter(|h| h.exception) {
            let flags = cx.r32(s.record.wrapping_add(4))?;
            if seen.establisher & 7 != 0 {
                cx.w32(s.record.wrapping_add(4), flags | flag::STACK_INVALID)?;
                return unhandled(cx, &s);
            }
            let nested = if s.nested == 0 { 0 } else { flag::NESTED_CALL };
            cx.w32(s.record.wrapping_add(4), flags & flag::NONCONTINUABLE | nested)?;
            let scope = found.collided.unwrap_or(0);
            write_dispatcher(cx, s.dispatcher, seen, h, 0, s.sp, scope)?;
            s.establisher = seen.establisher;
            s.caller = found.caller;
            let args = vec![s.record, s.establisher, s.context, s.dispatcher];
            cx.m.cpus[cx.cpu].regs.gpr[RSP] = s.sp;
            return Ok(Outcome::Call { routine: h.routine, args, then: Then::Seh(SehThen::Dispatched(s)) });
        }
        if s.nested == seen.establisher {
            s.nested = 0;
        }
        s.walk.regs = found.caller;
    }
}

fn write_dispatcher(
    cx: &mut Cx<'_>,
    at: u64,
    seen: &Seen,
    h: Handler,
    target_ip: u64,
    context: u64,
    scope: u32,
) -> std::result::Result<(), Stop> {
    let fields = [
        seen.pc,
        seen.base,
        seen.entry,
        seen.establisher,
        target_ip,
        context,
        h.routine,
        h.data,
        0,
        scope.into(),
    ];
    for (i, value) in fields.into_iter().enumerate() {
        cx.w64(at.wrapping_add(8 * i as u64), value)?;
    }
    Ok(())
}

/// A handler returned from the search.
fn dispatched(cx: &mut Cx<'_>, mut s: Box<Search>, disposition: u32) -> Result {
    match disposition {
        CONTINUE_EXECUTION => {
            if cx.r32(s.record.wrapping_add(4))? & flag::NONCONTINUABLE != 0 {
                return again(cx, &s, STATUS_NONCONTINUABLE);
            }
            let mut regs = s.trap.clone();
            read_context(cx, s.context, &mut regs)?;
            set_call_rsp(cx, None);
            cx.m.cpus[cx.cpu].regs = regs;
            Ok(Outcome::Resume)
        }
        CONTINUE_SEARCH | NESTED_EXCEPTION => {
            if disposition == NESTED_EXCEPTION {
                let nested = cx.r64(s.dispatcher.wrapping_add(0x18))?;
                s.nested = s.nested.max(nested);
            } else if s.nested == s.establisher {
                s.nested = 0;
            }
            s.walk.regs = s.caller.clone();
            search(cx, s)
        }
        _ => again(cx, &s, STATUS_INVALID_DISPOSITION),
    }
}

/// A handler's answer is itself an error: a further exception, chained to the first.
fn again(cx: &mut Cx<'_>, s: &Search, code: u32) -> Result {
    let address = cx.r64(s.record.wrapping_add(0x10))?;
    let what = Raise {
        code,
        continuable: false,
        address,
        information: &[],
        chained: s.record,
        record: None,
        // The first exception's record stays readable.
        below: Some(s.sp),
    };
    raise(cx, s.trap.clone(), &what)
}

/// No handler took it: the bug check of the context it happened in.
fn unhandled(cx: &mut Cx<'_>, s: &Search) -> Result {
    let code = cx.r32(s.record)?;
    let address = cx.r64(s.record.wrapping_add(0x10))?;
    let count = cx.r32(s.record.wrapping_add(0x18))?.min(15);
    let mut information = [0u64; 2];
    for (i, slot) in information.iter_mut().enumerate().take(count as usize) {
        *slot = cx.r64(s.record.wrapping_add(0x20 + 8 * i as u64))?;
    }
    let proc = &cx.k.procs[cx.cpu];
    let in_isr = proc.nest.iter().any(|a| matches!(a.kind, ActivationKind::Isr(_)));
    let code64 = u64::from(code);
    let (check, params) = if in_isr {
        (0x3D, [s.record, s.context, 0, 0])
    } else if !proc.nest.is_empty() {
        (0x1E, [code64, address, information[0], information[1]])
    } else if in_service(cx) {
        (0x3B, [code64, address, s.context, 0])
    } else {
        (0x7E, [code64, address, s.record, s.context])
    };
    // The report's stack is the one the exception found, and its place the innermost one in a driver.
    set_call_rsp(cx, None);
    cx.m.cpus[cx.cpu].regs = s.trap.clone();
    let rip = if cx.k.modules.locate(address).is_some() {
        address
    } else {
        let frames = stack(cx, 32);
        frames.into_iter().find(|&pc| cx.k.modules.locate(pc).is_some()).unwrap_or(address)
    };
    Err(Stop::BugCheck(BugCheck {
        code: check,
        params,
        reason: format!(
            "exception {} at {} was not handled{}",
            dirql_abi::status::describe(code),
            cx.k.modules.describe(address),
            detail(code, count, information)
        ),
        rip,
    }))
}

fn detail(code: u32, count: u32, information: [u64; 2]) -> String {
    if code != STATUS_ACCESS_VIOLATION || count < 2 {
        return String::new();
    }
    let [kind, va] = information;
    let verb = match kind {
        0 => "read",
        1 => "write",
        _ => "execution",
    };
    match va {
        0..0x1_0000 => format!(": {verb} of a NULL pointer or an offset from one, {va:#x}"),
        u64::MAX => format!(": {verb} of an address that is not canonical"),
        _ => format!(": {verb} of {va:#x}"),
    }
}

/// Does the current thread run a request on behalf of a user-mode caller?
fn in_service(cx: &mut Cx<'_>) -> bool {
    matches!(
        frames(cx).and_then(|(f, _)| f.first()).map(|f| &f.then),
        Some(Then::Life(then)) if then.is_system_service()
    )
}

/// Begins an unwind to the frame `target`, from the caller of the export being served (RtlUnwindEx).
pub(crate) fn begin_unwind(
    cx: &mut Cx<'_>,
    target: u64,
    target_ip: u64,
    record: u64,
    value: u64,
    context: u64,
) -> Result {
    let walk = Walk::here(cx);
    let mut sp = (cx.m.cpus[cx.cpu].regs.gpr[RSP] & !15).wrapping_sub(DISPATCHER_SIZE);
    let dispatcher = sp;
    let context = if context == 0 {
        sp = sp.wrapping_sub(CONTEXT_SIZE);
        sp
    } else {
        context
    };
    let record = if record == 0 {
        sp = sp.wrapping_sub(RECORD_SIZE);
        cx.put(sp, &[0; RECORD_SIZE as usize])?;
        cx.w32(sp, STATUS_UNWIND)?;
        cx.w64(sp + 0x10, walk.regs.rip)?;
        sp
    } else {
        record
    };
    if cx.r32(record)? == STATUS_UNWIND_CONSOLIDATE {
        return Err(cx.missing("unwinding with STATUS_UNWIND_CONSOLIDATE (C++ exceptions)"));
    }
    if target == 0 {
        return Err(cx.missing("an exit unwind (RtlUnwindEx without a target frame)"));
    }
    let caller = walk.regs.clone();
    unwind_on(
        cx,
        Box::new(Unwind {
            record,
            context,
            dispatcher,
            sp,
            target,
            target_ip,
            value,
            walk,
            caller,
            is_target: false,
        }),
    )
}

/// Calls the next termination handler, or arrives.
fn unwind_on(cx: &mut Cx<'_>, mut u: Box<Unwind>) -> Result {
    loop {
        let found = u.walk.look(cx);
        let Some(found) = found.filter(|f| f.seen.establisher <= u.target) else {
            // The target is not on the stack, or was passed.
            let address = cx.r64(u.record.wrapping_add(0x10))?;
            let trap = Walk::here(cx).regs;
            let what = Raise {
                code: STATUS_BAD_STACK,
                continuable: false,
                address,
                information: &[],
                chained: u.record,
                record: None,
                below: Some(u.sp),
            };
            return raise(cx, trap, &what);
        };
        u.is_target = found.seen.establisher == u.target;
        u.caller = found.caller;
        if let Some(h) = found.seen.handler.filter(|h| h.termination) {
            let old = cx.r32(u.record.wrapping_add(4))? & flag::NONCONTINUABLE;
            let at_target = if u.is_target { flag::TARGET_UNWIND } else { 0 };
            let collided = if found.collided.is_some() { flag::COLLIDED_UNWIND } else { 0 };
            cx.w32(u.record.wrapping_add(4), old | flag::UNWINDING | at_target | collided)?;
            let mut regs = u.walk.regs.clone();
            regs.gpr[0] = u.value;
            write_context(cx, u.context, &regs)?;
            let scope = found.collided.unwrap_or(0);
            write_dispatcher(cx, u.dispatcher, &found.seen, h, u.target_ip, u.context, scope)?;
            let args = vec![u.record, found.seen.establisher, u.context, u.dispatcher];
            cx.m.cpus[cx.cpu].regs.gpr[RSP] = u.sp;
            return Ok(Outcome::Call { routine: h.routine, args, then: Then::Seh(SehThen::Unwound(u)) });
        }
        if u.is_target {
            return arrive(cx, *u);
        }
        u.walk.regs = u.caller.clone();
    }
}

fn unwound(cx: &mut Cx<'_>, mut u: Box<Unwind>, disposition: u32) -> Result {
    if disposition != CONTINUE_SEARCH {
        let address = cx.r64(u.record.wrapping_add(0x10))?;
        let trap = u.walk.regs.clone();
        let what = Raise {
            code: STATUS_INVALID_DISPOSITION,
            continuable: false,
            address,
            information: &[],
            chained: u.record,
            record: None,
            below: Some(u.sp),
        };
        return raise(cx, trap, &what);
    }
    if u.is_target {
        return arrive(cx, *u);
    }
    u.walk.regs = u.caller.clone();
    unwind_on(cx, u)
}

/// The target frame goes on at the target address; the kernel routines above it are forgotten.
fn arrive(cx: &mut Cx<'_>, u: Unwind) -> Result {
    let mut regs = u.walk.regs;
    regs.gpr[0] = u.value;
    regs.rip = u.target_ip;
    // The ABI's direction flag at a function's blocks is clear.
    regs.rflags &= !0x400;
    if let Some((list, _)) = frames(cx) {
        list.truncate(u.walk.depth);
    }
    set_call_rsp(cx, None);
    cx.m.cpus[cx.cpu].regs = regs;
    Ok(Outcome::Resume)
}

/// `__C_specific_handler`: the scope table of C's `__try`.
pub(crate) fn c_specific_handler(
    cx: &mut Cx<'_>,
    record: u64,
    establisher: u64,
    context: u64,
    dispatcher: u64,
) -> Result {
    let base = cx.r64(dispatcher.wrapping_add(8))?;
    let table = cx.r64(dispatcher.wrapping_add(0x38))?;
    let pc = cx.r64(dispatcher)?.wrapping_sub(base) as u32;
    let next = cx.r32(dispatcher.wrapping_add(0x48))?;
    let count = cx.r32(table)?;
    let sp = (cx.m.cpus[cx.cpu].regs.gpr[RSP] & !15).wrapping_sub(0x10);
    let scan = Box::new(Scan { record, establisher, context, dispatcher, base, table, next, count, pc, sp });
    if cx.r32(record.wrapping_add(4))? & (flag::UNWINDING | flag::EXIT_UNWIND) != 0 {
        scan_unwind(cx, scan)
    } else {
        scan_search(cx, scan)
    }
}

impl Scan {
    /// Begin, end, handler and target of the next scope that covers the frame's address.
    fn take(&mut self, cx: &Cx<'_>) -> std::result::Result<Option<[u32; 4]>, Stop> {
        while self.next < self.count {
            let at = self.table.wrapping_add(4 + 16 * u64::from(self.next));
            self.next += 1;
            let (begin, end) = (cx.r32(at)?, cx.r32(at.wrapping_add(4))?);
            if (begin..end).contains(&self.pc) {
                return Ok(Some([begin, end, cx.r32(at.wrapping_add(8))?, cx.r32(at.wrapping_add(12))?]));
            }
        }
        Ok(None)
    }

    fn take_it(&self, cx: &mut Cx<'_>, target: u32) -> Result {
        let code = u64::from(cx.r32(self.record)?);
        let to = self.base.wrapping_add(u64::from(target));
        let work = cx.r64(self.dispatcher.wrapping_add(0x28))?;
        begin_unwind(cx, self.establisher, to, self.record, code, work)
    }
}

/// The search: filters of the `__except` scopes, innermost first.
fn scan_search(cx: &mut Cx<'_>, mut scan: Box<Scan>) -> Result {
    while let Some([_, _, filter, target]) = scan.take(cx)? {
        match (filter, target) {
            (_, 0) => {}
            // EXCEPTION_EXECUTE_HANDLER as a constant.
            (1, _) => return scan.take_it(cx, target),
            _ => {
                // EXCEPTION_POINTERS.
                cx.w64(scan.sp, scan.record)?;
                cx.w64(scan.sp + 8, scan.context)?;
                cx.m.cpus[cx.cpu].regs.gpr[RSP] = scan.sp;
                let routine = scan.base.wrapping_add(u64::from(filter));
                let args = vec![scan.sp, scan.establisher];
                return Ok(Outcome::Call { routine, args, then: Then::Seh(SehThen::Filtered(scan)) });
            }
        }
    }
    Ok(Outcome::Ret(u64::from(CONTINUE_SEARCH)))
}

fn filtered(cx: &mut Cx<'_>, scan: Box<Scan>, answer: i32) -> Result {
    match answer {
        0 => scan_search(cx, scan),
        i32::MIN..0 => Ok(Outcome::Ret(u64::from(CONTINUE_EXECUTION))),
        _ => {
            let at = scan.table.wrapping_add(4 + 16 * u64::from(scan.next.wrapping_sub(1)));
            let target = cx.r32(at.wrapping_add(12))?;
            scan.take_it(cx, target)
        }
    }
}

/// The unwind: `__finally` blocks that control leaves.
fn scan_unwind(cx: &mut Cx<'_>, mut scan: Box<Scan>) -> Result {
    let at_target = cx.r32(scan.record.wrapping_add(4))? & flag::TARGET_UNWIND != 0;
    let to = cx.r64(scan.dispatcher.wrapping_add(0x20))?.wrapping_sub(scan.base) as u32;
    while let Some([begin, end, handler, target]) = scan.take(cx)? {
        // Control stays inside this scope, or arrives at its own __except block: no outer one is left either.
        if at_target && ((begin..end).contains(&to) || (target != 0 && target == to)) {
            break;
        }
        if target == 0 {
            // A further unwind that collides with this one goes on behind this scope.
            cx.w32(scan.dispatcher.wrapping_add(0x48), scan.next)?;
            cx.m.cpus[cx.cpu].regs.gpr[RSP] = scan.sp;
            let routine = scan.base.wrapping_add(u64::from(handler));
            // AbnormalTermination() is true.
            let args = vec![1, scan.establisher];
            return Ok(Outcome::Call { routine, args, then: Then::Seh(SehThen::Finished(scan)) });
        }
    }
    Ok(Outcome::Ret(u64::from(CONTINUE_SEARCH)))
}

/// A processor exception in guest code.
///
/// # Errors
/// The bug check, where Windows gives one without asking handlers.
pub(crate) fn trap(cx: &mut Cx<'_>, e: &Exception) -> Result {
    let regs = cx.m.cpus[cx.cpu].regs.clone();
    let rip = regs.rip;
    // The processor pushes a frame on the current stack before any handler; where it can't, that is a double fault
    // (Intel SDM volume 3, 6.15, and bug check 0x7F).
    let pushed = regs.gpr[RSP].wrapping_sub(8);
    if let Err(f) = cx.m.mem.read_u64(Va(pushed)) {
        return Err(Stop::BugCheck(BugCheck {
            code: 0x7F,
            params: [8, 0, 0, 0],
            reason: format!(
                "the kernel stack is used up: {e}, and no exception frame can be pushed: {f} (double fault)"
            ),
            rip,
        }));
    }
    let (code, information): (u32, Vec<u64>) = match e {
        Exception::PageFault { addr, write, execute, present } => {
            let access = match (execute, write) {
                (true, _) => dirql_mem::Access::Execute,
                (_, true) => dirql_mem::Access::Write,
                _ => dirql_mem::Access::Read,
            };
            let kind = if *present { Fault::Protection } else { Fault::NotPresent };
            return fault(cx, regs, &MemFault { va: Va(*addr), access, kind }, false, true);
        }
        Exception::FastFail(code) => {
            return Err(Stop::BugCheck(BugCheck {
                code: 0x139,
                params: [u64::from(*code), 0, 0, 0],
                reason: format!("the driver's own check failed (int 29h, fast-fail code {code})"),
                rip,
            }));
        }
        Exception::DivideError => (0xC000_0094, vec![]),
        Exception::Breakpoint => (0x8000_0003, vec![0]),
        Exception::Debug => (0x8000_0004, vec![]),
        Exception::Overflow => (0xC000_0095, vec![]),
        Exception::InvalidOpcode => (0xC000_001D, vec![]),
        Exception::AlignmentCheck => (0x8000_0002, vec![]),
        Exception::X87 => (0xC000_0090, vec![0]),
        Exception::Simd => (0xC000_02B5, vec![0]),
        // #GP and #SS: a read of an address that is not known, which Windows gives as all ones.
        _ => (STATUS_ACCESS_VIOLATION, vec![0, u64::MAX]),
    };
    let what = Raise {
        code,
        continuable: true,
        address: rip,
        information: &information,
        chained: 0,
        record: None,
        below: None,
    };
    raise(cx, regs, &what)
}

/// An access that failed in a kernel routine on the driver's behalf: an exception in the routine, which its caller's
/// handlers may take.
pub(crate) fn in_routine(cx: &mut Cx<'_>, f: &MemFault) -> Result {
    let mut regs = cx.m.cpus[cx.cpu].regs.clone();
    let again = (GATE_BASE + GATE_STEP..GATE_BASE + (1 << 28)).contains(&regs.rip);
    match call_rsp(cx) {
        // Called by guest code: its frame is the routine's caller.
        Some(rsp) => {
            regs.gpr[RSP] = rsp;
            if !again {
                regs.rip = GATE_BASE + GATE_STEP;
            }
        }
        None => regs.rip = RETURN_GATE,
    }
    fault(cx, regs, f, true, again)
}

/// A failed access: the bug check where Windows gives one at once, else STATUS_ACCESS_VIOLATION.
fn fault(cx: &mut Cx<'_>, regs: Regs, f: &MemFault, in_kernel: bool, continuable: bool) -> Result {
    let rip = if in_kernel { cx.caller() } else { regs.rip };
    if let Some(check) = fault_check(cx, f, rip, in_kernel) {
        return Err(Stop::BugCheck(check));
    }
    let kind = match f.access {
        dirql_mem::Access::Read => 0,
        dirql_mem::Access::Write => 1,
        dirql_mem::Access::Execute => 8,
    };
    let information = match f.kind {
        Fault::NonCanonical => [0, u64::MAX],
        _ => [kind, f.va.0],
    };
    let address = regs.rip;
    let what = Raise {
        code: STATUS_ACCESS_VIOLATION,
        continuable,
        address: if address == RETURN_GATE { rip } else { address },
        information: &information,
        chained: 0,
        record: None,
        below: None,
    };
    raise(cx, regs, &what)
}

/// The bug check for an access that no handler may take (the pages of the bug checks' names): 0xD1 or 0xA at
/// DISPATCH_LEVEL and above; below, for system addresses, 0xBE and 0xFC where a page forbids the access and 0x50 where
/// there is none. User addresses give none.
fn fault_check(cx: &Cx<'_>, f: &MemFault, rip: u64, in_kernel: bool) -> Option<BugCheck> {
    let Va(va) = f.va;
    let irql = cx.irql();
    let (kind, verb) = match f.access {
        dirql_mem::Access::Read => (0, "read"),
        dirql_mem::Access::Write => (1, "write"),
        dirql_mem::Access::Execute => (8, "execution"),
    };
    if f.kind == Fault::NonCanonical {
        return None;
    }
    let of = match f.kind {
        Fault::Protection => "memory that does not permit it",
        _ if va < 0x1_0000 => "a NULL pointer or an offset from one",
        _ => "memory that is not there",
    };
    let whose = if in_kernel { " by a kernel routine on the driver's behalf" } else { "" };
    let reason = format!("{verb} of {of} at {va:#x}{whose}, IRQL {irql}");
    let (code, params) = if irql >= 2 {
        (if in_kernel { 0xA } else { 0xD1 }, [va, u64::from(irql), kind, rip])
    } else if va < 0x8000_0000_0000 {
        return None;
    } else {
        match (f.kind, f.access) {
            (Fault::Protection, dirql_mem::Access::Write) => (0xBE, [va, entry(cx, va), 0, 0]),
            (Fault::Protection, dirql_mem::Access::Execute) => (0xFC, [va, entry(cx, va), 0, 0]),
            _ => (0x50, [va, kind, rip, 0]),
        }
    };
    Some(BugCheck { code, params, reason, rip })
}

/// A page-table entry as it would be for the page of `va`: present, writable, no-execute and the frame.
fn entry(cx: &Cx<'_>, va: u64) -> u64 {
    let Some((_, prot)) = cx.m.mem.translate(Va(va)) else { return 0 };
    let frame = cx.m.mem.virt_to_phys(Va(va & !0xFFF)).map_or(0, |pa| pa.0);
    let writable = if prot.contains(dirql_mem::Prot::WRITE) { 2 } else { 0 };
    let no_execute = if prot.contains(dirql_mem::Prot::EXEC) { 0 } else { 1 << 63 };
    frame & !0xFFF | no_execute | writable | 1
}

/// Forgets the kernel routines whose callers lie below `rsp`: control has left them for a frame above.
pub(crate) fn forget_below(cx: &mut Cx<'_>, rsp: u64) {
    set_call_rsp(cx, None);
    if let Some((list, _)) = frames(cx) {
        while let Some(last) = list.last() {
            let at = match (&last.then, last.rsp) {
                (Then::Seh(SehThen::Dispatched(s)), _) => s.trap.gpr[RSP],
                (_, Some(at)) => at,
                (_, None) => break,
            };
            if at > rsp {
                break;
            }
            list.pop();
        }
    }
}
