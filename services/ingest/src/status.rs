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
pub fn invalid(field: &str, problem: impl Into<String>) -> Status {
    let problem = problem.into();
    let mut details = ErrorDetails::with_bad_request_violation(field, problem.clone());
    details.set_error_info(Code::InputInvalid.as_str(), DOMAIN, HashMap::new());
    Status::with_error_details(Grpc::InvalidArgument, format!("{field}: {problem}"), details)
}

/// No such thing.
pub fn not_found(what: &str, id: &str) -> Status {
    let details = ErrorDetails::with_resource_info(what, id, "", "it never existed or was deleted");
    Status::with_error_details(Grpc::NotFound, format!("no {what} `{id}`"), details)
}

/// The same request id was used for something else.
pub fn reused_request_id(request_id: &str) -> Status {
    let details = ErrorDetails::with_error_info("RequestIdReused", DOMAIN, HashMap::new());
    let message = format!("request_id `{request_id}` was used for another request; use a new one");
    Status::with_error_details(Grpc::AlreadyExists, message, details)
}

/// A part of the platform is away or full; nothing was changed.
pub fn busy(code: Code, message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::with_error_info(code.as_str(), DOMAIN, HashMap::new());
    details.set_retry_info(Some(RETRY_AFTER));
    let grpc = match code {
        Code::InsufficientDisk => Grpc::ResourceExhausted,
        _ => Grpc::Unavailable,
    };
    Status::with_error_details(grpc, message, details)
}

/// A fault of any crate, as a caller sees it.
pub fn of_fault(fault: &Fault) -> Status {
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
pub fn of_store(error: &StoreError) -> Status {
    of_fault(&error.fault())
}

/// Trouble with object storage.
pub fn of_blob(error: &BlobError) -> Status {
    of_fault(&error.fault())
}
