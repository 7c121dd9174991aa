//! What dirql knows of an image and of itself, as text and as JSON.

use std::fmt::Write;

use dirql::{InputError, InspectReport, Verdict};
use serde::Serialize;
use serde_json::{Value, json};

/// The object every command prints with --json, with one part of its own.
pub(crate) fn object(verdict: Verdict, key: &str, part: &impl Serialize) -> Value {
    let mut out = json!({
        "dirql": env!("CARGO_PKG_VERSION"),
        "verdict": verdict,
        "findings": [],
        "stats": {},
    });
    out[key] = json!(part);
    out
}

/// Names in a file are its maker's: nothing of them may drive the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// An image as text.
pub(crate) fn inspect(r: &InspectReport) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}: x64 driver for Windows {} or later", clean(&r.image), r.os_version);
    let _ = writeln!(
        out,
        "  {:#x} bytes in memory, entry {:#x}, preferred base {:#x}, {} functions with unwind data",
        r.size, r.entry, r.preferred_base, r.functions
    );
    if let Some(pdb) = &r.pdb {
        let _ = writeln!(out, "  symbols {}", clean(pdb));
    }
    let _ = writeln!(out, "sections");
    for s in &r.sections {
        let _ = writeln!(out, "  {:8} {} {:#8x}, {:#x} bytes", clean(&s.name), s.access, s.rva, s.size);
    }
    let _ = writeln!(out, "how it connects interrupts");
    if r.connects.is_empty() {
        let _ = writeln!(out, "  by no routine that it imports: a filter, or a driver without interrupts");
    }
    for name in &r.connects {
        let how = dirql::CONNECTORS.iter().find(|(n, _)| n == name).map_or("", |(_, how)| how);
        let _ = writeln!(out, "  {name}: {how}");
    }
    let missing: Vec<_> = r.missing().collect();
    let have = r.imports.len() - missing.len();
    let _ = writeln!(out, "imports: {} of {} implemented", have, r.imports.len());
    for (mark, wanted) in [("missing", false), ("ok", true)] {
        for i in r.imports.iter().filter(|i| i.implemented == wanted) {
            let delayed = if i.delayed { ", bound at its first call" } else { "" };
            let name = format!("{}!{}", clean(&i.module), clean(&i.name));
            let demand = format!("{} of {} surveyed drivers", i.drivers, r.surveyed);
            let _ = writeln!(out, "  {mark:7} {name:48} {demand}{delayed}");
        }
    }
    if !missing.is_empty() {
        let _ = writeln!(
            out,
            "a missing import ends a run only when it is called; `dirql run` shows how far it gets"
        );
    }
    out
}

/// The device models as text.
pub(crate) fn devices() -> String {
    let mut out = String::new();
    for m in dirql::models::MODELS {
        let yet = if m.available { "" } else { " (not in this dirql yet)" };
        let _ = writeln!(out, "{:10} {} {}{yet}", m.name, m.id, m.summary);
        let _ = writeln!(out, "{:12} interrupts: default {}", "", m.interrupts);
        for p in m.properties {
            let _ = writeln!(out, "{:12} {}: {}", "", p.name, p.summary);
        }
    }
    out
}

/// The device models as JSON.
pub(crate) fn devices_json() -> String {
    let models: Vec<Value> = dirql::models::MODELS
        .iter()
        .map(|m| {
            let properties: Vec<Value> =
                m.properties.iter().map(|p| json!({ "name": p.name, "summary": p.summary })).collect();
            json!({
                "name": m.name, "id": m.id, "summary": m.summary, "interrupts": m.interrupts,
                "available": m.available, "properties": properties,
            })
        })
        .collect();
    format!("{}\n", object(Verdict::Ok, "devices", &models))
}

/// The rules as text.
pub(crate) fn rules() -> String {
    dirql::rules::RULES.iter().fold(String::new(), |mut out, r| {
        let level = format!("{:?}", r.level).to_lowercase();
        let _ = writeln!(out, "{:28} {level:8} {}", r.id, r.summary);
        out
    })
}

/// The rules as JSON.
pub(crate) fn rules_json() -> String {
    let rules: Vec<Value> = dirql::rules::RULES
        .iter()
        .map(|r| json!({ "id": r.id, "level": r.level, "summary": r.summary }))
        .collect();
    format!("{}\n", object(Verdict::Ok, "rules", &rules))
}

/// The exports whose names fit.
pub(crate) fn exports(pattern: Option<&str>, json: bool) -> Result<String, InputError> {
    let all = dirql::exports();
    let wanted = pattern.unwrap_or("").to_lowercase();
    let found: Vec<_> = all.iter().filter(|e| fits(&e.name.to_lowercase(), &wanted)).collect();
    if found.is_empty() {
        let near = dirql::problem::nearest(&wanted, all.iter().map(|e| e.name.as_str()));
        let help =
            near.map_or_else(|| "`dirql exports` lists all".to_owned(), |n| format!("did you mean `{n}`?"));
        let message = format!("no export that dirql implements has `{}` in its name", clean(&wanted));
        return Err(InputError::new(None, message, Some(&help)));
    }
    if json {
        return Ok(format!("{}\n", object(Verdict::Ok, "exports", &found)));
    }
    Ok(found.iter().fold(String::new(), |mut out, e| {
        let irql = match e.max_irql {
            None => "data".into(),
            Some(0) => "PASSIVE_LEVEL".into(),
            Some(1) => "<= APC_LEVEL".into(),
            Some(2) => "<= DISPATCH_LEVEL".into(),
            Some(15..) => "any IRQL".into(),
            Some(n) => format!("IRQL <= {n}"),
        };
        let name = format!("{}!{}", e.module, e.name);
        let _ = writeln!(out, "{name:56} {irql}");
        out
    }))
}

/// Whether a name has the pattern in it, the parts between asterisks in order. Both are in lower case.
fn fits(name: &str, pattern: &str) -> bool {
    let mut rest = name;
    for part in pattern.split('*') {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn patterns_fit_in_order() {
        assert!(fits("ioconnectinterruptex", "connect"));
        assert!(fits("ioconnectinterruptex", "io*interrupt"));
        assert!(fits("ioconnectinterruptex", "*"));
        assert!(!fits("ioconnectinterruptex", "interrupt*io"));
    }
}
