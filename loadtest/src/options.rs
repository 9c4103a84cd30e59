//! Flags that the commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::fleet::children_for;
use crate::part::Part;
use crate::target::TargetOptions;

/// Sends and connects a second at most: beyond it the schedule's times are less than a
/// microsecond apart.
pub const RATE_MAX: f64 = 1_000_000.0;

/// The end of the century: no run waits for longer.
pub const START_AT_MAX: u64 = 4_102_444_800;

/// Flags of every command that holds sockets.
#[derive(Debug, Args)]
pub struct CommonOptions {
    /// Where the server is.
    #[command(flatten)]
    pub target: TargetOptions,
    /// Sockets to hold.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub sockets: u64,
    /// Sockets to connect a second.
    #[arg(long, default_value_t = 2_000.0, value_parser = parse_rate)]
    pub connect_rate: f64,
    /// Connections to send over.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub senders: u16,
    /// How long to hold, or to send: 30s, 2m, 500ms.
    #[arg(long = "for", default_value = "30s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Bytes of data in each push, keys and values.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(0..=4_096))]
    pub payload: u16,
    /// Waits this long at most for pushes still on their way.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub drain: Duration,
    /// Child processes to spread the sockets over; as many as are needed if left out.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub processes: Option<u16>,
    /// Takes this part of the sockets and sends, such as 2/5: one machine of five. The results are
    /// put together by `swarm merge`.
    #[arg(long, value_name = "PART/PARTS")]
    pub part: Option<Part>,
    /// When everybody is connected, waits until so many seconds after 1970 before it goes on: all
    /// parts then begin at one moment.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=START_AT_MAX))]
    pub start_at: Option<u64>,
    /// Writes the result to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl CommonOptions {
    /// What of all this is for this machine.
    #[must_use]
    pub fn of_this_part(mut self) -> Self {
        self.sockets = self.share(self.sockets);
        self.connect_rate = self.share_of_rate(self.connect_rate);
        self
    }

    /// This machine's share of `total`.
    pub fn share(&self, total: u64) -> u64 {
        self.part.map_or(total, |part| part.share(total))
    }

    /// This machine's share of so many things a second.
    pub fn share_of_rate(&self, per_second: f64) -> f64 {
        self.part
            .map_or(per_second, |part| part.share_of_rate(per_second))
    }

    /// Child processes to start.
    ///
    /// # Errors
    /// When this machine allows too few.
    pub fn children(&self) -> anyhow::Result<usize> {
        let needed = children_for(self.sockets)?;
        Ok(self.processes.map_or(needed, usize::from))
    }
}

/// Reads `500ms`, `30s` or `2m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u32 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no duration such as 30s"))?;
    match text.get(digits.len()..) {
        Some("ms") => Ok(Duration::from_millis(number.into())),
        Some("s") => Ok(Duration::from_secs(number.into())),
        Some("m") => Ok(Duration::from_secs(60) * number),
        _ => Err(format!("{text:?} needs a unit: ms, s or m")),
    }
}

/// Reads a positive number of things a second.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(rate),
        _ => Err(format!("{text:?} is no rate above 0 and up to {RATE_MAX}")),
    }
}

/// Reads a share above 0 and up to 1.
pub fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err(format!("{text:?} is no share above 0 and up to 1")),
    }
}

/// Reads a share from 0 to 1.
pub fn parse_share_or_none(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("{text:?} is no share from 0 to 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_rates_and_shares_are_checked() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["30", "s", "-1s", "1h", "", "1.5s"] {
            assert!(parse_duration(text).is_err(), "accepted: {text:?}");
        }
        assert!(parse_rate("0.5").is_ok());
        for text in ["0", "-1", "NaN", "inf", "x"] {
            assert!(parse_rate(text).is_err(), "accepted: {text:?}");
        }
        assert!(parse_share("1").is_ok() && parse_share("1.1").is_err());
        assert!(parse_share("0").is_err() && parse_share_or_none("0").is_ok());
        assert!(parse_share_or_none("-0.1").is_err() && parse_share_or_none("NaN").is_err());
    }
}
