//! Base relocations: checked once when the image is read, applied for each base.

use crate::{Image, ImageError, bytes, headers::Directory};
use object::pe;

const BLOCK_HEADER: u32 = 8;

fn bad(rva: u32, why: impl Into<String>) -> ImageError {
    ImageError::Relocation { rva, why: why.into() }
}

fn type_name(kind: u16) -> &'static str {
    match kind {
        1 => "IMAGE_REL_BASED_HIGH",
        2 => "IMAGE_REL_BASED_LOW",
        3 => "IMAGE_REL_BASED_HIGHLOW",
        4 => "IMAGE_REL_BASED_HIGHADJ",
        5 | 7 | 8 | 9 => "a machine-specific type",
        _ => "an unknown type",
    }
}

/// Calls `each` with the RVA of every 64-bit field to relocate. Work is bounded by the directory, which lies in the image.
fn walk(image: &[u8], dir: Directory, mut each: impl FnMut(u32)) -> Result<(), ImageError> {
    if dir.rva == 0 || dir.size == 0 {
        return Ok(());
    }
    let len = u32::try_from(image.len()).unwrap_or(u32::MAX);
    let end = dir.rva.checked_add(dir.size).filter(|&e| e <= len).ok_or_else(|| {
        bad(dir.rva, format!("the directory's {:#x} bytes do not lie inside the image", dir.size))
    })?;
    let mut at = dir.rva;
    while end - at >= BLOCK_HEADER {
        let page = bytes::u32_at(image, at.into()).unwrap_or(0);
        let size = bytes::u32_at(image, u64::from(at) + 4).unwrap_or(0);
        if page == 0 && size == 0 {
            break; // Padding that some linkers leave at the end.
        }
        if size < BLOCK_HEADER || !size.is_multiple_of(2) || size > end - at {
            return Err(bad(
                at,
                format!("a block's size {size:#x} is not even, at least 8 and inside the directory"),
            ));
        }
        for entry_at in (at + BLOCK_HEADER..at + size).step_by(2) {
            let entry = bytes::u16_at(image, entry_at.into()).unwrap_or(0);
            let (kind, offset) = (entry >> 12, u32::from(entry & 0xfff));
            if kind == pe::IMAGE_REL_BASED_ABSOLUTE.0 {
                continue; // Pads a block to four bytes.
            }
            if kind != pe::IMAGE_REL_BASED_DIR64.0 {
                let name = type_name(kind);
                return Err(bad(
                    entry_at,
                    format!("an entry has type {kind} ({name}); x64 images use IMAGE_REL_BASED_DIR64"),
                ));
            }
            match page.checked_add(offset) {
                Some(rva) if rva.checked_add(8).is_some_and(|e| e <= len) => each(rva),
                _ => {
                    return Err(bad(
                        entry_at,
                        format!("an entry names {page:#x} + {offset:#x}, which is outside the image"),
                    ));
                }
            }
        }
        at += size;
    }
    Ok(())
}

/// Checks all blocks.
pub(crate) fn check(image: &[u8], dir: Directory) -> Result<(), ImageError> {
    walk(image, dir, |_| {})
}

impl Image {
    /// Whether the image can be loaded elsewhere than at its preferred base.
    #[must_use]
    pub fn is_relocatable(&self) -> bool {
        self.characteristics & pe::IMAGE_FILE_RELOCS_STRIPPED.0 == 0
    }

    /// The bytes of the whole image, relocated for `base`, with `base` in the header's ImageBase field as the loader leaves it.
    ///
    /// # Errors
    ///
    /// `base` not page aligned or too high; another base than the preferred one when the relocations were stripped.
    pub fn lay_out(&self, base: u64) -> Result<Vec<u8>, ImageError> {
        if base & 0xfff != 0 || base.checked_add(u64::from(self.size_of_image)).is_none() {
            return Err(ImageError::BadBase { base });
        }
        let mut image = self.mapped.to_vec();
        if base == self.preferred_base {
            return Ok(image);
        }
        if !self.is_relocatable() {
            return Err(ImageError::RelocationsStripped { preferred: self.preferred_base, base });
        }
        let delta = base.wrapping_sub(self.preferred_base);
        let dir =
            Directory { rva: self.relocations.start, size: self.relocations.end - self.relocations.start };
        walk(&self.mapped, dir, |rva| add(&mut image, rva, delta))?;
        let field = self.image_base_offset as usize;
        if let Some(bytes) = image.get_mut(field..field + 8) {
            bytes.copy_from_slice(&base.to_le_bytes());
        }
        Ok(image)
    }

    /// The RVA of every 64-bit pointer the loader relocates, in table order.
    #[must_use]
    pub fn relocations(&self) -> Vec<u32> {
        let dir =
            Directory { rva: self.relocations.start, size: self.relocations.end - self.relocations.start };
        let mut all = Vec::new();
        // The blocks were checked when the image was read.
        let _ = walk(&self.mapped, dir, |rva| all.push(rva));
        all
    }
}

fn add(image: &mut [u8], rva: u32, delta: u64) {
    let at = rva as usize;
    if let Some(field) = image.get_mut(at..at + 8) {
        let mut value = [0; 8];
        value.copy_from_slice(field);
        field.copy_from_slice(&u64::from_le_bytes(value).wrapping_add(delta).to_le_bytes());
    }
}
