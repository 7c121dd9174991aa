//! `cargo xtask sdk`: the Iointex libraries of `sdk/lib`, from crates/iointex.
//!
//! They are committed, so that a driver can be built with nothing but a C compiler. A library is one object file, made
//! by the same compiler from the same source to the same bytes; `sdk/lib/TOOLCHAIN` names that compiler. It is checked
//! to refer to the kernel's routines alone: nothing of Rust's own, so nothing that could panic.

use std::fs;
use std::path::{Path, PathBuf};

use dirql_image::archive::{Member, archive};

use crate::run;

/// What Rust is built for besides the host, and what for.
const TARGETS: &[&str] = &["x86_64-pc-windows-gnu", "i686-pc-windows-msvc", "x86_64-unknown-none"];

/// What to do where a target is missing.
const INSTALL: &str =
    "run `rustup target add x86_64-pc-windows-gnu i686-pc-windows-msvc x86_64-unknown-none`";

/// A library: its target, folder under `sdk/lib` and the names it takes from the kernel.
struct Library {
    target: &'static str,
    folder: &'static str,
    takes: &'static [&'static str],
    gives: &'static [&'static str],
}

/// x86 is built for MSVC because its linker wants `/SAFESEH` objects; the calling conventions are the same.
const LIBRARIES: &[Library] = &[
    Library {
        target: "x86_64-pc-windows-gnu",
        folder: "x64",
        takes: &["IoConnectInterrupt", "IoDisconnectInterrupt", "MmGetSystemRoutineAddress"],
        gives: &[
            "WdmlibIoConnectInterruptEx",
            "WdmlibIoDisconnectInterruptEx",
            "WdmlibIoGetAffinityInterrupt",
        ],
    },
    Library {
        target: "i686-pc-windows-msvc",
        folder: "x86",
        takes: &["_IoConnectInterrupt@44", "_IoDisconnectInterrupt@4", "_MmGetSystemRoutineAddress@4"],
        gives: &[
            "_WdmlibIoConnectInterruptEx@4",
            "_WdmlibIoDisconnectInterruptEx@4",
            "_WdmlibIoGetAffinityInterrupt@8",
        ],
    },
];

/// GNU's name and Microsoft's, of the same bytes: both linkers read the format.
const NAMES: &[&str] = &["libiointex.a", "iointex.lib"];

/// Why nothing can be built for the targets here, after asking rustup for them; `None` when it can.
pub(crate) fn lacking(root: &Path) -> Option<String> {
    let installed = || {
        let list = run::output(root, "rustup", &["target", "list", "--installed"])?;
        Some(TARGETS.iter().all(|target| list.lines().any(|line| line == *target)))
    };
    match installed() {
        None => return Some("no rustup here, which has Rust for other targets".into()),
        Some(true) => return None,
        Some(false) => {}
    }
    let args: Vec<&str> = ["target", "add"].iter().chain(TARGETS).copied().collect();
    if let Err(why) = run::run(root, "rustup", &args) {
        println!("{why}");
    }
    (installed() != Some(true)).then(|| INSTALL.to_owned())
}

/// The compiler at hand, as `sdk/lib/TOOLCHAIN` records it.
pub(crate) fn compiler(root: &Path) -> Option<String> {
    run::output(root, "rustc", &["--version"])
}

/// Builds the libraries into `sdk/lib` and records the compiler.
pub(crate) fn build(root: &Path) -> Result<(), String> {
    if let Some(why) = lacking(root) {
        return Err(why);
    }
    let lib = root.join("sdk").join("lib");
    for library in LIBRARIES {
        let bytes = made(root, library)?;
        for name in NAMES {
            let to = lib.join(library.folder).join(name);
            write(&to, &bytes)?;
            println!("sdk/lib/{}/{name}: {} bytes", library.folder, bytes.len());
        }
    }
    write(&lib.join("TOOLCHAIN"), compiler(root).ok_or("no rustc")?.as_bytes())
}

/// Builds the libraries elsewhere and compares, when the compiler is the recorded one; and builds the interrupt core
/// for a target without an operating system, which shows that it needs none.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    run::run(root, "cargo", &["build", "-p", "dirql-core", "--target", "x86_64-unknown-none"])?;
    let lib = root.join("sdk").join("lib");
    let recorded = String::from_utf8_lossy(&read(&lib.join("TOOLCHAIN"))?).into_owned();
    let same = compiler(root).is_some_and(|here| here == recorded);
    for library in LIBRARIES {
        let bytes = made(root, library)?;
        for name in NAMES {
            if same && read(&lib.join(library.folder).join(name))? != bytes {
                return Err(format!(
                    "sdk/lib/{}/{name} is not what crates/iointex makes; run `cargo xtask sdk` and commit the result",
                    library.folder
                ));
            }
        }
    }
    if same {
        println!("sdk: {} libraries built, byte for byte the committed ones", LIBRARIES.len());
    } else {
        println!("sdk: built; NOT compared with the committed libraries, which {} made", recorded.trim());
    }
    Ok(())
}

/// A library's bytes, built and examined.
fn made(root: &Path, library: &Library) -> Result<Vec<u8>, String> {
    let object = object(root, library.target)?;
    examine(&object, library)?;
    let symbols = library.gives.iter().map(ToString::to_string).collect();
    Ok(archive(&[Member { name: "iointex.o".into(), data: object, symbols }]))
}

/// The crate as one object file.
fn object(root: &Path, target: &str) -> Result<Vec<u8>, String> {
    let folder = root.join("target").join("sdk");
    let to = folder.join(format!("{target}.o"));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let output = std::process::Command::new("rustc")
        .args(["--crate-name", "iointex", "--crate-type", "rlib", "--edition", "2024", "--target", target])
        .args(["--emit", "obj", "-Copt-level=s", "-Cpanic=abort", "-Ccodegen-units=1", "-Cdebuginfo=0"])
        .args(["-Cmetadata=iointex", "-Cembed-bitcode=no"])
        .arg(format!("--remap-path-prefix={}=", root.display()))
        .arg("-o")
        .arg(&to)
        .arg("crates/iointex/src/lib.rs")
        .env_remove("RUSTFLAGS")
        .current_dir(root)
        .output()
        .map_err(|error| format!("rustc could not be started: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "iointex does not build for {target}:\n{}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    read(&to)
}

/// Checks what an object defines and needs.
fn examine(object: &[u8], library: &Library) -> Result<(), String> {
    use object::{Object, ObjectSymbol};
    let file =
        object::File::parse(object).map_err(|error| format!("iointex for {}: {error}", library.target))?;
    let mut takes: Vec<&str> =
        file.symbols().filter(ObjectSymbol::is_undefined).filter_map(|symbol| symbol.name().ok()).collect();
    takes.sort_unstable();
    if takes != library.takes {
        return Err(format!(
            "iointex for {} refers to {takes:?}; it may to {:?}",
            library.target, library.takes
        ));
    }
    let gives: Vec<&str> =
        file.symbols().filter(|s| s.is_global() && s.is_definition()).filter_map(|s| s.name().ok()).collect();
    match library.gives.iter().find(|name| !gives.contains(name)) {
        Some(name) => Err(format!("iointex for {} lacks {name}", library.target)),
        None => Ok(()),
    }
}

fn write(to: &PathBuf, bytes: &[u8]) -> Result<(), String> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    fs::write(to, bytes).map_err(|error| format!("{}: {error}", to.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
