//! A message that fits the schema: values as they were sent, under the schema's names, in the order
//! they came in. The rules read it, and the device's JSON is written from it.

use super::duration::Duration;
use super::json::Text;
use super::schema::Field;

/// One value, checked against its field's shape.
#[derive(Debug)]
pub enum Value<'a> {
    /// A string.
    Text(Text<'a>),
    /// `true` or `false`.
    Flag(bool),
    /// A number, with its value.
    Number {
        /// As sent.
        raw: &'a str,
        /// What it comes to.
        value: f64,
    },
    /// A value of an enumeration.
    Choice {
        /// As sent: a name in any case, or a number.
        raw: &'a str,
        /// Its number.
        number: usize,
    },
    /// A duration.
    Duration {
        /// As sent.
        raw: &'a str,
        /// What it comes to.
        duration: Duration,
    },
    /// A timestamp, as sent.
    Timestamp(&'a str),
    /// A list of plain values.
    List(Vec<Value<'a>>),
    /// Keys and values of the sender's own.
    TextMap(Vec<(Text<'a>, Text<'a>)>),
    /// An object of the sender's own, without blanks.
    FreeForm(String),
    /// An object of the schema.
    Object(Object<'a>),
}

/// An object of the schema: the fields that are set.
#[derive(Debug, Default)]
pub struct Object<'a> {
    members: Vec<(&'static Field, Value<'a>)>,
}

impl<'a> Object<'a> {
    /// With room for as many fields.
    pub fn with_capacity(fields: usize) -> Self {
        Self {
            members: Vec::with_capacity(fields),
        }
    }

    /// Adds a field that is not set yet.
    pub fn push(&mut self, field: &'static Field, value: Value<'a>) {
        self.members.push((field, value));
    }

    /// The field of a group that is set.
    pub fn member_of_oneof(&self, group: &str) -> Option<(&'static Field, &Value<'a>)> {
        self.members
            .iter()
            .find(|(field, _)| field.oneof == Some(group))
            .map(|(field, value)| (*field, value))
    }

    /// A field's value, if it is set. `name` in snake_case.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.members
            .iter()
            .find(|(field, _)| field.name == name)
            .map(|(_, value)| value)
    }

    /// A field that is an object of the schema.
    pub fn object(&self, name: &str) -> Option<&Object<'a>> {
        match self.get(name)? {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// A field that is a text. The empty text is what an unset field reads as, so it counts as none.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) if !text.decoded.is_empty() => Some(&text.decoded),
            _ => None,
        }
    }

    /// A field that is a text map. One without entries is the same as none.
    pub fn text_map(&self, name: &str) -> Option<&[(Text<'a>, Text<'a>)]> {
        match self.get(name)? {
            Value::TextMap(entries) if !entries.is_empty() => Some(entries),
            _ => None,
        }
    }

    /// Bytes of all strings, without names, enumerations, durations and timestamps.
    pub fn text_bytes(&self) -> usize {
        self.members
            .iter()
            .map(|(_, value)| value.text_bytes())
            .sum()
    }

    /// Writes it as the device gets it.
    pub fn write(&self, json: &mut String) {
        let members = self
            .members
            .iter()
            .filter(|(field, _)| field.for_device)
            .map(|(field, value)| (field.name, value));
        json.push('{');
        for (index, (name, value)) in members.enumerate() {
            separate(index, json);
            json.push('"');
            json.push_str(name);
            json.push_str("\":");
            value.write(json);
        }
        json.push('}');
    }
}

impl Value<'_> {
    fn text_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.decoded.len(),
            Self::List(items) => items.iter().map(Self::text_bytes).sum(),
            Self::Object(object) => object.text_bytes(),
            _ => 0,
        }
    }

    fn write(&self, json: &mut String) {
        match self {
            Self::Text(text) => json.push_str(text.raw),
            Self::Flag(flag) => json.push_str(if *flag { "true" } else { "false" }),
            Self::Number { raw, .. }
            | Self::Choice { raw, .. }
            | Self::Duration { raw, .. }
            | Self::Timestamp(raw) => json.push_str(raw),
            Self::List(items) => {
                json.push('[');
                for (index, item) in items.iter().enumerate() {
                    separate(index, json);
                    item.write(json);
                }
                json.push(']');
            }
            Self::TextMap(entries) => write_text_map(entries, json),
            Self::FreeForm(object) => json.push_str(object),
            Self::Object(object) => object.write(json),
        }
    }

    /// Bytes that it takes as JSON.
    pub fn json_bytes(&self) -> usize {
        let mut json = String::new();
        self.write(&mut json);
        json.len()
    }
}

fn write_text_map(entries: &[(Text<'_>, Text<'_>)], json: &mut String) {
    json.push('{');
    for (index, (key, value)) in entries.iter().enumerate() {
        separate(index, json);
        json.push_str(key.raw);
        json.push(':');
        json.push_str(value.raw);
    }
    json.push('}');
}

fn separate(index: usize, json: &mut String) {
    if index > 0 {
        json.push(',');
    }
}
