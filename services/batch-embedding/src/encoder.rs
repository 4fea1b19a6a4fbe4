//! Text encoders on the worker's shelf.

use warren_inference::{Device, Embedder, EmbedderOptions, InferenceError};
use warren_models::{Family, Model, ModelDir};
use warren_worker::Loadable;

/// A loaded text encoder.
pub(crate) struct Encoder(pub(crate) Embedder);

impl Loadable for Encoder {
    const FAMILY: Family = Family::Bert;

    fn load(model: &Model, files: &ModelDir, device: Device) -> Result<Self, InferenceError> {
        Embedder::open(files, device, options(model)).map(Self)
    }
}

/// What the catalogue says about the model's vectors.
fn options(model: &Model) -> EmbedderOptions {
    let defaults = EmbedderOptions::default();
    model.embedding.as_ref().map_or(defaults, |embedding| EmbedderOptions {
        pooling: embedding.pooling.into(),
        max_tokens: embedding.max_tokens,
        ..defaults
    })
}
