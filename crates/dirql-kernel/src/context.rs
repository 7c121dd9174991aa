//! Contexts as data: what a thread, an ISR or a DPC does next is a plain value, never a host stack.
//!
//! A kernel routine that needs more than one step returns an [`Outcome`] that names its continuation, a [`Then`].
//! The continuation is kept in the context's frames; the guest stack holds only guest frames. A guest routine called
//! by the kernel returns to the *return gate*, where the engine leaves the guest and the topmost frame goes on. A
//! context that waits, spins or starts is likewise parked at the return gate, so there is one way to resume all.

use crate::stop::Stop;
use crate::then::Then;

/// What a kernel routine decided.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Return this value (RAX) to the caller.
    Ret(u64),
    /// Call a guest routine with these arguments, then continue with its RAX.
    Call {
        /// Guest address of the routine.
        routine: u64,
        /// Arguments, in order.
        args: Vec<u64>,
        /// What to do with its result.
        then: Then,
    },
    /// Block the current thread until the wait is over, then continue with the wait status.
    Wait {
        /// What is waited for.
        wait: Wait,
        /// What to do with the status.
        then: Then,
    },
    /// Something else holds a lock: try the same again after others ran.
    Spin(Then),
    /// Try the same export again after others ran (the export call is not consumed).
    Retry,
    /// The registers are already those to go on with: an exception was handled.
    Resume,
    /// The context is done: a thread ends, an ISR or DPC activation is left.
    End,
}

/// Result of a kernel routine.
pub type Result = std::result::Result<Outcome, Stop>;

/// Return a value.
///
/// # Errors
/// None; the signature is that of a kernel routine.
pub fn ret(value: u64) -> Result {
    Ok(Outcome::Ret(value))
}

/// Return from a routine that gives nothing back.
///
/// # Errors
/// None; the signature is that of a kernel routine.
pub fn void() -> Result {
    Ok(Outcome::Ret(0))
}

/// What a thread waits for. Objects are guest addresses of dispatcher headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Guest addresses of the objects; empty for a plain delay.
    pub objects: Vec<u64>,
    /// All of them (WaitAll) or any one.
    pub all: bool,
    /// Virtual time in nanoseconds at which the wait gives STATUS_TIMEOUT.
    pub deadline: Option<u64>,
    /// May be ended by alerts and user APCs.
    pub alertable: bool,
    /// What a native (kernel-internal) wait is for: the IRP whose completion ends it.
    pub irp: Option<u64>,
    /// Wait until every DPC queued before this sequence number has run (KeFlushQueuedDpcs).
    pub dpc_fence: Option<u64>,
    /// Wait until no ISR of this interrupt set runs.
    pub isr_fence: Option<u64>,
}

impl Wait {
    /// Waits for one dispatcher object, for ever.
    #[must_use]
    pub fn object(address: u64) -> Self {
        Self {
            objects: vec![address],
            all: false,
            deadline: None,
            alertable: false,
            irp: None,
            dpc_fence: None,
            isr_fence: None,
        }
    }

    /// Waits for a moment.
    #[must_use]
    pub fn until(deadline: u64) -> Self {
        Self {
            objects: vec![],
            all: false,
            deadline: Some(deadline),
            alertable: false,
            irp: None,
            dpc_fence: None,
            isr_fence: None,
        }
    }

    /// Waits for the completion of an IRP.
    #[must_use]
    pub fn irp(irp: u64) -> Self {
        Self {
            objects: vec![],
            all: false,
            deadline: None,
            alertable: false,
            irp: Some(irp),
            dpc_fence: None,
            isr_fence: None,
        }
    }
}

/// A kernel routine in the middle of its work.
#[derive(Clone, Debug)]
pub struct Frame {
    /// How it goes on.
    pub then: Then,
    /// Guest RSP at the entry of the export it belongs to (where the guest return address is); none when the kernel
    /// itself began it.
    pub rsp: Option<u64>,
}
