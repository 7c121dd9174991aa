//! A lab as text that reads back as the same lab.

use std::fmt::Write;

use super::{
    Action, Bus, Delivery, Expect, Lab, Locks, PnpMinor, PowerTarget, Registry, SetTarget, Setting, Step,
    WaitFor, units,
};
use crate::status;

impl Lab {
    /// The lab as TOML, with what differs from the defaults.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let o = &mut out;
        if self.manual_life {
            line(o, "life", quote("manual"));
        }
        if self.budget != super::DEFAULT_BUDGET {
            line(o, "budget", self.budget);
        }
        let m = &self.machine;
        head(o, "[machine]");
        line(o, "windows", quote(m.windows.name()));
        line(o, "cpus", m.cpus);
        if m.groups != 1 {
            line(o, "groups", m.groups);
        }
        line(o, "seed", whole(m.seed));
        if m.delivery == Delivery::Fixed {
            line(o, "delivery", quote("fixed"));
        }
        if m.locks == Locks::PerSet {
            line(o, "locks", quote("per-set"));
        }
        if m.alternative_status {
            line(o, "status", quote("alternative"));
        }
        if m.pdo_bugcheck {
            line(o, "pdo", quote("bugcheck"));
        }
        self.devices.iter().for_each(|d| device(o, d));
        for d in &self.drivers {
            head(o, "[[driver]]");
            line(o, "image", quote(&d.image.display().to_string()));
            match d.devices.as_slice() {
                [] => {}
                [one] => line(o, "device", quote(one)),
                many => line(o, "device", list(many.iter().map(|d| quote(d)))),
            }
            registry(o, "[driver.registry]", &d.registry);
        }
        for f in &self.filters {
            head(o, "[[filter]]");
            line(o, "image", quote(&f.image.display().to_string()));
            line(o, "position", quote(if f.upper { "upper" } else { "lower" }));
            line(o, "device", quote(&f.device));
        }
        for l in &self.libraries {
            head(o, "[[library]]");
            line(o, "image", quote(&l.image.display().to_string()));
        }
        for s in &self.steps {
            head(o, "[[step]]");
            for (key, value) in step(s) {
                line(o, key, value);
            }
        }
        self.checks(o);
        self.rule_levels(o);
        out
    }

    fn checks(&self, o: &mut String) {
        let c = &self.check;
        let named = [
            ("no_outstanding_irp", c.no_outstanding_irp),
            ("no_connected_interrupt", c.no_connected_interrupt),
            ("no_leaked_pool", c.no_leaked_pool),
        ];
        if named.iter().any(|(_, on)| !on) {
            head(o, "[check]");
            named.iter().filter(|(_, on)| !on).for_each(|(key, _)| line(o, key, false));
        }
        if !c.counters.is_empty() {
            head(o, "[check.counters]");
        }
        for (name, b) in &c.counters {
            let bounds = [("at_least", b.low, 0), ("at_most", b.high, u64::MAX)];
            let given: Vec<_> = bounds
                .iter()
                .filter(|(_, v, open)| v != open)
                .map(|(k, v, _)| format!("{k} = {}", whole(*v)))
                .collect();
            line(o, name, if b.low == b.high { whole(b.low) } else { format!("{{ {} }}", given.join(", ")) });
        }
        for (device, registers) in &c.devices {
            head(o, &format!("[check.device.{}]", quote(device)));
            registers.iter().for_each(|(register, value)| line(o, &quote(register), whole(*value)));
        }
    }

    fn rule_levels(&self, o: &mut String) {
        if !self.rules.levels.is_empty() {
            head(o, "[rules]");
        }
        for (rule, level) in &self.rules.levels {
            line(o, &quote(rule), quote(&format!("{level:?}").to_lowercase()));
        }
        for s in &self.rules.suppress {
            head(o, "[[rules.suppress]]");
            line(o, "rule", quote(&s.rule));
            if let Some(function) = &s.function {
                line(o, "function", quote(function));
            }
            line(o, "reason", quote(&s.reason));
        }
    }
}

fn device(o: &mut String, d: &super::DeviceLab) {
    head(o, "[[device]]");
    line(o, "name", quote(&d.name));
    match &d.script {
        Some(script) => line(o, "script", quote(&script.display().to_string())),
        None => line(o, "model", quote(&d.model)),
    }
    if d.bus == Bus::Isa {
        line(o, "bus", quote("isa"));
    }
    line(o, "interrupts", quote(&d.interrupts.to_string()));
    let id = |(vendor, device): (u16, u16)| quote(&format!("{vendor:04x}:{device:04x}"));
    let optional = [
        ("gsi", d.gsi.map(|v| v.to_string())),
        ("irql", some_list(d.irql.iter().map(ToString::to_string))),
        ("affinity", some_list(d.affinity.iter().map(|v| hex(*v)))),
        ("policy", d.policy.map(|v| quote(POLICY_NAMES.get(usize::from(v)).unwrap_or(&"default")))),
        ("priority", d.priority.map(|v| quote(PRIORITY_NAMES.get(v as usize).unwrap_or(&"undefined")))),
        ("arrivals", (d.arrivals != 0).then(|| d.arrivals.to_string())),
        ("id", d.id.map(id)),
        ("subsystem", d.subsystem.map(id)),
        ("class", d.class.map(|v| hex(v.into()))),
        ("bars", some_list(d.bars.iter().map(|v| hex(*v)))),
        ("ports", some_list(d.ports.iter().map(|(a, b)| quote(&format!("{a:#x}-{b:#x}"))))),
        ("memory", some_list(d.memory.iter().map(|(a, b)| quote(&format!("{a:#x}-{b:#x}"))))),
        ("irq", some_list(d.irq.iter().map(ToString::to_string))),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            line(o, key, value);
        }
    }
    for (key, value) in &d.properties {
        line(o, key, setting(value));
    }
    registry(o, "[device.registry]", &d.registry);
}

/// By value, as the parser reads them.
const POLICY_NAMES: [&str; 6] = ["default", "all-close", "one-close", "all", "specified", "spread"];
const PRIORITY_NAMES: [&str; 4] = ["undefined", "low", "normal", "high"];

fn step(s: &Step) -> Vec<(&'static str, String)> {
    let mut out = vec![("do", quote(s.action.verb()))];
    let mut put = |key, value: Option<String>| out.extend(value.map(|v| (key, v)));
    let text = |t: &Option<String>| t.as_deref().map(quote);
    let bytes = |b: &[u8]| (!b.is_empty()).then(|| quote(&units::show_bytes(b)));
    match &s.action {
        Action::Open { name, handle } => {
            put("name", text(name));
            put("as", text(handle));
        }
        Action::Read { handle, length, offset, request } => {
            put("handle", text(handle));
            put("length", Some(length.to_string()));
            put("offset", (*offset != 0).then(|| whole(*offset)));
            put("async", text(request));
        }
        Action::Write { handle, input, offset, request } => {
            put("handle", text(handle));
            put("input", bytes(input));
            put("offset", (*offset != 0).then(|| whole(*offset)));
            put("async", text(request));
        }
        Action::Ioctl { handle, code, input, output_length, request, .. } => {
            put("handle", text(handle));
            put("code", Some(hex((*code).into())));
            put("input", bytes(input));
            put("output_length", Some(output_length.to_string()));
            put("async", text(request));
        }
        Action::Cancel { request } | Action::Wait(WaitFor::Request(request)) => {
            put("request", Some(quote(request)))
        }
        Action::Wait(WaitFor::Thread(thread)) => put("thread", Some(quote(thread))),
        Action::Wait(WaitFor::Time(ns)) => put("for", Some(quote(&units::show_time(*ns)))),
        Action::Close { handle } => put("handle", text(handle)),
        Action::Pnp { device, minor, rebalance } => {
            put("device", text(device));
            put("minor", PnpMinor::ALL.iter().find(|(_, m)| m == minor).map(|(name, _)| quote(name)));
            put("rebalance", rebalance.map(|i| quote(&i.to_string())));
        }
        Action::Power { device, target } => {
            put("device", text(device));
            match target {
                PowerTarget::Device(state) => put("state", Some(quote(&format!("{state:?}")))),
                PowerTarget::System(state) => put("system", Some(quote(&format!("S{state}")))),
            }
        }
        Action::Raise { device, source } => {
            put("device", text(device));
            put("source", Some(source.to_string()));
        }
        Action::Set(SetTarget::Register { device, register, value }) => {
            put("device", Some(quote(device)));
            put("register", Some(quote(register)));
            put("value", Some(setting(value)));
        }
        Action::Set(SetTarget::Memory { address, bytes }) => {
            put("address", Some(whole(*address)));
            put("bytes", Some(quote(&units::show_bytes(bytes))));
        }
        Action::Remove { device } | Action::SurpriseRemove { device } => put("device", text(device)),
        Action::Repeat { count, steps } => {
            put("count", Some(count.to_string()));
            put("steps", Some(list(steps.iter().map(|s| inline(step(s))))));
        }
    }
    if !matches!(s.action, Action::Wait(_)) {
        put("thread", text(&s.thread));
    }
    put("expect", expect(&s.expect));
    out
}

fn expect(e: &Expect) -> Option<String> {
    let shown_status = |s: u32| status::name(s).map_or_else(|| hex(s.into()), quote);
    let fields = [
        ("status", e.status.map(shown_status)),
        ("output", e.output.as_ref().map(|b| quote(&units::show_bytes(b)))),
        ("information", e.information.map(whole)),
        ("within", e.within.map(|ns| quote(&units::show_time(ns)))),
    ];
    let given: Vec<_> = fields.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    (!given.is_empty()).then(|| inline(given))
}

fn inline(fields: Vec<(&str, String)>) -> String {
    let fields: Vec<_> = fields.into_iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", fields.join(", "))
}

fn registry(o: &mut String, name: &str, values: &Registry) {
    if values.is_empty() {
        return;
    }
    head(o, name);
    for (path, value) in values {
        let key: Vec<String> = path.split('\\').map(quote).collect();
        line(o, &key.join("."), setting(value));
    }
}

fn setting(value: &Setting) -> String {
    match value {
        Setting::Number(n) => whole(*n),
        Setting::Text(t) => quote(t),
        Setting::Bool(b) => b.to_string(),
        Setting::Numbers(n) => list(n.iter().map(|n| whole(*n))),
        Setting::Texts(t) => list(t.iter().map(|t| quote(t))),
    }
}

fn head(o: &mut String, name: &str) {
    let gap = if o.is_empty() { "" } else { "\n" };
    let _ = writeln!(o, "{gap}{name}");
}

fn line(o: &mut String, key: &str, value: impl std::fmt::Display) {
    let _ = writeln!(o, "{key} = {value}");
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn some_list(items: impl ExactSizeIterator<Item = String>) -> Option<String> {
    (items.len() > 0).then(|| list(items))
}

fn whole(n: u64) -> String {
    if n > 0xffff { hex(n) } else { n.to_string() }
}

fn hex(n: u64) -> String {
    format!("{n:#x}")
}

/// Text in TOML's quotes.
fn quote(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}
