//! Work that may take longer than a request waits: tasks of the leader's term, which repeated requests join.
//!
//! A connection that ends does not end the work, and a request that is repeated under its operation id never starts it a
//! second time. While the work goes on, a request is answered after [`ANSWER_AFTER`] with how far it has come, and the
//! client asks again.
//!
//! Bounds: [`RUNNING_MAX`] tasks at a time; of those that have ended, [`ENDED_KEPT`] outcomes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use idunno_core::metadata::Applied;
use idunno_shared::ids::{Digest, JobId, OpId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::Training;
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a request waits before it is answered that the work goes on: less than any client waits for an answer.
const ANSWER_AFTER: Duration = Duration::from_secs(2);
/// Most tasks at a time.
const RUNNING_MAX: usize = 16;
/// Outcomes that are kept for requests which ask again.
const ENDED_KEPT: usize = 256;

type Outcome = Result<Applied, Refusal>;

/// How far a task has come, or its outcome.
#[derive(Clone, Debug)]
enum Status {
    Running { done_bytes: u64, total_bytes: u64 },
    Ended(Outcome),
}

/// Where a task reports how far it has come.
#[derive(Clone)]
pub struct WorkProgress(Arc<watch::Sender<Status>>);

impl WorkProgress {
    /// Reports that so many bytes of so many have been read.
    pub fn report(&self, done_bytes: u64, total_bytes: u64) {
        self.0.send_replace(Status::Running { done_bytes, total_bytes });
    }
}

/// What work is about: there is one task at a time for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkSubject {
    /// A job that is being started.
    Job(JobId),
    /// A version of a model that is being checked.
    Model(ModelName, Digest),
    /// A training of models that are being checked.
    Training(Vec<ModelName>, Training),
}

impl fmt::Display for WorkSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(job) => job.fmt(f),
            Self::Model(model, _) => write!(f, "model '{model}'"),
            Self::Training(models, _) => {
                let names: Vec<&str> = models.iter().map(ModelName::as_str).collect();
                write!(f, "the training of {}", names.join(", "))
            }
        }
    }
}

struct Task {
    op: OpId,
    subject: WorkSubject,
    status: watch::Receiver<Status>,
}

impl Task {
    /// Whether it has no outcome that stands: it failed for now, or was dropped while it ran.
    fn is_worth_repeating(&self) -> bool {
        match &*self.status.borrow() {
            Status::Running { .. } => true,
            Status::Ended(outcome) => outcome.as_ref().is_err_and(|refusal| refusal.code.is_repeated()),
        }
    }
}

/// The long work of a term.
pub struct LongWork {
    /// Oldest first.
    tasks: Mutex<VecDeque<Task>>,
    answer_after: Duration,
    closed: CancellationToken,
}

impl LongWork {
    /// Work that is dropped when `closed` is cancelled.
    pub fn new(closed: CancellationToken) -> Self {
        Self { tasks: Mutex::default(), answer_after: ANSWER_AFTER, closed }
    }

    /// Waits for work on a subject: for what runs already, or for what `start` makes. Refused with
    /// [`RefusalCode::InProgress`] if it takes longer than a request waits.
    pub async fn join<F>(
        &self,
        op: OpId,
        subject: WorkSubject,
        start: impl FnOnce(WorkProgress) -> F,
    ) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut start = Some(start);
        loop {
            let outcome = self.join_once(op, &subject, &mut start).await;
            // It was started for somebody else, who may not do it: this request starts its own.
            let is_of_another = start.is_some() && !self.has_task(op);
            let is_forbidden = |refusal: &Refusal| refusal.code == RefusalCode::Forbidden;
            if !(is_of_another && outcome.as_ref().is_err_and(is_forbidden)) {
                return outcome;
            }
        }
    }

    /// Whether this operation has work of its own, under way or ended.
    fn has_task(&self, op: OpId) -> bool {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().any(|task| task.op == op)
    }

    /// Takes `start` if it starts the work.
    async fn join_once<F, S>(&self, op: OpId, subject: &WorkSubject, start: &mut Option<S>) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
        S: FnOnce(WorkProgress) -> F,
    {
        let mut status = self.status_of(op, subject, start)?;
        // A task that ended without an outcome was dropped with its term: the client asks the next coordinator.
        let over = || Refusal::new(RefusalCode::Unknown, "the coordinator's term ended: repeat the request");
        let ended = status.wait_for(|status| matches!(status, Status::Ended(_)));
        let ended = timeout(self.answer_after, ended).await.map(|ended| ended.map(|status| status.clone()));
        match ended {
            Ok(Ok(Status::Ended(outcome))) => outcome,
            Ok(_) => Err(over()),
            Err(_) => Err(in_progress(subject, &status.borrow())),
        }
    }

    fn status_of<F, S>(
        &self,
        op: OpId,
        subject: &WorkSubject,
        start: &mut Option<S>,
    ) -> Result<watch::Receiver<Status>, Refusal>
    where
        F: Future<Output = Outcome> + Send + 'static,
        S: FnOnce(WorkProgress) -> F,
    {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // A task that panicked has dropped its sender.
        let is_running = |task: &Task| {
            task.status.has_changed().is_ok() && !matches!(&*task.status.borrow(), Status::Ended(_))
        };
        // The client repeats its request on these: it wants another try, not the same refusal.
        tasks.retain(|task| is_running(task) || (task.op != op) || !task.is_worth_repeating());
        let is_same = |task: &Task| task.op == op || (task.subject == *subject && is_running(task));
        if let Some(task) = tasks.iter().find(|task| is_same(task)) {
            return Ok(task.status.clone());
        }
        if tasks.iter().filter(|task| is_running(task)).count() >= RUNNING_MAX {
            let message =
                format!("{RUNNING_MAX} jobs or models are being looked at: {subject} waits for its turn");
            return Err(Refusal::new(RefusalCode::Busy, message));
        }
        while tasks.len() >= RUNNING_MAX + ENDED_KEPT {
            let oldest = tasks.iter().position(|task| !is_running(task));
            tasks.remove(oldest.unwrap_or(0));
        }
        let start = start.take().ok_or_else(|| Refusal::internal("work is started twice"))?;
        let (sender, status) = watch::channel(Status::Running { done_bytes: 0, total_bytes: 0 });
        let sender = Arc::new(sender);
        let (work, closed) = (start(WorkProgress(Arc::clone(&sender))), self.closed.clone());
        tokio::spawn(async move {
            if let Some(outcome) = closed.run_until_cancelled(work).await {
                sender.send_replace(Status::Ended(outcome));
            }
        });
        tasks.push_back(Task { op, subject: subject.clone(), status: status.clone() });
        Ok(status)
    }
}

fn in_progress(subject: &WorkSubject, status: &Status) -> Refusal {
    let Status::Running { done_bytes, total_bytes } = *status else {
        return Refusal::internal("work that has ended is in progress");
    };
    let code = RefusalCode::InProgress { done_bytes, total_bytes };
    let message = match subject {
        WorkSubject::Job(job) => {
            format!("{job} is being started, which goes on: get-job-stats shows when it runs")
        }
        WorkSubject::Model(model, _) => {
            format!("a member is still checking model '{model}': 'model ls' shows whether it was added")
        }
        WorkSubject::Training(..) => {
            format!("a member is still checking {subject}: 'model ls' shows whether it has begun")
        }
    };
    Refusal::new(code, message)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    fn job(number: u64) -> WorkSubject {
        WorkSubject::Job(JobId(number))
    }

    fn op(number: u64) -> OpId {
        OpId(0, number)
    }

    fn long_work(closed: &CancellationToken) -> LongWork {
        LongWork { answer_after: Duration::from_millis(20), ..LongWork::new(closed.clone()) }
    }

    #[tokio::test]
    async fn repeated_requests_join_the_work_and_learn_how_far_it_is() {
        let work = long_work(&CancellationToken::new());
        let (starts, go) = (AtomicUsize::new(0), Arc::new(Notify::new()));
        let start = |progress: WorkProgress| {
            starts.fetch_add(1, Ordering::Relaxed);
            let go = Arc::clone(&go);
            async move {
                progress.report(3, 9);
                go.notified().await;
                Err(Refusal::conflict("no records"))
            }
        };
        for number in [1, 1, 2] {
            let refusal = work.join(op(number), job(1), start).await.unwrap_err();
            assert_eq!(refusal.code, RefusalCode::InProgress { done_bytes: 3, total_bytes: 9 });
        }
        go.notify_one();
        loop {
            let refusal = work.join(op(1), job(1), start).await.unwrap_err();
            if refusal.message == "no records" {
                break;
            }
            assert!(matches!(refusal.code, RefusalCode::InProgress { .. }), "{refusal}");
        }
        let again = work.join(op(1), job(1), start).await.unwrap_err();
        assert_eq!(again.message, "no records", "the outcome is kept for requests that ask again");
        assert_eq!(starts.load(Ordering::Relaxed), 1);
        go.notify_one();
        work.join(op(3), job(1), start).await.unwrap_err();
        assert_eq!(starts.load(Ordering::Relaxed), 2, "a later operation starts the work anew");
    }

    #[tokio::test]
    async fn work_ends_with_the_term_and_not_with_the_request() {
        let closed = CancellationToken::new();
        let work = long_work(&closed);
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wait, finished) = (Arc::clone(&go), Arc::clone(&done));
        let start = |_| async move {
            wait.notified().await;
            finished.notify_one();
            Ok(Applied::Done)
        };
        let request = work.join(op(1), job(1), start);
        assert!(timeout(Duration::from_millis(1), request).await.is_err(), "the request is dropped");
        go.notify_one();
        done.notified().await;
        let never = |_| async { unreachable!("it has run") };
        assert_eq!(work.join(op(1), job(1), never).await, Ok(Applied::Done));

        let forever = |_| std::future::pending();
        let waiting = work.join(op(2), job(2), forever);
        closed.cancel();
        assert_eq!(waiting.await.unwrap_err().code, RefusalCode::Unknown);
    }

    #[tokio::test]
    async fn what_may_succeed_when_it_is_repeated_is_tried_again() {
        let work = long_work(&CancellationToken::new());
        for code in [RefusalCode::NoQuorum, RefusalCode::Unknown] {
            let fails = |_| std::future::ready(Err(Refusal::new(code.clone(), "not now")));
            assert_eq!(work.join(op(1), job(1), fails).await.unwrap_err().code, code);
        }
        let panics = |_| async { panic!("a fault of the work") };
        assert_eq!(work.join(op(1), job(1), panics).await.unwrap_err().code, RefusalCode::Unknown);
        let done = |_| std::future::ready(Ok(Applied::Done));
        assert_eq!(work.join(op(1), job(1), done).await, Ok(Applied::Done));
    }

    #[tokio::test]
    async fn who_joined_the_work_of_somebody_who_is_revoked_is_not_refused_for_it() {
        let work = Arc::new(long_work(&CancellationToken::new()));
        let go = Arc::new(Notify::new());
        let wait = Arc::clone(&go);
        let of_another = |_| async move {
            wait.notified().await;
            Err(Refusal::new(RefusalCode::Forbidden, "anna is revoked"))
        };
        let in_progress = work.join(op(1), job(1), of_another).await.unwrap_err();
        assert!(matches!(in_progress.code, RefusalCode::InProgress { .. }));
        let joined = Arc::clone(&work);
        let joined =
            async move { joined.join(op(2), job(1), |_| std::future::ready(Ok(Applied::Done))).await };
        let (outcome, ()) = tokio::join!(joined, async { go.notify_one() });
        assert_eq!(outcome, Ok(Applied::Done));
        let never = |_| async { unreachable!("it has run") };
        let own = work.join(op(1), job(1), never).await.unwrap_err();
        assert_eq!(own.message, "anna is revoked", "who started it is refused");
    }

    #[tokio::test]
    async fn the_number_of_running_tasks_is_bounded() {
        let work = long_work(&CancellationToken::new());
        for number in 0..RUNNING_MAX as u64 {
            let refusal = work.join(op(number), job(number), |_| std::future::pending()).await.unwrap_err();
            assert_eq!(refusal.code, RefusalCode::InProgress { done_bytes: 0, total_bytes: 0 });
        }
        let refusal = work.join(op(99), job(99), |_| std::future::pending()).await.unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Busy);
    }
}
