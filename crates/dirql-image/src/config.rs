//! Load configuration, version resource and debug directory.

use crate::{Image, ImageError, bytes, headers::Directory};
use object::{LittleEndian as LE, pe};
use std::ops::Range;

/// What the load configuration tells a loader. Addresses are RVAs; `None` where the image has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadConfig {
    /// The stack cookie, which the loader gives a value other than the linker's default.
    pub security_cookie_rva: Option<u32>,
    /// The pointer to the routine that checks an indirect call's target.
    pub guard_cf_check_function_pointer_rva: Option<u32>,
    /// The pointer to the routine that checks and makes an indirect call.
    pub guard_cf_dispatch_function_pointer_rva: Option<u32>,
    /// As the check pointer, for calls whose type is checked too (XFG).
    pub guard_xfg_check_function_pointer_rva: Option<u32>,
    /// As the dispatch pointer, for calls whose type is checked too.
    pub guard_xfg_dispatch_function_pointer_rva: Option<u32>,
    /// As the dispatch pointer, for calls through a table whose type is checked too.
    pub guard_xfg_table_dispatch_function_pointer_rva: Option<u32>,
    /// The table of valid indirect call targets.
    pub guard_cf_function_table_rva: Option<u32>,
    /// Entries in that table.
    pub guard_cf_function_count: u64,
    /// `IMAGE_GUARD_*`; 0x100 means instrumented.
    pub guard_flags: u32,
}

/// Where resources are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// The resource directory, as an RVA range.
    pub directory: Range<u32>,
    /// The first version resource (VS_VERSIONINFO), as an RVA range.
    pub version_info: Option<Range<u32>>,
}

/// The CodeView record that names the symbol file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pdb {
    /// The path the linker wrote.
    pub path: String,
    /// The GUID that the PDB must carry, as in memory.
    pub guid: [u8; 16],
    /// The age that goes with it.
    pub age: u32,
}

fn bad(table: &'static str, rva: u32, why: impl Into<String>) -> ImageError {
    ImageError::Table { table, rva, why: why.into() }
}

pub(crate) fn load_config(image: &[u8], dir: Directory, base: u64) -> Result<Option<LoadConfig>, ImageError> {
    const TABLE: &str = "load configuration";
    if dir.rva == 0 {
        return Ok(None);
    }
    let at = u64::from(dir.rva);
    let size = bytes::u32_at(image, at).ok_or_else(|| bad(TABLE, dir.rva, "it lies outside the image"))?;
    if bytes::slice(image, at, size.into()).is_none() {
        return Err(bad(TABLE, dir.rva, format!("its {size:#x} bytes do not lie inside the image")));
    }
    // Fields beyond the size that the structure itself declares do not exist: it grew with every Windows.
    let u64_field = |offset: u64| {
        if offset + 8 <= u64::from(size) { bytes::u64_at(image, at + offset).unwrap_or(0) } else { 0 }
    };
    let pointer = |offset: u64, name: &str| -> Result<Option<u32>, ImageError> {
        let va = u64_field(offset);
        if va == 0 {
            return Ok(None);
        }
        let rva =
            va.checked_sub(base).filter(|rva| rva.checked_add(8).is_some_and(|e| e <= image.len() as u64));
        match rva.and_then(|rva| u32::try_from(rva).ok()) {
            Some(rva) => Ok(Some(rva)),
            None => Err(bad(TABLE, dir.rva, format!("its {name} {va:#x} lies outside the image"))),
        }
    };
    if u64_field(0xc8) != 0 {
        return Err(ImageError::Hybrid); // CHPEMetadataPointer
    }
    Ok(Some(LoadConfig {
        security_cookie_rva: pointer(0x58, "SecurityCookie")?,
        guard_cf_check_function_pointer_rva: pointer(0x70, "GuardCFCheckFunctionPointer")?,
        guard_cf_dispatch_function_pointer_rva: pointer(0x78, "GuardCFDispatchFunctionPointer")?,
        guard_xfg_check_function_pointer_rva: pointer(0x118, "GuardXFGCheckFunctionPointer")?,
        guard_xfg_dispatch_function_pointer_rva: pointer(0x120, "GuardXFGDispatchFunctionPointer")?,
        guard_xfg_table_dispatch_function_pointer_rva: pointer(
            0x128,
            "GuardXFGTableDispatchFunctionPointer",
        )?,
        guard_cf_function_table_rva: pointer(0x80, "GuardCFFunctionTable")?,
        guard_cf_function_count: u64_field(0x88),
        guard_flags: if size >= 0x94 { bytes::u32_at(image, at + 0x90).unwrap_or(0) } else { 0 },
    }))
}

/// The resource directory and the version resource in it; a damaged tree is not an error, for a driver runs without.
pub(crate) fn resources(image: &[u8], dir: Directory) -> Result<Option<Resources>, ImageError> {
    if dir.rva == 0 || dir.size == 0 {
        return Ok(None);
    }
    if bytes::slice(image, dir.rva.into(), dir.size.into()).is_none() {
        return Err(bad(
            "resource directory",
            dir.rva,
            format!("its {:#x} bytes do not lie inside the image", dir.size),
        ));
    }
    Ok(Some(Resources { directory: dir.rva..dir.rva + dir.size, version_info: version_info(image, dir) }))
}

/// Three levels down: type 16 (RT_VERSION), then the first name, then the first language.
fn version_info(image: &[u8], dir: Directory) -> Option<Range<u32>> {
    let tree = bytes::slice(image, dir.rva.into(), dir.size.into())?;
    let entry = |table: u32, wanted: Option<u32>| -> Option<u32> {
        let table = u64::from(table);
        let count = u64::from(bytes::u16_at(tree, table + 12)?) + u64::from(bytes::u16_at(tree, table + 14)?);
        (0..count).find_map(|i| {
            let at = table + 16 + i * 8;
            let id = bytes::u32_at(tree, at)?;
            wanted.is_none_or(|w| w == id).then(|| bytes::u32_at(tree, at + 4)).flatten()
        })
    };
    let sub = |offset: u32| (offset & 0x8000_0000 != 0).then_some(offset & 0x7fff_ffff);
    let names = sub(entry(0, Some(16))?)?;
    let languages = sub(entry(names, None)?)?;
    let leaf = u64::from(entry(languages, None)?);
    let (rva, len) = (bytes::u32_at(tree, leaf)?, bytes::u32_at(tree, leaf + 4)?);
    bytes::slice(image, rva.into(), len.into()).map(|_| rva..rva + len)
}

/// The first CodeView record in the debug directory; a damaged one is not an error, for it only costs symbols.
pub(crate) fn pdb(image: &[u8], dir: Directory) -> Option<Pdb> {
    const ENTRY: u32 = 28;
    (0..(dir.size / ENTRY).min(64)).find_map(|i| {
        let d: pe::ImageDebugDirectory = bytes::pod(image, u64::from(dir.rva) + u64::from(i * ENTRY))?;
        if d.typ.get(LE) != pe::IMAGE_DEBUG_TYPE_CODEVIEW {
            return None;
        }
        let record =
            bytes::slice(image, d.address_of_raw_data.get(LE).into(), d.size_of_data.get(LE).into())?;
        if record.get(..4)? != b"RSDS" {
            return None;
        }
        let path = record.get(24..)?;
        let path = &path[..path.iter().position(|&b| b == 0).unwrap_or(path.len()).min(1024)];
        Some(Pdb {
            path: String::from_utf8_lossy(path).into_owned(),
            guid: record.get(4..20)?.try_into().ok()?,
            age: bytes::u32_at(record, 20)?,
        })
    })
}

impl Image {
    /// The file version of the version resource: major, minor, build, revision.
    #[must_use]
    pub fn file_version(&self) -> Option<[u16; 4]> {
        let range = self.resources.as_ref()?.version_info.clone()?;
        let info = self.bytes(range.start, range.end - range.start)?;
        // VS_FIXEDFILEINFO follows the header and the key "VS_VERSION_INFO", four-byte aligned: at 40.
        let fixed = info.get(40..)?;
        if bytes::u32_at(fixed, 0)? != 0xfeef_04bd {
            return None;
        }
        let (high, low) = (bytes::u32_at(fixed, 8)?, bytes::u32_at(fixed, 12)?);
        Some([(high >> 16) as u16, high as u16, (low >> 16) as u16, low as u16])
    }
}
