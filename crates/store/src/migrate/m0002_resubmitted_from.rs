//! A job that was made from an earlier one names it.

use sea_orm::{ConnectionTrait, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub(super) struct ResubmittedFrom;

impl MigrationName for ResubmittedFrom {
    fn name(&self) -> &str {
        "m0002_resubmitted_from"
    }
}

#[allow(elided_lifetimes_in_paths, reason = "the macro's signature must match the trait's")]
#[async_trait::async_trait]
impl MigrationTrait for ResubmittedFrom {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // No reference: the earlier job may be deleted.
        manager.get_connection().execute_unprepared("ALTER TABLE job ADD COLUMN resubmitted_from UUID").await?;
        manager.get_connection().execute_unprepared("CREATE INDEX job_of_media ON job (media_id)").await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP INDEX job_of_media").await?;
        manager.get_connection().execute_unprepared("ALTER TABLE job DROP COLUMN resubmitted_from").await?;
        Ok(())
    }
}
