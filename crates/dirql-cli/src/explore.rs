//! `dirql explore` and `dirql replay`.
#![expect(clippy::print_stderr, reason = "progress")]

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use dirql::RunOptions;
use dirql::explore::{ExploreOptions, ReplayOptions};
use dirql::{RunReport, Verdict};

/// What both commands take.
#[derive(Args)]
struct Lab {
    /// The lab file [default: the image's name with .toml, else a made lab]
    #[arg(long, value_name = "FILE")]
    lab: Option<PathBuf>,
    /// How many processors, 1 to 64
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
    /// How many steps a run may take
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    budget: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Arguments of `explore`.
#[derive(Args)]
pub(crate) struct Explore {
    /// The driver's image, a .sys file for x64
    image: PathBuf,
    #[command(flatten)]
    lab: Lab,
    /// Most departures from running straight on, those of the hardware apart [default: 2, then 3 as far as it goes]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(0..=16))]
    preemptions: Option<u32>,
    /// Most events of the hardware (a device's own interrupts, time, which processor takes one) that come otherwise than by default [default: 2, then 3 as far as it goes]
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(0..=16))]
    arrivals: Option<u32>,
    /// Most executions
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true, value_parser = clap::value_parser!(u64).range(1..))]
    schedules: u64,
    /// Longest time: "10 s", "500 ms", or plain seconds
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
    /// Executions at a time [default: the processors of this machine]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Go on after a finding
    #[arg(long)]
    keep_going: bool,
    /// Depart at every instruction, not only where another context could notice
    #[arg(long)]
    every_instruction: bool,
    /// Run equivalent executions too
    #[arg(long)]
    no_reduction: bool,
}

/// Arguments of `replay`.
#[derive(Args)]
pub(crate) struct Replay {
    /// The token, as `dirql explore` printed it
    token: String,
    /// The driver's image [default: the token's name with .sys, in this folder]
    image: Option<PathBuf>,
    #[command(flatten)]
    lab: Lab,
    /// Print every event as a line before the report (JSON lines with --json)
    #[arg(long)]
    trace: bool,
}

impl Explore {
    pub(crate) fn json(&self) -> bool {
        self.lab.json
    }

    /// Searches, with progress on the terminal: what to print, and how it ended.
    pub(crate) fn execute(self) -> (String, Verdict) {
        let json = self.lab.json;
        let jobs = self.jobs.map_or_else(
            || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            usize::from,
        );
        let options = ExploreOptions {
            run: RunOptions {
                image: self.image,
                lab: self.lab.lab,
                trace: false,
                budget: self.lab.budget,
                cpus: self.lab.cpus,
            },
            preemptions: self.preemptions,
            arrivals: self.arrivals,
            schedules: self.schedules,
            jobs,
            keep_going: self.keep_going,
            every: self.every_instruction,
            reduce: !self.no_reduction,
        };
        let begin = Instant::now();
        let mut shown = begin;
        let live = std::io::stderr().is_terminal();
        let report = dirql::explore::explore(&options, |tally, found| {
            let now = Instant::now();
            if live && now - shown > Duration::from_millis(200) {
                shown = now;
                let rate = tally.executions as f64 / (now - begin).as_secs_f64();
                eprint!(
                    "\r\x1b[K{} executions ({rate:.0}/s), {} inequivalent, {} shared granules, level {}, {} to extend, {found} found",
                    tally.executions, tally.distinct, tally.shared, tally.level, tally.left
                );
                let _ = std::io::stderr().flush();
            }
            self.time.is_none_or(|t| now - begin < t)
        });
        if live {
            eprint!("\r\x1b[K");
        }
        let text = if json { format!("{}\n", report.to_json()) } else { report.to_text() };
        (text, report.verdict)
    }
}

impl Replay {
    pub(crate) fn json(&self) -> bool {
        self.lab.json
    }

    /// The report, and its events when they were asked for.
    pub(crate) fn execute(self) -> RunReport {
        let image = self.image.unwrap_or_else(|| {
            let stem = self.token.rsplit_once('-').map_or("driver", |(stem, _)| stem);
            PathBuf::from(format!("{stem}.sys"))
        });
        dirql::explore::replay(&ReplayOptions {
            token: self.token,
            run: RunOptions {
                image,
                lab: self.lab.lab,
                trace: self.trace,
                budget: self.lab.budget,
                cpus: self.lab.cpus,
            },
        })
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 =
        number.parse().map_err(|_| format!("`{text}` is no time: write 10 s, 500 ms or 2 min"))?;
    let seconds = match unit.trim() {
        "" | "s" => number,
        "ms" => number / 1e3,
        "us" => number / 1e6,
        "min" | "m" => number * 60.0,
        "h" => number * 3600.0,
        other => return Err(format!("`{other}` is no unit of time: write s, ms, us, min or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|e| format!("`{text}`: {e}"))
}
