//! The whole service on a real database, broker and object store; only the coordinator's part is played here.

mod doors;
mod follow;
mod letters;
mod read;
mod submit;
mod upload;
mod world;
