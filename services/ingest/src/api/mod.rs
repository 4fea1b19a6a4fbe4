//! The services that callers see, one module each.

mod attached;
mod dead_letters;
mod diagnose;
mod embeddings;
mod errors;
mod explain;
mod jobs;
mod media;
mod operate;
mod operations;
mod search;
mod transcripts;
mod watch;

use tonic::service::{Routes, interceptor::InterceptedService};
use warren_jobs::plan::MAX_TEXTS_BYTES;
use warren_messages::wire::{
    dead_letters_server::{self, DeadLettersServer},
    embeddings_server::{self, EmbeddingsServer},
    jobs_server::{self, JobsServer},
    media_server::{self, MediaServer},
    operations_server::{self, OperationsServer},
    search_server::{self, SearchServer},
    transcripts_server::{self, TranscriptsServer},
};

use crate::{auth::Keys, parts::Parts};

/// Largest message that is read: a job's texts, each with its tag and length. An upload's chunks are smaller.
const LARGEST: usize = 2 * MAX_TEXTS_BYTES;

/// The names of all services, for gRPC health.
pub(crate) const NAMES: [&str; 7] = [
    media_server::SERVICE_NAME,
    jobs_server::SERVICE_NAME,
    transcripts_server::SERVICE_NAME,
    embeddings_server::SERVICE_NAME,
    search_server::SERVICE_NAME,
    dead_letters_server::SERVICE_NAME,
    operations_server::SERVICE_NAME,
];

/// All services, behind the check of keys.
pub(crate) fn services(parts: &Parts) -> Routes {
    let keys = Keys::new(&parts.settings.auth);
    macro_rules! routes {
        ($($server:ident($service:expr),)+) => {
            Routes::default()$(.add_service(InterceptedService::new(
                $server::new($service).max_decoding_message_size(LARGEST),
                keys.clone(),
            )))+
        };
    }
    routes!(
        MediaServer(media::Media(parts.clone())),
        JobsServer(jobs::Jobs(parts.clone())),
        TranscriptsServer(transcripts::Transcripts(parts.clone())),
        EmbeddingsServer(embeddings::Embeddings(parts.clone())),
        SearchServer(search::Search(parts.clone())),
        DeadLettersServer(dead_letters::DeadLetters(parts.clone())),
        OperationsServer(operations::Operations(parts.clone())),
    )
}
