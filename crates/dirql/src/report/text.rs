//! A report as text that a person grasps at a glance.

use std::fmt::Write;

use dirql_event::{LockOwner, ResourceKind, StepOutcome};

use super::{RunReport, Verdict};
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
    let s = &report.story;
    out.section(
        "driver",
        &s.drivers.iter().map(|(image, base)| format!("{image} at {base:#x}")).collect::<Vec<_>>(),
    );
    let devices: Vec<_> =
        s.devices.iter().map(|(n, m, id, i)| format!("{n}: {m} {id}, interrupts {i}")).collect();
    out.section("devices", &devices);
    let mut lines = Vec::new();
    for (device, resources) in &s.resources {
        for r in resources {
            let cpus = cpus(&r.cpus);
            let (vector, irql) = (r.vector.unwrap_or(0), r.irql.unwrap_or(0));
            lines.push(match r.kind {
                ResourceKind::Memory => format!("{device}: memory {:#x}, {:#x} bytes", r.start, r.length),
                ResourceKind::Port => format!("{device}: ports {:#x}, {:#x}", r.start, r.length),
                ResourceKind::Line => {
                    format!("{device}: line GSI {} -> vector {vector:#x}, DIRQL {irql}, cpus {cpus}", r.start)
                }
                ResourceKind::Message => {
                    format!(
                        "{device}: {} message(s) -> vector {vector:#x}, DIRQL {irql}, cpus {cpus}",
                        r.length
                    )
                }
                ResourceKind::Other => format!("{device}: other"),
            });
        }
    }
    out.section("resources", &lines);
    let entries: Vec<_> =
        s.entries.iter().map(|(what, code)| format!("{what}: {}", status::show(*code))).collect();
    out.section("start", &entries);
    let mut lines = Vec::new();
    for c in &s.connections {
        let back =
            if c.version_out == c.version { String::new() } else { format!(" (returned {})", c.version_out) };
        lines.push(format!("{} {}{back}: {}", c.api, version(c.version), status::show(c.status)));
        for v in &c.vectors {
            let message = v.message.map_or_else(String::new, |m| format!(" message {m}"));
            let lock = if v.lock == LockOwner::Own { "own lock" } else { "driver's lock" };
            let shared = if v.shared { ", shared" } else { "" };
            let (irql, sync, cpus) = (v.irql, v.sync_irql, cpus(&v.cpus));
            lines.push(format!(
                "  vector {:#04x}{message}  DIRQL {irql}  runs at {sync}  cpus {cpus}  {lock}{shared}",
                v.vector
            ));
        }
    }
    out.section("connected", &lines);
    let mut lines: Vec<_> = Vec::new();
    for v in &s.vectors {
        let message = v.message.map_or_else(String::new, |m| format!(" message {m}"));
        lines.push(format!(
            "vector {:#04x}{message}: ISR {}, claimed {}, {} ns at DIRQL",
            v.vector, v.isr, v.claimed, v.ns
        ));
    }
    if s.raised + s.dpcs.0 + s.unexpected > 0 {
        let unexpected =
            if s.unexpected > 0 { format!(", unexpected {}", s.unexpected) } else { String::new() };
        lines.push(format!("raised {}, DPCs {} ({} ns){unexpected}", s.raised, s.dpcs.0, s.dpcs.1));
    }
    out.section("interrupts", &lines);
    let mut lines = Vec::new();
    for i in &s.irps {
        let end = match i.status {
            Some(code) => format!("{}, information {}", status::show(code), i.information),
            None => "not completed".into(),
        };
        let code = if i.code == 0 { String::new() } else { format!(" {:#x}", i.code) };
        let pending = if i.pending { ", was pending" } else { "" };
        lines.push(format!("{} {}{code}: {end}{pending}", i.id, major(i.major, i.minor)));
    }
    out.section("requests", &lines);
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
        lines.push(format!("{} {}: {end}", step.index + 1, step.what));
    }
    out.section("steps", &lines);
    out.section("driver's prints", &s.prints);
    for f in &report.findings {
        let style = if report.verdict == Verdict::Missing { YELLOW } else { RED };
        let rule = out.styled(style, &f.rule);
        let message: Vec<String> = f.message.lines().map(printable).collect();
        let _ = writeln!(out.text, "{rule}: {}", message.join("\n"));
        for line in f.places.iter().flat_map(|p| &p.stack) {
            let _ = writeln!(out.text, "    {}", printable(line));
        }
        if let Some(replay) = &f.replay {
            let _ = writeln!(out.text, "{replay}");
        }
    }
    let (style, word) = match report.verdict {
        Verdict::Ok => (GREEN, "ok: nothing wrong"),
        Verdict::Finding => (RED, "finding: the driver failed, see above"),
        Verdict::Input => (RED, "input: nothing was run"),
        Verdict::Missing => (YELLOW, "missing: needs something that dirql does not have"),
        Verdict::Internal => (RED, "internal: a bug in dirql; please report it"),
    };
    let word = out.styled(style, word);
    let stats = &report.stats;
    let _ = writeln!(out.text, "{word} ({} instructions, {} ns)", stats.instructions, stats.virtual_ns);
    out.text
}

fn cpus(cpus: &[u32]) -> String {
    cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// `CONNECT_*` (spec 1.3).
fn version(version: u32) -> String {
    match version {
        0 => String::new(),
        1 => "FULLY_SPECIFIED".into(),
        2 => "LINE_BASED".into(),
        3 => "MESSAGE_BASED".into(),
        4 => "FULLY_SPECIFIED_GROUP".into(),
        5 => "MESSAGE_BASED_PASSIVE".into(),
        other => format!("version {other}"),
    }
}

/// `IRP_MJ_*` (wdm.h).
fn major(major: u8, minor: u8) -> String {
    let name = match major {
        0x00 => "create",
        0x02 => "close",
        0x03 => "read",
        0x04 => "write",
        0x0e => "device control",
        0x0f => "internal device control",
        0x12 => "cleanup",
        0x16 => "power",
        0x17 => "system control",
        0x1b => "pnp",
        _ => return format!("major {major:#x} minor {minor:#x}"),
    };
    if matches!(major, 0x16 | 0x1b) { format!("{name} minor {minor:#x}") } else { name.into() }
}
