//! One message's worth of work each.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "task")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub job_id: Uuid,
    pub kind: String,
    pub ordinal: i64,
    pub state: String,
    pub dispatch: i64,
    pub losses: i64,
    pub payload: String,
    pub cost: f64,
    pub units: f64,
    pub created_ms: i64,
    pub released_ms: Option<i64>,
    pub finished_ms: Option<i64>,
    pub retry_until_ms: Option<i64>,
    pub worker: Option<String>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
