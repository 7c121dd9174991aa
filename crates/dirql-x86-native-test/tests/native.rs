//! The engine against the host's processor.
#![allow(clippy::print_stderr, reason = "tells what a long run did, and why one can't")]
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use dirql_x86_native_test::{case, compare, engine::Engine, forms::Forms, native};
use std::collections::BTreeMap;

const BATCH: u64 = 8192;

/// `DIRQL_NATIVE_CASES` sets how many cases are run; `DIRQL_NATIVE_SEED` makes others of them.
#[test]
fn instructions_do_what_the_processor_does() {
    if !native::available() {
        eprintln!("this host's processor lacks an instruction set under test; see the recorded vectors");
        return;
    }
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let total = number("DIRQL_NATIVE_CASES", 1_000_000);
    let seed = number("DIRQL_NATIVE_SEED", 1);
    let forms = Forms::find();
    let mut lacking: BTreeMap<String, u64> = BTreeMap::new();
    let mut wrong: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut n = 0;
    while n < total {
        let (cases, instructions): (Vec<_>, Vec<_>) =
            (n..(n + BATCH).min(total)).map(|k| case::make(&forms, k, seed)).unzip();
        n += cases.len() as u64;
        // Both sides start a batch with empty memory.
        let mut engine = Engine::default();
        let host = native::run(&cases).expect("the child that runs the cases ended by itself");
        for ((case, i), host) in cases.iter().zip(&instructions).zip(&host) {
            match engine.run(case) {
                Err(text) => *lacking.entry(format!("{:?} ({text})", i.mnemonic())).or_default() += 1,
                Ok(state) => {
                    if let Some(text) = compare::difference(case, i, host, &state) {
                        wrong.entry(format!("{:?}", i.mnemonic())).or_insert((0, text)).0 += 1;
                    }
                }
            }
        }
    }
    eprintln!("{n} cases of {} encodings", forms.encodings());
    for (name, count) in &lacking {
        eprint!("lacking {name} {count}; ");
    }
    eprintln!();
    for (name, (count, text)) in &wrong {
        eprintln!("{name}: {count} differ, e.g. {text}");
    }
    assert!(wrong.is_empty(), "{} mnemonics differ from the processor", wrong.len());
    assert!(lacking.is_empty(), "the engine lacks {:?}", lacking.keys());
}
