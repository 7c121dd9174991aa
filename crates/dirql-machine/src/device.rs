//! What a device model is to the machine.

use dirql_mem::{Memory, Pa};

use crate::DeviceId;
use crate::choice::{Choice, Chooser, ask};
use crate::dma::{self, DmaError};
use crate::event::{Log, MachineEventKind};
use crate::pci::{Function, PciIdentity};

/// A model of a device. The machine owns its PCI side (header, BARs, MSI and MSI-X, power); the model owns what is
/// behind the BARs. It is cloned with the machine and must act the same in every run: no clocks, no host state.
pub trait Device: Send + Sync {
    /// A copy with the same state.
    fn clone_box(&self) -> Box<dyn Device>;

    /// The model's name, as in a lab file.
    fn model(&self) -> &'static str;

    /// What it says it is; asked once, when it is added.
    fn pci(&self) -> PciIdentity;

    /// A processor reads `size` bytes at `offset` of the BAR with this register number.
    fn read(&mut self, ctx: &mut DeviceCtx<'_>, bar: u8, offset: u64, size: u8) -> u64;

    /// A processor writes.
    fn write(&mut self, ctx: &mut DeviceCtx<'_>, bar: u8, offset: u64, size: u8, value: u64);

    /// An event it scheduled is due.
    fn event(&mut self, _ctx: &mut DeviceCtx<'_>, _id: u64) {}

    /// The sources that may raise an interrupt of themselves now, at any moment: a freedom of the hardware.
    fn possible_arrivals(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Such an arrival happens. False when this source may not.
    fn arrive(&mut self, _ctx: &mut DeviceCtx<'_>, _source: u32) -> bool {
        false
    }

    /// Under the default policy every processor is idle: the next arrival, in source order, happens now. False
    /// when there is none left.
    fn arrival(&mut self, _ctx: &mut DeviceCtx<'_>) -> bool {
        false
    }

    /// Configuration, mask bits or power changed: messages may have become open, or INTx.
    fn reconfigured(&mut self, _ctx: &mut DeviceCtx<'_>) {}

    /// The workload makes a source raise its interrupt.
    ///
    /// # Errors
    /// What the source would have to be, in words.
    fn raise(&mut self, ctx: &mut DeviceCtx<'_>, source: u32) -> Result<(), String>;

    /// The registers and counters a workload may look at, in a fixed order. Looking has no side effect.
    fn registers(&self) -> Vec<(String, u64)>;

    /// The workload sets a register by name, as hardware does (read-only ones too).
    ///
    /// # Errors
    /// The names that exist, in words.
    fn set(&mut self, ctx: &mut DeviceCtx<'_>, register: &str, value: u64) -> Result<(), String>;

    /// The function entered D0 or D3hot.
    fn power(&mut self, _ctx: &mut DeviceCtx<'_>, _d_state: u8) {}
}

/// What a device does; the machine carries it out, in order, at the next boundary between instructions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Pin(bool),
    Message(u32),
    Schedule(u64, u64),
    /// Header, table or power changed.
    Reconfigured,
}

/// The machine as a device sees it during a call.
pub struct DeviceCtx<'a> {
    pub(crate) id: DeviceId,
    pub(crate) now: Option<u64>,
    pub(crate) function: &'a Function,
    pub(crate) actions: &'a mut Vec<(DeviceId, Action)>,
    pub(crate) mem: Option<&'a mut Memory>,
    pub(crate) chooser: &'a mut dyn Chooser,
    pub(crate) log: &'a mut Log,
}

impl DeviceCtx<'_> {
    /// Virtual time in ticks of 1 ns. `None` during a register access, whose exact time is known only when the
    /// instruction has retired: use [`schedule`](Self::schedule), which counts from there.
    pub fn now(&self) -> Option<u64> {
        self.now
    }

    /// Drives the interrupt pin. INTx Disable, an enabled message capability or D3 keep it off the line.
    pub fn set_line(&mut self, asserted: bool) {
        self.actions.push((self.id, Action::Pin(asserted)));
    }

    /// Sends message `i`. Masks hold it in its pending bit; without an enabled capability it is lost.
    pub fn send_message(&mut self, i: u32) {
        self.actions.push((self.id, Action::Message(i)));
    }

    /// How many messages software enabled: 0 means the pin is to be used.
    pub fn messages_granted(&self) -> u32 {
        self.function.messages_granted()
    }

    /// Whether message `i` would leave at once: granted, not masked, bus mastering on, in D0.
    pub fn message_open(&self, i: u32) -> bool {
        self.function.message_open(i)
    }

    /// The power state: 0 or 3.
    pub fn d_state(&self) -> u8 {
        self.function.d_state()
    }

    /// Asks for [`Device::event`] with this id, `delay` ns after the current instruction.
    pub fn schedule(&mut self, delay: u64, id: u64) {
        self.actions.push((self.id, Action::Schedule(delay, id)));
    }

    /// A freedom: gives a number below `options`, `default` under the default policy.
    pub fn choose(&mut self, name: &'static str, options: u32, default: u32) -> u32 {
        ask(self.chooser, Choice::Device { device: self.id.0, name }, options, default)
    }

    /// Reads memory as a bus master. Not during a register access.
    ///
    /// # Errors
    /// Why the bus refuses; it is in the log too.
    pub fn dma_read(&mut self, pa: Pa, buf: &mut [u8]) -> Result<(), DmaError> {
        let done = dma::read(self.mem.as_deref(), self.function, pa, buf);
        self.log_dma(pa, buf.len(), false, &done);
        done
    }

    /// Writes memory as a bus master. Not during a register access.
    ///
    /// # Errors
    /// Why the bus refuses; it is in the log too.
    pub fn dma_write(&mut self, pa: Pa, data: &[u8]) -> Result<(), DmaError> {
        let done = dma::write(self.mem.as_deref_mut(), self.function, pa, data);
        self.log_dma(pa, data.len(), true, &done);
        done
    }

    fn log_dma(&mut self, pa: Pa, len: usize, write: bool, done: &Result<(), DmaError>) {
        let error = done.as_ref().err().map(ToString::to_string);
        self.log.push(MachineEventKind::Dma { device: self.id, pa, len: len as u64, write, error });
    }

    /// Says something for the record, such as an access the data sheet forbids.
    pub fn log(&mut self, text: impl Into<String>) {
        self.log.push(MachineEventKind::Note { device: self.id, text: text.into() });
    }
}
