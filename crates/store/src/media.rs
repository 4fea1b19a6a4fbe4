//! Uploaded recordings.

use sea_orm::{EntityTrait, IntoActiveModel, sea_query::OnConflict};
use uuid::Uuid;
use warren_clock::UnixMillis;

use crate::{Reads, StoreError, Tx, entity::media, sql};

/// An uploaded recording, whose bytes are in object storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// Shown as `media_…`.
    pub id: Uuid,
    /// Who uploaded it.
    pub caller: String,
    /// The caller's name for it; never a path or key.
    pub name: String,
    /// Found by content: `wav`, `mp3`, … .
    pub container: String,
    /// Length of the object.
    pub size_bytes: i64,
    /// Lower-case hex.
    pub sha256: String,
    /// Object key.
    pub blob_key: String,
    /// When the upload was complete.
    pub created: UnixMillis,
}

impl Tx {
    /// Records an upload; again, it changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the id or key is taken.
    pub async fn insert_media(&self, media: &Media) -> Result<(), StoreError> {
        let row = media::Model {
            id: media.id,
            caller: sql::text(&media.caller),
            name: sql::text(&media.name),
            container: media.container.clone(),
            size_bytes: media.size_bytes,
            sha256: media.sha256.clone(),
            blob_key: media.blob_key.clone(),
            created_ms: media.created.0,
        };
        let once = OnConflict::column(media::Column::Id).do_nothing().to_owned();
        let insert = media::Entity::insert(row.into_active_model()).on_conflict(once);
        insert.exec_without_returning(&*self.inner).await?;
        Ok(())
    }
}

impl Reads<'_> {
    /// One recording.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn media(&self, id: Uuid) -> Result<Option<Media>, StoreError> {
        Ok(media::Entity::find_by_id(id).one(&self.inner).await?.map(Media::from))
    }
}

impl From<media::Model> for Media {
    fn from(row: media::Model) -> Self {
        Self {
            id: row.id,
            caller: row.caller,
            name: row.name,
            container: row.container,
            size_bytes: row.size_bytes,
            sha256: row.sha256,
            blob_key: row.blob_key,
            created: UnixMillis(row.created_ms),
        }
    }
}
