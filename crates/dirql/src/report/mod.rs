//! What a run came to: one model, several faces.

mod story;
mod text;
mod trace;

use serde::Serialize;

pub use story::{Connection, FirstLine, IrpLine, PnpLine, RunStory, StepLine, VectorCount};
pub use trace::trace_line;

use crate::lab::Level;
use crate::problem::InputError;

/// How a command ended. The four kinds of failure are never mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing wrong. Exit code 0.
    Ok,
    /// The driver failed, or there are findings. Exit code 1.
    Finding,
    /// The command, lab or image is bad. Exit code 2.
    Input,
    /// The driver or lab needs something dirql lacks. Exit code 3.
    Missing,
    /// A bug in dirql. Exit code 4.
    Internal,
}

impl Verdict {
    /// The exit code of a command that ends so.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Finding => 1,
            Self::Input => 2,
            Self::Missing => 3,
            Self::Internal => 4,
        }
    }
}

/// A place that a finding points to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// `outer`, `inner` or `at`.
    pub role: String,
    /// The image.
    pub image: Option<String>,
    /// The address, relative to the image's base.
    pub rva: Option<u64>,
    /// The function.
    pub function: Option<String>,
    /// The source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// The processor.
    pub cpu: Option<u32>,
    /// The IRQL.
    pub irql: Option<u8>,
    /// `thread`, `isr` or `dpc`, with what tells it apart.
    pub context: Option<String>,
    /// Return addresses, innermost first.
    pub stack: Vec<String>,
}

/// Something wrong, or worth telling.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The rule's id, one of [`crate::rules::RULES`], `missing`, `input` or `internal`.
    pub rule: String,
    /// How serious.
    pub level: Level,
    /// What happened, in words.
    pub message: String,
    /// Where.
    pub places: Vec<Place>,
    /// The choices that differ from the default policy.
    pub deviations: Vec<String>,
    /// The command that replays it, if the run can be replayed.
    pub replay: Option<String>,
}

impl Finding {
    /// A finding without places.
    #[must_use]
    pub fn new(rule: &str, message: impl Into<String>) -> Self {
        Self {
            rule: rule.into(),
            level: Level::Finding,
            message: message.into(),
            places: Vec::new(),
            deviations: Vec::new(),
            replay: None,
        }
    }

    /// The finding with one place more; a place that says nothing is left out.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        if place.image.is_some() || place.file.is_some() || !place.stack.is_empty() {
            self.places.push(place);
        }
        self
    }
}

/// Figures of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Instructions retired by all processors.
    pub instructions: u64,
    /// Virtual nanoseconds.
    pub virtual_ns: u64,
    /// Events.
    pub events: u64,
    /// Events beyond what a run keeps; the story does not know of them.
    pub events_lost: u64,
    /// The counters that a `[check]` may bound, by name.
    pub counters: std::collections::BTreeMap<&'static str, u64>,
}

/// The report of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunReport {
    /// How it ended.
    pub verdict: Verdict,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Figures.
    pub stats: Stats,
    /// What happened.
    pub story: RunStory,
    /// The lab that was made for the run, as a file to keep; none if there was a lab.
    pub made_lab: Option<String>,
    /// The bad input, with its excerpts, if that is what ended the command.
    pub input: Option<InputError>,
    /// Every event, in order, if the run was traced.
    pub events: Vec<dirql_event::Event>,
}

impl RunReport {
    /// A report of a run that did not come about.
    #[must_use]
    pub fn failed(verdict: Verdict, rule: &str, message: impl Into<String>) -> Self {
        Self {
            verdict,
            findings: vec![Finding::new(rule, message)],
            stats: Stats::default(),
            story: RunStory::default(),
            made_lab: None,
            input: None,
            events: Vec::new(),
        }
    }

    /// The report as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut out = serde_json::json!({
            "dirql": env!("CARGO_PKG_VERSION"),
            "verdict": self.verdict,
            "findings": self.findings,
            "stats": self.stats,
            "story": self.story,
        });
        if let Some(lab) = &self.made_lab {
            out["lab"] = serde_json::json!(lab);
        }
        out
    }

    /// The report as text, with ANSI styles if `colour`.
    #[must_use]
    pub fn to_text(&self, colour: bool) -> String {
        text::render(self, colour)
    }
}

impl From<InputError> for RunReport {
    fn from(error: InputError) -> Self {
        let mut report = Self::failed(Verdict::Input, "input", "");
        report.findings = error
            .problems
            .iter()
            .map(|p| {
                let help = p.help.as_ref().map_or_else(String::new, |h| format!("; {h}"));
                let finding =
                    Finding::new("input", crate::problem::printable(&format!("{}{help}", p.message)));
                match &error.file {
                    Some(file) => finding.at(Place {
                        role: "at".into(),
                        file: Some(file.display().to_string()),
                        line: error.position(p).and_then(|(line, _)| u32::try_from(line).ok()),
                        ..Place::default()
                    }),
                    None => finding,
                }
            })
            .collect();
        report.input = Some(error);
        report
    }
}
