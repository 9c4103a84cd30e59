//! Projects and secrets: read, judged and written one at a time.

use super::EmbeddedStore;
use super::engine::Op;
use super::record::{kind, project_key, secret_key};
use crate::projects::Project;
use crate::store::{Saved, StoreError};

impl EmbeddedStore {
    pub(super) fn projects_now(&self) -> Result<Vec<Project>, StoreError> {
        let prefix = [kind::PROJECT];
        let rows = self.engine.page(&prefix, &prefix, usize::MAX)?;
        rows.iter()
            .map(|(_, value)| decode_project(value))
            .collect()
    }

    pub(super) async fn save_project_now(&self, project: &Project) -> Result<Saved, StoreError> {
        let _turn = self.deliberate.lock().await;
        let key = project_key(&project.project_id);
        let stored = self.engine.get(&key)?;
        let stored = stored.map(|value| decode_project(&value)).transpose()?;
        let version = stored.map_or(0, |stored| stored.version);
        if version.checked_add(1) != Some(project.version) {
            return Ok(Saved::Conflict);
        }
        let value = serde_json::to_vec(project)
            .map_err(|error| StoreError::Corrupt(format!("a project: {error}")))?;
        self.commit_now(Op::Put(key, value.into())).await?;
        Ok(Saved::Saved)
    }

    pub(super) async fn keep_secret_now(
        &self,
        name: &str,
        proposed: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let _turn = self.deliberate.lock().await;
        let key = secret_key(name);
        if let Some(kept) = self.engine.get(&key)? {
            return Ok(kept.to_vec());
        }
        self.commit_now(Op::Put(key, proposed.into())).await?;
        Ok(proposed.to_vec())
    }
}

fn decode_project(value: &[u8]) -> Result<Project, StoreError> {
    serde_json::from_slice(value)
        .map_err(|error| StoreError::Corrupt(format!("a project: {error}")))
}
