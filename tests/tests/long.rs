//! Recordings of an hour and more: memory does not grow with them, progress is seen, and short ones do not wait behind
//! them.

use std::{
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use warren_tests::{
    command::Running,
    memory::Peaks,
    nightly, recordings,
    stack::Stack,
    wait::{during, until},
    wave,
};

const MODEL: &str = "tiny.en";
/// The longest that a recording of 63 minutes may take on two cores.
const LIMIT: Duration = Duration::from_secs(40 * 60);
/// Seconds of sound in a task: the coordinator's default.
const CHUNK_S: f64 = 60.0;
const GIB: u64 = 1 << 30;
/// Between two looks at progress and memory.
const LOOK: Duration = Duration::from_millis(400);
/// Longest time in which progress must move.
const STILL: Duration = Duration::from_secs(5);
/// By what share an hour's recording may be done later when short ones come in between.
const LATER: f64 = 0.15;
/// The same for a few minutes: the short ones are a sixth of the work then, and what else the machine does is no less.
const LATER_FOR_MINUTES: f64 = 0.5;
/// By how much peaks may grow in the first hour of ten, after a tenth of that hour.
const SAME: f64 = 0.10;

#[test]
fn long_recordings_leave_room_for_others() {
    let stack = Stack::start();
    let (rounds, minutes, clip_count) = if nightly() { (183, 63.0, 10) } else { (24, 8.0, 3) };
    let long = recordings::different_english(&stack.folder().join("long.wav"), rounds);
    println!("{:.1} minutes of speech", long.seconds / 60.0);
    assert!(long.seconds >= minutes * 60.0);
    let clips = clips(stack.folder(), clip_count);
    let own_work =
        clips.iter().map(|clip| transcribe(&stack, clip).wait(LIMIT).ok().took).max().expect("there are some");
    println!("a clip of 5 s alone: at most {:.1} s", own_work.as_secs_f64());

    // Alone.
    let mut peaks = Peaks::default();
    let alone = follow(&stack, &long.path, &mut peaks, |_| {});
    assert!(alone.longest_still <= STILL, "progress stood for {:.1} s", alone.longest_still.as_secs_f64());
    let allowed = GIB + model_bytes(&stack);
    for (name, bytes) in peaks.all() {
        println!("{name}: at most {} MB", bytes / 1_000_000);
    }
    for (name, bytes) in peaks.all() {
        assert!(bytes < allowed, "{name} had {bytes} bytes in memory, more than {allowed}");
    }

    // With short ones at random moments.
    let moments = moments(alone.took, clip_count);
    let mut waiting: Vec<_> = moments.iter().copied().zip(&clips).rev().collect();
    let (mut running, mut done) = (Vec::<(Duration, Running)>::new(), Vec::new());
    let shared = follow(&stack, &long.path, &mut Peaks::default(), |so_far| {
        while let Some((moment, clip)) = waiting.pop_if(|(moment, _)| *moment <= so_far) {
            running.push((moment, transcribe(&stack, clip)));
        }
        while let Some(over) = running.iter_mut().position(|(_, clip)| !clip.runs()) {
            done.push(ended(running.swap_remove(over)));
        }
    });
    assert!(waiting.is_empty(), "the others had no chance to disturb");
    // The last ones may outlive the long one.
    done.extend(running.into_iter().map(ended));
    assert_eq!(done.len(), clip_count);
    let chunk = alone.took.div_f64(long.seconds / CHUNK_S).mul_f64(at_once(&stack));
    let bound = 2 * chunk + own_work;
    println!("a chunk of {CHUNK_S} s: {:.1} s; bound for a clip: {:.1} s", chunk.as_secs_f64(), bound.as_secs_f64());
    assert!(done.iter().all(|took| *took <= bound), "a clip took longer");
    let later = shared.took.as_secs_f64() / alone.took.as_secs_f64() - 1.0;
    println!("with the clips {:.1} % later", later * 100.0);
    let most = if nightly() { LATER } else { LATER_FOR_MINUTES };
    assert!(later <= most, "{:.1} % later than alone", later * 100.0);
    let samples = nightly().then(|| wave::read(&long.path));
    stack.stop();

    // The first hour of ten, on a stack as new as the first one was.
    let Some(samples) = samples else { return };
    let (soon, ten) = first_hour_of_ten(&samples);
    let of = |peaks: &Peaks, name| peaks.of(name).unwrap_or_else(|| panic!("{name} is missing"));
    for (name, hour) in peaks.services() {
        let [hour, soon, ten] = [hour, of(&soon, name), of(&ten, name)].map(|bytes| bytes / 1_000_000);
        println!("{name}: {hour} MB in an hour; of ten hours, {soon} MB in six minutes and {ten} MB in an hour");
    }
    // Two stacks alike differ by a quarter: which threads work at once is chance, and each keeps what it freed.
    for (name, bytes) in ten.services() {
        assert!(bytes < allowed, "{name} had {bytes} bytes in memory, more than {allowed}");
        let most = of(&soon, name) as f64 * (1.0 + SAME);
        assert!(bytes as f64 <= most, "{name} takes more memory the longer the recording goes on");
    }
}

/// How long a clip took that was submitted at this moment.
fn ended((moment, clip): (Duration, Running)) -> Duration {
    let took = clip.wait(LIMIT).ok().took;
    println!("clip at {:.0} s: {:.1} s", moment.as_secs_f64(), took.as_secs_f64());
    took
}

/// How the transcription of a long recording went.
struct Followed {
    took: Duration,
    /// Longest time in which progress did not move.
    longest_still: Duration,
}

/// Has it transcribed, and calls `meanwhile` with the time so far until it is done.
fn follow(stack: &Stack, recording: &Path, peaks: &mut Peaks, mut meanwhile: impl FnMut(Duration)) -> Followed {
    let before = stack.jobs().len();
    let start = Instant::now();
    let mut client = transcribe(stack, recording);
    let (mut moved, mut done, mut longest_still, mut still_at) = (None::<Instant>, 0.0, Duration::ZERO, 0.0);
    while client.runs() {
        meanwhile(start.elapsed());
        stack.measure(peaks);
        let jobs = stack.jobs();
        // Newest first, so the oldest of the new ones is ours.
        if let Some(job) = jobs.len().checked_sub(before + 1).and_then(|ours| jobs.get(ours)) {
            let now = job["progress_done"].as_f64().unwrap_or_default();
            let since = *moved.get_or_insert_with(Instant::now);
            if since.elapsed() > longest_still {
                (longest_still, still_at) = (since.elapsed(), done);
            }
            if now > done {
                (moved, done) = (Some(Instant::now()), now);
            }
        }
        during(LOOK, || None::<()>);
    }
    let heard = client.wait(LIMIT).ok().json();
    let took = start.elapsed();
    assert_eq!(heard["state"], "succeeded");
    let segments = heard["segments"].as_array().map_or(0, Vec::len);
    println!(
        "{segments} segments in {:.0} s; progress stood for {:.1} s at most, at {still_at:.0} s",
        took.as_secs_f64(),
        longest_still.as_secs_f64()
    );
    Followed { took, longest_still }
}

/// Peaks until six and until 63 minutes of ten hours are done.
fn first_hour_of_ten(hour: &[i16]) -> (Peaks, Peaks) {
    let stack = Stack::start();
    let path = stack.folder().join("ten hours.wav");
    let times = (10.0 * 3600.0 / wave::seconds(hour)).ceil() as u32;
    wave::write_repeated(&path, hour, times).expect("room for 1.2 GB");
    let mut peaks = Peaks::default();
    let client = transcribe(&stack, &path);
    let mut until_done = |seconds: f64| {
        until(&format!("{seconds:.0} s of ten hours are done"), LIMIT, || {
            stack.measure(&mut peaks);
            let jobs = stack.jobs();
            jobs.first().filter(|job| job["progress_done"].as_f64() >= Some(seconds)).map(|_| ())
        });
        peaks.clone()
    };
    let (soon, peaks) = (until_done(wave::seconds(hour) / 10.0), until_done(wave::seconds(hour)));
    let job = stack.jobs()[0]["id"].as_str().unwrap_or_default().to_owned();
    stack.warren(&["cancel", &job]).ok();
    client.wait(LIMIT).expect_code(1);
    stack.stop();
    (soon, peaks)
}

fn transcribe(stack: &Stack, recording: &Path) -> Running {
    stack.begin(&["transcribe", "--json", "--model", MODEL, recording.to_str().expect("a plain name")])
}

/// Stretches of 5 s of one human voice, no two the same.
fn clips(folder: &Path, count: usize) -> Vec<PathBuf> {
    let voice = wave::read(&recordings::inaugural().path);
    let rate = wave::RATE as usize;
    let clip = |number: usize| {
        let path = folder.join(format!("clip {number}.wav"));
        let start = number * (voice.len() - 5 * rate) / count;
        wave::write(&path, &voice[start..start + 5 * rate]);
        path
    };
    (0..count).map(clip).collect()
}

/// When the clips come, in order, spread by chance over the first nine tenths of `span`.
fn moments(span: Duration, count: usize) -> Vec<Duration> {
    let given = std::env::var("WARREN_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("clips by WARREN_TEST_SEED={seed}");
    let mut state = seed | 1;
    let mut chance = || {
        // xorshift64 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as f64 / u64::MAX as f64
    };
    let mut moments: Vec<_> = (0..count).map(|_| span.mul_f64(0.9 * chance())).collect();
    moments.sort();
    moments
}

/// How many chunks are worked on at once, each for so much longer.
fn at_once(stack: &Stack) -> f64 {
    let queues = stack.warren(&["queues", "--json"]).ok().json_lines();
    let queue = queues.into_iter().find(|queue| queue["kind"] == "transcribe");
    queue.and_then(|queue| queue["slots"].as_f64()).expect("a queue of chunks")
}

/// What the files of the model in use take.
fn model_bytes(stack: &Stack) -> u64 {
    let listed = stack.warren(&["models", "list", "--json"]).ok();
    let model = listed.json_lines().into_iter().find(|model| model["name"] == MODEL);
    model.and_then(|model| model["disk_bytes"].as_u64()).expect("the catalogue knows it")
}
