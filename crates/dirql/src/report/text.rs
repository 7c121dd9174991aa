//! A report as text that a person grasps at a glance.

use std::fmt::Write;

use dirql_event::{InterruptMode, LockOwner, ResourceKind, ResourceLine, StepOutcome};

use super::{RunReport, Verdict};
use crate::lab::Level;
use crate::problem::printable;
use crate::status;

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[1;32m";
const YELLOW: &str = "\x1b[1;33m";
const RESET: &str = "\x1b[0m";

/// The most lines of one section; what is more is counted.
const MOST_LINES: usize = 40;

struct Out {
    text: String,
    colour: bool,
}

impl Out {
    fn styled(&self, style: &str, text: &str) -> String {
        if self.colour { format!("{style}{text}{RESET}") } else { text.into() }
    }

    fn section(&mut self, name: &str, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        let head = self.styled(BOLD, name);
        let _ = writeln!(self.text, "{head}");
        for line in lines.iter().take(MOST_LINES) {
            let _ = writeln!(self.text, "  {}", printable(line));
        }
        if lines.len() > MOST_LINES {
            let _ = writeln!(self.text, "  ... and {} more (--trace shows all)", lines.len() - MOST_LINES);
        }
    }
}

pub(super) fn render(report: &RunReport, colour: bool) -> String {
    let mut out = Out { text: String::new(), colour };
    if let Some(error) = &report.input {
        let head = out.styled(RED, "error");
        let text = error.to_string();
        // The excerpts name the word at the start of each problem; only its colour is ours.
        let text = if colour { text.replace("error:", &format!("{head}:")) } else { text };
        let _ = writeln!(out.text, "{text}");
        return out.text;
    }
    if let Some(lab) = &report.made_lab {
        let _ = writeln!(
            out.text,
            "# No lab was given, so this one was made. Save it as a .toml file to change it."
        );
        let _ = writeln!(out.text, "{}", lab.trim_end());
        let _ = writeln!(out.text, "# The run:\n");
    }
    before(&mut out, report);
    interrupts(&mut out, report);
    workload(&mut out, report);
    verdict(&mut out, report);
    out.text
}

/// What there was before an interrupt: the driver, its devices, and what it was given.
fn before(out: &mut Out, report: &RunReport) {
    let s = &report.story;
    let mut lines: Vec<_> = s.drivers.iter().map(|(image, base)| format!("{image} at {base:#x}")).collect();
    if !s.missing.is_empty() {
        lines.push(format!("imports {} routine(s) that dirql lacks, if it calls them:", s.missing.len()));
        lines.extend(s.missing.iter().map(|m| format!("  {m}")));
    }
    out.section("driver", &lines);
    let mut lines = Vec::new();
    for (name, model, id, interrupts) in &s.devices {
        lines.push(format!("{name}: {model} {id}, interrupts {interrupts}"));
        for r in s.resources.iter().filter(|(d, _)| d == name).flat_map(|(_, r)| r) {
            lines.push(format!("  {}", resource(r)));
        }
    }
    out.section("devices and the resources assigned", &lines);
    let mut lines: Vec<_> =
        s.entries.iter().map(|(what, code)| format!("{what}: {}", status::show(*code))).collect();
    for p in s.pnp.iter().filter(|p| p.minor == 0) {
        lines.push(format!("start {}: {}", p.device, status::show(p.status)));
    }
    out.section("start", &lines);
    let mut lines = Vec::new();
    for c in &s.connections {
        let back = if c.version_out == c.version {
            String::new()
        } else {
            format!(" (the driver is told {})", version(c.version_out).trim())
        };
        let device = c.device.as_deref().map_or_else(String::new, |d| format!("{d}: "));
        lines.push(format!("{device}{}{}{back}: {}", c.api, version(c.version), status::show(c.status)));
        for v in &c.vectors {
            let message = v.message.map_or_else(String::new, |m| format!("message {m}, "));
            let lock = if v.lock == LockOwner::Own { "its own spin lock" } else { "the driver's spin lock" };
            let mode = if v.mode == InterruptMode::Latched { "latched" } else { "level" };
            let shared = if v.shared { ", shared" } else { "" };
            let sync = if v.sync_irql == v.irql {
                String::new()
            } else {
                format!(" (its ISR runs at {})", v.sync_irql)
            };
            lines.push(format!(
                "  {message}vector {:#04x}, DIRQL {}{sync}, cpus {}, {mode}{shared}, {lock}",
                v.vector,
                v.irql,
                cpus(&v.cpus)
            ));
        }
    }
    out.section("interrupts connected", &lines);
}

fn resource(r: &ResourceLine) -> String {
    let (vector, irql) = (r.vector.unwrap_or(0), r.irql.unwrap_or(0));
    match r.kind {
        ResourceKind::Memory => format!("memory {:#x}, {:#x} bytes", r.start, r.length),
        ResourceKind::Port => format!("ports {:#x}, {:#x}", r.start, r.length),
        ResourceKind::Line => {
            let shared = if r.shared { ", shared" } else { "" };
            format!(
                "line GSI {} -> vector {vector:#x}, DIRQL {irql}, cpus {}{shared}",
                r.start,
                cpus(&r.cpus)
            )
        }
        ResourceKind::Message => {
            let many = if r.length == 1 { "1 message".into() } else { format!("{} messages", r.length) };
            format!("{many} -> vector {vector:#x}, DIRQL {irql}, cpus {}", cpus(&r.cpus))
        }
        ResourceKind::Other => "other".into(),
    }
}

/// What came of the interrupts.
fn interrupts(out: &mut Out, report: &RunReport) {
    let s = &report.story;
    let dirql = |vector: u32| {
        let mut all = s.connections.iter().flat_map(|c| &c.vectors);
        all.find(|v| v.vector == vector).map_or_else(|| "?".into(), |v| v.irql.to_string())
    };
    let mut lines: Vec<_> = Vec::new();
    if !s.vectors.is_empty() {
        lines.push("vector  message  DIRQL    ISR  claimed   DPCs  time at IRQL  longest".into());
    }
    for v in &s.vectors {
        let level = s.connections.iter().flat_map(|c| &c.vectors).find(|c| c.vector == v.vector);
        let level = level.is_some_and(|c| c.mode == InterruptMode::LevelSensitive);
        let message = v.message.map_or_else(|| if level { "line" } else { "-" }.into(), |m| m.to_string());
        lines.push(format!(
            "  {:#04x}  {message:>7}  {:>5}  {:>5}  {:>7}  {:>5}  {:>12}  {:>7}",
            v.vector,
            dirql(v.vector),
            v.isr,
            v.claimed,
            v.dpcs,
            time(v.ns),
            time(v.longest)
        ));
    }
    if s.raised + s.dpcs.0 + s.unexpected > 0 {
        let unexpected =
            if s.unexpected > 0 { format!(", {} unexpected", s.unexpected) } else { String::new() };
        let dpcs = s.dpcs.0;
        lines.push(format!(
            "{} raised by devices, {dpcs} DPCs took {}{unexpected}",
            s.raised,
            time(s.dpcs.1)
        ));
    }
    out.section("interrupts delivered", &lines);
    let mut lines = Vec::new();
    if let Some(start) = s.first.first() {
        lines.push(format!("{:>10}  cpu  IRQL", time(start.at)));
        for m in &s.first {
            let after = format!("+{}", time(m.at.saturating_sub(start.at)));
            let place = match m.cpu {
                Some(cpu) => format!("{cpu:>3}  {:>4}", m.irql),
                None => "  -     -".into(),
            };
            lines.push(format!("{after:>10}  {place}  {}", m.what));
        }
    }
    out.section("the first interrupt", &lines);
}

/// What the workload did and what the driver said.
fn workload(out: &mut Out, report: &RunReport) {
    let s = &report.story;
    let mut lines = Vec::new();
    for i in &s.irps {
        let end = match i.status {
            Some(code) if i.information > 0 => {
                format!("{}, information {}", status::show(code), i.information)
            }
            Some(code) => status::show(code),
            None => "not completed".into(),
        };
        let pending = if i.pending { ", was pending" } else { "" };
        lines.push(format!("{:>3} {}: {end}{pending}", i.id, i.what()));
    }
    out.section("requests (IRPs)", &lines);
    let mut lines = Vec::new();
    for step in &s.steps {
        let end = match (&step.outcome, step.status) {
            (StepOutcome::NotAsExpected { what, expected, got }, _) => {
                format!("{what} is {got}, not {expected}")
            }
            (StepOutcome::Pending, _) => "pending".into(),
            (StepOutcome::Done, Some(code)) => status::show(code),
            (StepOutcome::Done, None) => "done".into(),
        };
        lines.push(format!("{:>3} {}: {end}", step.index + 1, step.what));
    }
    out.section("steps of the lab", &lines);
    out.section("the driver's own prints", &s.prints);
}

/// What is wrong, and how it ended.
fn verdict(out: &mut Out, report: &RunReport) {
    for f in &report.findings {
        let style = match (report.verdict, f.level) {
            (Verdict::Missing, _) | (_, Level::Advice | Level::Off) => YELLOW,
            _ => RED,
        };
        let rule = out.styled(style, &f.rule);
        let advice = if f.level == Level::Advice { " (advice)" } else { "" };
        let message: Vec<String> = f.message.lines().map(printable).collect();
        let _ = writeln!(out.text, "{rule}{advice}: {}", message.join("\n"));
        for line in f.places.iter().flat_map(|p| &p.stack) {
            let _ = writeln!(out.text, "    {}", printable(line));
        }
    }
    let (style, word) = match report.verdict {
        Verdict::Ok => (GREEN, "ok: nothing wrong"),
        Verdict::Finding => (RED, "finding: the driver failed, see above"),
        Verdict::Input => (RED, "input: nothing was run"),
        Verdict::Missing => (YELLOW, "missing: needs something that dirql does not have"),
        Verdict::Internal => (RED, "internal: a bug in dirql; please report it"),
    };
    if let Some(replay) = report.findings.iter().find_map(|f| f.replay.as_ref()) {
        let _ = writeln!(out.text, "the same run again:\n  {}", printable(replay));
    }
    let word = out.styled(style, word);
    let stats = &report.stats;
    if stats.events_lost > 0 {
        let _ = writeln!(
            out.text,
            "{} more events happened than are kept; the story is not whole",
            stats.events_lost
        );
    }
    let _ = writeln!(out.text, "{word} ({} instructions, {})", stats.instructions, time(stats.virtual_ns));
}

/// Virtual time, as exact as a reader needs.
fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{}.{} us", ns / 1_000, ns % 1_000 / 100),
        _ => format!("{}.{} ms", ns / 1_000_000, ns % 1_000_000 / 100_000),
    }
}

fn cpus(cpus: &[u32]) -> String {
    cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// `CONNECT_*` (spec 1.3).
fn version(version: u32) -> String {
    match version {
        0 => String::new(),
        1 => " FULLY_SPECIFIED".into(),
        2 => " LINE_BASED".into(),
        3 => " MESSAGE_BASED".into(),
        4 => " FULLY_SPECIFIED_GROUP".into(),
        5 => " MESSAGE_BASED_PASSIVE".into(),
        other => format!(" version {other}"),
    }
}
