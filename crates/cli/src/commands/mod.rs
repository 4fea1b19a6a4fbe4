//! One module for each group of commands.

pub(crate) mod audit;
pub(crate) mod dead_letters;
pub(crate) mod diagnose;
pub(crate) mod doctor;
pub(crate) mod embed;
pub(crate) mod jobs;
pub(crate) mod limits;
pub(crate) mod models;
pub(crate) mod one_job;
pub(crate) mod queues;
pub(crate) mod search;
pub(crate) mod stack;
pub(crate) mod stuck;
pub(crate) mod transcribe;
pub(crate) mod transcript;
pub(crate) mod vectors;
pub(crate) mod workers;
