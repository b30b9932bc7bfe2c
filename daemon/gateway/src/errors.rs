//! What goes wrong, as S3 says it: programs branch on the code, and repeat what is answered with 503.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::PutError;
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use s3s::{S3Error, S3ErrorCode};

/// After how many seconds a program should try again: longer than most failovers.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An error with a message of its own.
pub fn error(code: S3ErrorCode, message: impl Into<String>) -> S3Error {
    S3Error::with_message(code, message.into())
}

/// Try again a moment later.
pub fn slow_down(message: impl Into<String>) -> S3Error {
    let mut error = error(S3ErrorCode::SlowDown, message);
    error.set_status_code(StatusCode::SERVICE_UNAVAILABLE);
    error.set_headers(HeaderMap::from_iter([(header::RETRY_AFTER, RETRY_AFTER)]));
    error
}

/// The cluster did not do it.
pub fn of_cluster(failed: ClusterError) -> S3Error {
    match failed {
        ClusterError::Refused(refusal) => of_refusal(refusal),
        ClusterError::Unreachable { .. } => slow_down(failed.to_string()),
        ClusterError::Untrusted(reason) => error(S3ErrorCode::AccessDenied, reason),
        ClusterError::Unexpected { .. } => error(S3ErrorCode::InternalError, failed.to_string()),
    }
}

fn of_refusal(Refusal { code, message }: Refusal) -> S3Error {
    match code {
        RefusalCode::NotFound => error(S3ErrorCode::NoSuchKey, message),
        RefusalCode::Invalid => error(S3ErrorCode::InvalidArgument, message),
        RefusalCode::NotNewest => error(S3ErrorCode::PreconditionFailed, message),
        RefusalCode::Forbidden => error(S3ErrorCode::AccessDenied, message),
        RefusalCode::Conflict => error(S3ErrorCode::OperationAborted, message),
        RefusalCode::Unsupported | RefusalCode::Internal => error(S3ErrorCode::InternalError, message),
        RefusalCode::NotCoordinator { .. }
        | RefusalCode::NoQuorum
        | RefusalCode::Busy
        | RefusalCode::UploadOver
        | RefusalCode::StaleTerm
        | RefusalCode::Unknown
        | RefusalCode::InProgress { .. } => slow_down(message),
    }
}

/// Bytes were not stored.
pub fn of_put(failed: PutError) -> S3Error {
    match failed {
        PutError::Cluster(failed) => of_cluster(failed),
        PutError::TooLarge { .. } => error(S3ErrorCode::EntityTooLarge, failed.to_string()),
        PutError::NoHolder { .. } | PutError::Stalled(_) | PutError::UploadOver { .. } => {
            slow_down(failed.to_string())
        }
        PutError::Local { .. } | PutError::Changed { .. } => {
            error(S3ErrorCode::InternalError, failed.to_string())
        }
    }
}

/// A reply that does not fit the request.
pub fn unexpected() -> S3Error {
    error(
        S3ErrorCode::InternalError,
        "the cluster's reply does not fit the request: it may run another version",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_answered_with_a_503_that_programs_repeat() {
        for code in [RefusalCode::NoQuorum, RefusalCode::Busy, RefusalCode::UploadOver, RefusalCode::Unknown]
        {
            let error = of_cluster(Refusal::new(code, "x").into());
            assert_eq!(
                (error.code(), error.status_code()),
                (&S3ErrorCode::SlowDown, Some(StatusCode::SERVICE_UNAVAILABLE))
            );
            assert!(error.headers().unwrap().contains_key(header::RETRY_AFTER));
        }
        let lost = of_cluster(Refusal::new(RefusalCode::NotNewest, "x").into());
        assert_eq!(lost.status_code(), Some(StatusCode::PRECONDITION_FAILED));
    }
}
