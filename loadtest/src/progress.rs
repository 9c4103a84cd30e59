//! Live progress on standard error: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// One stage of a run.
pub struct Stage {
    label: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    printed_at: Option<Instant>,
}

impl Stage {
    /// Begins a stage that is done at `total`.
    pub fn begin(label: &'static str, total: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let template = "{prefix:12} [{elapsed_precise}] {wide_bar} {pos}/{len} {msg}";
            let style = ProgressStyle::with_template(template);
            ProgressBar::new(total)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                .with_prefix(label)
        });
        Self {
            label,
            total,
            bar,
            printed_at: None,
        }
    }

    /// The stage is at `done`.
    pub fn at(&mut self, done: u64, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(detail.to_owned());
        } else if self.printed_at.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            self.printed_at = Some(Instant::now());
            eprintln!("{}: {done}/{} {detail}", self.label, self.total);
        }
    }

    /// The stage is over.
    pub fn end(self, done: u64, detail: &str) {
        if let Some(bar) = self.bar {
            bar.set_position(done);
            bar.finish_with_message(detail.to_owned());
        } else {
            eprintln!("{}: {done}/{} {detail} done", self.label, self.total);
        }
    }
}
