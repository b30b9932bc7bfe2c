//! Waiting for conditions: level-triggered, with a deadline, never a bare sleep.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

/// The machine has few cores, and the cluster needs them.
const POLL: Duration = Duration::from_millis(150);

/// Asks `check` again and again until it returns `Ok`; after `limit`, the last thing that was missing.
pub(crate) async fn eventually<T>(
    limit: Duration,
    check: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    eventually_every(POLL, limit, check).await
}

/// The same for a check that costs more: with a longer pause in between.
pub(crate) async fn eventually_every<T>(
    period: Duration,
    limit: Duration,
    mut check: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    let mut missing = String::from("no answer");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match timeout(left, check()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) => missing = reason,
            Err(_) => {}
        }
        if Instant::now() + period >= deadline {
            return Err(format!("not within {} s: {missing}", limit.as_secs()));
        }
        sleep(period).await;
    }
}
