//! The steps of a workload.

use super::{Interrupts, Setting};

/// The most steps a workload may have with every `repeat` written out.
pub(super) const MOST_STEPS: u64 = 1_000_000;

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// The thread that does it; the main one if `None`.
    pub thread: Option<String>,
    /// What must come of it.
    pub expect: Expect,
    /// Its line in the lab file; 0 for a made one.
    pub line: u32,
}

/// What a step expects. An empty one expects nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// This NTSTATUS.
    pub status: Option<u32>,
    /// These bytes.
    pub output: Option<Vec<u8>>,
    /// This `IoStatus.Information`.
    pub information: Option<u64>,
    /// Within this many nanoseconds of virtual time.
    pub within: Option<u64>,
}

/// The Plug and Play requests a step may send, with their `IRP_MN_*` codes (wdm.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the requests are")]
#[repr(u8)]
pub enum PnpMinor {
    Start = 0x00,
    QueryRemove = 0x01,
    Remove = 0x02,
    CancelRemove = 0x03,
    Stop = 0x04,
    QueryStop = 0x05,
    CancelStop = 0x06,
    SurpriseRemoval = 0x17,
}

impl PnpMinor {
    /// Each with its name in a lab.
    pub const ALL: &[(&str, Self)] = &[
        ("start", Self::Start),
        ("query_stop", Self::QueryStop),
        ("cancel_stop", Self::CancelStop),
        ("stop", Self::Stop),
        ("query_remove", Self::QueryRemove),
        ("cancel_remove", Self::CancelRemove),
        ("remove", Self::Remove),
        ("surprise_removal", Self::SurpriseRemoval),
    ];
}

/// A device power state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the states are")]
pub enum DevicePower {
    D0,
    D1,
    D2,
    D3,
}

/// What a power step sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PowerTarget {
    /// The state of one device.
    Device(DevicePower),
    /// The state of the system, 0 to 5.
    System(u8),
}

/// What a wait waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// The request of that name.
    Request(String),
    /// The thread of that name.
    Thread(String),
    /// Virtual time, in nanoseconds.
    Time(u64),
}

/// What a set step writes.
#[derive(Clone, Debug, PartialEq)]
pub enum SetTarget {
    /// A register of a device.
    Register {
        /// The device.
        device: String,
        /// The register's name.
        register: String,
        /// Its new value.
        value: Setting,
    },
    /// Physical memory.
    Memory {
        /// Where.
        address: u64,
        /// What.
        bytes: Vec<u8>,
    },
}

/// What a step does. A `device` of `None` is the lab's only device, or the driver's first.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are the lab's keys; docs/lab.md describes them")]
pub enum Action {
    /// Opens a device object.
    Open { name: Option<String>, handle: Option<String> },
    /// Reads.
    Read { handle: Option<String>, length: u32, offset: u64, request: Option<String> },
    /// Writes.
    Write { handle: Option<String>, input: Vec<u8>, offset: u64, request: Option<String> },
    /// Sends a control code.
    Ioctl {
        internal: bool,
        handle: Option<String>,
        code: u32,
        input: Vec<u8>,
        output_length: u32,
        request: Option<String>,
    },
    /// Cancels an asynchronous request.
    Cancel { request: String },
    /// Waits.
    Wait(WaitFor),
    /// Closes a handle.
    Close { handle: Option<String> },
    /// Sends a Plug and Play request.
    Pnp { device: Option<String>, minor: PnpMinor, rebalance: Option<Interrupts> },
    /// Sets a power state.
    Power { device: Option<String>, target: PowerTarget },
    /// Makes a device signal.
    Raise { device: Option<String>, source: u32 },
    /// Writes a device register or memory.
    Set(SetTarget),
    /// Removes a device in order.
    Remove { device: Option<String> },
    /// Pulls a device out.
    SurpriseRemove { device: Option<String> },
    /// Does steps again and again.
    Repeat { count: u32, steps: Vec<Step> },
}

impl Action {
    /// The value of `do`.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::Ioctl { internal: false, .. } => "ioctl",
            Self::Ioctl { internal: true, .. } => "internal_ioctl",
            Self::Cancel { .. } => "cancel",
            Self::Wait(_) => "wait",
            Self::Close { .. } => "close",
            Self::Pnp { .. } => "pnp",
            Self::Power { .. } => "power",
            Self::Raise { .. } => "raise",
            Self::Set(_) => "set",
            Self::Remove { .. } => "remove",
            Self::SurpriseRemove { .. } => "surprise_remove",
            Self::Repeat { .. } => "repeat",
        }
    }

    /// Whether it sends a request that completes, or waits for one.
    pub(super) fn is_request(&self) -> bool {
        match self {
            Self::Open { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Ioctl { .. }
            | Self::Close { .. }
            | Self::Wait(WaitFor::Request(_))
            | Self::Pnp { .. }
            | Self::Power { .. }
            | Self::Remove { .. }
            | Self::SurpriseRemove { .. } => true,
            Self::Cancel { .. } | Self::Wait(_) | Self::Raise { .. } | Self::Set(_) | Self::Repeat { .. } => {
                false
            }
        }
    }

    /// Every value of `do`.
    pub const VERBS: &[&str] = &[
        "open",
        "read",
        "write",
        "ioctl",
        "internal_ioctl",
        "cancel",
        "wait",
        "close",
        "pnp",
        "power",
        "raise",
        "set",
        "remove",
        "surprise_remove",
        "repeat",
    ];
}

/// The step in a few words, as reports name it: `ioctl 0x222000`.
impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.verb())?;
        let device = |f: &mut std::fmt::Formatter<'_>, device: &Option<String>| match device {
            Some(name) => write!(f, " {name}"),
            None => Ok(()),
        };
        match self {
            Self::Open { name: Some(name), .. } => write!(f, " {name}"),
            Self::Read { length, .. } => write!(f, " {length} bytes"),
            Self::Write { input, .. } => write!(f, " {} bytes", input.len()),
            Self::Ioctl { code, .. } => write!(f, " {code:#x}"),
            Self::Cancel { request } | Self::Wait(WaitFor::Request(request)) => write!(f, " {request}"),
            Self::Wait(WaitFor::Thread(thread)) => write!(f, " thread {thread}"),
            Self::Wait(WaitFor::Time(ns)) => write!(f, " {}", super::units::show_time(*ns)),
            Self::Close { handle: Some(handle) } => write!(f, " {handle}"),
            Self::Pnp { minor, device: d, .. } => {
                let name = PnpMinor::ALL.iter().find(|(_, m)| m == minor).map_or("", |(name, _)| name);
                write!(f, " {name}")?;
                device(f, d)
            }
            Self::Power { device: d, target } => {
                match target {
                    PowerTarget::Device(state) => write!(f, " {state:?}")?,
                    PowerTarget::System(state) => write!(f, " S{state}")?,
                }
                device(f, d)
            }
            Self::Raise { device: d, source } => {
                device(f, d)?;
                write!(f, " source {source}")
            }
            Self::Set(SetTarget::Register { device, register, .. }) => write!(f, " {device} {register}"),
            Self::Set(SetTarget::Memory { address, .. }) => write!(f, " memory {address:#x}"),
            Self::Remove { device: d } | Self::SurpriseRemove { device: d } => device(f, d),
            Self::Repeat { count, .. } => write!(f, " {count} times"),
            Self::Open { name: None, .. } | Self::Close { handle: None } => Ok(()),
        }
    }
}

/// How many steps these are with every `repeat` written out; saturates.
pub(super) fn weight(steps: &[Step]) -> u64 {
    steps.iter().fold(0u64, |sum, step| {
        sum.saturating_add(match &step.action {
            Action::Repeat { count, steps } => u64::from(*count).saturating_mul(weight(steps)),
            _ => 1,
        })
    })
}

/// Writes every `repeat` out.
pub(super) fn flatten<'a>(
    steps: &'a [Step],
    thread: Option<&'a str>,
    out: &mut Vec<(&'a Step, Option<&'a str>)>,
) {
    for step in steps {
        let thread = step.thread.as_deref().or(thread);
        match &step.action {
            Action::Repeat { count, steps } => (0..*count).for_each(|_| flatten(steps, thread, out)),
            _ => out.push((step, thread)),
        }
    }
}
