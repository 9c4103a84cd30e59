//! Where to find the project of a service token, and when the token was last used.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use super::{Project, ServiceToken};
use crate::clock::Millis;
use crate::token::ProjectHash;

/// How exactly the last use of a service token is known: a write for every send would cost more
/// than it tells.
pub const LAST_USED_STEP_MS: Millis = 60_000;

/// Service tokens by id. May lag behind the projects' records, which decide.
#[derive(Default)]
pub(super) struct Senders(DashMap<String, Entry, ahash::RandomState>);

struct Entry {
    project: ProjectHash,
    /// 0 = not since this process started.
    last_used: AtomicU64,
}

/// A copy of an entry. Never a guard: whoever publishes a record holds it and waits for this map.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) project: ProjectHash,
    last_used: Millis,
}

impl Found {
    pub(super) fn last_used(self) -> Option<Millis> {
        (self.last_used != 0).then_some(self.last_used)
    }
}

impl Senders {
    pub(super) fn find(&self, id: &str) -> Option<Found> {
        let entry = self.0.get(id)?;
        let last_used = entry.last_used.load(Ordering::Relaxed);
        Some(Found {
            project: entry.project,
            last_used,
        })
    }

    pub(super) fn note_use(&self, id: &str, found: Found, now: Millis) {
        if now < found.last_used + LAST_USED_STEP_MS {
            return;
        }
        if let Some(entry) = self.0.get(id) {
            entry.last_used.store(now, Ordering::Relaxed);
        }
    }

    /// Takes a project's tokens for those it had before.
    pub(super) fn replace(&self, before: &[ServiceToken], project: &Project) {
        let kept = &project.service_tokens;
        for gone in before {
            if !kept.iter().any(|token| token.id == gone.id) {
                self.0.remove(&gone.id);
            }
        }
        for token in kept {
            self.0.entry(token.id.clone()).or_insert_with(|| Entry {
                project: project.hash(),
                last_used: AtomicU64::new(0),
            });
        }
    }
}
