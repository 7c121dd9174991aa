//! Import and delay-load import tables.

use crate::{ImageError, bytes, headers::Directory};
use object::{LittleEndian as LE, pe};

/// More than any real driver has; they keep the work on a hostile file bounded.
const MAX_MODULES: u64 = 1024;
const MAX_IMPORTS: usize = 65_536;

/// What an import names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Symbol {
    /// An export's name.
    Name(String),
    /// An export's ordinal.
    Ordinal(u16),
}

impl std::fmt::Display for Symbol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ordinal(ordinal) => write!(f, "#{ordinal}"),
        }
    }
}

/// One imported symbol and the slot the loader fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The module in lower case, with its extension: `ntoskrnl.exe`.
    pub module: String,
    /// The module as the file spells it.
    pub module_as_written: String,
    /// What is imported.
    pub symbol: Symbol,
    /// RVA of the 8-byte import address table slot.
    pub iat_rva: u32,
}

struct Lists {
    name: u32,
    lookup: u32,
    iat: u32,
}

fn bad(table: &'static str, rva: u32, why: impl Into<String>) -> ImageError {
    ImageError::Table { table, rva, why: why.into() }
}

/// The imports bound before the driver runs.
pub(crate) fn parse(image: &[u8], dir: Directory) -> Result<Vec<Import>, ImageError> {
    const TABLE: &str = "import table";
    let next = |at: u64| {
        let d: pe::ImageImportDescriptor = bytes::pod(image, at)?;
        let (name, iat) = (d.name.get(LE), d.first_thunk.get(LE));
        let lookup = match d.original_first_thunk.get(LE) {
            0 => iat,
            table => table,
        };
        // The loader stops at a descriptor without a name or without slots.
        Some((name != 0 && iat != 0).then_some(Lists { name, lookup, iat }))
    };
    collect(image, dir, TABLE, size_of::<pe::ImageImportDescriptor>() as u64, next)
}

/// The imports bound at their first call.
pub(crate) fn parse_delayed(image: &[u8], dir: Directory) -> Result<Vec<Import>, ImageError> {
    const TABLE: &str = "delay-load import table";
    let next = |at: u64| {
        let d: pe::ImageDelayloadDescriptor = bytes::pod(image, at)?;
        let (name, iat) = (d.dll_name_rva.get(LE), d.import_address_table_rva.get(LE));
        Some((name != 0).then_some(Lists { name, lookup: d.import_name_table_rva.get(LE), iat }))
    };
    collect(image, dir, TABLE, size_of::<pe::ImageDelayloadDescriptor>() as u64, next)
}

/// `next` gives `None` outside the image and `Some(None)` at the end of the table.
fn collect(
    image: &[u8],
    dir: Directory,
    table: &'static str,
    stride: u64,
    next: impl Fn(u64) -> Option<Option<Lists>>,
) -> Result<Vec<Import>, ImageError> {
    let mut all = Vec::new();
    if dir.rva == 0 {
        return Ok(all);
    }
    for index in 0..=MAX_MODULES {
        let at = u64::from(dir.rva) + index * stride;
        let Some(entry) = next(at) else {
            return Err(bad(table, dir.rva, format!("its descriptor {index} lies outside the image")));
        };
        let Some(lists) = entry else { return Ok(all) };
        let module_as_written = bytes::name_at(image, lists.name.into()).map_err(|e| {
            bad(table, lists.name, format!("the module name of descriptor {index} {}", e.why()))
        })?;
        symbols(image, table, &lists, &module_as_written, &mut all)?;
    }
    Err(bad(table, dir.rva, format!("it names more than {MAX_MODULES} modules")))
}

fn symbols(
    image: &[u8],
    table: &'static str,
    lists: &Lists,
    module: &str,
    all: &mut Vec<Import>,
) -> Result<(), ImageError> {
    let (mut lookup, mut slot) = (lists.lookup, lists.iat);
    loop {
        let thunk = bytes::u64_at(image, lookup.into()).ok_or_else(|| {
            bad(table, lookup, format!("the list of symbols of {module} runs out of the image"))
        })?;
        if thunk == 0 {
            return Ok(());
        }
        if bytes::slice(image, slot.into(), 8).is_none() {
            return Err(bad(table, slot, format!("an address slot for {module} lies outside the image")));
        }
        let symbol = if thunk & pe::IMAGE_ORDINAL_FLAG64 != 0 {
            Symbol::Ordinal((thunk & 0xffff) as u16)
        } else {
            // Two bytes of hint come before the name.
            let name = u32::try_from(thunk).ok().and_then(|rva| rva.checked_add(2)).ok_or_else(|| {
                bad(table, lookup, format!("a symbol of {module} is at RVA {thunk:#x}, outside the image"))
            })?;
            Symbol::Name(
                bytes::name_at(image, name.into())
                    .map_err(|e| bad(table, name, format!("a symbol name of {module} {}", e.why())))?,
            )
        };
        if all.len() == MAX_IMPORTS {
            return Err(bad(table, lookup, format!("it has more than {MAX_IMPORTS} symbols")));
        }
        all.push(Import {
            module: module.to_ascii_lowercase(),
            module_as_written: module.to_owned(),
            symbol,
            iat_rva: slot,
        });
        // Inside the image, whose size is far below the limit of a u32.
        lookup += 8;
        slot += 8;
    }
}
