//! What an awake session missed because its mailbox was full: a note of fixed size in its place.

use crate::actors::messages::SessionEvent;
use crate::token::{ProjectHash, TokenId};

/// What could not be put into an awake session's mailbox; it looks here after each turn.
#[derive(Debug, Default)]
pub struct Missed {
    /// Deliveries were lost.
    pub behind: bool,
    /// A newer session took over.
    pub replaced: bool,
    /// The node restarts; come back after so many milliseconds.
    pub restart: Option<u64>,
    /// Deadlines want a look.
    pub check: bool,
    /// These tokens ended. Bounded by the tokens of one session.
    pub ended: Vec<TokenId>,
    /// All tokens of these projects ended. Bounded by how often an operator deletes one.
    pub ended_projects: Vec<ProjectHash>,
}

impl Missed {
    /// Keeps an event that found the mailbox full.
    pub fn note(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Deliver(_) | SessionEvent::Behind(_) => self.behind = true,
            SessionEvent::Replaced => self.replaced = true,
            SessionEvent::Restart { retry_ms } => self.restart = Some(retry_ms),
            SessionEvent::EndProject(project) => self.ended_projects.push(project),
            SessionEvent::Ended(token) => self.ended.push(token),
            // The next look at the deadlines is asked for by the session itself.
            SessionEvent::Check => self.check = true,
        }
    }
}
