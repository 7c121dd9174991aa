//! Virtual time and what is due when.
//!
//! One tick is 1 ns; an instruction takes one tick on whichever processor it runs. Events of the same time happen
//! in the order they were scheduled, so a run is the same every time.

use std::collections::BTreeMap;

/// Most events that may wait at once; a device that schedules more is refused, so a guest can't grow it.
pub const MAX_EVENTS: usize = 1 << 16;

/// Something that happens at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timed {
    /// A device's own event.
    Device { device: u32, id: u64 },
    /// The periodic timer of a processor.
    Tick { cpu: u32, vector: u8, period: u64 },
}

/// Virtual time with its queue.
#[derive(Clone, Default, Debug)]
pub(crate) struct Clock {
    now: u64,
    seq: u64,
    queue: BTreeMap<(u64, u64), Timed>,
}

impl Clock {
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Time passes. It never runs backwards and stops at the end of its range (584 years).
    pub(crate) fn advance(&mut self, ticks: u64) {
        self.now = self.now.saturating_add(ticks);
    }

    pub(crate) fn advance_to(&mut self, time: u64) {
        self.now = self.now.max(time);
    }

    /// False when the queue is full.
    #[must_use]
    pub(crate) fn schedule(&mut self, delay: u64, what: Timed) -> bool {
        if self.queue.len() >= MAX_EVENTS {
            return false;
        }
        self.seq += 1;
        self.queue.insert((self.now.saturating_add(delay), self.seq), what);
        true
    }

    /// Arms a processor's periodic timer, replacing the one it had; a period of 0 stops it.
    pub(crate) fn set_timer(&mut self, cpu: u32, vector: u8, period: u64) {
        self.queue.retain(|_, t| !matches!(t, Timed::Tick { cpu: c, .. } if *c == cpu));
        if period != 0 {
            self.seq += 1;
            let tick = Timed::Tick { cpu, vector, period };
            self.queue.insert((self.now.saturating_add(period), self.seq), tick);
        }
    }

    /// Drops the events of a device.
    pub(crate) fn forget(&mut self, device: u32) {
        self.queue.retain(|_, t| !matches!(t, Timed::Device { device: d, .. } if *d == device));
    }

    /// When the next event is due.
    pub(crate) fn next(&self) -> Option<u64> {
        self.queue.keys().next().map(|k| k.0)
    }

    /// Takes the next event that is due. A periodic one is armed again for one period later.
    pub(crate) fn take_due(&mut self) -> Option<Timed> {
        let (&(time, seq), &what) = self.queue.first_key_value()?;
        if time > self.now {
            return None;
        }
        self.queue.remove(&(time, seq));
        if let Timed::Tick { period, .. } = what {
            // A tick at the end of time does not come back: it would be due again at once, for ever.
            if let Some(next) = time.checked_add(period) {
                self.seq += 1;
                self.queue.insert((next, self.seq), what);
            }
        }
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_in_order_of_scheduling() {
        let mut clock = Clock::default();
        let event = |id| Timed::Device { device: 0, id };
        assert!(clock.schedule(10, event(1)));
        assert!(clock.schedule(5, event(2)));
        assert!(clock.schedule(10, event(3)));
        assert_eq!(clock.take_due(), None);
        clock.advance(10);
        let order: Vec<_> = std::iter::from_fn(|| clock.take_due()).collect();
        assert_eq!(order, [event(2), event(1), event(3)]);
    }

    #[test]
    fn a_timer_comes_back_until_it_is_stopped() {
        let mut clock = Clock::default();
        clock.set_timer(0, 0xd1, 100);
        clock.advance_to(250);
        assert_eq!(std::iter::from_fn(|| clock.take_due()).count(), 2);
        assert_eq!(clock.next(), Some(300));
        clock.set_timer(0, 0xd1, 0);
        assert_eq!(clock.next(), None);
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut clock = Clock::default();
        for id in 0..MAX_EVENTS as u64 {
            assert!(clock.schedule(1, Timed::Device { device: 0, id }));
        }
        assert!(!clock.schedule(1, Timed::Device { device: 0, id: 0 }));
    }
}
