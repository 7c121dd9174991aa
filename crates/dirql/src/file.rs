//! Reading files that others made.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::problem::InputError;

/// The largest image, in bytes.
pub const IMAGE_SIZE_CAP: u64 = 256 << 20;

/// Reads a whole regular file of at most `cap` bytes. `what` is its part, for messages: "image", "lab".
///
/// # Errors
/// If there is no such file, it can't be read, is a folder or a device, is empty, or is larger than `cap`.
pub fn read(path: &Path, cap: u64, what: &str) -> Result<Vec<u8>, InputError> {
    let fail = |message: String, help: &str| InputError::new(Some(path), message, Some(help));
    let cannot = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => fail(format!("there is no such {what} file"), &near(path)),
        ErrorKind::PermissionDenied => {
            fail(format!("the {what} can't be read: permission denied"), "check the file's permissions")
        }
        _ => fail(format!("the {what} can't be read: {e}"), "check the file and the disk it is on"),
    };
    // Asked before opening: opening a pipe would wait for its other end.
    let meta = std::fs::metadata(path).map_err(cannot)?;
    if meta.is_dir() {
        return Err(fail(format!("this is a folder, not a {what}"), &format!("name the {what} file itself")));
    }
    if !meta.is_file() {
        return Err(fail(format!("this is no regular file, so no {what}"), "copy it to a file first"));
    }
    let too_large = || {
        fail(
            format!("the {what} is larger than {} MiB", cap >> 20),
            &format!("check that this is the {what} meant"),
        )
    };
    if meta.len() > cap {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // The file may grow meanwhile; the cap holds all the same.
    File::open(path).and_then(|f| f.take(cap + 1).read_to_end(&mut bytes)).map_err(cannot)?;
    if bytes.len() as u64 > cap {
        return Err(too_large());
    }
    if bytes.is_empty() {
        return Err(fail(format!("the {what} is empty"), "check that it was built or copied completely"));
    }
    Ok(bytes)
}

/// Names the file in the same folder that may have been meant.
fn near(path: &Path) -> String {
    const LOOKED_AT: usize = 2000;
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else {
        return format!("there is no folder {} either", folder.display());
    };
    let mut names: Vec<String> =
        entries.take(LOOKED_AT).flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    match crate::problem::nearest(&name, names.iter().map(String::as_str)) {
        Some(found) => format!("did you mean {}?", folder.join(found).display()),
        None => "check the path".into(),
    }
}
