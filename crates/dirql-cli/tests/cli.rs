//! The command as a script sees it: exit codes, streams, JSON.

use std::path::PathBuf;
use std::process::{Command, Output};

fn dirql(args: &[&str]) -> Output {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    Command::new(env!("CARGO_BIN_EXE_dirql"))
        .current_dir(root)
        .env_remove("NO_COLOR")
        .args(args)
        .output()
        .unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let last = text.lines().last().unwrap_or_else(|| panic!("nothing was printed"));
    serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {last}"))
}

#[test]
fn exit_codes_and_json_agree() {
    let cases: &[(&[&str], i32, &str)] = &[
        (&["run", "drivers/edu.sys"], 0, "ok"),
        (&["run", "drivers/tests/leak.sys"], 1, "finding"),
        (&["run", "drivers/tests/forever.sys", "--budget", "100000"], 1, "finding"),
        (&["run", "drivers/none.sys"], 2, "input"),
        (&["run", "drivers/edu.sys", "--lab", "README.md"], 2, "input"),
        (&["run", "drivers/edu.sys", "--cpus", "65"], 2, "input"),
        (&["run", "drivers/edu.sys", "--budget", "0"], 2, "input"),
        (&["run", "README.md"], 2, "input"),
        (&["run"], 2, "input"),
        (&["fly"], 2, "input"),
        (&["inspect", "drivers"], 2, "input"),
        (&["inspect", "drivers/edu.sys"], 0, "ok"),
        (&["inspect", "drivers/tests/missing.sys"], 3, "missing"),
        (&["run", "drivers/tests/missing.sys"], 3, "missing"),
        (&["exports", "no-such-name"], 2, "input"),
        (&["exports", "Connect"], 0, "ok"),
        (&["devices"], 0, "ok"),
        (&["rules"], 0, "ok"),
    ];
    for (args, code, verdict) in cases {
        let text = dirql(args);
        assert_eq!(text.status.code(), Some(*code), "{args:?}");
        assert!(text.stderr.is_empty() != (*code == 2), "{args:?}: errors go to standard error");
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let output = dirql(&args);
        assert_eq!(output.status.code(), Some(*code), "{args:?}");
        let object = json(&output);
        assert_eq!(object["verdict"], *verdict, "{args:?}");
        assert!(object["dirql"].is_string() && object["stats"].is_object(), "{args:?}");
        let findings = object["findings"].as_array().unwrap();
        assert_eq!(findings.is_empty(), *verdict == "ok", "{args:?}");
        for f in findings {
            let keys: Vec<&str> = f.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, ["deviations", "level", "message", "places", "replay", "rule"]);
        }
        assert!(output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_trace_is_lines_of_events_and_then_the_report() {
    let output = dirql(&["run", "drivers/edu.sys", "--trace", "--json"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let (report, events) = lines.split_last().unwrap();
    assert_eq!(report["stats"]["events"], events.len());
    assert!(events.iter().all(|e| e["event"].is_string() && e["at"].is_u64()));
    assert!(events.iter().any(|e| e["event"] == "isr-enter"));
}

#[test]
fn colour_is_for_those_who_want_it() {
    let coloured = |args: &[&str]| dirql(args).stdout.contains(&0x1b);
    assert!(!coloured(&["run", "drivers/edu.sys"]), "a pipe is no terminal");
    assert!(!coloured(&["--color", "never", "run", "drivers/edu.sys"]));
    assert!(coloured(&["run", "drivers/edu.sys", "--color", "always"]));
    assert!(!coloured(&["run", "drivers/edu.sys", "--color", "always", "--json"]));
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [&["--help"][..], &["--version"], &["run", "--help"], &["help", "inspect"]] {
        let output = dirql(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn the_conformance_driver_is_part_of_the_command() {
    let output = dirql(&["conformance", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let object = json(&output);
    let rows = object["conformance"].as_array().unwrap();
    assert_eq!(object["stats"]["profiles"], rows.len());
    assert_eq!(object["stats"]["failed"], 0);
    assert!(object["stats"]["passed"].as_u64().unwrap() > 70 * rows.len() as u64);
}

#[test]
fn a_driver_that_prints_no_case_does_not_conform() {
    let output = dirql(&["conformance", "drivers/edu.sys"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("no case was printed") && text.contains("\n0 of "), "{text}");
    assert_eq!(dirql(&["conformance", "drivers/none.sys"]).status.code(), Some(2));
}
