//! Source places: the stacks of a report's findings, with functions and lines where the driver's symbols tell.

use std::path::Path;

use dirql_image::{Image, Symbols};

use crate::report::RunReport;

/// The offset that a stack line such as `card.sys+0x1040` names in the image of that name.
fn offset(line: &str, image: &str) -> Option<u32> {
    let rva = line.strip_prefix(image)?.strip_prefix("+0x")?;
    u32::from_str_radix(rva, 16).ok()
}

/// Adds functions, files and lines to the stacks of the findings, and the place of each stack's innermost frame.
/// Symbols are read only when there is a stack: those in `path`, the file of `image`, and of a `.pdb` beside it.
pub(crate) fn add(report: &mut RunReport, path: &Path, image: &Image) {
    if report.findings.iter().all(|f| f.places.iter().all(|p| p.stack.is_empty())) {
        return;
    }
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let read = |path: &Path, what| crate::file::read(path, crate::file::IMAGE_SIZE_CAP, what).ok();
    let bytes = read(path, "image").unwrap_or_default();
    let pdb = read(&path.with_extension("pdb"), "symbols");
    let symbols = Symbols::of(image, &bytes, pdb.as_deref());
    for place in report.findings.iter_mut().flat_map(|f| &mut f.places) {
        for (depth, line) in place.stack.iter_mut().enumerate() {
            let Some(rva) = offset(line, &name) else { continue };
            // Behind the innermost are return addresses: the call is before them.
            let at = symbols.locate(if depth == 0 { rva } else { rva.saturating_sub(1) }).unwrap_or_default();
            if let Some(function) = &at.function {
                line.push_str(&format!(" {function}"));
            }
            if let (Some(file), Some(number)) = (&at.file, at.line) {
                line.push_str(&format!(" ({file}:{number})"));
            }
            if depth == 0 && place.rva.is_none() {
                place.image = Some(name.clone());
                place.rva = Some(rva.into());
                (place.function, place.file, place.line) = (at.function, at.file, at.line);
            }
        }
    }
}
