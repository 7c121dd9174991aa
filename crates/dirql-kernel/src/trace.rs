//! What a run did, step by step: the seam that explorers and observers watch. Recording never alters a run.

use crate::cx::Cx;
use crate::kernel::Context;

/// One thing that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The step it is part of: the boundary of that number is just before it.
    pub at: u64,
    /// The processor.
    pub cpu: u32,
    /// Its IRQL.
    pub irql: u8,
    /// Who did it.
    pub context: Context,
    /// What.
    pub what: What,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An instruction of the guest accessed memory.
    Access {
        /// The instruction.
        rip: u64,
        /// The first byte.
        va: u64,
        /// How many bytes.
        len: u8,
        /// A write; else a read.
        write: bool,
    },
    /// A kernel routine was called.
    Export {
        /// Its name.
        name: &'static str,
        /// Where it returns to.
        caller: u64,
        /// Its first three arguments; of a routine that frees pool, the third is how many bytes the block has.
        args: [u64; 3],
    },
    /// An instruction accessed a device's register or a port.
    Register,
    /// An instruction changed CR8 or the interrupt flag.
    Irql,
}

/// Records the call of a kernel routine, which is the step that was counted last.
pub(crate) fn export(cx: &mut Cx<'_>, name: &'static str, caller: u64, mut args: [u64; 3]) {
    let (cpu, irql, context, at) = (cx.cpu as u32, cx.irql(), cx.k.context(cx.cpu), cx.k.step);
    if matches!(name, "ExFreePool" | "ExFreePoolWithTag") {
        // Every byte of the block is another's from here on.
        args[2] = cx.k.pool.block_at(args[0]).map_or(0, |b| b.size);
    }
    if let Some(trace) = &mut cx.k.trace {
        trace.push(Mark { at, cpu, irql, context, what: What::Export { name, caller, args } });
    }
}
