//! A laboratory for the interrupt code of Windows drivers.
//!
//! The facade: what a program needs to describe a lab, run a driver in it, and tell what happened. It prints
//! nothing and reads no clock; `dirql-cli` does.

mod checks;
pub mod conformance;
pub mod explore;
pub mod file;
mod inspect;
pub mod lab;
pub mod models;
mod places;
mod plan;
pub mod problem;
pub mod report;
pub mod rules;
mod run;
pub mod sdk;
pub mod status;

pub use inspect::{CONNECTORS, ExportLine, ImportLine, InspectReport, exports, inspect};
pub use lab::Lab;
pub use problem::InputError;
pub use report::{Finding, RunReport, Verdict};
pub use run::{Bench, RunOptions, prepare, run};
