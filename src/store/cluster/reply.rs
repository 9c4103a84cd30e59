//! What a function in Redis answers: a status, numbers, the numbers of rows that may be deleted,
//! and words.

use redis::Value;

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
        })
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
}
