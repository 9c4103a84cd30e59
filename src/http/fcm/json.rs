//! JSON as text: looks into a document one level at a time and leaves every value as it was sent,
//! so that numbers keep their digits and strings their escapes.
//!
//! What lies deeper is skipped without recursion, so no document is too deep for the stack.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Objects and lists within each other that a free-form object may have: the bound that protocol
/// buffer libraries put on JSON, and less than what JSON readers on devices give up at.
const FREE_FORM_DEPTH_MAX: usize = 100;

/// What a value is, by its first character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    List,
    /// `"…"`
    Text,
    /// `true` or `false`
    Flag,
    /// `null`
    Null,
    /// A number.
    Number,
}

impl Kind {
    /// Of a value that is known to be one.
    pub fn of(value: &str) -> Self {
        match value.as_bytes().first() {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::List,
            Some(b'"') => Self::Text,
            Some(b't' | b'f') => Self::Flag,
            Some(b'n') => Self::Null,
            _ => Self::Number,
        }
    }
}

/// A string: as sent, and what it says.
#[derive(Debug, Clone)]
pub struct Text<'a> {
    /// With quotes and escapes.
    pub raw: &'a str,
    /// Without.
    pub decoded: Cow<'a, str>,
}

impl<'a> Text<'a> {
    /// Reads a value that is a string. `None` for any other, and for an escape that stands for no
    /// character (half of a surrogate pair).
    pub fn read(raw: &'a str) -> Option<Self> {
        let inside = raw.strip_prefix('"')?.strip_suffix('"')?;
        let decoded = if inside.as_bytes().contains(&b'\\') {
            Cow::Owned(serde_json::from_str(raw).ok()?)
        } else {
            Cow::Borrowed(inside)
        };
        Some(Self { raw, decoded })
    }
}

/// Calls `each` with every member of an object, name and value as sent, repeated ones too.
///
/// # Errors
/// When the text is not exactly one JSON object.
pub fn for_each_member<'a>(
    object: &'a str,
    each: impl FnMut(&'a str, &'a str),
) -> serde_json::Result<()> {
    let mut reader = serde_json::Deserializer::from_str(object);
    reader.deserialize_map(Members(each))?;
    reader.end()
}

/// Calls `each` with every item of a list, as sent.
///
/// # Errors
/// When the text is not exactly one JSON list.
pub fn for_each_item<'a>(list: &'a str, each: impl FnMut(&'a str)) -> serde_json::Result<()> {
    let mut reader = serde_json::Deserializer::from_str(list);
    reader.deserialize_seq(Items(each))?;
    reader.end()
}

/// Whether the text is exactly one JSON value.
///
/// # Errors
/// What is wrong with it, and where.
pub fn check(document: &str) -> serde_json::Result<()> {
    serde_json::from_str::<&RawValue>(document).map(drop)
}

struct Members<F>(F);

impl<'de, F: FnMut(&'de str, &'de str)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            (self.0)(name.get(), value.get());
        }
        Ok(())
    }
}

struct Items<F>(F);

impl<'de, F: FnMut(&'de str)> Visitor<'de> for Items<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element::<&RawValue>()? {
            (self.0)(item.get());
        }
        Ok(())
    }
}

/// A value without the blanks between its parts and otherwise as sent. `None` when a string in it
/// stands for no text, or when it is nested too deep.
pub fn compact(value: &str) -> Option<String> {
    let mut compacted = String::with_capacity(value.len());
    let mut depth = 0_usize;
    let mut rest = value;
    while let Some(first) = rest.chars().next() {
        let (part, behind) = match first {
            '"' => rest.split_at_checked(string_end(rest)?)?,
            _ => rest.split_at_checked(first.len_utf8())?,
        };
        match first {
            '"' => drop(Text::read(part)?),
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth > FREE_FORM_DEPTH_MAX {
            return None;
        }
        if !matches!(first, ' ' | '\t' | '\n' | '\r') {
            compacted.push_str(part);
        }
        rest = behind;
    }
    Some(compacted)
}

/// Where the string that `text` begins with ends.
fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    let inside = text.bytes().enumerate().skip(1);
    for (at, byte) in inside {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_as_they_were_sent() {
        let mut seen = Vec::new();
        for_each_member(
            "\n{ \"a\\u0041\" : 1.50 , \"b\":[ 1, {} ],\"b\":\"\\n\"} ",
            |name, value| {
                seen.push((name, value));
            },
        )
        .expect("an object");
        assert_eq!(
            seen,
            [
                ("\"a\\u0041\"", "1.50"),
                ("\"b\"", "[ 1, {} ]"),
                ("\"b\"", "\"\\n\"")
            ]
        );
        for broken in ["", "{", "{}{}", "{\"a\"}", "{1:2}", "[]", "{\"a\":01}"] {
            assert!(for_each_member(broken, |_, _| {}).is_err(), "{broken}");
        }
    }

    #[test]
    fn texts_say_what_they_say() {
        let said = |raw| Text::read(raw).map(|text| text.decoded.into_owned());
        assert_eq!(said(r#""é""#), Some("é".to_owned()));
        assert_eq!(said(r#""\ud83d\ude00\"""#), Some("😀\"".to_owned()));
        for none in [r#""\ud83d""#, "1", "\"", ""] {
            assert_eq!(said(none), None, "{none}");
        }
    }

    #[test]
    fn compacting_drops_blanks_between_parts_only() {
        assert_eq!(
            compact("{ \"a b\" : [ 1.0e400 ,\n\t\"\\\" \\\\\" ] , \"é\": { } }").as_deref(),
            Some("{\"a b\":[1.0e400,\"\\\" \\\\\"],\"é\":{}}")
        );
        assert_eq!(compact(r#"{"a":"\udc00"}"#), None);
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(compact(&nested(FREE_FORM_DEPTH_MAX)).is_some());
        assert!(compact(&nested(FREE_FORM_DEPTH_MAX + 1)).is_none());
    }
}
