//! Structured exceptions, through the facade: `drivers/tests/seh.sys` has a case per control code.

use std::path::{Path, PathBuf};

use dirql::report::{RunReport, Verdict};
use dirql::{RunOptions, run};

fn driver(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../drivers/tests").join(name)
}

/// Runs seh.sys with one request.
fn request(code: u32) -> RunReport {
    let lab = std::env::temp_dir().join(format!("dirql-seh-{}-{code:x}.toml", std::process::id()));
    let text = format!(
        "[driver]\nimage = \"seh.sys\"\n[[step]]\ndo = \"open\"\n[[step]]\ndo = \"ioctl\"\ncode = {code}\noutput_length = 8\n"
    );
    std::fs::write(&lab, text).unwrap();
    let report =
        run(&RunOptions { image: driver("seh.sys"), lab: Some(lab.clone()), ..RunOptions::default() });
    std::fs::remove_file(lab).unwrap();
    report
}

fn bug_check(code: u32) -> (String, Vec<String>) {
    let report = request(code);
    assert_eq!(report.verdict, Verdict::Finding, "{report:?}");
    let finding = report.findings.iter().find(|f| f.rule == "bugcheck").expect("a bug check");
    let place = finding.places.first().expect("a place");
    (finding.message.clone(), place.stack.clone())
}

#[test]
fn every_case_gives_what_it_expects() {
    let report = run(&RunOptions { image: driver("seh.sys"), ..RunOptions::default() });
    assert_eq!(report.verdict, Verdict::Ok, "{:?}", report.findings);
}

#[test]
fn a_run_is_the_same_twice() {
    let once = || {
        format!("{:?}", run(&RunOptions { image: driver("seh.sys"), trace: true, ..RunOptions::default() }))
    };
    assert_eq!(once(), once());
}

#[test]
fn unhandled_exceptions_are_the_bug_check_of_their_context() {
    // In a request of an application, a DPC and a system thread.
    assert!(bug_check(0x22_2100).0.starts_with("0x3b SYSTEM_SERVICE_EXCEPTION (0xc0000005, "));
    assert!(bug_check(0x22_2114).0.starts_with("0x1e KMODE_EXCEPTION_NOT_HANDLED (0xc0000094, "));
    assert!(bug_check(0x22_2118).0.starts_with("0x7e SYSTEM_THREAD_EXCEPTION_NOT_HANDLED (0xc0000005, "));
}

#[test]
fn some_faults_ask_no_handler() {
    assert!(
        bug_check(0x22_2104).0.starts_with("0x50 PAGE_FAULT_IN_NONPAGED_AREA (0xffff900000001000, 0x0, ")
    );
    assert!(bug_check(0x22_2108).0.starts_with("0xd1 DRIVER_IRQL_NOT_LESS_OR_EQUAL (0x50, 0x2, 0x0, "));
    assert!(bug_check(0x22_210c).0.starts_with("0x139 KERNEL_SECURITY_CHECK_FAILURE (0x3, "));
    assert!(bug_check(0x22_211c).0.starts_with("0x7f UNEXPECTED_KERNEL_MODE_TRAP (0x8, "));
    assert!(bug_check(0x22_2110).0.starts_with("0xbe ATTEMPTED_WRITE_TO_READONLY_MEMORY ("));
}

#[test]
fn stacks_name_functions_and_lines() {
    let (_, stack) = bug_check(0x22_2104);
    assert!(stack[0].contains(" Read (") && stack[0].contains("tests/seh.c:"), "{stack:?}");
    assert!(stack[1].contains(" Fatal ("), "{stack:?}");
    assert!(stack.iter().any(|l| l.contains(" Dispatch (") || l.contains(" Control (")), "{stack:?}");
}

/// Damages the driver and runs all of its cases: any end is right but a panic, an internal error or none.
fn damaged(name: &str, damage: impl FnOnce(&mut Vec<u8>, &dirql_image::Image)) {
    let bytes = std::fs::read(driver("seh.sys")).unwrap();
    let image = dirql_image::Image::parse(&bytes).unwrap();
    let mut bad = bytes;
    damage(&mut bad, &image);
    let path = std::env::temp_dir().join(format!("dirql-seh-{}-{name}.sys", std::process::id()));
    std::fs::write(&path, bad).unwrap();
    let options = RunOptions {
        image: path.clone(),
        lab: Some(driver("seh.toml")),
        budget: Some(200_000),
        ..RunOptions::default()
    };
    let report = run(&options);
    std::fs::remove_file(path).unwrap();
    assert_ne!(report.verdict, Verdict::Internal, "{name}: {:?}", report.findings);
}

/// The file offset of an address.
fn file_offset(image: &dirql_image::Image, rva: u32) -> usize {
    let s = image.section_at(rva).unwrap();
    (s.file_offset + (rva - s.rva)) as usize
}

#[test]
fn unwind_information_that_chains_to_itself_ends_the_walk() {
    damaged("chain", |bytes, image| {
        for f in &image.functions {
            let at = file_offset(image, f.unwind);
            // Version 1, UNW_FLAG_CHAININFO, no codes; the chained function is this one.
            bytes[at..at + 4].copy_from_slice(&[0x21, 0, 0, 0]);
            for (i, word) in [f.begin, f.end, f.unwind].into_iter().enumerate() {
                if let Some(slot) = bytes.get_mut(at + 4 + 4 * i..at + 8 + 4 * i) {
                    slot.copy_from_slice(&word.to_le_bytes());
                }
            }
        }
    });
}

#[test]
fn unwind_information_that_unwinds_nothing_ends_the_walk() {
    damaged("nothing", |bytes, image| {
        for f in &image.functions {
            let at = file_offset(image, f.unwind);
            // A machine frame over and over, with handlers.
            bytes[at..at + 6].copy_from_slice(&[0x19, 0, 1, 0, 0, 0x0A]);
        }
    });
}

#[test]
fn random_damage_to_the_tables_is_survived() {
    let mut seed = 0x5EED_u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    for round in 0..48 {
        damaged(&format!("random{round}"), |bytes, image| {
            let infos: Vec<usize> = image.functions.iter().map(|f| file_offset(image, f.unwind)).collect();
            for _ in 0..=round % 12 {
                let at = infos[next() % infos.len()] + next() % 48;
                bytes[at] = next() as u8;
            }
        });
    }
}
