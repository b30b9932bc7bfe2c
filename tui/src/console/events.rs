//! What happened, told from two views that follow each other, and what the operator did. Bounded.

use std::collections::{BTreeMap, VecDeque};

use idunno_shared::wire::control::{ClusterView, JobState, Liveness};
use idunno_shared::wire::jobs::ServerState;

use super::theme::Role;
use crate::answer::text;

/// Events that are kept.
pub const EVENTS_MAX: usize = 1000;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number: later ones have greater ones.
    pub number: u64,
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// What it means.
    pub role: Role,
    /// Of what kind: election, member, job, sharing, model, store, command, console.
    pub kind: &'static str,
    /// What.
    pub text: String,
}

/// The newest events, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// They.
    pub list: VecDeque<Event>,
    next: u64,
}

impl Events {
    /// Notes an event.
    pub fn note(&mut self, at_ms: u64, role: Role, kind: &'static str, text: impl Into<String>) {
        self.next += 1;
        let text = crate::tail::printable(&text.into());
        self.list.push_back(Event { number: self.next, at_ms, role, kind, text });
        if self.list.len() > EVENTS_MAX {
            self.list.pop_front();
        }
    }

    /// Notes what changed from one view to the next.
    pub fn compare(&mut self, old: &ClusterView, new: &ClusterView) {
        if old.term != new.term || old.coordinator != new.coordinator {
            let name = text::member_name(&new.members, new.coordinator);
            let text = format!("{name} coordinates in term {}", new.term);
            self.note(new.at_ms, Role::Warn, "election", text);
        }
        self.members(old, new);
        self.workers(old, new);
        self.jobs(old, new);
        self.models(old, new);
        self.store(old, new);
        let rebalances = new.rebalances.iter().filter(|rebalance| !old.rebalances.contains(rebalance));
        rebalances
            .for_each(|rebalance| self.note(rebalance.at_ms, Role::Plain, "sharing", rebalance.text.clone()));
    }

    fn members(&mut self, old: &ClusterView, new: &ClusterView) {
        let before: BTreeMap<_, _> = old.members.iter().map(|member| (member.id, member)).collect();
        for member in &new.members {
            let (word, role) = match member.liveness {
                Liveness::Alive => ("is up", Role::Good),
                Liveness::Suspect => ("is suspect: it does not answer", Role::Warn),
                Liveness::Dead => ("is dead", Role::Bad),
                Liveness::Left => ("left", Role::Plain),
            };
            let text = match before.get(&member.id) {
                None => format!("{} joined at {}", member.name, member.address),
                Some(was) if was.generation < member.generation => format!("{} restarted", member.name),
                Some(was) if was.liveness != member.liveness => format!("{} {word}", member.name),
                Some(_) => continue,
            };
            self.note(new.at_ms, role, "member", text);
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
            let role = if worker.server == ServerState::Ready { Role::Good } else { Role::Warn };
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            let name = text::member_name(&new.members, worker.node);
            self.note(new.at_ms, role, "worker", format!("the model server of {name} is {word}{reason}"));
        }
    }

    fn jobs(&mut self, old: &ClusterView, new: &ClusterView) {
        let before: BTreeMap<_, _> = old.jobs.iter().map(|job| (job.id, job)).collect();
        for job in &new.jobs {
            let was = before.get(&job.id);
            if was.is_none_or(|was| was.state != job.state) {
                let (word, reason) = text::job_state(&job.state);
                let role = match job.state {
                    JobState::Paused(_) => Role::Bad,
                    JobState::Done => Role::Good,
                    _ => Role::Plain,
                };
                let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                let figures = if job.state == JobState::Done {
                    format!(": {} answered, {} dead", job.done, job.dead)
                } else {
                    reason
                };
                self.note(new.at_ms, role, "job", format!("{} is {word}{figures}", job.id));
            }
            let died = job.dead.saturating_sub(was.map_or(0, |was| was.dead));
            if died > 0 && was.is_some() {
                let text = format!("{}: {} failed for good", job.id, text::queries(died));
                self.note(new.at_ms, Role::Bad, "job", text);
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
                    self.note(new.at_ms, Role::Plain, "model", format!("{name} is being trained"));
                }
                (true, false, None) => {
                    self.note(new.at_ms, Role::Good, "model", format!("{name} is trained"));
                }
                (true, false, Some(why)) => {
                    self.note(new.at_ms, Role::Bad, "model", format!("the training of {name} failed: {why}"));
                }
                _ => {}
            }
        }
    }

    fn store(&mut self, old: &ClusterView, new: &ClusterView) {
        let (was, is) = (&old.store, &new.store);
        match (was.under_replicated, is.under_replicated) {
            (0, missing @ 1..) => {
                let text = format!("{} lack copies: repair copies them", text::count(missing, "blob"));
                self.note(new.at_ms, Role::Warn, "store", text);
            }
            (1.., 0) => self.note(new.at_ms, Role::Good, "store", "every blob has all its copies again"),
            _ => {}
        }
        match (was.unavailable, is.unavailable) {
            (0, lost @ 1..) => {
                let text = format!("{} without a live copy", text::count(lost, "blob"));
                self.note(new.at_ms, Role::Bad, "store", text);
            }
            (1.., 0) => self.note(new.at_ms, Role::Good, "store", "every blob has a live copy again"),
            _ => {}
        }
    }
}
