//! The lab file: the machine, the devices, the drivers, and the workload of a run.
//!
//! Reference: docs/lab.md. [`Lab::load`] understands the whole language; what this dirql can't do yet is
//! named by [`Lab::lacking`], so that it is refused where it would be used and never passed over.

mod defaults;
mod lacks;
mod parse;
mod print;
mod read;
mod step;
mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use lacks::Lacking;
pub use step::{Action, DevicePower, Expect, PnpMinor, PowerTarget, SetTarget, Step, WaitFor};

use crate::problem::InputError;

/// The instructions a run may take when the lab says nothing.
pub const DEFAULT_BUDGET: u64 = 20_000_000;

/// The largest lab file, in bytes.
pub const LAB_SIZE_CAP: u64 = 4 << 20;

/// A lab, read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Lab {
    /// The file it came from; `None` for one made by [`Lab::default_for`].
    pub path: Option<PathBuf>,
    /// The machine.
    pub machine: MachineLab,
    /// The devices; at least one, unless a driver is a legacy one without a device.
    pub devices: Vec<DeviceLab>,
    /// The function drivers; empty if the image is to come from the command line.
    pub drivers: Vec<DriverLab>,
    /// Filter drivers.
    pub filters: Vec<FilterLab>,
    /// Modules the drivers import from beside the kernel.
    pub libraries: Vec<LibraryLab>,
    /// The workload, in order.
    pub steps: Vec<Step>,
    /// What must hold at the end.
    pub check: Checks,
    /// The level of each rule.
    pub rules: Rules,
    /// How many instructions a run may take.
    pub budget: u64,
    /// Whether starting, stopping and unloading are steps of the lab's own.
    pub manual_life: bool,
}

/// Which Windows the kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the meaning")]
pub enum Windows {
    Windows2000,
    Xp,
    Server2003,
    Vista,
    Windows7,
    Windows8,
    Windows8_1,
    Windows10,
    Windows11,
}

impl Windows {
    /// Every version with its name in a lab, oldest first.
    pub const ALL: &[(&str, Self)] = &[
        ("2000", Self::Windows2000),
        ("xp", Self::Xp),
        ("2003", Self::Server2003),
        ("vista", Self::Vista),
        ("7", Self::Windows7),
        ("8", Self::Windows8),
        ("8.1", Self::Windows8_1),
        ("10", Self::Windows10),
        ("11", Self::Windows11),
    ];

    /// Its name in a lab.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, w)| *w == self).map_or("11", |(name, _)| name)
    }
}

/// Who takes an interrupt sent to several processors (spec 2.7, I-7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Any processor of the set, for each event anew.
    #[default]
    Lowest,
    /// One processor, picked when the vector is assigned.
    Fixed,
}

/// The lock of a message-based connection without a lock of the driver's (spec D-8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locks {
    /// One for each message.
    #[default]
    PerMessage,
    /// One for all of them.
    PerSet,
}

/// `[machine]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineLab {
    /// Which exports and connect versions exist.
    pub windows: Windows,
    /// Processors, 1 to 64.
    pub cpus: u32,
    /// Processor groups, 1 to 4.
    pub groups: u32,
    /// The seed of what is random.
    pub seed: u64,
    /// See [`Delivery`].
    pub delivery: Delivery,
    /// See [`Locks`].
    pub locks: Locks,
    /// The other status of each disputed row of the error matrix (spec 3.9).
    pub alternative_status: bool,
    /// A connect with a device object that is no PDO is a bug check, not a status (spec 3.8, E4).
    pub pdo_bugcheck: bool,
}

impl Default for MachineLab {
    fn default() -> Self {
        Self {
            windows: Windows::Windows11,
            cpus: 2,
            groups: 1,
            seed: 1,
            delivery: Delivery::default(),
            locks: Locks::default(),
            alternative_status: false,
            pdo_bugcheck: false,
        }
    }
}

/// How a device can interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// It can't.
    None,
    /// By this many lines; PCI has one.
    Line(u32),
    /// By this many MSI messages: 1, 2, 4, 8, 16 or 32.
    Msi(u32),
    /// By this many MSI-X messages, 1 to 2048.
    Msix(u32),
}

impl Interrupts {
    /// How many interrupts that is.
    #[must_use]
    pub fn count(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Line(n) | Self::Msi(n) | Self::Msix(n) => n,
        }
    }
}

impl std::fmt::Display for Interrupts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Line(1) => f.write_str("line"),
            Self::Line(n) => write!(f, "line:{n}"),
            Self::Msi(n) => write!(f, "msi:{n}"),
            Self::Msix(n) => write!(f, "msix:{n}"),
        }
    }
}

/// The bus a device is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bus {
    /// PCI.
    #[default]
    Pci,
    /// ISA, or ACPI without a bus: fixed ports, memory and IRQ.
    Isa,
}

/// A value for the registry or for a property of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// A number: REG_DWORD, or REG_QWORD if it needs more than 32 bits.
    Number(u64),
    /// Text: REG_SZ.
    Text(String),
    /// True or false: REG_DWORD 1 or 0.
    Bool(bool),
    /// Numbers: REG_BINARY, a byte each, in the registry.
    Numbers(Vec<u64>),
    /// Texts: REG_MULTI_SZ.
    Texts(Vec<String>),
}

/// Registry values by path: the key `Interrupt Management\Affinity Policy\DevicePolicy` is the value
/// `DevicePolicy` in that subkey. Paths are compared without regard to case.
pub type Registry = BTreeMap<String, Setting>;

/// `[[device]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceLab {
    /// Its name in this lab.
    pub name: String,
    /// The name of its model, or `script`.
    pub model: String,
    /// The script, for `script = "..."`, relative to the lab.
    pub script: Option<PathBuf>,
    /// Its bus.
    pub bus: Bus,
    /// How it can interrupt.
    pub interrupts: Interrupts,
    /// The I/O APIC input its line is wired to; by slot if `None`.
    pub gsi: Option<u32>,
    /// The DIRQLs to assign: none, one, or one for each interrupt.
    pub irql: Vec<u8>,
    /// The processors to assign, as masks: none, one, or one for each interrupt.
    pub affinity: Vec<u64>,
    /// `IRQ_DEVICE_POLICY`, 0 to 5.
    pub policy: Option<u16>,
    /// `IRQ_PRIORITY`, 0 to 3.
    pub priority: Option<u32>,
    /// How often the device signals of its own accord in a run.
    pub arrivals: u32,
    /// Vendor and device, instead of the model's.
    pub id: Option<(u16, u16)>,
    /// Subsystem vendor and device, instead of the model's.
    pub subsystem: Option<(u16, u16)>,
    /// Class, subclass and interface as 0xCCSSII, instead of the model's.
    pub class: Option<u32>,
    /// Sizes of its memory BARs, instead of the model's.
    pub bars: Vec<u64>,
    /// ISA: I/O port ranges, first and last.
    pub ports: Vec<(u16, u16)>,
    /// ISA: memory ranges, first and last.
    pub memory: Vec<(u64, u64)>,
    /// ISA: interrupt request lines.
    pub irq: Vec<u32>,
    /// Its hardware key's values.
    pub registry: Registry,
    /// The model's own properties.
    pub properties: BTreeMap<String, Setting>,
    /// Its line in the lab file; 0 for a made one.
    pub line: u32,
}

/// `[driver]` or `[[driver]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct DriverLab {
    /// The image, relative to the lab unless absolute.
    pub image: PathBuf,
    /// The devices whose PDOs its AddDevice gets; empty for a legacy driver.
    pub devices: Vec<String>,
    /// Its service key's values; those of its `Parameters` subkey carry that path.
    pub registry: Registry,
    /// Its line in the lab file.
    pub line: u32,
}

/// `[[filter]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterLab {
    /// The image.
    pub image: PathBuf,
    /// Above the function driver, or below it.
    pub upper: bool,
    /// The device whose stack it joins.
    pub device: String,
    /// Its line in the lab file.
    pub line: u32,
}

/// `[[library]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryLab {
    /// The image.
    pub image: PathBuf,
    /// Its line in the lab file.
    pub line: u32,
}

/// A bound on a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// No less than this.
    pub low: u64,
    /// No more than this.
    pub high: u64,
}

/// `[check]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checks {
    /// No request is outstanding.
    pub no_outstanding_irp: bool,
    /// No interrupt is connected after the driver is gone.
    pub no_connected_interrupt: bool,
    /// No pool is left after the driver is gone.
    pub no_leaked_pool: bool,
    /// Bounds on the counters of [`COUNTERS`].
    pub counters: BTreeMap<String, Bound>,
    /// Values that registers of devices must have, by device and register.
    pub devices: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            no_outstanding_irp: true,
            no_connected_interrupt: true,
            no_leaked_pool: true,
            counters: BTreeMap::new(),
            devices: BTreeMap::new(),
        }
    }
}

/// The counters a `[check]` may bound.
pub const COUNTERS: &[&str] =
    &["raised", "isr", "claimed", "unclaimed", "dpc", "irp", "prints", "unexpected"];

/// How seriously a rule is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Not at all.
    Off,
    /// Told, but the run is well.
    Advice,
    /// A finding.
    Finding,
}

/// A finding that is not to be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// The rule's id.
    pub rule: String,
    /// The function it is in.
    pub function: Option<String>,
    /// Why it is no fault.
    pub reason: String,
}

/// `[rules]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Levels by rule id.
    pub levels: BTreeMap<String, Level>,
    /// Suppressions.
    pub suppress: Vec<Suppression>,
}

impl Lab {
    /// Reads a lab file.
    ///
    /// # Errors
    /// If it can't be read, is too large, is no TOML, or does not describe a lab.
    pub fn load(path: &Path) -> Result<Self, InputError> {
        let bytes = crate::file::read(path, LAB_SIZE_CAP, "lab")?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let message = format!("the lab is not UTF-8 text (byte {})", e.utf8_error().valid_up_to());
            InputError::new(Some(path), message, Some("a lab is a TOML file; docs/lab.md describes it"))
        })?;
        Self::parse(&text, Some(path))
    }

    /// Reads a lab from its text. `path` is for messages, and what relative paths are relative to.
    ///
    /// # Errors
    /// If it is no TOML, or does not describe a lab.
    pub fn parse(text: &str, path: Option<&Path>) -> Result<Self, InputError> {
        parse::lab(text, path).map_err(|problems| InputError::in_text(path, text, problems))
    }

    /// The device of that name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&DeviceLab> {
        self.devices.iter().find(|d| d.name == name)
    }

    /// A path of the lab, relative to the lab's folder.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        match self.path.as_deref().and_then(Path::parent) {
            Some(folder) if path.is_relative() => folder.join(path),
            _ => path.into(),
        }
    }

    /// The steps with `repeat` written out, in order, each with the thread that does it; none is the main one.
    /// What is within a `repeat` is done by the thread of the `repeat`, unless it names its own.
    #[must_use]
    pub fn flat_steps(&self) -> Vec<(&Step, Option<&str>)> {
        let mut out = Vec::new();
        step::flatten(&self.steps, None, &mut out);
        out
    }
}
