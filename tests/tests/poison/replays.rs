//! Row 18: many letters go back to work at a rate, once each, whatever happens meanwhile.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;
use warren_drills::StandIn;
use warren_messages::wire::JobState;
use warren_tests::{
    faults::{table::Row, world::World},
    nightly,
    wait::until,
};

use crate::number;

const MODEL: &str = "drill-0";
const RATE: f64 = 50.0;
/// Longest that it takes to fail, to be replayed, to end.
const JOB: Duration = Duration::from_secs(120);

pub(crate) fn many_letters(world: &World) -> Row {
    let letters = if nightly() { 1_000 } else { 100 };
    // Twice at once by the same name, undisturbed: the rate.
    let job = Dead::new(world, "undisturbed", letters);
    let clients = [(); 2].map(|()| job.replay("undisturbed"));
    let told: Vec<Vec<Value>> = clients.into_iter().map(|client| client.wait(JOB).ok().json_lines()).collect();
    assert_eq!(told[0], told[1], "both are told the same");
    let rate = job.rate();
    println!("    {rate:.1} letters a second");
    assert!((RATE * 0.9..=RATE * 1.1).contains(&rate), "{rate} letters a second");
    job.is_whole(None);

    // Twice at once by two names, one letter corrected before, and the leader killed in the middle.
    let job = Dead::new(world, "disturbed", letters);
    let letter = job.letters()[letters / 4].clone();
    let corrected = job.correct(&letter);
    let (one, other) = (job.replay("disturbed, one"), job.replay("disturbed, other"));
    let sent = || number(world, &job.of_replays("count(*)"));
    let before = until("a fifth is sent", JOB, || Some(sent()).filter(|sent| *sent * 5 >= letters as u64));
    let (leader, _) = world.coordinators();
    leader.signal(Signal::SIGKILL);
    println!("    {} killed after {before} of {letters}", leader.name);
    assert!(before < letters as u64, "it was to be in the middle");
    // What one of them has sent is no longer the other's to send.
    let outcomes: Vec<Value> = [one, other].into_iter().flat_map(|client| client.wait(JOB).json_lines()).collect();
    let replayed = outcomes.iter().filter(|outcome| outcome["replayed"] == true).count();
    assert_eq!(replayed, letters - 1, "each by one of the two, and one before them");
    job.is_whole(Some(corrected));
    Row { faults: 1, jobs: 2, ..Row::default() }
}

/// A job all of whose texts died of a cause that is mended by now.
struct Dead<'a> {
    world: &'a World,
    id: String,
    texts: Vec<String>,
}

impl<'a> Dead<'a> {
    fn new(world: &'a World, name: &str, letters: usize) -> Self {
        let mended = world.stack.folder().join(format!("{name} mended"));
        let texts: Vec<String> =
            (0..letters).map(|text| format!("drill:die-until {}: it is broken, {text}", mended.display())).collect();
        let job = world.runtime.block_on(async {
            let id = world.client.submit(name, MODEL, &texts).await.expect("accepted");
            world.client.ended(&id, JOB).await.expect("it ends")
        });
        assert_eq!(job.state(), JobState::Failed, "{job:?}");
        assert_eq!(job.tasks.unwrap_or_default().dead as usize, letters);
        fs::write(mended, "").expect("room for a file");
        Self { world, id: job.id, texts }
    }

    fn letters(&self) -> Vec<String> {
        let arguments = ["dlq", "list", "--json", "--limit", "500", "--job", &self.id];
        let listed = self.world.stack.warren(&arguments).ok().json_lines();
        listed.iter().map(|letter| letter["id"].as_str().expect("an id").to_owned()).collect()
    }

    fn replay(&self, name: &str) -> warren_tests::command::Running {
        let rate = format!("{RATE}/s");
        let what = ["dlq", "replay", "--json", "--job", &self.id, "--rate", &rate, "--request-id", name];
        self.world.stack.begin(&what)
    }

    /// Replays one letter with another text. Which text, and what it is now.
    fn correct(&self, letter: &str) -> (usize, String) {
        let shown = self.world.stack.warren(&["dlq", "show", "--json", letter]).ok().json();
        let body = shown["body"].as_str().expect("a text");
        let index = self.texts.iter().position(|text| body.contains(&format!("{text}\""))).expect("one of them");
        let corrected = "it is not broken any more";
        let file = self.world.stack.folder().join("corrected.json");
        fs::write(&file, body.replace(&self.texts[index], corrected)).expect("room for a file");
        let file = file.to_str().expect("a plain name");
        self.world.stack.warren(&["dlq", "replay", "--json", "--edit", file, letter]).ok();
        (index, corrected.to_owned())
    }

    /// A query over the audit of all replays of the job's letters.
    fn of_replays(&self, what: &str) -> String {
        let id = self.id.trim_start_matches("job_");
        format!(
            "SELECT {what} AS n FROM audit WHERE verb = 'replay' \
             AND subject IN (SELECT id FROM dead_letter WHERE job_id = '{id}')"
        )
    }

    /// Letters a second, by the audit.
    fn rate(&self) -> f64 {
        let of = |what: &str| number(self.world, &self.of_replays(what)) as f64;
        (of("count(*)") - 1.0) * 1_000.0 / (of("max(at_ms)") - of("min(at_ms)"))
    }

    /// Each letter was replayed once and says so, and each text has its vector.
    fn is_whole(&self, corrected: Option<(usize, String)>) {
        let (world, letters) = (self.world, self.texts.len());
        let job = until("the job succeeds", JOB, || {
            let job = world.runtime.block_on(world.client.job(&self.id)).expect("it is there");
            (job.state() == JobState::Succeeded).then_some(job)
        });
        assert_eq!(job.tasks.unwrap_or_default().done as usize, letters, "{job:?}");
        let mut texts = self.texts.clone();
        if let Some((index, text)) = corrected {
            texts[index] = text;
        }
        let model = StandIn::named(MODEL).expect("a stand-in");
        let wanted: Vec<_> = (0_u32..).zip(texts.iter().map(|text| model.vector(text))).collect();
        let vectors = world.runtime.block_on(world.client.vectors(&self.id)).expect("there");
        assert!(vectors == wanted, "other vectors");
        let id = self.id.trim_start_matches("job_");
        let count = |sql: &str| number(world, &format!("SELECT count(*) AS n FROM {sql}"));
        let all = letters as u64;
        assert_eq!(count(&format!("dead_letter WHERE job_id = '{id}'")), all, "none came back");
        until("each letter is replayed", JOB, || {
            (count(&format!("dead_letter WHERE job_id = '{id}' AND state = 'replayed'")) == all).then_some(())
        });
        let audited = ["count(*)", "count(DISTINCT subject)"].map(|what| number(world, &self.of_replays(what)));
        assert_eq!(audited, [all, all], "each letter's history has its replay, once");
        assert_eq!(count(&format!("job_event WHERE job_id = '{id}' AND event LIKE '%.redriven'")), all);
    }
}
