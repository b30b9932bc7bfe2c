//! Monitors the tasks that a member depends on: if one ends early, by a panic or otherwise, the member stops.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Spawns monitored tasks and reports the first that ends early. Cheap to clone.
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
    /// Spawns a task that may end only after `stop` is cancelled.
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
                error!(%error, task = name, "a task panicked or was cancelled");
            }
            if ended.is_err() || !stop.is_cancelled() {
                fault.send_replace(Some(format!("{name} ended early")));
            }
        });
    }

    /// Waits until a task ends early, and returns a sentence that names it.
    pub async fn fault(&self) -> String {
        let mut fault = self.fault.subscribe();
        match fault.wait_for(Option::is_some).await {
            Ok(fault) => fault.clone().unwrap_or_default(),
            // `self` holds the sender.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Feeds a watchdog with the time-out `limit` for as long as `progress` completes: a process that runs while its tasks
/// are stuck must not feed it. Never returns.
pub async fn feed_while_progressing<Progress: Future<Output = ()>>(
    limit: Option<Duration>,
    progress: impl Fn() -> Progress,
    feed: impl Fn(),
) {
    let Some(limit) = limit else { return std::future::pending().await };
    loop {
        progress().await;
        feed();
        tokio::time::sleep(limit / 3).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_watchdog_is_fed_only_while_tasks_progress() {
        let (calls, fed) = (Cell::new(0), Cell::new(0));
        let progress = || {
            calls.set(calls.get() + 1);
            let is_stuck = calls.get() > 4;
            async move {
                if is_stuck {
                    std::future::pending::<()>().await;
                }
            }
        };
        let watch =
            feed_while_progressing(Some(Duration::from_millis(3)), progress, || fed.set(fed.get() + 1));
        assert!(tokio::time::timeout(Duration::from_millis(500), watch).await.is_err());
        assert_eq!(fed.get(), 4);
    }

    #[tokio::test]
    async fn a_task_that_panics_or_returns_early_is_a_fault_and_a_stopped_one_is_not() {
        let panics: fn() = || panic!("on purpose");
        let returns: fn() = || {};
        for (name, work) in [("panicking task", panics), ("returning task", returns)] {
            let monitor = TaskMonitor::default();
            monitor.spawn(name, CancellationToken::new(), async move { work() });
            assert_eq!(monitor.fault().await, format!("{name} ended early"));
        }
        let (monitor, stop) = (TaskMonitor::default(), CancellationToken::new());
        let stopped = stop.clone();
        monitor.spawn("stopped task", stop.clone(), async move { stopped.cancelled().await });
        stop.cancel();
        let fault = tokio::time::timeout(Duration::from_millis(50), monitor.fault()).await;
        assert!(fault.is_err(), "{fault:?}");
    }
}
