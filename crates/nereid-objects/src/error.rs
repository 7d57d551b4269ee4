//! What can go wrong with an object, told apart by what the caller can do about it.

use std::{error::Error as StdError, io};

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use thiserror::Error;

use crate::S3Uri;

type Source = Box<dyn StdError + Send + Sync>;

/// A failed operation; `target` is the object's URI, or the bucket's.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// The bucket does not exist.
    #[error("there is no bucket for {target}: create it, or check the name and the endpoint")]
    NoSuchBucket {
        /// What was asked for.
        target: String,
    },
    /// The object does not exist.
    #[error("there is no object {target}: check the key, or upload it first")]
    NoSuchKey {
        /// What was asked for.
        target: String,
    },
    /// The credentials are good but do not allow it.
    #[error("access to {target} is denied: grant the credentials the right to read and write it")]
    AccessDenied {
        /// What was asked for.
        target: String,
    },
    /// The bucket is in another region.
    #[error(
        "{target} is in {}: configure that region",
        expected.as_deref().map_or_else(|| "another region".to_owned(), |r| format!("region {r}"))
    )]
    WrongRegion {
        /// What was asked for.
        target: String,
        /// Where the server says it is.
        expected: Option<String>,
    },
    /// The credentials are missing, wrong or expired.
    #[error(
        "the credentials for {target} are missing, wrong or expired ({reason}): set \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
    )]
    InvalidCredentials {
        /// What was asked for.
        target: String,
        /// What the server or the SDK says.
        reason: String,
    },
    /// The object is not, or no longer, what the caller took it for.
    #[error("{target} already exists or has changed since: read it again")]
    PreconditionFailed {
        /// What was asked for.
        target: String,
    },
    /// The bytes are not the ones expected.
    #[error("the content of {target} is damaged or not what was expected ({reason})")]
    ChecksumMismatch {
        /// What was asked for.
        target: String,
        /// What differs.
        reason: String,
    },
    /// The object is larger than the caller can take.
    #[error("{target} has {bytes} bytes, at most {max_bytes} are allowed here")]
    TooLarge {
        /// What was asked for.
        target: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The server cannot be reached, is overloaded, or failed: worth another try later.
    #[error("the storage of {target} is unavailable ({reason}): try again later")]
    Unavailable {
        /// What was asked for.
        target: String,
        /// What happened.
        reason: String,
        /// The whole story.
        #[source]
        source: Option<Source>,
    },
    /// A local file could not be read or written.
    #[error("cannot {action} for {target}")]
    Local {
        /// What was being transferred.
        target: String,
        /// What was tried, as a verb with its object.
        action: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The server refused for a reason that has no variant of its own.
    #[error("the storage refused the request for {target} ({reason})")]
    Other {
        /// What was asked for.
        target: String,
        /// What the server says.
        reason: String,
        /// The whole story.
        #[source]
        source: Option<Source>,
    },
}

impl ObjectError {
    /// Tells whether the same operation may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Takes an error of this crate out of the I/O error that a reader wrapped it in.
    #[must_use]
    pub fn from_io(error: io::Error, uri: &S3Uri) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(error) => Self::unavailable(uri, "the transfer broke", Some(error.into())),
        }
    }

    pub(crate) fn unavailable(
        target: &impl ToString,
        reason: impl Into<String>,
        source: Option<Source>,
    ) -> Self {
        Self::Unavailable {
            target: target.to_string(),
            reason: reason.into(),
            source,
        }
    }

    pub(crate) fn local(
        target: &impl ToString,
        action: impl Into<String>,
    ) -> impl FnOnce(io::Error) -> Self {
        let (target, action) = (target.to_string(), action.into());
        move |source| Self::Local {
            target,
            action,
            source,
        }
    }

    /// Sorts an answer of the SDK.
    pub(crate) fn sdk<E>(target: &impl ToString, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let target = target.to_string();
        match &error {
            SdkError::ServiceError(service) => {
                let answer = Answer {
                    status: service.raw().status().as_u16(),
                    code: service.err().code().unwrap_or_default().to_owned(),
                    message: service.err().message().unwrap_or_default().to_owned(),
                    region: header(service.raw(), "x-amz-bucket-region"),
                };
                answer.into_error(target, Box::new(error))
            }
            SdkError::TimeoutError(_) => Self::Unavailable {
                target,
                reason: "timeout".to_owned(),
                source: Some(Box::new(error)),
            },
            _ => {
                let reason = innermost(&error);
                // The SDK reports a credentials chain that found nothing as a failed dispatch.
                if reason.contains("credential") {
                    return Self::InvalidCredentials { target, reason };
                }
                let source: Option<Source> = Some(Box::new(error));
                Self::Unavailable {
                    target,
                    reason,
                    source,
                }
            }
        }
    }
}

/// What an S3 server answered.
struct Answer {
    status: u16,
    code: String,
    message: String,
    region: Option<String>,
}

impl Answer {
    fn into_error(self, target: String, source: Source) -> ObjectError {
        let reason = match (self.code.as_str(), self.message.as_str()) {
            ("", _) => format!("status {}", self.status),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        match (self.code.as_str(), self.status) {
            ("NoSuchBucket", _) => ObjectError::NoSuchBucket { target },
            ("NoSuchUpload", _) => ObjectError::Other {
                target,
                reason,
                source: Some(source),
            },
            ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "TemporaryRedirect", _)
            | (_, 301 | 307) => ObjectError::WrongRegion {
                target,
                expected: self.region,
            },
            (
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "ExpiredToken"
                | "InvalidToken"
                | "TokenRefreshRequired"
                | "NotSignedUp",
                _,
            )
            | (_, 401) => ObjectError::InvalidCredentials { target, reason },
            // Another machine may do better, and so may this one once its clock is set.
            ("RequestTimeTooSkewed", _) => ObjectError::Unavailable {
                target,
                reason: format!("the clock of this machine is off ({reason})"),
                source: Some(source),
            },
            ("BadDigest" | "XAmzContentSHA256Mismatch" | "InvalidDigest", _) => {
                ObjectError::ChecksumMismatch { target, reason }
            }
            (_, 404) => ObjectError::NoSuchKey { target },
            (_, 403) => ObjectError::AccessDenied { target },
            (_, 412) => ObjectError::PreconditionFailed { target },
            // 409: another conditional write of the key is going on; which one wins is not known yet.
            (
                "SlowDown" | "RequestTimeout" | "OperationAborted" | "ConditionalRequestConflict",
                _,
            )
            | (_, 408 | 429 | 500..) => ObjectError::Unavailable {
                target,
                reason,
                source: Some(source),
            },
            _ => ObjectError::Other {
                target,
                reason,
                source: Some(source),
            },
        }
    }
}

fn header(response: &HttpResponse, name: &str) -> Option<String> {
    response.headers().get(name).map(str::to_owned)
}

/// The root cause, which says more than "dispatch failure".
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(status: u16, code: &str) -> ObjectError {
        let answer = Answer {
            status,
            code: code.to_owned(),
            message: "says the server".to_owned(),
            region: Some("eu-west-1".to_owned()),
        };
        answer.into_error("s3://data/x".to_owned(), "source".into())
    }

    #[test]
    fn answers_are_told_apart_by_what_to_do() {
        use ObjectError as E;
        assert!(matches!(
            sorted(404, "NoSuchBucket"),
            E::NoSuchBucket { .. }
        ));
        assert!(matches!(sorted(404, ""), E::NoSuchKey { .. }));
        assert!(matches!(
            sorted(403, "AccessDenied"),
            E::AccessDenied { .. }
        ));
        assert!(matches!(
            sorted(403, "SignatureDoesNotMatch"),
            E::InvalidCredentials { .. }
        ));
        assert!(matches!(
            sorted(412, "PreconditionFailed"),
            E::PreconditionFailed { .. }
        ));
        assert!(matches!(
            sorted(400, "BadDigest"),
            E::ChecksumMismatch { .. }
        ));
        assert!(matches!(sorted(400, "InvalidArgument"), E::Other { .. }));
        assert!(matches!(
            sorted(301, "PermanentRedirect"),
            E::WrongRegion { expected: Some(region), .. } if region == "eu-west-1"
        ));
    }

    #[test]
    fn only_what_may_pass_by_itself_is_retryable() {
        for (status, code) in [
            (503, "SlowDown"),
            (500, "InternalError"),
            (429, ""),
            (409, "ConditionalRequestConflict"),
            (400, "RequestTimeout"),
            (403, "RequestTimeTooSkewed"),
        ] {
            assert!(sorted(status, code).is_retryable(), "{status} {code}");
        }
        for (status, code) in [
            (404, "NoSuchKey"),
            (412, ""),
            (403, ""),
            (400, "EntityTooSmall"),
        ] {
            assert!(!sorted(status, code).is_retryable(), "{status} {code}");
        }
    }

    #[test]
    fn an_error_survives_its_way_through_a_reader() {
        let uri: S3Uri = "s3://data/x".parse().unwrap();
        let inner = ObjectError::PreconditionFailed {
            target: uri.to_string(),
        };
        let back = ObjectError::from_io(io::Error::other(inner), &uri);
        assert!(matches!(back, ObjectError::PreconditionFailed { .. }));
    }
}
