//! Every row of the error matrix (spec 3.8, 4.1) from `data/error_matrix.tsv`, against the core alone. The file says
//! what its columns mean; a word it does not define fails the test.

mod common;
use std::collections::BTreeMap;

use common::*;
use dirql_core::{
    Arch, Assigned, Config, ConnectFailure, ConnectRequest, Connected, ConnectedKind, Device, Irql,
    LegacyRequest, Mode, Refusal, Windows,
};

const DATA: &str = include_str!("data/error_matrix.tsv");
/// Another device, whose connection is there already.
const OTHER: u64 = 0xE0;

struct Row<'a> {
    row: &'a str,
    words: Vec<(&'a str, &'a str)>,
    status: &'a str,
    version: &'a str,
    out: &'a str,
}

fn rows() -> Vec<Row<'static>> {
    let lines = DATA.lines().filter(|line| !line.starts_with('#') && !line.starts_with("row\t"));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            let [row, input, status, version, out, source] = cells[..] else {
                panic!("six columns: {line:?}")
            };
            assert!(!source.is_empty(), "no source: {line:?}");
            let words = input.split_whitespace().map(|word| word.split_once('=').unwrap_or((word, "")));
            Row { row, words: words.collect(), status, version, out }
        })
        .collect()
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or_else(|_| panic!("a number: {text:?}"))
}

fn windows(text: &str) -> Windows {
    match text {
        "2000" => Windows::W2000,
        "xp" => Windows::Xp,
        "2003" => Windows::W2003,
        "vista" => Windows::Vista,
        "7" => Windows::W7,
        "8.1" => Windows::W8_1,
        "10" => Windows::W10,
        other => panic!("no such Windows: {other}"),
    }
}

fn device(text: &str) -> Option<Vec<Assigned>> {
    let passive = Assigned { irql: Irql::PASSIVE, ..line(16, 0x61, Mode::Level) };
    let mut narrow = line(16, 0x61, Mode::Level);
    narrow.affinity.mask = 1;
    Some(match text {
        "line" => vec![line(16, 0x61, Mode::Level)],
        "line2" => vec![line(16, 0x61, Mode::Level), line(17, 0x81, Mode::Level)],
        "msg" => vec![message(0, 0x61)],
        "msg2" => vec![message(0, 0x61), message(1, 0x91)],
        "passive-line" => vec![passive],
        "narrow" => vec![narrow],
        "none" => vec![],
        "no-record" => return None,
        other => panic!("no such device: {other}"),
    })
}

/// What a call did, in the words of the file.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    status: String,
    version: String,
    out: &'static str,
}

fn got(result: Result<Connected<u64>, ConnectFailure<u64, u64>>, versioned: bool) -> Got {
    let version = |v: u32| if versioned { format!("{v:x}") } else { "-".to_owned() };
    match result {
        Ok(made) => Got {
            status: "00000000".to_owned(),
            version: version(made.version_out),
            out: match made.kind {
                ConnectedKind::Line { .. } => "object",
                ConnectedKind::Table { .. } => "table",
            },
        },
        Err(ConnectFailure::Refused(Refusal { status, version_out, null_out_pointer, .. })) => Got {
            status: format!("{status:08X}"),
            version: version(version_out),
            out: if null_out_pointer { "null" } else { "same" },
        },
        Err(ConnectFailure::BugCheck(stop)) => {
            Got { status: format!("stop:{:08X}", stop.code), version: "-".to_owned(), out: "same" }
        }
    }
}

fn run(row: &Row<'_>) -> Got {
    let mut config = Config::default();
    let mut r = request(1);
    let (mut at, mut has, mut held, mut held_vector) = (Irql::PASSIVE, "line", None, 0x61);
    let mut alloc = None;
    for &(key, value) in &row.words {
        match key {
            "v" => r.version = hex(value) as u32,
            "at" => at = Irql(hex(value) as u8),
            "has" => has = value,
            "held" => held = Some(value),
            "held-vector" => held_vector = hex(value) as u8,
            "alloc" => alloc = Some(hex(value) as u32),
            "windows" => config.windows = windows(value),
            "status" => config.alternative_status = value == "alternative",
            "pdo" => config.pdo_bugcheck = value == "bugcheck",
            "arch" => config.arch = if value == "x86" { Arch::X86 } else { panic!("{value}") },
            "null-pdo" => r.pdo = Device::Null,
            "fdo" => r.pdo = Device::NotPhysical(0xF0),
            "no-isr" => r.isr = None,
            "no-out" => r.has_out_pointer = false,
            "sync" => r.sync_irql = Irql(hex(value) as u8),
            "irql" => r.irql = Irql(hex(value) as u8),
            "lock" => r.lock = Some(0x77),
            "mask" => r.mask = hex(value),
            "group" => r.group = hex(value) as u16,
            "vector" => r.vector = hex(value) as u32,
            "mode" => r.mode = hex(value) as u32,
            "alone" => r.share_vector = false,
            "float" => r.floating_save = true,
            "fallback" => r.fallback = Some(0x2000),
            other => panic!("row {}: no such word {other}", row.row),
        }
    }
    let (mut core, mut ports) = (core_with(config), TestPorts::default());
    if let Some(interrupts) = device(has) {
        core.assign(PDO, interrupts);
    }
    if let Some(held) = held {
        let mode = if held == "latched" { Mode::Latched } else { Mode::Level };
        core.assign(OTHER, vec![line(18, held_vector, mode)]);
        let first = ConnectRequest {
            pdo: Device::Physical(OTHER),
            vector: held_vector.into(),
            irql: Irql(held_vector >> 4),
            sync_irql: Irql(held_vector >> 4),
            mode: mode.raw(),
            share_vector: held != "alone",
            ..request(1)
        };
        connect(&mut core, &mut ports, &first);
    }
    ports.left = alloc;
    let (live, open, objects) = (ports.live.clone(), ports.open.clone(), core.objects().count());
    let result = if row.row == "L" {
        let legacy = LegacyRequest {
            has_out_pointer: r.has_out_pointer,
            isr: r.isr,
            context: r.context,
            lock: r.lock,
            vector: r.vector,
            irql: r.irql,
            sync_irql: r.sync_irql,
            mode: r.mode,
            share_vector: r.share_vector,
            mask: r.mask,
            floating_save: r.floating_save,
        };
        core.connect_legacy(&legacy, at, &mut ports)
    } else {
        core.connect(&r, at, &mut ports)
    };
    if result.is_err() {
        // C9: no handler stays, nothing stays allocated, no source is open.
        assert_eq!((&ports.live, &ports.open), (&live, &open), "row {}", row.row);
        assert_eq!(core.objects().count(), objects, "row {}", row.row);
    }
    got(result, row.row != "L")
}

#[test]
fn every_row_gives_what_the_file_says() {
    let mut wrong = Vec::new();
    for row in rows() {
        let want = Got {
            status: row.status.to_owned(),
            version: row.version.to_owned(),
            out: ["same", "null", "object", "table"]
                .into_iter()
                .find(|o| *o == row.out)
                .expect("an out word"),
        };
        let got = run(&row);
        if got != want {
            wrong.push(format!("{} {:?}: {got:?}, the file says {want:?}", row.row, row.words));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_row_is_missing() {
    let mut count = BTreeMap::<&str, u32>::new();
    for row in rows() {
        *count.entry(row.row).or_default() += 1;
    }
    for n in 1..=16 {
        assert!(count.contains_key(format!("E{n}").as_str()), "no row E{n}");
    }
    assert!(count.contains_key("L"));
}
