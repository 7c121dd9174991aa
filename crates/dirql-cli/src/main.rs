//! The dirql command: the only crate that prints.

mod conformance;
mod explore;
mod sdk;
mod show;

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind as Usage;
use clap::{Parser, Subcommand, ValueEnum};
use dirql::{InputError, RunOptions, RunReport, Verdict};

/// A laboratory for the interrupt code of Windows drivers.
#[derive(Parser)]
#[command(name = "dirql", version, after_help = EXIT_CODES)]
struct Cli {
    /// When to use colour; auto is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    color: Colour,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  nothing wrong
  1  the driver failed, or there are findings
  2  the command, lab or image is bad
  3  the driver or lab needs something dirql lacks
  4  a bug in dirql";

#[derive(Subcommand)]
enum Command {
    /// Load a driver, start it, deliver interrupts, say what happened
    #[command(after_help = EXIT_CODES)]
    Run {
        /// The driver's image, a .sys file for x64
        image: PathBuf,
        /// The lab file [default: the image's name with .toml, else a made lab]
        #[arg(long, value_name = "FILE")]
        lab: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Print every event as a line before the report (JSON lines with --json)
        #[arg(long)]
        trace: bool,
        /// How many instructions the run may take
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        budget: Option<u64>,
        /// How many processors, 1 to 64
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
        cpus: Option<u32>,
    },
    /// Search the interleavings of a driver's interrupts, DPCs and threads
    #[command(after_help = EXIT_CODES)]
    Explore(explore::Explore),
    /// Have a run again, by its token
    #[command(after_help = EXIT_CODES)]
    Replay(explore::Replay),
    /// Run the conformance driver under every profile and print each case
    #[command(after_help = EXIT_CODES)]
    Conformance(conformance::Conformance),
    /// Say what an image is, how it connects interrupts, and what dirql lacks for it
    #[command(after_help = EXIT_CODES)]
    Inspect {
        /// The driver's image
        image: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// List the device models and their properties
    #[command(after_help = EXIT_CODES)]
    Devices {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// List the rules a run judges by
    #[command(after_help = EXIT_CODES)]
    Rules {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// List the exports that dirql implements, with module and highest IRQL
    #[command(after_help = EXIT_CODES)]
    Exports {
        /// Only names that have this in them; * stands for anything
        pattern: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write headers, import libraries and Iointex, to build a driver with
    #[command(after_help = EXIT_CODES)]
    Sdk {
        /// Where to; made if it is not there
        folder: PathBuf,
    },
}

impl Command {
    fn json(&self) -> bool {
        match self {
            Self::Run { json, .. }
            | Self::Inspect { json, .. }
            | Self::Devices { json }
            | Self::Rules { json }
            | Self::Exports { json, .. } => *json,
            Self::Sdk { .. } => false,
            Self::Explore(e) => e.json(),
            Self::Replay(r) => r.json(),
            Self::Conformance(c) => c.json(),
        }
    }
}

/// What a command prints, where, and how it ended.
struct Said {
    text: String,
    verdict: Verdict,
    /// It is an error, for standard error.
    error: bool,
}

impl Said {
    fn ok(text: String) -> Self {
        Self { text, verdict: Verdict::Ok, error: false }
    }

    fn report(report: &RunReport, json: bool, colour: Colour) -> Self {
        let error = !json && report.input.is_some();
        let text = if json {
            format!("{}\n", report.to_json())
        } else if error {
            report.to_text(coloured(colour, std::io::stderr().is_terminal()))
        } else {
            report.to_text(coloured(colour, std::io::stdout().is_terminal()))
        };
        Self { text, verdict: report.verdict, error }
    }

    /// A report after its events, when it has any.
    fn traced(report: &RunReport, json: bool, colour: Colour) -> Self {
        let mut text = String::new();
        for event in &report.events {
            text += &if json {
                serde_json::to_string(event).unwrap_or_default()
            } else {
                dirql::report::trace_line(event)
            };
            text.push('\n');
        }
        let said = Self::report(report, json, colour);
        Self { text: text + &said.text, ..said }
    }
}

fn main() -> ExitCode {
    // The message of a panic goes into the report, not between its lines.
    let last = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let seen = last.clone();
    std::panic::set_hook(Box::new(move |info| {
        if let Ok(mut text) = seen.lock() {
            *text = info.to_string();
        }
    }));
    let args: Vec<OsString> = std::env::args_os().collect();
    let said = match Cli::try_parse_from(&args) {
        Ok(cli) => {
            let (json, colour) = (cli.command.json(), cli.color);
            std::panic::catch_unwind(|| execute(cli.command, colour)).unwrap_or_else(|_| {
                let what = last.lock().map(|t| t.clone()).unwrap_or_default();
                let message = format!(
                    "dirql {} panicked; please report this with the image and lab:\n{what}",
                    env!("CARGO_PKG_VERSION")
                );
                Said::report(&RunReport::failed(Verdict::Internal, "internal", message), json, colour)
            })
        }
        Err(error) => usage(&args, &error),
    };
    let written = if said.error {
        std::io::stderr().lock().write_all(said.text.as_bytes())
    } else {
        let mut out = std::io::stdout().lock();
        out.write_all(said.text.as_bytes()).and_then(|()| out.flush())
    };
    match written {
        // Whoever reads has had enough; what the run came to stands.
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            // Nothing is left to say it on but this.
            let _ = writeln!(std::io::stderr().lock(), "error: the output can't be written: {e}");
            ExitCode::from(Verdict::Input.exit_code())
        }
        _ => ExitCode::from(said.verdict.exit_code()),
    }
}

/// A command line that is none, or asks for help.
fn usage(args: &[OsString], error: &clap::Error) -> Said {
    let asked = matches!(error.kind(), Usage::DisplayHelp | Usage::DisplayVersion);
    let before_dashes = args.iter().take_while(|a| *a != "--");
    if !asked && before_dashes.clone().any(|a| a == "--json") {
        // The first paragraph says what is wrong; the rest is for a person.
        let text = error.render().to_string();
        let whole: Vec<&str> = text.lines().map(str::trim).take_while(|l| !l.starts_with("Usage:")).collect();
        let message = whole.iter().filter(|l| !l.is_empty()).copied().collect::<Vec<_>>().join("; ");
        let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
        let report: RunReport =
            InputError::new(None, message, Some("`dirql help` lists the commands")).into();
        return Said::report(&report, true, Colour::Never);
    }
    let mut wanted = Colour::Auto;
    for (i, arg) in before_dashes.enumerate() {
        let next = args.get(i + 1).and_then(|a| a.to_str());
        wanted = match (arg.to_str(), next) {
            (Some("--color=always"), _) | (Some("--color"), Some("always")) => Colour::Always,
            (Some("--color=never"), _) | (Some("--color"), Some("never")) => Colour::Never,
            _ => wanted,
        };
    }
    let terminal = if asked { std::io::stdout().is_terminal() } else { std::io::stderr().is_terminal() };
    let rendered = error.render();
    let text = if coloured(wanted, terminal) { rendered.ansi().to_string() } else { rendered.to_string() };
    let verdict = if asked { Verdict::Ok } else { Verdict::Input };
    Said { text, verdict, error: !asked }
}

fn coloured(wanted: Colour, terminal: bool) -> bool {
    match wanted {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    }
}

/// Does a command: what to print, and how it ended.
fn execute(command: Command, colour: Colour) -> Said {
    match command {
        Command::Run { image, lab, json, trace, budget, cpus } => {
            Said::traced(&dirql::run(&RunOptions { image, lab, trace, budget, cpus }), json, colour)
        }
        Command::Explore(explore) => {
            let json = explore.json();
            let (text, verdict) = explore.execute();
            Said { text, verdict, error: !json && verdict == Verdict::Input }
        }
        Command::Replay(replay) => {
            let json = replay.json();
            Said::traced(&replay.execute(), json, colour)
        }
        Command::Conformance(suite) => {
            let json = suite.json();
            match suite.execute() {
                Ok((text, verdict)) => Said { text, verdict, error: false },
                Err(report) => Said::report(&report, json, colour),
            }
        }
        Command::Inspect { image, json } => match dirql::inspect(&image) {
            Ok(report) => {
                let verdict = if report.missing().next().is_some() { Verdict::Missing } else { Verdict::Ok };
                let text = if json {
                    let mut object = show::object(verdict, "inspect", &report);
                    let lacks = report.missing().map(|i| {
                        let message = format!(
                            "{}!{} is not implemented ({} of {} surveyed drivers import it)",
                            i.module, i.name, i.drivers, report.surveyed
                        );
                        dirql::Finding::new("missing", message)
                    });
                    object["findings"] = serde_json::json!(lacks.collect::<Vec<_>>());
                    format!("{object}\n")
                } else {
                    show::inspect(&report)
                };
                Said { text, verdict, error: false }
            }
            Err(error) => Said::report(&error.into(), json, colour),
        },
        Command::Devices { json } => Said::ok(if json { show::devices_json() } else { show::devices() }),
        Command::Rules { json } => Said::ok(if json { show::rules_json() } else { show::rules() }),
        Command::Exports { pattern, json } => match show::exports(pattern.as_deref(), json) {
            Ok(text) => Said::ok(text),
            Err(error) => Said::report(&error.into(), json, colour),
        },
        Command::Sdk { folder } => match sdk::write(&folder) {
            Ok(text) => Said::ok(text),
            Err(error) => Said::report(&error.into(), false, colour),
        },
    }
}
