//! Where hardware may do one of several things, who decides.
//!
//! The machine asks a [`Chooser`] and takes the default when the answer is not one of the options. Under an
//! explorer the chooser plays back or records; [`DefaultPolicy`] always takes the default.

/// What is being chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice<'a> {
    /// Which processor accepts a lowest-priority interrupt; option `i` is `candidates[i]`.
    Acceptor {
        /// The vector.
        vector: u8,
        /// The processors of the destination set, ascending.
        candidates: &'a [u32],
    },
    /// A named freedom of a device.
    Device {
        /// The device's number.
        device: u32,
        /// The name its data sheet gives the freedom.
        name: &'static str,
    },
}

/// Decides the machine's choices.
pub trait Chooser: Send {
    /// A copy, for a cloned machine.
    fn clone_box(&self) -> Box<dyn Chooser>;

    /// Gives a number below `options`. The default policy's answer is `default`.
    fn choose(&mut self, choice: Choice<'_>, options: u32, default: u32) -> u32;
}

/// Always the default.
#[derive(Clone, Copy, Default, Debug)]
pub struct DefaultPolicy;

impl Chooser for DefaultPolicy {
    fn clone_box(&self) -> Box<dyn Chooser> {
        Box::new(*self)
    }

    fn choose(&mut self, _: Choice<'_>, _: u32, default: u32) -> u32 {
        default
    }
}

pub(crate) fn ask(chooser: &mut dyn Chooser, choice: Choice<'_>, options: u32, default: u32) -> u32 {
    if options < 2 {
        return 0;
    }
    let answer = chooser.choose(choice, options, default);
    if answer < options { answer } else { default }
}
