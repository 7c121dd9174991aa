//! A fingerprint of an execution up to the order of what is independent.
//!
//! Two executions in which each context does the same things, and things that conflict come in the same order, differ
//! in nothing that a driver can see: they are one (Mazurkiewicz's traces). Each operation is hashed with what came before
//! it in its context and with the last operations it conflicts with; the sum over all operations does not depend on how
//! independent ones interleave.

use std::collections::BTreeMap;

use dirql_kernel::kernel::Context;
use dirql_kernel::trace::{Mark, What};

use crate::points::Shared;

/// The registers of devices, as one object.
const DEVICES: u64 = u64::MAX;
/// What the kernel keeps of its own: queues, objects, memory.
const KERNEL: u64 = u64::MAX - 1;

#[derive(Clone, Copy, Debug, Default)]
struct Object {
    /// The last write.
    write: u64,
    /// The reads since, in any order.
    reads: u64,
}

/// The fingerprint of a run so far.
#[derive(Clone, Debug, Default)]
pub struct Fingerprint {
    contexts: BTreeMap<Context, u64>,
    objects: BTreeMap<u64, Object>,
    sum: u64,
}

/// A finaliser with good avalanche (the constants of SplitMix64).
fn mix(mut v: u64) -> u64 {
    v = (v ^ v >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    v = (v ^ v >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    v ^ v >> 31
}

fn join(a: u64, b: u64) -> u64 {
    mix(a.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(mix(b.wrapping_add(0x1234_5678_9abc_def1))))
}

fn name_of(context: Context) -> u64 {
    match context {
        Context::Thread(id) => join(1, u64::from(id)),
        Context::Isr { vector, n } => join(2, u64::from(vector) << 32 | u64::from(n)),
        Context::Dpc { cpu, n } => join(3, u64::from(cpu) << 32 | u64::from(n)),
        Context::Idle => 4,
    }
}

impl Fingerprint {
    /// Takes in what a run did next.
    pub fn feed(&mut self, trace: &[Mark], shared: &Shared) {
        for mark in trace {
            if !shared.notable(mark) {
                continue;
            }
            let mut touched: Vec<(u64, bool)> = shared.of(mark).collect();
            let what = match mark.what {
                What::Access { rip, write, .. } => join(rip, u64::from(write)),
                What::Export { name, caller, .. } => {
                    touched.push((KERNEL, true));
                    name.bytes().fold(caller, |h, b| join(h, u64::from(b)))
                }
                What::Register => {
                    touched.push((DEVICES, true));
                    5
                }
                What::Irql => 6,
            };
            self.operation(mark.context, what, &touched);
        }
    }

    /// A departure from the default policy that is itself an event: an arrival, time, a choice of the hardware.
    pub fn outside(&mut self, what: u64) {
        self.operation(Context::Idle, what, &[(DEVICES, true)]);
    }

    fn operation(&mut self, context: Context, what: u64, touched: &[(u64, bool)]) {
        let chain = self.contexts.entry(context).or_insert_with(|| name_of(context));
        let mut h = join(*chain, what);
        for (object, write) in touched {
            let o = self.objects.entry(*object).or_default();
            h = join(h, join(*object, o.write));
            if *write {
                h = join(h, o.reads);
            }
        }
        *chain = h;
        for (object, write) in touched {
            let o = self.objects.entry(*object).or_default();
            if *write {
                *o = Object { write: h, reads: 0 };
            } else {
                o.reads = o.reads.wrapping_add(mix(h));
            }
        }
        self.sum = self.sum.wrapping_add(mix(h));
    }

    /// The state that a run is in: what was done, where time stands, and who goes on.
    pub(crate) fn state(&self, cpu: u64, left: u64) -> u64 {
        join(self.sum, cpu << 8 | left)
    }

    /// The fingerprint.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.sum
    }
}
