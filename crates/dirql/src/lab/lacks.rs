//! What a lab asks for that this dirql can't do. One table: when something is built, its row goes.

use super::{Action, Bus, Interrupts, Lab, PowerTarget, SetTarget, Setting};
use crate::models;

/// Something a lab asks for that dirql does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// What, as it is written in the lab.
    pub what: String,
    /// The line of the lab that asks for it; 0 if no single line does.
    pub line: u32,
}

impl std::fmt::Display for Lacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "this lab asks for {}, which dirql does not have yet", self.what)
    }
}

impl Lab {
    /// What this lab asks for that dirql does not have, in the order of the file's sections. A run of a lab
    /// that lacks anything is refused with verdict `missing`.
    #[must_use]
    pub fn lacking(&self) -> Vec<Lacking> {
        let mut out = Vec::new();
        let mut lack = |asked: bool, what: &str, line: u32| {
            if asked {
                out.push(Lacking { what: what.into(), line });
            }
        };
        lack(self.machine.groups > 1, "processor groups (groups)", 0);
        for d in &self.devices {
            lack(d.script.is_some(), "a device script (script)", d.line);
            lack(d.bus == Bus::Isa && d.irq.len() > 1, "an ISA device with more than one IRQ", d.line);
            let unavailable = models::model(&d.model).is_some_and(|m| !m.available);
            lack(unavailable, &format!("the device model `{}`", d.model), d.line);
            let lines = d.bus == Bus::Pci && matches!(d.interrupts, Interrupts::Line(n) if n > 1);
            let sets = d.affinity.windows(2).any(|w| w[0] != w[1]);
            lack(sets, "an affinity for each interrupt (affinity)", d.line);
            let bars = !d.bars.is_empty() && d.model != "stub" && !unavailable;
            lack(bars, &format!("other BARs for the model `{}` (bars)", d.model), d.line);
            let arrivals = d.arrivals > 0 && d.model == "edu";
            lack(arrivals, "arrivals of the model `edu` (arrivals)", d.line);
            lack(lines, "a PCI function with more than one line", d.line);
        }
        lack(
            self.drivers.len() > 1,
            "several drivers ([[driver]])",
            self.drivers.get(1).map_or(0, |d| d.line),
        );
        for f in &self.filters {
            lack(true, "filter drivers ([[filter]])", f.line);
        }
        for l in &self.libraries {
            lack(true, "modules beside the kernel ([[library]])", l.line);
        }
        for step in self.steps_once() {
            let e = &step.expect;
            let sent = step.action.is_request();
            let expects = [
                ("status", e.status.is_some() && !sent),
                ("output", e.output.is_some() && !sent),
                ("information", e.information.is_some() && !sent),
                ("within", e.within.is_some() && !sent),
            ];
            for (key, asked) in expects {
                let what = format!("`expect = {{ {key} }}` on `{}`", step.action.verb());
                lack(asked, &what, step.line);
            }
            match &step.action {
                Action::Power { target: PowerTarget::System(_), .. } => {
                    lack(true, "system power (system)", step.line)
                }
                Action::Pnp { rebalance: Some(_), .. } => {
                    lack(true, "other resources (rebalance)", step.line)
                }
                Action::Set(SetTarget::Memory { .. }) => lack(true, "writing memory (address)", step.line),
                Action::Set(SetTarget::Register { value, .. }) if !matches!(value, Setting::Number(_)) => {
                    lack(true, "a register's value that is no number (value)", step.line)
                }
                _ => {}
            }
        }
        let suppressed = self.rules.suppress.iter().map(|s| &s.rule);
        for rule in self.rules.levels.keys().chain(suppressed) {
            let near = crate::problem::nearest(rule, crate::rules::RULES.iter().map(|r| r.id));
            let near = near.map_or_else(String::new, |n| format!(" (did you mean `{n}`?)"));
            lack(crate::rules::rule(rule).is_none(), &format!("the rule `{rule}`{near}"), 0);
        }
        let functions = self.rules.suppress.iter().any(|s| s.function.is_some());
        lack(functions, "suppressions by function ([[rules.suppress]] function)", 0);
        out
    }

    /// Every step, those within `repeat` once.
    fn steps_once(&self) -> Vec<&super::Step> {
        fn walk<'a>(steps: &'a [super::Step], out: &mut Vec<&'a super::Step>) {
            for step in steps {
                out.push(step);
                if let Action::Repeat { steps, .. } = &step.action {
                    walk(steps, out);
                }
            }
        }
        let mut out = Vec::new();
        walk(&self.steps, &mut out);
        out
    }
}
