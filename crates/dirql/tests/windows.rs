//! The Windows profiles and the SDK's samples: one binary under several, and one that is too new.

use std::path::{Path, PathBuf};

use dirql::{RunOptions, RunReport, Verdict};

fn drivers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../drivers")
}

fn run(image: &str, lab: &Path) -> RunReport {
    let image = drivers().join(image);
    dirql::run(&RunOptions { image, lab: Some(lab.to_owned()), ..RunOptions::default() })
}

#[test]
fn one_binary_with_iointex_runs_on_every_windows() {
    // Each lab expects the connect version and the count that its Windows gives.
    for lab in ["iointex.toml", "iointex-vista.toml", "iointex-2003.toml", "iointex-2000.toml"] {
        let report = run("iointex.sys", &drivers().join(lab));
        assert_eq!(report.verdict, Verdict::Ok, "{lab}: {}", report.to_text(false));
    }
}

#[test]
fn the_driver_in_rust_runs() {
    let report = run("pulse-rs.sys", &drivers().join("pulse-rs.toml"));
    assert_eq!(report.verdict, Verdict::Ok, "{}", report.to_text(false));
}

#[test]
fn a_driver_that_is_too_new_does_not_load() {
    let folder = std::env::temp_dir().join(format!("dirql-windows-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let lab = std::fs::read_to_string(drivers().join("shared.toml")).expect("the lab");
    for (windows, loads) in [("2000", false), ("2003", false), ("vista", true), ("11", true)] {
        let text = if lab.contains("[machine]") {
            lab.replacen("[machine]", &format!("[machine]\nwindows = \"{windows}\""), 1)
        } else {
            format!("[machine]\nwindows = \"{windows}\"\n{lab}")
        };
        let path = folder.join(format!("{windows}.toml"));
        std::fs::write(&path, text).expect("written");
        let report = run("shared.sys", &path);
        let text = report.to_text(false);
        assert_eq!(report.verdict == Verdict::Ok, loads, "{windows}: {text}");
        assert_eq!(text.contains("STATUS_DRIVER_ENTRYPOINT_NOT_FOUND"), !loads, "{windows}: {text}");
    }
    std::fs::remove_dir_all(&folder).expect("removed");
}
