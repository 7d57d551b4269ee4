//! What each problem is called in gRPC.

use tonic::{Code as GrpcCode, Status};

use crate::problem::{Code, Problem};

/// Makes a status of a problem, which is logged if it is a fault of ours.
pub(super) fn status(problem: &Problem) -> Status {
    let code = match problem.kind() {
        Code::InvalidJson
        | Code::InvalidBody
        | Code::InvalidParameter
        | Code::InvalidPageToken
        | Code::UnsupportedMediaType
        | Code::InvalidRequest
        | Code::DatasetInvalid
        | Code::IdempotencyMismatch => GrpcCode::InvalidArgument,
        Code::Unauthenticated => GrpcCode::Unauthenticated,
        Code::Forbidden => GrpcCode::PermissionDenied,
        Code::NotFound => GrpcCode::NotFound,
        Code::UnknownRoute | Code::MethodNotAllowed => GrpcCode::Unimplemented,
        Code::AlreadyExists => GrpcCode::AlreadyExists,
        Code::Conflict => GrpcCode::FailedPrecondition,
        Code::IdempotencyInFlight => GrpcCode::Aborted,
        Code::TooLarge | Code::TooManyRequests => GrpcCode::ResourceExhausted,
        Code::Internal => GrpcCode::Internal,
        Code::Unavailable | Code::Overloaded | Code::EndpointNotReady => GrpcCode::Unavailable,
        Code::Timeout => GrpcCode::DeadlineExceeded,
    };
    problem.log();
    Status::new(code, problem.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_problem_is_ok_or_unknown() {
        for &code in Code::ALL {
            let found = status(&Problem::new(code, "x")).code();
            assert!(
                !matches!(found, GrpcCode::Ok | GrpcCode::Unknown),
                "{code:?} is {found:?}"
            );
        }
    }
}
