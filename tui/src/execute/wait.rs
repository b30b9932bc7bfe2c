//! Waiting for the cluster to get something done, for as long as the user wants.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::answer::{Exit, Failure};
use crate::session::Session;

const POLL_PERIOD: Duration = Duration::from_millis(250);

/// Takes a look at the cluster: that nobody coordinates for a while, the inner error, is no reason to give up.
pub fn answered<T>(look: Result<T, Failure>) -> Result<Result<T, String>, Failure> {
    match look {
        Ok(found) => Ok(Ok(found)),
        Err(failure) if failure.exit == Exit::Unreachable => Ok(Err(failure.message)),
        Err(failure) => Err(failure),
    }
}

/// Sleeps between two looks, up to the limit that was asked for; `late` is what to say then.
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
    fn only_that_nobody_coordinates_is_waited_out() {
        let look = |exit| answered::<()>(Err(Failure::new(exit, "why")));
        assert_eq!(look(Exit::Unreachable), Ok(Err(String::from("why"))));
        for exit in [Exit::NotFound, Exit::Refused, Exit::Error] {
            assert_eq!(look(exit).unwrap_err().exit, exit);
        }
    }
}
