//! `dirql conformance`: runs the conformance driver under every profile and prints each case.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use dirql::conformance::{Case, Outcome, Row, conformance};
use dirql::{Finding, InputError, RunReport, Verdict};
use serde_json::json;

/// The driver that comes with this dirql, so that the command works without its source tree.
const OWN: &[u8] = include_bytes!("../../../drivers/conformance.sys");

/// Arguments of `conformance`.
#[derive(Args)]
pub(crate) struct Conformance {
    /// The conformance driver [default: the one that is part of this dirql]
    image: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A folder of its own for the embedded image, gone when this is dropped.
struct Unpacked(PathBuf);

impl Unpacked {
    fn new() -> Result<Self, InputError> {
        let folder = std::env::temp_dir().join(format!("dirql-conformance-{}", std::process::id()));
        let cannot = |e: std::io::Error| {
            let message = format!("the embedded conformance driver can't be written: {e}");
            InputError::new(Some(&folder), message, Some("set TMPDIR to a writable folder, or name an image"))
        };
        // Not `create_dir_all`: what is there already is someone else's.
        std::fs::create_dir(&folder).map_err(cannot)?;
        let own = Self(folder.clone());
        std::fs::write(own.image(), OWN).map_err(cannot)?;
        Ok(own)
    }

    fn image(&self) -> PathBuf {
        self.0.join("conformance.sys")
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // A folder that stays behind is no reason to fail a run that is over.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Conformance {
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// What to print, and how it ended; or what is wrong with the image.
    pub(crate) fn execute(self) -> Result<(String, Verdict), Box<RunReport>> {
        let bad = |error: InputError| Box::new(RunReport::from(error));
        let rows = match &self.image {
            Some(image) => run(image).map_err(bad)?,
            None => {
                let own = Unpacked::new().map_err(bad)?;
                run(&own.image()).map_err(bad)?
            }
        };
        let verdict = verdict(&rows);
        Ok((if self.json { as_json(&rows, verdict) } else { as_text(&rows) }, verdict))
    }
}

fn run(image: &Path) -> Result<Vec<Row>, InputError> {
    // Looked at once here, so that a bad image is said once and not once a profile.
    dirql::inspect(image)?;
    Ok(conformance(image))
}

/// The worst of the rows: dirql's own bug before what it lacks, and that before a failed case.
fn verdict(rows: &[Row]) -> Verdict {
    for worst in [Verdict::Internal, Verdict::Input, Verdict::Missing] {
        if rows.iter().any(|row| row.verdict == worst) {
            return worst;
        }
    }
    if rows.iter().all(Row::passed) { Verdict::Ok } else { Verdict::Finding }
}

fn count(rows: &[Row], outcome: Outcome) -> usize {
    rows.iter().map(|row| row.count(outcome)).sum()
}

fn profile(row: &Row) -> String {
    let mut out = format!("windows {}, {}", row.windows, row.interrupts);
    out += if row.fixed_delivery { ", fixed delivery" } else { "" };
    out += if row.locks_per_set { ", a lock per set" } else { "" };
    out
}

/// A case's detail as expected, got and source; `None` for one that was skipped.
fn columns(case: &Case) -> Option<(&str, &str, &str)> {
    let (expected, rest) = case.detail.strip_prefix("expected ")?.split_once(" got ")?;
    let (got, source) = rest.split_once(" (")?;
    Some((expected, got, source.strip_suffix(')').unwrap_or(source)))
}

/// What a driver prints is its maker's: nothing of it may drive the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn as_text(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        let _ = writeln!(out, "{}", profile(row));
        for case in &row.cases {
            let word = match case.outcome {
                Outcome::Passed => "ok",
                Outcome::Failed => "FAIL",
                Outcome::Skipped => "skip",
            };
            let name = clean(&case.name);
            let _ = match columns(case) {
                Some((expected, got, source)) => {
                    let (expected, got, source) = (clean(expected), clean(got), clean(source));
                    writeln!(out, "  {word:4} {name:48} expected {expected:10} got {got:10} {source}")
                }
                None => writeln!(out, "  {word:4} {name:48} {}", clean(&case.detail)),
            };
        }
        for finding in &row.findings {
            let _ = writeln!(out, "  {}: {}", clean(&finding.rule), clean(&finding.message));
        }
        if row.cases.is_empty() {
            let _ = writeln!(out, "  no case was printed");
        }
    }
    let good = rows.iter().filter(|row| row.passed()).count();
    let _ = writeln!(
        out,
        "{good} of {} profiles passed: {} cases passed, {} failed, {} skipped",
        rows.len(),
        count(rows, Outcome::Passed),
        count(rows, Outcome::Failed),
        count(rows, Outcome::Skipped)
    );
    out
}

fn as_json(rows: &[Row], verdict: Verdict) -> String {
    let mut findings: Vec<Finding> = vec![];
    for row in rows.iter().filter(|row| !row.passed()) {
        let message = format!(
            "{}: {} passed, {} failed",
            profile(row),
            row.count(Outcome::Passed),
            row.count(Outcome::Failed)
        );
        findings.push(Finding::new("conformance", message));
        findings.extend(row.findings.iter().cloned());
    }
    let mut object = crate::show::object(verdict, "conformance", &rows);
    object["findings"] = json!(findings);
    object["stats"] = json!({
        "profiles": rows.len(),
        "passed": count(rows, Outcome::Passed),
        "failed": count(rows, Outcome::Failed),
        "skipped": count(rows, Outcome::Skipped),
    });
    format!("{object}\n")
}
