//! PE32+ driver images: bytes in, [`Image`] out.
//!
//! [`Image::parse`] reads a native x64 `.sys` (or a native library it imports, such as `Wdf01000.sys`), checks it as the Windows
//! loader does, and keeps the image as it lies in memory before relocation. [`Image::lay_out`] gives the bytes for a base address.
//! After the PE format page and the x64 exception handling page of Microsoft's public documentation.
//!
//! Nothing in a file is trusted: every offset is checked, sizes are capped ([`MAX_IMAGE`]), and every refusal is an [`ImageError`]
//! that names the field, its place and its value.
//!
//! Left out: signatures and checksums (reported, not verified), bound imports (rebound always), and loading of
//! ARM64EC, 32-bit and .NET images, which are refused by name.

pub mod archive;
mod bytes;
mod config;
mod error;
mod exports;
mod headers;
mod imports;
mod map;
mod reloc;
pub mod symbols;
mod unwind;

pub use config::{LoadConfig, Pdb, Resources};
pub use error::ImageError;
pub use exports::{Export, ExportTarget};
pub use headers::MAX_IMAGE;
pub use imports::{Import, Symbol};
pub use map::Protection;
pub use symbols::{Place, Symbols};
pub use unwind::{RuntimeFunction, ScopeRecord, UnwindCode, UnwindHandler, UnwindInfo, UnwindOp};

use std::{ops::Range, sync::Arc};

/// A checked driver image, not yet at an address. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Image {
    /// RVA of DriverEntry's stub (`AddressOfEntryPoint`); 0 means none, as in a resource-only library.
    pub entry_rva: u32,
    /// The base the linker chose (`ImageBase`).
    pub preferred_base: u64,
    /// Bytes the image takes in memory.
    pub size_of_image: u32,
    /// Bytes of headers at RVA 0.
    pub size_of_headers: u32,
    /// `SectionAlignment`; below 0x1000 the file is mapped flat, all pages readable, writable and executable.
    pub section_alignment: u32,
    /// `TimeDateStamp`: seconds since 1970, or a hash in reproducible builds.
    pub timestamp: u32,
    /// `CheckSum`, not verified.
    pub checksum: u32,
    /// `Subsystem`: always 1, native.
    pub subsystem: u16,
    /// File header `Characteristics`.
    pub characteristics: u16,
    /// `DllCharacteristics`.
    pub dll_characteristics: u16,
    /// The Windows version the linker was told (`MajorOperatingSystemVersion`, minor).
    pub os_version: (u16, u16),
    /// Sections in address order.
    pub sections: Vec<Section>,
    /// Imports in table order.
    pub imports: Vec<Import>,
    /// Delay-load imports in table order; drivers have them from Windows 10, version 1809 on.
    pub delay_imports: Vec<Import>,
    /// Exports in ordinal order.
    pub exports: Vec<Export>,
    /// The module name of the export directory.
    pub export_name: Option<String>,
    /// The exception table (`.pdata`), sorted by start, without overlaps.
    pub functions: Vec<RuntimeFunction>,
    /// The load configuration, when the image has one.
    pub load_config: Option<LoadConfig>,
    /// Resources, when the image has any.
    pub resources: Option<Resources>,
    /// Where the debug symbols are, from the debug directory.
    pub pdb: Option<Pdb>,
    function_entries: Vec<u32>,
    relocations: Range<u32>,
    image_base_offset: u32,
    mapped: Arc<[u8]>,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name; long names of GNU and LLVM tools resolved.
    pub name: String,
    /// Where it starts.
    pub rva: u32,
    /// Its bytes in memory, not rounded up to pages.
    pub virtual_size: u32,
    /// The part of the image that came from the file, as an RVA range; the rest is zero.
    pub data: Range<u32>,
    /// Where its raw data is in the file.
    pub file_offset: u32,
    /// May be read.
    pub readable: bool,
    /// May be written.
    pub writable: bool,
    /// May be executed.
    pub executable: bool,
    /// Freed after DriverEntry (INIT sections, relocations).
    pub discardable: bool,
    /// May be paged out: the name starts with `PAGE`, which is how the kernel decides for drivers.
    pub pageable: bool,
}

impl Section {
    /// Whether `rva` lies in the section.
    #[must_use]
    pub fn contains(&self, rva: u32) -> bool {
        rva.checked_sub(self.rva).is_some_and(|d| d < self.virtual_size)
    }
}

impl Image {
    /// Reads and checks an image.
    ///
    /// # Errors
    ///
    /// Anything that is not a native x64 PE32+ image that Windows could map, with the field or table at fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let h = headers::parse(bytes)?;
        let (mapped, sections) = map::map(bytes, &h);
        let dir = |index: usize| h.directories[index];
        let load_config = config::load_config(&mapped, dir(10), h.image_base)?;
        reloc::check(&mapped, dir(5))?;
        let (exports, export_name) = exports::parse(&mapped, dir(0))?;
        let (functions, function_entries) = unwind::table(&mapped, dir(3))?;
        Ok(Self {
            entry_rva: h.entry_rva,
            preferred_base: h.image_base,
            size_of_image: h.size_of_image,
            size_of_headers: h.size_of_headers,
            section_alignment: h.section_alignment,
            timestamp: h.timestamp,
            checksum: h.checksum,
            subsystem: h.subsystem,
            characteristics: h.characteristics,
            dll_characteristics: h.dll_characteristics,
            os_version: h.os_version,
            sections,
            imports: imports::parse(&mapped, dir(1))?,
            delay_imports: imports::parse_delayed(&mapped, dir(13))?,
            exports,
            export_name,
            functions,
            function_entries,
            load_config,
            resources: config::resources(&mapped, dir(2))?,
            pdb: config::pdb(&mapped, dir(6)),
            relocations: dir(5).rva..dir(5).rva.saturating_add(dir(5).size),
            image_base_offset: h.image_base_offset,
            mapped,
        })
    }

    /// The bytes of the headers, as in memory before relocation.
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        &self.mapped[..self.size_of_headers as usize]
    }

    /// `len` bytes of the unrelocated image at `rva`; `None` when they are not all inside.
    #[must_use]
    pub fn bytes(&self, rva: u32, len: u32) -> Option<&[u8]> {
        bytes::slice(&self.mapped, rva.into(), len.into())
    }

    /// The section that `rva` lies in.
    #[must_use]
    pub fn section_at(&self, rva: u32) -> Option<&Section> {
        self.sections.iter().find(|s| s.contains(rva))
    }

    /// The section of that name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// The export of that name.
    #[must_use]
    pub fn export(&self, name: &str) -> Option<&Export> {
        self.exports.iter().find(|e| e.name.as_deref() == Some(name))
    }

    /// The export of that ordinal.
    #[must_use]
    pub fn export_by_ordinal(&self, ordinal: u32) -> Option<&Export> {
        self.exports.iter().find(|e| e.ordinal == ordinal)
    }
}
