//! A recording that is transcribed over and over: each transcript must be the one of calm times.

use std::{sync::Arc, time::Duration};

use warren_messages::wire::{JobState, Transcript};

use super::{
    callers::{Callers, Outcome, Tally, succeeded},
    client::Client,
    world::World,
};
use crate::wave;

/// Listens for 50 ms of processor time to a window of up to 30 s.
const MODEL: &str = "drill-hear-50";
/// Seconds of sound, with a pause in every five.
const SECONDS: u32 = 100;
/// Longest that one job takes, faults included.
const JOB: Duration = Duration::from_secs(600);

/// The recording, and what is heard in it when nothing happens.
#[derive(Debug)]
pub struct Talk {
    media: String,
    transcript: Transcript,
    tasks: usize,
}

impl Talk {
    /// Uploads the recording and has it transcribed once.
    ///
    /// # Panics
    /// When that does not succeed.
    pub fn record(world: &World) -> Arc<Self> {
        let heard = async {
            let media = world.client.upload("talk.wav", recording()).await?;
            let id = world.client.transcribe("talk in calm times", MODEL, &media).await?;
            let job = world.client.ended(&id, JOB).await?;
            Ok::<_, tonic::Status>((media, job, world.client.transcript(&id).await?))
        };
        let (media, job, transcript) = world.runtime.block_on(heard).expect("nothing is wrong yet");
        assert_eq!(job.state(), JobState::Succeeded, "{job:?}");
        assert!(transcript.complete && transcript.segments.len() > 3, "{transcript:?}");
        let tasks = job.tasks.map_or(0, |tasks| tasks.done as usize);
        Arc::new(Self { media, transcript: Transcript { job: String::new(), ..transcript }, tasks })
    }

    /// The one job that there was for it.
    pub fn calm(&self) -> Tally {
        Tally { jobs: 1, ..Tally::default() }
    }

    /// Tasks that a job for it takes.
    pub fn tasks(&self) -> usize {
        self.tasks
    }

    /// So many callers have it transcribed, again and again.
    pub fn repeat(self: &Arc<Self>, world: &World, callers: usize) -> Callers {
        let (talk, client) = (self.clone(), world.client.clone());
        Callers::start(world, callers, move |caller, number| {
            let (talk, client) = (talk.clone(), client.clone());
            async move { Some(talk.once(&client, &format!("talk {caller}.{number}")).await) }
        })
    }

    async fn once(&self, client: &Client, request: &str) -> Outcome {
        let lost = |what: String| Outcome::Lost(format!("{request}: {what}"));
        let id = match client.transcribe(request, MODEL, &self.media).await {
            Ok(id) => id,
            Err(status) => return lost(format!("not accepted: {status}")),
        };
        let job = match client.ended(&id, JOB).await {
            Ok(job) => job,
            Err(status) => return lost(status.to_string()),
        };
        if let Err(outcome) = succeeded(request, &job, self.tasks) {
            return outcome;
        }
        let transcript = match client.transcript(&id).await {
            Ok(transcript) => Transcript { job: String::new(), ..transcript },
            Err(status) => return lost(format!("its transcript: {status}")),
        };
        if transcript == self.transcript {
            Outcome::Right
        } else {
            Outcome::Wrong(format!("{request}: {transcript:?} instead of {:?}", self.transcript))
        }
    }
}

/// Noise that is never the same, as a wav file.
fn recording() -> Vec<u8> {
    let mut state = 1_u32;
    let samples = (0..SECONDS * wave::RATE).map(|sample| {
        // Xorshift, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let pause = sample % (5 * wave::RATE) < wave::RATE / 2;
        if pause { 0 } else { (state >> 18) as i16 - 8_192 }
    });
    let bytes: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let mut file = wave::header(wave::RATE, 1, bytes.len() as u32);
    file.extend(bytes);
    file
}
