//! Guest threads as data.

use dirql_x86::Regs;

use crate::context::{Frame, Wait};
use crate::then::Then;

/// Scheduling state of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ThreadState {
    /// Ready to run, in its priority's queue.
    Ready,
    /// Running on this processor.
    Running(usize),
    /// Blocked.
    Waiting(Wait),
    /// Ended.
    Terminated,
}

/// A thread: its registers while it does not run, its frames, and its guest KTHREAD.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Number by which the kernel knows it (also its CLIENT_ID, times four).
    pub id: u32,
    /// What it is, for a person: "PnP", "workload", "system thread 0x...".
    pub name: String,
    /// Guest address of the KTHREAD, a dispatcher object signalled when the thread ends.
    pub kthread: u64,
    /// Registers while it does not run.
    pub regs: Regs,
    /// IRQL while it does not run (0 or 1).
    pub irql: u8,
    /// State.
    pub state: ThreadState,
    /// Priority, 0 to 31.
    pub priority: u8,
    /// Processors it may run on, a mask of group 0.
    pub affinity: u64,
    /// Kernel routines in progress on it.
    pub frames: Vec<Frame>,
    /// Guest RSP at the entry of the export now being served, if any.
    pub call_rsp: Option<u64>,
    /// The continuation that a wait resumes.
    pub wait_then: Option<Then>,
    /// Critical-region depth (KeEnterCriticalRegion).
    pub apc_disable: u32,
    /// Lowest and highest address of its stack.
    pub stack: (u64, u64),
    /// Is it one of the kernel's own (its end does not matter to the driver)?
    pub native: bool,
    /// Exit status once terminated.
    pub exit_status: u32,
}
