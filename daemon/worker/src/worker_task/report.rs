//! Reports to the coordinator: when the next one goes, and what it says.

use std::time::Duration;

use idunno_shared::wire::jobs::{JobRequest, ModelState, ServerState, WorkerReport};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::super::lease_table::Phase;
use super::super::segments::BUFFERED_BYTES_MAX;
use super::{Event, HEARTBEAT, WorkerTask};

/// How long the coordinator may hold the answer to a report that wants batches.
const WAIT: Duration = Duration::from_secs(1);
/// The same while a model is being loaded or trained, whose end is to be told soon.
const WAIT_BUSY: Duration = Duration::from_millis(200);
/// Between two reports of which the first brought nothing.
const AFTER_EMPTY: Duration = Duration::from_millis(20);
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// A pull that has brought nothing for so long: work is scarce, or withheld until what has run is committed.
const STARVED_AFTER: Duration = Duration::from_millis(20);
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq)]
struct Said {
    server: ServerState,
    models: Vec<(idunno_shared::names::ModelName, ModelState)>,
    draining: bool,
}

/// The report on its way, and the last one.
#[derive(Default)]
pub(super) struct Reporting {
    /// Counts reports from 1.
    pub(super) number: u64,
    in_flight: Option<AbortHandle>,
    wanted: u8,
    last_sent: Option<Instant>,
    not_before: Option<Instant>,
    back_off: Option<Duration>,
    said: Option<Said>,
}

impl Reporting {
    /// The report was answered: whether it brought a batch, or why there is no answer.
    pub(super) fn answered(&mut self, brought: Result<bool, ()>, now: Instant) {
        self.in_flight = None;
        let pause = match brought {
            Ok(true) => None,
            Ok(false) => Some(AFTER_EMPTY),
            Err(()) => {
                let pause = self.back_off.map_or(BACK_OFF_MIN, |pause| (pause * 2).min(BACK_OFF_MAX));
                self.back_off = Some(pause);
                Some(pause)
            }
        };
        if brought.is_ok() {
            self.back_off = None;
        }
        self.not_before = pause.map(|pause| now + pause);
    }

    /// The next report goes at once.
    pub(super) fn hurry(&mut self) {
        (self.not_before, self.back_off, self.said) = (None, None, None);
    }

    /// Gives the report on its way up.
    pub(super) fn interrupt(&mut self) -> Option<AbortHandle> {
        self.not_before = None;
        self.in_flight.take()
    }
}

impl WorkerTask {
    /// When the next report goes; none while one is on its way.
    pub(super) fn report_due(&self, now: Instant) -> Option<Instant> {
        if self.reporting.in_flight.is_some() {
            return None;
        }
        let not_before = self.reporting.not_before.unwrap_or(now);
        if self.wanted(now) > 0 || self.reporting.said.as_ref() != Some(&self.to_say()) {
            return Some(not_before.max(now));
        }
        let heartbeat = self.reporting.last_sent.map_or(now, |sent| sent + HEARTBEAT);
        let pause_over = self.paused_until.filter(|until| *until > now);
        Some(pause_over.map_or(heartbeat, |until| heartbeat.min(until)).max(not_before))
    }

    pub(super) fn send_report(&mut self, now: Instant) {
        if self.report_due(now).is_none_or(|due| due > now) {
            return;
        }
        let said = self.to_say();
        let wanted = self.wanted(now);
        self.reporting.number += 1;
        let number = self.reporting.number;
        let report = self.report(&said, wanted);
        let coordinator = std::sync::Arc::clone(&self.requests.coordinator);
        let if_lost = Event::Reported { number, result: Err("internal fault".to_owned()) };
        let handle = self.spawn(if_lost, async move {
            let answer = coordinator.ask(JobRequest::Report(report)).await;
            Event::Reported { number, result: answer.map_err(|error| error.to_string()) }
        });
        let reporting = &mut self.reporting;
        (reporting.in_flight, reporting.wanted, reporting.last_sent) = (Some(handle), wanted, Some(now));
        reporting.said = Some(said);
    }

    fn report(&self, said: &Said, wanted: u8) -> WorkerReport {
        let busy = |(_, state): &(_, ModelState)| matches!(state, ModelState::Loading | ModelState::Training);
        let wait = match wanted {
            0 => Duration::ZERO,
            _ if said.models.iter().any(busy) => WAIT_BUSY,
            _ => WAIT,
        };
        let running = self.running_since.filter(|_| self.leases.count(Phase::Running) > 0);
        WorkerReport {
            worker: self.config.node,
            generation: self.config.generation,
            server: said.server.clone(),
            models: said.models.clone(),
            leases: self.leases.leases(),
            awaiting_commit: u16::try_from(self.leases.ran()).unwrap_or(u16::MAX),
            wanted,
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(0),
            draining: said.draining,
            offers: self.status.borrow().offers.clone(),
            running_ms: running.map(|since| u32::try_from(since.elapsed().as_millis()).unwrap_or(u32::MAX)),
            number: self.reporting.number,
            trainings: self
                .trainings
                .iter()
                .map(|(model, (seen, _))| (model.clone(), seen.borrow().clone()))
                .collect(),
        }
    }

    fn to_say(&self) -> Said {
        let draining = self.drain_until.is_some();
        Said { server: self.server_state(), models: self.models.states(), draining }
    }

    /// How many batches to ask for.
    fn wanted(&self, now: Instant) -> u8 {
        let able = self.drain_until.is_none()
            && self.server_state() == ServerState::Ready
            && self.models.any_loaded()
            && self.paused_until.is_none_or(|until| until <= now)
            && self.segments.bytes() < BUFFERED_BYTES_MAX;
        if able { u8::try_from(self.leases.room()).unwrap_or(u8::MAX) } else { 0 }
    }

    /// When rows are stored at once, because a pull has brought nothing for a while.
    pub(super) fn starved_at(&self) -> Option<Instant> {
        let pulls = self.reporting.in_flight.is_some() && self.reporting.wanted > 0;
        let starves = pulls && self.segments.next_due().is_some() && self.leases.count(Phase::Waiting) == 0;
        self.reporting.last_sent.filter(|_| starves).map(|sent| sent + STARVED_AFTER)
    }

    /// The last report: nothing is held any more.
    pub(super) async fn say_goodbye(mut self) {
        self.tasks.abort_all();
        let report = self.report(&self.to_say(), 0);
        let goodbye = self.requests.coordinator.ask(JobRequest::Report(report));
        match timeout(GOODBYE_TIMEOUT, goodbye).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!(%error, "the coordinator did not hear the worker's last report"),
            Err(_) => debug!("the coordinator did not answer the worker's last report in time"),
        }
    }
}
