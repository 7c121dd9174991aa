//! Who may watch a run.

use crate::Event;

/// Is told of each event, in order. It can't alter the run.
pub trait Observer {
    /// Called once for each event, in the order of the run.
    fn event(&mut self, event: &Event);
}

/// Keeps the events of a run, up to a limit, so that a run can't fill the host's memory.
#[derive(Clone, Debug)]
pub struct EventLog {
    events: Vec<Event>,
    limit: usize,
    dropped: u64,
}

impl EventLog {
    /// How many events [`EventLog::default`] keeps.
    pub const DEFAULT_LIMIT: usize = 4_000_000;

    /// A log that keeps the first `limit` events and counts the rest.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { events: Vec::new(), limit, dropped: 0 }
    }

    /// The events kept, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// How many events came after the log was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The events kept, in order, without the log.
    #[must_use]
    pub fn into_events(self) -> Vec<Event> {
        self.events
    }
}

impl Default for EventLog {
    fn default() -> Self {
        Self::with_limit(Self::DEFAULT_LIMIT)
    }
}

impl Observer for EventLog {
    fn event(&mut self, event: &Event) {
        if self.events.len() < self.limit {
            self.events.push(event.clone());
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }
}

/// Any closure over events observes.
impl<F: FnMut(&Event)> Observer for F {
    fn event(&mut self, event: &Event) {
        self(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventKind;

    #[test]
    fn a_full_log_counts_what_it_drops() {
        let mut log = EventLog::with_limit(2);
        for at in 0..5 {
            log.event(&Event { at, cpu: None, irql: 0, kind: EventKind::Timer { timer: 1 } });
        }
        assert_eq!(log.events().iter().map(|e| e.at).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(log.dropped(), 3);
    }
}
