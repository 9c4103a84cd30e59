//! What a sender sends: FCM v1's send request, read and judged without any I/O.
//!
//! The body is read against a table of all messages (`schema`) into a tree of checked values,
//! the rules look at the tree, and the device's JSON is written from it. Values arrive as they were
//! sent; names arrive in snake_case.

mod duration;
mod json;
mod message;
mod reader;
mod rules;
mod schema;
mod target;
mod tree;
mod violations;

pub use message::{MessageLimits, ParsedMessage, Priority, SendRequest, TTL_MAX_MS, parse_send};
pub use target::Target;

#[cfg(test)]
mod tests;
