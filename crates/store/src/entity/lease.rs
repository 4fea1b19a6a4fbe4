//! Who may use which device until when.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "lease")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub device: String,
    pub model: String,
    pub worker: String,
    pub boot: String,
    pub slot: i64,
    pub wait: i64,
    pub fence: i64,
    pub state: String,
    pub memory_bytes: i64,
    pub granted_ms: i64,
    pub expires_ms: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
