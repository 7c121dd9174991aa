//! The DOS, file and optional headers and the section table, checked as the Windows loader checks them, field by field.

use crate::{ImageError, bytes};
use object::{LittleEndian as LE, pe, read::pe::ImageOptionalHeader as _};

/// The most SizeOfImage dirql accepts. The largest drivers in the field (graphics) are below half of it.
pub const MAX_IMAGE: u64 = 256 << 20;
/// Windows refuses more sections than this.
const MAX_SECTIONS: u16 = 96;
const PAGE: u32 = 0x1000;
const FILE_HEADER_LEN: u64 = 20;
const OPTIONAL_LEN: u64 = 112;

/// Where a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Directory {
    pub(crate) rva: u32,
    pub(crate) size: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct RawSection {
    pub(crate) name: String,
    pub(crate) rva: u32,
    pub(crate) virtual_size: u32,
    pub(crate) raw_offset: u32,
    pub(crate) raw_size: u32,
    pub(crate) characteristics: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Headers {
    pub(crate) characteristics: u16,
    pub(crate) timestamp: u32,
    pub(crate) entry_rva: u32,
    pub(crate) image_base: u64,
    /// File (and image) offset of the ImageBase field, which the loader rewrites.
    pub(crate) image_base_offset: u32,
    pub(crate) section_alignment: u32,
    pub(crate) size_of_image: u32,
    pub(crate) size_of_headers: u32,
    pub(crate) checksum: u32,
    pub(crate) subsystem: u16,
    pub(crate) dll_characteristics: u16,
    pub(crate) os_version: (u16, u16),
    pub(crate) directories: [Directory; 16],
    pub(crate) sections: Vec<RawSection>,
}

impl Headers {
    /// Whether the image is mapped flat, one RVA per file offset, because its sections are not page aligned.
    pub(crate) fn is_flat(&self) -> bool {
        self.section_alignment < PAGE
    }
}

/// What bytes without an MZ header look like.
fn kind_of(data: &[u8]) -> &'static str {
    const MAGIC: [(&[u8], &str); 12] = [
        (b"\x7fELF", "an ELF file"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"MSCF", "a cabinet archive"),
        (b"!<arch>\n", "a static or import library"),
        (b"Microsoft C/C++", "a PDB file"),
        (b"BSJB", "a portable PDB file"),
        (b"\x64\x86", "an x64 object file that was not linked"),
        (b"\x4c\x01", "an x86 object file that was not linked"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"\xff\xfe", "a text file (UTF-16)"),
        (b"\xfe\xff", "a text file (UTF-16)"),
        (b"\xef\xbb\xbf", "a text file"),
    ];
    if let Some((_, kind)) = MAGIC.iter().find(|(magic, _)| data.starts_with(magic)) {
        return kind;
    }
    let head = data.get(..512).unwrap_or(data);
    if head.iter().all(|b| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..))
        && std::str::from_utf8(trim(head)).is_ok()
    {
        return "a text file";
    }
    if head.iter().all(|&b| b == 0) {
        return "all zeros at its start";
    }
    "something else (no MZ at its start)"
}

/// `head` without a UTF-8 sequence that the cut at 512 bytes split.
fn trim(head: &[u8]) -> &[u8] {
    match std::str::from_utf8(head) {
        Err(e) if e.error_len().is_none() => &head[..e.valid_up_to()],
        _ => head,
    }
}

fn truncated(what: impl Into<String>, needs: u64, data: &[u8]) -> ImageError {
    ImageError::Truncated { what: what.into(), needs, len: data.len() as u64 }
}

fn field(field: &'static str, offset: u64, value: impl Into<u64>, why: &'static str) -> ImageError {
    ImageError::Field { field, offset, value: value.into(), why }
}

pub(crate) fn parse(data: &[u8]) -> Result<Headers, ImageError> {
    if data.is_empty() {
        return Err(ImageError::Empty);
    }
    if !data.starts_with(b"MZ") {
        return Err(ImageError::NotPe { kind: kind_of(data) });
    }
    let lfanew = bytes::u32_at(data, 0x3c).ok_or_else(|| truncated("the DOS header", 0x40, data))?;
    let nt = u64::from(lfanew);
    match bytes::u32_at(data, nt) {
        Some(pe::IMAGE_NT_SIGNATURE) => {}
        Some(_)
            if nt >= 0x40
                && bytes::slice(data, nt, 2).is_some_and(|s| !matches!(s, b"PE" | b"NE" | b"LE" | b"LX")) =>
        {
            return Err(ImageError::DosOnly);
        }
        Some(_) if bytes::slice(data, nt, 2) == Some(b"PE") => {
            return Err(field(
                "Signature",
                nt,
                bytes::u32_at(data, nt).unwrap_or(0),
                "not \"PE\" and two zero bytes",
            ));
        }
        Some(_) => return Err(ImageError::DosOnly),
        // A header that claims to start beyond 4 GiB or far beyond the file is a DOS program's; otherwise the file was cut.
        None if lfanew == 0 || nt > 0x1000_0000 => return Err(ImageError::DosOnly),
        None => return Err(truncated("the PE signature", nt + 4, data)),
    }
    let fh_at = nt + 4;
    let fh: pe::ImageFileHeader =
        bytes::pod(data, fh_at).ok_or_else(|| truncated("the file header", fh_at + FILE_HEADER_LEN, data))?;
    let machine = fh.machine.get(LE).0;
    if machine != pe::IMAGE_FILE_MACHINE_AMD64.0 {
        return Err(ImageError::Machine { machine });
    }
    let opt_at = fh_at + FILE_HEADER_LEN;
    let opt_len = u64::from(fh.size_of_optional_header.get(LE));
    let magic = bytes::u16_at(data, opt_at)
        .ok_or_else(|| truncated("the optional header", opt_at + OPTIONAL_LEN, data))?;
    match magic {
        pe::IMAGE_NT_OPTIONAL_HDR64_MAGIC => {}
        pe::IMAGE_NT_OPTIONAL_HDR32_MAGIC => return Err(ImageError::Pe32),
        other => return Err(field("Magic", opt_at, other, "not 0x20b (PE32+)")),
    }
    if opt_len < OPTIONAL_LEN {
        return Err(field(
            "SizeOfOptionalHeader",
            fh_at + 16,
            opt_len,
            "less than the 112 bytes of a PE32+ header",
        ));
    }
    let opt: pe::ImageOptionalHeader64 = bytes::pod(data, opt_at)
        .ok_or_else(|| truncated("the optional header", opt_at + OPTIONAL_LEN, data))?;
    let characteristics = fh.characteristics.get(LE).0;
    if characteristics & pe::IMAGE_FILE_EXECUTABLE_IMAGE.0 == 0 {
        return Err(field(
            "Characteristics",
            fh_at + 18,
            characteristics,
            "which lacks the executable-image bit 0x2",
        ));
    }
    let subsystem = opt.subsystem().0;
    let directories = directories(data, opt_at, opt_len, opt.number_of_rva_and_sizes.get(LE))?;
    // The CLR header first: an assembly is also a user-mode program, and ".NET" says more.
    if directories[14].rva != 0 {
        return Err(ImageError::DotNet);
    }
    if subsystem != pe::IMAGE_SUBSYSTEM_NATIVE.0 {
        return Err(ImageError::UserMode { subsystem });
    }
    check_optional(&opt, opt_at, data)?;
    let count = fh.number_of_sections.get(LE);
    if count == 0 || count > MAX_SECTIONS {
        return Err(field(
            "NumberOfSections",
            fh_at + 2,
            count,
            "not between 1 and the 96 that Windows accepts",
        ));
    }
    let mut h = Headers {
        characteristics,
        timestamp: fh.time_date_stamp.get(LE),
        entry_rva: opt.address_of_entry_point.get(LE),
        image_base: opt.image_base.get(LE),
        image_base_offset: u32::try_from(opt_at + 24)
            .map_err(|_| field("e_lfanew", 0x3c, lfanew, "too large for the headers that follow"))?,
        section_alignment: opt.section_alignment.get(LE),
        size_of_image: opt.size_of_image.get(LE),
        size_of_headers: opt.size_of_headers.get(LE),
        checksum: opt.check_sum.get(LE),
        subsystem,
        dll_characteristics: opt.dll_characteristics().0,
        os_version: (opt.major_operating_system_version.get(LE), opt.minor_operating_system_version.get(LE)),
        directories,
        sections: Vec::new(),
    };
    let table_at = opt_at + opt_len;
    if table_at + u64::from(count) * 40 > u64::from(h.size_of_headers) {
        return Err(field(
            "SizeOfHeaders",
            opt_at + 60,
            h.size_of_headers,
            "less than the headers and section table take",
        ));
    }
    let strings = string_table(data, &fh);
    for index in 0..usize::from(count) {
        let at = table_at + index as u64 * 40;
        let raw: pe::ImageSectionHeader = bytes::pod(data, at)
            .ok_or_else(|| truncated("the section table", table_at + u64::from(count) * 40, data))?;
        h.sections.push(RawSection {
            name: section_name(raw.name, strings),
            rva: raw.virtual_address.get(LE),
            virtual_size: raw.virtual_size.get(LE),
            raw_offset: raw.pointer_to_raw_data.get(LE),
            raw_size: raw.size_of_raw_data.get(LE),
            characteristics: raw.characteristics.get(LE).0,
        });
    }
    check_sections(&h, data)?;
    Ok(h)
}

/// The data directories that both NumberOfRvaAndSizes and SizeOfOptionalHeader leave room for.
fn directories(data: &[u8], opt_at: u64, opt_len: u64, declared: u32) -> Result<[Directory; 16], ImageError> {
    let mut all = [Directory::default(); 16];
    let room = (opt_len - OPTIONAL_LEN) / 8;
    for (i, dir) in
        all.iter_mut().enumerate().take(usize::try_from(room.min(u64::from(declared))).unwrap_or(16))
    {
        let at = opt_at + OPTIONAL_LEN + i as u64 * 8;
        let missing = || truncated("the optional header's data directories", at + 8, data);
        dir.rva = bytes::u32_at(data, at).ok_or_else(missing)?;
        dir.size = bytes::u32_at(data, at + 4).ok_or_else(missing)?;
    }
    Ok(all)
}

fn check_optional(opt: &pe::ImageOptionalHeader64, at: u64, data: &[u8]) -> Result<(), ImageError> {
    let (sect, file) = (opt.section_alignment.get(LE), opt.file_alignment.get(LE));
    if !file.is_power_of_two() || file > 0x1_0000 {
        return Err(field("FileAlignment", at + 36, file, "not a power of two up to 64 KiB"));
    }
    if !sect.is_power_of_two() || sect < file {
        return Err(field(
            "SectionAlignment",
            at + 32,
            sect,
            "not a power of two at least as large as FileAlignment",
        ));
    }
    if sect < PAGE && sect != file {
        return Err(field(
            "SectionAlignment",
            at + 32,
            sect,
            "less than a page and different from FileAlignment, which Windows refuses",
        ));
    }
    let base = opt.image_base.get(LE);
    if base & 0xffff != 0 {
        return Err(field("ImageBase", at + 24, base, "not a multiple of 64 KiB"));
    }
    let size = opt.size_of_image.get(LE);
    if size == 0 {
        return Err(field("SizeOfImage", at + 56, size, "which leaves no image"));
    }
    if u64::from(size) > MAX_IMAGE {
        return Err(ImageError::TooLarge { size: size.into(), limit: MAX_IMAGE });
    }
    if base.checked_add(u64::from(size)).is_none() {
        return Err(field(
            "ImageBase",
            at + 24,
            base,
            "so high that the image wraps around the address space",
        ));
    }
    let headers = opt.size_of_headers.get(LE);
    if headers == 0 || headers > size {
        return Err(field("SizeOfHeaders", at + 60, headers, "not between 1 and SizeOfImage"));
    }
    if u64::from(headers) > data.len() as u64 {
        return Err(truncated("the headers (SizeOfHeaders)", headers.into(), data));
    }
    let entry = opt.address_of_entry_point.get(LE);
    if entry >= size {
        return Err(field("AddressOfEntryPoint", at + 16, entry, "outside the image"));
    }
    Ok(())
}

fn check_sections(h: &Headers, data: &[u8]) -> Result<(), ImageError> {
    let mut next = u64::from(align_up(h.size_of_headers, h.section_alignment));
    for (index, s) in h.sections.iter().enumerate() {
        let bad = |why: String| ImageError::Section { name: s.name.clone(), index, why };
        let (start, size) = (u64::from(s.rva), u64::from(s.mapped_size()));
        if size == 0 {
            return Err(bad("it has neither a virtual size nor raw data".into()));
        }
        if start % u64::from(h.section_alignment) != 0 {
            return Err(bad(format!(
                "its RVA {start:#x} is not a multiple of the section alignment {:#x}",
                h.section_alignment
            )));
        }
        if start < next {
            return Err(bad(format!(
                "it starts at RVA {start:#x}, inside what comes before it (up to {next:#x})"
            )));
        }
        // Windows refuses holes between page-aligned sections.
        if start > next && !h.is_flat() {
            return Err(bad(format!(
                "it starts at RVA {start:#x}, leaving a hole after {next:#x}, which Windows refuses"
            )));
        }
        if start + size > u64::from(h.size_of_image) {
            return Err(bad(format!(
                "it ends at RVA {:#x}, beyond the image's size {:#x}",
                start + size,
                h.size_of_image
            )));
        }
        if s.raw_size != 0 && s.raw_offset != 0 {
            let end = u64::from(s.raw_offset) + u64::from(s.raw_size);
            if end > data.len() as u64 {
                return Err(truncated(format!("section {index} ({})", s.name), end, data));
            }
            if h.is_flat() && s.raw_offset != s.rva {
                return Err(bad(format!(
                    "its file offset {:#x} differs from its RVA {start:#x}, though the image is mapped flat (its section \
                     alignment is less than a page)",
                    s.raw_offset
                )));
            }
        }
        next = (start + size).next_multiple_of(u64::from(h.section_alignment));
    }
    Ok(())
}

impl RawSection {
    /// The bytes the section takes in memory: a zero virtual size means the raw size.
    pub(crate) fn mapped_size(&self) -> u32 {
        if self.virtual_size == 0 { self.raw_size } else { self.virtual_size }
    }
}

fn align_up(value: u32, to: u32) -> u32 {
    value.checked_next_multiple_of(to).unwrap_or(u32::MAX)
}

/// The COFF string table, which long section names of GNU and LLVM tools lie in.
fn string_table<'a>(data: &'a [u8], fh: &pe::ImageFileHeader) -> &'a [u8] {
    let symbols = u64::from(fh.pointer_to_symbol_table.get(LE));
    if symbols == 0 {
        return &[];
    }
    let at = symbols + u64::from(fh.number_of_symbols.get(LE)) * 18;
    bytes::u32_at(data, at).and_then(|len| bytes::slice(data, at, len.into())).unwrap_or(&[])
}

/// A section's name; `/123` is looked up in the string table when there is one.
fn section_name(raw: [u8; 8], strings: &[u8]) -> String {
    let len = raw.iter().position(|&b| b == 0).unwrap_or(8);
    let short: String =
        raw[..len].iter().map(|&b| if (0x20..0x7f).contains(&b) { char::from(b) } else { '?' }).collect();
    short
        .strip_prefix('/')
        .and_then(|digits| digits.parse::<u64>().ok())
        .and_then(|at| bytes::name_at(strings, at).ok())
        .unwrap_or(short)
}
