//! DPC objects (spec 2.5, 4.7). The queues are the interrupt core's; the KDPC is the driver's memory.

use crate::context::{Outcome, Wait, ret, void};
use crate::cx::Cx;
use crate::exports;
use crate::stop::Stop;
use crate::then::Then;

/// KDPC.Importance.
const IMPORTANCE: u64 = 1;
/// KDPC.Number.
const NUMBER: u64 = 2;
/// KDPC.DeferredRoutine and DeferredContext.
const ROUTINE: u64 = 24;
const CONTEXT: u64 = 32;
/// KDPC.DpcData: not NULL while queued.
const DPC_DATA: u64 = 56;
const STATUS_INVALID_PARAMETER: u64 = 0xC000_000D;

/// What is added to a processor's number in `KDPC.Number` to say that the DPC is targeted: MAXIMUM_PROCESSORS, which
/// differs between Windows builds and which drivers must not read (spec 2.5, I-32).
pub(crate) fn number_base(k: &crate::kernel::Kernel) -> u32 {
    match k.interrupts.core.config().windows {
        w if w >= dirql_core::Windows::W10 => 0x800,
        w if w >= dirql_core::Windows::W7 => 0x500,
        _ => 64,
    }
}

pub(crate) fn init(cx: &mut Cx<'_>, dpc: u64, kind: u8, routine: u64, context: u64) -> Result<(), Stop> {
    cx.w8(dpc, kind)?;
    // MediumImportance.
    cx.w8(dpc + IMPORTANCE, 1)?;
    cx.w16(dpc + NUMBER, 0)?;
    cx.w64(dpc + ROUTINE, routine)?;
    cx.w64(dpc + CONTEXT, context)?;
    cx.w64(dpc + DPC_DATA, 0)
}

exports! {
    [15] fn KeInitializeDpc(cx, dpc: u64, routine: u64, context: u64) {
        init(cx, dpc, 19, routine, context)?;
        void()
    }
    [15] fn KeInitializeThreadedDpc(cx, dpc: u64, routine: u64, context: u64) {
        init(cx, dpc, 24, routine, context)?;
        void()
    }
    [15] fn KeInsertQueueDpc(cx, dpc: u64, arg1: u64, arg2: u64) {
        ret(u64::from(crate::interrupt::insert_dpc(cx, dpc, arg1, arg2)?))
    }
    [15] fn KeRemoveQueueDpc(cx, dpc: u64) { ret(u64::from(crate::interrupt::remove_dpc(cx, dpc)?)) }
    [15] fn KeSetImportanceDpc(cx, dpc: u64, importance: u32) {
        if importance > 3 {
            return Err(cx.missing(format!("KeSetImportanceDpc with importance {importance}")));
        }
        cx.w8(dpc + IMPORTANCE, importance as u8)?;
        void()
    }
    // A number beyond the active processors of group 0 is ignored.
    [15] fn KeSetTargetProcessorDpc(cx, dpc: u64, number: i8) {
        if number >= 0 && (number as usize) < cx.k.procs.len() {
            let base = number_base(cx.k) as u16;
            cx.w16(dpc + NUMBER, base + number as u16)?;
        }
        void()
    }
    // PROCESSOR_NUMBER: group at 0, number at 2.
    [15] fn KeSetTargetProcessorDpcEx(cx, dpc: u64, number: u64) {
        let group = cx.r16(number)?;
        let cpu = cx.r8(number + 2)?;
        if group != 0 || usize::from(cpu) >= cx.k.procs.len() || cx.r8(number + 3)? != 0 {
            return ret(STATUS_INVALID_PARAMETER);
        }
        let base = number_base(cx.k) as u16;
        cx.w16(dpc + NUMBER, base + u16::from(cpu))?;
        ret(0)
    }
    [0] fn KeFlushQueuedDpcs(cx) {
        let fence = crate::interrupt::dpc_fence(cx);
        let wait = Wait { irp: None, dpc_fence: Some(fence), ..Wait::irp(0) };
        Ok(Outcome::Wait { wait, then: Then::RetValue(0) })
    }
    [15] fn KeIsExecutingDpc(cx) {
        let dpc = matches!(cx.k.procs[cx.cpu].nest.last().map(|a| &a.kind), Some(crate::kernel::ActivationKind::Dpc));
        ret(u64::from(dpc))
    }
}
