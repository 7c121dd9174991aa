//! What must hold when a run is over: the lab's `[check]`.

use dirql_event::StepOutcome;
use dirql_kernel::pool::tag_name;
use dirql_kernel::system::System;
use dirql_mem::Va;

use crate::lab::{Bound, Lab};
use crate::report::{Finding, RunStory};
use crate::status;

/// The most leaks told one by one.
const MOST: usize = 8;

/// The findings of a run whose driver's life is over.
pub(crate) fn at_end(lab: &Lab, system: &System, story: &RunStory) -> Vec<Finding> {
    let mut out = vec![];
    let k = &system.kernel;
    if lab.drivers.iter().all(|d| d.devices.is_empty()) && story.irps.is_empty() {
        let message = "the lab gives the driver no device, so nothing but DriverEntry and DriverUnload ran; a \
                       [[device]] and `device = \"...\"` in [driver] give it one";
        let mut finding = Finding::new("start", message);
        finding.level = crate::lab::Level::Advice;
        out.push(finding);
    }
    if lab.check.no_outstanding_irp {
        for i in story.irps.iter().filter(|i| i.status.is_none()) {
            let message = format!("request {} ({}) was never completed", i.id, i.what());
            out.push(Finding::new("check.no_outstanding_irp", message));
        }
    }
    // A lab that leads the life itself may end with the driver at work.
    let gone = story.unloaded.len() >= story.drivers.len() || !lab.manual_life;
    if lab.check.no_connected_interrupt && gone {
        for (_, object) in k.interrupts.core.objects() {
            let message = format!(
                "vector {:#x} (DIRQL {}) is still connected after the driver is gone: it never called \
                 IoDisconnectInterruptEx for it, and the next interrupt would run code that is not there",
                object.vector, object.irql.0
            );
            out.push(Finding::new("check.no_connected_interrupt", message));
        }
    }
    if lab.check.no_leaked_pool && gone {
        let left: Vec<_> = k.pool.live().filter(|b| b.driver).collect();
        if !left.is_empty() {
            let bytes: u64 = left.iter().map(|b| b.size).fold(0, u64::saturating_add);
            let list: Vec<String> =
                left.iter().take(MOST).map(|b| format!("'{}' {} bytes", tag_name(b.tag), b.size)).collect();
            let more =
                if left.len() > MOST { format!("; and {} more", left.len() - MOST) } else { String::new() };
            let message = format!(
                "{} block(s) of pool, {bytes} bytes, are left after the driver is gone: {}{more}",
                left.len(),
                list.join("; ")
            );
            out.push(Finding::new("check.no_leaked_pool", message));
        }
    }
    for (name, wanted) in &lab.check.devices {
        let place = lab.devices.iter().position(|d| d.name == *name);
        let Some(id) = place.and_then(|i| system.machine.devices().get(i).copied()) else { continue };
        let registers = system.machine.device_counters(id);
        for (register, want) in wanted {
            let got = registers.iter().find(|(n, _)| n.eq_ignore_ascii_case(register)).map(|(_, v)| *v);
            if got != Some(*want) {
                let got = got.map_or_else(|| "not there".into(), |v| format!("{v:#x}"));
                let message = format!("register `{register}` of {name} is {got}, the lab wants {want:#x}");
                out.push(Finding::new("check.device", message));
            }
        }
    }
    out
}

/// What did not start: every status that NT_SUCCESS refuses, a warning too, is a failure of the routine that gave it.
pub(crate) fn started(lab: &Lab, system: &System, story: &RunStory) -> Vec<Finding> {
    let refused = |status: u32| (status as i32) < 0;
    let k = &system.kernel;
    // DRIVER_OBJECT: DriverExtension at 0x30, whose AddDevice is at 8; MajorFunction at 0x70, IRP_MJ_PNP is 27.
    let object = k.life.driver_object();
    let pointer = |at: u64| system.machine.mem.read_u64(Va(at)).unwrap_or(0);
    let entry = k.modules.drivers.first().map_or(0, |m| m.entry);
    let (add, pnp) = (pointer(pointer(object + 0x30) + 8), pointer(object + 0x70 + 8 * 27));
    let finding =
        |message: String, va: u64| Finding::new("start", message).at(crate::run::place(&k.modules, va));
    let mut out = vec![];
    for (what, status) in story.entries.iter().filter(|(_, s)| refused(*s)) {
        let va = if what.starts_with("AddDevice ") { add } else { entry };
        out.push(finding(format!("{what} returned {}", status::show(*status)), va));
    }
    for p in story.pnp.iter().filter(|p| p.minor == 0 && refused(p.status)) {
        let message = format!("the start request of {} failed with {}", p.device, status::show(p.status));
        out.push(finding(message, pnp));
    }
    for (what, _) in story.entries.iter().filter(|(_, s)| !refused(*s)) {
        let Some(device) = what.strip_prefix("AddDevice ") else { continue };
        if !lab.manual_life && matches!(k.life.attached(device), Some(false)) {
            let message = format!(
                "AddDevice {device} succeeded and attached nothing to the device's stack, so {device} was not started"
            );
            let mut finding = finding(message, add);
            finding.level = crate::lab::Level::Advice;
            out.push(finding);
        }
    }
    out
}

/// The findings that counters give. They say something of any run that its driver ended.
pub(crate) fn counters(lab: &Lab, story: &RunStory) -> Vec<Finding> {
    let counters = story.counters();
    let mut out = vec![];
    for (name, bound) in &lab.check.counters {
        let value = counters.get(name.as_str()).copied().unwrap_or(0);
        let Bound { low, high } = *bound;
        if value < low || value > high {
            let wanted = match (low, high) {
                (low, high) if low == high => format!("{low}"),
                (low, u64::MAX) => format!("at least {low}"),
                (0, high) => format!("at most {high}"),
                (low, high) => format!("{low} to {high}"),
            };
            let message = format!("counter `{name}` is {value}, the lab wants {wanted}");
            out.push(Finding::new("check.counter", message));
        }
    }
    out
}

/// Steps that failed although the lab says nothing of failing.
pub(crate) fn steps(lab: &Lab, story: &RunStory) -> Vec<Finding> {
    let wanted = lab.flat_steps();
    let unexpected = |s: &&crate::report::StepLine| {
        let failed = s.outcome == StepOutcome::Done && s.status.is_some_and(status::is_error);
        failed && wanted.get(s.index as usize).is_none_or(|(step, _)| step.expect.status.is_none())
    };
    let told = |s: &crate::report::StepLine| {
        let code = status::show(s.status.unwrap_or(0));
        let message = format!(
            "step {} ({}) failed with {code}; if that is right, say so: expect = {{ status = \"...\" }}",
            s.index + 1,
            s.what
        );
        Finding::new("step", message)
    };
    story.steps.iter().filter(unexpected).map(told).collect()
}
