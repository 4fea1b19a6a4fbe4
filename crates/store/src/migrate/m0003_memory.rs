//! How much memory work needs: batch sizes that were found to fit, and the peak of each job.

use sea_orm::{ConnectionTrait, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub(super) struct Memory;

impl MigrationName for Memory {
    fn name(&self) -> &str {
        "m0003_memory"
    }
}

#[allow(elided_lifetimes_in_paths, reason = "the macro's signature must match the trait's")]
#[async_trait::async_trait]
impl MigrationTrait for Memory {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(UP).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(DOWN).await?;
        Ok(())
    }
}

const UP: &str = "
CREATE TABLE safe_batch (
    device TEXT NOT NULL,
    model TEXT NOT NULL,
    length BIGINT NOT NULL,
    most BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (device, model, length)
);
ALTER TABLE job ADD COLUMN peak_memory_bytes BIGINT NOT NULL DEFAULT 0;
";

const DOWN: &str = "
ALTER TABLE job DROP COLUMN peak_memory_bytes;
DROP TABLE safe_batch;
";
