//! Where hardware may do one of several things, who decides.
//!
//! The machine asks a [`Chooser`] and takes the default when the answer is not one of the options. Under an
//! explorer the chooser plays back or records; [`DefaultPolicy`] always takes the default.

use std::collections::BTreeMap;

/// Most records a script keeps that nobody takes.
const MAX_ASKED: usize = 1 << 16;

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
pub trait Chooser: Send + Sync {
    /// A copy, for a cloned machine.
    fn clone_box(&self) -> Box<dyn Chooser>;

    /// Gives a number below `options`. The default policy's answer is `default`.
    fn choose(&mut self, choice: Choice<'_>, options: u32, default: u32) -> u32;

    /// The script, when this is one.
    fn script(&mut self) -> Option<&mut Script> {
        None
    }
}

/// One choice that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Its number in the run, from 0.
    pub number: u32,
    /// The vector whose acceptor was asked for, or the device and the name of its freedom.
    pub what: String,
    /// How many options there were.
    pub options: u32,
    /// The option taken.
    pub picked: u32,
}

/// Answers by number where it was given an answer, else the default; and records what it is asked.
#[derive(Clone, Default, Debug)]
pub struct Script {
    answers: BTreeMap<u32, u32>,
    asked: u32,
    acceptor: Option<u32>,
    log: Vec<Asked>,
}

impl Script {
    /// Answers the choice of that number with that option.
    pub fn answer(&mut self, number: u32, pick: u32) {
        self.answers.insert(number, pick);
    }

    /// The next interrupt that may go to several processors goes to this one, if it is among them.
    pub fn accept_on(&mut self, cpu: Option<u32>) {
        self.acceptor = cpu;
    }

    /// Takes what was asked since the last call.
    pub fn take_asked(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.log)
    }
}

impl Chooser for Script {
    fn clone_box(&self) -> Box<dyn Chooser> {
        Box::new(self.clone())
    }

    fn choose(&mut self, choice: Choice<'_>, options: u32, default: u32) -> u32 {
        let number = self.asked;
        self.asked = self.asked.saturating_add(1);
        let mut picked = self.answers.get(&number).copied().filter(|p| *p < options).unwrap_or(default);
        let what = match choice {
            Choice::Acceptor { vector, candidates } => {
                if let Some(cpu) = self.acceptor.take()
                    && let Some(at) = candidates.iter().position(|c| *c == cpu)
                {
                    picked = at as u32;
                }
                format!("acceptor of vector {vector:#x}")
            }
            Choice::Device { device, name } => format!("device {device}: {name}"),
        };
        if self.log.len() < MAX_ASKED {
            self.log.push(Asked { number, what, options, picked });
        }
        picked
    }

    fn script(&mut self) -> Option<&mut Script> {
        Some(self)
    }
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
