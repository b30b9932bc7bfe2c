//! Waiting until the cluster has done something, for as long as the user allows.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::answer::{Exit, Failure};
use crate::session::Session;

const POLL_PERIOD: Duration = Duration::from_millis(250);

/// What a look at the cluster found.
#[derive(Debug, PartialEq, Eq)]
pub enum Look<T> {
    /// The answer.
    Found(T),
    /// No coordinator answers, which passes: why.
    Unreachable(String),
}

/// Tells a cluster without a coordinator, which a command waits out, from failures that end it.
pub fn look<T>(answered: Result<T, Failure>) -> Result<Look<T>, Failure> {
    match answered {
        Ok(found) => Ok(Look::Found(found)),
        Err(failure) if failure.exit == Exit::Unreachable => Ok(Look::Unreachable(failure.message)),
        Err(failure) => Err(failure),
    }
}

/// Sleeps until the next look; fails with `late` once the user's time limit is over.
pub async fn pause(session: &Session, started: Instant, late: &str) -> Result<(), Failure> {
    if session.timeout.is_some_and(|limit| started.elapsed() >= limit) {
        return Err(Failure::new(Exit::Timeout, late));
    }
    sleep(POLL_PERIOD).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_coordinator_is_waited_out() {
        let failed = |exit| look::<()>(Err(Failure::new(exit, "why")));
        assert_eq!(failed(Exit::Unreachable), Ok(Look::Unreachable(String::from("why"))));
        for exit in [Exit::NotFound, Exit::Refused, Exit::Error] {
            assert_eq!(failed(exit).unwrap_err().exit, exit);
        }
    }
}
