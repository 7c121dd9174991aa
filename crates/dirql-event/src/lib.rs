//! Events and choices: the seam through which a dirql run is watched and steered.
//!
//! A run tells what it does as [`Event`]s, plain data without sentences; whoever wants to know is an
//! [`Observer`]. What a run may do in more than one way it asks a [`Chooser`], by name. Neither side knows
//! the kernel or the machine, and an observer can't alter a run.
//!
//! Events carry numbers as the run saw them: guest addresses, vectors, NTSTATUS values. Turning them into
//! words is the business of a report.

mod choice;
mod event;
mod observer;

pub use choice::{Choice, Chooser, DefaultPolicy, Recorder};
pub use event::{
    ConnectedVector, Event, EventKind, InterruptMode, InterruptSource, LockOwner, MissingImport,
    ResourceKind, ResourceLine, StepOutcome,
};
pub use observer::{EventLog, Observer};
