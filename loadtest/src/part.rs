//! A run spread over machines: each takes its part, and `swarm merge` puts the results together.

use std::fmt;
use std::str::FromStr;

/// Machines at most.
const PARTS_MAX: u32 = 1_000;

/// Part `index` of `count`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub index: u32,
    /// Of how many.
    pub count: u32,
}

impl Part {
    /// This part's share of `total`: the shares of all parts add up to it.
    pub fn share(self, total: u64) -> u64 {
        let up_to = |index: u32| {
            let shared = u128::from(total) * u128::from(index) / u128::from(self.count);
            u64::try_from(shared).unwrap_or(total)
        };
        up_to(self.index) - up_to(self.index - 1)
    }

    /// This part's share of so many things a second.
    pub fn share_of_rate(self, per_second: f64) -> f64 {
        per_second / f64::from(self.count)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, count)| {
            let part = Self {
                index: index.parse().ok()?,
                count: count.parse().ok()?,
            };
            let is_one = (1..=part.count).contains(&part.index) && part.count <= PARTS_MAX;
            is_one.then_some(part)
        });
        numbers.ok_or_else(|| format!("{text:?} is no part such as 2/5"))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_and_their_shares_add_up() {
        for total in [0, 1, 4, 5, 99_999, u64::MAX] {
            let shares = (1..=5).map(|index| Part { index, count: 5 }.share(total));
            assert_eq!(shares.map(u128::from).sum::<u128>(), u128::from(total));
        }
        let part: Part = "2/5".parse().expect("is one");
        assert_eq!(
            (part.share(16_000), part.to_string()),
            (3_200, "2/5".into())
        );
        for text in ["0/5", "6/5", "2", "2/", "a/b", "1/0", "-1/5", "1/1001"] {
            assert!(text.parse::<Part>().is_err(), "accepted: {text:?}");
        }
    }
}
