//! Lets a call through: its key, its role, its share of what may run at once, its time.

use std::{future::Future, time::Duration};

use http::{HeaderMap, Method};
use nereid_core::keys::{Actor, Role};
use tonic::{Request, Status, metadata::MetadataMap};

use super::status::status;
use crate::{
    ApiState,
    problem::{Code, Problem},
};

/// Header with the time that a client gives a call.
const TIMEOUT: &str = "grpc-timeout";
/// How much earlier than the client's deadline a call ends here, so that the answer says why.
const HEAD_START: Duration = Duration::from_millis(5);

/// Runs a call of somebody who may make it.
///
/// # Errors
/// `UNAUTHENTICATED`, `PERMISSION_DENIED`, `UNAVAILABLE` if too much is under way,
/// `DEADLINE_EXCEEDED`, or whatever problem the call meets.
pub(super) async fn admit<R, T, F: Future<Output = Result<T, Problem>>>(
    state: &ApiState,
    least: Role,
    request: Request<R>,
    call: impl FnOnce(Actor, R) -> F,
) -> Result<T, Status> {
    let (metadata, _, message) = request.into_parts();
    let limit = limit(state, &metadata);
    let admitted = async {
        let _permit = permit(state)?;
        let actor = authorise(state, least, metadata.as_ref()).await?;
        call(actor, message).await
    };
    tokio::time::timeout(limit, admitted)
        .await
        .unwrap_or_else(|_| Err(late(limit)))
        .map_err(|problem| status(&problem))
}

/// Finds out who calls, and whether he may.
pub(super) async fn authorise(
    state: &ApiState,
    least: Role,
    headers: &HeaderMap,
) -> Result<Actor, Problem> {
    let actor = state
        .authenticator
        .authenticate(&Method::POST, headers)
        .await?;
    if actor.role < least {
        let detail = format!("This needs the role {least}; the key has {}.", actor.role);
        return Err(Problem::new(Code::Forbidden, detail));
    }
    Ok(actor)
}

/// Takes one of the places of requests under way, which REST shares.
pub(super) fn permit(state: &ApiState) -> Result<tokio::sync::SemaphorePermit<'_>, Problem> {
    state.requests.try_acquire().map_err(|_| {
        let detail = "Too many requests are under way; try again shortly.";
        Problem::new(Code::Overloaded, detail)
    })
}

/// Longest time for a call: the server's, or what the client gives it if that is less.
pub(super) fn limit(state: &ApiState, metadata: &MetadataMap) -> Duration {
    let given = metadata.get(TIMEOUT).and_then(|v| v.to_str().ok());
    let given = given.and_then(parse_timeout);
    let longest = state.config.request_timeout;
    given.map_or(longest, |t| t.saturating_sub(HEAD_START).min(longest))
}

fn late(limit: Duration) -> Problem {
    Problem::new(Code::Timeout, format!("No answer within {limit:?}."))
}

/// Reads a timeout: up to eight digits and a unit
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_time_that_a_client_gives() {
        assert_eq!(parse_timeout("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(
            parse_timeout("99999999H"),
            Some(Duration::from_hours(99_999_999))
        );
        for bad in ["", "m", "5", "-5m", "123456789m", "5x", "5µ", "+1S"] {
            assert_eq!(parse_timeout(bad), None, "{bad:?}");
        }
    }
}
