//! Dead letters: list, group, count, show, replay, discard, put back.

mod history;
mod put_away;
mod replay;
mod select;

use tonic::{Request, Response, Status};
use warren_messages::{
    from_millis,
    ids::{JobId, TaskId},
    routes::DEAD_QUEUE,
    wire::{
        self, DeadLetterCount, DeadLetterGroup, DeadLetterGroupsRequest, DeadLetterGroupsResponse, DeadLetterState,
        DeadLetterStats, DeadLetterStatsRequest, DiscardDeadLettersRequest, DiscardDeadLettersResponse,
        ImportDeadLettersRequest, ImportDeadLettersResponse, ListDeadLettersRequest, ListDeadLettersResponse,
        ReplayDeadLettersRequest, ReplayDeadLettersResponse, ShowDeadLetterRequest, dead_letters_server,
    },
};
use warren_store::{DeadLetter, LetterFilter, LetterState, PageKey};

use crate::{
    auth::caller,
    page::{self, PAGE},
    parts::Parts,
    shown::number,
    status::{invalid, not_found, of_store},
};

/// Groups in one answer.
const GROUPS: u64 = 500;
/// Letters on a page with bodies.
const WITH_BODIES: u32 = 20;

/// Service `warren.v1.DeadLetters`.
pub(crate) struct DeadLetters(pub(crate) Parts);

#[tonic::async_trait]
impl dead_letters_server::DeadLetters for DeadLetters {
    async fn list(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        caller(&request)?.must_operate()?;
        let request = request.into_inner();
        let filter = select::filter(request.filter.as_ref(), &LetterFilter::default().states)?;
        let size = match request.page_size {
            size if !request.bodies => PAGE.of("page_size", size)?,
            0 => WITH_BODIES,
            size if size <= WITH_BODIES => size,
            size => return Err(invalid("page_size", format!("must be at most {WITH_BODIES} with bodies, is {size}"))),
        } as usize;
        let bound = format!("{filter:?}");
        let after: Option<PageKey<String>> = page::after(&bound, &request.page_token)?;
        let page = self.0.store.read().letters(&filter, after.as_ref(), size as u64 + 1).await;
        let mut page = page.map_err(|error| of_store(&error))?;
        let more = page.letters.len() > size;
        page.letters.truncate(size);
        let next = page.letters.last().filter(|_| more).map(|last| page::token(&bound, &last.page_key()));
        let shown = if request.bodies { whole } else { shown };
        Ok(Response::new(ListDeadLettersResponse {
            letters: page.letters.iter().map(shown).collect(),
            next_page_token: next.unwrap_or_default(),
            total: page.total,
        }))
    }

    async fn groups(
        &self,
        request: Request<DeadLetterGroupsRequest>,
    ) -> Result<Response<DeadLetterGroupsResponse>, Status> {
        caller(&request)?.must_operate()?;
        let filter = select::filter(request.get_ref().filter.as_ref(), &LetterFilter::default().states)?;
        let read = self.0.store.read();
        let groups = read.letter_groups(&filter, GROUPS).await.map_err(|error| of_store(&error))?;
        let letters = read.count_letters(&filter).await.map_err(|error| of_store(&error))?;
        let groups = groups.into_iter().map(|group| DeadLetterGroup {
            fingerprint: group.fingerprint,
            letters: group.letters,
            parked: group.parked,
            jobs: group.jobs,
            class: group.class,
            queue: group.queue,
            kind: group.kind,
            cause: group.cause,
            first_seen: Some(from_millis(group.first_seen.0)),
            last_seen: Some(from_millis(group.last_seen.0)),
        });
        Ok(Response::new(DeadLetterGroupsResponse { groups: groups.collect(), letters }))
    }

    async fn stats(&self, request: Request<DeadLetterStatsRequest>) -> Result<Response<DeadLetterStats>, Status> {
        caller(&request)?.must_operate()?;
        let read = self.0.store.read();
        let counts = read.letter_counts().await.map_err(|error| of_store(&error))?;
        let in_queue = read.letters_in_queue().await.map_err(|error| of_store(&error))?;
        let queues = self.0.broker.queues().await;
        let in_broker = queues.ok().and_then(|queues| queues.into_iter().find(|queue| queue.name == DEAD_QUEUE));
        let counts = counts.into_iter().map(|count| DeadLetterCount {
            state: of_state(count.state).into(),
            class: count.class,
            queue: count.queue,
            letters: count.letters,
            size_bytes: i64::try_from(count.bytes).unwrap_or(i64::MAX),
            oldest: Some(from_millis(count.oldest.0)),
        });
        let in_broker = in_broker.map(|queue| queue.messages);
        Ok(Response::new(DeadLetterStats { counts: counts.collect(), in_queue, in_broker }))
    }

    async fn show(&self, request: Request<ShowDeadLetterRequest>) -> Result<Response<wire::DeadLetter>, Status> {
        caller(&request)?.must_operate()?;
        let id = &request.get_ref().id;
        let read = self.0.store.read();
        let letter = read.letter(id).await.map_err(|error| of_store(&error))?;
        let letter = letter.ok_or_else(|| not_found("dead letter", id))?;
        let history = history::of(&read, &letter).await.map_err(|error| of_store(&error))?;
        Ok(Response::new(wire::DeadLetter { history, ..whole(&letter) }))
    }

    async fn replay(
        &self,
        request: Request<ReplayDeadLettersRequest>,
    ) -> Result<Response<ReplayDeadLettersResponse>, Status> {
        let caller = caller(&request)?;
        caller.must_operate()?;
        Ok(Response::new(replay::replay(&self.0, &caller, request.into_inner()).await?))
    }

    async fn discard(
        &self,
        request: Request<DiscardDeadLettersRequest>,
    ) -> Result<Response<DiscardDeadLettersResponse>, Status> {
        let caller = caller(&request)?;
        caller.must_operate()?;
        Ok(Response::new(put_away::discard(&self.0, &caller, request.into_inner()).await?))
    }

    async fn import(
        &self,
        request: Request<ImportDeadLettersRequest>,
    ) -> Result<Response<ImportDeadLettersResponse>, Status> {
        let caller = caller(&request)?;
        caller.must_operate()?;
        Ok(Response::new(put_away::import(&self.0, &caller, request.into_inner()).await?))
    }
}

const fn of_state(state: LetterState) -> DeadLetterState {
    match state {
        LetterState::Dead => DeadLetterState::Dead,
        LetterState::Parked => DeadLetterState::Parked,
        LetterState::Replaying => DeadLetterState::Replaying,
        LetterState::Replayed => DeadLetterState::Replayed,
        LetterState::Void => DeadLetterState::Void,
        LetterState::Discarded => DeadLetterState::Discarded,
        LetterState::Purged => DeadLetterState::Purged,
    }
}

/// A letter without its body.
fn shown(row: &DeadLetter) -> wire::DeadLetter {
    let letter = &row.letter;
    wire::DeadLetter {
        id: letter.id.clone(),
        state: of_state(row.state).into(),
        queue: letter.queue.clone(),
        class: letter.class.clone(),
        cause: letter.cause.clone(),
        fingerprint: letter.fingerprint.clone(),
        job: letter.job_id.map(|id| JobId(id).to_string()).unwrap_or_default(),
        task: letter.task_id.map(|id| TaskId(id).to_string()).unwrap_or_default(),
        first_seen: Some(from_millis(row.first_seen.0)),
        last_seen: Some(from_millis(row.last_seen.0)),
        replays: number(row.replays),
        void_reason: row.reason.clone().unwrap_or_default(),
        size_bytes: i64::try_from(letter.body.len()).unwrap_or(i64::MAX),
        kind: letter.kind.clone(),
        dispatch: number(letter.dispatch.unwrap_or(0)),
        replay_of: letter.replay_of.clone().unwrap_or_default(),
        ..Default::default()
    }
}

/// A letter with its body.
fn whole(row: &DeadLetter) -> wire::DeadLetter {
    wire::DeadLetter {
        body: row.letter.body.clone(),
        content_type: row.letter.content_type.clone(),
        headers: row.letter.headers.clone().into_iter().collect(),
        ..shown(row)
    }
}
