//! The export table.

use crate::{ImageError, bytes, headers::Directory};
use object::{LittleEndian as LE, pe};

const TABLE: &str = "export table";
/// Ordinals are 16 bits wide.
const MAX_EXPORTS: u32 = 65_536;

/// One export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its name; `None` when it is exported by ordinal only. An address with several names appears once a name.
    pub name: Option<String>,
    /// Its ordinal, the table's base included.
    pub ordinal: u32,
    /// What it stands for.
    pub target: ExportTarget,
}

/// What an export stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportTarget {
    /// Code or data in this image.
    Rva(u32),
    /// Another module's export, as `MODULE.Name` or `MODULE.#ordinal`.
    Forwarder(String),
}

fn bad(rva: u32, why: impl Into<String>) -> ImageError {
    ImageError::Table { table: TABLE, rva, why: why.into() }
}

pub(crate) fn parse(image: &[u8], dir: Directory) -> Result<(Vec<Export>, Option<String>), ImageError> {
    if dir.rva == 0 {
        return Ok((Vec::new(), None));
    }
    let d: pe::ImageExportDirectory =
        bytes::pod(image, dir.rva.into()).ok_or_else(|| bad(dir.rva, "it lies outside the image"))?;
    let (functions, names, base) = (d.number_of_functions.get(LE), d.number_of_names.get(LE), d.base.get(LE));
    if functions > MAX_EXPORTS || names > MAX_EXPORTS {
        return Err(bad(
            dir.rva,
            format!("it declares {functions} functions and {names} names, more than 65536"),
        ));
    }
    let list = |rva: u32, len: u32, what: &str| {
        bytes::slice(image, rva.into(), len.into())
            .ok_or_else(|| bad(rva, format!("its {what} list of {len:#x} bytes lies outside the image")))
    };
    let addresses = list(d.address_of_functions.get(LE), functions * 4, "address")?;
    let name_rvas = list(d.address_of_names.get(LE), names * 4, "name")?;
    let ordinals = list(d.address_of_name_ordinals.get(LE), names * 2, "ordinal")?;
    let own_name = match d.name.get(LE) {
        0 => None,
        rva => Some(
            bytes::name_at(image, rva.into())
                .map_err(|e| bad(rva, format!("the module name {}", e.why())))?,
        ),
    };
    let target = |index: u32| -> Result<Option<ExportTarget>, ImageError> {
        let rva = bytes::u32_at(addresses, u64::from(index) * 4).unwrap_or(0);
        if rva == 0 {
            return Ok(None);
        }
        if rva.checked_sub(dir.rva).is_some_and(|d| d < dir.size) {
            let to = bytes::name_at(image, rva.into())
                .map_err(|e| bad(rva, format!("the forwarder of function {index} {}", e.why())))?;
            return Ok(Some(ExportTarget::Forwarder(to)));
        }
        if rva as usize >= image.len() {
            return Err(bad(dir.rva, format!("function {index} is at RVA {rva:#x}, outside the image")));
        }
        Ok(Some(ExportTarget::Rva(rva)))
    };
    let mut all = Vec::new();
    let mut named = vec![false; functions as usize];
    for i in 0..names {
        let rva = bytes::u32_at(name_rvas, u64::from(i) * 4).unwrap_or(0);
        let index = u32::from(bytes::u16_at(ordinals, u64::from(i) * 2).unwrap_or(0));
        let name = bytes::name_at(image, rva.into())
            .map_err(|e| bad(rva, format!("the name of export {i} {}", e.why())))?;
        let Some(seen) = named.get_mut(index as usize) else {
            return Err(bad(
                dir.rva,
                format!("{name} has index {index}, but there are {functions} functions"),
            ));
        };
        *seen = true;
        if let Some(target) = target(index)? {
            all.push(Export { name: Some(name), ordinal: base.wrapping_add(index), target });
        }
    }
    for (index, _) in (0..functions).zip(&named).filter(|(_, named)| !**named) {
        if let Some(target) = target(index)? {
            all.push(Export { name: None, ordinal: base.wrapping_add(index), target });
        }
    }
    all.sort_by(|a, b| (a.ordinal, &a.name).cmp(&(b.ordinal, &b.name)));
    Ok((all, own_name))
}
