//! Errors as callers see them: a gRPC status with the documented code in `ErrorInfo.reason`.

use std::{collections::HashMap, time::Duration};

use tonic::{Code as Grpc, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use warren_blob::BlobError;
use warren_fault::{Code, Fault};
use warren_store::StoreError;

/// Domain of every `ErrorInfo`.
const DOMAIN: &str = "warren";

/// When a caller should look again after trouble of the platform.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A request that names something wrong: the field, and what to do.
pub(crate) fn invalid(field: &str, problem: impl Into<String>) -> Status {
    refused(field, Code::InputInvalid, problem)
}

/// A request that cannot be met as it is, with the documented code that says why.
pub(crate) fn refused(field: &str, code: Code, problem: impl Into<String>) -> Status {
    let problem = problem.into();
    let mut details = ErrorDetails::with_bad_request_violation(field, problem.clone());
    details.set_error_info(code.as_str(), DOMAIN, HashMap::new());
    let grpc = if code == Code::ModelUnknown { Grpc::NotFound } else { Grpc::InvalidArgument };
    Status::with_error_details(grpc, format!("{field}: {problem}"), details)
}

/// What arrived is not what was announced; nothing was kept.
pub(crate) fn differs(field: &str, problem: impl Into<String>) -> Status {
    let problem = problem.into();
    let mut details = ErrorDetails::with_bad_request_violation(field, problem.clone());
    details.set_error_info(Code::BlobDamaged.as_str(), DOMAIN, HashMap::new());
    Status::with_error_details(Grpc::DataLoss, format!("{field}: {problem}"), details)
}

/// As much is going on already as there is room for; nothing was read.
pub(crate) fn full(message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::with_error_info("Busy", DOMAIN, HashMap::new());
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Grpc::ResourceExhausted, message, details)
}

/// No such thing.
pub(crate) fn not_found(what: &str, id: &str) -> Status {
    let details = ErrorDetails::with_resource_info(what, id, "", "it never existed or was deleted");
    Status::with_error_details(Grpc::NotFound, format!("no {what} `{id}`"), details)
}

/// The same request id was used for something else.
pub(crate) fn reused_request_id(request_id: &str) -> Status {
    let details = ErrorDetails::with_error_info("RequestIdReused", DOMAIN, HashMap::new());
    let message = format!("request_id `{request_id}` was used for another request; use a new one");
    Status::with_error_details(Grpc::AlreadyExists, message, details)
}

/// A part of the platform is away or full; nothing was changed.
pub(crate) fn busy(code: Code, message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::with_error_info(code.as_str(), DOMAIN, HashMap::new());
    details.set_retry_info(Some(RETRY_AFTER));
    let grpc = match code {
        Code::InsufficientDisk => Grpc::ResourceExhausted,
        _ => Grpc::Unavailable,
    };
    Status::with_error_details(grpc, message, details)
}

/// The platform is there and takes no more for now; nothing was read or changed.
pub(crate) fn pressed(code: Code, message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::with_error_info(code.as_str(), DOMAIN, HashMap::new());
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Grpc::ResourceExhausted, message, details)
}

/// The job is not in a state in which this can be done.
pub(crate) fn not_now(message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info("WrongState", DOMAIN, HashMap::new());
    Status::with_error_details(Grpc::FailedPrecondition, message, details)
}

/// A fault of any crate, as a caller sees it.
pub(crate) fn of_fault(fault: &Fault) -> Status {
    let cause = fault.cause();
    match (fault, cause.code) {
        (Fault::Retryable(_) | Fault::RetryLater { .. }, code) => busy(code, cause.message.clone()),
        (Fault::Permanent(_), code) => {
            let grpc = match code {
                Code::ModelUnknown => Grpc::NotFound,
                Code::BlobDamaged => Grpc::DataLoss,
                code if code.is_input() => Grpc::InvalidArgument,
                _ => Grpc::Internal,
            };
            let details = ErrorDetails::with_error_info(code.as_str(), DOMAIN, HashMap::new());
            Status::with_error_details(grpc, cause.message.clone(), details)
        }
    }
}

/// Trouble with the database.
pub(crate) fn of_store(error: &StoreError) -> Status {
    of_fault(&error.fault())
}

/// Trouble with object storage.
pub(crate) fn of_blob(error: &BlobError) -> Status {
    of_fault(&error.fault())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_trouble_says_when_to_come_back() {
        let status = of_store(&StoreError::Busy { reason: "a writer".to_owned() });
        assert_eq!(status.code(), Grpc::Unavailable);
        let details = status.get_error_details();
        assert_eq!(details.error_info().expect("a code").reason, "StoreUnavailable");
        assert_eq!(details.retry_info().expect("a time").retry_delay, Some(RETRY_AFTER));
    }

    #[test]
    fn a_bad_field_is_named_for_people_and_programs() {
        let status = invalid("transcribe.media", "is required");
        assert_eq!((status.code(), status.message()), (Grpc::InvalidArgument, "transcribe.media: is required"));
        let details = status.get_error_details();
        assert_eq!(details.bad_request().expect("fields").field_violations[0].field, "transcribe.media");
        assert_eq!(details.error_info().expect("a code").reason, "InputInvalid");
    }

    #[test]
    fn a_defect_is_no_fault_of_the_caller() {
        let status = of_store(&StoreError::corrupt("job.state: `paused`"));
        assert_eq!(status.code(), Grpc::Internal);
        assert_eq!(of_fault(&Fault::permanent(Code::ModelUnknown, "no model")).code(), Grpc::NotFound);
    }
}
