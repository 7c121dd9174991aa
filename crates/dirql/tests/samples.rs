//! The sample drivers, run as a user runs them: verdicts, determinism, clones.

use std::path::PathBuf;

use dirql::{Bench, RunOptions, RunReport, Verdict, prepare};

/// Every sample with its verdict and the rule of its finding. `drivers/tests/exports_*` have their own test.
const SAMPLES: &[(&str, Verdict, &str)] = &[
    ("edu", Verdict::Ok, ""),
    ("pulse", Verdict::Ok, ""),
    ("shared", Verdict::Ok, ""),
    ("legacy", Verdict::Ok, ""),
    ("ring", Verdict::Ok, ""),
    ("uart", Verdict::Ok, ""),
    ("iointex", Verdict::Ok, ""),
    ("pulse-rs", Verdict::Ok, ""),
    ("conformance", Verdict::Ok, ""),
    ("tests/bugcheck", Verdict::Finding, "bugcheck"),
    ("tests/entryfail", Verdict::Finding, "start"),
    ("tests/forever", Verdict::Finding, "budget"),
    ("tests/leak", Verdict::Finding, "check.no_connected_interrupt"),
    ("tests/missing", Verdict::Missing, "missing"),
    ("tests/startfail", Verdict::Finding, "start"),
    ("tests/nullderef", Verdict::Finding, "bugcheck"),
];

fn options(name: &str) -> RunOptions {
    let image = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../drivers/{name}.sys"));
    RunOptions { image, trace: true, budget: Some(200_000), ..RunOptions::default() }
}

fn bench(name: &str) -> Bench {
    prepare(&options(name)).unwrap_or_else(|report| panic!("{name}: {}", report.to_text(false)))
}

/// Everything a run tells, events included.
fn told(report: &RunReport) -> String {
    let events: Vec<String> = report.events.iter().map(dirql::report::trace_line).collect();
    format!("{}\n{}\n{}", events.join("\n"), report.to_text(false), report.to_json())
}

#[test]
fn every_sample_ends_as_it_should() {
    for (name, verdict, rule) in SAMPLES {
        let report = bench(name).run();
        assert_eq!(report.verdict, *verdict, "{name}:\n{}", report.to_text(false));
        let rules: Vec<&str> = report.findings.iter().map(|f| f.rule.as_str()).collect();
        let wanted: Vec<&str> = if rule.is_empty() { vec![] } else { vec![rule] };
        assert_eq!(rules, wanted, "{name}");
    }
}

/// A sample's other labs: the same binary by line, or on another bus.
#[test]
fn every_sample_runs_in_its_other_labs() {
    for (name, lab) in [("edu", "edu/line"), ("pulse", "pulse/line"), ("uart", "uart/pci")] {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../drivers");
        let report =
            dirql::run(&RunOptions { lab: Some(folder.join(format!("{lab}.toml"))), ..options(name) });
        assert_eq!(report.verdict, Verdict::Ok, "{lab}:\n{}", report.to_text(false));
    }
}

#[test]
fn a_run_tells_the_same_bytes_every_time() {
    for (name, ..) in SAMPLES {
        let first = told(&bench(name).run());
        for _ in 1..20 {
            assert!(told(&bench(name).run()) == first, "{name} told something else");
        }
    }
}

#[test]
fn a_clone_goes_on_as_the_original_does() {
    for (name, ..) in SAMPLES {
        let whole = bench(name).run();
        let steps = whole.stats.instructions;
        let mut at = bench(name);
        for part in 1..8 {
            if at.system.run_until(steps * part / 8).is_some() {
                break;
            }
            // The original goes on after its clone has run to the end, so what they share would show.
            assert!(told(&at.clone().run()) == told(&whole), "{name}: a clone at part {part} differs");
        }
        assert!(told(&at.run()) == told(&whole), "{name}: the original differs after its clones ran");
    }
}

#[test]
fn a_story_shows_the_way_of_an_interrupt() {
    let text = bench("edu").run().to_text(false);
    let wanted = [
        "card: edu 1234:11e8, interrupts msi:1",
        "1 message -> vector 0x90, DIRQL 9",
        "card: IoConnectInterruptEx FULLY_SPECIFIED: STATUS_SUCCESS",
        "6 raised by devices, 6 DPCs",
        "card sends message 0",
        "the processor takes vector 0x90",
        "ISR edu.sys+",
        "claims it",
        "DPC edu.sys+",
        "request 4 is completed: STATUS_SUCCESS",
        "ok: nothing wrong",
    ];
    let mut rest = text.as_str();
    for part in wanted {
        let at = rest.find(part).unwrap_or_else(|| panic!("no `{part}`, in that order, in:\n{text}"));
        rest = &rest[at..];
    }
    assert!(!text.contains('\u{1b}'), "no colour was asked for");
}

#[test]
fn a_bug_check_tells_code_name_and_parameters() {
    let report = bench("tests/nullderef").run();
    let message = &report.findings[0].message;
    assert!(message.starts_with("0xd1 DRIVER_IRQL_NOT_LESS_OR_EQUAL (0x0, 0x9, 0x0, 0x"), "{message}");
    let place = &report.findings[0].places[0];
    assert_eq!(place.image.as_deref(), Some("nullderef.sys"));
    assert!(place.rva.is_some() && !place.stack.is_empty());
}

#[test]
fn a_missing_export_and_a_driver_without_end_are_named_with_their_place() {
    let report = bench("tests/missing").run();
    let message = &report.findings[0].message;
    assert!(message.contains("ntoskrnl.exe!FsRtlIsNameInExpression from missing.sys+0x"), "{message}");
    assert!(message.contains("of 661 surveyed drivers"), "{message}");
    let report = bench("tests/forever").run();
    assert!(report.findings[0].message.contains("CPU 0 at forever.sys+0x10"), "{:?}", report.findings);
    assert_eq!(report.findings[0].places[0].image.as_deref(), Some("forever.sys"));
}

#[test]
fn a_made_lab_is_a_lab() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("made_lab");
    std::fs::create_dir_all(&folder).unwrap();
    let image = folder.join("lone.sys");
    std::fs::copy(options("pulse").image, &image).unwrap();
    let made = dirql::run(&RunOptions { image: image.clone(), ..RunOptions::default() });
    let lab = made.made_lab.clone().expect("there was no lab, so one was made");
    let path = folder.join("saved.lab.toml");
    std::fs::write(&path, lab).unwrap();
    let saved = dirql::run(&RunOptions { image, lab: Some(path), ..RunOptions::default() });
    assert!(saved.made_lab.is_none());
    assert_eq!(saved.stats, made.stats);
}
