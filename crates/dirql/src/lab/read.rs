//! Reading a TOML table key by key: every key is asked for by name, what was not asked for is unknown, and
//! every value knows its place. All problems of a file are gathered, not just the first.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::units;
use crate::problem::{Problem, line_column, suggestion};

/// A value with its place.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// The file being read, and what is wrong with it so far.
pub(super) struct Source<'a> {
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, problems: RefCell::default() }
    }

    pub(super) fn wrong(&self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.problems.borrow_mut().push(Problem { message: message.into(), span: Some(span), help });
    }

    pub(super) fn line(&self, span: &Range<usize>) -> u32 {
        u32::try_from(line_column(self.text, span.start).0).unwrap_or(u32::MAX)
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|p| p.span.as_ref().map_or(0, |s| s.start));
        problems
    }
}

/// One table of the file, as it is being read.
pub(super) struct Section<'a, 's> {
    source: &'s Source<'a>,
    table: &'s DeTable<'a>,
    /// The place of the table's head.
    pub(super) span: Range<usize>,
    /// The table's name as a person would write it, e.g. `[[device]]`.
    name: String,
    known: Vec<&'static str>,
}

impl<'a, 's> Section<'a, 's> {
    pub(super) fn new(
        source: &'s Source<'a>,
        table: &'s DeTable<'a>,
        span: Range<usize>,
        name: &str,
    ) -> Self {
        Self { source, table, span, name: name.into(), known: Vec::new() }
    }

    pub(super) fn source(&self) -> &'s Source<'a> {
        self.source
    }

    pub(super) fn line(&self) -> u32 {
        self.source.line(&self.span)
    }

    /// A problem with this table as a whole.
    pub(super) fn wrong(&self, message: impl Into<String>, help: &str) {
        self.source.wrong(self.span.clone(), message, Some(help.into()));
    }

    /// The value of `key`, which is from now on a valid key here.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'s Value<'a>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// The place of `key`'s value, or of the table.
    pub(super) fn place(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or_else(|| self.span.clone(), Spanned::span)
    }

    fn not_a<T>(&self, key: &str, value: &Value<'_>, expected: &str) -> Option<T> {
        let message = format!("`{key}` in {} must be {expected}, not {}", self.name, kind(value.get_ref()));
        self.source.wrong(value.span(), message, None);
        None
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<String> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(s) => Some(s.to_string()),
            _ => self.not_a(key, value, "text in quotes"),
        }
    }

    pub(super) fn required_string(&mut self, key: &'static str, example: &str) -> String {
        let present = self.table.contains_key(key);
        let value = self.string(key);
        if !present {
            self.wrong(format!("{} has no `{key}`", self.name), &format!("for example: {key} = {example}"));
        }
        value.unwrap_or_default()
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Boolean(b) => Some(*b),
            _ => self.not_a(key, value, "true or false"),
        }
    }

    /// A number in `low..=high`.
    pub(super) fn number(&mut self, key: &'static str, low: u64, high: u64) -> Option<u64> {
        let value = self.get(key)?;
        self.as_number(key, value, low, high)
    }

    pub(super) fn as_number(&self, key: &str, value: &Value<'_>, low: u64, high: u64) -> Option<u64> {
        let Some(n) = integer(value.get_ref()) else {
            return self.not_a(key, value, "a whole number, decimal or 0x, zero or more");
        };
        if (low..=high).contains(&n) {
            return Some(n);
        }
        let show = |n: u64| if n > 0xffff { format!("{n:#x}") } else { n.to_string() };
        let message = format!("`{key}` in {} must be from {} to {}", self.name, show(low), show(high));
        self.source.wrong(value.span(), message, None);
        None
    }

    /// One number, or a list of them.
    pub(super) fn numbers(&mut self, key: &'static str, low: u64, high: u64, most: usize) -> Vec<u64> {
        let mut out = Vec::new();
        for item in self.one_or_many(key, most) {
            out.extend(self.as_number(key, item, low, high));
        }
        out
    }

    /// One text, or a list of them.
    pub(super) fn strings(&mut self, key: &'static str, most: usize) -> Vec<String> {
        let mut out = Vec::new();
        for item in self.one_or_many(key, most) {
            match item.get_ref() {
                DeValue::String(s) => out.push(s.to_string()),
                _ => out.extend(self.not_a::<String>(key, item, "text in quotes, or a list of them")),
            }
        }
        out
    }

    fn one_or_many(&mut self, key: &'static str, most: usize) -> Vec<&'s Value<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let items: Vec<_> = match value.get_ref() {
            DeValue::Array(a) => a.iter().collect(),
            _ => vec![value],
        };
        if items.len() > most {
            self.source.wrong(value.span(), format!("`{key}` has more than {most} entries"), None);
            return Vec::new();
        }
        items
    }

    /// One of a few words. The number of a word is accepted where `options` says so by listing it.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, options: &[(&str, T)]) -> Option<T> {
        let value = self.get(key)?;
        let given = match value.get_ref() {
            DeValue::String(s) => s.to_string(),
            DeValue::Integer(i) => i.to_string(),
            DeValue::Float(f) => f.to_string(),
            _ => return self.not_a(key, value, "a word"),
        };
        if let Some((_, found)) = options.iter().find(|(name, _)| *name == given) {
            return Some(*found);
        }
        let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
        self.source.wrong(
            value.span(),
            format!("`{given}` is not a value of `{key}` in {}", self.name),
            Some(suggestion(&given, &names, "values")),
        );
        None
    }

    /// Text that `parse` turns into something, or says why it can't.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.string(key)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.source.wrong(self.place(key), format!("`{key}` in {}: {why}", self.name), None);
                None
            }
        }
    }

    /// A span of virtual time, in nanoseconds.
    pub(super) fn time(&mut self, key: &'static str) -> Option<u64> {
        self.parsed(key, units::time)
    }

    /// Bytes, written as `"01 00 ff"`.
    pub(super) fn bytes(&mut self, key: &'static str) -> Option<Vec<u8>> {
        self.parsed(key, units::bytes)
    }

    /// A table under `key`.
    pub(super) fn table(&mut self, key: &'static str, name: &str) -> Option<Section<'a, 's>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(t) => Some(Section::new(self.source, t, value.span(), name)),
            _ => self.not_a(key, value, "a table"),
        }
    }

    /// One table, or a list of them, under `key`.
    pub(super) fn tables(&mut self, key: &'static str, name: &str, most: usize) -> Vec<Section<'a, 's>> {
        let mut out = Vec::new();
        for item in self.one_or_many(key, most) {
            match item.get_ref() {
                DeValue::Table(t) => out.push(Section::new(self.source, t, item.span(), name)),
                _ => drop(self.not_a::<()>(key, item, &format!("a table, written {name}"))),
            }
        }
        out
    }

    /// Every key of the table with its value: for tables whose keys are free.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (String, Range<usize>, &'s Value<'a>)> + use<'a, 's> {
        self.table.iter().map(|(key, value)| (key.get_ref().to_string(), key.span(), value))
    }

    /// The keys nobody has asked for so far.
    pub(super) fn rest(&self) -> Vec<(String, Range<usize>, &'s Value<'a>)> {
        self.entries().filter(|(key, ..)| !self.known.contains(&key.as_str())).collect()
    }

    /// What is left is unknown: says so, with the nearest valid key of this table and `more`.
    pub(super) fn finish(self, more: &[&str]) {
        let mut valid: Vec<&str> = self.known.iter().copied().chain(more.iter().copied()).collect();
        valid.sort_unstable();
        valid.dedup();
        for (key, span, _) in self.rest() {
            if !more.contains(&key.as_str()) {
                let help = suggestion(&key, &valid, "keys here");
                self.source.wrong(span, format!("unknown key `{key}` in {}", self.name), Some(help));
            }
        }
    }
}

/// A whole number of zero or more, of any radix.
pub(super) fn integer(value: &DeValue<'_>) -> Option<u64> {
    match value {
        DeValue::Integer(i) => u64::from_str_radix(i.as_str().trim_start_matches('+'), i.radix()).ok(),
        // A hexadecimal number in quotes is as good: shells and generators write them so.
        DeValue::String(s) => units::number(s).ok(),
        _ => None,
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(i) if i.as_str().starts_with('-') => "a negative number",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
