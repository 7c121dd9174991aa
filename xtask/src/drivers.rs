//! `cargo xtask drivers`: the sample drivers, from C to .sys, with mingw-w64, and with clang where they use `__try`.
//!
//! The .sys files are committed, so that nobody needs a C compiler to use or test dirql. The same compiler makes the
//! same bytes: `--check` proves that the committed files come from the committed sources. `drivers/TOOLCHAIN` names
//! the compilers.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run;

const CC: &str = "x86_64-w64-mingw32-gcc";
const LD: &str = "x86_64-w64-mingw32-ld";

/// For drivers with `__try`, which gcc has not: clang and its linker, with mingw-w64's headers and import libraries.
const CLANG: &str = "clang";
const LLD: &str = "lld-link";

/// What to do where there is no clang.
const INSTALL_CLANG: &str = "install clang and lld (Debian and Ubuntu: apt-get install clang lld)";

/// What to do where there is no mingw-w64.
pub(crate) const INSTALL: &str = "install mingw-w64 for x86-64 (Debian and Ubuntu: apt-get install gcc-mingw-w64-x86-64; \
     Fedora: dnf install mingw64-gcc; macOS: brew install mingw-w64)";

/// The flags of every driver. No C runtime, an entry point of our own, relocatable, and nothing in the file that
/// depends on the day or the place of the build. `-gdwarf-4 -g1`: functions and lines, which findings show.
const FLAGS: &[&str] = &[
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-Wno-cast-function-type",
    "-Werror",
    "-ffreestanding",
    "-mno-stack-arg-probe",
    "-gdwarf-4",
    "-g1",
    "-Icommon",
    "-Iinclude",
    "-I../sdk/include",
    "-nostdlib",
    "-Wl,--subsystem,native",
    "-Wl,--entry,DriverEntry",
    "-Wl,--image-base,0x140000000",
    "-Wl,--dynamicbase",
    "-Wl,--nxcompat",
    "-Wl,--no-insert-timestamp",
    "-Wl,--build-id=none",
];

/// The flags of a driver built by clang; to the same ends.
const CLANG_FLAGS: &[&str] = &[
    "--target=x86_64-w64-windows-gnu",
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-Wno-ignored-attributes",
    "-Wno-infinite-recursion",
    "-Werror",
    "-ffreestanding",
    "-fasynchronous-unwind-tables",
    "-fms-extensions",
    "-mno-stack-arg-probe",
    "-gdwarf-4",
    "-gline-tables-only",
    "-c",
];

/// The linker's flags of such a driver.
const LLD_FLAGS: &[&str] = &[
    "-lldmingw",
    "/driver",
    "/subsystem:native",
    "/entry:DriverEntry",
    "/base:0x140000000",
    "/dynamicbase",
    "/nxcompat",
    "/timestamp:0",
    "/debug:dwarf",
];

/// A driver's name (its .sys file without the ending, from `drivers/`), sources and libraries among them.
struct Driver {
    name: &'static str,
    sources: &'static [&'static str],
    with: With,
    /// Compiled with FIXED: the corrected twin of a bug driver.
    fixed: bool,
}

/// What builds a driver.
#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    Gcc,
    Clang,
}

/// A driver that gcc builds.
const fn gcc(name: &'static str, sources: &'static [&'static str]) -> Driver {
    Driver { name, sources, with: With::Gcc, fixed: false }
}

/// A driver of one source that clang builds.
const fn clang(name: &'static str, sources: &'static [&'static str]) -> Driver {
    Driver { name, sources, with: With::Clang, fixed: false }
}

const FDO: &str = "common/fdo.c";
const IOINTEX: &str = "../sdk/lib/x64/libiointex.a";

const DRIVERS: &[Driver] = &[
    gcc("conformance", &["conformance/conformance.c", FDO]),
    gcc("edu", &["edu/edu.c", FDO]),
    gcc("iointex", &["iointex/iointex.c", FDO, IOINTEX]),
    gcc("legacy", &["legacy/legacy.c", FDO]),
    gcc("pulse", &["pulse/pulse.c", FDO]),
    gcc("ring", &["ring/ring.c", FDO]),
    gcc("shared", &["shared/shared.c", FDO]),
    gcc("uart", &["uart/uart.c", FDO]),
    gcc("tests/bugcheck", &["tests/bugcheck.c", FDO]),
    gcc("tests/entryfail", &["tests/entryfail.c"]),
    gcc("tests/exports_hal", &["tests/exports_hal.c", FDO]),
    gcc("tests/exports_io", &["tests/exports_io.c", FDO]),
    gcc("tests/exports_registry", &["tests/exports_registry.c", FDO]),
    gcc("tests/exports_rtl", &["tests/exports_rtl.c", FDO]),
    gcc("tests/forever", &["tests/forever.c", FDO]),
    gcc("tests/leak", &["tests/leak.c", FDO]),
    gcc("tests/missing", &["tests/missing.c"]),
    gcc("tests/nullderef", &["tests/nullderef.c", FDO]),
    clang("tests/seh", &["tests/seh.c"]),
    gcc("tests/startfail", &["tests/startfail.c", FDO]),
    gcc("tests/stops", &["tests/stops.c", FDO]),
];

/// A driver of `drivers/bugs/` and its corrected twin, of one source.
macro_rules! bug {
    ($name:literal) => {{
        let sources: &[&str] = &[concat!("bugs/", $name, ".c")];
        [
            gcc(concat!("bugs/", $name), sources),
            Driver { fixed: true, ..gcc(concat!("bugs/", $name, "-fixed"), sources) },
        ]
    }};
}

const BUGS: &[[Driver; 2]] = &[
    bug!("ack-all"),
    bug!("cancel-complete"),
    bug!("cause-slot"),
    bug!("cause-test-clear"),
    bug!("dpc-arguments"),
    bug!("dpc-disconnect"),
    bug!("dpc-order"),
    bug!("dpc-remove-running"),
    bug!("dpc-two-cpus"),
    bug!("enable-before-connect"),
    bug!("enable-rmw"),
    bug!("event-reset-late"),
    bug!("flush-early"),
    bug!("init-late"),
    bug!("isr-waits-dpc"),
    bug!("list-check-act"),
    bug!("lock-no-raise"),
    bug!("lock-order"),
    bug!("lost-update-messages"),
    bug!("lost-update-thread"),
    bug!("pend-check"),
    bug!("poll-recheck"),
    bug!("power-dpc"),
    bug!("publish-late"),
    bug!("queue-unlocked"),
    bug!("refcount-drop"),
    bug!("ring-publish"),
    bug!("shared-claim"),
    bug!("stop-flag-free"),
    bug!("stop-inflight"),
    bug!("surprise-ones"),
    bug!("sync-irql"),
    bug!("sync-one-message"),
    bug!("timer-cancel"),
    bug!("timer-rearm"),
    bug!("torn-pair"),
    bug!("torn-reread"),
    bug!("torn-version"),
];

/// Every driver.
fn every() -> impl Iterator<Item = &'static Driver> {
    DRIVERS.iter().chain(BUGS.iter().flatten())
}

/// The lab of a corrected twin: that of the driver with the defect, with the other image.
fn twin_lab(drivers: &Path, pair: &[Driver; 2]) -> Result<(PathBuf, String), String> {
    let [bug, fixed] = pair;
    let path = drivers.join(format!("{}.toml", bug.name));
    let lab = String::from_utf8(read(&path)?).map_err(|error| format!("{}: {error}", path.display()))?;
    let image = |driver: &Driver| format!("{}.sys", driver.name.trim_start_matches("bugs/"));
    let (from, to) = (image(bug), image(fixed));
    let text = format!("# By `cargo xtask drivers` from the lab of {from}.\n{}", lab.replace(&from, &to));
    Ok((drivers.join(format!("{}.toml", fixed.name)), text))
}

/// The compilers and linkers at hand, as `drivers/TOOLCHAIN` records them; `None` when one is missing.
pub(crate) fn toolchain(root: &Path) -> Option<String> {
    let mut text = String::new();
    for program in [CC, LD, CLANG, LLD] {
        text.push_str(run::output(root, program, &["--version"])?.lines().next()?.trim());
        text.push('\n');
    }
    Some(text)
}

/// Builds every driver into `drivers/` and records the compiler.
pub(crate) fn build(root: &Path) -> Result<(), String> {
    let toolchain =
        toolchain(root).ok_or_else(|| format!("no {CC} or no {CLANG}: {INSTALL}; {INSTALL_CLANG}"))?;
    let drivers = root.join("drivers");
    for driver in every() {
        // Through target/: the linker marks its output executable, which these are not, here.
        let built = built(root, driver)?;
        compile(&drivers, driver, &built)?;
        let to = committed(&drivers, driver);
        fs::write(&to, read(&built)?).map_err(|error| format!("{}: {error}", to.display()))?;
        println!("drivers/{}.sys", driver.name);
    }
    for pair in BUGS {
        let (path, lab) = twin_lab(&drivers, pair)?;
        fs::write(&path, lab).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    match rust::toolchain(root) {
        Ok(here) => {
            let name = format!("{}.sys", rust::NAME);
            let built = root.join("target").join("drivers").join(&name);
            rust::compile(root, &built)?;
            for (to, bytes) in
                [(drivers.join(name), read(&built)?), (drivers.join(rust::RECORD), here.into_bytes())]
            {
                fs::write(&to, bytes).map_err(|error| format!("{}: {error}", to.display()))?;
            }
        }
        Err(why) => println!("SKIPPED: drivers/{}.sys stays as it is: {why}", rust::NAME),
    }
    let record = drivers.join("TOOLCHAIN");
    fs::write(&record, toolchain).map_err(|error| format!("{}: {error}", record.display()))
}

/// Builds every driver into `target/drivers/` and compares the bytes with the committed ones, when the compiler is the
/// recorded one. With another only that they build is checked, and said.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let toolchain =
        toolchain(root).ok_or_else(|| format!("no {CC} or no {CLANG}: {INSTALL}; {INSTALL_CLANG}"))?;
    let drivers = root.join("drivers");
    let recorded = read(&drivers.join("TOOLCHAIN"))?;
    let same = recorded == toolchain.as_bytes();
    let mut differing = Vec::new();
    for driver in every() {
        let built = built(root, driver)?;
        compile(&drivers, driver, &built)?;
        if same && read(&built)? != read(&committed(&drivers, driver))? {
            differing.push(driver.name);
        }
    }
    check_rust(root, same)?;
    for pair in BUGS {
        let (path, lab) = twin_lab(&drivers, pair)?;
        if read(&path)? != lab.as_bytes() {
            differing.push(pair[1].name);
        }
    }
    let count = every().count();
    if !differing.is_empty() {
        return Err(format!(
            "the committed .sys or lab is not what its source makes: {}; run `cargo xtask drivers` and commit the result",
            differing.join(", ")
        ));
    }
    if same {
        println!("drivers: {count} built, each byte for byte the committed one");
    } else {
        println!(
            "drivers: {count} built; NOT compared with the committed ones, which another compiler made\n  here:     {}\n  recorded: {}",
            toolchain.trim().replace('\n', " / "),
            String::from_utf8_lossy(&recorded).trim().replace('\n', " / ")
        );
    }
    Ok(())
}

/// Where a driver is built, its folder made.
fn built(root: &Path, driver: &Driver) -> Result<PathBuf, String> {
    let path = root.join("target").join("drivers").join(format!("{}.sys", driver.name));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    Ok(path)
}

fn committed(drivers: &Path, driver: &Driver) -> PathBuf {
    drivers.join(format!("{}.sys", driver.name))
}

/// The driver in Rust: its object code by rustc, a .sys of it by the C compiler's linker.
mod rust {
    use std::path::Path;

    use crate::{run, sdk};

    /// The driver's name.
    pub(super) const NAME: &str = "pulse-rs";

    /// The compiler that made the committed file, which is not that of the C drivers.
    pub(super) const RECORD: &str = "pulse-rs/TOOLCHAIN";

    /// The compiler at hand, or why there is none for the target.
    pub(super) fn toolchain(root: &Path) -> Result<String, String> {
        sdk::lacking(root).map_or_else(|| sdk::compiler(root).ok_or_else(|| "no rustc".into()), Err)
    }

    /// Builds it.
    pub(super) fn compile(root: &Path, to: &Path) -> Result<(), String> {
        let drivers = root.join("drivers");
        let library = to.with_extension("a");
        let (to, library) = (to.display().to_string(), library.display().to_string());
        let map = format!("--remap-path-prefix={}=drivers", drivers.display());
        run::run(
            &drivers,
            "rustc",
            &[
                "--edition=2024",
                "--target=x86_64-pc-windows-gnu",
                "--crate-type=staticlib",
                "--crate-name=pulse_rs",
                "-Dwarnings",
                "-Dunsafe-code",
                "-Copt-level=s",
                "-Cpanic=abort",
                "-Ccodegen-units=1",
                "-Cdebuginfo=0",
                "-Cmetadata=pulse_rs",
                &map,
                "-o",
                &library,
                "pulse-rs/pulse.rs",
            ],
        )?;
        run::run(
            &drivers,
            super::CC,
            &[
                "-shared",
                "-nostdlib",
                "-nostartfiles",
                "-Wl,--subsystem,native",
                "-Wl,--entry,DriverEntry",
                "-Wl,-u,DriverEntry",
                "-Wl,--image-base,0x140000000",
                "-Wl,--dynamicbase",
                "-Wl,--nxcompat",
                "-Wl,--gc-sections",
                "-Wl,--exclude-all-symbols",
                "-Wl,--no-insert-timestamp",
                "-Wl,--build-id=none",
                "-Wl,-s",
                "-o",
                &to,
                &library,
                "-lntoskrnl",
            ],
        )
    }
}

/// Checks the driver in Rust as the others are; where Rust can't be had for its target, says so.
fn check_rust(root: &Path, same_linker: bool) -> Result<(), String> {
    let here = match rust::toolchain(root) {
        Ok(here) => here,
        Err(why) => {
            println!("SKIPPED: drivers/{}.sys is tested as committed, not rebuilt: {why}", rust::NAME);
            return Ok(());
        }
    };
    let to = root.join("target").join("drivers").join(format!("{}.sys", rust::NAME));
    rust::compile(root, &to)?;
    let drivers = root.join("drivers");
    if !same_linker || read(&drivers.join(rust::RECORD))? != here.as_bytes() {
        println!(
            "drivers: {} built; NOT compared with the committed one, which another compiler made",
            rust::NAME
        );
    } else if read(&to)? != read(&drivers.join(format!("{}.sys", rust::NAME)))? {
        return Err(format!(
            "the committed {}.sys is not what its source makes; run `cargo xtask drivers` and commit the result",
            rust::NAME
        ));
    }
    Ok(())
}

fn compile(drivers: &Path, driver: &Driver, to: &Path) -> Result<(), String> {
    // The compiler's working directory would be written into the debug information.
    let map = format!("-ffile-prefix-map={}=drivers", drivers.display());
    let text = |path: &Path| path.display().to_string();
    if driver.with == With::Gcc {
        let mut args: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
        if driver.fixed {
            args.push("-DFIXED".into());
        }
        args.extend([map, "-o".into(), text(to)]);
        args.extend(driver.sources.iter().map(ToString::to_string));
        args.extend(["-lntoskrnl".into(), "-lhal".into()]);
        return invoke(drivers, driver, CC, &args);
    }
    let library = PathBuf::from(
        run::output(drivers, CC, &["-print-file-name=libntoskrnl.a"])
            .ok_or_else(|| format!("no {CC}: {INSTALL}"))?
            .trim(),
    );
    // ../lib/libntoskrnl.a beside ../include/ddk, as every mingw-w64 lays them out.
    let library = fs::canonicalize(&library).map_err(|error| format!("{}: {error}", library.display()))?;
    let headers = library
        .parent()
        .and_then(Path::parent)
        .ok_or_else(|| format!("{} is not where mingw-w64 puts it", library.display()))?
        .join("include");
    let object = to.with_extension("o");
    let mut args: Vec<String> = CLANG_FLAGS.iter().map(ToString::to_string).collect();
    for folder in [headers.clone(), headers.join("ddk")] {
        args.extend(["-isystem".into(), text(&folder)]);
    }
    let headers = format!("-ffile-prefix-map={}=include", headers.display());
    args.extend([map, headers, "-o".into(), text(&object)]);
    args.extend(driver.sources.iter().map(ToString::to_string));
    invoke(drivers, driver, CLANG, &args)?;
    let mut args: Vec<String> = LLD_FLAGS.iter().map(ToString::to_string).collect();
    args.extend([format!("/out:{}", text(to)), text(&object), text(&library)]);
    invoke(drivers, driver, LLD, &args)
}

fn invoke(drivers: &Path, driver: &Driver, program: &str, args: &[String]) -> Result<(), String> {
    let output = std::process::Command::new(program)
        .args(args)
        .current_dir(drivers)
        .output()
        .map_err(|error| format!("{program} could not be started: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Err(format!("{} does not build with {program}:\n{out}{err}", driver.name))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
