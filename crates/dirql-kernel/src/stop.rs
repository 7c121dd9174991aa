//! Why a run ends before its workload does, kept apart by whose fault it is.

use dirql_mem::{MemFault, OutOfMemory};

/// A bug check: the code and its four documented parameters, with the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BugCheck {
    /// The documented code, such as 0xD1.
    pub code: u32,
    /// The four documented parameters.
    pub params: [u64; 4],
    /// One sentence for a person: what the driver did.
    pub reason: String,
    /// Guest address the driver was at, or 0 where there is none.
    pub rip: u64,
}

/// Why a run ends early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The driver broke a rule that Windows answers with a bug check.
    BugCheck(BugCheck),
    /// A kernel routine was handed an address it cannot use; becomes a bug check where it is caught.
    Fault(MemFault),
    /// The driver does not load, because the chosen Windows lacks routines that it imports.
    NotLoaded {
        /// The driver's file name.
        image: String,
        /// The routines, each with the first Windows that has it.
        lacking: Vec<(String, dirql_core::Windows)>,
        /// What loading answers.
        status: u32,
    },
    /// The driver called an export that dirql does not implement.
    MissingExport {
        /// Module the driver imports it from.
        module: String,
        /// Its documented name.
        name: String,
        /// Return address of the call.
        caller: u64,
    },
    /// The driver used an implemented export in a way that dirql does not implement.
    MissingFeature {
        /// What was asked for, in words.
        what: String,
        /// Return address of the call.
        caller: u64,
    },
    /// The engine lacks an instruction.
    MissingInstruction {
        /// Address of the instruction.
        rip: u64,
        /// Its text in Intel syntax.
        text: String,
    },
    /// The instruction budget ran out.
    Budget {
        /// Where each processor was.
        at: Vec<u64>,
    },
    /// Nothing can make progress and the workload is not done.
    Hang {
        /// What everything waits for, in words.
        why: String,
    },
    /// Guest memory is used up: the lab's limit is reached.
    OutOfMemory,
    /// A fault of dirql itself.
    Internal(String),
}

impl From<MemFault> for Stop {
    fn from(fault: MemFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<OutOfMemory> for Stop {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl Stop {
    /// A bug check raised by a kernel routine on the driver's behalf.
    #[must_use]
    pub fn bug_check(code: u32, params: [u64; 4], reason: impl Into<String>) -> Self {
        Self::BugCheck(BugCheck { code, params, reason: reason.into(), rip: 0 })
    }
}
