//! edu: the educational device of QEMU's public specification (docs/specs/edu). Data sheet: `docs/devices/edu.md`.

use dirql_machine::{BarSpec, Device, DeviceCtx, Interrupts, PciIdentity};
use dirql_mem::Pa;

use crate::freedom::{self, Spurious};
use crate::props::{BuildError, Props, bad};
use crate::{Model, PropDoc};

const ID: u32 = 0x0100_00ed;
const BUFFER_AT: u64 = 0x4_0000;
const BUFFER_LEN: u64 = 4096;
const STATUS_COMPUTING: u32 = 1;
const STATUS_IRQ: u32 = 0x80;
const CMD_START: u64 = 1;
const CMD_TO_RAM: u64 = 2;
const CMD_IRQ: u64 = 4;
const IRQ_FACTORIAL: u32 = 1;
const IRQ_DMA: u32 = 0x100;
// Events carry what is due in the low bits and, above, which one: a stale event is nobody's.
const EVENT_FACTORIAL: u64 = 0;
const EVENT_DMA: u64 = 1;
const EVENT_SIGNAL: u64 = 2;
const EVENT_POSTED: u64 = 3;
const KINDS: u64 = 4;
/// How long an interrupt is held back to be merged with the next, and a posted write in the bridge.
const HOLD_NS: u64 = 1000;

pub(crate) const MODEL: Model = Model {
    name: "edu",
    doc: "QEMU's educational device: factorials, DMA and interrupts",
    props: &[
        PropDoc {
            name: "dma_mask",
            form: "number",
            default: "0x0fffffff (28 bits)",
            doc: "Address bits its DMA has.",
        },
        PropDoc {
            name: "factorial_ns",
            form: "number",
            default: "10000",
            doc: "How long a factorial takes.",
        },
        PropDoc { name: "dma_ns", form: "number", default: "100000", doc: "How long a transfer takes." },
        freedom::SPURIOUS,
    ],
};

/// The device.
#[derive(Clone, Debug)]
pub struct Edu {
    identity: PciIdentity,
    dma_mask: u64,
    factorial_ns: u64,
    dma_ns: u64,
    liveness: u32,
    factorial: u32,
    status: u32,
    irq: u32,
    source: u64,
    destination: u64,
    count: u64,
    command: u64,
    buffer: Vec<u8>,
    /// The number of the latest event of each kind.
    latest: [u64; KINDS as usize],
    /// An interrupt is held back.
    held: bool,
    /// A transfer to RAM that still sits in the bridge.
    posted: Option<(Pa, Vec<u8>)>,
    spurious: Spurious,
}

impl Edu {
    pub(crate) fn build(props: &Props<'_>) -> Result<Edu, BuildError> {
        let identity = props.identity(PciIdentity {
            vendor: 0x1234,
            device: 0x11e8,
            revision: 0x10,
            class: 0x00_ff00,
            subsystem: (0x1af4, 0x1100),
            bars: vec![BarSpec::memory(1 << 20)],
            interrupts: Interrupts::msi(1),
        })?;
        let dma_mask = props.int("dma_mask", u64::MAX)?.unwrap_or((1 << 28) - 1);
        if dma_mask == 0 {
            return Err(bad("dma_mask", "no address would be left"));
        }
        Ok(Edu {
            identity,
            dma_mask,
            factorial_ns: props.int("factorial_ns", u64::MAX)?.unwrap_or(10_000),
            dma_ns: props.int("dma_ns", u64::MAX)?.unwrap_or(100_000),
            liveness: 0,
            factorial: 0,
            status: 0,
            irq: 0,
            source: 0,
            destination: 0,
            count: 0,
            command: 0,
            buffer: vec![0; BUFFER_LEN as usize],
            latest: [0; KINDS as usize],
            held: false,
            posted: None,
            spurious: Spurious::build(props)?,
        })
    }

    fn schedule(&mut self, ctx: &mut DeviceCtx<'_>, kind: u64, delay: u64) {
        self.latest[kind as usize] += 1;
        ctx.schedule(delay, self.latest[kind as usize] * KINDS + kind);
    }

    /// Work is done: its interrupt comes now, or is held back and merged with the next.
    fn finished(&mut self, ctx: &mut DeviceCtx<'_>, bits: u32) {
        if !self.held && ctx.choose("coalesce", 2, 0) == 1 {
            self.irq |= bits;
            self.held = true;
            self.schedule(ctx, EVENT_SIGNAL, HOLD_NS);
        } else {
            self.interrupt(ctx, bits);
        }
    }

    fn interrupt(&mut self, ctx: &mut DeviceCtx<'_>, bits: u32) {
        self.irq |= bits;
        self.held = false;
        if self.irq != 0 && ctx.messages_granted() > 0 {
            ctx.send_message(0);
            self.spurious.again(ctx, 0);
        }
        self.drive(ctx);
    }

    fn drive(&self, ctx: &mut DeviceCtx<'_>) {
        ctx.set_line(self.irq != 0 && !self.held || self.spurious.line());
    }

    fn flush(&mut self, ctx: &mut DeviceCtx<'_>) {
        if let Some((pa, data)) = self.posted.take()
            && let Err(e) = ctx.dma_write(pa, &data)
        {
            ctx.log(format!("DMA at {:#x}: {e}", pa.0));
        }
    }

    /// A register is accessed: a spurious pulse ends, and posted writes arrive, for the completion of a read may
    /// not pass them (PCI ordering).
    fn touched(&mut self, ctx: &mut DeviceCtx<'_>, read: bool) {
        if self.spurious.touched() {
            self.drive(ctx);
        }
        if read && self.posted.is_some() {
            self.schedule(ctx, EVENT_POSTED, 0);
        }
    }

    fn acknowledge(&mut self, ctx: &mut DeviceCtx<'_>, bits: u32) {
        self.irq &= !bits;
        self.drive(ctx);
    }

    /// The specification allows 4-byte accesses below 0x80, and 4 or 8 bytes above.
    fn fits(offset: u64, size: u8) -> bool {
        offset.is_multiple_of(u64::from(size.max(1))) && (size == 4 || size == 8 && offset >= 0x80)
    }

    fn dma_register(&mut self, offset: u64) -> Option<&mut u64> {
        match offset & !7 {
            0x80 => Some(&mut self.source),
            0x88 => Some(&mut self.destination),
            0x90 => Some(&mut self.count),
            0x98 => Some(&mut self.command),
            _ => None,
        }
    }

    fn transfer(&mut self, ctx: &mut DeviceCtx<'_>) -> Result<(), String> {
        let to_ram = self.command & CMD_TO_RAM != 0;
        let (inside, outside) =
            if to_ram { (self.source, self.destination) } else { (self.destination, self.source) };
        let start =
            inside.checked_sub(BUFFER_AT).filter(|s| *s <= BUFFER_LEN && self.count <= BUFFER_LEN - s);
        let start = start.ok_or_else(|| {
            let count = self.count;
            format!("DMA of {count:#x} bytes at {inside:#x} of the device: its buffer is 0x40000 to 0x40fff")
        })?;
        let range = start as usize..(start + self.count) as usize;
        let masked = outside & self.dma_mask;
        if masked != outside {
            ctx.log(format!("DMA address {outside:#x} does not fit dma_mask; the device uses {masked:#x}"));
        }
        self.flush(ctx);
        // A pin is not ordered with writes; a message is a write itself and never passes them.
        let pin = ctx.messages_granted() == 0 && self.command & CMD_IRQ != 0;
        if to_ram && pin && ctx.choose("posted", 2, 0) == 1 {
            self.posted = Some((Pa(masked), self.buffer[range].to_vec()));
            self.schedule(ctx, EVENT_POSTED, HOLD_NS);
            return Ok(());
        }
        let done = if to_ram {
            ctx.dma_write(Pa(masked), &self.buffer[range])
        } else {
            ctx.dma_read(Pa(masked), &mut self.buffer[range])
        };
        done.map_err(|e| format!("DMA at {masked:#x}: {e}"))
    }
}

impl Device for Edu {
    fn clone_box(&self) -> Box<dyn Device> {
        Box::new(self.clone())
    }

    fn model(&self) -> &'static str {
        "edu"
    }

    fn pci(&self) -> PciIdentity {
        self.identity.clone()
    }

    fn read(&mut self, ctx: &mut DeviceCtx<'_>, _bar: u8, offset: u64, size: u8) -> u64 {
        self.touched(ctx, true);
        if !Self::fits(offset, size) {
            ctx.log(format!(
                "read of {size} bytes at {offset:#x}: 4 bytes below 0x80, 4 or 8 above, aligned"
            ));
            return u64::MAX;
        }
        match offset {
            0x00 => u64::from(ID),
            0x04 => u64::from(self.liveness),
            0x08 => u64::from(self.factorial),
            0x20 => u64::from(self.status),
            0x24 => {
                let seen = self.irq;
                let hand = if self.status & STATUS_COMPUTING != 0 {
                    Some(EVENT_FACTORIAL)
                } else {
                    (self.command & CMD_START != 0).then_some(EVENT_DMA)
                };
                if let Some(kind) = hand
                    && ctx.choose("rise", 2, 0) == 1
                {
                    self.schedule(ctx, kind, 0);
                }
                u64::from(seen)
            }
            _ => match self.dma_register(offset) {
                Some(register) => *register >> (8 * (offset & 4)),
                None => u64::MAX,
            },
        }
    }

    fn write(&mut self, ctx: &mut DeviceCtx<'_>, _bar: u8, offset: u64, size: u8, value: u64) {
        self.touched(ctx, false);
        if !Self::fits(offset, size) {
            ctx.log(format!(
                "write of {size} bytes at {offset:#x}: 4 bytes below 0x80, 4 or 8 above, aligned"
            ));
            return;
        }
        let low = value as u32;
        match offset {
            0x04 => self.liveness = !low,
            0x08 if self.status & STATUS_COMPUTING == 0 => {
                self.factorial = low;
                self.status |= STATUS_COMPUTING;
                let delay = freedom::delay(ctx, self.factorial_ns);
                self.schedule(ctx, EVENT_FACTORIAL, delay);
            }
            0x08 => ctx.log("factorial written while one is computed: ignored"),
            0x20 => self.status = (self.status & !STATUS_IRQ) | (low & STATUS_IRQ),
            0x60 => self.interrupt(ctx, low),
            0x64 => self.acknowledge(ctx, low),
            0x80..=0x9f if self.command & CMD_START != 0 => {
                ctx.log(format!("DMA register {offset:#x} written while a transfer runs: ignored"));
            }
            0x80..=0x9f => {
                if let Some(register) = self.dma_register(offset) {
                    *register = match (size, offset & 4) {
                        (8, _) => value,
                        (_, 0) => (*register & !0xffff_ffff) | u64::from(low),
                        _ => (*register & 0xffff_ffff) | u64::from(low) << 32,
                    };
                }
                if offset & !7 == 0x98 && self.command & CMD_START != 0 {
                    let delay = freedom::delay(ctx, self.dma_ns);
                    self.schedule(ctx, EVENT_DMA, delay);
                }
            }
            _ => ctx.log(format!("write to {offset:#x}, which is read-only or not a register")),
        }
    }

    fn event(&mut self, ctx: &mut DeviceCtx<'_>, id: u64) {
        if self.spurious.event(id) {
            return self.drive(ctx);
        }
        let kind = id % KINDS;
        if id / KINDS != self.latest[kind as usize] {
            return;
        }
        match kind {
            EVENT_SIGNAL if self.held => self.interrupt(ctx, 0),
            EVENT_POSTED => self.flush(ctx),
            EVENT_FACTORIAL if self.status & STATUS_COMPUTING != 0 => {
                // 34! is 0 modulo 2^32 and so is every later product: no guest makes this loop long.
                self.factorial =
                    if self.factorial >= 34 { 0 } else { (1..=self.factorial).fold(1, u32::wrapping_mul) };
                self.status &= !STATUS_COMPUTING;
                if self.status & STATUS_IRQ != 0 {
                    self.finished(ctx, IRQ_FACTORIAL);
                }
            }
            EVENT_DMA if self.command & CMD_START != 0 => {
                if let Err(text) = self.transfer(ctx) {
                    ctx.log(text);
                }
                self.command &= !CMD_START;
                if self.command & CMD_IRQ != 0 {
                    self.finished(ctx, IRQ_DMA);
                }
            }
            _ => {}
        }
    }

    fn possible_arrivals(&self) -> Vec<u32> {
        if self.spurious.left() == 0 { Vec::new() } else { vec![0] }
    }

    fn arrive(&mut self, ctx: &mut DeviceCtx<'_>, source: u32) -> bool {
        let done = source == 0 && self.spurious.fire(ctx, 0);
        self.drive(ctx);
        done
    }

    fn raise(&mut self, ctx: &mut DeviceCtx<'_>, source: u32) -> Result<(), String> {
        if source > 31 {
            return Err("edu raises a bit of its interrupt status: sources 0 to 31".to_string());
        }
        if ctx.d_state() == 0 {
            self.interrupt(ctx, 1 << source);
        }
        Ok(())
    }

    fn registers(&self) -> Vec<(String, u64)> {
        let small = [
            ("liveness", self.liveness),
            ("factorial", self.factorial),
            ("status", self.status),
            ("irq_status", self.irq),
        ];
        let wide = [
            ("dma_source", self.source),
            ("dma_destination", self.destination),
            ("dma_count", self.count),
            ("dma_command", self.command),
            ("spurious_left", self.spurious.left()),
        ];
        small.iter().map(|(n, v)| (*n, u64::from(*v))).chain(wide).map(|(n, v)| (n.to_string(), v)).collect()
    }

    fn set(&mut self, ctx: &mut DeviceCtx<'_>, register: &str, value: u64) -> Result<(), String> {
        let small = u32::try_from(value).map_err(|_| format!("{value:#x} does not fit a 32-bit register"));
        match register {
            "liveness" => self.liveness = small?,
            "factorial" => self.factorial = small?,
            "irq_status" => {
                let (bits, old) = (small?, self.irq);
                self.irq &= bits;
                self.acknowledge(ctx, 0);
                if bits & !old != 0 {
                    self.interrupt(ctx, bits);
                }
            }
            "dma_source" => self.source = value,
            "dma_destination" => self.destination = value,
            "dma_count" => self.count = value,
            "spurious_left" => self.spurious.set_left(value),
            _ => {
                return Err(format!(
                    "edu has no register `{register}` to set; liveness, factorial, irq_status, dma_source, \
                     dma_destination, dma_count, spurious_left"
                ));
            }
        }
        Ok(())
    }
}
