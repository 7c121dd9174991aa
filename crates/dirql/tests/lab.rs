//! Labs as a person writes them, right and wrong.

use std::path::Path;

use dirql::Lab;
use dirql::lab::{Action, Interrupts, Setting, Windows};

const FULL: &str = r#"
budget = 0x1000000
[machine]
windows = "8.1"
cpus = 4
seed = 7
delivery = "fixed"
locks = "per-set"
status = "alternative"
pdo = "bugcheck"

[[device]]
name = "card"
model = "pulse"
interrupts = "msix:4"
irql = [4, 6, 8, 9]
affinity = 0x3
policy = "spread"
priority = "high"
arrivals = 3
id = "1234:11e8"
sources = 4
[device.registry]
"Interrupt Management"."Affinity Policy".DevicePolicy = 5
Name = "x"

[driver]
image = "card.sys"
device = "card"
[driver.registry]
Parameters.Depth = 16

[[step]]
do = "open"
as = "h"

[[step]]
do = "ioctl"
handle = "h"
code = 0x222000
input = "01 00 00 00"
expect = { status = "STATUS_SUCCESS", output = "02 00 00 00", within = "10 ms" }

[[step]]
do = "repeat"
count = 3
steps = [{ do = "raise", source = 1 }, { do = "wait", for = "1 us" }]

[check.counters]
isr = { at_least = 3 }
dpc = 3
[check.device.card]
STATUS = 0
"#;

fn refused(text: &str) -> String {
    Lab::parse(text, Some(Path::new("card.toml"))).expect_err("must be refused").to_string()
}

#[test]
fn a_full_lab_is_read() {
    let lab = Lab::parse(FULL, Some(Path::new("labs/card.toml"))).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(lab.machine.windows, Windows::Windows8_1);
    assert_eq!(lab.budget, 0x100_0000);
    let card = lab.device("card").unwrap();
    assert_eq!(card.interrupts, Interrupts::Msix(4));
    assert_eq!(card.irql, [4, 6, 8, 9]);
    assert_eq!(card.policy, Some(5));
    assert_eq!(card.properties["sources"], Setting::Number(4));
    assert_eq!(card.registry["Interrupt Management\\Affinity Policy\\DevicePolicy"], Setting::Number(5));
    assert_eq!(lab.resolve(&lab.drivers[0].image), Path::new("labs/card.sys"));
    assert_eq!(lab.drivers[0].registry["Parameters\\Depth"], Setting::Number(16));
    assert_eq!(lab.flat_steps().len(), 2 + 3 * 2);
    let Action::Ioctl { code, output_length, .. } = &lab.steps[1].action else { panic!() };
    assert_eq!((*code, *output_length), (0x22_2000, 4));
    assert_eq!(lab.steps[1].expect.within, Some(10_000_000));
    assert_eq!(lab.steps[1].line, 37);
    let lacking: Vec<String> = lab.lacking().into_iter().map(|l| l.what).collect();
    assert_eq!(lacking, Vec::<String>::new());
}

#[test]
fn printing_a_lab_reads_back_as_the_same_lab() {
    for lab in [Lab::parse(FULL, None).unwrap(), Lab::default_for(Path::new("a \"b\"\\c.sys"))] {
        let text = lab.to_toml();
        let mut again = Lab::parse(&text, None).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let mut lab = lab;
        for lab in [&mut lab, &mut again] {
            lab.devices.iter_mut().for_each(|d| d.line = 0);
            lab.drivers.iter_mut().for_each(|d| d.line = 0);
            fn clear(steps: &mut [dirql::lab::Step]) {
                for step in steps {
                    step.line = 0;
                    if let Action::Repeat { steps, .. } = &mut step.action {
                        clear(steps);
                    }
                }
            }
            clear(&mut lab.steps);
        }
        assert_eq!(again, lab, "{text}");
    }
}

#[test]
fn an_unknown_key_names_the_place_and_the_nearest() {
    let text = "[machine]\nwindos = \"11\"\n[[device]]\nname = \"a\"\nmodel = \"pulse\"\n";
    assert_eq!(
        refused(text),
        "error: unknown key `windos` in [machine]\n --> card.toml:2:1\n  |\n2 | windos = \"11\"\n  | ^^^^^^\n  \
         = help: did you mean `windows`? valid keys here: cpus, delivery, groups, locks, pdo, seed, status, windows"
    );
}

#[test]
fn what_is_wrong_is_said() {
    let device = "[[device]]\nname = \"card\"\nmodel = \"pulse\"\n";
    let cases = [
        ("", "this lab has no device"),
        ("x = [", "not valid TOML"),
        ("[machine]\ncpus = 65\n", "`cpus` in [machine] must be from 1 to 64"),
        ("[machine]\ncpus = -1\n", "not a negative number"),
        ("[machine]\ncpus = 1.5\n", "not a number with a point"),
        ("[machine]\nwindows = \"12\"\n", "`12` is not a value of `windows`"),
        ("[[device]]\nname = \"a\"\n", "[[device]] has no `model`"),
        ("[[device]]\nname = \"a\"\nmodel = \"puls\"\n", "did you mean `pulse`?"),
        ("[[device]]\nname = \"a\"\nmodel = \"edu\"\ndma_masc = 1\n", "did you mean `dma_mask`?"),
        ("[[device]]\nname = \"a\"\nmodel = \"edu\"\ninterrupts = \"msix:2049\"\n", "1 to 2048"),
        ("[[device]]\nname = \"a\"\nmodel = \"edu\"\nirql = [3, 4]\n", "2 entries for 1 interrupts"),
        ("[[device]]\nname = \"a\"\nmodel = \"edu\"\nirql = 2\n", "from 3 to 12"),
        ("[[device]]\nname = \"a\"\nmodel = \"edu\"\naffinity = 0x100\n", "names no processor"),
        (&format!("{device}{device}"), "two devices are named `card`"),
        (&format!("{device}[driver]\nimage = \"a.sys\"\ndevice = \"cart\"\n"), "did you mean `card`?"),
        (&format!("{device}[[step]]\ndo = \"ioctrl\"\n"), "did you mean `ioctl`?"),
        (&format!("{device}[[step]]\ncode = 1\n"), "does not say what to do"),
        (&format!("{device}[[step]]\ndo = \"ioctl\"\n"), "`ioctl` needs a `code`"),
        (&format!("{device}[[step]]\ndo = \"raise\"\nsource = 1\n"), "has 1 sources"),
        (&format!("{device}[[step]]\ndo = \"wait\"\nfor = \"10\"\n"), "is not a time"),
        (&format!("{device}[[step]]\ndo = \"write\"\ninput = \"1\"\n"), "not whole bytes"),
        (
            &format!("{device}[[step]]\ndo = \"close\"\nexpect = {{ status = \"STATUS_SUCESS\" }}\n"),
            "STATUS_SUCCESS",
        ),
        (&format!("{device}[check.counters]\nisrs = 1\n"), "did you mean `isr`?"),
        (&format!("{device}[rules]\nR-X = \"loud\"\n"), "valid levels: off, advice, finding"),
    ];
    for (text, expected) in cases {
        let message = refused(text);
        assert!(message.contains(expected), "for {text:?} wanted {expected:?} in:\n{message}");
    }
}

#[test]
fn all_problems_are_told_at_once_in_order() {
    let message = refused("[machine]\ncpus = 0\nseeed = 1\n");
    assert_eq!(message.matches("error:").count(), 3, "{message}");
}

#[test]
fn repeats_are_bounded() {
    let device = "[[device]]\nname = \"card\"\nmodel = \"pulse\"\n";
    let mut inner = "{ do = \"raise\" }".to_owned();
    for _ in 0..4 {
        inner = format!("{{ do = \"repeat\", count = 1000000, steps = [{inner}] }}");
    }
    let text = format!("step = [{inner}]\n{device}");
    assert!(refused(&text).contains("more than 1000000 steps"), "{}", refused(&text));
}

#[test]
fn what_dirql_lacks_is_named_with_its_line() {
    let text = "[[device]]\nname = \"card\"\nmodel = \"uart16550\"\nbus = \"isa\"\nirq = [3, 4]\n[[library]]\nimage = \"Wdf01000.sys\"\n\
                [[step]]\ndo = \"wait\"\nfor = \"1 ms\"\nthread = \"t\"\n";
    let refusal = Lab::parse(text, None).expect_err("wait for two things");
    assert!(refusal.to_string().contains("waits for one thing"));
    let lab = Lab::parse(&text.replace("thread = \"t\"\n", ""), None).unwrap();
    let lacking: Vec<String> = lab.lacking().iter().map(ToString::to_string).collect();
    assert_eq!(
        lacking,
        [
            "line 1: this lab asks for an ISA device with more than one IRQ, which dirql does not have yet",
            "line 6: this lab asks for modules beside the kernel ([[library]]), which dirql does not have yet",
        ]
    );
}

#[test]
fn any_text_is_read_or_refused_without_a_panic() {
    // Every truncation, and every single byte replaced, of a lab that has everything.
    for cut in 0..FULL.len() {
        let _ = Lab::parse(&FULL[..cut], None).map_err(|e| e.to_string());
        for with in ["\"", "[", "9", "\u{fc}"] {
            let text = format!("{}{with}{}", &FULL[..cut], &FULL[cut + 1..]);
            let _ = Lab::parse(&text, None).map_err(|e| e.to_string());
        }
    }
}
