//! Runs single instructions on the host processor and in the engine, from the same state, and compares.
//!
//! Instructions are found by decoding: opcode maps, prefixes and ModRM forms are enumerated, and whatever
//! `iced-x86` knows in the supported sets is kept, sorted by encoding ([`forms`]). A case is one of them with
//! registers and memory ([`case`]); the host runs thousands in a forked child ([`native`]), the engine runs the
//! same ([`engine`]), and [`compare`] tells the differences, without the flags that the manual leaves undefined.

pub mod case;
pub mod compare;
pub mod engine;
pub mod forms;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod native;
