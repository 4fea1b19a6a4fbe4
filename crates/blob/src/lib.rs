//! Objects: media, PCM, texts and large results in any S3 store, streamed both ways and checked by sha256.
//!
//! A [`Key`] can only be made by its constructors or read back by [`Key::parse`], so no text of a caller ever becomes
//! part of an object's name.

mod blobs;
mod client;
mod error;
mod get;
mod key;
mod list;
mod put;
mod reader;
mod settings;

pub use blobs::{Blobs, Head, Stored};
pub use error::BlobError;
pub use key::{BadKey, Key, Prefix};
pub use list::{Listed, Pages};
pub use put::PART_BYTES;
pub use reader::{BLOCK_BYTES, BlobReader};
pub use settings::BlobSettings;
