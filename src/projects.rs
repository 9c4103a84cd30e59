//! Projects: who may send, for which app, with which service tokens.
//!
//! [`Projects`] is what every worker reads on every send: a map in memory in front of the store.
//! A change goes to the store first, under the project's version, and shows here when it is
//! durable; in a region the other nodes see it at their next [`Projects::refresh`]. The project's
//! record is the one truth: replacing it revokes a service token at once.

mod error;
mod rules;
mod senders;
mod service_token;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

pub use error::ProjectError;
pub use rules::{
    CERTIFICATES_MAX, NAME_CHARS_MAX, NewProject, PACKAGE_NAME_CHARS_MAX, ProjectChange,
    canonical_fingerprint,
};
pub use senders::LAST_USED_STEP_MS;
pub use service_token::{NewServiceToken, SERVICE_TOKEN_PREFIX};

use senders::Senders;
use service_token::Presented;

use crate::clock::{Clock, Millis};
use crate::store::{Saved, Store, StoreError};
use crate::token::ProjectHash;

/// Service tokens that one project may have.
pub const SERVICE_TOKENS_MAX: usize = 5;

/// A change is tried this often when other nodes change the same project at the same time.
const WRITE_ATTEMPTS: usize = 16;

/// One application's sending identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Its id in paths.
    pub project_id: String,
    /// For people.
    pub name: String,
    /// The app's package name.
    pub package_name: String,
    /// SHA-256 fingerprints of the certificates the app may be signed with, as upper-case hex
    /// pairs joined by colons.
    pub cert_sha256: Vec<String>,
    /// Its senders' secrets, hashed.
    pub service_tokens: Vec<ServiceToken>,
    /// When it was made.
    pub created_at: Millis,
    /// Grows by one with every change; 1 when made.
    pub version: u64,
    /// Ended for ever; the id stays taken.
    pub deleted: bool,
}

impl Project {
    /// The short form that tokens carry.
    #[must_use]
    pub fn hash(&self) -> ProjectHash {
        ProjectHash::of(&self.project_id)
    }

    /// Whether an app of this package, signed with this certificate, belongs to the project. Any
    /// spelling of the fingerprint will do.
    #[must_use]
    pub fn admits(&self, package_name: &str, cert_sha256: &str) -> bool {
        self.package_name == package_name
            && canonical_fingerprint(cert_sha256)
                .is_some_and(|fingerprint| self.cert_sha256.contains(&fingerprint))
    }
}

/// A sender's secret, as far as the server keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceToken {
    /// Its id within the region.
    pub id: String,
    /// For people.
    pub name: String,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// When it was made.
    pub created_at: Millis,
}

/// Called with a project that has just ended, here or on another node.
pub type DeletedHook = Box<dyn Fn(&Project) + Send + Sync>;

/// All projects of a region, as this node knows them.
pub struct Projects {
    store: Arc<dyn Store>,
    clock: Clock,
    /// Deleted ones included: their ids stay taken.
    by_hash: DashMap<ProjectHash, Arc<Project>, ahash::RandomState>,
    senders: Senders,
    /// One writer at a time on this node; nodes are told apart by the version.
    writer: Mutex<()>,
    deleted_hook: OnceLock<DeletedHook>,
}

impl Projects {
    /// Reads all projects from the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn load(store: Arc<dyn Store>, clock: Clock) -> Result<Self, StoreError> {
        let projects = Self {
            store,
            clock,
            by_hash: DashMap::default(),
            senders: Senders::default(),
            writer: Mutex::new(()),
            deleted_hook: OnceLock::new(),
        };
        projects.refresh().await?;
        Ok(projects)
    }

    /// Takes in what other nodes have changed.
    ///
    /// # Errors
    /// The store cannot be read; what was known stays.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        for project in self.store.projects().await? {
            self.publish(project);
        }
        Ok(())
    }

    /// Sets what is called when a project has ended. Only the first call counts.
    pub fn when_deleted(&self, hook: impl Fn(&Project) + Send + Sync + 'static) {
        let _ = self.deleted_hook.set(Box::new(hook));
    }

    /// Starts the ending of deleted projects' tokens anew, in case a process stopped on the way.
    /// Once after [`Self::load`] is enough.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_tokens_of_deleted(&self) -> Result<(), StoreError> {
        let deleted = self.by_hash.iter().filter(|entry| entry.deleted);
        let hashes: Vec<ProjectHash> = deleted.map(|entry| *entry.key()).collect();
        for hash in hashes {
            self.store.delete_tokens_of(hash, self.clock.now()).await?;
        }
        Ok(())
    }

    // Reading

    /// A live project.
    #[must_use]
    pub fn get(&self, project_id: &str) -> Option<Arc<Project>> {
        self.get_by_hash(ProjectHash::of(project_id))
            .filter(|project| project.project_id == project_id)
    }

    /// The live project that a push token names.
    #[must_use]
    pub fn get_by_hash(&self, hash: ProjectHash) -> Option<Arc<Project>> {
        let project = Arc::clone(&*self.by_hash.get(&hash)?);
        (!project.deleted).then_some(project)
    }

    /// Live projects, by id.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Project>> {
        let live = self.by_hash.iter().filter(|entry| !entry.deleted);
        let mut projects: Vec<_> = live.map(|entry| Arc::clone(&*entry)).collect();
        projects.sort_by(|a, b| a.project_id.cmp(&b.project_id));
        projects
    }

    /// The project that a service token speaks for; `None` if it is no live token. Takes the same
    /// steps for an unknown id as for a wrong secret.
    #[must_use]
    pub fn authenticate(&self, service_token: &str) -> Option<Arc<Project>> {
        let presented = Presented::parse(service_token)?;
        let found = self.senders.find(presented.id);
        let project = found.and_then(|found| self.get_by_hash(found.project));
        let kept = project.as_ref().and_then(|it| {
            it.service_tokens
                .iter()
                .find(|kept| kept.id == presented.id)
        });
        if !presented.matches(kept) {
            return None;
        }
        if let Some(found) = found {
            self.senders.note_use(presented.id, found, self.clock.now());
        }
        project
    }

    /// When a service token was last used on this node since it started, to the minute; not kept
    /// over a restart.
    #[must_use]
    pub fn last_used(&self, service_token_id: &str) -> Option<Millis> {
        self.senders.find(service_token_id)?.last_used()
    }

    // Writing

    /// Makes a project.
    ///
    /// # Errors
    /// A field breaks a rule, the id is or was taken, or the store's.
    pub async fn create(&self, new: NewProject) -> Result<Arc<Project>, ProjectError> {
        let project = rules::project(new, self.clock.now())?;
        let _writer = self.writer.lock().await;
        if self.by_hash.contains_key(&project.hash()) {
            return Err(ProjectError::AlreadyExists(project.project_id));
        }
        match self.store.save_project(&project).await? {
            Saved::Saved => Ok(self.publish(project)),
            Saved::Conflict => {
                self.refresh().await?;
                Err(ProjectError::AlreadyExists(project.project_id))
            }
        }
    }

    /// Changes a project.
    ///
    /// # Errors
    /// No such project, a field breaks a rule, or the store's.
    pub async fn change(
        &self,
        project_id: &str,
        change: ProjectChange,
    ) -> Result<Arc<Project>, ProjectError> {
        let change = rules::change(change)?;
        self.update(project_id, |project| {
            if let Some(name) = &change.name {
                project.name.clone_from(name);
            }
            if let Some(package_name) = &change.package_name {
                project.package_name.clone_from(package_name);
            }
            if let Some(cert_sha256) = &change.cert_sha256 {
                project.cert_sha256.clone_from(cert_sha256);
            }
            Ok(())
        })
        .await
    }

    /// Ends a project for ever: its id stays taken, its service tokens are refused, its push tokens
    /// are dead.
    ///
    /// # Errors
    /// No such project, or the store's.
    pub async fn delete(&self, project_id: &str) -> Result<(), ProjectError> {
        let project = self
            .update(project_id, |project| {
                project.deleted = true;
                project.service_tokens.clear();
                Ok(())
            })
            .await?;
        let now = self.clock.now();
        Ok(self.store.delete_tokens_of(project.hash(), now).await?)
    }

    /// Makes a service token; its text is known to nobody afterwards.
    ///
    /// # Errors
    /// No such project, a name against the rules, [`ProjectError::TooManyServiceTokens`], or the
    /// store's.
    pub async fn create_service_token(
        &self,
        project_id: &str,
        name: &str,
    ) -> Result<NewServiceToken, ProjectError> {
        let name = rules::name("name", name)?;
        let new = NewServiceToken::generate(name, self.clock.now());
        self.update(project_id, |project| {
            if project.service_tokens.len() >= SERVICE_TOKENS_MAX {
                return Err(ProjectError::TooManyServiceTokens);
            }
            project.service_tokens.push(new.kept.clone());
            Ok(())
        })
        .await?;
        Ok(new)
    }

    /// Revokes a service token: refused here from now on, elsewhere after the next refresh.
    ///
    /// # Errors
    /// No such project, no such service token, or the store's.
    pub async fn delete_service_token(
        &self,
        project_id: &str,
        service_token_id: &str,
    ) -> Result<(), ProjectError> {
        self.update(project_id, |project| {
            let before = project.service_tokens.len();
            let tokens = &mut project.service_tokens;
            tokens.retain(|kept| kept.id != service_token_id);
            if tokens.len() == before {
                return Err(ProjectError::ServiceTokenNotFound(
                    service_token_id.to_owned(),
                ));
            }
            Ok(())
        })
        .await
        .map(drop)
    }

    /// Applies a change to the newest record, again if another node was quicker.
    async fn update(
        &self,
        project_id: &str,
        apply: impl Fn(&mut Project) -> Result<(), ProjectError>,
    ) -> Result<Arc<Project>, ProjectError> {
        let _writer = self.writer.lock().await;
        for _ in 0..WRITE_ATTEMPTS {
            let current = self
                .get(project_id)
                .ok_or_else(|| ProjectError::NotFound(project_id.to_owned()))?;
            let mut next = Project::clone(&current);
            apply(&mut next)?;
            next.version += 1;
            match self.store.save_project(&next).await? {
                Saved::Saved => return Ok(self.publish(next)),
                Saved::Conflict => self.refresh().await?,
            }
        }
        Err(ProjectError::Contended)
    }

    /// Shows a record to everyone, unless a newer one shows already.
    fn publish(&self, project: Project) -> Arc<Project> {
        let hash = project.hash();
        let project = Arc::new(project);
        let previous = match self.by_hash.entry(hash) {
            Entry::Occupied(shown) if shown.get().version >= project.version => {
                return Arc::clone(shown.get());
            }
            // The tokens are listed while the entry is locked, so that the newest record's list
            // is the last one written.
            Entry::Occupied(mut shown) => {
                let previous = shown.insert(Arc::clone(&project));
                self.senders.replace(&previous.service_tokens, &project);
                Some(previous)
            }
            Entry::Vacant(place) => {
                self.senders.replace(&[], &project);
                place.insert(Arc::clone(&project));
                None
            }
        };
        let has_ended = project.deleted && previous.is_some_and(|before| !before.deleted);
        if has_ended && let Some(hook) = self.deleted_hook.get() {
            hook(&project);
        }
        project
    }
}

impl fmt::Debug for Projects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Projects")
            .field("projects", &self.by_hash.len())
            .finish_non_exhaustive()
    }
}
