//! What a Windows x64 driver sees in memory: structure layouts, NTSTATUS values, bug check codes and the constants of the
//! driver headers, each under the name Windows gives it.
//!
//! * [`layout`]: offsets and sizes, compared with the C compiler's in the tests.
//! * [`status`], [`bugcheck`]: values and names both ways.
//!
//! Nothing here knows guest memory, the kernel or the machine; structures are read from and written to byte slices.
//! 32-bit layouts are left out: dirql runs x64 drivers.

pub mod bugcheck;
pub mod layout;
pub mod status;

pub use bugcheck::bugcheck_name;
pub use status::{status_from_name, status_name};
