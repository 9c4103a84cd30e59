//! The commands of the swarm, one file each.

pub mod hold;
pub mod push;
pub mod ratio;
mod run;
pub mod topic;
pub mod wake;
