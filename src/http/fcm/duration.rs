//! Durations and timestamps in the text forms of protocol buffer JSON.

/// Longest duration that the text form has: about 10,000 years, in seconds.
const SECONDS_MAX: u64 = 315_576_000_000;

/// Digits of a fraction of a second.
const FRACTION_DIGITS_MAX: usize = 9;

/// A duration, as far as anything here depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duration {
    /// Below zero by whatever little.
    pub is_negative: bool,
    /// Without the sign and the fraction.
    pub whole_seconds: u64,
}

impl Duration {
    /// Reads decimal seconds with the suffix `s`, such as `3s`, `3.5s` or `-0.000000001s`.
    pub fn parse(text: &str) -> Option<Self> {
        let seconds = text.strip_suffix('s')?;
        let (is_minus, seconds) = match seconds.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, seconds),
        };
        let (whole, fraction) = match seconds.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (seconds, None),
        };
        let has_fraction = match fraction {
            Some(digits) if !is_fraction(digits) => return None,
            Some(digits) => digits.bytes().any(|digit| digit != b'0'),
            None => false,
        };
        let whole_seconds = digits_value(whole)?;
        if whole_seconds > SECONDS_MAX || (whole_seconds == SECONDS_MAX && has_fraction) {
            return None;
        }
        Some(Self {
            is_negative: is_minus && (whole_seconds > 0 || has_fraction),
            whole_seconds,
        })
    }
}

fn is_fraction(digits: &str) -> bool {
    (1..=FRACTION_DIGITS_MAX).contains(&digits.len())
        && digits.bytes().all(|digit| digit.is_ascii_digit())
}

/// The value of a text of digits alone: no sign, no blank.
fn digits_value(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Whether the text is a moment in RFC 3339 form, from year 1 to year 9999.
pub fn is_timestamp(text: &str) -> bool {
    read_timestamp(text).is_some()
}

fn read_timestamp(text: &str) -> Option<()> {
    let (date, rest) = text.split_at_checked(10)?;
    let (time, rest) = rest.strip_prefix(['T', 't'])?.split_at_checked(8)?;
    let zone = match rest.strip_prefix('.') {
        Some(behind) => {
            let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
            let (fraction, zone) = behind.split_at_checked(digits)?;
            is_fraction(fraction).then_some(zone)?
        }
        None => rest,
    };
    let is_well_formed = is_date(date) && is_time_of_day(time) && is_zone(zone);
    is_well_formed.then_some(())
}

fn is_date(text: &str) -> bool {
    let [Some(year), Some(month), Some(day)] = parts(text, '-', [4, 2, 2]) else {
        return false;
    };
    year >= 1 && (1..=days_of(year, month)).contains(&day)
}

fn is_time_of_day(text: &str) -> bool {
    let [Some(hour), Some(minute), Some(second)] = parts(text, ':', [2, 2, 2]) else {
        return false;
    };
    hour < 24 && minute < 60 && second < 60
}

fn is_zone(text: &str) -> bool {
    if matches!(text, "Z" | "z") {
        return true;
    }
    let Some(offset) = text.strip_prefix(['+', '-']) else {
        return false;
    };
    let [Some(hour), Some(minute)] = parts(offset, ':', [2, 2]) else {
        return false;
    };
    hour < 24 && minute < 60
}

/// Numbers of fixed widths with a separator between them; all `None` if there are more of them.
fn parts<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> [Option<u64>; N] {
    let mut pieces = text.split(separator);
    let values = widths.map(|width| {
        let piece = pieces.next()?;
        digits_value(piece).filter(|_| piece.len() == width)
    });
    match pieces.next() {
        Some(_) => [None; N],
        None => values,
    }
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, is_negative, whole_seconds) in [
            ("0s", false, 0),
            ("-0s", false, 0),
            ("-0.000000001s", true, 0),
            ("3.5s", false, 3),
            ("3.500000000s", false, 3),
            ("007s", false, 7),
            ("-12s", true, 12),
            ("315576000000s", false, SECONDS_MAX),
            ("315576000000.0s", false, SECONDS_MAX),
        ] {
            let expected = Duration {
                is_negative,
                whole_seconds,
            };
            assert_eq!(Duration::parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "s",
            "3",
            "3 s",
            "3S",
            ".5s",
            "3.s",
            "+3s",
            "--3s",
            "3.0000000001s",
            "1e3s",
            "3.5.1s",
            "315576000001s",
            "315576000000.1s",
            "99999999999999999999s",
            "3.-5s",
            "٣s",
        ] {
            assert_eq!(Duration::parse(text), None, "{text}");
        }
    }

    #[test]
    fn timestamps_are_checked() {
        for text in [
            "2024-02-29T23:59:59Z",
            "2000-02-29t00:00:00z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z",
            "2026-11-22T10:00:00.5+03:30",
            "2026-11-22T10:00:00-00:00",
        ] {
            assert!(is_timestamp(text), "{text}");
        }
        for text in [
            "",
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-01-00T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "2023-01-01 00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:60:00Z",
            "2023-01-01T00:00:60Z",
            "2023-01-01T00:00:00",
            "2023-01-01T00:00:00.Z",
            "2023-01-01T00:00:00.0000000001Z",
            "2023-01-01T00:00:00+0300",
            "2023-01-01T00:00:00+24:00",
            "2023-1-001T00:00:00Z",
            "2023-01-01T00:00:00ZZ",
            "20230101T000000Z",
            "2023-01-0éT00:00:00Z",
        ] {
            assert!(!is_timestamp(text), "{text}");
        }
    }
}
