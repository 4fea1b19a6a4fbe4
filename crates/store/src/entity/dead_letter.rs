//! The index of the queue `warren.dead`.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "dead_letter")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub state: String,
    pub queue: String,
    pub kind: String,
    pub class: String,
    pub cause: String,
    pub fingerprint: String,
    pub job_id: Option<Uuid>,
    pub task_id: Option<Uuid>,
    pub dispatch: Option<i64>,
    pub body: Vec<u8>,
    pub content_type: String,
    pub headers: String,
    pub first_seen_ms: i64,
    pub last_seen_ms: i64,
    pub generation: i64,
    pub replays: i64,
    pub replay_of: Option<String>,
    pub reason: Option<String>,
    pub in_queue: bool,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
