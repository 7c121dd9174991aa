//! From TOML to a checked [`Lab`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::read::{Section, Source, Value, integer};
use super::step::{MOST_STEPS, weight};
use super::{
    Action, Bound, Bus, COUNTERS, Checks, DEFAULT_BUDGET, Delivery, DeviceLab, DevicePower, DriverLab,
    Expect, FilterLab, Interrupts, Lab, Level, LibraryLab, Locks, MachineLab, PnpMinor, PowerTarget,
    Registry, Rules, SetTarget, Setting, Step, Suppression, WaitFor, Windows, units,
};
use crate::models;
use crate::problem::{Problem, nearest, suggestion};
use crate::status;

/// How many of one kind of section a lab may have.
const MOST: usize = 64;
/// How many steps may be written in one list.
const MOST_WRITTEN_STEPS: usize = 10_000;
/// How deep `repeat` may nest.
const DEEPEST_REPEAT: usize = 8;
/// The largest buffer of one request, in bytes.
const MOST_BUFFER: u64 = 16 << 20;

pub(super) fn lab(text: &str, path: Option<&Path>) -> Result<Lab, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let problem = |e: &toml::de::Error| Problem {
            message: format!("not valid TOML: {}", e.message().lines().next().unwrap_or("")),
            span: Some(e.span().unwrap_or(0..0)),
            help: None,
        };
        return Err(errors.iter().map(problem).collect());
    }
    let source = Source::new(text);
    let mut top = Section::new(&source, document.get_ref(), 0..0, "the lab");
    let mut lab = Lab { path: path.map(Into::into), ..Lab::empty() };

    if let Some(s) = top.table("machine", "[machine]") {
        lab.machine = machine(s);
    }
    let sections = top.tables("device", "[[device]]", MOST);
    let device_places: Vec<_> = sections.iter().map(|s| s.place("name")).collect();
    lab.devices = sections.into_iter().map(|s| device(s, &lab.machine)).collect();
    let sections = top.tables("driver", "[driver]", MOST);
    let driver_places: Vec<_> = sections.iter().map(|s| s.place("device")).collect();
    lab.drivers = sections.into_iter().map(driver).collect();
    lab.filters = top.tables("filter", "[[filter]]", MOST).into_iter().map(|s| filter(s, &lab)).collect();
    lab.libraries = top.tables("library", "[[library]]", MOST).into_iter().map(library).collect();
    let steps = top.tables("step", "[[step]]", MOST_WRITTEN_STEPS);
    lab.steps = steps.into_iter().map(|s| step(s, &lab, 0)).collect();
    if weight(&lab.steps) > MOST_STEPS {
        let help = "lower a `count`".to_owned();
        source.wrong(top.place("step"), format!("the workload has more than {MOST_STEPS} steps"), Some(help));
    }
    if let Some(s) = top.table("check", "[check]") {
        lab.check = check(s, &lab);
    }
    if let Some(s) = top.table("rules", "[rules]") {
        lab.rules = rules(s);
    }
    lab.budget = top.number("budget", 1, 1 << 48).unwrap_or(DEFAULT_BUDGET);
    lab.manual_life = top.word("life", &[("auto", false), ("manual", true)]).unwrap_or(false);
    top.finish(&[]);

    names(&lab, &source, &device_places, &driver_places);
    let problems = source.into_problems();
    if problems.is_empty() { Ok(lab) } else { Err(problems) }
}

/// What holds between sections: names are unique and name something.
fn names(lab: &Lab, source: &Source<'_>, device_places: &[Range<usize>], driver_places: &[Range<usize>]) {
    let legacy = !lab.drivers.is_empty() && lab.drivers.iter().all(|d| d.devices.is_empty());
    if lab.devices.is_empty() && !legacy {
        let help = "add one: [[device]] name = \"card\" model = \"pulse\" interrupts = \"msix:1\"";
        source.wrong(0..0, "this lab has no device", Some(help.into()));
    }
    let mut seen = BTreeSet::new();
    for (device, place) in lab.devices.iter().zip(device_places) {
        if !seen.insert(&device.name) {
            source.wrong(place.clone(), format!("two devices are named `{}`", device.name), None);
        }
    }
    let mut owned = BTreeSet::new();
    for (driver, place) in lab.drivers.iter().zip(driver_places) {
        for name in &driver.devices {
            known_device(lab, source, name, place);
            if !owned.insert(name) {
                source.wrong(place.clone(), format!("`{name}` has two function drivers"), None);
            }
        }
    }
}

fn known_device(lab: &Lab, source: &Source<'_>, name: &str, place: &Range<usize>) {
    if lab.device(name).is_none() {
        let valid: Vec<&str> = lab.devices.iter().map(|d| d.name.as_str()).collect();
        source.wrong(
            place.clone(),
            format!("no device is named `{name}`"),
            Some(suggestion(name, &valid, "devices")),
        );
    }
}

fn small<T: TryFrom<u64>>(n: u64) -> Option<T> {
    T::try_from(n).ok()
}

fn machine(mut s: Section<'_, '_>) -> MachineLab {
    let d = MachineLab::default();
    let machine = MachineLab {
        windows: s.word("windows", Windows::ALL).unwrap_or(d.windows),
        cpus: s.number("cpus", 1, 64).and_then(small).unwrap_or(d.cpus),
        groups: s.number("groups", 1, 4).and_then(small).unwrap_or(d.groups),
        seed: s.number("seed", 0, u64::MAX).unwrap_or(d.seed),
        delivery: s
            .word("delivery", &[("lowest", Delivery::Lowest), ("fixed", Delivery::Fixed)])
            .unwrap_or(d.delivery),
        locks: s
            .word("locks", &[("per-message", Locks::PerMessage), ("per-set", Locks::PerSet)])
            .unwrap_or(d.locks),
        alternative_status: s.word("status", &[("default", false), ("alternative", true)]).unwrap_or(false),
        pdo_bugcheck: s.word("pdo", &[("status", false), ("bugcheck", true)]).unwrap_or(false),
    };
    s.finish(&[]);
    machine
}

fn device(mut s: Section<'_, '_>, machine: &MachineLab) -> DeviceLab {
    let name = s.required_string("name", "\"card\"");
    let script = s.string("script").map(Into::into);
    let model_name = match &script {
        Some(_) => s.string("model").unwrap_or_else(|| "script".into()),
        None => s.required_string("model", "\"pulse\""),
    };
    let valid_models: Vec<&str> = models::MODELS.iter().map(|m| m.name).collect();
    let model = models::model(&model_name);
    if model.is_none() && script.is_none() && !model_name.is_empty() {
        let help = suggestion(&model_name, &valid_models, "models");
        s.source().wrong(s.place("model"), format!("there is no device model `{model_name}`"), Some(help));
    }
    let default =
        model.map_or(Interrupts::Line(1), |m| units::interrupts(m.interrupts).unwrap_or(Interrupts::None));
    let interrupts = s.parsed("interrupts", units::interrupts);
    let mut d = DeviceLab::new(&name, &model_name, interrupts.unwrap_or(default));
    d.line = s.line();
    d.script = script;
    d.bus = s.word("bus", &[("pci", Bus::Pci), ("isa", Bus::Isa)]).unwrap_or_default();
    d.gsi = s.number("gsi", 0, 23).and_then(small);
    // Device levels: IRQL 3 to 12 (spec 1.5).
    isa(&mut s, &mut d, interrupts);
    d.irql = s.numbers("irql", 3, 12, 2048).into_iter().filter_map(small).collect();
    let cpus = if machine.cpus >= 64 { u64::MAX } else { (1u64 << machine.cpus) - 1 };
    d.affinity = s.numbers("affinity", 1, u64::MAX, 2048);
    if d.affinity.iter().any(|mask| mask & cpus == 0) {
        let message = format!("`affinity` names no processor of this machine, which has {}", machine.cpus);
        s.source().wrong(s.place("affinity"), message, Some("it is a mask: bit n is processor n".into()));
    }
    for (key, count) in [("irql", d.irql.len()), ("affinity", d.affinity.len())] {
        if count > 1 && count != d.interrupts.count() as usize {
            let message = format!("`{key}` has {count} entries for {} interrupts", d.interrupts.count());
            s.source().wrong(s.place(key), message, Some("give one for all, or one for each".into()));
        }
    }
    d.policy = s.word("policy", POLICIES);
    d.priority = s.word("priority", PRIORITIES);
    d.arrivals = s.number("arrivals", 0, 1_000_000).and_then(small).unwrap_or(0);
    d.id = s.parsed("id", units::id);
    d.subsystem = s.parsed("subsystem", units::id);
    d.class = s.number("class", 0, 0xff_ffff).and_then(small);
    d.bars = s.numbers("bars", 16, 1 << 32, 6);
    if d.bars.iter().any(|size| !size.is_power_of_two()) {
        s.source().wrong(s.place("bars"), "the size of a BAR is a power of two", None);
    }
    if let Some(registry) = s.table("registry", "[device.registry]") {
        d.registry = settings(&registry, "", 0);
    }
    d.properties = properties(&mut s, model);
    s.finish(&model.map_or(Vec::new(), |m| m.properties.iter().map(|p| p.name).collect()));
    d
}

/// `IRQ_DEVICE_POLICY` (spec 1.4).
const POLICIES: &[(&str, u16)] =
    &[("default", 0), ("all-close", 1), ("one-close", 2), ("all", 3), ("specified", 4), ("spread", 5)];

/// `IRQ_PRIORITY` (spec 1.4).
const PRIORITIES: &[(&str, u32)] = &[("undefined", 0), ("low", 1), ("normal", 2), ("high", 3)];

/// The fixed resources of a device that is not on PCI.
fn isa(s: &mut Section<'_, '_>, d: &mut DeviceLab, interrupts: Option<Interrupts>) {
    fn range(text: &str) -> Result<(u64, u64), String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (units::number(first)?, units::number(last)?);
        if first <= last { Ok((first, last)) } else { Err(format!("`{text}` ends before it begins")) }
    }
    for key in ["ports", "memory"] {
        for text in s.strings(key, 8) {
            let found = range(&text).and_then(|(first, last)| {
                if key == "memory" {
                    d.memory.push((first, last));
                    return Ok(());
                }
                let port = |n| u16::try_from(n).map_err(|_| format!("{n:#x} is no I/O port"));
                d.ports.push((port(first)?, port(last)?));
                Ok(())
            });
            if let Err(why) = found {
                s.source().wrong(
                    s.place(key),
                    format!("`{key}`: {why}"),
                    Some("as in \"0x3f8-0x3ff\"".into()),
                );
            }
        }
    }
    d.irq = s.numbers("irq", 0, 23, 8).into_iter().filter_map(small).collect();
    if d.bus == Bus::Isa {
        // There are only lines here, one an IRQ.
        let lines = match d.irq.len() {
            0 => Interrupts::None,
            n => Interrupts::Line(n as u32),
        };
        if interrupts.is_some_and(|given| given != lines) {
            let message = format!("an ISA device interrupts by its `irq`: here `{lines}`");
            s.source().wrong(s.place("interrupts"), message, Some("leave `interrupts` out".into()));
        }
        d.interrupts = lines;
        if d.gsi.is_some() {
            s.source().wrong(s.place("gsi"), "an ISA device has `irq`, not `gsi`", None);
        }
    }
    for (key, given) in
        [("ports", !d.ports.is_empty()), ("memory", !d.memory.is_empty()), ("irq", !d.irq.is_empty())]
    {
        if given && d.bus == Bus::Pci {
            let help = "PCI devices have BARs, and a line by `gsi`; or say bus = \"isa\"".to_owned();
            s.source().wrong(s.place(key), format!("`{key}` is for bus = \"isa\""), Some(help));
        }
    }
}

fn properties(s: &mut Section<'_, '_>, model: Option<&models::Model>) -> BTreeMap<String, Setting> {
    let mut out = BTreeMap::new();
    for (key, _, value) in s.rest() {
        // For a script any key may be its own; for a model only those it lists. What is neither stays for
        // `finish`.
        let property = model.and_then(|m| m.properties.iter().find(|p| p.name == key));
        let Some(property) = property else { continue };
        match (setting(value), property.form) {
            (Some(v @ Setting::Bool(_)), models::Form::Flag)
            | (Some(v @ Setting::Number(_)), models::Form::Number)
            | (Some(v @ (Setting::Number(_) | Setting::Numbers(_))), models::Form::Numbers)
            | (Some(v @ Setting::Text(_)), models::Form::Text) => {
                out.insert(key, v);
            }
            _ => {
                let expected = match property.form {
                    models::Form::Flag => "true or false",
                    models::Form::Number => "a number",
                    models::Form::Numbers => "a list of numbers",
                    models::Form::Text => "text",
                };
                let message = format!("`{key}` must be {expected}");
                s.source().wrong(value.span(), message, Some(property.summary.into()));
            }
        }
    }
    out
}

fn setting(value: &Value<'_>) -> Option<Setting> {
    match value.get_ref() {
        DeValue::Integer(_) => integer(value.get_ref()).map(Setting::Number),
        DeValue::Boolean(b) => Some(Setting::Bool(*b)),
        DeValue::String(t) => Some(Setting::Text(t.to_string())),
        DeValue::Array(items) => {
            let texts: Option<Vec<_>> =
                items.iter().map(|i| i.get_ref().as_str().map(str::to_owned)).collect();
            let numbers = || items.iter().map(|i| integer(i.get_ref())).collect::<Option<Vec<_>>>();
            texts.filter(|t| !t.is_empty()).map(Setting::Texts).or_else(|| numbers().map(Setting::Numbers))
        }
        _ => None,
    }
}

/// Registry values; a table is a subkey. TOML allows only so much nesting, and so do we.
fn settings(s: &Section<'_, '_>, prefix: &str, depth: usize) -> Registry {
    let mut out = Registry::new();
    for (key, span, value) in s.entries() {
        let path = format!("{prefix}{key}");
        if let DeValue::Table(table) = value.get_ref() {
            if depth > 16 {
                s.source().wrong(span, "registry keys are nested too deeply", None);
                continue;
            }
            let inner = Section::new(s.source(), table, value.span(), "the registry");
            out.extend(settings(&inner, &format!("{path}\\"), depth + 1));
        } else if let Some(setting) = setting(value) {
            out.insert(path, setting);
        } else {
            let help = "numbers of zero or more, text, true or false, or a list of one of them".to_owned();
            s.source().wrong(value.span(), format!("`{path}` is no registry value"), Some(help));
        }
    }
    out
}

fn driver(mut s: Section<'_, '_>) -> DriverLab {
    let driver = DriverLab {
        image: s.required_string("image", "\"card.sys\"").into(),
        devices: s.strings("device", MOST),
        registry: s
            .table("registry", "[driver.registry]")
            .map_or_else(Registry::new, |r| settings(&r, "", 0)),
        line: s.line(),
    };
    s.finish(&[]);
    driver
}

fn filter(mut s: Section<'_, '_>, lab: &Lab) -> FilterLab {
    let filter = FilterLab {
        image: s.required_string("image", "\"filter.sys\"").into(),
        upper: s.word("position", &[("upper", true), ("lower", false)]).unwrap_or(true),
        device: s.required_string("device", "\"card\""),
        line: s.line(),
    };
    if !filter.device.is_empty() {
        known_device(lab, s.source(), &filter.device, &s.place("device"));
    }
    s.finish(&[]);
    filter
}

fn library(mut s: Section<'_, '_>) -> LibraryLab {
    let library = LibraryLab { image: s.required_string("image", "\"Wdf01000.sys\"").into(), line: s.line() };
    s.finish(&[]);
    library
}

fn expect(s: &mut Section<'_, '_>) -> Expect {
    let Some(mut e) = s.table("expect", "expect") else { return Expect::default() };
    let status = e.get("status").and_then(|value| {
        let found = match value.get_ref() {
            DeValue::String(name) => status::by_name(name),
            other => integer(other).and_then(small),
        };
        if found.is_none() {
            let given = value.get_ref().as_str().unwrap_or("");
            let help = nearest(given, status::names())
                .map_or("a name such as STATUS_SUCCESS, or a number of 32 bits".into(), |n| {
                    format!("did you mean `{n}`?")
                });
            e.source().wrong(value.span(), "`status` is no NTSTATUS known here", Some(help));
        }
        found
    });
    let expect = Expect {
        status,
        output: e.bytes("output"),
        information: e.number("information", 0, u64::MAX),
        within: e.time("within"),
    };
    e.finish(&[]);
    expect
}

fn step(mut s: Section<'_, '_>, lab: &Lab, depth: usize) -> Step {
    let verbs: Vec<(&str, &str)> = Action::VERBS.iter().map(|v| (*v, *v)).collect();
    let given = s.place("do") != s.span;
    let verb = s.word("do", &verbs);
    if verb.is_none() && !given {
        s.wrong("this step does not say what to do", "for example: do = \"ioctl\"");
    }
    let thread = s.string("thread");
    let expect = expect(&mut s);
    let line = s.line();
    let Some(verb) = verb else {
        // Its other keys can't be judged without it.
        return Step { action: Action::Close { handle: None }, thread, expect, line };
    };
    let action = action(&mut s, lab, verb, &expect, depth);
    s.finish(&[]);
    // The `thread` of a wait is what it waits for.
    let thread = thread.filter(|_| !matches!(action, Action::Wait(_)));
    Step { action, thread, expect, line }
}

fn action(s: &mut Section<'_, '_>, lab: &Lab, verb: &str, expect: &Expect, depth: usize) -> Action {
    let device = |s: &mut Section<'_, '_>| {
        let name = s.string("device");
        if let Some(name) = &name {
            known_device(lab, s.source(), name, &s.place("device"));
        }
        name
    };
    let output = |e: &Expect, default: u32| {
        e.output.as_ref().and_then(|o| u32::try_from(o.len()).ok()).unwrap_or(default)
    };
    match verb {
        "open" => Action::Open { name: s.string("name"), handle: s.string("as") },
        "read" => Action::Read {
            handle: s.string("handle"),
            length: s.number("length", 0, MOST_BUFFER).and_then(small).unwrap_or(output(expect, 4096)),
            offset: s.number("offset", 0, i64::MAX as u64).unwrap_or(0),
            request: s.string("async"),
        },
        "write" => Action::Write {
            handle: s.string("handle"),
            input: s.bytes("input").unwrap_or_default(),
            offset: s.number("offset", 0, i64::MAX as u64).unwrap_or(0),
            request: s.string("async"),
        },
        "ioctl" | "internal_ioctl" => {
            let code = s.number("code", 0, u64::from(u32::MAX)).and_then(small);
            if code.is_none() && s.place("code") == s.span {
                s.wrong(format!("`{verb}` needs a `code`"), "for example: code = 0x222000");
            }
            Action::Ioctl {
                internal: verb == "internal_ioctl",
                handle: s.string("handle"),
                code: code.unwrap_or(0),
                input: s.bytes("input").unwrap_or_default(),
                output_length: s
                    .number("output_length", 0, MOST_BUFFER)
                    .and_then(small)
                    .unwrap_or(output(expect, 256)),
                request: s.string("async"),
            }
        }
        "cancel" => Action::Cancel { request: s.required_string("request", "\"r1\"") },
        "wait" => {
            let choices = (s.string("request"), s.string("thread"), s.time("for"));
            match choices {
                (Some(request), None, None) => Action::Wait(WaitFor::Request(request)),
                (None, Some(thread), None) => Action::Wait(WaitFor::Thread(thread)),
                (None, None, Some(ns)) => Action::Wait(WaitFor::Time(ns)),
                _ => {
                    s.wrong("`wait` waits for one thing", "give one of `request`, `thread`, `for`");
                    Action::Wait(WaitFor::Time(0))
                }
            }
        }
        "close" => Action::Close { handle: s.string("handle") },
        "pnp" => {
            let minor = s.word("minor", PnpMinor::ALL);
            if minor.is_none() && s.place("minor") == s.span {
                s.wrong("`pnp` needs a `minor`", "for example: minor = \"query_stop\"");
            }
            Action::Pnp {
                device: device(s),
                minor: minor.unwrap_or(PnpMinor::QueryStop),
                rebalance: s.parsed("rebalance", units::interrupts),
            }
        }
        "power" => {
            use DevicePower::{D0, D1, D2, D3};
            let state = s.word("state", &[("D0", D0), ("D1", D1), ("D2", D2), ("D3", D3)]);
            let system =
                s.word("system", &[("S0", 0), ("S1", 1), ("S2", 2), ("S3", 3), ("S4", 4), ("S5", 5)]);
            let target = match (state, system) {
                (Some(state), None) => PowerTarget::Device(state),
                (None, Some(system)) => PowerTarget::System(system),
                _ => {
                    s.wrong("`power` sets one state", "give `state` (D0 to D3) or `system` (S0 to S5)");
                    PowerTarget::Device(D0)
                }
            };
            Action::Power { device: device(s), target }
        }
        "raise" => {
            let device = device(s);
            raise(s, lab, device)
        }
        "set" => {
            let device = device(s);
            set(s, device)
        }
        "remove" => Action::Remove { device: device(s) },
        "surprise_remove" => Action::SurpriseRemove { device: device(s) },
        _ => repeat(s, lab, depth),
    }
}

fn raise(s: &mut Section<'_, '_>, lab: &Lab, device: Option<String>) -> Action {
    let source = s.number("source", 0, 2047).and_then(small).unwrap_or(0);
    let target = match &device {
        Some(name) => lab.device(name),
        None => lab.devices.first(),
    };
    if let Some(d) = target {
        // A pulse says how many; a ring has one a queue; edu's are the bits of its interrupt status; a serial
        // port's are the bytes the host may send, and a break.
        let own = match (d.model.as_str(), d.properties.get("sources"), d.properties.get("queues")) {
            ("edu", ..) => 32,
            ("uart16550", ..) => 257,
            (_, Some(Setting::Number(n)), _) | ("ring", _, Some(Setting::Number(n))) => {
                u32::try_from(*n).unwrap_or(u32::MAX)
            }
            _ => 0,
        };
        let count = d.interrupts.count().max(own).max(1);
        if source >= count {
            let message = format!("`{}` has {count} sources, so none is number {source}", d.name);
            s.source().wrong(s.place("source"), message, Some("sources are counted from 0".into()));
        }
    }
    Action::Raise { device, source }
}

fn set(s: &mut Section<'_, '_>, device: Option<String>) -> Action {
    let register = s.string("register");
    let address = s.number("address", 0, u64::MAX);
    let value = s.get("value").and_then(setting);
    let bytes = s.bytes("bytes");
    match (device, register, value, address, bytes) {
        (Some(device), Some(register), Some(value), None, None) => {
            Action::Set(SetTarget::Register { device, register, value })
        }
        (None, None, None, Some(address), Some(bytes)) => Action::Set(SetTarget::Memory { address, bytes }),
        _ => {
            s.wrong(
                "`set` writes a register or memory",
                "give `device`, `register`, `value`; or `address`, `bytes`",
            );
            Action::Set(SetTarget::Memory { address: 0, bytes: Vec::new() })
        }
    }
}

fn repeat(s: &mut Section<'_, '_>, lab: &Lab, depth: usize) -> Action {
    let count = s.number("count", 1, 1_000_000).and_then(small).unwrap_or(1);
    let inner = s.tables("steps", "steps = [{ do = \"...\" }]", MOST_WRITTEN_STEPS);
    if depth >= DEEPEST_REPEAT {
        s.wrong(
            format!("`repeat` is nested more than {DEEPEST_REPEAT} deep"),
            "write an outer `count` instead",
        );
        return Action::Repeat { count, steps: Vec::new() };
    }
    if inner.is_empty() {
        s.wrong("`repeat` has no `steps`", "for example: steps = [{ do = \"raise\" }]");
    }
    Action::Repeat { count, steps: inner.into_iter().map(|i| step(i, lab, depth + 1)).collect() }
}

fn check(mut s: Section<'_, '_>, lab: &Lab) -> Checks {
    let mut c = Checks {
        no_outstanding_irp: s.boolean("no_outstanding_irp").unwrap_or(true),
        no_connected_interrupt: s.boolean("no_connected_interrupt").unwrap_or(true),
        no_leaked_pool: s.boolean("no_leaked_pool").unwrap_or(true),
        ..Checks::default()
    };
    if let Some(counters) = s.table("counters", "[check.counters]") {
        for (name, span, value) in counters.entries() {
            if !COUNTERS.contains(&name.as_str()) {
                let help = suggestion(&name, COUNTERS, "counters");
                s.source().wrong(span, format!("there is no counter `{name}`"), Some(help));
                continue;
            }
            let bound = if let DeValue::Table(table) = value.get_ref() {
                let mut b = Section::new(s.source(), table, value.span(), "a bound");
                let bound = Bound {
                    low: b.number("at_least", 0, u64::MAX).unwrap_or(0),
                    high: b.number("at_most", 0, u64::MAX).unwrap_or(u64::MAX),
                };
                b.finish(&[]);
                Some(bound)
            } else {
                counters.as_number(&name, value, 0, u64::MAX).map(|n| Bound { low: n, high: n })
            };
            c.counters.extend(bound.map(|b| (name, b)));
        }
    }
    if let Some(devices) = s.table("device", "[check.device]") {
        for (name, span, value) in devices.entries() {
            known_device(lab, s.source(), &name, &span);
            let DeValue::Table(table) = value.get_ref() else {
                s.source().wrong(value.span(), "the registers of a device are a table", None);
                continue;
            };
            let registers = Section::new(s.source(), table, value.span(), "[check.device]");
            let wanted = c.devices.entry(name).or_default();
            for (register, _, value) in registers.entries() {
                wanted.extend(registers.as_number(&register, value, 0, u64::MAX).map(|n| (register, n)));
            }
        }
    }
    s.finish(&[]);
    c
}

fn rules(mut s: Section<'_, '_>) -> Rules {
    let mut rules = Rules::default();
    for mut one in s.tables("suppress", "[[rules.suppress]]", 1000) {
        rules.suppress.push(Suppression {
            rule: one.required_string("rule", "\"R-ISR-TIME\""),
            function: one.string("function"),
            reason: one.required_string("reason", "\"why this is no fault\""),
        });
        one.finish(&[]);
    }
    for (rule, _, value) in s.rest() {
        let level = match value.get_ref().as_str() {
            Some("off") => Level::Off,
            Some("advice") => Level::Advice,
            Some("finding") => Level::Finding,
            _ => {
                let help = "valid levels: off, advice, finding".to_owned();
                s.source().wrong(value.span(), format!("`{rule}` needs a level"), Some(help));
                continue;
            }
        };
        rules.levels.insert(rule, level);
    }
    rules
}
