//! Every service is killed while a recording is worked on: the job succeeds with the text of an undisturbed run.

use std::time::Duration;

use serde_json::Value;
use warren_recordings::error_rate;
use warren_tests::{
    nightly, recordings,
    stack::{Stack, Wishes},
    wait::until,
};

/// Who is killed when so much of the work is done.
const KILLS: [(f64, &str); 5] = [
    (0.15, "transcription"),
    (0.30, "coordinator"),
    (0.45, "ingest"),
    (0.60, "batch-embedding"),
    (0.75, "transcription"),
];
/// With all the restarts, on a slow machine.
const LIMIT: Duration = Duration::from_secs(590);

#[test]
fn a_job_outlives_every_service() {
    // Small tasks, so that the kills fall into different ones.
    let settings = "[coordinator.release]\ntask_audio_s = 30\n".to_owned();
    let stack = Stack::with(&Wishes { settings, ..Wishes::default() });
    let rounds = if nightly() { 31 } else { 10 };
    let recording = recordings::long_english(&stack.folder().join("long.wav"), rounds);
    println!("{:.0} s of speech", recording.seconds);
    let file = recording.path.to_str().expect("a plain name");
    let arguments = ["transcribe", "--json", "--model", "tiny.en", "--index", file];

    let undisturbed = stack.warren_within(LIMIT, &arguments, "").ok();
    println!("undisturbed: {:.1} s", undisturbed.took.as_secs_f64());
    let expected = undisturbed.json();
    let errors = error_rate::words(&recording.text, expected["text"].as_str().unwrap_or_default());
    println!("{} segments, {:.1} % word errors", segments(&expected), errors * 100.0);
    assert!(segments(&expected) > if nightly() { 100 } else { 20 });
    let first = stack.jobs().len();

    let client = stack.begin(&arguments);
    for (part, victim) in KILLS {
        let done =
            until(&format!("{part} of the work"), LIMIT, || progress(&stack, first).filter(|done| *done >= part));
        assert!(done < 1.0, "over before {victim} could be killed; more speech is needed");
        println!("{victim} killed at {:.0} %", done * 100.0);
        stack.kill(victim);
    }
    let disturbed = client.wait(LIMIT).ok();
    println!("disturbed: {:.1} s", disturbed.took.as_secs_f64());
    let heard = disturbed.json();
    assert_eq!(heard["state"], "succeeded");
    assert_eq!(heard["text"], expected["text"]);
    assert_eq!(heard["segments"], expected["segments"]);

    stack.until_ready();
    for service in stack.ps() {
        let kills = KILLS.iter().filter(|(_, victim)| *victim == service.name).count() as u64;
        assert_eq!(service.restarts, kills, "{service:?}");
    }
    assert_eq!(stack.dead_letters(), Vec::<Value>::new());
    stack.stop();
}

fn segments(heard: &Value) -> usize {
    heard["segments"].as_array().map_or(0, Vec::len)
}

/// How much of the newest job is done, once there is one more than `before`.
fn progress(stack: &Stack, before: usize) -> Option<f64> {
    let jobs = stack.jobs();
    let newest = (jobs.len() > before).then(|| &jobs[0])?;
    if newest["state"] == "succeeded" {
        return Some(1.0);
    }
    let (done, planned) = (newest["progress_done"].as_f64()?, newest["progress_planned"].as_f64()?);
    (planned > 0.0).then(|| (done / planned).min(0.999))
}
