//! Reports to the coordinator: when the next one is due, and its content.

use std::time::Duration;

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::ids::Term;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{JobRequest, ModelState, ServerState, WorkerReport};
use thiserror::Error;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::super::lease_table::LeasePhase;
use super::super::segments::BUFFERED_BYTES_MAX;
use super::{Event, HEARTBEAT, WorkerTask};

/// How long the coordinator may delay its answer to a report that wants batches.
const WAIT: Duration = Duration::from_secs(1);
/// The same while a model is loading or training, whose end must be reported soon.
const WAIT_BUSY: Duration = Duration::from_millis(200);
/// Pause after a report that was granted nothing.
const AFTER_EMPTY: Duration = Duration::from_millis(20);
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// After this long, an unanswered pull means that work is scarce, or withheld until finished batches are committed.
const STARVED_AFTER: Duration = Duration::from_millis(20);
const LAST_REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// A report got no orders.
#[derive(Debug, Error)]
pub(super) enum ReportError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("the orders are of the older term {0}")]
    StaleTerm(Term),
    #[error("the coordinator sent an unexpected reply")]
    UnexpectedReply,
    #[error("internal error: the report panicked")]
    Internal,
}

/// The outcome of a report, as far as it decides when the next one is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportOutcome {
    Granted,
    NothingGranted,
    Failed,
}

/// The part of a report whose change makes the next report due at once.
#[derive(Clone, Debug, PartialEq)]
struct ReportedState {
    server: ServerState,
    models: Vec<(ModelName, ModelState)>,
    draining: bool,
}

/// The report in flight, and the last one sent.
#[derive(Default)]
pub(super) struct Reporting {
    /// Counts reports from 1.
    pub(super) number: u64,
    in_flight: Option<AbortHandle>,
    wanted: u8,
    last_sent: Option<Instant>,
    not_before: Option<Instant>,
    back_off: Option<Duration>,
    last_state: Option<ReportedState>,
}

impl Reporting {
    /// Ends the report in flight.
    pub(super) fn answered(&mut self, outcome: ReportOutcome, now: Instant) {
        self.in_flight = None;
        self.back_off = match outcome {
            ReportOutcome::Failed => {
                Some(self.back_off.map_or(BACK_OFF_MIN, |pause| (pause * 2).min(BACK_OFF_MAX)))
            }
            ReportOutcome::Granted | ReportOutcome::NothingGranted => None,
        };
        let pause = match outcome {
            ReportOutcome::Granted => None,
            ReportOutcome::NothingGranted => Some(AFTER_EMPTY),
            ReportOutcome::Failed => self.back_off,
        };
        self.not_before = pause.map(|pause| now + pause);
    }

    /// Makes the next report due at once.
    pub(super) fn send_now(&mut self) {
        self.not_before = None;
        self.back_off = None;
        self.last_state = None;
    }

    /// Abandons the report in flight; the caller aborts its task.
    pub(super) fn interrupt(&mut self) -> Option<AbortHandle> {
        self.not_before = None;
        self.in_flight.take()
    }
}

impl WorkerTask {
    /// When the next report is due; `None` while one is in flight.
    pub(super) fn report_due(&self, now: Instant) -> Option<Instant> {
        if self.reporting.in_flight.is_some() {
            return None;
        }
        let not_before = self.reporting.not_before.unwrap_or(now);
        if self.wanted(now) > 0 || self.reporting.last_state.as_ref() != Some(&self.reported_state()) {
            return Some(not_before.max(now));
        }
        let heartbeat = self.reporting.last_sent.map_or(now, |sent| sent + HEARTBEAT);
        let pause_over = self.servers.pause_over(now);
        Some(pause_over.map_or(heartbeat, |until| heartbeat.min(until)).max(not_before))
    }

    pub(super) fn send_report(&mut self, now: Instant) {
        if self.report_due(now).is_none_or(|due| due > now) {
            return;
        }
        let state = self.reported_state();
        let wanted = self.wanted(now);
        self.reporting.number += 1;
        let number = self.reporting.number;
        let report = self.report(&state, wanted);
        let coordinator = std::sync::Arc::clone(&self.requests.coordinator);
        let if_panicked = Event::Reported { number, result: Err(ReportError::Internal) };
        let handle = self.spawn(if_panicked, async move {
            let answer = coordinator.ask(JobRequest::Report(report)).await;
            Event::Reported { number, result: answer.map_err(ReportError::from) }
        });
        let reporting = &mut self.reporting;
        reporting.in_flight = Some(handle);
        reporting.wanted = wanted;
        reporting.last_sent = Some(now);
        reporting.last_state = Some(state);
    }

    fn report(&self, state: &ReportedState, wanted: u8) -> WorkerReport {
        let busy = |(_, state): &(_, ModelState)| matches!(state, ModelState::Loading | ModelState::Training);
        let wait = match wanted {
            0 => Duration::ZERO,
            _ if state.models.iter().any(busy) => WAIT_BUSY,
            _ => WAIT,
        };
        let running = self.running_since.filter(|_| self.leases.count(LeasePhase::Running) > 0);
        WorkerReport {
            worker: self.config.node,
            generation: self.config.generation,
            server: state.server.clone(),
            models: state.models.clone(),
            leases: self.leases.leases(),
            awaiting_commit: u16::try_from(self.leases.finished()).unwrap_or(u16::MAX),
            wanted,
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(0),
            draining: state.draining,
            offers: self.servers.offers(),
            running_ms: running.map(|since| {
                // A batch is neither late nor hung because of a row that takes as long as its model declares.
                let elapsed = since.elapsed().saturating_sub(self.running_row_timeout);
                u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX)
            }),
            number: self.reporting.number,
            trainings: self
                .trainings
                .iter()
                .map(|(model, training)| (model.clone(), training.progress.borrow().clone()))
                .collect(),
            resources: self.servers.resources(),
        }
    }

    fn reported_state(&self) -> ReportedState {
        let draining = self.drain_until.is_some();
        ReportedState { server: self.server_state(), models: self.servers.model_states(), draining }
    }

    /// How many batches to pull.
    fn wanted(&self, now: Instant) -> u8 {
        let can_pull = self.drain_until.is_none()
            && self.server_state() == ServerState::Ready
            && self.servers.take_work(now)
            && self.segments.bytes() < BUFFERED_BYTES_MAX;
        if can_pull { u8::try_from(self.leases.room()).unwrap_or(u8::MAX) } else { 0 }
    }

    /// When all rows are committed because a pull has been unanswered for a while.
    pub(super) fn starved_at(&self) -> Option<Instant> {
        let is_pulling = self.reporting.in_flight.is_some() && self.reporting.wanted > 0;
        let is_starved =
            is_pulling && self.segments.next_due().is_some() && self.leases.count(LeasePhase::Waiting) == 0;
        self.reporting.last_sent.filter(|_| is_starved).map(|sent| sent + STARVED_AFTER)
    }

    /// Reports that nothing is held any more.
    pub(super) async fn send_last_report(mut self) {
        self.tasks.abort_all();
        let report = self.report(&self.reported_state(), 0);
        let answer = self.requests.coordinator.ask(JobRequest::Report(report));
        match timeout(LAST_REPORT_TIMEOUT, answer).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!(%error, "cannot send the last report"),
            Err(_) => debug!("the coordinator did not answer the last report in time"),
        }
    }
}
