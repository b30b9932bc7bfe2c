//! Waiting for conditions: level-triggered, with a deadline, never a bare sleep.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::LocalCluster;

const POLL: Duration = Duration::from_millis(40);

impl LocalCluster {
    /// Asks `check` again and again until it returns `Ok`. After `limit` the test fails with `what`, the last thing
    /// that was missing, and the last log lines of every daemon.
    pub(crate) async fn eventually<T>(
        &self,
        what: &str,
        limit: Duration,
        mut check: impl AsyncFnMut() -> Result<T, String>,
    ) -> T {
        let deadline = Instant::now() + limit;
        let mut missing = String::from("it was not looked at once");
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, check()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(reason)) => missing = reason,
                Err(_) => {}
            }
            assert!(
                Instant::now() + POLL < deadline,
                "not within {limit:?}: {what}\nmissing: {missing}\n{}",
                self.log_tails()
            );
            sleep(POLL).await;
        }
    }

    /// Fails with the log lines of every daemon.
    pub(crate) fn fail(&self, why: &str) -> ! {
        panic!("{why}\n{}", self.log_tails());
    }
}
