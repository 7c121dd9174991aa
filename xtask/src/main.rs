//! Chores of the workspace: `cargo xtask <chore>`. Each module is one chore and says what it does.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]

mod coverage;
mod drivers;
mod picture;
mod run;
mod sdk;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <chore>

  test               everything that must hold: sets up, then format, lints, tidy, drivers, tests, packaging
  drivers            build the sample drivers of drivers/ with mingw-w64 and put them beside their labs
  drivers --check    build them elsewhere and compare with the committed ones, byte for byte
  sdk                build the Iointex libraries of sdk/lib
  sdk --check        build them elsewhere and compare; build dirql-core for a target without an operating system
  coverage [n]       the share of real drivers' imports that is implemented, and the n most wanted that are missing
  picture            draw docs/img/run.svg from a real run
  tidy               the house rules that no compiler checks
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root();
    let done = match args.as_slice() {
        ["test"] => test::test(&root),
        ["drivers"] => drivers::build(&root),
        ["drivers", "--check"] => drivers::check(&root),
        ["sdk"] => sdk::build(&root),
        ["sdk", "--check"] => sdk::lacking(&root).map_or_else(|| sdk::check(&root), Err),
        ["coverage"] => coverage::coverage(&root, 40),
        ["coverage", n] => {
            n.parse().map_err(|_| format!("`{n}` is not a number")).and_then(|n| coverage::coverage(&root, n))
        }
        ["picture"] => picture::draw(&root),
        ["tidy"] => tidy::tidy(&root),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => Err(format!("no such chore: {}\n\n{USAGE}", args.join(" "))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root: this crate's parent folder.
fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}
