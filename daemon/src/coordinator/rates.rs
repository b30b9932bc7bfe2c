//! The task that counts answered queries for the console's charts: `core::rates` keeps the steps.
//!
//! Bounds: [`INPUTS_MAX`] counts and requests queue up, then callers wait.

use std::sync::Arc;

use idunno_core::rates::{RateCounter, Rates, RatesEffect, RatesEvent};
use idunno_shared::ids::{JobId, NodeId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Deps;
use super::log_time::LogTime;
use crate::runtime::driver::{Driver, Shell, Turn, Waiting, ask};

/// Counts and requests that may wait for the task.
pub const INPUTS_MAX: usize = 1_024;

pub(super) enum Input {
    Event(RatesEvent),
    Ask { known: Option<u64>, at_ms: u64, reply: oneshot::Sender<Option<Rates>> },
}

/// The rates of one term. Cheap to clone.
#[derive(Clone)]
pub struct RatesHandle {
    inputs: mpsc::Sender<Input>,
    time: Arc<LogTime>,
}

impl RatesHandle {
    /// Counts queries of a job that a member has just answered.
    pub async fn answered(&self, job: JobId, member: NodeId, queries: u64) {
        let event = RatesEvent::Answered { job, member, queries, at_ms: self.time.now_ms() };
        // The figures end with the term.
        let _ = self.inputs.send(Input::Event(event)).await;
    }

    /// All complete steps, unless the caller has them: `known` is the step that came with the newest rates it has.
    pub async fn since(&self, known: Option<u64>, at_ms: u64) -> Option<Rates> {
        ask(&self.inputs, |reply| Input::Ask { known, at_ms, reply }).await.flatten()
    }
}

/// Answers the requests of one term.
#[derive(Default)]
pub(super) struct RatesTask {
    waiting: Waiting<Option<Rates>>,
}

impl RatesTask {
    /// Starts the task of a term.
    pub(super) fn spawn(deps: &Deps, time: Arc<LogTime>, closed: &CancellationToken) -> RatesHandle {
        let (inputs, queued) = mpsc::channel(INPUTS_MAX);
        let machine = RateCounter::new(time.now_ms());
        let driver = Driver { machine, shell: Self::default(), clock: deps.clock, inputs: queued };
        driver.spawn("rate counter", &deps.monitor, closed);
        RatesHandle { inputs, time }
    }
}

impl Shell for RatesTask {
    type Machine = RateCounter;
    type Input = Input;

    async fn translate(&mut self, input: Input, turn: &mut Turn<Self>) {
        turn.event(match input {
            Input::Event(event) => event,
            Input::Ask { known, at_ms, reply } => {
                RatesEvent::Asked { request: self.waiting.add(reply), known, at_ms }
            }
        });
    }

    async fn carry_out(&mut self, effect: RatesEffect, _turn: &mut Turn<Self>) {
        let RatesEffect::Answer { request, rates } = effect;
        self.waiting.answer(request, rates);
    }
}
