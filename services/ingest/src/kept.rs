//! Objects that are deleted again unless the call that wrote them succeeds.

use warren_blob::{Blobs, Key};

/// An object that nothing refers to yet.
#[derive(Debug)]
pub(crate) struct Unkept(Option<(Blobs, Key)>);

impl Unkept {
    /// The object at `key` goes when this is dropped.
    pub(crate) fn new(blobs: &Blobs, key: &Key) -> Self {
        Self(Some((blobs.clone(), key.clone())))
    }

    /// The object stays.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unkept {
    fn drop(&mut self) {
        let (Some((blobs, key)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(async move {
            if let Err(error) = blobs.delete(&key).await {
                tracing::warn!(blob.key = %key, %error, "an object that nothing refers to is left behind");
            }
        });
    }
}
