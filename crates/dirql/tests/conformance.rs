//! The conformance driver passes under every profile.

use std::path::Path;

use dirql::conformance::{Outcome, conformance};

#[test]
fn every_case_passes_under_every_profile() {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../drivers/conformance.sys");
    let rows = conformance(&image);
    assert_eq!(rows.len(), 6 * 3 + 3 * 2);
    for row in rows {
        let failed: Vec<_> = row.cases.iter().filter(|case| case.outcome == Outcome::Failed).collect();
        let profile = format!("windows = {}, interrupts = {}", row.windows, row.interrupts);
        assert!(row.passed(), "{profile}: {failed:?} {:?}", row.findings);
        assert!(row.count(Outcome::Passed) > 70, "{profile}: {} cases", row.count(Outcome::Passed));
    }
}
