//! Structured exceptions: the language handler of C, raising, probing, capturing and unwinding.
//!
//! After the pages of each routine and "x64 exception handling". The machinery is in `exception.rs` and `unwind.rs`.
//! Left out: function tables made at run time, `longjmp`, and history tables, which only make a search faster.

use dirql_image::RuntimeFunction;
use dirql_x86::Regs;

use crate::context::{Outcome, Result, ret, void};
use crate::cx::Cx;
use crate::exception::{self, Raise};
use crate::exports;
use crate::loader::Module;
use crate::stop::Stop;
use crate::unwind;

const STATUS_DATATYPE_MISALIGNMENT: u32 = 0x8000_0002;
const STATUS_ACCESS_VIOLATION: u32 = 0xC000_0005;
/// Highest user address and one, rounded down to the no-access region: the value of `MmUserProbeAddress`.
const USER_PROBE: u64 = 0x7FFF_FFFF_0000;
/// Most frames RtlCaptureStackBackTrace passes or gives.
const MAX_BACK_TRACE: usize = 1024;

/// Registers of the guest caller as they are after the call returns.
fn caller(cx: &mut Cx<'_>) -> std::result::Result<Regs, Stop> {
    let mut regs = cx.m.cpus[cx.cpu].regs.clone();
    regs.rip = cx.r64(regs.gpr[4])?;
    regs.gpr[4] = regs.gpr[4].wrapping_add(8);
    Ok(regs)
}

/// Raises a status in the caller; it cannot be continued.
fn raise_status(cx: &mut Cx<'_>, code: u32) -> Result {
    let regs = caller(cx)?;
    let what = Raise {
        code,
        continuable: false,
        address: regs.rip,
        information: &[],
        chained: 0,
        record: None,
        below: None,
    };
    exception::raise(cx, regs, &what)
}

/// The range must be aligned and lie below the system's addresses; a length of zero is always right.
fn probe(cx: &mut Cx<'_>, at: u64, length: u64, alignment: u32) -> std::result::Result<(), u32> {
    let _ = &cx;
    if at & u64::from(alignment.max(1) - 1) != 0 {
        return Err(STATUS_DATATYPE_MISALIGNMENT);
    }
    match at.checked_add(length) {
        Some(end) if end <= USER_PROBE => Ok(()),
        _ => Err(STATUS_ACCESS_VIOLATION),
    }
}

fn module_of<'a>(cx: &'a Cx<'_>, base: u64) -> Option<&'a Module> {
    cx.k.modules.drivers.iter().find(|m| m.base == base)
}

exports! {
    [15] fn __C_specific_handler(cx, record: u64, establisher: u64, context: u64, dispatcher: u64) {
        exception::c_specific_handler(cx, record, establisher, context, dispatcher)
    }
    // Leaves __try blocks for a place outside of them: their __finally blocks run.
    [15] fn _local_unwind(cx, frame: u64, target: u64) { exception::begin_unwind(cx, frame, target, 0, 0, 0) }

    [15] fn ExRaiseStatus(cx, status: u32) { raise_status(cx, status) }
    [15] fn RtlRaiseStatus(cx, status: u32) { raise_status(cx, status) }
    [15] fn ExRaiseAccessViolation(cx) { raise_status(cx, STATUS_ACCESS_VIOLATION) }
    [15] fn ExRaiseDatatypeMisalignment(cx) { raise_status(cx, STATUS_DATATYPE_MISALIGNMENT) }
    [15] fn RtlRaiseException(cx, record: u64) {
        let regs = caller(cx)?;
        let (code, address) = (cx.r32(record)?, regs.rip);
        cx.w64(record.wrapping_add(0x10), address)?;
        let what = Raise {
            code,
            continuable: true,
            address,
            information: &[],
            chained: 0,
            record: Some(record),
            below: None,
        };
        exception::raise(cx, regs, &what)
    }

    [1] fn ProbeForRead(cx, at: u64, length: u64, alignment: u32) {
        match if length == 0 { Ok(()) } else { probe(cx, at, length, alignment) } {
            Ok(()) => void(),
            Err(code) => raise_status(cx, code),
        }
    }
    // Unlike the read, it touches every page.
    [1] fn ProbeForWrite(cx, at: u64, length: u64, alignment: u32) {
        if length == 0 {
            return void();
        }
        if let Err(code) = probe(cx, at, length, alignment) {
            return raise_status(cx, code);
        }
        let last = at + (length - 1);
        let mut page = at;
        loop {
            let byte = cx.r8(page)?;
            cx.w8(page, byte)?;
            page = (page & !0xFFF) + 0x1000;
            if page > last {
                return void();
            }
        }
    }

    [15] fn RtlCaptureContext(cx, context: u64) {
        let regs = caller(cx)?;
        exception::write_context(cx, context, &regs)?;
        // Every register stays as it is, RAX with them.
        ret(regs.gpr[0])
    }
    [15] fn RtlRestoreContext(cx, context: u64, record: u64) {
        if record != 0 && matches!(cx.r32(record)?, 0x8000_0026 | 0x8000_0029) {
            return Err(cx.missing("RtlRestoreContext for longjmp or C++ exceptions"));
        }
        let mut regs = cx.m.cpus[cx.cpu].regs.clone();
        exception::read_context(cx, context, &mut regs)?;
        exception::forget_below(cx, regs.gpr[4]);
        cx.m.cpus[cx.cpu].regs = regs;
        Ok(Outcome::Resume)
    }
    [15] fn RtlCaptureStackBackTrace(cx, skip: u32, count: u32, trace: u64, hash: u64) {
        if u64::from(skip) + u64::from(count) > MAX_BACK_TRACE as u64 {
            return ret(0);
        }
        let frames = exception::stack(cx, (skip + count) as usize);
        let frames = frames.get(skip as usize..).unwrap_or(&[]);
        let mut sum = 0u32;
        for (i, &pc) in frames.iter().enumerate() {
            cx.w64(trace.wrapping_add(8 * i as u64), pc)?;
            sum = sum.wrapping_add(pc as u32);
        }
        if hash != 0 {
            cx.w32(hash, sum)?;
        }
        ret(frames.len() as u64)
    }

    [15] fn RtlPcToFileHeader(cx, pc: u64, base: u64) {
        let found = cx.k.modules.locate(pc).map_or(0, |(m, _)| m.base);
        cx.w64(base, found)?;
        ret(found)
    }
    [15] fn RtlLookupFunctionEntry(cx, pc: u64, base: u64, _history: u64) {
        let found = cx.k.modules.locate(pc).map(|(m, rva)| {
            let entry = u32::try_from(rva).ok().and_then(|rva| m.image.lookup_entry(rva));
            (m.base, entry.map_or(0, |e| m.base + u64::from(e)))
        });
        let (module, entry) = found.unwrap_or((0, 0));
        cx.w64(base, module)?;
        ret(entry)
    }
    // The last argument, where each register was saved, is optional and stays unfilled when given as NULL.
    [15] fn RtlVirtualUnwind(
        cx, kind: u32, base: u64, pc: u64, entry: u64, context: u64, data: u64, establisher: u64, pointers: u64
    ) {
        if pointers != 0 {
            return Err(cx.missing("RtlVirtualUnwind with ContextPointers"));
        }
        let Some(module) = module_of(cx, base) else {
            return Err(cx.missing("RtlVirtualUnwind in code that belongs to no loaded image"));
        };
        let image = module.image.clone();
        let f = RuntimeFunction { begin: cx.r32(entry)?, end: cx.r32(entry + 4)?, unwind: cx.r32(entry + 8)? };
        let mut regs = Regs::default();
        exception::read_context(cx, context, &mut regs)?;
        let mut seen = unwind::Seen { pc, base, entry, establisher: regs.gpr[4], handler: None };
        let rva = pc.wrapping_sub(base) as u32;
        if unwind::function(&cx.m.mem, &image, base, f, rva, &mut regs, &mut seen).is_none() {
            return Err(Stop::bug_check(
                0x1E,
                [u64::from(STATUS_ACCESS_VIOLATION), pc, 0, regs.gpr[4]],
                "RtlVirtualUnwind met damaged unwind information or an unreadable stack",
            ));
        }
        exception::write_context(cx, context, &regs)?;
        cx.w64(establisher, seen.establisher)?;
        // UNW_FLAG_EHANDLER 1, UNW_FLAG_UHANDLER 2.
        match seen.handler.filter(|h| (kind & 1 != 0 && h.exception) || (kind & 2 != 0 && h.termination)) {
            Some(h) => {
                cx.w64(data, h.data)?;
                ret(h.routine)
            }
            None => ret(0),
        }
    }
    [15] fn RtlUnwindEx(cx, target: u64, target_ip: u64, record: u64, value: u64, context: u64, _history: u64) {
        exception::begin_unwind(cx, target, target_ip, record, value, context)
    }
    [15] fn RtlUnwind(cx, target: u64, target_ip: u64, record: u64, value: u64) {
        exception::begin_unwind(cx, target, target_ip, record, value, 0)
    }
}
