//! What an image tells of itself, and what dirql has for it.

use std::path::Path;

use dirql_image::{Image, Symbol};
use serde::Serialize;

use crate::problem::InputError;
use crate::run::{file_name, parse};

/// An import of an image, and whether dirql has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImportLine {
    /// The module.
    pub module: String,
    /// The routine, or `#n` for an ordinal.
    pub name: String,
    /// Whether dirql implements it.
    pub implemented: bool,
    /// Whether it is bound at its first call only.
    pub delayed: bool,
    /// How many of the surveyed drivers import it.
    pub drivers: u32,
}

/// A section of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SectionLine {
    /// Its name.
    pub name: String,
    /// Where it starts, relative to the base.
    pub rva: u32,
    /// Its size in memory, in bytes.
    pub size: u32,
    /// Its protection, as `r-x`.
    pub access: String,
}

/// What an image tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectReport {
    /// The file's name.
    pub image: String,
    /// The size in memory, in bytes.
    pub size: u64,
    /// The entry point, relative to the base.
    pub entry: u64,
    /// The base the linker chose.
    pub preferred_base: u64,
    /// The Windows version the linker was told, as `10.0`.
    pub os_version: String,
    /// The link time, in seconds since 1970, or a hash in reproducible builds.
    pub timestamp: u32,
    /// The debug symbols' file, as the image names it.
    pub pdb: Option<String>,
    /// The sections, in address order.
    pub sections: Vec<SectionLine>,
    /// How many functions have unwind data.
    pub functions: usize,
    /// The routines by which it can connect interrupts.
    pub connects: Vec<String>,
    /// How many drivers were surveyed for [`ImportLine::drivers`].
    pub surveyed: u32,
    /// The imports, in order; those bound at their first call last.
    pub imports: Vec<ImportLine>,
}

impl InspectReport {
    /// The imports that dirql lacks.
    pub fn missing(&self) -> impl Iterator<Item = &ImportLine> {
        self.imports.iter().filter(|i| !i.implemented)
    }
}

/// The routines by which a driver connects interrupts, and what it means that one is imported.
pub const CONNECTORS: &[(&str, &str)] = &[
    ("IoConnectInterruptEx", "by line, message or full specification"),
    ("IoConnectInterrupt", "by the older routine, fully specified"),
    ("MmGetSystemRoutineAddress", "perhaps found by name at run time, as Iointex does"),
    ("WdfVersionBind", "by the driver framework on its behalf"),
];

/// Reads an image and says what it is and what it imports.
///
/// # Errors
/// If the image can't be read, or is no x64 driver.
pub fn inspect(path: &Path) -> Result<InspectReport, InputError> {
    let bytes = crate::file::read(path, crate::file::IMAGE_SIZE_CAP, "image")?;
    let image = parse(path, &bytes)?;
    let imports = imports(&image);
    let connects = CONNECTORS
        .iter()
        .filter(|(name, _)| imports.iter().any(|i| i.name == *name))
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let flag = |on: bool, c: char| if on { c } else { '-' };
    let sections = image.sections.iter().map(|s| SectionLine {
        name: s.name.clone(),
        rva: s.rva,
        size: s.virtual_size,
        access: [flag(s.readable, 'r'), flag(s.writable, 'w'), flag(s.executable, 'x')].into_iter().collect(),
    });
    Ok(InspectReport {
        image: file_name(path),
        size: u64::from(image.size_of_image),
        entry: u64::from(image.entry_rva),
        preferred_base: image.preferred_base,
        os_version: format!("{}.{}", image.os_version.0, image.os_version.1),
        timestamp: image.timestamp,
        pdb: image.pdb.as_ref().map(|p| p.path.clone()),
        sections: sections.collect(),
        functions: image.functions.len(),
        connects,
        surveyed: dirql_kernel::demand::SURVEYED,
        imports,
    })
}

fn imports(image: &Image) -> Vec<ImportLine> {
    let line = |i: &dirql_image::Import, delayed: bool| {
        let name = match &i.symbol {
            Symbol::Name(n) => n.clone(),
            Symbol::Ordinal(n) => format!("#{n}"),
        };
        ImportLine {
            implemented: dirql_kernel::loader::implemented(&i.module, &name),
            drivers: dirql_kernel::demand(&name).map_or(0, |d| d.drivers),
            module: i.module.clone(),
            name,
            delayed,
        }
    };
    let bound = image.imports.iter().map(|i| line(i, false));
    bound.chain(image.delay_imports.iter().map(|i| line(i, true))).collect()
}

/// An export that dirql implements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportLine {
    /// The module.
    pub module: String,
    /// The name.
    pub name: String,
    /// The highest IRQL a routine may be called at; none for data.
    pub max_irql: Option<u8>,
    /// How many of the surveyed drivers import it.
    pub drivers: u32,
}

/// Every export that dirql implements, by name. The kernel and hal answer for the same routines; the module told
/// is the one that the documents name.
#[must_use]
pub fn exports() -> Vec<ExportLine> {
    let hal = |name: &str| {
        name.starts_with("Hal") || name.starts_with("READ_PORT") || name.starts_with("WRITE_PORT")
    };
    dirql_kernel::loader::implemented_exports()
        .into_iter()
        .map(|(name, max_irql)| ExportLine {
            module: if hal(name) { "hal.dll" } else { "ntoskrnl.exe" }.into(),
            name: name.into(),
            max_irql,
            drivers: dirql_kernel::demand(name).map_or(0, |d| d.drivers),
        })
        .collect()
}
