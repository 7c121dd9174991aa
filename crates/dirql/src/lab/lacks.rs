//! What a lab asks for that this dirql can't do. One table: when something is built, its row goes.

use super::{Action, Bus, Interrupts, Lab, PowerTarget, SetTarget};
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
        lack(self.manual_life, "life = \"manual\"", 0);
        for d in &self.devices {
            lack(d.script.is_some(), "a device script (script)", d.line);
            lack(d.bus == Bus::Isa && d.irq.len() > 1, "an ISA device with more than one IRQ", d.line);
            let unavailable = models::model(&d.model).is_some_and(|m| !m.available);
            lack(unavailable, &format!("the device model `{}`", d.model), d.line);
            let lines = d.bus == Bus::Pci && matches!(d.interrupts, Interrupts::Line(n) if n > 1);
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
            match &step.action {
                Action::Power { target: PowerTarget::System(_), .. } => {
                    lack(true, "system power (system)", step.line)
                }
                Action::Pnp { rebalance: Some(_), .. } => {
                    lack(true, "other resources (rebalance)", step.line)
                }
                Action::Set(SetTarget::Memory { .. }) => lack(true, "writing memory (address)", step.line),
                _ => {}
            }
        }
        lack(!self.rules.levels.is_empty(), "levels of rules ([rules])", 0);
        lack(!self.rules.suppress.is_empty(), "suppressions of findings ([[rules.suppress]])", 0);
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
