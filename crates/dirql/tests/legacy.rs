//! Legacy drivers: no AddDevice, so DriverEntry's own devices are what the steps work on.

use std::path::Path;

use dirql::report::Verdict;
use dirql::{RunOptions, run};

#[test]
fn a_driver_without_add_device_runs_beside_the_labs_device() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../drivers/tests");
    let lab = std::env::temp_dir().join(format!("dirql-legacy-{}.toml", std::process::id()));
    let text = r#"
        [[device]]
        name = "card"
        model = "pulse"
        interrupts = "line"
        [driver]
        image = "seh.sys"
        device = "card"
        [[step]]
        do = "open"
        expect = { status = "STATUS_SUCCESS" }
        [[step]]
        do = "ioctl"
        code = 0x222000
        output_length = 8
        expect = { output = "05 00 00 c0 05 00 00 c0" }
    "#;
    std::fs::write(&lab, text).unwrap();
    let report = run(&RunOptions {
        image: folder.join("seh.sys"),
        lab: Some(lab.clone()),
        trace: true,
        ..RunOptions::default()
    });
    std::fs::remove_file(lab).unwrap();
    assert_eq!(report.verdict, Verdict::Ok, "{:?}", report.findings);
    let events = format!("{:?}", report.events);
    // DriverUnload is called at the end; no PnP request is sent.
    assert!(events.contains("Unloaded {") && !events.contains("Pnp {"), "{events}");
}
