//! A run's events folded into what a person wants to know.

use std::collections::BTreeMap;

use dirql_event::{ConnectedVector, Event, EventKind, InterruptSource, ResourceLine, StepOutcome};
use serde::Serialize;

use super::{Finding, Place};
use crate::status;

/// One connect call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// The device, if the PDO passed is one of the lab's.
    pub device: Option<String>,
    /// The routine called.
    pub api: String,
    /// The version passed.
    pub version: u32,
    /// The version returned.
    pub version_out: u32,
    /// The NTSTATUS.
    pub status: u32,
    /// What was connected.
    pub vectors: Vec<ConnectedVector>,
}

/// What came of a vector or a message of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VectorCount {
    /// The vector.
    pub vector: u32,
    /// The message, for messages.
    pub message: Option<u32>,
    /// Calls of service routines.
    pub isr: u64,
    /// Those that claimed it.
    pub claimed: u64,
    /// Deferred routines queued by them.
    pub dpcs: u64,
    /// Virtual nanoseconds in them.
    pub ns: u64,
    /// The longest of them, in virtual nanoseconds.
    pub longest: u64,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IrpLine {
    /// Its number.
    pub id: u64,
    /// `IRP_MJ_*`.
    pub major: u8,
    /// `IRP_MN_*`.
    pub minor: u8,
    /// The control code.
    pub code: u32,
    /// Whether it was left pending.
    pub pending: bool,
    /// The status, once it was completed.
    pub status: Option<u32>,
    /// `IoStatus.Information`.
    pub information: u64,
}

impl IrpLine {
    /// What it asks for, in words.
    #[must_use]
    pub fn what(&self) -> String {
        let code = if self.code == 0 { String::new() } else { format!(" {:#x}", self.code) };
        format!("{}{code}", major(self.major, self.minor))
    }
}

/// A Plug and Play request that finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PnpLine {
    /// The device.
    pub device: String,
    /// `IRP_MN_*`.
    pub minor: u8,
    /// The status.
    pub status: u32,
}

/// A moment of the first interrupt's way from its device to the request it completes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FirstLine {
    /// Virtual nanoseconds since the machine started.
    pub at: u64,
    /// The processor; none for the device.
    pub cpu: Option<u32>,
    /// The IRQL.
    pub irql: u8,
    /// What happened.
    pub what: String,
}

/// One step of the workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepLine {
    /// Its place.
    pub index: u32,
    /// What.
    pub what: String,
    /// Its status.
    pub status: Option<u32>,
    /// How it ended.
    pub outcome: StepOutcome,
}

/// A run's events, folded.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunStory {
    /// The way of the first interrupt that a service routine took.
    pub first: Vec<FirstLine>,
    /// Plug and Play requests.
    pub pnp: Vec<PnpLine>,
    /// Imports that dirql lacks, as `module!name`, called or not.
    pub missing: Vec<String>,
    /// Images with their base addresses.
    pub drivers: Vec<(String, u64)>,
    /// What `DriverEntry` and `AddDevice` returned, by routine and subject.
    pub entries: Vec<(String, u32)>,
    /// Devices: name, model, bus identity, interrupts.
    pub devices: Vec<(String, String, String, String)>,
    /// Resources by device.
    pub resources: Vec<(String, Vec<ResourceLine>)>,
    /// Connect calls in order.
    pub connections: Vec<Connection>,
    /// Interrupts by vector and message.
    pub vectors: Vec<VectorCount>,
    /// How often devices signalled.
    pub raised: u64,
    /// Deferred routines that ran, and their virtual nanoseconds.
    pub dpcs: (u64, u64),
    /// Vectors nobody handled.
    pub unexpected: u64,
    /// Requests.
    pub irps: Vec<IrpLine>,
    /// What the driver printed.
    pub prints: Vec<String>,
    /// Steps.
    pub steps: Vec<StepLine>,
    /// The bug check, as code, name, parameters, reason and stack.
    #[expect(clippy::type_complexity, reason = "it is read in one place, by position")]
    pub bug_check: Option<(u32, String, [u64; 4], String, Vec<String>)>,
    /// Images unloaded.
    pub unloaded: Vec<String>,
}

impl RunStory {
    /// Folds events in order.
    #[must_use]
    pub fn fold(events: &[Event]) -> Self {
        let mut story = Self::default();
        let mut vectors: BTreeMap<(u32, Option<u32>), VectorCount> = BTreeMap::new();
        let mut irps: BTreeMap<u64, usize> = BTreeMap::new();
        // The message of the service routines entered and not yet left, by processor: they nest.
        let mut inside: BTreeMap<Option<u32>, Vec<(u32, Option<u32>)>> = BTreeMap::new();
        for event in events {
            match &event.kind {
                EventKind::DriverLoaded { image, base, .. } => story.drivers.push((image.clone(), *base)),
                EventKind::DriverEntry { image, status } => {
                    story.entries.push((format!("DriverEntry {image}"), *status));
                }
                EventKind::AddDevice { device, status } => {
                    story.entries.push((format!("AddDevice {device}"), *status));
                }
                EventKind::DeviceFound { name, model, id, interrupts, .. } => {
                    story.devices.push((name.clone(), model.clone(), id.clone(), interrupts.clone()));
                }
                EventKind::ResourcesAssigned { device, resources } => {
                    story.resources.push((device.clone(), resources.clone()));
                }
                EventKind::ImportsResolved { missing, .. } => {
                    story.missing.extend(missing.iter().map(|m| format!("{}!{}", m.module, m.name)));
                }
                EventKind::Pnp { device, minor, status } => {
                    story.pnp.push(PnpLine { device: device.clone(), minor: *minor, status: *status });
                }
                EventKind::DpcQueued { .. } => {
                    let by = inside.get(&event.cpu).and_then(|i| i.last()).copied();
                    if let Some(count) = by.and_then(|k| vectors.get_mut(&k)) {
                        count.dpcs += 1;
                    }
                }
                EventKind::Connect { api, version, version_out, status, vectors, device } => {
                    story.connections.push(Connection {
                        device: device.clone(),
                        api: api.clone(),
                        version: *version,
                        version_out: *version_out,
                        status: *status,
                        vectors: vectors.clone(),
                    });
                }
                EventKind::InterruptRaised { .. } => story.raised += 1,
                EventKind::IsrEnter { vector, message, .. } => {
                    let key = (*vector, *message);
                    inside.entry(event.cpu).or_default().push(key);
                    let new = || VectorCount { vector: *vector, message: *message, ..VectorCount::default() };
                    vectors.entry(key).or_insert_with(new).isr += 1;
                }
                EventKind::IsrExit { claimed, ns, .. } => {
                    let key = inside.get_mut(&event.cpu).and_then(Vec::pop);
                    if let Some(count) = key.and_then(|k| vectors.get_mut(&k)) {
                        count.claimed += u64::from(*claimed);
                        count.ns = count.ns.saturating_add(*ns);
                        count.longest = count.longest.max(*ns);
                    }
                }
                EventKind::DpcEnd { ns, .. } => {
                    story.dpcs = (story.dpcs.0 + 1, story.dpcs.1.saturating_add(*ns));
                }
                EventKind::Unexpected { .. } => story.unexpected += 1,
                EventKind::IrpSent { id, major, minor, code } => {
                    irps.insert(*id, story.irps.len());
                    story.irps.push(IrpLine {
                        id: *id,
                        major: *major,
                        minor: *minor,
                        code: *code,
                        pending: false,
                        status: None,
                        information: 0,
                    });
                }
                EventKind::IrpPending { id } => {
                    if let Some(&at) = irps.get(id) {
                        story.irps[at].pending = true;
                    }
                }
                EventKind::IrpCompleted { id, status, information } => {
                    if let Some(&at) = irps.get(id) {
                        story.irps[at].status = Some(*status);
                        story.irps[at].information = *information;
                    }
                }
                EventKind::Print { text } => story.prints.push(text.clone()),
                EventKind::Step { index, what, status, outcome } => story.steps.push(StepLine {
                    index: *index,
                    what: what.clone(),
                    status: *status,
                    outcome: outcome.clone(),
                }),
                EventKind::BugCheck { code, name, params, reason, stack } => {
                    story.bug_check = Some((*code, name.clone(), *params, reason.clone(), stack.clone()));
                }
                EventKind::Unloaded { image } => story.unloaded.push(image.clone()),
                _ => {}
            }
        }
        story.vectors = vectors.into_values().collect();
        story.first = first(events);
        story
    }

    /// The counters a `[check]` may bound ([`crate::lab::COUNTERS`]).
    #[must_use]
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        let isr = self.vectors.iter().map(|v| v.isr).sum();
        let claimed = self.vectors.iter().map(|v| v.claimed).sum();
        BTreeMap::from([
            ("raised", self.raised),
            ("isr", isr),
            ("claimed", claimed),
            ("unclaimed", u64::saturating_sub(isr, claimed)),
            ("dpc", self.dpcs.0),
            ("irp", self.irps.len() as u64),
            ("prints", self.prints.len() as u64),
            ("unexpected", self.unexpected),
        ])
    }

    /// What is wrong by the events alone: a bug check, steps that did not go as expected.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut out = Vec::new();
        if let Some((code, name, params, reason, stack)) = &self.bug_check {
            let p = params.map(|p| format!("{p:#x}")).join(", ");
            let mut finding = Finding::new("bugcheck", format!("{code:#x} {name} ({p}): {reason}"));
            let (image, rva) = stack.first().and_then(|s| s.rsplit_once("+0x")).unzip();
            let rva = rva.and_then(|r| u64::from_str_radix(r, 16).ok());
            let place = Place { role: "at".into(), image: image.map(Into::into), rva, ..Place::default() };
            finding = finding.at(Place { stack: stack.clone(), ..place });
            out.push(finding);
        }
        for step in &self.steps {
            if let StepOutcome::NotAsExpected { what, expected, got } = &step.outcome {
                let message = format!(
                    "step {} ({}): {what} is {got}, the lab expects {expected}",
                    step.index + 1,
                    step.what
                );
                out.push(Finding::new("step", message));
            }
        }
        out
    }
}

/// The most moments of the first interrupt that are kept.
const MOMENTS: usize = 16;

/// The way of the first interrupt: from the signal, over the service routine and the deferred routine, to the
/// request that it completes.
fn first(events: &[Event]) -> Vec<FirstLine> {
    let Some(entered) = events.iter().position(|e| matches!(e.kind, EventKind::IsrEnter { .. })) else {
        return Vec::new();
    };
    let cpu = events[entered].cpu;
    let raised = events[..entered].iter().rposition(|e| matches!(e.kind, EventKind::InterruptRaised { .. }));
    let mut images: Vec<(&str, u64, u64)> = Vec::new();
    for e in &events[..entered] {
        if let EventKind::DriverLoaded { image, base, size, .. } = &e.kind {
            images.push((image, *base, *size));
        }
    }
    let named = |va: u64| {
        let image = images.iter().find(|(_, base, size)| va >= *base && va - base < *size);
        image.map_or_else(|| format!("{va:#x}"), |(name, base, _)| format!("{name}+{:#x}", va - base))
    };
    let mut out = Vec::new();
    let mut queued = 0u32;
    let mut inside = 0u32;
    for e in &events[raised.unwrap_or(entered)..] {
        if out.len() >= MOMENTS {
            break;
        }
        let what = match &e.kind {
            EventKind::InterruptRaised { device, source: InterruptSource::Line { gsi } } => {
                format!("{device} asserts its line, GSI {gsi}")
            }
            EventKind::InterruptRaised { device, source: InterruptSource::Message { message } } => {
                format!("{device} sends message {message}")
            }
            EventKind::InterruptAccepted { vector } => format!("the processor takes vector {vector:#x}"),
            EventKind::IsrEnter { routine, .. } => {
                inside += 1;
                format!("ISR {} is entered", named(*routine))
            }
            EventKind::DpcQueued { routine, target } => {
                queued += 1;
                format!("DPC {} is queued on processor {target}", named(*routine))
            }
            EventKind::IsrExit { claimed, ns, .. } => {
                inside = inside.saturating_sub(1);
                let claimed = if *claimed { "claims it" } else { "says it is not its own" };
                format!("the ISR returns after {ns} ns and {claimed}")
            }
            EventKind::DpcStart { routine } => format!("DPC {} starts", named(*routine)),
            EventKind::DpcEnd { ns, .. } => {
                queued = queued.saturating_sub(1);
                format!("the DPC returns after {ns} ns")
            }
            EventKind::IrpCompleted { id, status, .. } => {
                format!("request {id} is completed: {}", status::show(*status))
            }
            _ => continue,
        };
        out.push(FirstLine { at: e.at, cpu: e.cpu, irql: e.irql, what });
        let over = inside == 0 && queued == 0;
        // A shared line asks the next routine when one does not claim.
        let ends = matches!(&e.kind, EventKind::IsrExit { claimed: true, .. } | EventKind::DpcEnd { .. });
        if ends && over && e.cpu == cpu {
            break;
        }
    }
    out
}

/// `IRP_MN_*` of `IRP_MJ_PNP` (wdm.h).
pub(super) fn pnp_minor(minor: u8) -> Option<&'static str> {
    Some(match minor {
        0x00 => "start",
        0x01 => "query-remove",
        0x02 => "remove",
        0x03 => "cancel-remove",
        0x04 => "stop",
        0x05 => "query-stop",
        0x06 => "cancel-stop",
        0x07 => "query-device-relations",
        0x08 => "query-interface",
        0x09 => "query-capabilities",
        0x0b => "query-resource-requirements",
        0x0d => "filter-resource-requirements",
        0x13 => "query-id",
        0x17 => "surprise-removal",
        _ => return None,
    })
}

/// `IRP_MN_*` of `IRP_MJ_POWER` (wdm.h).
fn power_minor(minor: u8) -> Option<&'static str> {
    ["wait-wake", "power-sequence", "set-power", "query-power"].get(usize::from(minor)).copied()
}

/// `IRP_MJ_*` (wdm.h), with the minor where it says what is asked.
fn major(major: u8, minor: u8) -> String {
    let name = match major {
        0x00 => "create",
        0x02 => "close",
        0x03 => "read",
        0x04 => "write",
        0x0e => "ioctl",
        0x0f => "internal ioctl",
        0x12 => "cleanup",
        0x16 => "power",
        0x17 => "system-control",
        0x1b => "pnp",
        _ => return format!("major {major:#x} minor {minor:#x}"),
    };
    let known = match major {
        0x16 => power_minor(minor),
        0x1b => pnp_minor(minor),
        _ => return name.into(),
    };
    known.map_or_else(|| format!("{name} minor {minor:#x}"), |minor| format!("{name} {minor}"))
}
