//! One event as one line.

use dirql_event::Event;

/// An event as a line of text: time, processor, IRQL, name, and its fields.
#[must_use]
pub fn trace_line(event: &Event) -> String {
    let mut fields = match serde_json::to_value(event) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => return format!("{:>12} {:?}", event.at, event.kind),
    };
    for key in ["at", "cpu", "irql"] {
        fields.remove(key);
    }
    let name = fields.remove("event").and_then(|n| n.as_str().map(str::to_owned)).unwrap_or_default();
    let cpu = event.cpu.map_or_else(|| "  -".into(), |c| format!("{c:>3}"));
    let mut line = format!("{:>12} cpu {cpu} irql {:>2}  {name}", event.at, event.irql);
    for (key, value) in fields {
        line.push_str(&format!(" {key}={value}"));
    }
    crate::problem::printable(&line)
}
