//! What happened to a token, line by line, for whoever has to find out what went wrong.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

/// The last lines of a token are kept.
const LINES_MAX: usize = 4_000;

/// The last lines.
#[derive(Debug)]
pub struct Notes {
    begun: Instant,
    lines: VecDeque<String>,
}

impl Notes {
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            lines: VecDeque::new(),
        }
    }

    /// One more line, with the milliseconds since the beginning.
    pub fn add(&mut self, what: &str) {
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        let at = self.begun.elapsed().as_millis();
        self.lines.push_back(format!("{at:>8} {what}"));
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            // A string takes whatever is written.
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// Writes the notes of all tokens to a file of this test run, and says where.
pub fn keep<'a>(all: impl Iterator<Item = (&'a str, &'a Notes)>) {
    let name = format!("torture-{}.history", std::process::id());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let text: String = all
        .map(|(token, notes)| format!("--- {token} ---\n{}", notes.text()))
        .collect();
    match std::fs::write(&file, text) {
        Ok(()) => eprintln!("what happened to each token: {}", file.display()),
        Err(error) => eprintln!("no history in {}: {error}", file.display()),
    }
}
