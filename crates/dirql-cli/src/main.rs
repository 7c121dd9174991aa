//! The dirql command: the only crate that prints.

mod sdk;

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dirql::{RunOptions, RunReport, Verdict};

/// A laboratory for the interrupt code of Windows drivers.
#[derive(Parser)]
#[command(name = "dirql", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
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
    /// Say what an image imports and what dirql lacks for it
    #[command(after_help = EXIT_CODES)]
    Inspect {
        /// The driver's image
        image: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// List the device models and their properties
    Devices,
    /// List the exports that dirql implements
    Exports,
    /// Write headers, import libraries and Iointex, to build a driver with
    #[command(after_help = EXIT_CODES)]
    Sdk {
        /// Where to; made if it is not there
        folder: PathBuf,
    },
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
    let cli = Cli::parse();
    let json = matches!(cli.command, Command::Run { json: true, .. } | Command::Inspect { json: true, .. });
    let (text, verdict) = std::panic::catch_unwind(|| execute(cli.command)).unwrap_or_else(|_| {
        let what = last.lock().map(|t| t.clone()).unwrap_or_default();
        let message = format!(
            "dirql {} panicked; please report this with the image and lab:\n{what}",
            env!("CARGO_PKG_VERSION")
        );
        shown(&RunReport::failed(Verdict::Internal, "internal", message), json)
    });
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has had enough; what the run came to stands.
        Err(e) if e.kind() != ErrorKind::BrokenPipe => ExitCode::from(Verdict::Input.exit_code()),
        _ => ExitCode::from(verdict.exit_code()),
    }
}

fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

fn shown(report: &RunReport, json: bool) -> (String, Verdict) {
    let text = if json { format!("{}\n", report.to_json()) } else { report.to_text(colour()) };
    (text, report.verdict)
}

/// Does a command: what to print, and how it ended.
fn execute(command: Command) -> (String, Verdict) {
    match command {
        Command::Run { image, lab, json, trace, budget, cpus } => {
            let options = RunOptions { image, lab, trace, budget, cpus };
            let report = dirql::run(&options);
            let mut text = String::new();
            for event in &report.events {
                text += &if json {
                    serde_json::to_string(event).unwrap_or_default()
                } else {
                    dirql::report::trace_line(event)
                };
                text.push('\n');
            }
            let (report_text, verdict) = shown(&report, json);
            (text + &report_text, verdict)
        }
        Command::Inspect { image, json } => match dirql::inspect(&image) {
            Ok(report) => {
                let missing = report.imports.iter().any(|i| !i.implemented);
                let text = if json {
                    format!(
                        "{}\n",
                        serde_json::json!({ "dirql": env!("CARGO_PKG_VERSION"), "inspect": report })
                    )
                } else {
                    let mut text =
                        format!("{}: {:#x} bytes, entry {:#x}\n", report.image, report.size, report.entry);
                    for i in &report.imports {
                        let mark = if i.implemented { " " } else { "missing" };
                        text += &format!("  {mark:7} {}!{}\n", i.module, i.name);
                    }
                    text
                };
                (text, if missing { Verdict::Missing } else { Verdict::Ok })
            }
            Err(error) => shown(&error.into(), json),
        },
        Command::Devices => {
            let mut text = String::new();
            for m in dirql::models::MODELS {
                let yet = if m.available { "" } else { " (not in this dirql yet)" };
                text += &format!("{:10} {} {}{yet}\n", m.name, m.id, m.summary);
                for p in m.properties {
                    text += &format!("{:12} {}: {}\n", "", p.name, p.summary);
                }
            }
            (text, Verdict::Ok)
        }
        Command::Sdk { folder } => sdk::run(&folder, |report| shown(report, false)),
        Command::Exports => {
            let text = dirql::exports().iter().map(|e| format!("{}!{}\n", e.module, e.name)).collect();
            (text, Verdict::Ok)
        }
    }
}
