//! Reads a body against the schema, by the rules of protocol buffer JSON: both spellings of every
//! name, the last of repeated names wins, `null` is "not set", and all that does not fit is
//! reported at once.

use std::borrow::Cow;
use std::collections::HashMap;

use super::duration::{Duration, is_timestamp};
use super::json::{self, Kind, Text};
use super::schema::{Enumeration, Field, SEND_REQUEST, Scalar, Schema, Shape, TypeLabel};
use super::tree::{Object, Value};
use super::violations::{Path, Violations};
use crate::http::error::ApiError;

const UNKNOWN: &str = "Cannot find field.";
const NO_LIST_HERE: &str = "Proto field is not repeating, cannot start list.";
const NO_OBJECT_AT_ROOT: &str = "Root element must be a message.";

/// Reads the body of a send.
///
/// # Errors
/// 400: no JSON, no object, or all the ways in which it does not fit the schema.
pub fn read_send_request(body: &[u8]) -> Result<Object<'_>, ApiError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| ApiError::malformed_json(format_args!("Not UTF-8: {error}.")))?;
    let begins = text.trim_start_matches([' ', '\t', '\n', '\r']);
    if Kind::of(begins) != Kind::Object {
        let reason = json::check(text).err().map(|error| error.to_string());
        return Err(ApiError::malformed_json(
            reason.as_deref().unwrap_or(NO_OBJECT_AT_ROOT),
        ));
    }
    let mut reader = Reader::default();
    let request = reader
        .members(&SEND_REQUEST, text, &Path::Root)
        .map_err(ApiError::malformed_json)?;
    reader.violations.into_result()?;
    Ok(request)
}

#[derive(Default)]
struct Reader {
    violations: Violations,
}

/// An object's members as they were sent, each known field once.
#[derive(Default)]
struct Members<'a> {
    known: Vec<(&'static Field, &'a str)>,
    /// With the number of known fields that came before.
    unknown: Vec<(usize, &'a str)>,
}

impl<'a> Members<'a> {
    /// A repeated field keeps its place and takes the newer value.
    fn set(&mut self, field: &'static Field, value: &'a str) {
        match self
            .known
            .iter_mut()
            .find(|(known, _)| std::ptr::eq(*known, field))
        {
            Some(entry) => entry.1 = value,
            None => self.known.push((field, value)),
        }
    }
}

impl Reader {
    /// The members of an object of the schema.
    fn members<'a>(
        &mut self,
        schema: &'static Schema,
        object: &'a str,
        path: &Path<'_>,
    ) -> serde_json::Result<Object<'a>> {
        let members = self.collect(schema, object)?;
        let mut unknown = members.unknown.into_iter().peekable();
        let mut read = Object::with_capacity(members.known.len());
        for (index, (field, value)) in members.known.into_iter().enumerate() {
            while let Some((_, name)) = unknown.next_if(|(before, _)| *before <= index) {
                self.unknown_name(path, name);
            }
            self.member(schema, field, value, path, &mut read);
        }
        for (_, name) in unknown {
            self.unknown_name(path, name);
        }
        Ok(read)
    }

    fn collect<'a>(
        &self,
        schema: &'static Schema,
        object: &'a str,
    ) -> serde_json::Result<Members<'a>> {
        let mut members = Members::default();
        json::for_each_member(object, |name, value| {
            let field = Text::read(name).and_then(|name| schema.find(&name.decoded));
            match field {
                Some(field) => members.set(field, value),
                None => members.unknown.push((members.known.len(), name)),
            }
        })?;
        Ok(members)
    }

    fn unknown_name(&mut self, path: &Path<'_>, name: &str) {
        let decoded = Text::read(name);
        let name = decoded.as_ref().map_or(name, |text| text.decoded.as_ref());
        self.violations.unusable_name(path, name, UNKNOWN);
    }

    fn member<'a>(
        &mut self,
        schema: &'static Schema,
        field: &'static Field,
        value: &'a str,
        path: &Path<'_>,
        into: &mut Object<'a>,
    ) {
        if Kind::of(value) == Kind::Null || self.violations.is_full() {
            return;
        }
        let Some(value) = self.value(schema, field, value, path) else {
            return;
        };
        match field.oneof {
            Some(group) if into.member_of_oneof(group).is_some() => {
                self.violations.second_of_oneof(path, group, field.name);
            }
            _ => into.push(field, value),
        }
    }

    fn value<'a>(
        &mut self,
        owner: &'static Schema,
        field: &'static Field,
        value: &'a str,
        parent: &Path<'_>,
    ) -> Option<Value<'a>> {
        let path = Path::Field(parent, field.name);
        let read = match (field.shape, Kind::of(value)) {
            (Shape::Many(scalar), Kind::List) => self.list(scalar, value, &path),
            (_, Kind::List) => {
                self.violations
                    .unusable_name(parent, field.name, NO_LIST_HERE);
                return None;
            }
            (Shape::Message(schema), Kind::Object) => {
                self.members(schema, value, &path).ok().map(Value::Object)
            }
            (Shape::TextMap, Kind::Object) => self.text_map(value, &path),
            (Shape::FreeForm, Kind::Object) => json::compact(value).map(Value::FreeForm),
            (Shape::One(scalar), kind) => read_scalar(scalar, kind, value),
            _ => None,
        };
        if read.is_none() {
            let label = field.shape.label(owner, field);
            self.violations.wrong_value(&path, label, value);
        }
        read
    }

    fn list<'a>(&mut self, scalar: Scalar, list: &'a str, path: &Path<'_>) -> Option<Value<'a>> {
        let mut items = Vec::new();
        let mut index = 0;
        json::for_each_item(list, |item| {
            match read_scalar(scalar, Kind::of(item), item) {
                Some(value) => items.push(value),
                None => {
                    let path = Path::Item(path, index);
                    self.violations.wrong_value(&path, scalar.label(), item);
                }
            }
            index += 1;
        })
        .ok()?;
        Some(Value::List(items))
    }

    fn text_map<'a>(&mut self, map: &'a str, path: &Path<'_>) -> Option<Value<'a>> {
        const LABEL: TypeLabel = Scalar::Text.label();
        let entries = self.collect_entries(map, path)?;
        let mut texts = Vec::with_capacity(entries.len());
        for (index, (key, value)) in entries.into_iter().enumerate() {
            match Text::read(value) {
                Some(text) => texts.push((key, text)),
                None => {
                    let entry = Path::Item(path, index);
                    let place = Path::Field(&entry, "value");
                    self.violations.wrong_value(&place, LABEL, value);
                }
            }
        }
        Some(Value::TextMap(texts))
    }

    /// A map's entries, each key once: a repeated one keeps its place and takes the newer value.
    fn collect_entries<'a>(
        &mut self,
        map: &'a str,
        path: &Path<'_>,
    ) -> Option<Vec<(Text<'a>, &'a str)>> {
        let mut entries: Vec<(Text<'a>, &'a str)> = Vec::new();
        let mut places: HashMap<Cow<'a, str>, usize, ahash::RandomState> = HashMap::default();
        json::for_each_member(map, |key, value| {
            let Some(key) = Text::read(key) else {
                let entry = Path::Item(path, entries.len());
                let place = Path::Field(&entry, "key");
                self.violations
                    .wrong_value(&place, Scalar::Text.label(), key);
                return;
            };
            let place = *places
                .entry(key.decoded.clone())
                .or_insert_with(|| entries.len());
            match entries.get_mut(place) {
                Some(entry) => entry.1 = value,
                None => entries.push((key, value)),
            }
        })
        .ok()?;
        Some(entries)
    }
}

fn read_scalar(scalar: Scalar, kind: Kind, raw: &str) -> Option<Value<'_>> {
    match (scalar, kind) {
        (Scalar::Text, Kind::Text) => Text::read(raw).map(Value::Text),
        (Scalar::Flag, Kind::Flag) => Some(Value::Flag(raw == "true")),
        (Scalar::Int32, Kind::Number | Kind::Text) => read_int32(raw),
        (Scalar::Float, Kind::Number | Kind::Text) => read_float(raw),
        (Scalar::Choice(of), Kind::Number | Kind::Text) => read_choice(of, kind, raw),
        (Scalar::Duration, Kind::Text) => {
            let duration = Duration::parse(&Text::read(raw)?.decoded)?;
            Some(Value::Duration { raw, duration })
        }
        (Scalar::Timestamp, Kind::Text) => {
            is_timestamp(&Text::read(raw)?.decoded).then_some(Value::Timestamp(raw))
        }
        _ => None,
    }
}

/// A number, or a decimal number as a string.
fn read_float(raw: &str) -> Option<Value<'_>> {
    let text = Text::read(raw);
    let digits = text.as_ref().map_or(raw, |text| text.decoded.as_ref());
    if !digits.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    let value: f64 = digits.parse().ok()?;
    value.is_finite().then_some(Value::Number { raw, value })
}

/// A number without a fraction (`1.0` and `1e2` have none), or a whole number as a string.
fn read_int32(raw: &str) -> Option<Value<'_>> {
    let read = read_float(raw)?;
    let Value::Number { value, .. } = read else {
        return None;
    };
    let range = f64::from(i32::MIN)..=f64::from(i32::MAX);
    (value.fract() == 0.0 && range.contains(&value)).then_some(read)
}

/// A name, or a number, which may be a string too.
fn read_choice<'a>(of: &Enumeration, kind: Kind, raw: &'a str) -> Option<Value<'a>> {
    let text = match kind {
        Kind::Text => Some(Text::read(raw)?),
        _ => None,
    };
    let given = text.as_ref().map_or(raw, |text| text.decoded.as_ref());
    let number = of.number_of(given).or_else(|| {
        let number = given.parse().ok()?;
        (given.starts_with(|first: char| first.is_ascii_digit()) && number < of.len())
            .then_some(number)
    })?;
    Some(Value::Choice { raw, number })
}
