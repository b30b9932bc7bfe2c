//! Events: derived from the differences between consecutive views, and from what the operator did. Bounded.

use std::collections::{BTreeMap, VecDeque};

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::{ClusterView, JobState, Liveness};
use idunno_shared::wire::jobs::ServerState;
use serde::{Deserialize, Serialize};

use super::theme::Tone;
use crate::answer::text;

/// What an event has in common with others of which one line is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Repeat {
    /// Workers were shared anew.
    Rebalance,
    /// Queries of a job failed for good.
    DeadLetters(JobId),
    /// The model server of a member changed its state.
    Server(NodeId),
}

/// Events that are kept.
pub const EVENTS_MAX: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Increases from event to event.
    pub number: u64,
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    pub tone: Tone,
    /// One of: election, member, worker, job, sharing, model, store, command, console.
    pub kind: &'static str,
    pub text: String,
    /// What it has in common with others of which one line is enough.
    pub repeat: Option<Repeat>,
    /// How many things it is about.
    pub amount: u64,
}

/// The newest events, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Events {
    pub list: VecDeque<Event>,
    last_number: u64,
}

impl Events {
    /// Puts what an earlier console has seen before all others. Returns the number of the last of these.
    pub fn restore(&mut self, earlier: Vec<Event>) -> u64 {
        let later = std::mem::take(&mut self.list);
        earlier.into_iter().for_each(|event| self.push(event));
        let last_earlier = self.last_number;
        later.into_iter().for_each(|event| self.push(event));
        last_earlier
    }

    /// The events after the one with this number, oldest first.
    pub fn after(&self, number: u64) -> impl Iterator<Item = &Event> {
        self.list.iter().filter(move |event| event.number > number)
    }

    /// The number of the newest event; 0 if there was none yet.
    pub fn last_number(&self) -> u64 {
        self.last_number
    }

    pub fn record(&mut self, at_ms: u64, tone: Tone, kind: &'static str, text: impl Into<String>) {
        let text = text.into();
        self.push(Event { number: 0, at_ms, tone, kind, text, repeat: None, amount: 1 });
    }

    /// Records an event that may be repeated often.
    pub fn record_repeated(
        &mut self,
        at_ms: u64,
        tone: Tone,
        kind: &'static str,
        text: impl Into<String>,
        repeat: Repeat,
        amount: u64,
    ) {
        let text = text.into();
        self.push(Event { number: 0, at_ms, tone, kind, text, repeat: Some(repeat), amount });
    }

    fn push(&mut self, mut event: Event) {
        self.last_number += 1;
        event.number = self.last_number;
        event.text = crate::tail::printable(&event.text);
        self.list.push_back(event);
        if self.list.len() > EVENTS_MAX {
            // What is repeated goes first: it would push deaths out of the list.
            let repeated = self.list.iter().position(|event| event.repeat.is_some());
            self.list.remove(repeated.unwrap_or(0));
        }
    }

    /// Records what changed from one view to the next.
    pub fn compare(&mut self, old: &ClusterView, new: &ClusterView) {
        if old.term != new.term || old.coordinator != new.coordinator {
            let name = text::member_name(&new.members, new.coordinator);
            let text = format!("{name} became coordinator in term {}", new.term);
            self.record(new.at_ms, Tone::Warn, "election", text);
        }
        self.members(old, new);
        self.workers(old, new);
        self.jobs(old, new);
        self.models(old, new);
        self.store(old, new);
        for sharing in new.rebalances.iter().filter(|sharing| !old.rebalances.contains(sharing)) {
            let text = sharing.text.clone();
            self.record_repeated(sharing.at_ms, Tone::Plain, "sharing", text, Repeat::Rebalance, 1);
        }
    }

    fn members(&mut self, old: &ClusterView, new: &ClusterView) {
        let before: BTreeMap<_, _> = old.members.iter().map(|member| (member.id, member)).collect();
        for member in &new.members {
            let (word, tone) = match member.liveness {
                Liveness::Alive => ("is up", Tone::Good),
                Liveness::Suspect => ("is suspect: it is not responding", Tone::Warn),
                Liveness::Dead => ("is dead", Tone::Bad),
                Liveness::Left => ("left", Tone::Plain),
            };
            let text = match before.get(&member.id) {
                None => format!("{} joined at {}", member.name, member.address),
                Some(was) if was.generation < member.generation => format!("{} restarted", member.name),
                Some(was) if was.liveness != member.liveness => format!("{} {word}", member.name),
                Some(_) => continue,
            };
            self.record(new.at_ms, tone, "member", text);
        }
    }

    fn workers(&mut self, old: &ClusterView, new: &ClusterView) {
        let before: BTreeMap<_, _> = old.workers.iter().map(|worker| (worker.node, worker)).collect();
        for worker in &new.workers {
            let changed = before.get(&worker.node).is_some_and(|was| was.server != worker.server);
            if !changed {
                continue;
            }
            let (word, reason) = text::server_state(&worker.server);
            let tone = if worker.server == ServerState::Ready { Tone::Good } else { Tone::Warn };
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            let name = text::member_name(&new.members, worker.node);
            let text = format!("the model server of {name} is {word}{reason}");
            self.record_repeated(new.at_ms, tone, "worker", text, Repeat::Server(worker.node), 1);
        }
    }

    fn jobs(&mut self, old: &ClusterView, new: &ClusterView) {
        let before: BTreeMap<_, _> = old.jobs.iter().map(|job| (job.id, job)).collect();
        for job in &new.jobs {
            let was = before.get(&job.id);
            if was.is_none_or(|was| was.state != job.state) {
                let (word, reason) = text::job_state(&job.state);
                let tone = match job.state {
                    JobState::Paused(_) => Tone::Bad,
                    JobState::Done => Tone::Good,
                    _ => Tone::Plain,
                };
                let detail = if job.state == JobState::Done {
                    format!(": {} answered, {} dead", job.done, job.dead)
                } else {
                    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
                };
                self.record(new.at_ms, tone, "job", format!("{} is {word}{detail}", job.id));
            }
            let newly_dead = job.dead.saturating_sub(was.map_or(0, |was| was.dead));
            if newly_dead > 0 && was.is_some() {
                let text = format!("{}: {} failed permanently", job.id, text::queries(newly_dead));
                let repeat = Repeat::DeadLetters(job.id);
                self.record_repeated(new.at_ms, Tone::Bad, "job", text, repeat, newly_dead);
            }
        }
    }

    fn models(&mut self, old: &ClusterView, new: &ClusterView) {
        let before: BTreeMap<_, _> = old.models.iter().map(|model| (&model.model, model)).collect();
        for model in &new.models {
            let Some(was) = before.get(&model.model) else { continue };
            let name = &model.model;
            match (was.training, model.training, &model.failure) {
                (false, true, _) => {
                    self.record(new.at_ms, Tone::Plain, "model", format!("{name}: training started"));
                }
                (true, false, None) => {
                    self.record(new.at_ms, Tone::Good, "model", format!("{name}: training finished"));
                }
                (true, false, Some(reason)) => {
                    self.record(new.at_ms, Tone::Bad, "model", format!("{name}: training failed: {reason}"));
                }
                _ => {}
            }
        }
    }

    fn store(&mut self, old: &ClusterView, new: &ClusterView) {
        let (was, is) = (&old.store, &new.store);
        match (was.under_replicated, is.under_replicated) {
            (0, missing @ 1..) => {
                let text = format!("{} under-replicated: repair started", text::count(missing, "blob"));
                self.record(new.at_ms, Tone::Warn, "store", text);
            }
            (1.., 0) => self.record(new.at_ms, Tone::Good, "store", "all blobs are fully replicated again"),
            _ => {}
        }
        match (was.unavailable, is.unavailable) {
            (0, lost @ 1..) => {
                let text = format!("{} unavailable: no live copy", text::count(lost, "blob"));
                self.record(new.at_ms, Tone::Bad, "store", text);
            }
            (1.., 0) => self.record(new.at_ms, Tone::Good, "store", "all blobs are available again"),
            _ => {}
        }
    }
}
