//! What callers asked for.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "job")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub caller: String,
    pub kind: String,
    pub class: String,
    pub state: String,
    pub media_id: Option<Uuid>,
    pub name: String,
    pub spec: String,
    pub model: String,
    pub language: Option<String>,
    pub duration_s: f64,
    pub progress_done: f64,
    pub progress_planned: f64,
    pub planned_final: bool,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub created_ms: i64,
    pub started_ms: Option<i64>,
    pub finished_ms: Option<i64>,
    pub deadline_ms: Option<i64>,
    pub soft_deadline_ms: Option<i64>,
    pub timeout_s: i64,
    pub soft_timeout_s: i64,
    pub max_memory_mb: i64,
    pub max_disk_mb: i64,
    pub heartbeat_ms: Option<i64>,
    pub last_step: Option<String>,
    pub sequence: i64,
    pub redrive_count: i64,
    pub resubmitted_from: Option<Uuid>,
    pub peak_memory_bytes: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
