//! Functions and source lines of an image, from whatever symbols there are: a matching PDB, DWARF in the image, the
//! COFF symbol table in the file, and last the image's exports.
//!
//! A damaged symbol file never fails a run: what cannot be read gives no place. The PDB must carry the GUID that the
//! image names; another build's symbols would lie.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use addr2line::gimli::{self, EndianSlice, LittleEndian};
use pdb_addr2line::ContextPdbData;
use pdb_addr2line::pdb::PDB;

use crate::{ExportTarget, Image, bytes};

/// Most entries of a COFF symbol table that are read.
const MAX_SYMBOLS: u64 = 1 << 20;
/// Most inlined functions followed at one address.
const MAX_INLINES: usize = 256;

/// Where an address is in the source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The function, without decoration; the innermost one where calls were inlined.
    pub function: Option<String>,
    /// The source file, as the compiler wrote it.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
}

/// The symbols of one image.
#[derive(Default)]
pub struct Symbols<'a> {
    base: u64,
    dwarf: Option<addr2line::Context<EndianSlice<'a, LittleEndian>>>,
    pdb: Option<ContextPdbData<'a, 'a, Cursor<&'a [u8]>>>,
    names: BTreeMap<u32, String>,
    ends: Vec<(u32, u32)>,
}

impl std::fmt::Debug for Symbols<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Symbols")
            .field("dwarf", &self.dwarf.is_some())
            .field("pdb", &self.pdb.is_some())
            .field("names", &self.names.len())
            .finish()
    }
}

impl<'a> Symbols<'a> {
    /// The symbols of `image`, whose file's bytes are `file`, with those of `pdb` if it belongs to the image.
    #[must_use]
    pub fn of(image: &'a Image, file: &'a [u8], pdb: Option<&'a [u8]>) -> Self {
        let mut names = coff(image, file).unwrap_or_default();
        for e in &image.exports {
            if let (Some(name), ExportTarget::Rva(rva)) = (&e.name, &e.target) {
                names.entry(*rva).or_insert_with(|| name.clone());
            }
        }
        // The parser of PDBs is not ours; should it fail on a damaged file, the file gives nothing.
        let pdb = catch_unwind(AssertUnwindSafe(|| open_pdb(image, pdb?))).ok().flatten();
        let ends = image.sections.iter().map(|s| (s.rva, s.rva.saturating_add(s.virtual_size))).collect();
        Self { base: image.preferred_base, dwarf: dwarf(image), pdb, names, ends }
    }

    /// The place of an address. For a return address, ask for the byte before it: the call is there.
    #[must_use]
    pub fn locate(&self, rva: u32) -> Option<Place> {
        let place = catch_unwind(AssertUnwindSafe(|| self.in_pdb(rva)))
            .ok()
            .flatten()
            .or_else(|| self.in_dwarf(rva))
            .unwrap_or_default();
        let place = Place { function: place.function.or_else(|| self.name(rva)), ..place };
        (place != Place::default()).then_some(place)
    }

    fn in_dwarf(&self, rva: u32) -> Option<Place> {
        let context = self.dwarf.as_ref()?;
        let mut frames = context.find_frames(self.base.checked_add(rva.into())?).skip_all_loads().ok()?;
        let mut place = None;
        for _ in 0..MAX_INLINES {
            let Ok(Some(frame)) = frames.next() else { break };
            let function = frame.function.and_then(|f| f.raw_name().ok().map(|n| n.into_owned())).map(clean);
            let location =
                frame.location.unwrap_or(addr2line::Location { file: None, line: None, column: None });
            let found = Place { function, file: location.file.map(slashes), line: location.line };
            if place.is_none() {
                place = Some(found);
            }
        }
        place
    }

    fn in_pdb(&self, rva: u32) -> Option<Place> {
        let context = self.pdb.as_ref()?.make_context().ok()?;
        let frames = context.find_frames(rva).ok()??;
        let frame = frames.frames.first()?;
        Some(Place {
            function: frame.function.clone(),
            file: frame.file.as_deref().map(slashes),
            line: frame.line,
        })
    }

    /// The nearest symbol at or below, in the same section.
    fn name(&self, rva: u32) -> Option<String> {
        let (at, name) = self.names.range(..=rva).next_back()?;
        let same =
            self.ends.iter().any(|(begin, end)| (*begin..*end).contains(at) && (*begin..*end).contains(&rva));
        same.then(|| name.clone())
    }
}

fn slashes(file: &str) -> String {
    file.replace('\\', "/")
}

fn clean(name: String) -> String {
    name.trim_start_matches('\u{1}').to_owned()
}

fn dwarf(image: &Image) -> Option<addr2line::Context<EndianSlice<'_, LittleEndian>>> {
    let load = |id: gimli::SectionId| -> Result<_, gimli::Error> {
        let data = image
            .section(id.name())
            .and_then(|s| {
                image.bytes(s.data.start, s.data.end.checked_sub(s.data.start)?.min(s.virtual_size))
            })
            .unwrap_or(&[]);
        Ok(EndianSlice::new(data, LittleEndian))
    };
    image.section(".debug_info")?;
    addr2line::Context::from_dwarf(gimli::Dwarf::load(load).ok()?).ok()
}

fn open_pdb<'a>(image: &Image, pdb: &'a [u8]) -> Option<ContextPdbData<'a, 'a, Cursor<&'a [u8]>>> {
    let wanted = image.pdb.as_ref()?;
    let mut pdb = PDB::open(Cursor::new(pdb)).ok()?;
    let information = pdb.pdb_information().ok()?;
    (information.guid.to_bytes_le() == wanted.guid).then_some(())?;
    ContextPdbData::try_from_pdb(pdb).ok()
}

/// The function symbols of the COFF symbol table, which the loader does not map (PE format, "COFF Symbol Table").
fn coff(image: &Image, file: &[u8]) -> Option<BTreeMap<u32, String>> {
    let pe = u64::from(bytes::u32_at(file, 0x3c)?);
    let (table, count) = (u64::from(bytes::u32_at(file, pe + 12)?), u64::from(bytes::u32_at(file, pe + 16)?));
    if table == 0 || count > MAX_SYMBOLS {
        return None;
    }
    let strings = table.checked_add(count * 18)?;
    let mut names = BTreeMap::new();
    let mut i = 0;
    while i < count {
        let entry = bytes::slice(file, table + i * 18, 18)?;
        i += 1 + u64::from(entry[17]);
        let section = u16::from_le_bytes([entry[12], entry[13]]);
        // IMAGE_SYM_DTYPE_FUNCTION; external or static.
        if entry[14] != 0x20 || !matches!(entry[16], 2 | 3) || section == 0 {
            continue;
        }
        let Some(section) = image.sections.get(usize::from(section) - 1) else { continue };
        let Some(rva) = section.rva.checked_add(bytes::u32_at(entry, 8)?) else { continue };
        let name = if entry[..4] == [0; 4] {
            bytes::name_at(file, strings + u64::from(bytes::u32_at(entry, 4)?)).ok()
        } else {
            let len = entry[..8].iter().position(|&b| b == 0).unwrap_or(8);
            std::str::from_utf8(&entry[..len]).ok().map(str::to_owned)
        };
        if let Some(name) = name.filter(|n| !n.starts_with('.')) {
            names.entry(rva).or_insert(name);
        }
    }
    Some(names)
}
