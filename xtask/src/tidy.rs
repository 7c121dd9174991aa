//! `cargo xtask tidy`: the house rules that no compiler checks. Every breach is listed, not only the first.

use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

use crate::run;

/// Every crate's floor. A crate may depend on lower floors only, so there are no cycles, and the kernel, on the
/// devices' floor, can't know a device.
const FLOORS: &[(&str, u8)] = &[
    ("dirql-core", 0),
    ("iointex", 0),
    ("dirql-abi", 0),
    ("dirql-mem", 0),
    ("dirql-event", 1),
    ("dirql-image", 1),
    ("dirql-x86", 2),
    ("dirql-machine", 3),
    ("dirql-devices", 4),
    ("dirql-kernel", 4),
    ("dirql-explore", 5),
    ("dirql-x86-native-test", 5),
    ("dirql", 6),
    ("dirql-cli", 7),
];

/// Folders whose crates may print.
const MAY_PRINT: &[&str] = &["crates/dirql-cli/", "xtask/"];

/// Checks every rule.
///
/// # Errors
///
/// The list of breaches.
pub(crate) fn tidy(root: &Path) -> Result<(), String> {
    let mut breaches = Vec::new();
    let crates = crates(root)?;
    for (folder, manifest) in &crates {
        floors(folder, manifest, &mut breaches);
        manifest_fields(folder, manifest, &mut breaches);
    }
    core_stands_alone(root, &crates, &mut breaches)?;
    for license in ["LICENSE-MIT", "LICENSE-APACHE"] {
        if !root.join(license).is_file() {
            breaches.push(format!("{license} is missing"));
        }
    }
    let files = tracked(root)?;
    for file in &files {
        let Ok(bytes) = fs::read(root.join(file)) else { continue };
        machine_paths(root, file, &bytes, &mut breaches);
        if file.ends_with(".rs") {
            source(file, &String::from_utf8_lossy(&bytes), &mut breaches);
        }
    }
    if breaches.is_empty() {
        println!("tidy: {} crates and {} files, nothing out of place", crates.len(), files.len());
        Ok(())
    } else {
        Err(format!("tidy: {} breaches\n  {}", breaches.len(), breaches.join("\n  ")))
    }
}

/// The crates of `crates/`, by folder name, with their manifests.
fn crates(root: &Path) -> Result<Vec<(String, Table)>, String> {
    let folder = root.join("crates");
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut manifests: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path().join("Cargo.toml"))
        .filter(|path| path.is_file())
        .collect();
    manifests.sort();
    let mut crates = Vec::new();
    for path in manifests {
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let manifest = text.parse::<Table>().map_err(|error| format!("{}: {error}", path.display()))?;
        let name = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        crates.push((name, manifest));
    }
    Ok(crates)
}

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor)
}

/// The names a manifest depends on to build: not those of its tests.
fn dependencies(manifest: &Table) -> Vec<&str> {
    let mut tables: Vec<&Table> = Vec::new();
    let kinds = ["dependencies", "build-dependencies"];
    tables.extend(kinds.iter().filter_map(|kind| manifest.get(*kind)?.as_table()));
    for target in
        manifest.get("target").and_then(|targets| targets.as_table()).into_iter().flat_map(Table::values)
    {
        tables.extend(kinds.iter().filter_map(|kind| target.get(*kind)?.as_table()));
    }
    tables.into_iter().flat_map(Table::keys).map(String::as_str).collect()
}

fn floors(folder: &str, manifest: &Table, breaches: &mut Vec<String>) {
    let Some(own) = floor(folder) else {
        breaches.push(format!("crates/{folder} has no floor: give it one in xtask/src/tidy.rs"));
        return;
    };
    for dependency in dependencies(manifest) {
        if let Some(below) = floor(dependency)
            && below >= own
        {
            breaches.push(format!("crates/{folder} (floor {own}) depends on {dependency} (floor {below})"));
        }
    }
}

fn manifest_fields(folder: &str, manifest: &Table, breaches: &mut Vec<String>) {
    let package = manifest.get("package").and_then(|package| package.as_table());
    let has = |key: &str| package.is_some_and(|package| package.contains_key(key));
    for key in ["description", "license", "rust-version"] {
        if !has(key) {
            breaches.push(format!("crates/{folder}/Cargo.toml: [package] has no {key}"));
        }
    }
    if package.and_then(|package| package.get("name")?.as_str()) != Some(folder) {
        breaches.push(format!("crates/{folder}/Cargo.toml: the package is not named after its folder"));
    }
    let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
    if inherits != Some(true) {
        breaches.push(format!("crates/{folder}/Cargo.toml: [lints] workspace = true is missing"));
    }
}

/// An operating system can use the interrupt core as it is: no dependencies, no std, no unsafe code.
fn core_stands_alone(
    root: &Path,
    crates: &[(String, Table)],
    breaches: &mut Vec<String>,
) -> Result<(), String> {
    let name = "dirql-core";
    for (folder, manifest) in crates {
        if folder == name {
            for dependency in dependencies(manifest) {
                breaches.push(format!("crates/{name} depends on {dependency}: it has no dependencies"));
            }
        }
    }
    let path = root.join("crates").join(name).join("src").join("lib.rs");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
        if !text.lines().any(|line| line.trim() == attribute) {
            breaches.push(format!("crates/{name}/src/lib.rs: {attribute} is missing"));
        }
    }
    Ok(())
}

/// The files that git tracks or would track.
fn tracked(root: &Path) -> Result<Vec<String>, String> {
    let list = run::output(root, "git", &["ls-files", "--cached", "--others", "--exclude-standard"])
        .ok_or("git ls-files failed: tidy needs a git work tree")?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// A path of somebody's machine says nothing on another's.
fn machine_paths(root: &Path, file: &str, bytes: &[u8], breaches: &mut Vec<String>) {
    let here = root.to_string_lossy();
    // A root as short as "/" or "/src" would be found anywhere.
    if here.len() > 8 && contains(bytes, here.as_bytes()) {
        breaches.push(format!("{file}: names the folder it was built in"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for (number, line) in text.lines().enumerate() {
        for folder in ["home", "Users", "root", "work", "tmp"] {
            let path = format!("/{folder}/");
            for (at, _) in line.match_indices(&path) {
                let before = line[..at].chars().next_back();
                let after = line[at + path.len()..].chars().next();
                // Part of a longer relative path or an address, or the folder named for itself: nobody's path.
                let starts = before.is_none_or(|c| !(c.is_alphanumeric() || "._-~/}$)*".contains(c)));
                if starts && after.is_some_and(|c| c.is_alphanumeric() || c == '.') {
                    breaches.push(format!("{file}:{}: a path of one machine", number + 1));
                }
            }
        }
    }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

fn source(file: &str, text: &str, breaches: &mut Vec<String>) {
    let may_print = MAY_PRINT.iter().any(|folder| file.starts_with(folder)) || !file.contains("/src/");
    let declares_unsafe =
        text.contains("expect(unsafe_code, reason") || text.contains("expect(\n    unsafe_code,");
    for (number, line) in text.lines().enumerate() {
        let code = code_of(line);
        let mut breach = |what: &str| breaches.push(format!("{file}:{}: {what}", number + 1));
        if words(&code).any(|(word, _)| word == "unsafe") && !declares_unsafe {
            breach("unsafe code in a file without #![expect(unsafe_code, reason = \"...\")]");
        }
        for (word, next) in words(&code) {
            if next != Some('!') {
                continue;
            }
            match word {
                "todo" | "unimplemented" => breach("left open: finish it or make it an honest error"),
                "dbg" => breach("dbg!"),
                "print" | "println" | "eprint" | "eprintln" if !may_print => {
                    breach("prints; only the command line does");
                }
                _ => {}
            }
        }
    }
}

/// A line without its line comment and the insides of its string literals. Line by line is enough for what is looked
/// for: it can be fooled only by strings of several lines.
fn code_of(line: &str) -> String {
    let mut code = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    let mut in_string = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => {
                chars.next();
            }
            '"' => {
                in_string = !in_string;
                code.push(c);
            }
            '\'' if !in_string && chars.peek() == Some(&'"') => {
                chars.next(); // the character literal of a quote
            }
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            _ if in_string => {}
            _ => code.push(c),
        }
    }
    code
}

/// The identifiers of a line, each with the character behind it.
fn words(code: &str) -> impl Iterator<Item = (&str, Option<char>)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(is_word)
        .filter(move |(at, _)| !code[..*at].chars().next_back().is_some_and(is_word))
        .map(move |(at, _)| {
            let rest = &code[at..];
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            (&rest[..end], rest[end..].chars().next())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches_of(file: &str, text: &str) -> Vec<String> {
        let mut breaches = Vec::new();
        source(file, text, &mut breaches);
        breaches
    }

    #[test]
    fn unsafe_code_needs_its_reason() {
        let code = "fn f() { unsafe { g() } }\n";
        assert_eq!(breaches_of("crates/dirql-mem/src/a.rs", code).len(), 1);
        let with = format!("#![expect(unsafe_code, reason = \"raw frames\")]\n{code}");
        assert!(breaches_of("crates/dirql-mem/src/a.rs", &with).is_empty());
        assert!(
            breaches_of("crates/dirql-mem/src/a.rs", "// unsafe\nlet a = \"unsafe\"; // unsafe\n").is_empty()
        );
        assert!(breaches_of("crates/dirql-mem/src/a.rs", "#![forbid(unsafe_code)]\n").is_empty());
    }

    #[test]
    fn only_the_command_line_prints() {
        let code = "println!(\"{}\", 1);\n";
        assert_eq!(breaches_of("crates/dirql/src/lib.rs", code).len(), 1);
        assert!(breaches_of("crates/dirql-cli/src/main.rs", code).is_empty());
        assert!(breaches_of("crates/dirql/tests/a.rs", code).is_empty());
        assert!(breaches_of("crates/dirql/src/lib.rs", "writeln!(f, \"println!\")?;\n").is_empty());
    }

    #[test]
    fn nothing_is_left_open() {
        assert_eq!(breaches_of("crates/dirql/tests/a.rs", "    todo!()\n    unimplemented!()\n").len(), 2);
    }

    #[test]
    fn floors_go_down_only() {
        let manifest = |text: &str| text.parse::<Table>().expect("a manifest");
        let mut breaches = Vec::new();
        floors("dirql-kernel", &manifest("[dependencies]\ndirql-devices.workspace = true\n"), &mut breaches);
        floors("dirql-mem", &manifest("[target.'cfg(unix)'.dependencies]\ndirql = \"1\"\n"), &mut breaches);
        floors("dirql-cellar", &manifest(""), &mut breaches);
        assert_eq!(breaches.len(), 3);
        breaches.clear();
        let good = "[dependencies]\ndirql-machine.workspace = true\nserde = \"1\"\n[dev-dependencies]\ndirql = \"1\"\n";
        floors("dirql-devices", &manifest(good), &mut breaches);
        assert!(breaches.is_empty());
    }

    #[test]
    fn a_path_of_one_machine_is_seen() {
        let seen = |text: &str| {
            let mut breaches = Vec::new();
            machine_paths(Path::new("/"), "README.md", text.as_bytes(), &mut breaches);
            breaches.len()
        };
        let home = format!("/{}/", "home");
        assert_eq!(seen(&format!("see {home}me/a.c")), 1);
        assert_eq!(seen(&format!("https://example.org{home}me and docs{home}me and {home}<user>")), 0);
    }
}
