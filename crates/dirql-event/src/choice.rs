//! What a run may do in more than one way, asked by name.
//!
//! A run is a function of the image, the lab and the choices. Whoever answers them steers the run; the list
//! of answers is enough to have the same run again.

use serde::Serialize;

/// One choice that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// What was asked, e.g. `stub.read` or `wait.wakes`.
    pub name: &'static str,
    /// How many options there were; at least 1.
    pub options: u32,
    /// The option taken, less than `options`. 0 is always the ordinary one.
    pub picked: u32,
}

/// Answers the choices of a run.
pub trait Chooser {
    /// Picks one of `options` for the choice `name`. Whatever is returned is held to `0..options` by
    /// [`Chooser::pick`], which callers use.
    fn choose(&mut self, name: &'static str, options: u32) -> u32;

    /// Asks, and keeps the answer in range. With fewer than two options nothing is asked and the answer is 0,
    /// so that only real choices are recorded.
    fn pick(&mut self, name: &'static str, options: u32) -> u32 {
        if options < 2 { 0 } else { self.choose(name, options).min(options - 1) }
    }
}

/// The policy of a plain run: always the ordinary option, 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultPolicy;

impl Chooser for DefaultPolicy {
    fn choose(&mut self, _name: &'static str, _options: u32) -> u32 {
        0
    }
}

/// Passes choices on and keeps what was answered.
#[derive(Clone, Debug, Default)]
pub struct Recorder<C> {
    inner: C,
    made: Vec<Choice>,
}

impl<C: Chooser> Recorder<C> {
    /// Records what `inner` answers.
    pub fn new(inner: C) -> Self {
        Self { inner, made: Vec::new() }
    }

    /// The choices made so far, in order.
    pub fn made(&self) -> &[Choice] {
        &self.made
    }

    /// How many of them are not the ordinary option.
    pub fn deviations(&self) -> usize {
        self.made.iter().filter(|c| c.picked != 0).count()
    }
}

impl<C: Chooser> Chooser for Recorder<C> {
    fn choose(&mut self, name: &'static str, options: u32) -> u32 {
        let picked = self.inner.pick(name, options);
        self.made.push(Choice { name, options, picked });
        picked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Last;
    impl Chooser for Last {
        fn choose(&mut self, _name: &'static str, _options: u32) -> u32 {
            u32::MAX
        }
    }

    #[test]
    fn answers_are_held_in_range_and_recorded() {
        let mut r = Recorder::new(Last);
        assert_eq!(r.pick("a", 3), 2);
        assert_eq!(r.pick("none", 1), 0);
        assert_eq!(r.pick("empty", 0), 0);
        assert_eq!(r.made(), [Choice { name: "a", options: 3, picked: 2 }]);
        assert_eq!(r.deviations(), 1);
    }

    #[test]
    fn the_default_policy_takes_the_ordinary_option() {
        let mut r = Recorder::new(DefaultPolicy);
        assert_eq!(r.pick("a", 9), 0);
        assert_eq!(r.deviations(), 0);
    }
}
