//! A recording that is transcribed over and over: each transcript must be the one of calm times.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;
use warren_messages::wire::{Job, JobState, Transcript};

use super::{
    client::Client,
    flood::{Outcome, Tally},
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

/// Callers who have it transcribed until they are told to stop.
#[derive(Debug)]
pub struct Talking {
    lanes: Vec<JoinHandle<Vec<Outcome>>>,
    stop: Arc<AtomicBool>,
}

impl Talk {
    /// Uploads the recording and has it transcribed once.
    ///
    /// # Panics
    /// When that does not succeed.
    pub fn record(world: &World) -> Self {
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
        Self { media, transcript: Transcript { job: String::new(), ..transcript }, tasks }
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
    pub fn repeat(&self, world: &World, callers: usize) -> Talking {
        let stop = Arc::<AtomicBool>::default();
        let lane = |caller| {
            let (client, stop, media) = (world.client.clone(), stop.clone(), self.media.clone());
            let (transcript, tasks) = (self.transcript.clone(), self.tasks);
            world.runtime.spawn(async move {
                let mut outcomes = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let request = format!("talk {caller}.{}", outcomes.len());
                    outcomes.push(once(&client, &request, &media, &transcript, tasks).await);
                }
                outcomes
            })
        };
        let lanes = (0..callers).map(lane).collect();
        Talking { lanes, stop }
    }
}

impl Talking {
    /// Waits for the jobs that were begun.
    ///
    /// # Panics
    /// When a caller did.
    pub fn finish(mut self, world: &World) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let lanes = std::mem::take(&mut self.lanes).into_iter();
        lanes.flat_map(|lane| world.runtime.block_on(lane).expect("callers do not panic")).collect()
    }
}

/// A row that fails leaves nobody talking.
impl Drop for Talking {
    fn drop(&mut self) {
        self.lanes.iter().for_each(JoinHandle::abort);
    }
}

async fn once(client: &Client, request: &str, media: &str, expected: &Transcript, tasks: usize) -> Outcome {
    let lost = |what: String| Outcome::Lost(format!("{request}: {what}"));
    let id = match client.transcribe(request, MODEL, media).await {
        Ok(id) => id,
        Err(status) => return lost(format!("not accepted: {status}")),
    };
    let job = match client.ended(&id, JOB).await {
        Ok(job) if job.state() == JobState::Succeeded => job,
        Ok(job) => return lost(format!("{job:?}")),
        Err(status) => return lost(status.to_string()),
    };
    match client.transcript(&id).await {
        Ok(transcript) => judge(request, &job, Transcript { job: String::new(), ..transcript }, expected, tasks),
        Err(status) => lost(format!("its transcript: {status}")),
    }
}

fn judge(request: &str, job: &Job, transcript: Transcript, expected: &Transcript, tasks: usize) -> Outcome {
    let counts = job.tasks.unwrap_or_default();
    let others = counts.unreleased + counts.released + counts.failed + counts.dead + counts.cancelled;
    if counts.done as usize != tasks || others != 0 {
        return Outcome::Wrong(format!("{request}: its tasks are {counts:?}, not {tasks}"));
    }
    if transcript != *expected {
        return Outcome::Wrong(format!("{request}: {transcript:?} instead of {expected:?}"));
    }
    Outcome::Right
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
