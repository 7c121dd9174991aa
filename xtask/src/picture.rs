//! `cargo xtask picture`: docs/img/run.svg, the terminal picture of the README, from a real run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::run;

const LINE: usize = 18;
const PAD: usize = 16;
/// The width of a character, in tenths of a pixel, at the font's size.
const CHAR: usize = 82;

/// Runs the README's first command and draws what it prints.
pub(crate) fn draw(root: &Path) -> Result<(), String> {
    let args = ["run", "-q", "--release", "-p", "dirql-cli", "--", "run", "drivers/edu.sys"];
    let text = run::output(root, "cargo", &args).ok_or("dirql run drivers/edu.sys failed")?;
    let command = "$ cargo run --release -p dirql-cli -- run drivers/edu.sys";
    let lines: Vec<&str> = std::iter::once(command).chain(text.lines()).collect();
    let width = lines.iter().map(|l| l.chars().count()).max().unwrap_or(0) * CHAR / 10 + 2 * PAD;
    let height = lines.len() * LINE + 2 * PAD;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"ui-monospace,Menlo,Consolas,monospace\" font-size=\"13.6\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#16181d\"/>\n"
    );
    for (i, line) in lines.iter().enumerate() {
        let colour = match line.chars().next() {
            Some('$') => "#8ab4f8",
            Some(' ') => "#c9d1d9",
            _ if line.starts_with("ok") => "#7ee787",
            _ => "#e3b341",
        };
        let escaped = line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let y = PAD + LINE * (i + 1) - 5;
        let _ = writeln!(
            svg,
            "<text x=\"{PAD}\" y=\"{y}\" fill=\"{colour}\" xml:space=\"preserve\">{escaped}</text>"
        );
    }
    svg.push_str("</svg>\n");
    let path = root.join("docs/img/run.svg");
    fs::create_dir_all(root.join("docs/img"))
        .and_then(|()| fs::write(&path, svg))
        .map_err(|e| e.to_string())?;
    println!("{}", path.display());
    Ok(())
}
