//! Worker processes as the leader saw them last.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "worker")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub boot: String,
    pub service: String,
    pub kinds: String,
    pub slots: i64,
    pub version: String,
    pub state: String,
    pub heartbeat_ms: i64,
    pub running: String,
    pub trouble: String,
    pub last_error: Option<String>,
    pub last_error_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
