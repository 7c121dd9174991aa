//! The image as it lies in memory: file bytes at their RVAs, zeros elsewhere, and what may be done with each page.

use crate::{Image, Section, headers::Headers};
use object::pe;
use std::sync::Arc;

const PAGE: u32 = 0x1000;
/// Raw data starts on a disk sector for the loader, whatever the section header says below that.
const SECTOR: u32 = 0x200;

/// What may be done with one page of a loaded image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protection {
    /// May be read.
    pub readable: bool,
    /// May be written.
    pub writable: bool,
    /// May be executed.
    pub executable: bool,
    /// Freed after DriverEntry returned.
    pub discardable: bool,
    /// May be paged out, so it may not be touched at DISPATCH_LEVEL or above.
    pub pageable: bool,
}

/// The unrelocated image and its sections. The headers are checked: nothing here can be out of bounds.
pub(crate) fn map(file: &[u8], h: &Headers) -> (Arc<[u8]>, Vec<Section>) {
    let mut image = vec![0_u8; h.size_of_image as usize];
    let mut sections = Vec::new();
    if h.is_flat() {
        copy(&mut image, 0, file, 0, h.size_of_image);
    } else {
        copy(&mut image, 0, file, 0, h.size_of_headers);
    }
    for s in &h.sections {
        let (raw_offset, raw_size) = if s.raw_offset == 0 {
            (0, 0)
        } else if h.is_flat() {
            (s.raw_offset, s.raw_size.min(s.mapped_size()))
        } else {
            // Whole pages are mapped: raw bytes after the virtual size appear up to the end of its last page.
            let room = s.mapped_size().next_multiple_of(PAGE).min(h.size_of_image - s.rva);
            (s.raw_offset & !(SECTOR - 1), s.raw_size.min(room))
        };
        if !h.is_flat() {
            copy(&mut image, s.rva, file, raw_offset, raw_size);
        }
        let has = |flag: pe::SectionFlags| s.characteristics & flag.0 != 0;
        sections.push(Section {
            name: s.name.clone(),
            rva: s.rva,
            virtual_size: s.mapped_size(),
            data: s.rva..s.rva + raw_size,
            file_offset: raw_offset,
            // x86 pages that are present are readable.
            readable: true,
            writable: h.is_flat() || has(pe::IMAGE_SCN_MEM_WRITE),
            executable: h.is_flat() || has(pe::IMAGE_SCN_MEM_EXECUTE),
            discardable: has(pe::IMAGE_SCN_MEM_DISCARDABLE),
            pageable: s.name.starts_with("PAGE"),
        });
    }
    (image.into(), sections)
}

/// Copies what exists of `len` bytes.
fn copy(image: &mut [u8], rva: u32, file: &[u8], offset: u32, len: u32) {
    let to = image.get_mut(rva as usize..).unwrap_or_default();
    let from = file.get(offset as usize..).unwrap_or_default();
    let n = to.len().min(from.len()).min(len as usize);
    to[..n].copy_from_slice(&from[..n]);
}

impl Image {
    /// What may be done with each 4 KiB page of the loaded image, in address order.
    ///
    /// Headers are read-only. When sections are not page aligned, sections share pages and Windows makes all of them readable,
    /// writable and executable, keeps them resident and frees none early.
    #[must_use]
    pub fn page_protections(&self) -> Vec<Protection> {
        let pages = self.size_of_image.div_ceil(PAGE) as usize;
        if self.section_alignment < PAGE {
            let all =
                Protection { readable: true, writable: true, executable: true, ..Protection::default() };
            return vec![all; pages];
        }
        let mut map = vec![Protection { readable: true, ..Protection::default() }; pages];
        for s in &self.sections {
            let first = (s.rva / PAGE) as usize;
            let last = (u64::from(s.rva) + u64::from(s.virtual_size)).div_ceil(u64::from(PAGE)) as usize;
            for page in map.iter_mut().take(last).skip(first) {
                *page = Protection {
                    readable: s.readable,
                    writable: s.writable,
                    executable: s.executable,
                    discardable: s.discardable,
                    pageable: s.pageable,
                };
            }
        }
        map
    }
}
