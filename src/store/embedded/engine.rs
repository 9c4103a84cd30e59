//! The engine under the embedded store: one keyspace of one fjall database.
//!
//! One keyspace, because a keyspace that is written once and then left alone pins the journals of
//! all others. Every write goes through [`Engine::commit`], from one thread.

use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{
    AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, UserKey, UserValue,
};
use thiserror::Error;

use super::record::{FORMAT_VERSION, VERSION_KEY, time_index_entry};
use super::unswept::Unswept;
use crate::store::StoreError;

const KEYSPACE: &str = "herald";

/// A memtable is written out at this size. Under load the one before it is in memory too, at worst
/// four more, all in about three times as many bytes; at rest there is none. Half of this has the
/// engine write out and merge twice as often, at the expense of durable sends.
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;

/// Journals that are not yet written out in full may take this much disk; the engine's own
/// journal files are 64 MiB each.
const JOURNALS_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Threads that write memtables out and compact: one of each at a time.
const WORKER_THREADS: usize = 2;

/// Why a store could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process holds the directory.
    #[error("{0} is in use by another process: is a server running on it?")]
    InUse(String),
    /// There is no store in the directory.
    #[error("{0} holds no store")]
    Absent(String),
    /// The store was written by a version of Herald that keeps it differently.
    #[error("the store has format {found}, this program reads format {expected}")]
    WrongFormat {
        /// What the store says.
        found: u8,
        /// What this program reads and writes.
        expected: u8,
    },
    /// What was read is not what was written.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// The machine refused.
    #[error("the store could not be opened: {0}")]
    Failed(String),
}

/// One write of a batch.
#[derive(Debug)]
pub(super) enum Op {
    Put(UserKey, UserValue),
    Remove(UserKey),
    /// Removes a key that is written once in its life. Once both are merged nothing is left of either, so
    /// what comes and goes within one memtable is never written out at all.
    RemoveSingle(UserKey),
    /// Removes what was read, unless it was overwritten since.
    RemoveUnchanged(UserKey, UserValue),
}

impl Op {
    pub(super) fn key(&self) -> &UserKey {
        match self {
            Self::Put(key, _) | Self::RemoveUnchanged(key, _) => key,
            Self::Remove(key) | Self::RemoveSingle(key) => key,
        }
    }

    /// Bytes this holds in the queue.
    pub(super) fn weight(&self) -> usize {
        let value = match self {
            Self::Put(_, value) | Self::RemoveUnchanged(_, value) => value.len(),
            Self::Remove(_) | Self::RemoveSingle(_) => 0,
        };
        size_of::<Self>() + self.key().len() + value
    }
}

/// A key and its value, as they are read.
pub(super) type Entry = Result<(UserKey, UserValue), StoreError>;

/// The database and its one keyspace.
pub(super) struct Engine {
    database: Database,
    keyspace: Keyspace,
    reads: AtomicU64,
    removals: AtomicU64,
    /// Where the next sweeps begin.
    pub(super) unswept: Unswept,
    #[cfg(test)]
    pub(super) fails_next_commit: std::sync::atomic::AtomicBool,
}

impl Engine {
    /// Opens the store in `directory`, or makes one.
    pub(super) fn open(directory: &Path, cache_bytes: u64) -> Result<Self, OpenError> {
        let database = Database::builder(directory)
            .cache_size(cache_bytes)
            .worker_threads(WORKER_THREADS)
            .max_journaling_size(JOURNALS_BYTES_MAX)
            .open()
            .map_err(|error| open_error(directory, &error))?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let keyspace = database
            .keyspace(KEYSPACE, options)
            .map_err(|error| open_error(directory, &error))?;
        let engine = Self {
            database,
            keyspace,
            reads: AtomicU64::new(0),
            removals: AtomicU64::new(0),
            unswept: Unswept::default(),
            #[cfg(test)]
            fails_next_commit: std::sync::atomic::AtomicBool::new(false),
        };
        engine.check_format()?;
        Ok(engine)
    }

    /// Opens the store in `directory`, which must be there.
    pub(super) fn open_existing(directory: &Path, cache_bytes: u64) -> Result<Self, OpenError> {
        if !directory.join("version").is_file() {
            return Err(OpenError::Absent(directory.display().to_string()));
        }
        Self::open(directory, cache_bytes)
    }

    fn check_format(&self) -> Result<(), OpenError> {
        let corrupt = |error: StoreError| OpenError::Corrupt(error.to_string());
        match self.get(&VERSION_KEY).map_err(corrupt)? {
            Some(version) if *version == [FORMAT_VERSION] => Ok(()),
            Some(version) => Err(OpenError::WrongFormat {
                found: version.first().copied().unwrap_or(0),
                expected: FORMAT_VERSION,
            }),
            None => self
                .commit(
                    [Op::Put(VERSION_KEY.into(), [FORMAT_VERSION].into())].into_iter(),
                    true,
                )
                .map_err(|error| OpenError::Failed(error.to_string())),
        }
    }

    /// The value under a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.keyspace.get(key).map_err(|error| read_error(&error))
    }

    /// Keys and values within bounds, in order.
    pub(super) fn range<R: RangeBounds<UserKey>>(
        &self,
        bounds: R,
    ) -> impl Iterator<Item = Entry> + use<R> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let guards = self.keyspace.range(bounds);
        guards.map(|guard| guard.into_inner().map_err(|error| read_error(&error)))
    }

    /// At most `max` keys and values that begin with `prefix` and are greater than `after`.
    pub(super) fn page(
        &self,
        prefix: &[u8],
        after: &[u8],
        max: usize,
    ) -> Result<Vec<(UserKey, UserValue)>, StoreError> {
        let from = if after < prefix {
            Bound::Included(UserKey::from(prefix))
        } else {
            Bound::Excluded(UserKey::from(after))
        };
        let is_in = |entry: &Entry| {
            entry
                .as_ref()
                .map_or(true, |(key, _)| key.starts_with(prefix))
        };
        let entries = self.range((from, Bound::Unbounded));
        entries.take_while(is_in).take(max).collect()
    }

    /// Writes everything or nothing; `is_synced` makes it, and all before it, durable. Keys must
    /// be distinct. Any error is final: the engine takes no write after it.
    pub(super) fn commit(
        &self,
        ops: impl Iterator<Item = Op>,
        is_synced: bool,
    ) -> Result<(), fjall::Error> {
        #[cfg(test)]
        if self.fails_next_commit.load(Ordering::Relaxed) {
            return Err(fjall::Error::Poisoned);
        }
        let mode = if is_synced {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        let mut batch = self.database.batch().durability(Some(mode));
        let mut removals = 0;
        let mut timed = Vec::new();
        for op in ops {
            match &op {
                Op::Put(key, _) => timed.extend(time_index_entry(key)),
                _ => removals += 1,
            }
            match op {
                Op::Put(key, value) => batch.insert(&self.keyspace, key, value),
                Op::RemoveSingle(key) => batch.remove_weak(&self.keyspace, key),
                Op::Remove(key) | Op::RemoveUnchanged(key, _) => batch.remove(&self.keyspace, key),
            }
        }
        batch.commit()?;
        for (index, second) in timed {
            self.unswept.note(index, second);
        }
        self.removals.fetch_add(removals, Ordering::Relaxed);
        Ok(())
    }

    /// Makes everything committed so far durable.
    pub(super) fn sync(&self) -> Result<(), fjall::Error> {
        self.database.persist(PersistMode::SyncData)
    }

    /// Reads since the store was opened.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Removals since the store was opened.
    pub(super) fn removals(&self) -> u64 {
        self.removals.load(Ordering::Relaxed)
    }

    /// Removals on disk that have yet to be merged with what they remove.
    pub(super) fn tombstones(&self) -> u64 {
        self.keyspace.tree.tombstone_count()
    }

    /// Bytes on disk without the journals.
    pub(super) fn table_bytes(&self) -> u64 {
        self.keyspace.disk_space()
    }

    /// Journal files in use.
    pub(super) fn journals(&self) -> usize {
        self.database.journal_count()
    }

    /// Bytes on disk, journals included.
    pub(super) fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.database
            .disk_space()
            .map_err(|error| read_error(&error))
    }

    /// Bytes of keys and values in memtables: those that are yet to be written out, and those that
    /// were and that the engine has not let go of.
    pub(super) fn memtable_bytes(&self) -> u64 {
        self.keyspace.tree.version_memtable_size_sum()
    }

    /// Has the memtable written out, so that journals before it can go.
    pub(super) fn write_memtable_out(&self) -> Result<(), fjall::Error> {
        self.keyspace.rotate_memtable().map(|_| ())
    }

    /// Whether memtables are still being written out.
    pub(super) fn is_writing_memtables_out(&self) -> bool {
        self.keyspace.sealed_memtable_count() > 0
    }

    /// Rewrites all tables without what is obsolete. Takes as long as there is data.
    pub(super) fn compact(&self) -> Result<(), fjall::Error> {
        self.keyspace.major_compact()
    }
}

fn open_error(directory: &Path, error: &fjall::Error) -> OpenError {
    match error {
        fjall::Error::Locked => OpenError::InUse(directory.display().to_string()),
        fjall::Error::Io(error) => OpenError::Failed(error.to_string()),
        fjall::Error::InvalidVersion(_) => {
            OpenError::Failed("it was written by another version of its engine".to_owned())
        }
        other => OpenError::Corrupt(other.to_string()),
    }
}

fn read_error(error: &fjall::Error) -> StoreError {
    tracing::error!(%error, "the engine could not read");
    match error {
        fjall::Error::Io(_) | fjall::Error::Poisoned => {
            StoreError::Unavailable("the engine could not read")
        }
        other => StoreError::Corrupt(other.to_string()),
    }
}
