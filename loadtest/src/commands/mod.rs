//! The commands of the swarm, one file each.

pub mod bench;
pub mod hold;
pub mod merge;
pub mod mix;
pub mod push;
pub mod ratio;
mod run;
pub mod simulate;
pub mod storm;
pub mod topic;
pub mod wake;
