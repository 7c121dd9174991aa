//! ring: a descriptor-ring DMA engine with one message per queue. Data sheet: `docs/devices/ring.md`.

mod queue;

use dirql_machine::{BarSpec, Device, DeviceCtx, Interrupts, PciIdentity};
use dirql_mem::Pa;

use crate::freedom::{self, Spurious};
use crate::props::{BuildError, Props, bad};
use crate::{Model, PropDoc};
use queue::{Descriptor, Queue, Work};

/// "RING" read as a big-endian number.
const ID: u32 = 0x5249_4E47;
const MAX_QUEUES: u32 = 32;
const MAX_ENTRIES: u64 = 4096;
/// log2 of the longest transfer: 64 KiB.
const LONGEST: u32 = 16;
const QUEUES_AT: u64 = 0x1000;
const STRIDE: u64 = 0x100;

const ENABLE: u32 = 1;
const RESET: u32 = 2;
const AUTOCLEAR: u32 = 4;

// Events: what is due, for which queue, and the tag that tells a stale one.
const FETCH: u64 = 1;
const WORK: u64 = 2;
const CAUSE: u64 = 3;
const POSTED: u64 = 4;
const TAG: u64 = (1 << 48) - 1;

fn event_id(kind: u64, queue: usize, tag: u64) -> u64 {
    kind << 56 | (queue as u64) << 48 | tag & TAG
}

pub(crate) const MODEL: Model = Model {
    name: "ring",
    doc: "a descriptor-ring DMA engine with doorbells, completion rings and one message per queue",
    props: &[
        PropDoc {
            name: "queues",
            form: "1 to 32",
            default: "the number of messages; 1 with a line",
            doc: "How many queues.",
        },
        PropDoc {
            name: "entries",
            form: "a power of two, 2 to 4096",
            default: "256",
            doc: "The most entries of a ring.",
        },
        PropDoc { name: "delay_ns", form: "number", default: "2000", doc: "How long a descriptor takes." },
        PropDoc {
            name: "parallel",
            form: "1 to 16",
            default: "4",
            doc: "How many descriptors of a queue are worked on at a time.",
        },
        freedom::SPURIOUS,
    ],
};

/// The device.
#[derive(Clone, Debug)]
pub struct Ring {
    identity: PciIdentity,
    entries: u32,
    delay_ns: u64,
    parallel: usize,
    ctrl: u32,
    cause: u32,
    mask: u32,
    queues: Vec<Queue>,
    tag: u64,
    /// Writes that still sit in the bridge, in order, each with the queue whose completion it is, if it is one.
    posted: Vec<(Pa, Vec<u8>, Option<usize>)>,
    spurious: Spurious,
}

impl Ring {
    pub(crate) fn build(props: &Props<'_>) -> Result<Ring, BuildError> {
        let identity = props.identity(PciIdentity {
            vendor: 0x1234,
            device: 0xd1a2,
            revision: 1,
            class: 0x08_8000,
            subsystem: (0x1234, 0xd1a2),
            bars: vec![BarSpec::memory(0x4000)],
            interrupts: Interrupts::msix(4),
        })?;
        let default = identity.interrupts.count().clamp(1, MAX_QUEUES);
        let queues = props.int("queues", u64::from(MAX_QUEUES))?.map_or(default, |n| n as u32);
        if queues == 0 {
            return Err(bad("queues", "at least one is needed"));
        }
        let entries = props.int("entries", MAX_ENTRIES)?.unwrap_or(256) as u32;
        if !entries.is_power_of_two() || entries < 2 {
            return Err(bad("entries", format!("{entries} is not a power of two from 2 to {MAX_ENTRIES}")));
        }
        let parallel = props.int("parallel", 16)?.unwrap_or(4) as usize;
        if parallel == 0 {
            return Err(bad("parallel", "at least one is needed"));
        }
        Ok(Ring {
            identity,
            entries,
            delay_ns: props.int("delay_ns", u64::MAX)?.unwrap_or(2000),
            parallel,
            ctrl: 0,
            cause: 0,
            mask: u32::MAX,
            queues: vec![Queue::default(); queues as usize],
            tag: 0,
            posted: Vec::new(),
            spurious: Spurious::build(props)?,
        })
    }

    fn all(&self) -> u32 {
        u32::MAX >> (MAX_QUEUES - self.queues.len() as u32)
    }

    fn next_tag(&mut self) -> u64 {
        self.tag = (self.tag + 1) & TAG;
        self.tag
    }

    // Interrupts.

    /// Changes CAUSE and MASK; line and messages follow.
    fn apply(&mut self, ctx: &mut DeviceCtx<'_>, cause: u32, mask: u32) {
        let before = self.cause & !self.mask;
        (self.cause, self.mask) = (cause, mask);
        let rising = cause & !mask & !before;
        let granted = ctx.messages_granted();
        if granted > 0 {
            for i in (0..self.queues.len() as u32).filter(|i| rising & 1 << i != 0) {
                let message = if i < granted { i } else { 0 };
                ctx.send_message(message);
                self.spurious.again(ctx, message);
                if self.ctrl & AUTOCLEAR != 0 {
                    self.cause &= !(1 << i);
                }
            }
        }
        self.drive(ctx);
    }

    fn drive(&self, ctx: &mut DeviceCtx<'_>) {
        ctx.set_line(self.cause & !self.mask != 0 || self.spurious.line());
    }

    fn set_cause(&mut self, ctx: &mut DeviceCtx<'_>, q: usize) {
        self.queues[q].held_cause = None;
        if self.cause & 1 << q == 0 {
            self.queues[q].signalled = self.queues[q].signalled.wrapping_add(1);
        }
        self.apply(ctx, self.cause | 1 << q, self.mask);
    }

    /// A completion wants its cause set: at once, or held back for the next one.
    fn signal(&mut self, ctx: &mut DeviceCtx<'_>, q: usize) {
        if self.queues[q].held_cause.is_none() && ctx.choose("coalesce", 2, 0) == 1 {
            let tag = self.next_tag();
            self.queues[q].held_cause = Some(tag);
            ctx.schedule(self.delay_ns, event_id(CAUSE, q, tag));
        } else {
            self.set_cause(ctx, q);
        }
    }

    fn fail(&mut self, ctx: &mut DeviceCtx<'_>, q: usize, error: u32) {
        self.queues[q].stop();
        self.queues[q].error = error;
        ctx.log(format!("queue {q} stops with error {error}"));
        self.set_cause(ctx, q);
    }

    // Work.

    /// Posted writes reach memory. A device's own later accesses push them ahead, so this comes before each.
    fn flush(&mut self, ctx: &mut DeviceCtx<'_>) {
        for (pa, data, completion) in std::mem::take(&mut self.posted) {
            if let (Err(_), Some(q)) = (ctx.dma_write(pa, &data), completion) {
                self.fail(ctx, q, queue::WRITE_FAILED);
            }
        }
    }

    fn want_fetch(&mut self, ctx: &mut DeviceCtx<'_>, q: usize) {
        let room = self.queues[q].work.len() < self.parallel;
        let queue = &self.queues[q];
        let work =
            queue.sq_head != queue.sq_tail && room || queue.work.iter().any(|w| w.due) && !queue.full();
        if queue.running && !queue.fetching && work {
            self.queues[q].fetching = true;
            ctx.schedule(0, event_id(FETCH, q, 0));
        }
    }

    /// Takes descriptors in hand while there is room.
    fn fetch(&mut self, ctx: &mut DeviceCtx<'_>, q: usize) {
        self.flush(ctx);
        while self.queues[q].running && self.queues[q].work.len() < self.parallel {
            match self.queues[q].fetch(ctx) {
                None => return,
                Some(Err(())) => return self.fail(ctx, q, queue::READ_FAILED),
                Some(Ok(descriptor)) => {
                    let tag = self.next_tag();
                    self.queues[q].work.push(Work { tag, descriptor, due: false });
                    let delay = freedom::delay(ctx, self.delay_ns);
                    ctx.schedule(delay, event_id(WORK, q, tag));
                }
            }
        }
    }

    /// The time of a descriptor is over: one of those in hand completes.
    fn due(&mut self, ctx: &mut DeviceCtx<'_>, q: usize, tag: u64) {
        let Some(at) = self.queues[q].work.iter().position(|w| w.tag == tag) else { return };
        let waiting = self.queues[q].work.len() as u32;
        let other = ctx.choose("order", waiting, 0) as usize;
        if other > 0 {
            // The others in their order, without the due one.
            let other = if other <= at { other - 1 } else { other };
            let (a, b) = (self.queues[q].work[at].descriptor, self.queues[q].work[other].descriptor);
            (self.queues[q].work[at].descriptor, self.queues[q].work[other].descriptor) = (b, a);
        }
        self.queues[q].work[at].due = true;
        self.complete_due(ctx, q);
    }

    /// Completes what is due, as far as the completion ring has room.
    fn complete_due(&mut self, ctx: &mut DeviceCtx<'_>, q: usize) {
        while self.queues[q].running && !self.queues[q].full() {
            let Some(at) = self.queues[q].work.iter().position(|w| w.due) else { break };
            let work = self.queues[q].work.remove(at);
            self.complete(ctx, q, work.descriptor);
        }
        self.want_fetch(ctx, q);
    }

    fn complete(&mut self, ctx: &mut DeviceCtx<'_>, q: usize, descriptor: Descriptor) {
        self.flush(ctx);
        let (mut status, mut result, data) = descriptor.perform(ctx, 1 << LONGEST);
        let pin = ctx.messages_granted() == 0 && self.mask & 1 << q == 0 && !descriptor.quiet();
        let posted = pin && ctx.choose("posted", 2, 0) == 1;
        if posted {
            self.posted.extend(data.map(|(pa, bytes)| (pa, bytes, None)));
        } else if let Some((pa, bytes)) = data
            && ctx.dma_write(pa, &bytes).is_err()
        {
            (status, result) = Descriptor::refused();
        }
        for (pa, bytes) in self.queues[q].completion(descriptor, status, result) {
            if posted {
                self.posted.push((pa, bytes, Some(q)));
            } else if ctx.dma_write(pa, &bytes).is_err() {
                return self.fail(ctx, q, queue::WRITE_FAILED);
            }
        }
        if posted {
            let tag = self.next_tag();
            ctx.schedule(self.delay_ns, event_id(POSTED, 0, tag));
        }
        if !descriptor.quiet() {
            self.signal(ctx, q);
        }
    }

    // Registers.

    fn run_or_stop(&mut self, ctx: &mut DeviceCtx<'_>, q: usize) {
        let wanted = self.queues[q].enabled && self.ctrl & ENABLE != 0;
        match (wanted, self.queues[q].running) {
            (true, false) if self.queues[q].error == 0 => {
                if !self.queues[q].start(self.entries) {
                    self.fail(ctx, q, queue::NOT_VALID);
                }
            }
            (false, true) => self.queues[q].stop(),
            _ => {}
        }
        if !self.queues[q].enabled {
            self.queues[q].error = 0;
        }
    }

    fn reset(&mut self, ctx: &mut DeviceCtx<'_>) {
        self.queues = vec![Queue::default(); self.queues.len()];
        self.posted.clear();
        self.ctrl = 0;
        self.apply(ctx, 0, u32::MAX);
    }

    fn locate(&self, offset: u64) -> Option<(usize, u64)> {
        let from = offset.checked_sub(QUEUES_AT)?;
        let q = usize::try_from(from / STRIDE).ok().filter(|q| *q < self.queues.len())?;
        Some((q, from % STRIDE))
    }

    fn read_global(&mut self, ctx: &mut DeviceCtx<'_>, offset: u64) -> u32 {
        match offset {
            0x00 => ID,
            0x04 => self.queues.len() as u32 | self.entries.ilog2() << 8 | LONGEST << 16,
            0x08 => self.ctrl,
            0x0c => self.ctrl & ENABLE | u32::from(self.queues.iter().any(|q| q.error != 0)) << 1,
            0x10 => {
                let hand = (0..self.queues.len()).find_map(|q| {
                    let first = self.queues[q].work.iter().find(|w| !w.due)?;
                    Some((q, first.tag))
                });
                if let Some((q, tag)) = hand
                    && ctx.choose("rise", 2, 0) == 1
                {
                    ctx.schedule(0, event_id(WORK, q, tag));
                }
                self.cause
            }
            0x14 | 0x18 => self.mask,
            0x1c => 1,
            _ => 0,
        }
    }

    fn read_queue(&self, q: usize, offset: u64) -> u32 {
        let q = &self.queues[q];
        match offset {
            0x00 => q.sq_base as u32,
            0x04 => (q.sq_base >> 32) as u32,
            0x08 => q.cq_base as u32,
            0x0c => (q.cq_base >> 32) as u32,
            0x10 => q.size,
            0x14 => u32::from(q.enabled),
            0x18 => q.status(),
            0x20 => q.sq_tail,
            0x24 => q.sq_head,
            0x28 => q.cq_head,
            0x2c => q.cq_tail,
            0x30 => q.completed,
            0x34 => q.signalled,
            _ => 0,
        }
    }

    fn write_queue(&mut self, ctx: &mut DeviceCtx<'_>, q: usize, offset: u64, value: u32) {
        let queue = &mut self.queues[q];
        let low = |old: u64| old & !0xffff_ffff | u64::from(value);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            0x00..=0x10 if queue.running => {
                ctx.log(format!("queue {q}: register {offset:#x} written while it runs: ignored"));
            }
            0x00 => queue.sq_base = low(queue.sq_base),
            0x04 => queue.sq_base = high(queue.sq_base),
            0x08 => queue.cq_base = low(queue.cq_base),
            0x0c => queue.cq_base = high(queue.cq_base),
            0x10 => queue.size = value,
            0x14 => {
                queue.enabled = value & ENABLE != 0;
                self.run_or_stop(ctx, q);
            }
            0x20 | 0x28 if !queue.running => {
                ctx.log(format!("queue {q}: doorbell of a queue that does not run"))
            }
            0x20 | 0x28 if value >= queue.size => self.fail(ctx, q, queue::BAD_DOORBELL),
            0x20 => {
                queue.sq_tail = value;
                self.want_fetch(ctx, q);
            }
            0x28 => {
                queue.cq_head = value;
                // What waited for room is carried out with the next fetch: not during an access.
                self.want_fetch(ctx, q);
            }
            _ => ctx.log(format!("queue {q}: write to {offset:#x}, which is read-only or not a register")),
        }
    }
}

impl Device for Ring {
    fn clone_box(&self) -> Box<dyn Device> {
        Box::new(self.clone())
    }

    fn model(&self) -> &'static str {
        "ring"
    }

    fn pci(&self) -> PciIdentity {
        self.identity.clone()
    }

    fn read(&mut self, ctx: &mut DeviceCtx<'_>, _bar: u8, offset: u64, size: u8) -> u64 {
        if self.spurious.touched() {
            self.drive(ctx);
        }
        if !self.posted.is_empty() {
            // The read's completion may not pass them (PCI ordering).
            ctx.schedule(0, event_id(POSTED, 0, 0));
        }
        if size != 4 || !offset.is_multiple_of(4) {
            ctx.log(format!("read of {size} bytes at {offset:#x}: registers take aligned 4-byte accesses"));
            return u64::MAX;
        }
        u64::from(match self.locate(offset) {
            Some((q, offset)) => self.read_queue(q, offset),
            None => self.read_global(ctx, offset),
        })
    }

    fn write(&mut self, ctx: &mut DeviceCtx<'_>, _bar: u8, offset: u64, size: u8, value: u64) {
        if self.spurious.touched() {
            self.drive(ctx);
        }
        if size != 4 || !offset.is_multiple_of(4) {
            ctx.log(format!("write of {size} bytes at {offset:#x}: registers take aligned 4-byte accesses"));
            return;
        }
        let value = value as u32;
        if let Some((q, offset)) = self.locate(offset) {
            return self.write_queue(ctx, q, offset, value);
        }
        match offset {
            0x08 if value & RESET != 0 => self.reset(ctx),
            0x08 => {
                self.ctrl = value & (ENABLE | AUTOCLEAR);
                for q in 0..self.queues.len() {
                    self.run_or_stop(ctx, q);
                }
            }
            0x10 => self.apply(ctx, self.cause & !value, self.mask),
            0x14 => self.apply(ctx, self.cause, self.mask | value),
            0x18 => self.apply(ctx, self.cause, self.mask & !(value & self.all())),
            _ => ctx.log(format!("write to {offset:#x}, which is read-only or not a register")),
        }
    }

    fn event(&mut self, ctx: &mut DeviceCtx<'_>, id: u64) {
        if self.spurious.event(id) {
            return self.drive(ctx);
        }
        let (kind, q, tag) = (id >> 56, (id >> 48 & 0xff) as usize, id & TAG);
        if q >= self.queues.len() {
            return;
        }
        // Asleep, everything stands still: `power` begins it again.
        let awake = ctx.d_state() == 0;
        match kind {
            FETCH => {
                self.queues[q].fetching = false;
                if awake {
                    self.complete_due(ctx, q);
                    self.fetch(ctx, q);
                }
            }
            WORK if awake => self.due(ctx, q, tag),
            CAUSE if awake && self.queues[q].held_cause == Some(tag) => self.set_cause(ctx, q),
            POSTED if awake => self.flush(ctx),
            _ => {}
        }
    }

    fn power(&mut self, ctx: &mut DeviceCtx<'_>, d_state: u8) {
        if d_state != 0 {
            return;
        }
        self.flush(ctx);
        for q in 0..self.queues.len() {
            for i in 0..self.queues[q].work.len() {
                let tag = self.next_tag();
                self.queues[q].work[i].tag = tag;
                ctx.schedule(self.delay_ns, event_id(WORK, q, tag));
            }
            if self.queues[q].held_cause.is_some() {
                self.set_cause(ctx, q);
            }
            self.queues[q].fetching = false;
            self.want_fetch(ctx, q);
        }
    }

    fn possible_arrivals(&self) -> Vec<u32> {
        if self.spurious.left() == 0 { Vec::new() } else { (0..self.queues.len() as u32).collect() }
    }

    fn arrive(&mut self, ctx: &mut DeviceCtx<'_>, source: u32) -> bool {
        let done = (source as usize) < self.queues.len() && self.spurious.fire(ctx, source);
        self.drive(ctx);
        done
    }

    fn raise(&mut self, ctx: &mut DeviceCtx<'_>, source: u32) -> Result<(), String> {
        let q = source as usize;
        if q >= self.queues.len() {
            return Err(format!("ring has queues 0 to {}", self.queues.len() - 1));
        }
        if ctx.d_state() == 0 {
            self.set_cause(ctx, q);
        }
        Ok(())
    }

    fn registers(&self) -> Vec<(String, u64)> {
        let named = [("ctrl", self.ctrl), ("cause", self.cause), ("mask", self.mask)];
        let mut all: Vec<(String, u64)> =
            named.iter().map(|(n, v)| ((*n).to_string(), u64::from(*v))).collect();
        all.push(("spurious_left".to_string(), self.spurious.left()));
        for (i, q) in self.queues.iter().enumerate() {
            let own = [
                ("completed", q.completed),
                ("signalled", q.signalled),
                ("head", q.cq_head),
                ("tail", q.sq_tail),
                ("status", q.status()),
            ];
            all.extend(own.iter().map(|(n, v)| (format!("{n}{i}"), u64::from(*v))));
        }
        all
    }

    fn set(&mut self, ctx: &mut DeviceCtx<'_>, register: &str, value: u64) -> Result<(), String> {
        let small = u32::try_from(value).map_err(|_| format!("{value:#x} does not fit a 32-bit register"));
        match register {
            "cause" => {
                let cause = small? & self.all();
                self.apply(ctx, cause, self.mask);
            }
            "mask" => {
                let mask = small? | !self.all();
                self.apply(ctx, self.cause, mask);
            }
            "spurious_left" => self.spurious.set_left(value),
            _ => {
                return Err(format!("ring has no register `{register}` to set; cause, mask, spurious_left"));
            }
        }
        Ok(())
    }
}
