//! Offsets and sizes of the Windows x64 structures that drivers touch, under the names Windows gives them.
//!
//! `layout::DEVICE_OBJECT::DeviceExtension` is the byte offset of that member and `layout::DEVICE_OBJECT::SIZE` the size of the
//! structure. A member of a nested structure or union has its path joined by underscores:
//! `layout::IRP::Tail_Overlay_CurrentStackLocation`. Offsets are `u64` so that they add to guest addresses.
//!
//! The numbers are those of the C compiler: `tests/layout.c` asks it, `tests/layout.txt` records its answer, and a test compares
//! the two with every constant here. The structures are the Windows 7 and later forms (`NT_PROCESSOR_GROUPS`).
//!
//! Sizes that need care: the system allocates a DEVICE_OBJECT rounded up to 16 bytes ([`DEVICE_OBJECT_ALLOCATION`], spec 2.5), and
//! the size of a structure that ends in a variable array counts one element.
#![allow(non_snake_case, non_upper_case_globals, reason = "the names are the ones Windows headers use")]

/// A structure's name, size and members, for checks and for showing memory to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Structure {
    /// The Windows name.
    pub name: &'static str,
    /// `sizeof`, in bytes.
    pub size: u64,
    /// Members in declaration order.
    pub fields: &'static [Field],
}

/// One member of a [`Structure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Name, nested members joined by underscores.
    pub name: &'static str,
    /// Byte offset from the start of the structure.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

impl Structure {
    /// The innermost listed member that covers `offset`: for reports such as "DEVICE_OBJECT.Dpc + 8".
    #[must_use]
    pub fn field_at(&self, offset: u64) -> Option<&'static Field> {
        self.fields
            .iter()
            .filter(|f| offset.checked_sub(f.offset).is_some_and(|d| d < f.size))
            .min_by_key(|f| f.size)
    }
}

macro_rules! layout {
    ($( $name:ident $size:literal { $( $field:ident $offset:literal $len:literal, )* } )*) => {
        $(
            #[doc = concat!("Offsets in `", stringify!($name), "`.")]
            pub mod $name {
                #[doc = concat!("Size of `", stringify!($name), "` in bytes.")]
                pub const SIZE: u64 = $size;
                $(
                    #[doc = concat!("Offset of `", stringify!($field), "`, ", stringify!($len), " bytes.")]
                    pub const $field: u64 = $offset;
                )*
            }
        )*
        pub(super) const TABLE: &[super::Structure] = &[
            $( super::Structure {
                name: stringify!($name),
                size: $size,
                fields: &[ $( super::Field { name: stringify!($field), offset: $offset, size: $len } ),* ],
            } ),*
        ];
    };
}
use layout;

mod basic;
mod dma;
mod interrupt;
mod io;
mod ke;
mod pnp;

pub use basic::*;
pub use dma::*;
pub use interrupt::*;
pub use io::*;
pub use ke::*;
pub use pnp::*;

/// Bytes the system allocates for a DEVICE_OBJECT before the device extension (spec 2.5, I-6).
pub const DEVICE_OBJECT_ALLOCATION: u64 = 0x150;

/// Every structure of this module.
pub fn structures() -> impl Iterator<Item = &'static Structure> {
    [basic::TABLE, dma::TABLE, interrupt::TABLE, io::TABLE, ke::TABLE, pnp::TABLE].into_iter().flatten()
}

/// The structure of that Windows name.
#[must_use]
pub fn structure(name: &str) -> Option<&'static Structure> {
    structures().find(|s| s.name == name)
}
