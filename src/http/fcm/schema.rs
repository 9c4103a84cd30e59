//! The schema of a send request: what the one table of all messages, fields and types is made of.
//!
//! Names are written in snake_case; the camelCase spelling follows from them. Whatever is not in
//! the table is an unknown name, and refused.

mod table;

use std::fmt;

pub use table::SEND_REQUEST;

/// What a field may hold.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// One plain value.
    One(Scalar),
    /// A list of plain values.
    Many(Scalar),
    /// An object whose keys are the sender's and whose values are strings.
    TextMap,
    /// An object that is passed on as it is.
    FreeForm,
    /// An object of the table.
    Message(&'static Schema),
}

/// A plain value's type.
#[derive(Debug, Clone, Copy)]
pub enum Scalar {
    /// A string.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number of 32 bits, as a number or as a string.
    Int32,
    /// A number.
    Float,
    /// A name of the enumeration in any case, or its number.
    Choice(&'static Enumeration),
    /// Seconds as text, such as `3.5s`.
    Duration,
    /// A moment as RFC 3339 text.
    Timestamp,
}

/// An enumeration: the index of a name is its number.
#[derive(Debug)]
pub struct Enumeration {
    type_name: &'static str,
    names: &'static [&'static str],
}

impl Enumeration {
    /// The number of a name, in any case.
    pub fn number_of(&self, name: &str) -> Option<usize> {
        self.names
            .iter()
            .position(|known| known.eq_ignore_ascii_case(name))
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }
}

/// One field of a message.
#[derive(Debug)]
pub struct Field {
    /// In snake_case.
    pub name: &'static str,
    /// What it may hold.
    pub shape: Shape,
    /// The group of which only one field may be set.
    pub oneof: Option<&'static str>,
    /// Whether the device gets it.
    pub for_device: bool,
}

impl Field {
    /// Whether `given` is this field in one of its two spellings.
    fn is_called(&self, given: &str) -> bool {
        given == self.name || is_camel_case_of(given, self.name)
    }
}

/// Whether `given` is `snake` with every underscore dropped and the letter after it raised.
fn is_camel_case_of(given: &str, snake: &str) -> bool {
    let mut given = given.bytes();
    let mut raise = false;
    for byte in snake.bytes() {
        if byte == b'_' {
            raise = true;
            continue;
        }
        let wanted = if raise {
            byte.to_ascii_uppercase()
        } else {
            byte
        };
        raise = false;
        if given.next() != Some(wanted) {
            return false;
        }
    }
    given.next().is_none()
}

/// One message type.
#[derive(Debug)]
pub struct Schema {
    /// With its package, as errors name it.
    pub type_name: &'static str,
    /// Its fields, in groups that types may share.
    fields: &'static [&'static [Field]],
}

impl Schema {
    /// The field that `name` stands for.
    pub fn find(&self, name: &str) -> Option<&'static Field> {
        self.fields
            .iter()
            .flat_map(|group| group.iter())
            .find(|field| field.is_called(name))
    }
}

/// A type as errors name it: `TYPE_STRING` for the plain ones, else a type address.
#[derive(Debug, Clone, Copy)]
pub enum TypeLabel {
    /// A type of the protocol buffer language.
    Plain(&'static str),
    /// A message or an enumeration.
    Named(&'static str),
    /// The entries of a map field, a message type that nobody ever writes down.
    Entry(&'static Schema, &'static Field),
}

impl fmt::Display for TypeLabel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HOST: &str = "type.googleapis.com";
        match self {
            Self::Plain(name) => formatter.write_str(name),
            Self::Named(name) => write!(formatter, "{HOST}/{name}"),
            Self::Entry(owner, field) => {
                let (first, rest) = field.name.split_at(field.name.len().min(1));
                let first = first.to_ascii_uppercase();
                write!(formatter, "{HOST}/{}.{first}{rest}Entry", owner.type_name)
            }
        }
    }
}

impl Scalar {
    /// How errors name it.
    pub const fn label(self) -> TypeLabel {
        match self {
            Self::Text => TypeLabel::Plain("TYPE_STRING"),
            Self::Flag => TypeLabel::Plain("TYPE_BOOL"),
            Self::Int32 => TypeLabel::Plain("TYPE_INT32"),
            Self::Float => TypeLabel::Plain("TYPE_FLOAT"),
            Self::Choice(of) => TypeLabel::Named(of.type_name),
            Self::Duration => TypeLabel::Named("google.protobuf.Duration"),
            Self::Timestamp => TypeLabel::Named("google.protobuf.Timestamp"),
        }
    }
}

impl Shape {
    /// How errors name it, as the type of `field` in `owner`.
    pub fn label(self, owner: &'static Schema, field: &'static Field) -> TypeLabel {
        match self {
            Self::One(scalar) | Self::Many(scalar) => scalar.label(),
            Self::TextMap => TypeLabel::Entry(owner, field),
            Self::FreeForm => TypeLabel::Named("google.protobuf.Struct"),
            Self::Message(schema) => TypeLabel::Named(schema.type_name),
        }
    }
}
