//! Iointex: `IoConnectInterruptEx` for a driver that must also load on Windows 2000, XP and Server 2003.
//!
//! Those kernels export only `IoConnectInterrupt`, and a driver that imports a routine which its kernel lacks does not
//! load. So a driver calls the `Wdmlib` names of this library, which is linked into it: they find the real routines by
//! `MmGetSystemRoutineAddress`, and where there are none serve `CONNECT_FULLY_SPECIFIED` through the old pair. Any
//! other version is answered with an error and `Version = CONNECT_FULLY_SPECIFIED`, by which the driver knows what to
//! ask for instead.
//!
//! After the page "Using IoConnectInterruptEx Prior to Windows Vista" and the reference pages of `iointex.h`. A C
//! driver includes `iointex.h` and links `iointex.lib` or `libiointex.a` (`dirql sdk` writes them); a Rust driver may
//! use this crate as it is.
//!
//! No `std`, no allocation, no dependencies, and nothing that can panic: the object file refers to nothing but the
//! kernel's routines, which `cargo xtask sdk --check` verifies.
//!
//! Left out: the `WdmlibProcgrp` and `WdmlibIoCreateDeviceSecure` families, which are other libraries.
#![cfg_attr(not(test), no_std)]

pub mod abi;
mod connect;
#[cfg(windows)]
mod kernel;

pub use connect::{Kernel, connect, disconnect, get_affinity};
#[cfg(windows)]
pub use kernel::{WdmlibIoConnectInterruptEx, WdmlibIoDisconnectInterruptEx, WdmlibIoGetAffinityInterrupt};
