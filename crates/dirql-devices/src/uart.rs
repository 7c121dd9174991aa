//! uart16550: a serial port. Data sheet: `docs/devices/uart16550.md`.
//!
//! After the data sheet of National Semiconductor's PC16550D. The crate `vm-superio` was looked at: it writes at
//! once to a host stream, has neither FIFO triggers, character timeouts nor a clock, and its state is not cloned.

use std::collections::VecDeque;

use dirql_machine::{BarSpec, Device, DeviceCtx, Interrupts, PciIdentity};

use crate::freedom::{self, Spurious};
use crate::props::{BuildError, Props, bad};
use crate::{Model, PropDoc};

/// The clock of the baud generator, in Hz.
const CLOCK: u64 = 1_843_200;
const FIFO: usize = 16;
/// Most bytes of output kept to be looked at.
const KEPT: usize = 64;
const MAX_INPUT: usize = 1 << 16;

const IER_RX: u8 = 1;
const IER_TX: u8 = 2;
const IER_LINE: u8 = 4;
const IER_MODEM: u8 = 8;
const LSR_DR: u8 = 1;
const LSR_OE: u8 = 2;
const LSR_BI: u8 = 0x10;
const LSR_THRE: u8 = 0x20;
const LSR_TEMT: u8 = 0x40;
/// What reading LSR clears.
const LSR_ERRORS: u8 = 0x1e;
const LCR_DLAB: u8 = 0x80;
const MCR_RTS: u8 = 2;
const MCR_OUT2: u8 = 8;
const MCR_LOOP: u8 = 0x10;
const FCR_ENABLE: u8 = 1;
const IIR_NONE: u8 = 1;
const IIR_MODEM: u8 = 0;
const IIR_TX: u8 = 2;
const IIR_RX: u8 = 4;
const IIR_TIMEOUT: u8 = 0xc;
const IIR_LINE: u8 = 6;

// Events carry what is due in the low bits and, above, which one: a stale event is nobody's.
const SENT: u64 = 0;
const ARRIVED: u64 = 1;
const TIMEOUT: u64 = 2;
const START: u64 = 3;
const KINDS: u64 = 4;

pub(crate) const MODEL: Model = Model {
    name: "uart16550",
    doc: "a 16550 serial port, as a PCI card or at ISA ports, with baud timing and a host at the other end",
    props: &[
        PropDoc { name: "input", form: "text", default: "\"\"", doc: "What the host sends, once RTS is on." },
        PropDoc {
            name: "flow",
            form: "true or false",
            default: "true",
            doc: "The host sends only while RTS is on; else as soon as the line has a rate.",
        },
        PropDoc {
            name: "out2_gate",
            form: "true or false",
            default: "true",
            doc: "OUT2 lets the interrupt out, as PC boards wire it.",
        },
        freedom::SPURIOUS,
    ],
};

/// The device.
#[derive(Clone, Debug)]
pub struct Uart {
    identity: PciIdentity,
    flow: bool,
    out2_gate: bool,
    /// What the host has yet to send.
    input: VecDeque<u8>,
    output: Vec<u8>,
    tx_count: u64,
    rx_count: u64,
    /// FNV-1a of everything sent.
    digest: u64,
    ier: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    divisor: u16,
    fifo: bool,
    trigger: usize,
    /// Error bits of LSR that a read clears.
    errors: u8,
    rx: VecDeque<u8>,
    tx: VecDeque<u8>,
    /// The character in the shift register.
    shifting: Option<u8>,
    /// The idle line is about to take the first one.
    starting: bool,
    /// The holding register became empty and nobody was told yet.
    tx_empty: bool,
    /// Characters waited below the trigger for four character times.
    timed_out: bool,
    /// Changes of the modem lines since MSR was read.
    deltas: u8,
    arriving: bool,
    intr: bool,
    latest: [u64; KINDS as usize],
    spurious: Spurious,
}

impl Uart {
    pub(crate) fn build(props: &Props<'_>) -> Result<Uart, BuildError> {
        let identity = props.identity(PciIdentity {
            vendor: 0x1234,
            device: 0xd1a3,
            revision: 1,
            // Simple communication controller, serial, 16550.
            class: 0x07_0002,
            subsystem: (0x1234, 0xd1a3),
            bars: vec![BarSpec::Io { len: 8 }],
            interrupts: Interrupts::line(),
        })?;
        let input = props.text("input")?.unwrap_or("");
        if input.len() > MAX_INPUT {
            return Err(bad("input", format!("{} bytes; at most {MAX_INPUT} are taken", input.len())));
        }
        Ok(Uart {
            identity,
            flow: props.flag("flow")?.unwrap_or(true),
            out2_gate: props.flag("out2_gate")?.unwrap_or(true),
            input: input.bytes().collect(),
            output: Vec::new(),
            tx_count: 0,
            rx_count: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            ier: 0,
            lcr: 0,
            mcr: 0,
            scr: 0,
            divisor: 0,
            fifo: false,
            trigger: 1,
            errors: 0,
            rx: VecDeque::new(),
            tx: VecDeque::new(),
            shifting: None,
            starting: false,
            tx_empty: false,
            timed_out: false,
            deltas: 0,
            arriving: false,
            intr: false,
            latest: [0; KINDS as usize],
            spurious: Spurious::build(props)?,
        })
    }

    fn schedule(&mut self, ctx: &mut DeviceCtx<'_>, kind: u64, delay: u64) {
        self.latest[kind as usize] += 1;
        ctx.schedule(delay, self.latest[kind as usize] * KINDS + kind);
    }

    /// How long a character takes on the line, in ns; `None` without a rate.
    fn character(&self) -> Option<u64> {
        if self.divisor == 0 {
            return None;
        }
        // In half bits: start, 5 to 8 data, parity, and 1, 1.5 or 2 stop bits.
        let data = 5 + u64::from(self.lcr & 3);
        let stop = match (self.lcr & 4 != 0, data) {
            (false, _) => 2,
            (true, 5) => 3,
            (true, _) => 4,
        };
        let halves = 2 + 2 * data + 2 * u64::from(self.lcr >> 3 & 1) + stop;
        Some(halves * 8 * u64::from(self.divisor) * 1_000_000_000 / CLOCK)
    }

    fn depth(&self) -> usize {
        if self.fifo { FIFO } else { 1 }
    }

    fn looped(&self) -> bool {
        self.mcr & MCR_LOOP != 0
    }

    // Interrupts.

    /// The highest cause, as IIR tells it.
    fn cause(&self) -> u8 {
        if self.ier & IER_LINE != 0 && self.errors != 0 {
            IIR_LINE
        } else if self.ier & IER_RX != 0 && self.rx.len() >= self.trigger {
            IIR_RX
        } else if self.ier & IER_RX != 0 && self.timed_out && !self.rx.is_empty() {
            IIR_TIMEOUT
        } else if self.ier & IER_TX != 0 && self.tx_empty {
            IIR_TX
        } else if self.ier & IER_MODEM != 0 && self.deltas != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    /// The pin follows the causes; a message is sent when it rises.
    fn update(&mut self, ctx: &mut DeviceCtx<'_>) {
        // In loopback the OUT2 pin is inactive, whatever its bit says.
        let gate = !self.out2_gate || self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2;
        let intr = gate && self.cause() != IIR_NONE;
        if intr && !self.intr && ctx.messages_granted() > 0 {
            ctx.send_message(0);
            self.spurious.again(ctx, 0);
        }
        self.intr = intr;
        ctx.set_line(intr || self.spurious.line());
    }

    // The transmitter.

    /// An idle transmitter takes its first character 16 clocks of the baud generator after it was written (the data
    /// sheet gives 8 to 24): time to fill the FIFO behind it.
    fn start(&mut self, ctx: &mut DeviceCtx<'_>) {
        if self.shifting.is_none() && !self.starting && !self.tx.is_empty() && self.divisor != 0 {
            self.starting = true;
            self.schedule(ctx, START, 16 * u64::from(self.divisor) * 1_000_000_000 / CLOCK);
        }
    }

    /// Puts the next character into the shift register.
    fn shift(&mut self, ctx: &mut DeviceCtx<'_>) {
        self.starting = false;
        let Some(time) = self.character() else { return };
        let Some(byte) = self.tx.pop_front() else { return };
        self.shifting = Some(byte);
        if self.tx.is_empty() {
            self.tx_empty = true;
        }
        let delay = freedom::delay(ctx, time);
        self.schedule(ctx, SENT, delay);
    }

    fn transmit(&mut self, ctx: &mut DeviceCtx<'_>, byte: u8) {
        self.tx_empty = false;
        if self.character().is_none() {
            ctx.log("a character is written and the divisor is 0: nothing is sent");
        }
        if self.tx.len() >= self.depth() {
            // The holding register is overwritten; a FIFO drops what does not fit.
            ctx.log("a character is written while the transmitter is full: one is lost");
            if !self.fifo {
                self.tx.clear();
                self.tx.push_back(byte);
            }
        } else {
            self.tx.push_back(byte);
        }
        self.start(ctx);
    }

    fn sent(&mut self, ctx: &mut DeviceCtx<'_>) {
        let Some(byte) = self.shifting.take() else { return };
        if self.looped() {
            self.receive(ctx, byte);
        } else {
            self.tx_count = self.tx_count.saturating_add(1);
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            if self.output.len() < KEPT {
                self.output.push(byte);
            }
        }
        self.shift(ctx);
    }

    // The receiver.

    fn receive(&mut self, ctx: &mut DeviceCtx<'_>, byte: u8) {
        self.rx_count = self.rx_count.saturating_add(1);
        let mask = (1u16 << (5 + (self.lcr & 3))) - 1;
        let byte = byte & mask as u8;
        if self.rx.len() >= self.depth() {
            self.errors |= LSR_OE;
            if !self.fifo {
                self.rx.clear();
                self.rx.push_back(byte);
            }
        } else {
            self.rx.push_back(byte);
        }
        self.watch(ctx);
    }

    /// Arms the character timeout anew: four characters without one coming or being read.
    fn watch(&mut self, ctx: &mut DeviceCtx<'_>) {
        self.timed_out = false;
        if let (true, false, Some(time)) = (self.fifo, self.rx.is_empty(), self.character()) {
            self.schedule(ctx, TIMEOUT, 4 * time);
        }
    }

    /// The host begins its next character, when it may.
    fn listen(&mut self, ctx: &mut DeviceCtx<'_>) {
        let allowed = !self.flow || self.mcr & MCR_RTS != 0;
        if self.arriving || self.input.is_empty() || !allowed || self.looped() || ctx.d_state() != 0 {
            return;
        }
        let Some(time) = self.character() else { return };
        self.arriving = true;
        let delay = freedom::delay(ctx, time);
        self.schedule(ctx, ARRIVED, delay);
    }

    fn arrived(&mut self, ctx: &mut DeviceCtx<'_>) {
        self.arriving = false;
        if !self.looped()
            && let Some(byte) = self.input.pop_front()
        {
            self.receive(ctx, byte);
        }
        self.listen(ctx);
    }

    // The modem lines.

    /// The state bits of MSR: the host has CTS, DSR and DCD on; in loopback they are our own outputs.
    fn modem(&self) -> u8 {
        if !self.looped() {
            return 0xb0;
        }
        let m = self.mcr;
        (m >> 1 & 1) << 4 | (m & 1) << 5 | (m >> 2 & 1) << 6 | (m >> 3 & 1) << 7
    }

    fn set_mcr(&mut self, value: u8) {
        let before = self.modem();
        self.mcr = value & 0x1f;
        let after = self.modem();
        let changed = (before ^ after) >> 4;
        // RI tells only its trailing edge.
        let ring = before & !after & 0x40 != 0;
        self.deltas |= changed & 0xb | u8::from(ring) << 2;
    }

    fn set_fcr(&mut self, value: u8) {
        let fifo = value & FCR_ENABLE != 0;
        if value & 2 != 0 || fifo != self.fifo {
            self.rx.clear();
            self.timed_out = false;
        }
        if value & 4 != 0 || fifo != self.fifo {
            self.tx.clear();
            self.tx_empty = true;
        }
        self.fifo = fifo;
        self.trigger = if fifo { [1, 4, 8, 14][usize::from(value >> 6)] } else { 1 };
    }

    fn lsr(&self) -> u8 {
        let mut lsr = self.errors;
        if !self.rx.is_empty() {
            lsr |= LSR_DR;
        }
        if self.tx.is_empty() {
            lsr |= LSR_THRE;
            if self.shifting.is_none() {
                lsr |= LSR_TEMT;
            }
        }
        lsr
    }

    fn read_register(&mut self, ctx: &mut DeviceCtx<'_>, offset: u64) -> u8 {
        let dlab = self.lcr & LCR_DLAB != 0;
        match offset {
            0 if dlab => self.divisor as u8,
            0 => {
                let byte = self.rx.pop_front().unwrap_or(0);
                self.watch(ctx);
                byte
            }
            1 if dlab => (self.divisor >> 8) as u8,
            1 => self.ier,
            2 => {
                let cause = self.cause();
                if cause == IIR_TX {
                    self.tx_empty = false;
                }
                if self.arriving && ctx.choose("rise", 2, 0) == 1 {
                    self.schedule(ctx, ARRIVED, 0);
                }
                cause | if self.fifo { 0xc0 } else { 0 }
            }
            3 => self.lcr,
            4 => self.mcr,
            5 => {
                let lsr = self.lsr();
                self.errors &= !LSR_ERRORS;
                lsr
            }
            6 => self.modem() | std::mem::take(&mut self.deltas),
            _ => self.scr,
        }
    }

    fn write_register(&mut self, ctx: &mut DeviceCtx<'_>, offset: u64, value: u8) {
        let dlab = self.lcr & LCR_DLAB != 0;
        match offset {
            0 if dlab => self.divisor = self.divisor & 0xff00 | u16::from(value),
            0 => self.transmit(ctx, value),
            1 if dlab => self.divisor = self.divisor & 0xff | u16::from(value) << 8,
            1 => {
                // Enabling the transmitter's interrupt while it is empty raises it.
                if value & !self.ier & IER_TX != 0 && self.tx.is_empty() {
                    self.tx_empty = true;
                }
                self.ier = value & 0xf;
            }
            2 => self.set_fcr(value),
            3 => self.lcr = value,
            4 => self.set_mcr(value),
            7 => self.scr = value,
            _ => ctx.log(format!("write to {offset:#x}, which is read-only")),
        }
        // A rate or RTS may have come.
        self.start(ctx);
        self.listen(ctx);
    }
}

impl Device for Uart {
    fn clone_box(&self) -> Box<dyn Device> {
        Box::new(self.clone())
    }

    fn model(&self) -> &'static str {
        "uart16550"
    }

    fn pci(&self) -> PciIdentity {
        self.identity.clone()
    }

    fn read(&mut self, ctx: &mut DeviceCtx<'_>, _bar: u8, offset: u64, size: u8) -> u64 {
        self.spurious.touched();
        let value = if size == 1 && offset < 8 {
            u64::from(self.read_register(ctx, offset))
        } else {
            ctx.log(format!("read of {size} bytes at {offset:#x}: registers take 1-byte accesses"));
            u64::MAX
        };
        self.update(ctx);
        value
    }

    fn write(&mut self, ctx: &mut DeviceCtx<'_>, _bar: u8, offset: u64, size: u8, value: u64) {
        self.spurious.touched();
        if size == 1 && offset < 8 {
            self.write_register(ctx, offset, value as u8);
        } else {
            ctx.log(format!("write of {size} bytes at {offset:#x}: registers take 1-byte accesses"));
        }
        self.update(ctx);
    }

    fn event(&mut self, ctx: &mut DeviceCtx<'_>, id: u64) {
        if self.spurious.event(id) {
            return self.update(ctx);
        }
        let kind = id % KINDS;
        if id / KINDS != self.latest[kind as usize] || ctx.d_state() != 0 {
            return;
        }
        match kind {
            START => self.shift(ctx),
            SENT => self.sent(ctx),
            ARRIVED => self.arrived(ctx),
            _ => self.timed_out = !self.rx.is_empty(),
        }
        self.update(ctx);
    }

    fn power(&mut self, ctx: &mut DeviceCtx<'_>, d_state: u8) {
        if d_state != 0 {
            return;
        }
        // What was on the line while it slept begins anew.
        if let (Some(_), Some(time)) = (self.shifting, self.character()) {
            self.schedule(ctx, SENT, time);
        }
        (self.arriving, self.starting) = (false, false);
        self.start(ctx);
        self.listen(ctx);
        self.watch(ctx);
        self.update(ctx);
    }

    fn possible_arrivals(&self) -> Vec<u32> {
        if self.spurious.left() == 0 { Vec::new() } else { vec![0] }
    }

    fn arrive(&mut self, ctx: &mut DeviceCtx<'_>, source: u32) -> bool {
        let done = source == 0 && self.spurious.fire(ctx, 0);
        self.update(ctx);
        done
    }

    /// The host sends the byte `source`, after what it has yet to send; 256 is a break.
    fn raise(&mut self, ctx: &mut DeviceCtx<'_>, source: u32) -> Result<(), String> {
        match u8::try_from(source) {
            Ok(byte) if self.input.len() < MAX_INPUT => {
                self.input.push_back(byte);
                self.listen(ctx);
            }
            Ok(_) => return Err(format!("the host has {MAX_INPUT} bytes to send already")),
            Err(_) if source == 256 => {
                if ctx.d_state() == 0 {
                    self.errors |= LSR_BI;
                    self.receive(ctx, 0);
                }
            }
            Err(_) => {
                return Err("uart16550 is raised by a byte from the host, 0 to 255, or 256, a break".into());
            }
        }
        self.update(ctx);
        Ok(())
    }

    fn registers(&self) -> Vec<(String, u64)> {
        let small = [("ier", self.ier), ("lcr", self.lcr), ("mcr", self.mcr), ("lsr", self.lsr())];
        let mut all: Vec<(String, u64)> =
            small.iter().map(|(n, v)| ((*n).to_string(), u64::from(*v))).collect();
        let wide = [
            ("divisor", u64::from(self.divisor)),
            ("rx_waiting", self.rx.len() as u64),
            ("rx_count", self.rx_count),
            ("input_left", self.input.len() as u64),
            ("tx_count", self.tx_count),
            ("tx_digest", self.digest),
            ("spurious_left", self.spurious.left()),
        ];
        all.extend(wide.iter().map(|(n, v)| ((*n).to_string(), *v)));
        for i in 0..KEPT / 8 {
            let group = self.output.iter().skip(8 * i).take(8);
            all.push((format!("out{i}"), group.fold(0, |n, b| n << 8 | u64::from(*b))));
        }
        all
    }

    fn set(&mut self, ctx: &mut DeviceCtx<'_>, register: &str, value: u64) -> Result<(), String> {
        let byte = u8::try_from(value).map_err(|_| format!("{value:#x} does not fit an 8-bit register"));
        match register {
            "ier" | "lcr" | "mcr" => {
                let at = match register {
                    "ier" => &mut self.ier,
                    "lcr" => &mut self.lcr,
                    _ => &mut self.mcr,
                };
                *at = byte?;
            }
            "divisor" => {
                self.divisor =
                    u16::try_from(value).map_err(|_| format!("{value:#x} does not fit the divisor"))?;
            }
            "spurious_left" => self.spurious.set_left(value),
            _ => {
                return Err(format!(
                    "uart16550 has no register `{register}` to set; ier, lcr, mcr, divisor, spurious_left"
                ));
            }
        }
        self.start(ctx);
        self.listen(ctx);
        self.update(ctx);
        Ok(())
    }
}
