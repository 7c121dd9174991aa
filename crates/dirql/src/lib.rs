//! A laboratory for the interrupt code of Windows drivers.
//!
//! The facade: what a program needs to describe a lab, run a driver in it, and tell what happened. It prints
//! nothing and reads no clock; `dirql-cli` does.

pub mod file;
pub mod lab;
pub mod models;
mod plan;
pub mod problem;
pub mod report;
mod run;
pub mod sdk;
pub mod status;

pub use lab::Lab;
pub use problem::InputError;
pub use report::{Finding, RunReport, Verdict};
pub use run::{ExportLine, ImportLine, InspectReport, RunOptions, exports, inspect, run};
