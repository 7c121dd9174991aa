//! pulse: the smallest interrupt source. Data sheet: `docs/devices/pulse.md`.

use dirql_machine::{BarSpec, Device, DeviceCtx, Interrupts, PciIdentity};

use crate::freedom::{SPURIOUS, Spurious};
use crate::props::{BuildError, Props, bad};
use crate::{Model, PropDoc};

/// Value of the ID register: "PULS" read as a big-endian number.
const ID: u32 = 0x5055_4C53;
const MAX_SOURCES: u32 = 32;

pub(crate) const MODEL: Model = Model {
    name: "pulse",
    doc: "the smallest interrupt source: up to 32 sources with status, enable and raise registers",
    props: &[
        PropDoc {
            name: "sources",
            form: "1 to 32",
            default: "the number of interrupts",
            doc: "How many sources.",
        },
        PropDoc {
            name: "arrivals",
            form: "number",
            default: "0 (free_running: one a source)",
            doc: "How often in a run it may raise a source of itself.",
        },
        PropDoc {
            name: "free_running",
            form: "true or false",
            default: "false",
            doc: "Every source is enabled from reset, and sending a message clears its STATUS bit.",
        },
        SPURIOUS,
    ],
};

/// The device.
#[derive(Clone, Debug)]
pub struct Pulse {
    identity: PciIdentity,
    sources: u32,
    free_running: bool,
    status: u32,
    enable: u32,
    scratch: u32,
    count: [u32; MAX_SOURCES as usize],
    arrivals: u64,
    /// The source of the next arrival.
    next: u32,
    /// Free-running sources that fired since they became open.
    fired: u32,
    spurious: Spurious,
}

impl Pulse {
    pub(crate) fn build(props: &Props<'_>) -> Result<Pulse, BuildError> {
        let identity = props.identity(PciIdentity {
            vendor: 0x1234,
            device: 0xd1a1,
            revision: 1,
            class: 0xff_0000,
            subsystem: (0x1234, 0xd1a1),
            bars: vec![BarSpec::memory(4096)],
            interrupts: Interrupts::line(),
        })?;
        let default = identity.interrupts.count().clamp(1, MAX_SOURCES);
        let sources = props.int("sources", u64::from(MAX_SOURCES))?.map_or(default, |n| n as u32);
        if sources == 0 {
            return Err(bad("sources", "at least one is needed"));
        }
        let free_running = props.flag("free_running")?.unwrap_or(false);
        if free_running && identity.interrupts.msi.is_none() && identity.interrupts.msix.is_none() {
            // A PCI line is level-triggered, and nothing would ever quiet it.
            return Err(bad(
                "free_running",
                "with a line this is a storm; give it messages (msi:N or msix:N)",
            ));
        }
        let arrivals = props.int("arrivals", u64::from(u32::MAX))?.unwrap_or(if free_running {
            sources.into()
        } else {
            0
        });
        let all = u32::MAX >> (32 - sources);
        let enable = if free_running { all } else { 0 };
        Ok(Pulse {
            identity,
            sources,
            free_running,
            status: 0,
            enable,
            scratch: 0,
            count: [0; MAX_SOURCES as usize],
            arrivals,
            next: 0,
            fired: 0,
            spurious: Spurious::build(props)?,
        })
    }

    fn all(&self) -> u32 {
        u32::MAX >> (32 - self.sources)
    }

    /// Changes STATUS and ENABLE; line and messages follow. `from` is STATUS & ENABLE before.
    fn apply(&mut self, ctx: &mut DeviceCtx<'_>, status: u32, enable: u32) {
        let before = self.status & self.enable;
        for i in 0..self.sources {
            if status & !self.status & 1 << i != 0 {
                self.count[i as usize] = self.count[i as usize].wrapping_add(1);
            }
        }
        (self.status, self.enable) = (status, enable);
        let granted = ctx.messages_granted();
        let rising = status & enable & !before;
        if granted > 0 {
            for i in (0..self.sources).filter(|i| rising & 1 << i != 0) {
                let message = if i < granted { i } else { 0 };
                ctx.send_message(message);
                self.spurious.again(ctx, message);
                if self.free_running {
                    self.status &= !(1 << i);
                }
            }
        }
        self.drive(ctx);
    }

    fn drive(&self, ctx: &mut DeviceCtx<'_>) {
        ctx.set_line(self.status & self.enable != 0 || self.spurious.line());
    }

    fn set_source(&mut self, ctx: &mut DeviceCtx<'_>, i: u32) {
        self.apply(ctx, self.status | 1 << i, self.enable);
    }
}

impl Device for Pulse {
    fn clone_box(&self) -> Box<dyn Device> {
        Box::new(self.clone())
    }

    fn model(&self) -> &'static str {
        "pulse"
    }

    fn pci(&self) -> PciIdentity {
        self.identity.clone()
    }

    fn read(&mut self, ctx: &mut DeviceCtx<'_>, _bar: u8, offset: u64, size: u8) -> u64 {
        if self.spurious.touched() {
            self.drive(ctx);
        }
        if size != 4 || !offset.is_multiple_of(4) {
            ctx.log(format!("read of {size} bytes at {offset:#x}: registers take aligned 4-byte accesses"));
            return u64::MAX;
        }
        u64::from(match offset {
            0x00 => ID,
            0x04 => self.status,
            0x08 => self.enable,
            0x10 => self.sources,
            0x14 => self.scratch,
            0x100.. => {
                let i = (offset - 0x100) / 4;
                if i < u64::from(self.sources) { self.count[i as usize] } else { 0 }
            }
            _ => 0,
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
        match offset {
            0x04 => self.apply(ctx, self.status & !value, self.enable),
            0x08 => self.apply(ctx, self.status, value & self.all()),
            0x0c => self.apply(ctx, self.status | value & self.all(), self.enable),
            0x14 => self.scratch = value,
            _ => ctx.log(format!("write to {offset:#x}, which is read-only or not a register")),
        }
    }

    fn event(&mut self, ctx: &mut DeviceCtx<'_>, id: u64) {
        if self.spurious.event(id) {
            self.drive(ctx);
        }
    }

    /// Sources, and after them the same again for interrupts without a cause.
    fn possible_arrivals(&self) -> Vec<u32> {
        let real = if self.arrivals == 0 { 0..0 } else { 0..self.sources };
        let spurious = if self.spurious.left() == 0 { 0..0 } else { self.sources..2 * self.sources };
        real.chain(spurious).collect()
    }

    fn arrive(&mut self, ctx: &mut DeviceCtx<'_>, source: u32) -> bool {
        if (self.sources..2 * self.sources).contains(&source) {
            let done = self.spurious.fire(ctx, source - self.sources);
            self.drive(ctx);
            return done;
        }
        if self.arrivals == 0 || source >= self.sources || ctx.d_state() != 0 {
            return false;
        }
        self.arrivals -= 1;
        self.set_source(ctx, source);
        true
    }

    fn arrival(&mut self, ctx: &mut DeviceCtx<'_>) -> bool {
        let source = self.next;
        let done = self.arrive(ctx, source);
        if done {
            self.next = (source + 1) % self.sources;
        }
        done
    }

    fn reconfigured(&mut self, ctx: &mut DeviceCtx<'_>) {
        if !self.free_running {
            return;
        }
        let granted = ctx.messages_granted();
        for i in 0..self.sources {
            let open = granted > 0 && ctx.message_open(if i < granted { i } else { 0 });
            if !open {
                self.fired &= !(1 << i);
            } else if self.fired & 1 << i == 0 {
                self.fired |= 1 << i;
                self.arrive(ctx, i);
            }
        }
    }

    fn raise(&mut self, ctx: &mut DeviceCtx<'_>, source: u32) -> Result<(), String> {
        if source >= self.sources {
            return Err(format!("pulse has sources 0 to {}", self.sources - 1));
        }
        if ctx.d_state() == 0 {
            self.set_source(ctx, source);
        }
        Ok(())
    }

    fn registers(&self) -> Vec<(String, u64)> {
        let named = [("status", self.status), ("enable", self.enable), ("scratch", self.scratch)];
        let mut all: Vec<(String, u64)> =
            named.iter().map(|(n, v)| ((*n).to_string(), u64::from(*v))).collect();
        all.push(("sources".to_string(), u64::from(self.sources)));
        all.push(("arrivals_left".to_string(), self.arrivals));
        all.push(("spurious_left".to_string(), self.spurious.left()));
        all.extend((0..self.sources).map(|i| (format!("count{i}"), u64::from(self.count[i as usize]))));
        all
    }

    fn set(&mut self, ctx: &mut DeviceCtx<'_>, register: &str, value: u64) -> Result<(), String> {
        let small = u32::try_from(value).map_err(|_| format!("{value:#x} does not fit a 32-bit register"))?;
        match register {
            "status" => self.apply(ctx, small & self.all(), self.enable),
            "enable" => self.apply(ctx, self.status, small & self.all()),
            "scratch" => self.scratch = small,
            "arrivals_left" => self.arrivals = value,
            "spurious_left" => self.spurious.set_left(value),
            _ => {
                return Err(format!(
                    "pulse has no register `{register}` to set; status, enable, scratch, arrivals_left, \
                     spurious_left"
                ));
            }
        }
        Ok(())
    }
}
