//! What the commands do.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::lab::Lab;
use crate::problem::InputError;
use crate::report::{RunReport, Verdict};

/// What a run is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The driver's image.
    pub image: PathBuf,
    /// The lab; by default the one beside the image, else a made one.
    pub lab: Option<PathBuf>,
    /// Keep every event in the report.
    pub trace: bool,
    /// The instruction budget, instead of the lab's.
    pub budget: Option<u64>,
    /// The processors, instead of the lab's.
    pub cpus: Option<u32>,
}

impl RunOptions {
    /// The lab of the run: the one named, else the one beside the image, else a made one, which has no path.
    /// The options override it.
    ///
    /// # Errors
    /// If there is a lab and it is bad.
    pub fn lab(&self) -> Result<Lab, InputError> {
        let beside = Lab::beside(&self.image);
        let mut lab = match &self.lab {
            Some(path) => Lab::load(path)?,
            None if beside.is_file() => Lab::load(&beside)?,
            None => Lab::default_for(&self.image),
        };
        lab.budget = self.budget.unwrap_or(lab.budget);
        lab.machine.cpus = self.cpus.unwrap_or(lab.machine.cpus);
        Ok(lab)
    }
}

/// An import of an image, and whether dirql has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImportLine {
    /// The module.
    pub module: String,
    /// The routine.
    pub name: String,
    /// Whether dirql implements it.
    pub implemented: bool,
}

/// What an image tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectReport {
    /// The file's name.
    pub image: String,
    /// The size in memory, in bytes.
    pub size: u64,
    /// The entry point, relative to the base.
    pub entry: u64,
    /// The imports, in order.
    pub imports: Vec<ImportLine>,
}

/// An export that dirql implements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportLine {
    /// The module.
    pub module: String,
    /// The routine.
    pub name: String,
}

/// Runs a driver in its lab.
#[must_use]
pub fn run(options: &RunOptions) -> RunReport {
    let lab = match options.lab() {
        Ok(lab) => lab,
        Err(error) => return error.into(),
    };
    let lacking: Vec<String> = lab.lacking().iter().map(ToString::to_string).collect();
    if !lacking.is_empty() {
        return RunReport::failed(Verdict::Missing, "missing", lacking.join("\n"));
    }
    if let Err(error) = crate::file::read(&options.image, crate::file::IMAGE_SIZE_CAP, "image") {
        return error.into();
    }
    RunReport::failed(Verdict::Missing, "missing", "this build of dirql has no kernel joined to it")
}

/// Reads an image and says what it imports.
///
/// # Errors
/// If the image can't be read.
pub fn inspect(path: &Path) -> Result<InspectReport, InputError> {
    crate::file::read(path, crate::file::IMAGE_SIZE_CAP, "image")?;
    Err(InputError::new(Some(path), "this build of dirql has no image reader joined to it", None))
}

/// Every export that dirql implements, by module and name.
#[must_use]
pub fn exports() -> Vec<ExportLine> {
    Vec::new()
}
