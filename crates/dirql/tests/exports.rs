//! Drivers that call exports and compare what they do with what Microsoft documents (`drivers/tests/exports_*.c`).
//! The comparing is done in the driver; here its count is checked, so that a driver that stops early fails too.

use std::path::PathBuf;

use dirql::{RunOptions, Verdict};

fn check(name: &str, checks: u32) {
    let image =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../drivers/tests/exports_{name}.sys"));
    let report = dirql::run(&RunOptions { image, ..RunOptions::default() });
    let prints = report.story.prints.join("\n");
    let findings: Vec<&String> = report.findings.iter().map(|f| &f.message).collect();
    assert!(
        prints.ends_with(&format!("{checks} checks, 0 mismatches")),
        "{name} does not end with {checks} checks and no mismatch:\n{prints}\n{findings:?}"
    );
    assert_eq!(report.verdict, Verdict::Ok, "{findings:?}");
}

#[test]
fn registry() {
    check("registry", 102);
}

#[test]
fn hal() {
    check("hal", 72);
}

#[test]
fn rtl() {
    check("rtl", 52);
}

#[test]
fn io() {
    check("io", 57);
}
