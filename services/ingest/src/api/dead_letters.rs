//! Dead letters: list, show, replay.

use tonic::{Request, Response, Status};
use warren_messages::{
    from_millis,
    ids::{JobId, TaskId},
    wire::{
        self, DeadLetterState, ListDeadLettersRequest, ListDeadLettersResponse, ReplayDeadLettersRequest,
        ReplayDeadLettersResponse, ShowDeadLetterRequest, dead_letters_server,
    },
};
use warren_store::{DeadLetter, LetterFilter, LetterState, PageKey};

use super::replay;
use crate::{
    auth::caller,
    page::{self, PAGE},
    parts::Parts,
    shown::number,
    status::{invalid, not_found, of_store},
};

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
        let filter = filter(&request)?;
        let size = PAGE.of("page_size", request.page_size)? as usize;
        let bound = format!("{filter:?}");
        let after: Option<PageKey<String>> = page::after(&bound, &request.page_token)?;
        let page = self.0.store.read().letters(&filter, after.as_ref(), size as u64 + 1).await;
        let mut page = page.map_err(|error| of_store(&error))?;
        let more = page.letters.len() > size;
        page.letters.truncate(size);
        let next = page.letters.last().filter(|_| more).map(|last| page::token(&bound, &last.page_key()));
        Ok(Response::new(ListDeadLettersResponse {
            letters: page.letters.iter().map(shown).collect(),
            next_page_token: next.unwrap_or_default(),
            total: page.total,
        }))
    }

    async fn show(&self, request: Request<ShowDeadLetterRequest>) -> Result<Response<wire::DeadLetter>, Status> {
        caller(&request)?.must_operate()?;
        let id = &request.get_ref().id;
        let letter = self.0.store.read().letter(id).await.map_err(|error| of_store(&error))?;
        let letter = letter.ok_or_else(|| not_found("dead letter", id))?;
        let shown = shown(&letter);
        let DeadLetter { letter, .. } = letter;
        Ok(Response::new(wire::DeadLetter {
            body: letter.body,
            content_type: letter.content_type,
            headers: letter.headers.into_iter().collect(),
            ..shown
        }))
    }

    async fn replay(
        &self,
        request: Request<ReplayDeadLettersRequest>,
    ) -> Result<Response<ReplayDeadLettersResponse>, Status> {
        let caller = caller(&request)?;
        caller.must_operate()?;
        Ok(Response::new(replay::replay(&self.0, &caller, request.into_inner()).await?))
    }
}

fn filter(request: &ListDeadLettersRequest) -> Result<LetterFilter, Status> {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let state = DeadLetterState::try_from(request.state);
    let states = match state.map_err(|_| invalid("state", format!("{} is no state of a letter", request.state)))? {
        DeadLetterState::Unspecified => LetterFilter::default().states,
        DeadLetterState::Dead => vec![LetterState::Dead],
        DeadLetterState::Replaying => vec![LetterState::Replaying],
        DeadLetterState::Replayed => vec![LetterState::Replayed],
        DeadLetterState::Void => vec![LetterState::Void],
    };
    let job = match request.job.as_str() {
        "" => None,
        id => Some(id.parse::<JobId>().map_err(|error| invalid("job", error.to_string()))?.0),
    };
    Ok(LetterFilter {
        states,
        class: given(&request.class),
        fingerprint: given(&request.fingerprint),
        job,
        replay_request: None,
    })
}

/// A letter without its body.
fn shown(row: &DeadLetter) -> wire::DeadLetter {
    let letter = &row.letter;
    let state = match row.state {
        LetterState::Dead => DeadLetterState::Dead,
        LetterState::Replaying => DeadLetterState::Replaying,
        LetterState::Replayed => DeadLetterState::Replayed,
        LetterState::Void => DeadLetterState::Void,
    };
    wire::DeadLetter {
        id: letter.id.clone(),
        state: state.into(),
        queue: letter.queue.clone(),
        class: letter.class.clone(),
        cause: letter.cause.clone(),
        fingerprint: letter.fingerprint.clone(),
        job: letter.job_id.map(|id| JobId(id).to_string()).unwrap_or_default(),
        task: letter.task_id.map(|id| TaskId(id).to_string()).unwrap_or_default(),
        first_seen: Some(from_millis(row.first_seen.0)),
        last_seen: Some(from_millis(row.last_seen.0)),
        replays: number(row.replays),
        void_reason: row.void_reason.clone().unwrap_or_default(),
        size_bytes: i64::try_from(letter.body.len()).unwrap_or(i64::MAX),
        ..Default::default()
    }
}
