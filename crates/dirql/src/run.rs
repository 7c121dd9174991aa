//! What the commands do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dirql_image::Image;
use dirql_kernel::boot::Boot;
use dirql_kernel::registry::Registry;
use dirql_kernel::stop::Stop;
use dirql_kernel::system::{Ended, System};
use serde::Serialize;

use crate::lab::Lab;
use crate::problem::InputError;
use crate::report::{Finding, RunReport, Verdict};

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
    let bytes = match crate::file::read(&options.image, crate::file::IMAGE_SIZE_CAP, "image") {
        Ok(bytes) => bytes,
        Err(error) => return error.into(),
    };
    let image = match parse(&options.image, &bytes) {
        Ok(image) => image,
        Err(error) => return error.into(),
    };
    let (machine, plan) = match crate::plan::plan(&lab) {
        Ok(made) => made,
        Err(error) => return error.into(),
    };
    let boot = Boot {
        config: crate::plan::profile(&lab),
        windows_build: crate::plan::build_number(lab.machine.windows),
        image_name: file_name(&options.image),
        image: Arc::new(image),
        plan,
        registry: Registry::default(),
        budget: lab.budget,
        trace_exports: options.trace,
    };
    let mut system = match System::boot(machine, boot) {
        Ok(system) => system,
        Err(stop) => {
            let (verdict, finding) = judge(&stop, &dirql_kernel::loader::Modules::default());
            return RunReport::failed(verdict, &finding.rule, finding.message);
        }
    };
    let ended = system.run();
    let events = system.take_events();
    let mut findings = vec![];
    let verdict = match &ended {
        Ended::Done => Verdict::Ok,
        // The story's own bug check event is the finding.
        Ended::Stopped(Stop::BugCheck(_)) => Verdict::Finding,
        Ended::Stopped(stop) => {
            let (verdict, finding) = judge(stop, &system.kernel.modules);
            findings.push(finding);
            verdict
        }
    };
    let mut report = RunReport::from_events(&events, system.retired(), &lab.check, findings, verdict);
    if options.trace {
        report.events = events;
    }
    report
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Image, InputError> {
    Image::parse(bytes).map_err(|e| InputError::new(Some(path), e.to_string(), None))
}

/// Whose fault a stop is, and how to say it.
fn judge(stop: &Stop, modules: &dirql_kernel::loader::Modules) -> (Verdict, Finding) {
    let at = |va: u64| modules.describe(va);
    match stop {
        Stop::BugCheck(b) => (Verdict::Finding, Finding::new("bugcheck", b.reason.clone())),
        Stop::Fault(f) => (Verdict::Finding, Finding::new("bugcheck", f.to_string())),
        Stop::NotLoaded { image, lacking, status } => {
            let status = crate::status::show(*status);
            let routines: Vec<String> = lacking
                .iter()
                .map(|(routine, since)| format!("{routine} (since {})", dirql_kernel::windows::name(*since)))
                .collect();
            let message = format!(
                "{image} does not load on this Windows ({status}): it imports {}, which its kernel lacks",
                routines.join(", ")
            );
            (Verdict::Finding, Finding::new("load", message))
        }
        Stop::MissingExport { module, name, caller } => (
            Verdict::Missing,
            Finding::new(
                "missing",
                format!(
                    "the driver called {module}!{name} from {}; dirql does not implement it",
                    at(*caller)
                ),
            ),
        ),
        Stop::MissingFeature { what, caller } => (
            Verdict::Missing,
            Finding::new(
                "missing",
                format!("the driver needs {what} (at {}); dirql does not have it", at(*caller)),
            ),
        ),
        Stop::MissingInstruction { rip, text } => (
            Verdict::Missing,
            Finding::new("missing", format!("the instruction `{text}` at {} is not implemented", at(*rip))),
        ),
        Stop::Budget { at: cpus } => {
            let places: Vec<String> =
                cpus.iter().enumerate().map(|(i, rip)| format!("CPU {i} at {}", at(*rip))).collect();
            let message = format!(
                "the instruction budget ran out ({}); a larger `budget` in the lab, or --budget, lets it run on",
                places.join(", ")
            );
            (Verdict::Finding, Finding::new("budget", message))
        }
        Stop::Hang { why } => (Verdict::Finding, Finding::new("hang", format!("nothing can go on: {why}"))),
        Stop::OutOfMemory => {
            (Verdict::Finding, Finding::new("memory", "the driver used up the machine's memory"))
        }
        Stop::Internal(what) => (Verdict::Internal, Finding::new("internal", what.clone())),
    }
}

/// Reads an image and says what it imports.
///
/// # Errors
/// If the image can't be read, or is no x64 driver.
pub fn inspect(path: &Path) -> Result<InspectReport, InputError> {
    let bytes = crate::file::read(path, crate::file::IMAGE_SIZE_CAP, "image")?;
    let image = parse(path, &bytes)?;
    let missing = dirql_kernel::loader::missing_imports(&image);
    let imports = image
        .imports
        .iter()
        .map(|i| {
            let name = match &i.symbol {
                dirql_image::Symbol::Name(n) => n.clone(),
                dirql_image::Symbol::Ordinal(n) => format!("#{n}"),
            };
            let implemented = !missing.iter().any(|m| m.module == i.module && m.name == name);
            ImportLine { module: i.module.clone(), name, implemented }
        })
        .collect();
    let (size, entry) = (u64::from(image.size_of_image), u64::from(image.entry_rva));
    Ok(InspectReport { image: file_name(path), size, entry, imports })
}

/// Every export that dirql implements, by module and name.
#[must_use]
pub fn exports() -> Vec<ExportLine> {
    dirql_kernel::loader::implemented_exports()
        .into_iter()
        .map(|(name, _)| ExportLine { module: "ntoskrnl.exe".into(), name: name.into() })
        .collect()
}
