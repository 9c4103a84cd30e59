//! What a function in Redis answers: a status, numbers, the numbers of rows that may be deleted,
//! and words.

use redis::Value;

use super::clocks::is_of_one_time;
use crate::push::Syn;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Done.
    Done,
    /// The record is of another era: it may lack what was acknowledged before a failover.
    Suspect,
    /// There is no record.
    Missing,
    /// The token has ended.
    Dead,
    /// As many numbers of this token are being written as may be.
    Full,
    /// The token has this copy of a push to many.
    Copied,
    /// The number is no longer the caller's to settle.
    Gone,
    /// The clocks of node and server differ too much.
    Skew,
}

/// One answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// How the step ended.
    pub(super) status: Status,
    /// Rows that nobody will be shown any more, each to be deleted with its own number as timestamp.
    pub(super) freed: Vec<Syn>,
    numbers: Vec<u64>,
    words: Vec<Vec<u8>>,
    /// What our clock showed before the call, and when the answer had come.
    between_us: (u64, u64),
}

impl Reply {
    /// Reads an answer; `None` when it has another shape.
    pub(super) fn read(value: Value) -> Option<Self> {
        let Value::Array(parts) = value else {
            return None;
        };
        let [status, numbers, freed, words] = <[Value; 4]>::try_from(parts).ok()?;
        Some(Self {
            status: status_of(&status)?,
            numbers: integers(numbers)?,
            freed: integers(freed)?,
            words: list(words)?.into_iter().map(bytes).collect::<Option<_>>()?,
            between_us: (0, u64::MAX),
        })
    }

    /// Notes when it was asked for and came.
    pub(super) fn that_came_between(self, before_us: u64, after_us: u64) -> Self {
        Self {
            between_us: (before_us, after_us),
            ..self
        }
    }

    /// Whether the server's clock, which showed this, and ours show the same, as far as they must.
    pub(super) fn is_of_one_time(&self, there_us: u64) -> bool {
        is_of_one_time(self.between_us.0, there_us, self.between_us.1)
    }

    /// The number at a place that this kind of answer has.
    pub(super) fn number(&self, place: usize) -> u64 {
        self.numbers.get(place).copied().unwrap_or_default()
    }

    /// The numbers from a place on.
    pub(super) fn numbers_from(&self, place: usize) -> &[u64] {
        self.numbers.get(place..).unwrap_or_default()
    }

    /// The word at a place that this kind of answer has.
    pub(super) fn word(&self, place: usize) -> &[u8] {
        self.words.get(place).map_or(&[], Vec::as_slice)
    }

    /// All words.
    pub(super) fn words(&self) -> &[Vec<u8>] {
        &self.words
    }
}

fn status_of(value: &Value) -> Option<Status> {
    let text = match value {
        Value::BulkString(text) => text.as_slice(),
        Value::SimpleString(text) => text.as_bytes(),
        _ => return None,
    };
    Some(match text {
        b"ok" => Status::Done,
        b"suspect" => Status::Suspect,
        b"missing" => Status::Missing,
        b"dead" => Status::Dead,
        b"full" => Status::Full,
        b"copied" => Status::Copied,
        b"gone" => Status::Gone,
        b"skew" => Status::Skew,
        _ => return None,
    })
}

fn list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn integers(value: Value) -> Option<Vec<u64>> {
    let integer = |item| match item {
        Value::Int(number) => u64::try_from(number).ok(),
        _ => None,
    };
    list(value)?.into_iter().map(integer).collect()
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn an_answer_is_read_by_its_places() {
        let value = Value::Array(vec![
            text("suspect"),
            Value::Array(vec![Value::Int(7), Value::Int(5)]),
            Value::Array(vec![Value::Int(6)]),
            Value::Array(vec![text("era")]),
        ]);
        let reply = Reply::read(value).expect("an answer");
        assert_eq!(reply.status, Status::Suspect);
        assert_eq!(
            (reply.number(0), reply.number(1), reply.number(2)),
            (7, 5, 0)
        );
        assert_eq!(reply.freed, [6]);
        assert_eq!(
            (reply.word(0), reply.word(1)),
            (b"era".as_slice(), b"".as_slice())
        );
    }

    #[test]
    fn anything_else_is_no_answer() {
        let empty = || Value::Array(Vec::new());
        let unknown = vec![text("fine"), empty(), empty(), empty()];
        let negative = Value::Array(vec![Value::Int(-1)]);
        let below_zero = vec![text("ok"), negative, empty(), empty()];
        for value in [
            Value::Nil,
            empty(),
            Value::Array(unknown),
            Value::Array(below_zero),
        ] {
            assert!(Reply::read(value).is_none());
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<i64>().prop_map(Value::Int),
            vec(any::<u8>(), 0..12).prop_map(Value::BulkString),
            "ok|gone|dead|\\PC{0,6}".prop_map(Value::SimpleString),
            Just(Value::Okay),
            any::<f64>().prop_map(Value::Double),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| vec(inner, 0..5).prop_map(Value::Array))
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_is_an_answer_or_none(
            value in value(),
            status in "ok|suspect|missing|dead|full|copied|gone|skew|fine",
            numbers in vec(any::<i64>(), 0..4),
            words in vec(value(), 0..3),
        ) {
            prop_assert!(Reply::read(value.clone()).is_none_or(|reply| reply.number(99) == 0));
            let are_numbers = numbers.iter().all(|number| *number >= 0);
            let are_words = words
                .iter()
                .all(|word| matches!(word, Value::BulkString(_) | Value::SimpleString(_)));
            let list = || Value::Array(numbers.iter().copied().map(Value::Int).collect());
            let parts = vec![text(&status), list(), list(), Value::Array(words.clone())];
            let reply = Reply::read(Value::Array(parts));
            prop_assert_eq!(reply.is_some(), are_numbers && are_words && status != "fine");
            if let Some(reply) = reply {
                prop_assert_eq!(&reply.freed, reply.numbers_from(0));
                prop_assert_eq!(reply.freed.len(), numbers.len());
                prop_assert_eq!(reply.words().len(), words.len());
                prop_assert_eq!((reply.word(99), reply.numbers_from(99).len()), (&b""[..], 0));
            }
        }
    }
}
