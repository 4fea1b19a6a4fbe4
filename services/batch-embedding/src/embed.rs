//! Task `embed`: texts in, unit vectors out.

use warren_blob::{Blobs, Key};
use warren_broker::{Delay, Delivery, Handler};
use warren_clock::UnixMillis;
use warren_drills::StandIn;
use warren_fault::{Cause, Code, Fault};
use warren_jobs::{TaskKind, retry::RetryPolicy};
use warren_messages::wire::{self, embedded::Vectors, task::Work, task_report::Report};
use warren_telemetry::metrics;
use warren_worker::{Desk, Engine, Hand, Load, Stopped, deadline, wrong_kind};

use crate::{
    encoder::Encoder,
    texts::texts,
    vectors::{MAX_INLINE, to_bytes},
};

/// Handles queue `warren.task.embed`.
pub(crate) struct Embed {
    desk: Desk,
    blobs: Blobs,
    engine: Engine<Encoder>,
}

impl Embed {
    /// A handler with these parts.
    pub(crate) fn new(desk: Desk, blobs: Blobs, engine: Engine<Encoder>) -> Self {
        Self { desk, blobs, engine }
    }

    async fn embed(&self, work: &wire::EmbedTask, hand: &Hand) -> Result<Report, Stopped> {
        let model = self.engine.model(&work.model)?;
        let texts = texts(work, &self.blobs, hand).await?;
        let count = texts.len();
        if StandIn::named(&model.name).is_some()
            && let Some(why) = texts.iter().find_map(|text| StandIn::death(text))
        {
            return Err(Fault::permanent(Code::Internal, why).into());
        }
        let longest = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
        let load = Load { rows: count, length: u32::try_from(longest).unwrap_or(u32::MAX) };
        let vectors = self.engine.run(&model, hand, load, move |encoder, gate| encoder.embed(&texts, gate));
        let (bytes, dimensions) = to_bytes(&vectors.await?, count)?;
        hand.task().step("store", count as f64);
        metrics::TEXTS.add(count as f64, &[("model", &model.name)]);
        let vectors = if bytes.len() <= MAX_INLINE {
            Vectors::Inline(bytes.to_vec())
        } else {
            // A key of its own for each run: whoever loses a race leaves an object that is swept.
            let key = Key::result(hand.task_id, hand.dispatch(), self.desk.clock().new_id());
            let stored = hand.unless_dropped(self.blobs.put_bytes(&key, bytes)).await?;
            warren_drills::passing("worker.result-stored");
            Vectors::Object(wire::ResultObject {
                key: key.to_string(),
                size_bytes: i64::try_from(stored.size).unwrap_or(i64::MAX),
                sha256: stored.sha256,
            })
        };
        Ok(Report::Embedded(wire::Embedded {
            model: work.model.clone(),
            dimensions,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            vectors: Some(vectors),
        }))
    }
}

impl Handler<wire::Task> for Embed {
    async fn handle(&self, task: wire::Task, delivery: Delivery) -> Result<(), Fault> {
        let Some(Work::Embed(work)) = &task.work else {
            return Err(wrong_kind(&task, TaskKind::Embed));
        };
        let hand = self.desk.take(&task, &delivery)?;
        self.desk.attend(&hand, self.embed(work, &hand)).await
    }

    async fn delayed(&self, task: &wire::Task, delivery: &Delivery, delay: &Delay, cause: &Cause) -> Result<(), Fault> {
        self.desk.announce(task, delivery, delay, cause).await
    }

    fn deadline(&self, task: &wire::Task) -> Option<UnixMillis> {
        deadline(task)
    }

    fn policy(&self) -> RetryPolicy {
        self.desk.policy()
    }
}
