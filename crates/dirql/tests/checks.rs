//! What a lab checks at the end, and how it levels what is found.

use std::path::PathBuf;

use dirql::{RunOptions, RunReport, Verdict};

fn drivers() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../drivers")
}

/// Runs a sample with more at the end of its lab.
fn with(sample: &str, test: &str, more: &str) -> RunReport {
    let lab = std::fs::read_to_string(drivers().join(format!("{sample}.toml"))).unwrap();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("checks");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{test}.toml"));
    std::fs::write(&path, format!("{lab}\n{more}\n")).unwrap();
    let image = drivers().join(format!("{sample}.sys"));
    dirql::run(&RunOptions { image, lab: Some(path), budget: Some(200_000), ..RunOptions::default() })
}

fn rules(report: &RunReport) -> Vec<&str> {
    report.findings.iter().map(|f| f.rule.as_str()).collect()
}

#[test]
fn counters_and_registers_are_judged() {
    let report = with("edu", "good", "[check.counters]\nisr = 6\n[check.device.card]\nirq_status = 0\n");
    assert_eq!((report.verdict, rules(&report)), (Verdict::Ok, vec![]), "{}", report.to_text(false));
    let report = with("edu", "bad", "[check.counters]\nisr = 7\n[check.device.card]\nirq_status = 1\n");
    assert_eq!(rules(&report), ["check.device", "check.counter"]);
    assert_eq!(report.verdict, Verdict::Finding);
}

#[test]
fn a_check_can_be_waived() {
    let report = with("tests/leak", "waived", "[check]\nno_connected_interrupt = false\n");
    assert_eq!(rules(&report), Vec::<&str>::new());
    assert_eq!(report.verdict, Verdict::Ok);
}

#[test]
fn rules_have_levels() {
    let leak = |level: &str| {
        with("tests/leak", level, &format!("[rules]\n\"check.no_connected_interrupt\" = \"{level}\"\n"))
    };
    assert_eq!(leak("finding").verdict, Verdict::Finding);
    assert_eq!(leak("off").findings, []);
    let report = leak("advice");
    assert_eq!((report.verdict, report.findings.len()), (Verdict::Ok, 1));
    let why = "[[rules.suppress]]\nrule = \"check.no_connected_interrupt\"\nreason = \"a test\"\n";
    assert_eq!(with("tests/leak", "suppressed", why).verdict, Verdict::Ok);
    // A level does not make a run that ended early a good one.
    let report = with("tests/nullderef", "early", "[rules]\nbugcheck = \"advice\"\n");
    assert_eq!(report.verdict, Verdict::Finding);
}

#[test]
fn what_is_asked_but_not_there_is_named() {
    let report = with("edu", "unknown_rule", "[rules]\n\"check.no_leaked_pol\" = \"off\"\n");
    assert_eq!(report.verdict, Verdict::Missing);
    assert!(
        report.findings[0].message.contains("did you mean `check.no_leaked_pool`?"),
        "{:?}",
        report.findings
    );
    let report = with("edu", "register", "[check.device.card]\nirq_statos = 0\n");
    assert_eq!(report.verdict, Verdict::Input);
    assert!(report.findings[0].message.contains("did you mean `irq_status`?"), "{:?}", report.findings);
}

#[test]
fn a_failing_step_without_an_expectation_is_a_finding() {
    let report = with("edu", "open", "[[step]]\ndo = \"open\"\nname = '\\Device\\Nowhere'\n");
    assert_eq!(rules(&report), ["step"], "{}", report.to_text(false));
    assert!(report.findings[0].message.contains("STATUS_OBJECT_NAME_NOT_FOUND"), "{:?}", report.findings);
}

#[test]
fn steps_run_on_threads_and_life_can_be_led_by_hand() {
    let more = "[[step]]\ndo = \"repeat\"\ncount = 3\nthread = \"other\"\nsteps = [{ do = \"wait\", for = \"1 us\" }]\n\
                [[step]]\ndo = \"wait\"\nthread = \"other\"\n";
    let report = with("edu", "thread", more);
    // `wait` has one `thread` only: which it waits for.
    assert!(matches!(report.verdict, Verdict::Ok | Verdict::Input), "{}", report.to_text(false));
    for end in ["surprise_remove", "remove"] {
        let report = with("edu", end, &format!("[[step]]\ndo = \"{end}\"\n"));
        assert_eq!(
            (report.verdict, rules(&report)),
            (Verdict::Ok, vec![]),
            "{end}: {}",
            report.to_text(false)
        );
    }
    let life = "[[step]]\ndo = \"pnp\"\nminor = \"query_stop\"\n[[step]]\ndo = \"pnp\"\nminor = \"stop\"\n\
                [[step]]\ndo = \"pnp\"\nminor = \"start\"\n";
    let report = with("edu", "restart", life);
    assert_eq!((report.verdict, rules(&report)), (Verdict::Ok, vec![]), "{}", report.to_text(false));
    assert_eq!(report.story.connections.len(), 2, "it connects anew");
}

#[test]
fn many_steps_need_no_deep_stack() {
    let more = "[[step]]\ndo = \"repeat\"\ncount = 30000\nsteps = [{ do = \"raise\" }]\n";
    assert_eq!(with("edu", "many", more).verdict, Verdict::Ok);
}

#[test]
fn a_stopped_device_gives_its_vectors_back() {
    // More starts than there are vectors.
    let more = "[[step]]\ndo = \"repeat\"\ncount = 200\nsteps = [{ do = \"pnp\", minor = \"query_stop\" }, \
                { do = \"pnp\", minor = \"stop\" }, { do = \"pnp\", minor = \"start\" }]\n";
    let report = with("edu", "restarts", more);
    assert_eq!((report.verdict, rules(&report)), (Verdict::Ok, vec![]), "{}", report.to_text(false));
    let vectors: Vec<u32> =
        report.story.connections.iter().flat_map(|c| c.vectors.iter().map(|v| v.vector)).collect();
    assert_eq!(vectors.len(), 201);
    assert!(vectors.iter().all(|v| *v == vectors[0]), "{vectors:?}");
}
