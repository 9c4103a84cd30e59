//! The scenario file of `swarm mix`: how many devices, what they are like, what is sent to them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Deserializer};

use crate::habit::Habit;
use crate::options::{parse_duration, parse_rate};
use crate::pacing::{due_in, whole};
use crate::part::Part;

/// A token with more unacknowledged pushes than this loses the oldest, and may (the contract's
/// pending cap): a scenario that sends so many could not tell that from a loss.
const SENDS_PER_DEVICE_MAX: f64 = 10_000.0;

/// Devices at most.
const DEVICES_MAX: u64 = 1_000_000;

/// Bursts of one kind at most: each has connections of its own.
const BURSTS_MAX: u32 = 1_000;

/// What the file says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Devices in all, each with one token.
    pub devices: u64,
    /// Devices to connect a second.
    pub connect_rate: f64,
    /// How long to send.
    #[serde(rename = "for", deserialize_with = "duration")]
    pub duration: Duration,
    /// Bytes of data in each push.
    #[serde(default = "default_payload")]
    pub payload: u16,
    /// Sends a second, to all devices in turn.
    pub rate: f64,
    #[serde(default)]
    habits: Vec<Share>,
    /// Sends beside the steady ones.
    #[serde(default)]
    pub bursts: Vec<Burst>,
}

/// Many sends at one moment, again and again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// When the first one is, from the beginning.
    #[serde(deserialize_with = "duration")]
    pub after: Duration,
    /// How long from one to the next.
    #[serde(deserialize_with = "duration")]
    pub every: Duration,
    /// Sends in each.
    pub sends: u64,
    /// To so many devices.
    pub devices: u64,
}

/// A share of the devices with a habit.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "habit", rename_all = "snake_case", deny_unknown_fields)]
enum Share {
    Restless {
        share: f64,
        #[serde(deserialize_with = "duration")]
        stays: Duration,
        #[serde(deserialize_with = "duration")]
        away: Duration,
    },
    Slow {
        share: f64,
        bytes: u32,
        #[serde(deserialize_with = "duration")]
        pause: Duration,
    },
    Silent {
        share: f64,
        #[serde(deserialize_with = "duration")]
        stays: Duration,
    },
    Polling {
        share: f64,
        #[serde(deserialize_with = "duration")]
        every: Duration,
    },
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

fn default_payload() -> u16 {
    200
}

fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Share {
    fn share(&self) -> f64 {
        match self {
            Self::Restless { share, .. }
            | Self::Slow { share, .. }
            | Self::Silent { share, .. }
            | Self::Polling { share, .. } => *share,
        }
    }

    fn habit(&self) -> Habit {
        match *self {
            Self::Restless { stays, away, .. } => Habit::Restless {
                stays_ms: in_ms(stays),
                away_ms: in_ms(away),
            },
            Self::Slow { bytes, pause, .. } => Habit::Slow {
                bytes,
                pause_ms: in_ms(pause),
            },
            Self::Silent { stays, .. } => Habit::Silent {
                stays_ms: in_ms(stays),
            },
            Self::Polling { every, .. } => Habit::Polling {
                every_ms: in_ms(every),
            },
        }
    }
}

impl Scenario {
    /// Reads and checks a scenario file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        ensure!(
            (1..=DEVICES_MAX).contains(&scenario.devices),
            "devices: from 1 to {DEVICES_MAX}"
        );
        for (name, rate) in [
            ("connect_rate", scenario.connect_rate),
            ("rate", scenario.rate),
        ] {
            let checked = parse_rate(&rate.to_string());
            checked.map_err(|wrong| anyhow::anyhow!("{name}: {wrong}"))?;
        }
        let shares = scenario.habits.iter().map(Share::share);
        ensure!(
            shares.clone().all(|share| (0.0..=1.0).contains(&share)),
            "habits: a share is from 0 to 1"
        );
        ensure!(shares.sum::<f64>() <= 1.0, "habits: all shares exceed 1");
        for burst in &scenario.bursts {
            ensure!(!burst.every.is_zero(), "bursts: every is above 0");
            ensure!(burst.devices > 0, "bursts: devices is above 0");
            let moments = burst.moments(scenario.duration).count();
            ensure!(
                u32::try_from(moments).is_ok_and(|moments| moments <= BURSTS_MAX),
                "bursts: more than {BURSTS_MAX} of one kind"
            );
        }
        let most = scenario.sends_to_one();
        ensure!(
            most <= SENDS_PER_DEVICE_MAX,
            "one device may be sent {most:.0} pushes, and only {SENDS_PER_DEVICE_MAX} are kept \
             for one that is away"
        );
        Ok(scenario)
    }

    /// What of all this is for one part of the run.
    #[must_use]
    pub fn part(mut self, part: Part) -> Self {
        self.devices = part.share(self.devices);
        self.connect_rate = part.share_of_rate(self.connect_rate);
        self.rate = part.share_of_rate(self.rate);
        for burst in &mut self.bursts {
            burst.sends = part.share(burst.sends);
            burst.devices = part.share(burst.devices).max(1);
        }
        self
    }

    /// How many devices there are of each habit, the good ones first.
    pub fn habits(&self) -> Vec<(Habit, u64)> {
        let mut counts = vec![(Habit::Good, self.devices)];
        let mut good = self.devices;
        for share in &self.habits {
            let devices = whole(count(self.devices) * share.share()).min(good);
            good -= devices;
            counts.push((share.habit(), devices));
        }
        if let Some(first) = counts.first_mut() {
            first.1 = good;
        }
        counts
    }

    /// Sends of the steady stream.
    pub fn steady_sends(&self) -> u64 {
        due_in(self.rate, self.duration)
    }

    /// Pushes that one device may be sent if it has bad luck.
    fn sends_to_one(&self) -> f64 {
        let steady = self.rate * self.duration.as_secs_f64() / count(self.devices);
        let bursts = self.bursts.iter().map(|burst| {
            let each = count(burst.sends) / count(burst.devices.min(self.devices));
            each * count(burst.moments(self.duration).count() as u64)
        });
        steady + bursts.sum::<f64>()
    }
}

impl Burst {
    /// When each of them is, from the beginning of a run that is so long.
    pub fn moments(&self, duration: Duration) -> impl Iterator<Item = Duration> {
        let (after, every) = (self.after, self.every);
        // One more than there may be is enough to see that there are too many.
        (0..=BURSTS_MAX)
            .map(move |number| after + every * number)
            .take_while(move |at| *at < duration)
    }

    /// The places of the devices of burst number `number` among `devices`: spread over all of them,
    /// and other ones each time.
    pub fn places(&self, number: u64, devices: u64) -> impl Iterator<Item = u64> {
        let wanted = self.devices.min(devices);
        (0..wanted).map(move |index| (index * devices / wanted + number) % devices)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no scenario has 2^53 of anything"
)]
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "devices = 10\nconnect_rate = 5.0\nfor = \"10s\"\nrate = 2.0\n";

    #[test]
    fn the_example_is_a_scenario_and_every_device_has_one_habit() {
        let text = include_str!("../scenarios/rough.toml");
        let scenario = Scenario::parse(text).expect("is one");
        let habits = scenario.habits();
        let counts: Vec<u64> = habits.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [600, 200, 50, 50, 100]);
        let polling = Habit::Polling { every_ms: 2_000 };
        assert_eq!(habits.last(), Some(&(polling, 100)));
        let burst = scenario.bursts.first().expect("has one");
        assert_eq!(burst.moments(scenario.duration).count(), 5);
        let part = scenario.part("1/2".parse().expect("a part"));
        assert_eq!((part.devices, part.bursts[0].sends), (500, 250));
    }

    #[test]
    fn bursts_hit_different_devices_each_time() {
        let burst = Burst {
            after: Duration::ZERO,
            every: Duration::from_secs(1),
            sends: 1,
            devices: 3,
        };
        let places = |number| -> Vec<u64> { burst.places(number, 9).collect() };
        assert_eq!((places(0), places(4)), (vec![0, 3, 6], vec![4, 7, 1]));
        assert_eq!(burst.places(1, 2).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(Scenario::parse(PLAIN).is_ok());
        for (more, word) in [
            ("speed = 1", "speed"),
            (
                "[[habits]]\nhabit = \"silent\"\nshare = 1.5\nstays = \"1s\"",
                "share",
            ),
            (
                "[[habits]]\nhabit = \"silent\"\nshare = 0.1\naway = \"1s\"",
                "away",
            ),
            ("[[habits]]\nhabit = \"rude\"\nshare = 0.1", "rude"),
            (
                "[[habits]]\nhabit = \"polling\"\nshare = 0.1\nevery = \"1\"",
                "unit",
            ),
            (
                "[[bursts]]\nafter = \"0s\"\nevery = \"0s\"\nsends = 1\ndevices = 1",
                "every",
            ),
            (
                "[[bursts]]\nafter = \"0s\"\nevery = \"1s\"\nsends = 9000\ndevices = 1",
                "kept",
            ),
            (
                "[[bursts]]\nafter = \"0s\"\nevery = \"1ms\"\nsends = 1\ndevices = 1",
                "one kind",
            ),
        ] {
            let wrong = Scenario::parse(&format!("{PLAIN}{more}\n")).expect_err(more);
            assert!(format!("{wrong:#}").contains(word), "{more}: {wrong:#}");
        }
        let twice = "[[habits]]\nhabit = \"silent\"\nshare = 0.6\nstays = \"1s\"\n".repeat(2);
        assert!(Scenario::parse(&format!("{PLAIN}{twice}")).is_err());
        assert!(Scenario::parse("devices = 0").is_err());
    }
}
