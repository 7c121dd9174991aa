//! Connecting: IoConnectInterruptEx in its five versions and the older IoConnectInterrupt (spec 3 and 4.1).
//!
//! The order of the checks is the error matrix of spec 3.8, top to bottom.

use alloc::vec::Vec;

use crate::interrupt::SetKind;
use crate::{
    Affinity, Allocation, ConnectFailure, Core, Irql, Mode, Note, ObjectId, Polarity, Ports, SetId, Source,
};

/// The CONNECT_* version codes (spec 1.3).
pub mod version {
    /// CONNECT_FULLY_SPECIFIED.
    pub const FULLY_SPECIFIED: u32 = 1;
    /// CONNECT_LINE_BASED.
    pub const LINE_BASED: u32 = 2;
    /// CONNECT_MESSAGE_BASED.
    pub const MESSAGE_BASED: u32 = 3;
    /// CONNECT_FULLY_SPECIFIED_GROUP, since Windows 7.
    pub const FULLY_SPECIFIED_GROUP: u32 = 4;
    /// CONNECT_MESSAGE_BASED_PASSIVE; accepted from Windows 10 on (spec D-1).
    pub const MESSAGE_BASED_PASSIVE: u32 = 5;
}

/// The device object a request names, as the embedder sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device<P> {
    /// NULL.
    Null,
    /// A device object that no bus driver made.
    NotPhysical(P),
    /// A physical device object.
    Physical(P),
}

/// IO_CONNECT_INTERRUPT_PARAMETERS, all versions. Members the version does not have are ignored; read `Group` from
/// the driver's memory for version 4 only (spec I-4).
#[derive(Clone, Copy, Debug)]
pub struct ConnectRequest<R, P> {
    /// The Version member, any value.
    pub version: u32,
    /// PhysicalDeviceObject.
    pub pdo: Device<P>,
    /// Whether the out-pointer is non-NULL.
    pub has_out_pointer: bool,
    /// ServiceRoutine or MessageServiceRoutine.
    pub isr: Option<R>,
    /// ServiceContext, passed through.
    pub context: P,
    /// SpinLock; `None` makes the system provide one.
    pub lock: Option<P>,
    /// SynchronizeIrql.
    pub sync_irql: Irql,
    /// FloatingSave.
    pub floating_save: bool,
    /// ShareVector (versions 1, 4).
    pub share_vector: bool,
    /// Vector (versions 1, 4).
    pub vector: u32,
    /// Irql (versions 1, 4).
    pub irql: Irql,
    /// InterruptMode, raw (versions 1, 4).
    pub mode: u32,
    /// ProcessorEnableMask (versions 1, 4).
    pub mask: u64,
    /// Group (version 4).
    pub group: u16,
    /// FallBackServiceRoutine (versions 3, 5).
    pub fallback: Option<R>,
}

/// The eleven arguments of IoConnectInterrupt.
#[derive(Clone, Copy, Debug)]
pub struct LegacyRequest<R, P> {
    /// Whether the out-pointer is non-NULL.
    pub has_out_pointer: bool,
    /// ServiceRoutine.
    pub isr: Option<R>,
    /// ServiceContext.
    pub context: P,
    /// SpinLock.
    pub lock: Option<P>,
    /// Vector.
    pub vector: u32,
    /// Irql.
    pub irql: Irql,
    /// SynchronizeIrql.
    pub sync_irql: Irql,
    /// InterruptMode, raw.
    pub mode: u32,
    /// ShareVector.
    pub share_vector: bool,
    /// ProcessorEnableMask, in group 0.
    pub mask: u64,
    /// FloatingSave.
    pub floating_save: bool,
}

/// One entry of the message table the embedder writes; the message's address and data are the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableEntry<P> {
    /// The message id, the routine's third argument.
    pub message: u32,
    /// The MSI-X table entry (equal to `message` for MSI).
    pub entry: u32,
    /// InterruptObject.
    pub object: P,
    /// TargetProcessorSet.
    pub affinity: Affinity,
    /// Vector.
    pub vector: u8,
    /// Irql.
    pub irql: Irql,
    /// Mode.
    pub mode: Mode,
    /// Polarity.
    pub polarity: Polarity,
}

/// What the out-pointer receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectedKind<P> {
    /// A KINTERRUPT.
    Line {
        /// Its address.
        object: P,
    },
    /// An IO_INTERRUPT_MESSAGE_INFO.
    Table {
        /// Its address.
        table: P,
        /// UnifiedIrql: the level every routine of the set runs at.
        unified_irql: Irql,
        /// The entries; their number is MessageCount.
        entries: Vec<TableEntry<P>>,
    },
}

/// A connection made. Sources are open already: store the result now (spec D-11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected<P> {
    /// The set.
    pub set: SetId,
    /// Its objects.
    pub objects: Vec<ObjectId>,
    /// The value of the Version member on return; disconnect with it.
    pub version_out: u32,
    /// What the out-pointer receives.
    pub kind: ConnectedKind<P>,
    /// For a verifier.
    pub notes: Vec<Note>,
}

impl<P: Copy> Connected<P> {
    /// The pointer to store through the out-pointer.
    pub fn out(&self) -> P {
        match self.kind {
            ConnectedKind::Line { object } => object,
            ConnectedKind::Table { table, .. } => table,
        }
    }
}

impl<R: Copy, P: Copy + Ord> Core<R, P> {
    /// IoConnectInterruptEx, called at `current`. Opens the sources through `ports` before it returns.
    pub fn connect(
        &mut self,
        request: &ConnectRequest<R, P>,
        current: Irql,
        ports: &mut impl Ports<P>,
    ) -> Result<Connected<P>, ConnectFailure<R, P>> {
        todo!()
    }

    /// IoConnectInterrupt, called at `current`. `version_out` of the result has no meaning.
    pub fn connect_legacy(
        &mut self,
        request: &LegacyRequest<R, P>,
        current: Irql,
        ports: &mut impl Ports<P>,
    ) -> Result<Connected<P>, ConnectFailure<R, P>> {
        todo!()
    }
}
