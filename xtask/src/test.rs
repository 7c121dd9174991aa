//! `cargo xtask test`: the one test command. What it can't check here it says at the end of that step, and goes on
//! with the rest; it never passes over a failure.

use std::path::Path;

use crate::{drivers, run, sdk, tidy};

/// Runs every check, the workspace's own tests last, so that their result is what one sees.
pub(crate) fn test(root: &Path) -> Result<(), String> {
    let cargo = |args: &[&str]| run::run(root, "cargo", args);
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;

    println!("\n$ cargo xtask tidy");
    tidy::tidy(root)?;

    println!("\n$ cargo xtask drivers --check");
    if compilers(root) {
        drivers::check(root)?;
    } else {
        println!(
            "SKIPPED: the sample drivers are tested as committed, not rebuilt. To check them: {}",
            drivers::INSTALL
        );
    }

    println!("\n$ cargo xtask sdk --check");
    match sdk::lacking(root) {
        None => sdk::check(root)?,
        Some(why) => println!("SKIPPED: the Iointex libraries are used as committed, not rebuilt: {why}"),
    }

    if registry(root) {
        cargo(&["publish", "--dry-run", "--allow-dirty", "-p", "dirql-core"])?;
    } else {
        println!("\nSKIPPED: the crate registry can't be reached, so packaging of dirql-core is not checked");
    }

    cargo(&["test", "--workspace"])
}

/// Whether the drivers' compilers are there, after installing it where that needs nobody's leave: as root on Debian or Ubuntu.
fn compilers(root: &Path) -> bool {
    if drivers::toolchain(root).is_some() {
        return true;
    }
    let packages = ["gcc-mingw-w64-x86-64", "clang", "lld"];
    let is_root = run::output(root, "id", &["-u"]).is_some_and(|id| id.trim() == "0");
    let has_apt = run::output(root, "apt-get", &["--version"]).is_some();
    if !(is_root && has_apt) {
        return false;
    }
    println!("installing {} (the compilers of the sample drivers)", packages.join(", "));
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(packages);
    let installed =
        run::run(root, "apt-get", &["update", "-qq"]).and_then(|()| run::run(root, "apt-get", &install));
    if let Err(why) = installed {
        println!("{why}");
    }
    drivers::toolchain(root).is_some()
}

/// Whether cargo can reach its registry.
fn registry(root: &Path) -> bool {
    run::output(root, "cargo", &["info", "--quiet", "--registry", "crates-io", "cfg-if"]).is_some()
}
