//! Transcripts, whole or as far as they are.

use tonic::{Request, Response, Status};
use warren_jobs::{
    JobKind, JobState,
    transcript::{self, Document, stitch},
};
use warren_messages::{
    ids::JobId,
    wire::{self, GetTranscriptRequest, Quality, Transcript, TranscriptFormat, job::Spec, transcripts_server},
};
use warren_store::{Job, Segment};

use crate::{
    auth::caller,
    parts::Parts,
    shown::{self, number},
    status::{invalid, of_store},
};

/// Service `warren.v1.Transcripts`.
pub(crate) struct Transcripts(pub(crate) Parts);

#[tonic::async_trait]
impl transcripts_server::Transcripts for Transcripts {
    async fn get(&self, request: Request<GetTranscriptRequest>) -> Result<Response<Transcript>, Status> {
        let caller = caller(&request)?;
        let GetTranscriptRequest { job, format } = request.into_inner();
        let format = TranscriptFormat::try_from(format)
            .map_err(|_| invalid("format", format!("{format} is none of TEXT, SRT, VTT, JSON")))?;
        let job = self.0.job(&caller, "job", &job).await?;
        if job.kind != JobKind::Transcribe {
            return Err(invalid("job", "made vectors, not a transcript; use Embeddings.Get"));
        }
        let rows = self.0.store.read().segments(job.id).await.map_err(|error| of_store(&error))?;
        Ok(Response::new(transcript(&job, &rows, format)))
    }
}

fn transcript(job: &Job, rows: &[Segment], format: TranscriptFormat) -> Transcript {
    let heard = rows.iter().map(|row| row.end_s).fold(0.0, f64::max);
    // Before the recording is decoded to its end, its length is not known.
    let duration = if job.duration_s > 0.0 { job.duration_s } else { heard };
    let segments = stitch([rows.iter().map(segment)], duration);
    let language = job.language.clone().unwrap_or_default();
    let complete = job.state == JobState::Succeeded;
    let (quality, beam_size) = match shown::spec(job) {
        Some(Spec::Transcribe(spec)) => spec.decoding(),
        _ => (Quality::Unspecified, 0),
    };
    let text = transcript::text(&segments, &language);
    let rendered = match format {
        TranscriptFormat::Unspecified => String::new(),
        TranscriptFormat::Text => text.clone() + "\n",
        TranscriptFormat::Srt => transcript::srt(&segments),
        TranscriptFormat::Vtt => transcript::vtt(&segments),
        TranscriptFormat::Json => {
            let document = Document {
                language: &language,
                duration,
                model: &job.model,
                quality: quality.word(),
                beam_size,
                complete,
                text: text.clone(),
                segments: &segments,
            };
            serde_json::to_string_pretty(&document).expect("a transcript always serialises") + "\n"
        }
    };
    Transcript {
        job: JobId(job.id).to_string(),
        complete,
        duration_seconds: duration,
        model: job.model.clone(),
        text,
        segments: segments
            .into_iter()
            .enumerate()
            .map(|(index, segment)| wire::Segment {
                index: number(index),
                start: segment.start,
                end: segment.end,
                text: segment.text,
                avg_logprob: segment.avg_logprob,
                no_speech_prob: segment.no_speech_prob,
            })
            .collect(),
        rendered,
        language,
        quality: quality.into(),
        beam_size,
    }
}

fn segment(row: &Segment) -> transcript::Segment {
    transcript::Segment {
        start: row.start_s,
        end: row.end_s,
        text: row.text.clone(),
        avg_logprob: row.avg_logprob as f32,
        no_speech_prob: row.no_speech_prob as f32,
    }
}
