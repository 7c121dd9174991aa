//! stub: a device with no model of its hardware. Data sheet: `docs/devices/stub.md`.

use std::collections::BTreeMap;

use dirql_machine::{BarSpec, Device, DeviceCtx, Interrupts, PciIdentity};

use crate::props::{BuildError, Props, bad};
use crate::{Model, PropDoc};

/// How long its line stays up when the driver touches no register.
const PULSE_NS: u64 = 1000;
/// Most values of interest.
const MAX_VALUES: usize = 64;
/// Most bytes that keep their last written value.
const MAX_BYTES: usize = 1 << 16;

pub(crate) const MODEL: Model = Model {
    name: "stub",
    doc: "declares BARs and interrupts for a driver with no model of its hardware; reads answered by choice",
    props: &[
        PropDoc {
            name: "io_ports",
            form: "0, or a power of two from 4 to 256",
            default: "256 when a BAR is left",
            doc: "Size of an I/O BAR after the memory BARs.",
        },
        PropDoc {
            name: "values",
            form: "list of numbers",
            default: "[]",
            doc: "Values a register may read as: what the driver compares with.",
        },
        PropDoc {
            name: "arrivals",
            form: "number",
            default: "0",
            doc: "How often in a run it may raise a source of itself.",
        },
    ],
};

/// The device.
#[derive(Clone, Debug)]
pub struct Stub {
    identity: PciIdentity,
    bytes: BTreeMap<(u8, u64), u8>,
    line: bool,
    /// Which line pulse is up: the event that ends an older one is stale.
    pulse: u64,
    arrivals: u64,
    next: u32,
    values: Vec<u64>,
    raised: u64,
    reads: u64,
    writes: u64,
}

impl Stub {
    pub(crate) fn build(props: &Props<'_>) -> Result<Stub, BuildError> {
        let bars =
            props.bars("bars")?.unwrap_or_else(|| vec![BarSpec::memory(0x1_0000), BarSpec::memory(0x1000)]);
        let mut identity = props.identity(PciIdentity {
            vendor: 0x1234,
            device: 0xd1a0,
            revision: 0,
            class: 0xff_0000,
            subsystem: (0x1234, 0xd1a0),
            bars,
            interrupts: Interrupts::msix(8),
        })?;
        let most = 6 - usize::from(identity.interrupts.msix.is_some());
        if identity.bars.len() > most {
            return Err(bad("bars", format!("at most {most} fit with these interrupts")));
        }
        let ports = props.int("io_ports", 256)?;
        let default = if identity.bars.len() < most { 256 } else { 0 };
        let bar = BarSpec::Io { len: ports.map_or(default, |n| n as u32) };
        match bar {
            BarSpec::Io { len: 0 } => {}
            _ if !bar.valid() => {
                return Err(bad("io_ports", "an I/O BAR has 4, 8, 16, 32, 64, 128 or 256 ports"));
            }
            _ if identity.bars.len() == most => return Err(bad("io_ports", "no BAR is left for them")),
            _ => identity.bars.push(bar),
        }
        let arrivals = props.int("arrivals", u64::from(u32::MAX))?.unwrap_or(0);
        Ok(Stub {
            identity,
            bytes: BTreeMap::new(),
            line: false,
            pulse: 0,
            arrivals,
            next: 0,
            values: props.ints("values", MAX_VALUES)?.unwrap_or_default(),
            raised: 0,
            reads: 0,
            writes: 0,
        })
    }

    fn sources(&self) -> u32 {
        self.identity.interrupts.count()
    }

    fn fire(&mut self, ctx: &mut DeviceCtx<'_>, source: u32) {
        self.raised = self.raised.saturating_add(1);
        let granted = ctx.messages_granted();
        if granted > 0 {
            ctx.send_message(if source < granted { source } else { 0 });
        } else {
            self.line = true;
            self.pulse += 1;
            ctx.set_line(true);
            ctx.schedule(PULSE_NS, self.pulse);
        }
    }

    fn quiet(&mut self, ctx: &mut DeviceCtx<'_>) {
        if self.line {
            self.line = false;
            ctx.set_line(false);
        }
    }
}

impl Device for Stub {
    fn clone_box(&self) -> Box<dyn Device> {
        Box::new(self.clone())
    }

    fn model(&self) -> &'static str {
        "stub"
    }

    fn pci(&self) -> PciIdentity {
        self.identity.clone()
    }

    fn read(&mut self, ctx: &mut DeviceCtx<'_>, bar: u8, offset: u64, size: u8) -> u64 {
        self.reads = self.reads.saturating_add(1);
        self.quiet(ctx);
        let mut value = 0u64;
        for i in 0..u64::from(size.min(8)) {
            value |= u64::from(self.bytes.get(&(bar, offset + i)).copied().unwrap_or(0)) << (8 * i);
        }
        let ones = u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)));
        // All ones is what a read of a device that went away gives: the case drivers forget.
        let mut answers = vec![value];
        for answer in [ones, 0].into_iter().chain(self.values.iter().map(|v| v & ones)) {
            if !answers.contains(&answer) {
                answers.push(answer);
            }
        }
        let answer = ctx.choose("read", answers.len() as u32 + 1, 0) as usize;
        match answers.get(answer) {
            Some(answer) => *answer,
            None => 1 << ctx.choose("bit", 8 * u32::from(size.clamp(1, 8)), 0),
        }
    }

    fn write(&mut self, ctx: &mut DeviceCtx<'_>, bar: u8, offset: u64, size: u8, value: u64) {
        self.writes = self.writes.saturating_add(1);
        self.quiet(ctx);
        for i in 0..u64::from(size.min(8)) {
            let key = (bar, offset + i);
            if self.bytes.len() >= MAX_BYTES && !self.bytes.contains_key(&key) {
                ctx.log(format!("write at {offset:#x} is not remembered: {MAX_BYTES} bytes already are"));
                return;
            }
            self.bytes.insert(key, (value >> (8 * i)) as u8);
        }
    }

    fn event(&mut self, ctx: &mut DeviceCtx<'_>, id: u64) {
        if id == self.pulse {
            self.quiet(ctx);
        }
    }

    fn possible_arrivals(&self) -> Vec<u32> {
        if self.arrivals == 0 { Vec::new() } else { (0..self.sources()).collect() }
    }

    fn arrive(&mut self, ctx: &mut DeviceCtx<'_>, source: u32) -> bool {
        if self.arrivals == 0 || source >= self.sources() || ctx.d_state() != 0 {
            return false;
        }
        self.arrivals -= 1;
        self.fire(ctx, source);
        true
    }

    fn arrival(&mut self, ctx: &mut DeviceCtx<'_>) -> bool {
        let done = self.arrive(ctx, self.next);
        if done {
            self.next = (self.next + 1) % self.sources();
        }
        done
    }

    fn raise(&mut self, ctx: &mut DeviceCtx<'_>, source: u32) -> Result<(), String> {
        if source >= self.sources() {
            return Err(format!("stub has {} sources, counted from 0", self.sources()));
        }
        if ctx.d_state() == 0 {
            self.fire(ctx, source);
        }
        Ok(())
    }

    fn registers(&self) -> Vec<(String, u64)> {
        let named = [
            ("raised", self.raised),
            ("reads", self.reads),
            ("writes", self.writes),
            ("arrivals_left", self.arrivals),
        ];
        named.iter().map(|(n, v)| ((*n).to_string(), *v)).collect()
    }

    /// A register is named by BAR and offset, `bar0+0x10`, and holds 32 bits.
    fn set(&mut self, _ctx: &mut DeviceCtx<'_>, register: &str, value: u64) -> Result<(), String> {
        let wanted = || format!("`{register}`: a register of stub is named like bar0+0x10");
        let (bar, offset) =
            register.strip_prefix("bar").and_then(|r| r.split_once('+')).ok_or_else(wanted)?;
        let bar: u8 = bar.parse().map_err(|_| wanted())?;
        let offset = match offset.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => offset.parse(),
        }
        .map_err(|_| wanted())?;
        let mut index = 0;
        let spec = self.identity.bars.iter().find(|b| {
            let here = index == bar;
            index += b.registers();
            here
        });
        let len = match spec {
            Some(BarSpec::Memory { len, .. }) => *len,
            Some(BarSpec::Io { len }) => u64::from(*len),
            None => return Err(format!("stub has no BAR {bar}")),
        };
        if offset.checked_add(4).is_none_or(|end| end > len) {
            return Err(format!("{offset:#x} is past the end of BAR {bar}"));
        }
        let small = u32::try_from(value).map_err(|_| format!("{value:#x} does not fit 32 bits"))?;
        if self.bytes.len() + 4 > MAX_BYTES {
            return Err(format!("{MAX_BYTES} bytes are remembered already"));
        }
        for (i, byte) in small.to_le_bytes().into_iter().enumerate() {
            self.bytes.insert((bar, offset + i as u64), byte);
        }
        Ok(())
    }
}
