//! Libraries for linkers, written: archives of object files, and import libraries.
//!
//! After the "Archive (Library) File Format" and "Import Library Format" chapters of Microsoft's PE/COFF
//! specification. Everything that could differ from day to day (times, owners) is zero. Left out: the second linker
//! member, which only makes searching faster, and members with names longer than 15 characters.

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// File name, at most 15 characters: longer ones are cut.
    pub name: String,
    /// Contents.
    pub data: Vec<u8>,
    /// The symbols it defines, by which linkers find it.
    pub symbols: Vec<String>,
}

/// An archive of object files with its symbol index.
#[must_use]
pub fn archive(members: &[Member]) -> Vec<u8> {
    let symbols: Vec<(&str, usize)> = members
        .iter()
        .enumerate()
        .flat_map(|(member, m)| m.symbols.iter().map(move |s| (s.as_str(), member)))
        .collect();
    let names: usize = symbols.iter().map(|(name, _)| name.len() + 1).sum();
    let index_size = 4 + 4 * symbols.len() + names;
    let mut at = 8 + 60 + index_size.next_multiple_of(2);
    let mut offsets = vec![];
    for member in members {
        offsets.push(at as u32);
        at += 60 + member.data.len().next_multiple_of(2);
    }
    let mut index = (symbols.len() as u32).to_be_bytes().to_vec();
    for (_, member) in &symbols {
        index.extend(offsets[*member].to_be_bytes());
    }
    for (name, _) in &symbols {
        index.extend(name.bytes());
        index.push(0);
    }
    let mut out = b"!<arch>\n".to_vec();
    member(&mut out, "/", &index);
    for m in members {
        let name: String = m.name.chars().take(15).collect();
        member(&mut out, &format!("{name}/"), &m.data);
    }
    out
}

fn member(out: &mut Vec<u8>, name: &str, data: &[u8]) {
    out.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, data.len()).bytes());
    out.extend(data);
    if !data.len().is_multiple_of(2) {
        out.push(b'\n');
    }
}

/// A symbol that a module exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportedSymbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it is a variable, and no routine.
    pub data: bool,
}

const AMD64: u16 = 0x8664;
/// Relocation against an image-relative address.
const ADDR32NB: u16 = 3;
/// Initialised data, readable and writable.
const DATA: u32 = 0xC000_0040;
const ALIGN_2: u32 = 0x0020_0000;
const ALIGN_4: u32 = 0x0030_0000;
const ALIGN_8: u32 = 0x0040_0000;
const EXTERNAL: u8 = 2;
const STATIC: u8 = 3;
const SECTION: u8 = 104;

/// The import library of an x64 module such as `ntoskrnl.exe`.
#[must_use]
pub fn import_library(module: &str, exports: &[ExportedSymbol<'_>]) -> Vec<u8> {
    let stem = module.rsplit_once('.').map_or(module, |(stem, _)| stem);
    let descriptor = format!("__IMPORT_DESCRIPTOR_{stem}");
    let null_descriptor = "__NULL_IMPORT_DESCRIPTOR";
    let null_thunk = format!("\u{7f}{stem}_NULL_THUNK_DATA");
    let mut text: Vec<u8> = module.bytes().chain([0]).collect();
    text.resize(text.len().next_multiple_of(2), 0);
    // GNU's linker puts the parts of an import table in order of the members' names: the head, the imports, the end.
    let made = |name: &str, data: Vec<u8>, symbols: Vec<String>| Member { name: name.into(), data, symbols };

    // The directory entry: it draws in the name, the end of the directory and the end of the module's thunks.
    let head = coff(
        &[
            Section {
                name: ".idata$2",
                flags: DATA | ALIGN_4,
                data: &[0; 20],
                relocations: &[(12, 2), (0, 3), (16, 4)],
            },
            Section { name: ".idata$6", flags: DATA | ALIGN_2, data: &text, relocations: &[] },
        ],
        &[
            (&descriptor, 1, EXTERNAL),
            (".idata$2", 1, SECTION),
            (".idata$6", 2, STATIC),
            (".idata$4", 0, SECTION),
            (".idata$5", 0, SECTION),
            (null_descriptor, 0, EXTERNAL),
            (&null_thunk, 0, EXTERNAL),
        ],
    );
    let end = coff(
        &[Section { name: ".idata$3", flags: DATA | ALIGN_4, data: &[0; 20], relocations: &[] }],
        &[(null_descriptor, 1, EXTERNAL)],
    );
    let thunks = coff(
        &[
            Section { name: ".idata$5", flags: DATA | ALIGN_8, data: &[0; 8], relocations: &[] },
            Section { name: ".idata$4", flags: DATA | ALIGN_8, data: &[0; 8], relocations: &[] },
        ],
        &[(&null_thunk, 1, EXTERNAL)],
    );
    let mut members = vec![
        made("a.o", head, vec![descriptor.clone()]),
        made("d.o", end, vec![null_descriptor.to_owned()]),
        made("c.o", thunks, vec![null_thunk.clone()]),
    ];
    for export in exports {
        let mut symbols = vec![format!("__imp_{}", export.name)];
        if !export.data {
            symbols.push(export.name.to_owned());
        }
        members.push(made("b.o", short_import(module, *export), symbols));
    }
    archive(&members)
}

/// The short form of one import: a header and two names.
fn short_import(module: &str, export: ExportedSymbol<'_>) -> Vec<u8> {
    let names: Vec<u8> = export.name.bytes().chain([0]).chain(module.bytes()).chain([0]).collect();
    let mut out = vec![0, 0, 0xFF, 0xFF, 0, 0];
    out.extend(AMD64.to_le_bytes());
    out.extend(0u32.to_le_bytes());
    out.extend((names.len() as u32).to_le_bytes());
    out.extend(0u16.to_le_bytes());
    // Bits 0 and 1: code or data. Bits 2 to 4: by its name, undecorated.
    out.extend((u16::from(export.data) | 1 << 2).to_le_bytes());
    out.extend(names);
    out
}

struct Section<'a> {
    name: &'a str,
    flags: u32,
    data: &'a [u8],
    /// Offset and symbol number.
    relocations: &'a [(u32, u32)],
}

/// An object file: symbols are a name, a section number and a storage class.
fn coff(sections: &[Section<'_>], symbols: &[(&str, u16, u8)]) -> Vec<u8> {
    let mut at = 20 + 40 * sections.len();
    let mut headers = vec![];
    let mut bodies = vec![];
    for section in sections {
        let relocations_at = at + section.data.len();
        let mut name = [0; 8];
        name[..section.name.len().min(8)]
            .copy_from_slice(&section.name.as_bytes()[..section.name.len().min(8)]);
        headers.extend(name);
        for field in [0, 0, section.data.len() as u32, at as u32, relocations_at as u32, 0] {
            headers.extend(field.to_le_bytes());
        }
        headers.extend((section.relocations.len() as u16).to_le_bytes());
        headers.extend(0u16.to_le_bytes());
        headers.extend(section.flags.to_le_bytes());
        bodies.extend(section.data);
        for (offset, symbol) in section.relocations {
            bodies.extend(offset.to_le_bytes());
            bodies.extend(symbol.to_le_bytes());
            bodies.extend(ADDR32NB.to_le_bytes());
        }
        at = relocations_at + 10 * section.relocations.len();
    }
    let mut out = AMD64.to_le_bytes().to_vec();
    out.extend((sections.len() as u16).to_le_bytes());
    for field in [0, at as u32, symbols.len() as u32, 0] {
        out.extend(field.to_le_bytes());
    }
    out.extend(headers);
    out.extend(bodies);
    let mut strings = vec![];
    for (name, section, class) in symbols {
        if name.len() <= 8 {
            let mut short = [0; 8];
            short[..name.len()].copy_from_slice(name.as_bytes());
            out.extend(short);
        } else {
            out.extend(0u32.to_le_bytes());
            out.extend((4 + strings.len() as u32).to_le_bytes());
            strings.extend(name.bytes().chain([0]));
        }
        out.extend(0u32.to_le_bytes());
        out.extend(section.to_le_bytes());
        out.extend(0u16.to_le_bytes());
        out.extend([*class, 0]);
    }
    out.extend((4 + strings.len() as u32).to_le_bytes());
    out.extend(strings);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_points_at_the_members() {
        let one = Member { name: "one.o".into(), data: vec![1, 2, 3], symbols: vec!["a".into(), "b".into()] };
        let two = Member { name: "two.o".into(), data: vec![4, 5], symbols: vec!["c".into()] };
        let bytes = archive(&[one, two]);
        assert_eq!(bytes[68..72], 3u32.to_be_bytes());
        let at = |i: usize| u32::from_be_bytes(bytes[72 + 4 * i..76 + 4 * i].try_into().unwrap()) as usize;
        assert_eq!(&bytes[at(0)..at(0) + 6], b"one.o/");
        assert_eq!(at(1), at(0));
        assert_eq!(&bytes[at(2)..at(2) + 6], b"two.o/");
        assert_eq!(&bytes[at(2) + 60..], [4, 5]);
        assert_eq!(&bytes[84..90], b"a\0b\0c\0");
    }

    #[test]
    fn a_short_import_names_routine_and_module() {
        let bytes = short_import("m.sys", ExportedSymbol { name: "V", data: true });
        assert_eq!(&bytes[..8], [0, 0, 0xFF, 0xFF, 0, 0, 0x64, 0x86]);
        assert_eq!(bytes[12..16], 8u32.to_le_bytes());
        assert_eq!(bytes[18..20], 5u16.to_le_bytes());
        assert_eq!(&bytes[20..], b"V\0m.sys\0");
    }
}
