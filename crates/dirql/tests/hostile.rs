//! Input that no one means: damaged images, images of other machines, files that are none. Each ends in one of the
//! four documented ways, with something said, and never in a panic.

use std::path::PathBuf;

use dirql::{RunOptions, RunReport, Verdict};

/// Deterministic noise (splitmix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }
}

fn sample(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../drivers/{name}.sys"));
    std::fs::read(path).unwrap()
}

/// Runs bytes as an image with the lab of `edu`.
fn run(test: &str, bytes: &[u8]) -> RunReport {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("hostile");
    std::fs::create_dir_all(&folder).unwrap();
    let image = folder.join(format!("{test}.sys"));
    std::fs::write(&image, bytes).unwrap();
    let lab = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../drivers/edu.toml");
    dirql::run(&RunOptions { image, lab: Some(lab), budget: Some(20_000), ..RunOptions::default() })
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// File ranges of what a loader reads: headers, section table, and the directories.
fn parts(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let pe = u32_at(bytes, 0x3c);
    let optional = pe + 24;
    let sections = optional + usize::from(u16::from_le_bytes([bytes[pe + 20], bytes[pe + 21]]));
    let count = usize::from(u16::from_le_bytes([bytes[pe + 6], bytes[pe + 7]]));
    let mut out = vec![0..0x40, pe..optional, optional..sections, sections..sections + 40 * count];
    for directory in [0usize, 1, 3, 5, 10, 12] {
        let (rva, size) =
            (u32_at(bytes, optional + 112 + 8 * directory), u32_at(bytes, optional + 116 + 8 * directory));
        for s in (0..count).map(|i| sections + 40 * i) {
            let (start, len, raw) = (u32_at(bytes, s + 12), u32_at(bytes, s + 16), u32_at(bytes, s + 20));
            if size > 0 && rva >= start && rva < start + len {
                let from = raw + rva - start;
                out.push(from..(from + size).min(bytes.len()));
            }
        }
    }
    out
}

#[test]
fn damaged_images_end_in_a_documented_way() {
    let good = sample("edu");
    let parts = parts(&good);
    let mut noise = Noise(1);
    let mut seen = std::collections::BTreeMap::new();
    for i in 0..480usize {
        let mut bytes = good.clone();
        let part = &parts[i % parts.len()];
        for _ in 0..1 + i / parts.len() % 4 {
            let at = part.start + noise.next(part.len());
            let with = [0, 0xff, 0x80, 1, noise.next(256) as u8][noise.next(5)];
            let many = [1, 2, 4][noise.next(3)];
            for b in bytes.iter_mut().skip(at).take(many) {
                *b = with;
            }
        }
        let report = run("damaged", &bytes);
        assert_ne!(report.verdict, Verdict::Internal, "image {i}: {}", report.to_text(false));
        let said = report.verdict == Verdict::Ok || report.findings.iter().all(|f| !f.message.is_empty());
        assert!(said && !report.to_text(true).is_empty());
        *seen.entry(report.verdict.exit_code()).or_insert(0) += 1;
    }
    // Damage that is always refused, or never, would be no test of what comes after.
    assert!(seen.len() >= 2 && seen.contains_key(&2), "{seen:?}");
}

#[test]
fn truncated_images_are_refused() {
    let good = sample("pulse");
    let cuts = (0..0x400).step_by(37).chain((0x400..good.len()).step_by(good.len() / 40));
    for cut in cuts {
        let report = run("truncated", &good[..cut]);
        assert!(
            matches!(report.verdict, Verdict::Input | Verdict::Ok | Verdict::Finding | Verdict::Missing),
            "{cut}: {}",
            report.to_text(false)
        );
        if cut < 0x400 {
            assert_eq!(report.verdict, Verdict::Input, "cut at {cut}");
        }
    }
}

#[test]
fn other_images_get_one_clear_sentence() {
    let good = sample("edu");
    let pe = u32_at(&good, 0x3c);
    let patched = |at: usize, with: u16| {
        let mut bytes = good.clone();
        bytes[at..at + 2].copy_from_slice(&with.to_le_bytes());
        bytes
    };
    let cases = [
        ("i386", patched(pe + 4, 0x014c)),
        ("arm64", patched(pe + 4, 0xaa64)),
        ("pe32", patched(pe + 24, 0x010b)),
        ("user_mode", patched(pe + 24 + 68, 3)),
        ("text", b"this is a text file, and no driver\n".repeat(100)),
        ("elf", [b"\x7fELF".as_slice(), &[0; 4096]].concat()),
        ("empty", vec![]),
    ];
    for (name, bytes) in cases {
        let report = run(name, &bytes);
        assert_eq!(report.verdict, Verdict::Input, "{name}: {}", report.to_text(false));
        assert_eq!(report.findings.len(), 1, "{name}");
        assert_eq!(report.findings[0].places[0].role, "at", "{name}: the file is named");
    }
}

#[test]
fn files_that_are_none_are_refused() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for image in [folder.join("there-is-none.sys"), folder, PathBuf::from("/dev/null"), PathBuf::new()] {
        let report = dirql::run(&RunOptions { image: image.clone(), ..RunOptions::default() });
        assert_eq!(report.verdict, Verdict::Input, "{}: {}", image.display(), report.to_text(false));
    }
}
