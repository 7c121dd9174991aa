//! Bad input, told so that it can be put right: the file, the place, the cure.
//!
//! Rendered by hand rather than by a diagnostics crate: one excerpt with a caret is all that is needed, and
//! the dependency tree stays small (docs/adr/0004).

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One thing wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in one line.
    pub message: String,
    /// Where in the source text, in bytes.
    pub span: Option<Range<usize>>,
    /// What to do about it.
    pub help: Option<String>,
}

/// A command, lab or image that can't be used as it is. Verdict `input`, exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// The file, if a file is to blame.
    pub file: Option<PathBuf>,
    /// The file's text, where problems carry places in it.
    source: String,
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
}

impl InputError {
    /// An error about a file as a whole, or about no file.
    #[must_use]
    pub fn new(file: Option<&Path>, message: impl Into<String>, help: Option<&str>) -> Self {
        let problem = Problem { message: message.into(), span: None, help: help.map(Into::into) };
        Self { file: file.map(Into::into), source: String::new(), problems: vec![problem] }
    }

    /// An error about places in a text.
    #[must_use]
    pub fn in_text(file: Option<&Path>, source: &str, problems: Vec<Problem>) -> Self {
        Self { file: file.map(Into::into), source: source.into(), problems }
    }

    /// Line and column of a problem, both from 1, the column in characters.
    #[must_use]
    pub fn position(&self, problem: &Problem) -> Option<(usize, usize)> {
        problem.span.as_ref().map(|span| line_column(&self.source, span.start))
    }
}

/// Line and column, both from 1, of a byte offset. An offset beyond the end is the end.
pub(crate) fn line_column(source: &str, offset: usize) -> (usize, usize) {
    let offset = floor_boundary(source, offset);
    let before = &source[..offset];
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Text fit for a terminal: control characters become visible and harmless.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// The longest part of a source line that is shown.
const EXCERPT: usize = 160;

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 12;
        let file = self.file.as_ref().map(|p| printable(&p.display().to_string()));
        for (i, problem) in self.problems.iter().take(SHOWN).enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "error: {}", printable(&problem.message))?;
            let mut margin = 1;
            if let Some(span) = &problem.span {
                let (line, column) = line_column(&self.source, span.start);
                let number = line.to_string();
                margin = number.len();
                let name = file.as_deref().unwrap_or("<lab>");
                let text = self.source.lines().nth(line - 1).unwrap_or("");
                // A window of the line that has the place in it.
                let skip = column.saturating_sub(1).saturating_sub(EXCERPT / 2);
                let shown: String = printable(text).chars().skip(skip).take(EXCERPT).collect();
                let room = shown.chars().count().saturating_sub(column - 1 - skip).max(1);
                let start = floor_boundary(&self.source, span.start);
                let end = floor_boundary(&self.source, span.end).max(start);
                let first_line = self.source[start..end].lines().next().unwrap_or("");
                let carets = first_line.chars().count().clamp(1, room);
                write!(f, "\n{:margin$}--> {name}:{line}:{column}", "")?;
                write!(f, "\n{:margin$} |\n{number} | {shown}", "")?;
                write!(f, "\n{:margin$} | {:pad$}{}", "", "", "^".repeat(carets), pad = column - 1 - skip)?;
            } else if let Some(name) = &file {
                write!(f, "\n --> {name}")?;
            }
            if let Some(help) = &problem.help {
                write!(f, "\n{:margin$} = help: {}", "", printable(help))?;
            }
        }
        if self.problems.len() > SHOWN {
            write!(f, "\n\n... and {} more", self.problems.len() - SHOWN)?;
        }
        Ok(())
    }
}

impl std::error::Error for InputError {}

/// The valid name nearest to `given`, if one is near enough to be meant.
#[must_use]
pub fn nearest<'a>(given: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = given.to_lowercase();
    let near = |name: &str| {
        let name = name.to_lowercase();
        let distance = strsim::damerau_levenshtein(&lower, &name);
        (distance <= 1 + name.len().min(lower.len()) / 3).then_some(distance)
    };
    // A name of absurd length is near nothing; the distance is quadratic.
    if given.len() > 200 {
        return None;
    }
    valid.into_iter().filter_map(|name| near(name).map(|d| (d, name))).min_by_key(|&(d, _)| d).map(|(_, n)| n)
}

/// "did you mean x? valid: a, b, c", as much of it as applies.
pub(crate) fn suggestion(given: &str, valid: &[&str], what: &str) -> String {
    let list = if valid.is_empty() { "none".to_owned() } else { valid.join(", ") };
    match nearest(given, valid.iter().copied()) {
        Some(name) => format!("did you mean `{name}`? valid {what}: {list}"),
        None => format!("valid {what}: {list}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_at_the_place() {
        let source = "[machine]\nwindos = \"11\"\n";
        let problem = Problem { message: "unknown key".into(), span: Some(10..16), help: Some("try".into()) };
        let e = InputError::in_text(Some(Path::new("a.toml")), source, vec![problem]);
        let expected =
            "error: unknown key\n --> a.toml:2:1\n  |\n2 | windos = \"11\"\n  | ^^^^^^\n  = help: try";
        assert_eq!(e.to_string(), expected);
    }

    #[test]
    fn odd_spans_and_texts_do_not_panic() {
        for source in ["", "\u{1b}[31m\u{fc}", &"x".repeat(10_000)] {
            for span in [0..0, 3..1_000_000, 9_999..10_000, 2..3] {
                let problem = Problem { message: "m".into(), span: Some(span), help: None };
                let text = InputError::in_text(None, source, vec![problem]).to_string();
                assert!(!text.contains('\u{1b}') && text.len() < 1_000, "{text}");
            }
        }
    }

    #[test]
    fn nearest_wants_a_near_name() {
        assert_eq!(nearest("windos", ["windows", "cpus"]), Some("windows"));
        assert_eq!(nearest("zzz", ["windows", "cpus"]), None);
    }
}
