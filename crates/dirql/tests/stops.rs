//! Misuses of the interrupt routines, from a driver, end in the documented bug checks.

use std::path::Path;

use dirql::{RunOptions, Verdict, run};

#[test]
fn each_misuse_has_its_bug_check() {
    let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../drivers/tests");
    let lab = std::fs::read_to_string(drivers.join("stops.toml")).unwrap();
    // Control code, stop code, first two parameters where they are documented.
    let rows: &[(u32, u32, &[u64])] = &[
        (0, 0x121, &[1, 2]),
        (1, 0xCA, &[9, 77]),
        (2, 0xCA, &[9, 3]),
        (3, 0x121, &[1, 2]),
        (4, 0x13B, &[1]),
        (5, 0x9, &[15]),
        (6, 0xF, &[]),
        (7, 0xD1, &[]),
        (8, 0xCA, &[9]),
    ];
    for &(n, code, params) in rows {
        let text = lab.replace("0x222000", &format!("{:#x}", 0x0022_2000 + 4 * n));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stops-{n}.toml"));
        std::fs::write(&path, text).unwrap();
        let image = drivers.join("stops.sys");
        let report = run(&RunOptions { image, lab: Some(path), trace: false, budget: None, cpus: None });
        assert_eq!(report.verdict, Verdict::Finding, "misuse {n}: {:?}", report.findings);
        let Some((got, _, with, ..)) = &report.story.bug_check else {
            panic!("misuse {n}: no bug check, {:?}", report.findings)
        };
        assert_eq!((*got, &with[..params.len()]), (code, params), "misuse {n}");
    }
}
