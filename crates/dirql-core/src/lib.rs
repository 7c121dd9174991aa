//! The NT interrupt core: connecting, dispatching and disconnecting interrupts, and DPC queues.
//!
//! It models what Windows does between a vector arriving at a processor and a driver's routine running, after
//! Microsoft's public driver documentation; choices the documents leave open carry the number of the project's
//! interrupt specification (`spec I-n`, `D-n`). It decides and never executes: routines and memory are opaque tokens,
//! [`Core::begin`] and [`Core::step`] return the next thing to do, and [`Ports`] is all it asks of its embedder. So
//! the same code serves a kernel, a laboratory and an exhaustive test.
//!
//! Left out: interrupt acceptance by the local APIC, the I/O APIC and PCI message tables (the machine's), threads
//! and waits (the kernel's), and x86 level tables.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod affinity;
mod connect;
mod disconnect;
mod dispatch;
mod dpc;
mod error;
mod ids;
mod interrupt;
mod irql;
mod ports;
mod sync;
mod vector;

pub use affinity::{Affinity, Topology};
pub use connect::{ConnectRequest, Connected, ConnectedKind, Device, LegacyRequest, TableEntry, version};
pub use disconnect::{Confusion, ContextFault, DisconnectOutcome};
pub use dispatch::{Dispatch, Input, IsrCall, LockKind, Step};
pub use dpc::{
    DpcInsert, DpcQueues, DpcRecord, Drain, FlushTicket, Importance, InsertOutcome, MAX_DEPTH, MIN_RATE,
};
pub use error::{BugCheck, ConnectError, ConnectFailure, Note, Param, Refusal, status, stop};
pub use ids::{CpuId, ObjectId, SetId};
pub use interrupt::{
    Arch, Assigned, AssignedKind, Config, Core, Locks, Mode, ObjectInfo, ObjectStats, Polarity, Share,
    VectorStats, Windows,
};
pub use irql::Irql;
pub use ports::{Allocation, ObjectRequest, Ports, Source};
pub use sync::{SyncFault, SyncPlan};
pub use vector::{
    Arbiter, ArbiterError, ArbiterKind, ArbiterRequest, Delivery, GroupPolicy, Policy, Priority,
};
