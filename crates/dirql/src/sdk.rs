//! The files of an SDK: what a driver needs, beside a compiler and its DDK headers, to be built on any system.

use dirql_image::archive::{ExportedSymbol, import_library};
use dirql_kernel::loader;

/// A file of the SDK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdkFile {
    /// Where it goes, relative to the SDK's folder, with `/`.
    pub path: &'static str,
    /// Its contents.
    pub data: Vec<u8>,
}

/// Which of the exports the HAL of x64 has, where the kernel has not: a driver that takes them from `ntoskrnl.exe` does
/// not load on every Windows. Fewer than the documentation's pages name, which speak of x86 as well.
const HAL: &[&str] = &[
    "HalAllocateCommonBuffer",
    "HalFreeCommonBuffer",
    "HalGetAdapter",
    "HalGetBusData",
    "HalGetBusDataByOffset",
    "HalReadDmaCounter",
    "HalSetBusData",
    "HalSetBusDataByOffset",
    "HalTranslateBusAddress",
    "IoFlushAdapterBuffers",
    "IoFreeAdapterChannel",
    "IoFreeMapRegisters",
    "IoMapTransfer",
    "KeQueryPerformanceCounter",
    "KeStallExecutionProcessor",
];

/// Names that the kernel gives itself, or that only a linked library may define.
const NOT_OURS_TO_OFFER: &[&str] = &["Halp", "Iop", "Wdmlib", "_guard_"];

macro_rules! committed {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../../sdk/", $path)) as &[u8])),*]
    };
}

/// The files that are the same for every dirql of a version.
const COMMITTED: &[(&str, &[u8])] = committed![
    "README.md",
    "include/iointex.h",
    "lib/x64/iointex.lib",
    "lib/x64/libiointex.a",
    "lib/x86/iointex.lib",
    "lib/x86/libiointex.a",
];

/// All files: the header, the Iointex libraries, and import libraries of what this dirql exports, so that what links
/// with them runs here.
#[must_use]
pub fn files() -> Vec<SdkFile> {
    let mut files: Vec<SdkFile> =
        COMMITTED.iter().map(|&(path, data)| SdkFile { path, data: data.to_vec() }).collect();
    let offered = |name: &str| !NOT_OURS_TO_OFFER.iter().any(|prefix| name.starts_with(prefix));
    let (hal, nt): (Vec<_>, Vec<_>) = loader::implemented_exports()
        .into_iter()
        .filter(|(name, _)| offered(name))
        .map(|(name, irql)| ExportedSymbol { name, data: irql.is_none() })
        .partition(|export| HAL.contains(&export.name));
    let nt = import_library("ntoskrnl.exe", &nt);
    let hal = import_library("HAL.dll", &hal);
    for (path, data) in [
        ("lib/x64/ntoskrnl.lib", &nt),
        ("lib/x64/libntoskrnl.a", &nt),
        ("lib/x64/hal.lib", &hal),
        ("lib/x64/libhal.a", &hal),
    ] {
        files.push(SdkFile { path, data: data.clone() });
    }
    files.sort_by_key(|file| file.path);
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_libraries_hold_what_there_is_and_no_more() {
        let files = files();
        let has = |path: &str, symbol: &str| {
            let file = files.iter().find(|f| f.path == path).unwrap();
            // The index, which is what a linker looks in: a count, that many offsets, and the names.
            let index = &file.data[8 + 60..];
            let count = u32::from_be_bytes(index[..4].try_into().unwrap()) as usize;
            index[4 + 4 * count..].split(|b| *b == 0).take(count).any(|name| name == symbol.as_bytes())
        };
        assert!(has("lib/x64/ntoskrnl.lib", "IoConnectInterruptEx"));
        assert!(has("lib/x64/libntoskrnl.a", "__imp_KeNumberProcessors"));
        assert!(!has("lib/x64/ntoskrnl.lib", "KeNumberProcessors"), "a variable has no thunk");
        assert!(!has("lib/x64/ntoskrnl.lib", "WdmlibIoConnectInterruptEx"));
        assert!(!has("lib/x64/ntoskrnl.lib", "KeQueryPerformanceCounter"));
        assert!(has("lib/x64/hal.lib", "KeQueryPerformanceCounter"));
        assert!(has("lib/x86/iointex.lib", "_WdmlibIoConnectInterruptEx@4"));
    }
}
