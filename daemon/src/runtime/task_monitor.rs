//! The tasks that a member cannot do without: one that ends early, by a panic or otherwise, must not do so in silence.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Who started such tasks, and who wants to know of their end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TaskMonitor {
    fault: watch::Sender<Option<String>>,
}

impl Default for TaskMonitor {
    fn default() -> Self {
        Self { fault: watch::Sender::new(None) }
    }
}

impl TaskMonitor {
    /// Runs a task that is to end by `stop` only.
    pub fn spawn(
        &self,
        name: &'static str,
        stop: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let (task, fault) = (tokio::spawn(task), self.fault.clone());
        tokio::spawn(async move {
            let ended = task.await;
            if let Err(error) = &ended {
                error!(%error, task = name, "a task failed");
            }
            if ended.is_err() || !stop.is_cancelled() {
                fault.send_replace(Some(format!("{name} has ended early")));
            }
        });
    }

    /// Waits until one has ended early: which.
    pub async fn fault(&self) -> String {
        let mut fault = self.fault.subscribe();
        match fault.wait_for(Option::is_some).await {
            Ok(fault) => fault.clone().unwrap_or_default(),
            // The sender is this one.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Feeds a watchdog that bites after `limit`, for as long as the tasks that matter take their turns: what feeds it is their
/// progress, not the mere running of this process. Does not end.
pub async fn watch<RequestPermit: Future<Output = ()>>(
    limit: Option<Duration>,
    turn: impl Fn() -> RequestPermit,
    feed: impl Fn(),
) {
    let Some(limit) = limit else { return std::future::pending().await };
    loop {
        turn().await;
        feed();
        tokio::time::sleep(limit / 3).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_watchdog_is_fed_while_turns_are_taken_and_no_longer() {
        let (turns, fed) = (Cell::new(0), Cell::new(0));
        let turn = || {
            turns.set(turns.get() + 1);
            let is_stuck = turns.get() > 4;
            async move {
                if is_stuck {
                    std::future::pending::<()>().await;
                }
            }
        };
        let watch = watch(Some(Duration::from_millis(3)), turn, || fed.set(fed.get() + 1));
        assert!(tokio::time::timeout(Duration::from_millis(500), watch).await.is_err());
        assert_eq!(fed.get(), 4);
    }

    #[tokio::test]
    async fn a_task_that_panics_or_returns_early_is_a_fault_and_one_that_was_stopped_is_none() {
        let panics: fn() = || panic!("on purpose");
        let returns: fn() = || {};
        for (name, work) in [("the first", panics), ("the second", returns)] {
            let monitor = TaskMonitor::default();
            monitor.spawn(name, CancellationToken::new(), async move { work() });
            assert_eq!(monitor.fault().await, format!("{name} has ended early"));
        }
        let (monitor, stop) = (TaskMonitor::default(), CancellationToken::new());
        let stopped = stop.clone();
        monitor.spawn("the third", stop.clone(), async move { stopped.cancelled().await });
        stop.cancel();
        let fault = tokio::time::timeout(Duration::from_millis(50), monitor.fault()).await;
        assert!(fault.is_err(), "{fault:?}");
    }
}
