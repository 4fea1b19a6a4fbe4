//! What PostgreSQL's planner knows of the tables.

use crate::{Store, StoreError};

/// Up to this many rows, any plan will do.
const FEW: i64 = 500;

#[derive(Debug, sea_orm::FromQueryResult)]
struct Name {
    name: String,
}

impl Store {
    /// Has PostgreSQL look at the tables that have twice the rows they had when it last did. Returns their names.
    ///
    /// Its own process does so once a minute at most. A database that fills faster keeps plans for empty tables that long,
    /// and reads whole ones for a single row. SQLite, which takes an index wherever there is one, needs none of this.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn refresh_statistics(&self) -> Result<Vec<String>, StoreError> {
        if self.is_sqlite() {
            return Ok(Vec::new());
        }
        let text = "SELECT format('%I', table_class.relname) AS name
             FROM pg_stat_user_tables AS seen JOIN pg_class AS table_class ON table_class.oid = seen.relid
             WHERE seen.schemaname = current_schema() AND seen.n_live_tup > 2 * GREATEST(table_class.reltuples, $1)
             ORDER BY 1";
        let grown: Vec<Name> = self.read().all(text, [FEW.into()]).await?;
        for Name { name } in &grown {
            self.read().run(format!("ANALYZE {name}")).await?;
        }
        Ok(grown.into_iter().map(|table| table.name).collect())
    }
}
