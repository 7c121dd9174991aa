//! The layout constants against what the C compiler says: its recorded answer always, a fresh one where mingw is installed.

use dirql_abi::layout::{structure, structures};
use std::{path::Path, process::Command};

const RECORDED: &str = include_str!("layout.txt");

/// What the constants say, in the form `layout.c` prints, member paths joined by underscores.
fn declared() -> Vec<String> {
    let mut lines = Vec::new();
    for s in structures() {
        lines.push(format!("{} - 0 {}", s.name, s.size));
        lines.extend(s.fields.iter().map(|f| format!("{} {} {} {}", s.name, f.name, f.offset, f.size)));
    }
    lines.sort();
    lines
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(|l| l.replace('.', "_")).collect();
    lines.sort();
    lines
}

#[test]
fn constants_agree_with_the_recorded_compiler_output() {
    assert_eq!(declared(), sorted(RECORDED));
}

/// Skips, saying so, without mingw; the recorded copy is checked in any case.
#[test]
fn recorded_output_is_what_the_compiler_says_now() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layout.c");
    let ddk = Path::new("/usr/share/mingw-w64/include/ddk");
    let run = Command::new("x86_64-w64-mingw32-gcc")
        .args(["-S", "-O1", "-w", "-o", "-", "-I"])
        .arg(ddk)
        .arg(source)
        .output();
    let Ok(run) = run else {
        eprintln!("skipped: x86_64-w64-mingw32-gcc is not installed");
        return;
    };
    if !ddk.is_dir() {
        eprintln!("skipped: the mingw-w64 DDK headers are not at {}", ddk.display());
        return;
    }
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let text = String::from_utf8_lossy(&run.stdout);
    let fresh: Vec<_> = text
        .lines()
        .filter_map(|l| l.split_once("LAYOUT "))
        .map(|(_, l)| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(fresh.join("\n"), RECORDED.trim_end());
}

/// The sizes the kernel relies on, by hand, so that a wrong list can't agree with itself (spec 2).
#[test]
fn sizes_by_hand() {
    for (name, size) in [
        ("IRP", 208),
        ("IO_STACK_LOCATION", 72),
        ("MDL", 48),
        ("KEVENT", 24),
        ("KSEMAPHORE", 32),
        ("KMUTANT", 56),
        ("KTIMER", 64),
        ("KDPC", 64),
        ("FAST_MUTEX", 56),
        ("KLOCK_QUEUE_HANDLE", 24),
        ("DEVICE_OBJECT", 0x148),
        ("DRIVER_OBJECT", 336),
        ("IO_CONNECT_INTERRUPT_PARAMETERS", 80),
        ("CM_PARTIAL_RESOURCE_DESCRIPTOR", 20),
        ("CM_RESOURCE_LIST", 40),
        ("IO_RESOURCE_REQUIREMENTS_LIST", 72),
        ("PCI_MSIX_TABLE_CONFIG_INTERFACE", 72),
    ] {
        assert_eq!(structure(name).map(|s| s.size), Some(size), "{name}");
    }
    assert_eq!(dirql_abi::layout::DEVICE_OBJECT::Dpc, 0xC8);
    assert_eq!(structure("DEVICE_OBJECT").and_then(|s| s.field_at(0xD0)).map(|f| f.name), Some("Dpc"));
}
