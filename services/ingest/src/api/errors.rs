//! Why jobs failed, counted.

use std::{cmp::Reverse, collections::BTreeMap};

use tonic::Status;
use warren_clock::UnixMillis;
use warren_jobs::fingerprint::fingerprint;
use warren_messages::{
    from_millis, to_millis,
    wire::{ErrorCause, ErrorsRequest, ErrorsResponse},
};
use warren_store::Failures;

use crate::{page::Range, parts::Parts, status::of_store};

/// `limit`.
const CAUSES: Range = Range { default: 10, most: 100 };

/// The most frequent causes, and how many jobs failed of others.
///
/// # Errors
/// `INVALID_ARGUMENT` for a limit out of range; `UNAVAILABLE` when the database is away.
pub(crate) async fn errors(parts: &Parts, request: &ErrorsRequest) -> Result<ErrorsResponse, Status> {
    let limit = CAUSES.of("limit", request.limit)? as usize;
    let since = request.since.as_ref().map_or(UnixMillis(0), |since| UnixMillis(to_millis(since)));
    let failures = parts.store.read().failures_since(since).await.map_err(|error| of_store(&error))?;
    Ok(counted(failures, limit))
}

fn counted(failures: Vec<Failures>, limit: usize) -> ErrorsResponse {
    let mut causes: BTreeMap<String, Failures> = BTreeMap::new();
    for failures in failures {
        let print = fingerprint(&failures.code, failures.kind.as_str(), &failures.message);
        match causes.get_mut(&print) {
            None => drop(causes.insert(print, failures)),
            Some(known) => {
                let jobs = known.jobs + failures.jobs;
                if failures.latest > known.latest {
                    *known = failures;
                }
                known.jobs = jobs;
            }
        }
    }
    let mut causes: Vec<Failures> = causes.into_values().collect();
    let failed = causes.iter().map(|cause| cause.jobs).sum();
    causes.sort_by_key(|cause| Reverse((cause.jobs, cause.latest)));
    let others = causes.iter().skip(limit).map(|cause| cause.jobs).sum();
    causes.truncate(limit);
    let causes = causes.into_iter().map(|cause| ErrorCause {
        error_code: cause.code,
        kind: cause.kind.as_str().to_owned(),
        message: cause.message,
        jobs: cause.jobs,
        latest: Some(from_millis(cause.latest.0)),
    });
    ErrorsResponse { causes: causes.collect(), others, failed }
}

#[cfg(test)]
mod tests {
    use warren_jobs::JobKind;

    use super::*;

    #[test]
    fn causes_that_differ_in_numbers_are_one_and_nothing_is_left_out_of_the_sum() {
        let failures = |message: &str, jobs, at| Failures {
            kind: JobKind::Embed,
            code: "WorkerLost".to_owned(),
            message: message.to_owned(),
            jobs,
            latest: UnixMillis(at),
        };
        let given = vec![failures("lost 8 times", 2, 5), failures("no room", 3, 1), failures("lost 9 times", 2, 7)];
        let found = counted(given.clone(), 1);
        let causes: Vec<_> = found.causes.iter().map(|cause| (cause.message.as_str(), cause.jobs)).collect();
        assert_eq!(causes, [("lost 9 times", 4)], "the latest message stands for all");
        assert_eq!((found.others, found.failed), (3, 7));
        assert_eq!(counted(given, 10).others, 0);
    }
}
