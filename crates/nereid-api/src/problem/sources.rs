//! What each error from below means to a client.

use nereid_core::{Violations, engine::EngineError};
use nereid_objects::ObjectError;
use nereid_store::{ResourceKind, StoreError};

use super::{Code, Problem};

impl From<StoreError> for Problem {
    fn from(e: StoreError) -> Self {
        let detail = e.to_string();
        match e {
            StoreError::NotFound { .. } => Self::new(Code::NotFound, detail),
            StoreError::AlreadyExists { .. } => Self::new(Code::AlreadyExists, detail),
            StoreError::Conflict { code, .. } => Self::new(Code::Conflict, detail).coded(code),
            StoreError::IdempotencyInFlight => Self::new(Code::IdempotencyInFlight, detail),
            StoreError::IdempotencyMismatch => Self::new(Code::IdempotencyMismatch, detail),
            e if e.is_unavailable() => Self::unavailable(e),
            e => Self::internal(e),
        }
    }
}

/// Makes the answer to a body field that names something that does not exist, 404 otherwise.
pub(crate) fn reference(
    kinds: &'static [ResourceKind],
    pointer: &str,
) -> impl FnOnce(StoreError) -> Problem {
    move |e| match &e {
        StoreError::NotFound { kind, .. } if kinds.contains(kind) => {
            Problem::violation(pointer, "not_found", e.to_string())
        }
        _ => Problem::from(e),
    }
}

impl From<ObjectError> for Problem {
    fn from(e: ObjectError) -> Self {
        match e {
            e @ (ObjectError::Unavailable { .. } | ObjectError::InvalidCredentials { .. }) => {
                Self::unavailable(e)
            }
            ObjectError::PreconditionFailed { .. } => {
                Self::new(Code::Conflict, e.to_string()).coded("object_changed")
            }
            e => Self::internal(e),
        }
    }
}

/// Makes the answer to an object that a client named and that cannot be read.
pub(crate) fn client_object(pointer: &str) -> impl FnOnce(ObjectError) -> Problem {
    move |e| match &e {
        ObjectError::NoSuchBucket { .. } | ObjectError::NoSuchKey { .. } => {
            Problem::violation(pointer, "not_found", e.to_string())
        }
        ObjectError::AccessDenied { .. } => {
            Problem::violation(pointer, "access_denied", e.to_string())
        }
        ObjectError::TooLarge { .. } => Problem::violation(pointer, "too_large", e.to_string()),
        ObjectError::WrongRegion { .. } | ObjectError::Other { .. } => {
            Problem::violation(pointer, "unreadable", e.to_string())
        }
        _ => Problem::from(e),
    }
}

impl From<EngineError> for Problem {
    fn from(e: EngineError) -> Self {
        match e {
            EngineError::InvalidData(data) => {
                let mut violations = Violations::default();
                let pointer = format!("/files/{}", data.file.as_str());
                violations.push(pointer, data.code, data.to_string());
                Self::with_violations(Code::DatasetInvalid, violations)
            }
            EngineError::InvalidInput(detail) => Self::new(Code::InvalidRequest, detail),
            EngineError::Io { source, .. } if changed_object(&source).is_some() => {
                let object = changed_object(&source).unwrap_or("A file");
                let detail =
                    format!("{object} was overwritten while it was read; register it again.");
                Self::new(Code::Conflict, detail).coded("object_changed")
            }
            e @ EngineError::Io { .. } => Self::unavailable(e),
            e => Self::internal(e),
        }
    }
}

fn changed_object(e: &std::io::Error) -> Option<&str> {
    match e.get_ref().and_then(|e| e.downcast_ref::<ObjectError>()) {
        Some(ObjectError::PreconditionFailed { target }) => Some(target),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http::header;
    use nereid_core::{datasets::FileRole, engine::DataError};

    use super::*;

    #[test]
    fn store_errors_keep_their_codes_and_hide_the_inside() {
        let conflict = StoreError::Conflict {
            code: "in_use",
            what: "endpoint digits serves it".to_owned(),
        };
        let problem = Problem::from(conflict);
        assert_eq!((problem.status().as_u16(), problem.code()), (409, "in_use"));
        let corrupt = StoreError::Corrupt {
            table: "jobs",
            column: "spec",
            id: "7".to_owned(),
            source: "secret".into(),
        };
        let problem = Problem::from(corrupt);
        assert_eq!(problem.status().as_u16(), 500);
        assert!(!problem.detail().contains("secret") && !problem.detail().contains("spec"));
        let not_found = StoreError::NotFound {
            kind: ResourceKind::Job,
            id: "x".to_owned(),
        };
        assert_eq!(Problem::from(not_found).status().as_u16(), 404);
    }

    #[test]
    fn a_missing_reference_is_a_mistake_in_the_body() {
        let missing = || StoreError::NotFound {
            kind: ResourceKind::Dataset,
            id: "x".to_owned(),
        };
        let problem = reference(&[ResourceKind::Dataset], "/spec/dataset")(missing());
        assert_eq!(problem.status().as_u16(), 422);
        assert_eq!(problem.errors()[0].pointer, "/spec/dataset");
        assert_eq!(
            reference(&[ResourceKind::Job], "/x")(missing())
                .status()
                .as_u16(),
            404
        );
    }

    #[test]
    fn unreadable_storage_can_be_asked_again() {
        let away = ObjectError::Unavailable {
            target: "s3://b/k".to_owned(),
            reason: "reset".to_owned(),
            source: None,
        };
        let response = Problem::from(away).into_response();
        assert_eq!(response.status().as_u16(), 503);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn invalid_data_names_row_and_column() {
        let data = DataError {
            file: FileRole::Data,
            code: "not_a_number",
            row: Some(3),
            column: Some("age".to_owned()),
            detail: "\"x\" is no number".to_owned(),
        };
        let problem = Problem::from(EngineError::from(data));
        assert_eq!(
            (problem.status().as_u16(), problem.code()),
            (422, "dataset_invalid")
        );
        assert_eq!(problem.errors()[0].pointer, "/files/data");
        assert!(
            problem.detail().contains("row 3, column \"age\""),
            "{}",
            problem.detail()
        );
    }
}
