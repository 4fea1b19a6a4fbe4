//! Text with times.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "segment")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub job_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub task_ordinal: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub idx: i64,
    pub start_s: f64,
    pub end_s: f64,
    pub text: String,
    pub avg_logprob: f64,
    pub no_speech_prob: f64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
