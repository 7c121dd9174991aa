//! The rules that findings name, and the level each has unless a lab says otherwise.

use crate::lab::{Lab, Level};
use crate::report::Finding;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its id, as findings and `[rules]` name it.
    pub id: &'static str,
    /// Its level by default.
    pub level: Level,
    /// What breaks it, in a line.
    pub summary: &'static str,
}

const fn rule_of(id: &'static str, summary: &'static str) -> Rule {
    Rule { id, level: Level::Finding, summary }
}

/// Every rule a run judges by.
pub const RULES: &[Rule] = &[
    rule_of("bugcheck", "the system stopped"),
    rule_of("load", "the chosen Windows lacks what the driver imports, so it does not load"),
    rule_of("start", "DriverEntry, AddDevice or the start request failed"),
    rule_of("step", "a step did not go as the lab expects, or failed where it expects nothing"),
    rule_of("budget", "the driver ran longer than the lab's budget"),
    rule_of("hang", "nothing could go on before the workload was over"),
    rule_of("memory", "the driver used up the machine's memory"),
    rule_of("check.no_outstanding_irp", "a request was never completed"),
    rule_of("check.no_connected_interrupt", "an interrupt is connected after the driver is gone"),
    rule_of("check.no_leaked_pool", "pool is left after the driver is gone"),
    rule_of("check.counter", "a counter is outside the lab's bounds"),
    rule_of("check.device", "a device's register is not as the lab wants it at the end"),
];

/// The rule of that id.
#[must_use]
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|r| r.id == id)
}

/// Gives findings the levels of the lab, and drops those that are off or suppressed.
pub(crate) fn apply(lab: &Lab, findings: &mut Vec<Finding>) {
    findings.retain_mut(|f| {
        let suppressed = lab.rules.suppress.iter().any(|s| s.rule == f.rule);
        if let Some(level) = lab.rules.levels.get(&f.rule) {
            f.level = *level;
        }
        !suppressed && f.level != Level::Off
    });
}
