//! The drivers of `drivers/bugs`: each has one concurrency defect that the default run does not show and a search by
//! default options does; its corrected twin shows nothing.

use std::path::{Path, PathBuf};

use dirql::explore::{ExploreOptions, ExploreReport, ReplayOptions, explore, replay};
use dirql::{RunOptions, Verdict};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../drivers/bugs")
}

fn names() -> Vec<String> {
    let text = std::fs::read_to_string(folder().join("manifest.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    manifest["bug"].as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap().to_owned()).collect()
}

fn image(name: &str) -> RunOptions {
    RunOptions { image: folder().join(format!("{name}.sys")), ..RunOptions::default() }
}

fn search(name: &str, schedules: u64, jobs: usize) -> ExploreReport {
    let options = ExploreOptions {
        run: image(name),
        preemptions: None,
        arrivals: None,
        schedules,
        jobs,
        keep_going: false,
        every: false,
        reduce: true,
    };
    explore(&options, |_, _| true)
}

#[test]
fn the_default_run_shows_nothing() {
    for name in names() {
        assert_eq!(dirql::run(&image(&name)).verdict, Verdict::Ok, "{name}");
        assert_eq!(dirql::run(&image(&format!("{name}-fixed"))).verdict, Verdict::Ok, "{name}-fixed");
    }
}

#[test]
fn a_search_finds_every_defect_and_replays_it() {
    for name in names() {
        let report = search(&name, u64::MAX, 2);
        assert_eq!(report.verdict, Verdict::Finding, "{name}: {}", report.to_text());
        for (finding, token) in report.findings.iter().zip(&report.tokens) {
            assert!((1..=5).contains(&finding.deviations.len()), "{name}: {:?}", finding.deviations);
            let options = ReplayOptions { token: token.clone(), run: image(&name) };
            let again = replay(&options);
            assert_eq!(again.verdict, Verdict::Finding, "{name}: {token}");
            assert_eq!(again.to_text(false), replay(&options).to_text(false), "{name}: {token}");
        }
    }
}

#[test]
fn a_search_of_a_corrected_twin_finds_nothing() {
    for name in names() {
        let report = search(&format!("{name}-fixed"), 400, 2);
        assert_eq!(report.verdict, Verdict::Ok, "{name}-fixed: {}", report.to_text());
    }
}

#[test]
fn jobs_change_nothing() {
    for name in ["torn-reread", "stop-flag-free", "lock-order-fixed"] {
        let (one, two) = (search(name, 300, 1), search(name, 300, 2));
        assert_eq!(one.to_json(), two.to_json(), "{name}");
    }
}

#[test]
fn leaving_out_equivalent_executions_loses_no_failure() {
    for name in
        ["lost-update-thread", "torn-pair", "refcount-drop", "pend-check", "lock-no-raise", "ring-publish"]
    {
        let all = |reduce| {
            let options = ExploreOptions {
                run: image(name),
                preemptions: Some(2),
                arrivals: Some(1),
                schedules: 5_000,
                jobs: 2,
                keep_going: true,
                every: false,
                reduce,
            };
            let report = explore(&options, |_, _| true);
            let mut what: Vec<String> = report.findings.iter().map(|f| f.message.clone()).collect();
            what.sort();
            (report.exhausted, what, report.stats.inequivalent)
        };
        let (reduced, full) = (all(true), all(false));
        assert!(reduced.0 && full.0, "{name}: the bounded space is small enough");
        assert_eq!(reduced.1, full.1, "{name}");
    }
}
