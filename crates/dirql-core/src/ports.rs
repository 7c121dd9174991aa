//! What an embedder supplies: memory for objects and locks, and the gate of each interrupt source.

use crate::{Irql, Mode};

/// A physical interrupt source, the thing that is masked and unmasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source<P> {
    /// An input of the I/O APIC (global system interrupt).
    Line {
        /// The global system interrupt number.
        gsi: u32,
    },
    /// A message of a device.
    Message {
        /// The device's PDO.
        pdo: P,
        /// The message number, from 0: the MSI message, or the message id of an MSI-X table entry.
        index: u32,
        /// The MSI-X table entry; equal to `index` for MSI.
        entry: u32,
    },
    /// A vector connected by the legacy call that no device is known to be assigned.
    Vector(u8),
}

/// What the embedder needs to make one KINTERRUPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRequest<P> {
    /// The vector it serves (the first one when the object stands for several lines).
    pub vector: u8,
    /// The interrupt's level.
    pub irql: Irql,
    /// The level its routine runs at.
    pub sync_irql: Irql,
    /// Edge or level.
    pub mode: Mode,
    /// The device, unless the call was the legacy one.
    pub pdo: Option<P>,
}

/// Something the embedder allocated for the core, on its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Allocation<P> {
    /// A KINTERRUPT.
    Object(P),
    /// A KSPIN_LOCK the system provided.
    Lock(P),
    /// A synchronisation event, initially signalled, of a passive-level interrupt.
    Event(P),
    /// An IO_INTERRUPT_MESSAGE_INFO table.
    Table(P),
}

/// The embedder's side. `P` is its token for objects: a guest address, or a pointer.
///
/// Every allocation comes from nonpaged memory and may fail (`None`): the connect call then undoes what it did and
/// is refused with STATUS_INSUFFICIENT_RESOURCES (spec 3.8 E15). Tokens of live allocations must differ.
pub trait Ports<P> {
    /// Makes a KINTERRUPT; its address is what drivers hold.
    fn alloc_object(&mut self, request: ObjectRequest<P>) -> Option<P>;
    /// Makes a spin lock, free.
    fn alloc_lock(&mut self) -> Option<P>;
    /// Makes a synchronisation event, signalled, for a passive-level interrupt.
    fn alloc_event(&mut self) -> Option<P>;
    /// Makes room for a message table of so many entries; the embedder fills it from [`crate::Connected`].
    fn alloc_table(&mut self, messages: u32) -> Option<P>;
    /// Takes an allocation back after a connect that failed half-way.
    fn free(&mut self, what: Allocation<P>);
    /// Stops a source at its controller or in the device's message table.
    fn mask(&mut self, source: Source<P>);
    /// Opens a source. An interrupt may arrive from here on, before the connect call returned (spec 3.1 C3, C10).
    fn unmask(&mut self, source: Source<P>);
}
