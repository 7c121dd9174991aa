//! Running other programs.

use std::path::Path;
use std::process::Command;

/// Runs a program in `dir`, its output going where ours goes.
///
/// # Errors
///
/// When it can't be started or does not succeed; the text names the command.
pub(crate) fn run(dir: &Path, program: &str, args: &[&str]) -> Result<(), String> {
    let line = format!("{program} {}", args.join(" "));
    println!("\n$ {line}");
    match Command::new(program).args(args).current_dir(dir).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` failed: {status}")),
        Err(error) => Err(format!("`{line}` could not be started: {error}")),
    }
}

/// What a program prints, when it can be started and succeeds.
pub(crate) fn output(dir: &Path, program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).current_dir(dir).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
