//! Runs the conformance driver (`drivers/conformance.sys`) under every applicable profile and tables its cases.
//!
//! The driver prints one line a case; this reads those lines. Windows before Vista has no `IoConnectInterruptEx`, which
//! the driver imports, so the profiles begin there.

use std::path::Path;

use dirql_event::EventKind;
use serde::Serialize;

use crate::lab::{Delivery, Lab, Locks, Windows};
use crate::report::{Finding, RunReport, Verdict};
use crate::run::{RunOptions, run_lab};

/// The interrupts of the device that the driver is given, as a lab names them.
pub const FORMS: &[&str] = &["line", "msi:1", "msix:4"];

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It got what it expected.
    Passed,
    /// It got something else.
    Failed,
    /// This Windows or device has nothing to try it on.
    Skipped,
}

/// One case of one run, as the driver printed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// What became of it.
    pub outcome: Outcome,
    /// The name; one that begins with spaces belongs to the case before it.
    pub name: String,
    /// What was expected, what came, and the page that says so; or why it was skipped.
    pub detail: String,
}

/// The driver's run under one profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `[machine] windows`.
    pub windows: &'static str,
    /// The device's interrupts, one of [`FORMS`].
    pub interrupts: &'static str,
    /// `[machine] delivery` is `fixed`.
    pub fixed_delivery: bool,
    /// `[machine] locks` is `per-set`.
    pub locks_per_set: bool,
    /// The cases, in order.
    pub cases: Vec<Case>,
    /// How the run ended.
    pub verdict: Verdict,
    /// What was wrong with the run itself.
    pub findings: Vec<Finding>,
}

impl Row {
    /// How many cases came out so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.cases.iter().filter(|case| case.outcome == outcome).count()
    }

    /// The run ended well, cases ran, and none failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Ok && self.count(Outcome::Passed) > 0 && self.count(Outcome::Failed) == 0
    }
}

/// Runs the driver at `image` under every profile: each Windows from Vista on by each form of interrupt, and on the
/// newest also with fixed delivery and with one lock a set. In that order, always.
#[must_use]
pub fn conformance(image: &Path) -> Vec<Row> {
    let mut rows = vec![];
    for &(name, windows) in Windows::ALL.iter().filter(|(_, w)| has_ex_routines(*w)) {
        for &interrupts in FORMS {
            rows.push(row(image, name, windows, interrupts, Delivery::Lowest, Locks::PerMessage));
        }
    }
    for &interrupts in FORMS {
        let newest = Windows::Windows11;
        rows.push(row(image, newest.name(), newest, interrupts, Delivery::Fixed, Locks::PerMessage));
        rows.push(row(image, newest.name(), newest, interrupts, Delivery::Lowest, Locks::PerSet));
    }
    rows
}

fn has_ex_routines(windows: Windows) -> bool {
    !matches!(windows, Windows::Windows2000 | Windows::Xp | Windows::Server2003)
}

fn row(
    image: &Path,
    name: &'static str,
    windows: Windows,
    interrupts: &'static str,
    delivery: Delivery,
    locks: Locks,
) -> Row {
    let text = format!(
        "[machine]\ncpus = 2\n[[device]]\nname = \"card\"\nmodel = \"pulse\"\ninterrupts = \"{interrupts}\"\n\
         [driver]\nimage = \"conformance.sys\"\ndevice = \"card\"\n[[step]]\ndo = \"open\"\n\
         [[step]]\ndo = \"ioctl\"\ncode = 0x222000\n[[step]]\ndo = \"close\"\n"
    );
    let options = RunOptions { image: image.to_owned(), lab: None, trace: true, budget: None, cpus: None };
    let report = match Lab::parse(&text, None) {
        Ok(mut lab) => {
            lab.machine.windows = windows;
            lab.machine.delivery = delivery;
            lab.machine.locks = locks;
            run_lab(&options, lab)
        }
        Err(error) => RunReport::from(error),
    };
    let cases = report.events.iter().filter_map(|event| match &event.kind {
        EventKind::Print { text } => case(text),
        _ => None,
    });
    Row {
        windows: name,
        interrupts,
        fixed_delivery: delivery == Delivery::Fixed,
        locks_per_set: locks == Locks::PerSet,
        cases: cases.collect(),
        verdict: report.verdict,
        findings: report.findings,
    }
}

/// A line as the driver prints it; `None` for any other.
fn case(line: &str) -> Option<Case> {
    let line = line.trim_end().strip_prefix("conformance: ")?;
    let (word, rest) = line.split_once(' ')?;
    let outcome = match word {
        "ok" => Outcome::Passed,
        "FAIL" => Outcome::Failed,
        "skip" => Outcome::Skipped,
        _ => return None,
    };
    let (name, detail) = rest.split_once(": ")?;
    Some(Case { outcome, name: name.to_owned(), detail: detail.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let got =
            case("conformance: FAIL   at its Irql: expected 9 got 2 (nc-wdm-kservice_routine)\n").unwrap();
        assert_eq!((got.outcome, got.name.as_str()), (Outcome::Failed, "  at its Irql"));
        assert_eq!(got.detail, "expected 9 got 2 (nc-wdm-kservice_routine)");
        assert_eq!(case("conformance: 101 passed, 0 failed"), None);
        assert_eq!(case("hello"), None);
    }
}
