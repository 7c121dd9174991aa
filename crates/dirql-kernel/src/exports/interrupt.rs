//! Connecting, disconnecting and synchronising interrupts (spec 3 and 4): shims over the interrupt core.

use dirql_core::{
    ConnectFailure, ConnectRequest, Connected, ConnectedKind, ContextFault, Device, DisconnectOutcome, Irql,
    LegacyRequest, Mode,
};
use dirql_event::{ConnectedVector, EventKind, InterruptMode, LockOwner};

use crate::context::{Outcome, Result, Wait, ret, void};
use crate::cx::Cx;
use crate::interrupt::{self, IsrThen, stop_of, with_core};
use crate::stop::Stop;
use crate::then::Then;

fn none_if_zero(v: u64) -> Option<u64> {
    (v != 0).then_some(v)
}

/// Tells the story of a connect call.
#[expect(clippy::too_many_arguments, reason = "they are the fields of the event")]
fn report(
    cx: &mut Cx<'_>,
    api: &str,
    version: u32,
    version_out: u32,
    status: u32,
    pdo: u64,
    c: Option<&Connected<u64>>,
    own: bool,
) {
    let device = cx.k.io.pdos.iter().find(|p| p.object == pdo).map(|p| p.name.clone());
    let mut vectors = vec![];
    for id in c.map(|c| c.objects.clone()).unwrap_or_default() {
        let Some(o) = cx.k.interrupts.core.object(id) else { continue };
        vectors.push(ConnectedVector {
            vector: u32::from(o.vector),
            irql: o.irql.0,
            sync_irql: o.sync_irql.0,
            cpus: (0..64).filter(|n| o.affinity.mask >> n & 1 == 1).collect(),
            message: o.message,
            mode: if o.mode == Mode::Level { InterruptMode::LevelSensitive } else { InterruptMode::Latched },
            shared: o.share,
            lock: if own { LockOwner::Own } else { LockOwner::Driver },
        });
    }
    cx.event(EventKind::Connect { api: api.into(), version, version_out, status, device, vectors });
}

/// Fills in what routines may read: the lock of each KINTERRUPT, and the message table. The sources are open by now,
/// but nothing runs before this call is left.
fn fill(cx: &mut Cx<'_>, c: &Connected<u64>, pdo: u64) -> std::result::Result<(), Stop> {
    for id in &c.objects {
        if let Some(o) = cx.k.interrupts.core.object(*id) {
            let (public, lock) = (o.public, o.lock);
            cx.w64(public + interrupt::ACTUAL_LOCK, lock)?;
        }
    }
    if let ConnectedKind::Table { table, unified_irql, entries } = &c.kind {
        cx.w8(*table, unified_irql.0)?;
        cx.w32(*table + 4, entries.len() as u32)?;
        let assigned = cx.k.interrupts.core.assigned(pdo).map(<[_]>::to_vec).unwrap_or_default();
        for (i, e) in entries.iter().enumerate() {
            let at = *table + 8 + 48 * i as u64;
            let (address, data) =
                assigned.iter().find(|a| a.vector == e.vector).map_or((0, 0), crate::life::message_of);
            cx.w64(at, address)?;
            cx.w64(at + 8, e.affinity.mask)?;
            cx.w64(at + 16, e.object)?;
            cx.w32(at + 24, data)?;
            cx.w32(at + 28, u32::from(e.vector))?;
            cx.w8(at + 32, e.irql.0)?;
            cx.w32(at + 36, e.mode.raw())?;
            cx.w32(at + 40, e.polarity.raw())?;
        }
    }
    Ok(())
}

/// Returns success, but not at once: an interrupt may come while the caller's pointer is not stored yet (spec C3,
/// C10, D-11).
fn give(params: u64, out: u64, c: &Connected<u64>) -> Result {
    let then = IsrThen::Connected { params, version: c.version_out, out, value: c.out() };
    Ok(Outcome::Spin(Then::Isr(then)))
}

fn ex(cx: &mut Cx<'_>, params: u64) -> Result {
    let version = cx.r32(params)?;
    let full = matches!(version, 1 | 4);
    let message = matches!(version, 3 | 5);
    let known = full || message || version == 2;
    let p = if known { cx.r64(params + 8)? } else { 0 };
    let pdo = match p {
        0 => Device::Null,
        p if cx.k.io.pdos.iter().any(|d| d.object == p) => Device::Physical(p),
        p => Device::NotPhysical(p),
    };
    let out = if known { cx.r64(params + 16)? } else { 0 };
    let request = ConnectRequest {
        version,
        pdo,
        has_out_pointer: out != 0,
        isr: if known { none_if_zero(cx.r64(params + 24)?) } else { None },
        context: if known { cx.r64(params + 32)? } else { 0 },
        lock: if known { none_if_zero(cx.r64(params + 40)?) } else { None },
        sync_irql: Irql(if known { cx.r8(params + 48)? } else { 0 }),
        floating_save: known && cx.r8(params + 49)? != 0,
        share_vector: full && cx.r8(params + 50)? != 0,
        vector: if full { cx.r32(params + 52)? } else { 0 },
        irql: Irql(if full { cx.r8(params + 56)? } else { 0 }),
        mode: if full { cx.r32(params + 60)? } else { 0 },
        mask: if full { cx.r64(params + 64)? } else { 0 },
        // Windows Vista binaries have no Group member: read it for version 4 only (spec I-4).
        group: if version == 4 { cx.r16(params + 72)? } else { 0 },
        fallback: if message { none_if_zero(cx.r64(params + 56)?) } else { None },
    };
    let irql = Irql(cx.irql());
    match with_core(cx, |core, ports| core.connect(&request, irql, ports)) {
        Ok(c) => {
            fill(cx, &c, p)?;
            report(
                cx,
                "IoConnectInterruptEx",
                version,
                c.version_out,
                0,
                p,
                Some(&c),
                request.lock.is_none(),
            );
            give(params, out, &c)
        }
        Err(ConnectFailure::Refused(r)) => {
            cx.w32(params, r.version_out)?;
            if r.null_out_pointer && out != 0 {
                cx.w64(out, 0)?;
            }
            report(cx, "IoConnectInterruptEx", version, r.version_out, r.status, p, None, true);
            ret(u64::from(r.status))
        }
        Err(ConnectFailure::BugCheck(b)) => {
            Err(stop_of(b, "IoConnectInterruptEx called above PASSIVE_LEVEL, or for no PDO"))
        }
    }
}

fn disconnected(
    cx: &mut Cx<'_>,
    version: u32,
    vectors: Vec<u32>,
    outcome: std::result::Result<DisconnectOutcome<u64>, ContextFault<u64, u64>>,
) -> Result {
    match outcome {
        Ok(o) => {
            cx.event(EventKind::Disconnect { version, vectors, status: 0 });
            match o.set {
                Some(set) if o.must_wait => Ok(Outcome::Wait {
                    wait: Wait { isr_fence: Some(set.0), deadline: None, ..Wait::until(0) },
                    then: Then::Isr(IsrThen::Disconnected(set)),
                }),
                _ => {
                    interrupt::free_all(cx, &o.freed);
                    void()
                }
            }
        }
        Err(f) => Err(stop_of(f.bug_check, &format!("disconnecting an interrupt: {:?}", f.confusion))),
    }
}

fn vectors_of(cx: &Cx<'_>, context: u64) -> Vec<u32> {
    // A table's first object is its first entry's.
    let public = match cx.k.interrupts.core.object_at(context) {
        Some(_) => context,
        None => cx.r64(context.wrapping_add(24)).unwrap_or(0),
    };
    let Some(info) = cx.k.interrupts.core.object_at(public).and_then(|id| cx.k.interrupts.core.object(id))
    else {
        return vec![];
    };
    let set = info.set;
    cx.k.interrupts.core.objects().filter(|(_, o)| o.set == set).map(|(_, o)| u32::from(o.vector)).collect()
}

crate::exports! {
    /// nf-iointex-wdmlibioconnectinterruptex. Its IRQL is checked by the core: bug check 0x121 (spec 3.1 C1).
    [15] fn IoConnectInterruptEx(cx, params: u64) { ex(cx, params) }
    /// The name the header macro gives it (spec 1.1, I-1).
    [15] fn WdmlibIoConnectInterruptEx(cx, params: u64) { ex(cx, params) }

    /// nf-wdm-ioconnectinterrupt: eleven arguments.
    [15] fn IoConnectInterrupt(
        cx, out: u64, isr: u64, context: u64, lock: u64, vector: u32, irql: u8, sync_irql: u8, mode: u32, share: u8,
        mask: u64, floating: u8,
    ) {
        let request = LegacyRequest {
            has_out_pointer: out != 0,
            isr: none_if_zero(isr),
            context,
            lock: none_if_zero(lock),
            vector,
            irql: Irql(irql),
            sync_irql: Irql(sync_irql),
            mode,
            share_vector: share != 0,
            mask,
            floating_save: floating != 0,
        };
        let level = Irql(cx.irql());
        match with_core(cx, |core, ports| core.connect_legacy(&request, level, ports)) {
            Ok(c) => {
                fill(cx, &c, 0)?;
                report(cx, "IoConnectInterrupt", 0, 0, 0, 0, Some(&c), lock == 0);
                give(0, out, &c)
            }
            Err(ConnectFailure::Refused(r)) => {
                if r.null_out_pointer && out != 0 {
                    cx.w64(out, 0)?;
                }
                report(cx, "IoConnectInterrupt", 0, 0, r.status, 0, None, true);
                ret(u64::from(r.status))
            }
            Err(ConnectFailure::BugCheck(b)) => Err(stop_of(b, "IoConnectInterrupt called above PASSIVE_LEVEL")),
        }
    }

    [15] fn IoDisconnectInterruptEx(cx, params: u64) { disconnect_ex(cx, params) }
    [15] fn WdmlibIoDisconnectInterruptEx(cx, params: u64) { disconnect_ex(cx, params) }

    [15] fn IoDisconnectInterrupt(cx, object: u64) {
        let vectors = vectors_of(cx, object);
        let (level, inside) = (Irql(cx.irql()), interrupt::inside(cx));
        let outcome =
            with_core(cx, |core, ports| core.disconnect_legacy(none_if_zero(object), level, inside, ports));
        disconnected(cx, 0, vectors, outcome)
    }

    [2] fn IoReportInterruptActive(cx, params: u64) {
        let (version, context) = context_of(cx, params)?;
        with_core(cx, |core, ports| core.report_active(version, none_if_zero(context), ports))
            .map_err(|f| stop_of(f.bug_check, &format!("IoReportInterruptActive: {:?}", f.confusion)))?;
        void()
    }

    [2] fn IoReportInterruptInactive(cx, params: u64) {
        let (version, context) = context_of(cx, params)?;
        with_core(cx, |core, ports| core.report_inactive(version, none_if_zero(context), ports))
            .map_err(|f| stop_of(f.bug_check, &format!("IoReportInterruptInactive: {:?}", f.confusion)))?;
        void()
    }

    [15] fn IoGetAffinityInterrupt(cx, object: u64, out: u64) { affinity(cx, object, out) }
    [15] fn WdmlibIoGetAffinityInterrupt(cx, object: u64, out: u64) { affinity(cx, object, out) }

    [15] fn KeSynchronizeExecution(cx, object: u64, routine: u64, context: u64) {
        interrupt::synchronize(cx, object, routine, context)
    }

    [15] fn KeAcquireInterruptSpinLock(cx, object: u64) {
        let old = cx.irql();
        let plan = interrupt::plan_of(cx, object, cx.k.interrupts.core.spin_lock_plan(object, Irql(old)))?;
        cx.set_irql(plan.sync_irql.0);
        IsrThen::SpinLock { plan, old }.resume(cx, 0)
    }

    [15] fn KeReleaseInterruptSpinLock(cx, object: u64, old: u8) {
        let plan = cx.k.interrupts.core.spin_unlock_plan(object, Irql(cx.irql()));
        let plan = interrupt::plan_of(cx, object, plan)?;
        interrupt::release_spin(cx, plan.lock)?;
        cx.set_irql(old);
        void()
    }
}

/// Version and context of a disconnect or report; NULL parameters are a NULL context (spec X2, I-15).
fn context_of(cx: &Cx<'_>, params: u64) -> std::result::Result<(u32, u64), Stop> {
    if params == 0 { Ok((0, 0)) } else { Ok((cx.r32(params)?, cx.r64(params + 8)?)) }
}

fn disconnect_ex(cx: &mut Cx<'_>, params: u64) -> Result {
    let (version, context) = context_of(cx, params)?;
    let vectors = vectors_of(cx, context);
    let (level, inside) = (Irql(cx.irql()), interrupt::inside(cx));
    let outcome =
        with_core(cx, |core, ports| core.disconnect(version, none_if_zero(context), level, inside, ports));
    disconnected(cx, version, vectors, outcome)
}

/// GROUP_AFFINITY of the whole set (spec 4.4).
fn affinity(cx: &mut Cx<'_>, object: u64, out: u64) -> Result {
    let Some(a) = cx.k.interrupts.core.get_affinity(object).filter(|_| out != 0) else {
        return ret(0xC000_000D);
    };
    cx.w64(out, a.mask)?;
    cx.w16(out + 8, a.group)?;
    cx.put(out + 10, &[0; 6])?;
    ret(0)
}
