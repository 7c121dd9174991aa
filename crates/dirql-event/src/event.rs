//! What can happen in a run, as data.

use serde::{Serialize, Serializer};

/// Addresses go out as text, `0x...`: many JSON readers keep numbers to 53 bits only.
fn hex<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#x}"))
}

/// As [`hex`], for several.
fn hex_all<S: Serializer>(values: impl AsRef<[u64]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.as_ref().iter().map(|v| format!("{v:#x}")))
}

/// One thing that happened, with when and where.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Virtual time in nanoseconds since the machine started.
    pub at: u64,
    /// The processor it happened on; `None` for what no processor did (a device, the workload).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// The IRQL of that processor at that moment (0 where `cpu` is `None`).
    pub irql: u8,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Whether an interrupt's line is level sensitive or latched (`KINTERRUPT_MODE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterruptMode {
    /// The line stays asserted until the device is quieted.
    LevelSensitive,
    /// An edge or a message.
    Latched,
}

/// Whose spin lock an interrupt object is dispatched under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockOwner {
    /// The kernel's own, because the driver passed no lock.
    Own,
    /// The one the driver passed in `SpinLock`.
    Driver,
}

/// How a device signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterruptSource {
    /// It asserted its line, wired to this global system interrupt.
    Line {
        /// The global system interrupt: the I/O APIC input.
        gsi: u32,
    },
    /// It sent this MSI or MSI-X message.
    Message {
        /// The device's message number, from 0.
        message: u32,
    },
}

/// One interrupt object of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectedVector {
    /// The system vector, as in the IDT.
    pub vector: u32,
    /// The device's IRQL (DIRQL); 0 when the routine runs at passive level.
    pub irql: u8,
    /// The IRQL at which the routine runs (`SynchronizeIrql`).
    pub sync_irql: u8,
    /// The processors that may take it, ascending.
    pub cpus: Vec<u32>,
    /// The message number, for messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<u32>,
    /// Level sensitive or latched.
    pub mode: InterruptMode,
    /// Whether other interrupt objects may join the vector.
    pub shared: bool,
    /// Whose spin lock.
    pub lock: LockOwner,
}

/// What kind of hardware resource a device was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceKind {
    /// A memory window: `start` and `length` are physical.
    Memory,
    /// A range of I/O ports.
    Port,
    /// An interrupt line.
    Line,
    /// Interrupt messages (MSI or MSI-X).
    Message,
    /// Anything else in the list (bus numbers, device private data).
    Other,
}

/// One descriptor of the lists in `IRP_MN_START_DEVICE`, raw and translated side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResourceLine {
    /// What it is.
    pub kind: ResourceKind,
    /// Memory and ports: the translated start. Interrupts: the raw vector, that is the GSI of a line.
    pub start: u64,
    /// Memory and ports: the length in bytes. Messages: how many this descriptor stands for. Lines: 1.
    pub length: u64,
    /// Interrupts: the translated system vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vector: Option<u32>,
    /// Interrupts: the translated level (DIRQL).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub irql: Option<u8>,
    /// Interrupts: the processors of the translated affinity, ascending. Empty otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u32>,
    /// Interrupts: whether the line is shared.
    pub shared: bool,
}

/// An import that dirql has no implementation of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct MissingImport {
    /// The module the image names, as written there.
    pub module: String,
    /// The routine, or `#n` for an import by ordinal.
    pub name: String,
}

/// How a step of the workload ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepOutcome {
    /// It was done, and what the lab expects held.
    Done,
    /// It started something that still runs (an asynchronous request).
    Pending,
    /// It was done, but what the lab expects did not hold.
    NotAsExpected {
        /// The expectation that failed: `status`, `output`, `within` or `information`.
        what: String,
        /// The value the lab expects.
        expected: String,
        /// The value the run gave.
        got: String,
    },
}

/// What happened. Variants are named for the moment, not for what it means.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// An image was mapped and relocated.
    DriverLoaded {
        /// The file's name, without folders.
        image: String,
        /// Where it was mapped.
        #[serde(serialize_with = "hex")]
        base: u64,
        /// Its size in memory, in bytes.
        size: u64,
        /// The address of its entry point.
        #[serde(serialize_with = "hex")]
        entry: u64,
    },
    /// Its imports were bound.
    ImportsResolved {
        /// The image.
        image: String,
        /// How many imports dirql implements.
        resolved: u32,
        /// Those it does not. Calling one ends the run.
        missing: Vec<MissingImport>,
    },
    /// `DriverEntry` returned.
    DriverEntry {
        /// The image.
        image: String,
        /// The NTSTATUS it returned.
        status: u32,
    },
    /// The bus driver found a device.
    DeviceFound {
        /// The device's name in the lab.
        name: String,
        /// The model's name.
        model: String,
        /// Its bus identity, e.g. `1234:11e8`.
        id: String,
        /// Its windows, each as `BAR0 memory 0x1000`.
        bars: Vec<String>,
        /// How it can interrupt, as in the lab: `line`, `msi:4`.
        interrupts: String,
    },
    /// The arbiter gave a device its resources, as the start request carries them.
    ResourcesAssigned {
        /// The device's name in the lab.
        device: String,
        /// The descriptors, in the order of the lists.
        resources: Vec<ResourceLine>,
    },
    /// `AddDevice` returned.
    AddDevice {
        /// The device's name in the lab.
        device: String,
        /// The NTSTATUS it returned.
        status: u32,
    },
    /// A connect call returned to the driver.
    Connect {
        /// The routine called: `IoConnectInterruptEx` or `IoConnectInterrupt`.
        api: String,
        /// The `Version` passed (`CONNECT_*`); 0 for the legacy call, which has none.
        version: u32,
        /// The `Version` on return.
        version_out: u32,
        /// The NTSTATUS.
        status: u32,
        /// The device's name in the lab, if the PDO passed is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// What was connected; empty on failure.
        vectors: Vec<ConnectedVector>,
    },
    /// A disconnect call returned to the driver.
    Disconnect {
        /// The `Version` passed; 0 for the legacy call.
        version: u32,
        /// The vectors disconnected.
        vectors: Vec<u32>,
        /// 0, or the NTSTATUS that describes why it was refused.
        status: u32,
    },
    /// A device signalled.
    InterruptRaised {
        /// The device's name in the lab.
        device: String,
        /// By line or by message.
        source: InterruptSource,
    },
    /// A processor accepted a vector (IRR to ISR).
    InterruptAccepted {
        /// The vector.
        vector: u32,
    },
    /// A service routine is entered.
    IsrEnter {
        /// The vector.
        vector: u32,
        /// The message, for messages.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<u32>,
        /// The routine's address.
        #[serde(serialize_with = "hex")]
        routine: u64,
    },
    /// A service routine returned.
    IsrExit {
        /// The vector.
        vector: u32,
        /// Whether it claimed the interrupt (AL non-zero).
        claimed: bool,
        /// Virtual nanoseconds from entry, nested interrupts included.
        ns: u64,
    },
    /// A DPC was queued.
    DpcQueued {
        /// The deferred routine.
        #[serde(serialize_with = "hex")]
        routine: u64,
        /// The processor whose queue it joined.
        target: u32,
    },
    /// A deferred routine is entered.
    DpcStart {
        /// The deferred routine.
        #[serde(serialize_with = "hex")]
        routine: u64,
    },
    /// A deferred routine returned.
    DpcEnd {
        /// The deferred routine.
        #[serde(serialize_with = "hex")]
        routine: u64,
        /// Virtual nanoseconds from entry, interrupts included.
        ns: u64,
    },
    /// A request was sent to the top of a device stack.
    IrpSent {
        /// Its number in the run, from 1.
        id: u64,
        /// `IRP_MJ_*`.
        major: u8,
        /// `IRP_MN_*`.
        minor: u8,
        /// The control code, for device control; otherwise 0.
        code: u32,
    },
    /// The driver left a request pending.
    IrpPending {
        /// Its number.
        id: u64,
    },
    /// A request was completed.
    IrpCompleted {
        /// Its number.
        id: u64,
        /// The NTSTATUS.
        status: u32,
        /// `IoStatus.Information`.
        information: u64,
    },
    /// The driver printed (`DbgPrint` and its kin).
    Print {
        /// The text, formatted, without its last line end.
        text: String,
    },
    /// A system thread was created and may run.
    ThreadStart {
        /// Its number in the run.
        thread: u64,
        /// Its start routine.
        #[serde(serialize_with = "hex")]
        routine: u64,
    },
    /// A system thread ended.
    ThreadEnd {
        /// Its number.
        thread: u64,
    },
    /// A kernel timer expired.
    Timer {
        /// The address of the KTIMER.
        #[serde(serialize_with = "hex")]
        timer: u64,
    },
    /// The driver called an export and it returned. Sent only when a run is traced.
    Export {
        /// The routine's name.
        name: String,
        /// Its integer arguments, as many as it has.
        #[serde(serialize_with = "hex_all")]
        args: Vec<u64>,
        /// RAX on return.
        #[serde(serialize_with = "hex")]
        ret: u64,
    },
    /// A processor's IRQL changed; the event's own `irql` is the new one. Sent only when a run is traced.
    IrqlChange {
        /// The IRQL before.
        from: u8,
    },
    /// A step of the workload ended.
    Step {
        /// Its place in the lab, from 0.
        index: u32,
        /// What it was, as in the lab: `ioctl 0x222000`.
        what: String,
        /// The NTSTATUS, where a step has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u32>,
        /// How it ended.
        outcome: StepOutcome,
    },
    /// A Plug and Play request to a device finished.
    Pnp {
        /// The device's name in the lab.
        device: String,
        /// `IRP_MN_*` of `IRP_MJ_PNP`.
        minor: u8,
        /// The NTSTATUS.
        status: u32,
    },
    /// The driver's unload routine returned and its image is gone.
    Unloaded {
        /// The image.
        image: String,
    },
    /// The system stopped. It is the last event of a run, but for a report's own.
    BugCheck {
        /// The bug check code.
        code: u32,
        /// Its symbolic name.
        name: String,
        /// Its four parameters.
        #[serde(serialize_with = "hex_all")]
        params: [u64; 4],
        /// Why, in words.
        reason: String,
        /// Return addresses, innermost first, as `image+0xrva` or a bare address.
        stack: Vec<String>,
    },
    /// A vector was accepted that nothing is connected to, or whose chain left it unclaimed.
    Unexpected {
        /// The vector.
        vector: u32,
    },
}
