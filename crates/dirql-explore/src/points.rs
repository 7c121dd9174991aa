//! Where it is worth departing from the default policy: before what one context does that another can notice.
//!
//! A *granule* is eight aligned bytes. One that two contexts touch, one of them writing, is *shared*; the set of them
//! is found by running, and grows until it is stable. A point lies before each access to a shared granule, before each
//! kernel routine that orders contexts or hands things between them, and before each access to a device's register.
//! What no other context can notice needs no point: moving a switch across it changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use dirql_kernel::kernel::{Context, Kernel};
use dirql_kernel::trace::{Mark, What};
use dirql_mem::{Memory, Va};
use iced_x86::{Code, Decoder, DecoderOptions, InstructionInfoFactory, OpAccess};

/// Who touches memory, as far as sharing goes: activations of one vector on one processor never overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// A thread.
    Thread(u32),
    /// Services of a vector on a processor.
    Isr(u8, u32),
    /// DPCs of a processor.
    Dpc(u32),
    /// An idle processor.
    Idle,
}

impl Party {
    /// Whose doing a mark is.
    #[must_use]
    pub fn of(mark: &Mark) -> Self {
        match mark.context {
            Context::Thread(id) => Self::Thread(id),
            Context::Isr { vector, .. } => Self::Isr(vector, mark.cpu),
            Context::Dpc { cpu, .. } => Self::Dpc(cpu),
            Context::Idle => Self::Idle,
        }
    }
}

/// The granule of an address.
#[must_use]
pub fn granule(va: u64) -> u64 {
    va >> 3
}

/// The granules of an access.
pub fn granules(va: u64, len: u64) -> impl Iterator<Item = u64> {
    let last = va.saturating_add(len.max(1) - 1);
    // A long copy would drown the set; its first 4 KiB tell that it is shared.
    granule(va)..=granule(last).min(granule(va) + 511)
}

/// What is known of a granule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    parties: BTreeSet<Party>,
    written: bool,
}

/// The granules seen so far, and which are shared.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    known: BTreeMap<u64, Known>,
    shared: BTreeSet<u64>,
}

/// Stacks that service routines and DPCs share by turns: what they leave there means nothing to the next.
#[derive(Clone, Debug, Default)]
pub struct Stacks {
    interrupt: Vec<(u64, u64)>,
    threads: BTreeMap<u32, (u64, u64)>,
}

impl Stacks {
    /// The stacks of a kernel.
    #[must_use]
    pub fn of(kernel: &Kernel) -> Self {
        let size = 6 * 0x1000;
        Self {
            interrupt: kernel
                .procs
                .iter()
                .map(|p| (p.isr_stack.saturating_sub(size), p.isr_stack + 0x40))
                .collect(),
            threads: kernel.threads.iter().map(|(id, t)| (*id, t.stack)).collect(),
        }
    }

    fn private(&self, context: Context, va: u64) -> bool {
        let within = |(low, high): (u64, u64)| (low..high).contains(&va);
        if self.interrupt.iter().any(|s| within(*s)) {
            return true;
        }
        matches!(context, Context::Thread(id) if self.threads.get(&id).is_some_and(|s| within(*s)))
    }
}

/// A touch that the search learned of: granule, who, whether written.
pub type Touch = (u64, Party, bool);

/// The touches of a trace, each once.
#[must_use]
pub fn touches(trace: &[Mark], stacks: &Stacks) -> BTreeSet<Touch> {
    let mut out = BTreeSet::new();
    for mark in trace {
        let party = Party::of(mark);
        for (va, len, write) in accesses(&mark.what) {
            if !stacks.private(mark.context, va) {
                out.extend(granules(va, len).map(|g| (g, party, write)));
            }
        }
    }
    out
}

/// The memory a mark accesses: address, length, whether written.
fn accesses(what: &What) -> Vec<(u64, u64, bool)> {
    match *what {
        What::Access { va, len, write, .. } => vec![(va, u64::from(len), write)],
        What::Export { name, args, .. } => match name {
            "memcpy" | "memmove" | "RtlCopyMemory" | "RtlMoveMemory" => {
                vec![(args[0], args[2], true), (args[1], args[2], false)]
            }
            "memset" | "RtlFillMemory" => vec![(args[0], args[2], true)],
            "RtlZeroMemory" => vec![(args[0], args[1], true)],
            "memcmp" | "RtlCompareMemory" => vec![(args[0], args[2], false), (args[1], args[2], false)],
            // Whoever uses a byte of it later uses what is gone.
            "ExFreePool" | "ExFreePoolWithTag" => vec![(args[0], args[2], true)],
            "MmUnmapIoSpace" => vec![(args[0], args[1], true)],
            // What it is about: a lock, an event, a DPC, a list, an IRP.
            _ if args[0] >> 47 == 0x1_ffff => vec![(args[0], 8, !quiet(name))],
            _ => vec![],
        },
        What::Register | What::Irql => vec![],
    }
}

/// Routines that only look at their arguments, or at nothing another context can change.
fn quiet(name: &str) -> bool {
    ["Rtl", "DbgPrint", "vDbgPrint", "KeGet", "KeQuery", "MmGet", "str", "wcs", "_", "PsGet", "IoGet"]
        .iter()
        .any(|p| name.starts_with(p))
        || matches!(name, "memcmp" | "KeReadStateEvent" | "KeReadStateTimer" | "MmIsAddressValid")
}

/// Routines that order contexts or hand things between them, whatever their first argument is.
fn orders(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "KeSynchronizeExecution",
        "KeAcquireInterruptSpinLock",
        "KeInsertQueueDpc",
        "KeRemoveQueueDpc",
        "KeFlushQueuedDpcs",
        "IoConnectInterrupt",
        "IoConnectInterruptEx",
        "IoDisconnectInterrupt",
        "IoDisconnectInterruptEx",
        "IofCompleteRequest",
        "IofCallDriver",
        "IoCallDriver",
        "PoCallDriver",
        "PoSetPowerState",
        "KeSetTimer",
        "KeSetTimerEx",
        "KeCancelTimer",
        "MmUnmapIoSpace",
        "ExFreePool",
        "ExFreePoolWithTag",
    ];
    NAMES.contains(&name)
}

impl Shared {
    /// Learns touches; true when a granule became shared that was not.
    pub fn learn(&mut self, touches: &BTreeSet<Touch>) -> bool {
        let mut grew = false;
        for &(granule, party, write) in touches {
            if self.shared.contains(&granule) {
                continue;
            }
            let known = self.known.entry(granule).or_default();
            known.written |= write;
            known.parties.insert(party);
            if known.written && known.parties.len() > 1 {
                self.known.remove(&granule);
                self.shared.insert(granule);
                grew = true;
            }
        }
        grew
    }

    /// How many granules are shared.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.is_empty()
    }

    /// The shared granules that a mark touches, and whether it writes them.
    pub(crate) fn of<'a>(&'a self, mark: &'a Mark) -> impl Iterator<Item = (u64, bool)> + 'a {
        accesses(&mark.what).into_iter().flat_map(move |(va, len, write)| {
            granules(va, len).filter(|g| self.shared.contains(g)).map(move |g| (g, write))
        })
    }

    /// Whether another context could notice what the mark is.
    #[must_use]
    pub fn notable(&self, mark: &Mark) -> bool {
        match mark.what {
            What::Register => true,
            What::Irql => false,
            What::Export { name, .. } => orders(name) || (!quiet(name) && self.of(mark).next().is_some()),
            What::Access { .. } => self.of(mark).next().is_some(),
        }
    }
}

/// A point: the boundary before a step that another context could notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The step.
    pub at: u64,
    /// The step is an unlocked read-modify-write of memory.
    pub splits: bool,
}

/// The points of a trace, ascending.
#[must_use]
pub fn points(trace: &[Mark], shared: &Shared, mem: &Memory, every: bool) -> Vec<Point> {
    let mut out: Vec<Point> = vec![];
    let mut kinds: BTreeMap<u64, bool> = BTreeMap::new();
    for mark in trace {
        if !every && !shared.notable(mark) {
            continue;
        }
        if let Some(last) = out.last()
            && last.at == mark.at
        {
            continue;
        }
        let splits = match mark.what {
            What::Access { rip, .. } => *kinds.entry(rip).or_insert_with(|| unlocked_rmw(mem, rip)),
            _ => false,
        };
        out.push(Point { at: mark.at, splits });
    }
    out.sort_by_key(|p| p.at);
    out.dedup_by_key(|p| p.at);
    out
}

/// Whether the instruction reads and writes one memory operand without a lock.
fn unlocked_rmw(mem: &Memory, rip: u64) -> bool {
    let mut code = [0u8; 15];
    let whole = (1..=15).rev().find(|&n| mem.read(Va(rip), &mut code[..n]).is_ok());
    let Some(n) = whole else { return false };
    let instruction = Decoder::with_ip(64, &code[..n], rip, DecoderOptions::NONE).decode();
    if instruction.code() == Code::INVALID
        || instruction.has_lock_prefix()
        || instruction.mnemonic() == iced_x86::Mnemonic::Xchg
        || instruction.is_string_instruction()
    {
        return false;
    }
    let mut factory = InstructionInfoFactory::new();
    factory
        .info(&instruction)
        .used_memory()
        .iter()
        .any(|m| matches!(m.access(), OpAccess::ReadWrite | OpAccess::ReadCondWrite))
}
