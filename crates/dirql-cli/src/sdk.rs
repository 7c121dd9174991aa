//! `dirql sdk DIR`: writes the SDK's files.

use std::fs;
use std::path::Path;

use dirql::InputError;

/// Writes every file under `folder`, and says which; files of other names there are left alone.
///
/// # Errors
/// A file or folder can't be written.
pub(crate) fn write(folder: &Path) -> Result<String, InputError> {
    let mut text = String::new();
    for file in dirql::sdk::files() {
        let to = folder.join(file.path);
        let parent = to.parent().unwrap_or(folder);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&to, &file.data))
            .map_err(|error| InputError::new(Some(&to), error.to_string(), None))?;
        text += &format!("{} ({} bytes)\n", to.display(), file.data.len());
    }
    Ok(text)
}
