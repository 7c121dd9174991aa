//! Why an image can't be used, one sentence each. All of them are bad input from the user's side, never a driver's fault at run
//! time and never a bug in dirql.

use std::fmt;

/// Why [`Image::parse`](crate::Image::parse) or [`Image::lay_out`](crate::Image::lay_out) refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// No bytes at all.
    Empty,
    /// The bytes are something else; says what.
    NotPe {
        /// What it looks like, as in "it is a text file".
        kind: &'static str,
    },
    /// A DOS program without a PE header.
    DosOnly,
    /// The file ends before something it declares.
    Truncated {
        /// What lies beyond the end.
        what: String,
        /// Where that should end, as a file offset.
        needs: u64,
        /// Where the file ends.
        len: u64,
    },
    /// Built for another processor.
    Machine {
        /// The Machine field.
        machine: u16,
    },
    /// An ARM64EC or other hybrid image, which carries the x64 machine number.
    Hybrid,
    /// 32-bit optional header on an x64 machine number.
    Pe32,
    /// A program or DLL for user mode.
    UserMode {
        /// The Subsystem field.
        subsystem: u16,
    },
    /// A .NET assembly.
    DotNet,
    /// A header field that Windows would refuse.
    Field {
        /// The field's name in the PE format.
        field: &'static str,
        /// Its file offset.
        offset: u64,
        /// Its value.
        value: u64,
        /// What is wrong with the value.
        why: &'static str,
    },
    /// A section that can't be mapped.
    Section {
        /// Its name.
        name: String,
        /// Its index, from 0.
        index: usize,
        /// What is wrong.
        why: String,
    },
    /// A table (imports, exports, unwind data, ...) that points nowhere or contradicts itself.
    Table {
        /// Which table.
        table: &'static str,
        /// Where, as an RVA.
        rva: u32,
        /// What is wrong.
        why: String,
    },
    /// A base relocation block that can't be applied.
    Relocation {
        /// Where in the image, as an RVA.
        rva: u32,
        /// What is wrong.
        why: String,
    },
    /// The image can only run at its preferred base.
    RelocationsStripped {
        /// Its preferred base.
        preferred: u64,
        /// The base asked for.
        base: u64,
    },
    /// The base asked for is not page aligned or leaves no room.
    BadBase {
        /// The base asked for.
        base: u64,
    },
    /// Larger than dirql accepts.
    TooLarge {
        /// Bytes declared.
        size: u64,
        /// Bytes accepted.
        limit: u64,
    },
}

/// The usual name of a PE Machine value.
pub(crate) fn machine_name(machine: u16) -> &'static str {
    match machine {
        0x014c => "32-bit x86",
        0x01c0 | 0x01c2 | 0x01c4 => "32-bit ARM",
        0xaa64 => "ARM64",
        0xa641 => "ARM64EC",
        0xa64e => "ARM64X",
        0x0200 => "Itanium",
        0x8664 => "x64",
        0x5032 | 0x5064 | 0x5128 => "RISC-V",
        0x6232 | 0x6264 => "LoongArch",
        _ => "an unknown processor",
    }
}

fn subsystem_name(subsystem: u16) -> &'static str {
    match subsystem {
        0 => "unknown",
        1 => "native",
        2 => "Windows GUI",
        3 => "Windows console",
        5 => "OS/2",
        7 => "POSIX",
        9 => "Windows CE",
        10..=13 => "EFI",
        14 => "Xbox",
        16 => "Windows boot application",
        _ => "not a known one",
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "not a PE image: the file is empty"),
            Self::NotPe { kind } => write!(f, "not a PE image: it is {kind}"),
            Self::DosOnly => {
                write!(f, "not a PE image: it is a DOS program, with no PE header behind its DOS header")
            }
            Self::Truncated { what, needs, len } => {
                write!(
                    f,
                    "the file is cut short: {what} ends at file offset {needs:#x}, but the file ends at {len:#x}"
                )
            }
            Self::Machine { machine } => write!(
                f,
                "built for {} (machine {machine:#06x}); dirql runs x64 drivers; build for x64",
                machine_name(*machine)
            ),
            Self::Hybrid => write!(
                f,
                "built as an ARM64EC or hybrid image, whose code is ARM64 behind an x64 header; dirql runs x64 drivers; \
                 build for x64"
            ),
            Self::Pe32 => {
                write!(f, "a PE32 (32-bit) image with an x64 machine number; an x64 driver is PE32+")
            }
            Self::UserMode { subsystem } => write!(
                f,
                "a user-mode program or DLL, not a driver: its subsystem is {subsystem} ({}), a driver's is 1 (native)",
                subsystem_name(*subsystem)
            ),
            Self::DotNet => write!(f, "a .NET assembly, not a driver: it has a CLR header"),
            Self::Field { field, offset, value, why } => {
                write!(f, "damaged PE header: {field} (file offset {offset:#x}) is {value:#x}, {why}")
            }
            Self::Section { name, index, why } => write!(f, "damaged section {index} ({name}): {why}"),
            Self::Table { table, rva, why } => write!(f, "damaged {table} at RVA {rva:#x}: {why}"),
            Self::Relocation { rva, why } => write!(f, "damaged base relocations at RVA {rva:#x}: {why}"),
            Self::RelocationsStripped { preferred, base } => write!(
                f,
                "the image has no base relocations (they were stripped), so it can be loaded at {preferred:#x} only, not at \
                 {base:#x}; link without /FIXED"
            ),
            Self::BadBase { base } => {
                write!(f, "{base:#x} is not a page-aligned address with room for the image")
            }
            Self::TooLarge { size, limit } => {
                write!(
                    f,
                    "the image declares {size:#x} bytes; dirql loads images of at most {limit:#x} bytes"
                )
            }
        }
    }
}

impl std::error::Error for ImageError {}
