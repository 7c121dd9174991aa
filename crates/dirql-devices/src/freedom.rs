//! What models share of the freedoms of hardware: delays, spurious interrupts.
//!
//! Option 0 of every choice is the ordinary behaviour, so a plain run is the same with or without them. What could
//! be repeated without end has a budget, a property of the device.

use dirql_machine::DeviceCtx;

use crate::PropDoc;
use crate::props::{BuildError, Props};

/// Set in the id of the events of [`Spurious`]; models number theirs below.
const EVENT: u64 = 1 << 63;
/// How long a spurious pulse on a line lasts when nobody looks, in ns.
const PULSE_NS: u64 = 1000;

pub(crate) const SPURIOUS: PropDoc = PropDoc {
    name: "spurious",
    form: "number",
    default: "0",
    doc: "How often in a run it may interrupt without a cause, or repeat a message.",
};

/// The freedom `delay`: nominal; now; late.
pub(crate) fn delay(ctx: &mut DeviceCtx<'_>, nominal: u64) -> u64 {
    match ctx.choose("delay", 3, 0) {
        1 => 0,
        2 => nominal.saturating_mul(4),
        _ => nominal,
    }
}

/// Interrupts without a cause, as many as the property `spurious` allows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spurious {
    left: u64,
    line: bool,
    pulse: u64,
}

impl Spurious {
    pub(crate) fn build(props: &Props<'_>) -> Result<Spurious, BuildError> {
        let left = props.int(SPURIOUS.name, u64::from(u32::MAX))?.unwrap_or(0);
        Ok(Spurious { left, ..Spurious::default() })
    }

    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    pub(crate) fn set_left(&mut self, left: u64) {
        self.left = left;
    }

    /// Whether a spurious pulse holds the line up.
    pub(crate) fn line(&self) -> bool {
        self.line
    }

    /// An interrupt without a cause: message `i`, or a pulse on the line. False when none is left or the device
    /// sleeps. The caller drives the pin afterwards.
    pub(crate) fn fire(&mut self, ctx: &mut DeviceCtx<'_>, i: u32) -> bool {
        if self.left == 0 || ctx.d_state() != 0 {
            return false;
        }
        self.left -= 1;
        let granted = ctx.messages_granted();
        if granted > 0 {
            ctx.send_message(if i < granted { i } else { 0 });
        } else {
            self.line = true;
            self.pulse = (self.pulse + 1) & !EVENT;
            ctx.schedule(PULSE_NS, EVENT | self.pulse);
        }
        true
    }

    /// The freedom `again`, asked after a message was sent: it is sent once more.
    pub(crate) fn again(&mut self, ctx: &mut DeviceCtx<'_>, message: u32) {
        if self.left > 0 && ctx.choose("again", 2, 0) == 1 {
            self.left -= 1;
            ctx.send_message(message);
        }
    }

    /// A register is accessed: the pulse ends. True when there was one.
    pub(crate) fn touched(&mut self) -> bool {
        std::mem::take(&mut self.line)
    }

    /// True when the event is one of its own; then the caller drives the pin.
    pub(crate) fn event(&mut self, id: u64) -> bool {
        if id & EVENT == 0 {
            return false;
        }
        if id & !EVENT == self.pulse {
            self.line = false;
        }
        true
    }
}
