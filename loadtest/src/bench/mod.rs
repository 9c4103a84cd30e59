//! The same work for servers of different kinds, and what came of it side by side. Nothing here
//! knows one kind of server from another.

mod bout;
mod measure;
mod table;

pub use measure::{Measure, Work};
pub use table::Table;
