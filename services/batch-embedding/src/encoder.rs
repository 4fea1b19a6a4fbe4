//! Text encoders on the worker's shelf.

use warren_drills::StandIn;
use warren_inference::{Device, Embedder, EmbedderOptions, Gate, InferenceError};
use warren_models::{Family, Model, ModelDir};
use warren_worker::Loadable;

use crate::stand_in;

/// Most tokens in one forward pass on the processor, padding included. A cancelled task stops between two passes, so
/// that one pass of all-MiniLM-L6-v2 has to stay well under a second on a busy core; larger batches gain nothing there.
const CPU_BATCH_TOKENS: usize = 512;

/// Most texts in one forward pass, unless the settings say otherwise: more gain nothing on the processor.
const CPU_ROWS: usize = 32;
/// The same on a card, where as many as a task has are worth while if they are short.
const CARD_ROWS: usize = 256;

/// A loaded text encoder.
pub(crate) enum Encoder {
    /// A real one.
    Bert(Box<Embedder>),
    /// One of the tests.
    StandIn(StandIn),
}

impl Encoder {
    /// One unit vector per text, in their order.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub(crate) fn embed(&self, texts: &[String], gate: &dyn Gate) -> Result<Vec<Vec<f32>>, InferenceError> {
        match self {
            Self::Bert(embedder) => embedder.embed(texts, gate),
            Self::StandIn(model) => stand_in::embed(*model, texts, gate),
        }
    }
}

impl Loadable for Encoder {
    const FAMILY: Family = Family::Bert;

    fn rows(device: Device) -> usize {
        if device == Device::Cpu { CPU_ROWS } else { CARD_ROWS }
    }

    fn load(model: &Model, files: &ModelDir, device: Device) -> Result<Self, InferenceError> {
        if let Some(stand_in) = StandIn::named(&model.name) {
            return Ok(Self::StandIn(stand_in));
        }
        Embedder::open(files, device, options(model, device)).map(|embedder| Self::Bert(Box::new(embedder)))
    }
}

/// What the catalogue says about the model's vectors, and how much goes into one forward pass.
fn options(model: &Model, device: Device) -> EmbedderOptions {
    let mut options = EmbedderOptions::default();
    if device == Device::Cpu {
        options.max_batch_tokens = CPU_BATCH_TOKENS;
    }
    if let Some(embedding) = &model.embedding {
        options.pooling = embedding.pooling.into();
        options.max_tokens = embedding.max_tokens;
    }
    options
}

#[cfg(test)]
mod tests {
    use warren_models::Catalogue;

    use super::*;

    #[test]
    fn passes_are_short_on_the_processor_and_full_on_a_card() {
        let catalogue = Catalogue::builtin();
        let model = catalogue.get("all-MiniLM-L6-v2").expect("in the catalogue");
        let tokens = |device| options(model, device).max_batch_tokens;
        assert_eq!((tokens(Device::Cpu), tokens(Device::Cuda(0))), (CPU_BATCH_TOKENS, 4096));
    }
}
