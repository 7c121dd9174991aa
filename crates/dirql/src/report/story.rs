//! A run's events folded into what a person wants to know.

use std::collections::BTreeMap;

use dirql_event::{ConnectedVector, Event, EventKind, ResourceLine, StepOutcome};
use serde::Serialize;

use super::{Finding, Place};
use crate::status;

/// One connect call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
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
    /// Virtual nanoseconds in them.
    pub ns: u64,
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
                EventKind::Connect { api, version, version_out, status, vectors, .. } => {
                    story.connections.push(Connection {
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
            finding.places.push(Place { role: "at".into(), stack: stack.clone(), ..Place::default() });
            out.push(finding);
        }
        for (what, code) in self.entries.iter().filter(|(_, s)| status::is_error(*s)) {
            out.push(Finding::new("start", format!("{what} returned {}", status::show(*code))));
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
