//! One module for each group of commands.

pub(crate) mod dead_letters;
pub(crate) mod doctor;
pub(crate) mod embed;
pub(crate) mod jobs;
pub(crate) mod models;
pub(crate) mod operations;
pub(crate) mod search;
pub(crate) mod stack;
pub(crate) mod transcribe;
pub(crate) mod transcript;
