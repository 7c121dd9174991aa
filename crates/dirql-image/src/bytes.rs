//! Bounded reading from a byte slice: everything that comes from a file goes through here.

use object::pod::{self, Pod};

/// A copy of the `T` at `offset`, if it fits.
pub(crate) fn pod<T: Pod + Copy>(data: &[u8], offset: u64) -> Option<T> {
    let tail = data.get(usize::try_from(offset).ok()?..)?;
    pod::from_bytes::<T>(tail).ok().map(|(value, _)| *value)
}

/// `len` bytes at `offset`, if they fit.
pub(crate) fn slice(data: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let end = offset.checked_add(len)?;
    data.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
}

/// The little-endian `u16` at `offset`.
pub(crate) fn u16_at(data: &[u8], offset: u64) -> Option<u16> {
    Some(u16::from_le_bytes(slice(data, offset, 2)?.try_into().ok()?))
}

/// The little-endian `u32` at `offset`.
pub(crate) fn u32_at(data: &[u8], offset: u64) -> Option<u32> {
    Some(u32::from_le_bytes(slice(data, offset, 4)?.try_into().ok()?))
}

/// The little-endian `u64` at `offset`.
pub(crate) fn u64_at(data: &[u8], offset: u64) -> Option<u64> {
    Some(u64::from_le_bytes(slice(data, offset, 8)?.try_into().ok()?))
}

/// Why a name could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadName {
    Outside,
    Unterminated,
    Empty,
    NotText,
}

impl BadName {
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::Outside => "lies outside the image",
            Self::Unterminated => "has no end within 1024 bytes",
            Self::Empty => "is empty",
            Self::NotText => "is not printable ASCII",
        }
    }
}

/// The NUL-terminated printable ASCII name at `offset`, at most 1024 bytes: longer than any real symbol in a driver, and it keeps
/// the work on a hostile file bounded.
pub(crate) fn name_at(data: &[u8], offset: u64) -> Result<String, BadName> {
    let start = usize::try_from(offset).map_err(|_| BadName::Outside)?;
    let tail = data.get(start..).filter(|t| !t.is_empty()).ok_or(BadName::Outside)?;
    let window = tail.get(..1025).unwrap_or(tail);
    let len = window.iter().position(|&b| b == 0).ok_or(BadName::Unterminated)?;
    let bytes = &window[..len];
    if bytes.is_empty() {
        return Err(BadName::Empty);
    }
    if !bytes.iter().all(|b| (0x20..0x7f).contains(b)) {
        return Err(BadName::NotText);
    }
    Ok(bytes.iter().map(|&b| char::from(b)).collect())
}
