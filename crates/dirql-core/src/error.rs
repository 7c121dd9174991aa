//! Refusals and bug checks: NTSTATUS values, stop codes, and notes a verifier may turn into findings.

/// NTSTATUS values the core returns (spec 1.6).
pub mod status {
    /// STATUS_INVALID_PARAMETER.
    pub const INVALID_PARAMETER: u32 = 0xC000_000D;
    /// STATUS_INVALID_DEVICE_REQUEST.
    pub const INVALID_DEVICE_REQUEST: u32 = 0xC000_0010;
    /// STATUS_INSUFFICIENT_RESOURCES.
    pub const INSUFFICIENT_RESOURCES: u32 = 0xC000_009A;
    /// STATUS_NOT_SUPPORTED.
    pub const NOT_SUPPORTED: u32 = 0xC000_00BB;
    /// STATUS_INVALID_PARAMETER_1.
    pub const INVALID_PARAMETER_1: u32 = 0xC000_00EF;
    /// STATUS_INVALID_PARAMETER_10.
    pub const INVALID_PARAMETER_10: u32 = 0xC000_00F8;
    /// STATUS_NOT_FOUND.
    pub const NOT_FOUND: u32 = 0xC000_0225;
}

/// Stop codes the core can ask for.
pub mod stop {
    /// IRQL_UNEXPECTED_VALUE.
    pub const IRQL_UNEXPECTED_VALUE: u32 = 0xC8;
    /// PNP_DETECTED_FATAL_ERROR.
    pub const PNP_DETECTED_FATAL_ERROR: u32 = 0xCA;
    /// HARDWARE_INTERRUPT_STORM.
    pub const HARDWARE_INTERRUPT_STORM: u32 = 0xF2;
    /// DRIVER_VIOLATION.
    pub const DRIVER_VIOLATION: u32 = 0x121;
    /// PASSIVE_INTERRUPT_ERROR.
    pub const PASSIVE_INTERRUPT_ERROR: u32 = 0x13B;
}

/// A parameter of a bug check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Param<R, P> {
    /// A plain number.
    Value(u64),
    /// An object or device.
    Token(P),
    /// A routine.
    Routine(R),
}

/// The system stops here: the documented code and its four parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BugCheck<R, P> {
    /// The stop code, one of [`stop`].
    pub code: u32,
    /// The four parameters.
    pub params: [Param<R, P>; 4],
}

/// Why a connect call was refused. Each maps to a status by the profile (spec 3.8; disputed rows have two).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// E2: the version is not one this Windows knows.
    UnknownVersion,
    /// E3: only version 1 works before Vista.
    OnlyFullySpecified,
    /// E4: the device object is NULL.
    NoDevice,
    /// E4: the device object is not a PDO.
    NotAPdo,
    /// E5: no service routine.
    NoServiceRoutine,
    /// E5: no place to store the result.
    NoOutPointer,
    /// E5: SynchronizeIrql is below Irql.
    SyncIrqlTooLow,
    /// E5: an IRQL above HIGH_LEVEL.
    IrqlTooHigh,
    /// E5: passive-level handling with a spin lock.
    PassiveWithSpinLock,
    /// E14: passive-level handling before Windows 8.
    PassiveUnsupported,
    /// E6: no active processor in the mask.
    NoProcessor,
    /// E7: the device was not assigned what the request says.
    NotAssigned,
    /// E8: line-based, and the device has messages only.
    MessagesNotLines,
    /// E9, E10: the device has no interrupt this version could connect.
    NoInterrupt,
    /// E12: the vector is connected and one side does not share.
    VectorBusy,
    /// E12: the vector is connected in the other mode; or the mode is none that exists.
    ModeConflict,
    /// E13: FloatingSave on x86.
    FloatingSave,
    /// The vector is outside the range a device may have (legacy call, or a device without a resource record).
    BadVector,
    /// E15: an allocation failed.
    NoMemory,
}

impl ConnectError {
    /// The NTSTATUS this refusal returns; `alternative` picks the other side of each dispute (spec 3.9).
    pub const fn status(self, alternative: bool) -> u32 {
        match self {
            ConnectError::UnknownVersion if alternative => status::NOT_SUPPORTED,
            ConnectError::UnknownVersion => status::INVALID_PARAMETER_1,
            ConnectError::OnlyFullySpecified | ConnectError::PassiveUnsupported => status::NOT_SUPPORTED,
            ConnectError::NoProcessor if alternative => status::INVALID_PARAMETER,
            ConnectError::NoProcessor => status::INVALID_PARAMETER_10,
            ConnectError::NotAssigned | ConnectError::NoInterrupt if alternative => status::NOT_SUPPORTED,
            ConnectError::NotAssigned | ConnectError::NoInterrupt => status::NOT_FOUND,
            ConnectError::MessagesNotLines if alternative => status::INVALID_PARAMETER,
            ConnectError::MessagesNotLines => status::INVALID_DEVICE_REQUEST,
            ConnectError::NoMemory => status::INSUFFICIENT_RESOURCES,
            ConnectError::NoDevice
            | ConnectError::NotAPdo
            | ConnectError::NoServiceRoutine
            | ConnectError::NoOutPointer
            | ConnectError::SyncIrqlTooLow
            | ConnectError::IrqlTooHigh
            | ConnectError::PassiveWithSpinLock
            | ConnectError::VectorBusy
            | ConnectError::ModeConflict
            | ConnectError::FloatingSave
            | ConnectError::BadVector => status::INVALID_PARAMETER,
        }
    }
}

/// A refused connect call: what to return and what to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub error: ConnectError,
    /// The NTSTATUS to return.
    pub status: u32,
    /// The value of the Version member on return (equal to what was passed, unless 3.8 says otherwise).
    pub version_out: u32,
    /// Store NULL through the out-pointer (spec 3.1 C9); otherwise do not touch it.
    pub null_out_pointer: bool,
}

/// How a connect call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure<R, P> {
    /// It returns a status.
    Refused(Refusal),
    /// The system stops (E1, or E4 under the `pdo = bugcheck` profile).
    BugCheck(BugCheck<R, P>),
}

/// Something allowed that a verifier will want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The affinity asked for is smaller than the assigned one (spec I-9).
    AffinityNarrowed,
    /// SynchronizeIrql was below the level of the interrupts and was raised (spec D-7).
    SyncIrqlRaised,
    /// A legacy connect names a vector that no device is assigned (spec 4.1).
    VectorNotAssigned,
    /// A disconnect or report with NULL parameters or context: nothing done (spec I-15).
    NullContext,
}
