//! Dial-back: a newcomer is listed only once this member has reached it at the address it advertises.
//!
//! A process that can send but cannot be reached would be probed without answer, suspected, and come back, again and again;
//! and every stale or forged record would be a ghost (hashicorp/memberlist #45, `CockroachDB` #84289). So a process' claims
//! about itself count only once this member has dialled that address over TCP and the process there has answered with that
//! identity. What a listed member says of others counts at once: it, or a member before it, has dialled them. What unknown
//! senders say of others is ignored.
//!
//! Not dialled: a member that is listed at the same address already and does not flap, and a process to whose address this member opened the
//! connection itself.

use std::collections::BTreeMap;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{MemberRecord, PushPull, TcpPing};

use super::merge::Source;
use super::{AdmissionError, MAX_DIAL_BACKS, Phase, Swim, SwimEffect, TcpPingOutcome};
use crate::invariant::InvariantViolation;
use crate::time::Instant;

/// The dial-backs under way, and the newcomers that did not answer.
#[derive(Debug, Default)]
pub(super) struct DialBacks {
    /// By the ping's number.
    pending: BTreeMap<u64, DialBack>,
    /// Newcomers that did not answer, and until when their gossip starts no further dial-back.
    unanswered: BTreeMap<NodeId, Instant>,
}

#[derive(Debug)]
struct DialBack {
    newcomer: MemberRecord,
    /// The list that it sent, and the exchange in which it waits for this member's.
    list: Option<PushPull>,
    exchange: Option<u64>,
}

impl DialBacks {
    pub(super) fn check(&self) -> Result<(), InvariantViolation> {
        if self.pending.len() > MAX_DIAL_BACKS || self.unanswered.len() > MAX_DIAL_BACKS {
            return Err(InvariantViolation::new(format!(
                "{} dial-backs, {} unanswered",
                self.pending.len(),
                self.unanswered.len()
            )));
        }
        Ok(())
    }
}

impl Swim {
    /// Whether a member's record of itself counts without dialling it back.
    pub(super) fn is_admitted(&self, record: &MemberRecord) -> bool {
        let on_list = self.table.get(record.id).is_some_and(|member| {
            let is_flapping = member.flaps >= self.config.flaps_max;
            member.record.state.is_live() && member.record.address == record.address && !is_flapping
        });
        on_list || !record.state.is_live() || record.id == self.me.id
    }

    /// Takes in a member's record of itself.
    pub(super) fn receive_self_record(&mut self, record: &MemberRecord, now: Instant) {
        if self.phase == Phase::Left {
        } else if self.is_admitted(record) {
            self.merge(record, Source::Itself, now);
        } else {
            self.dial_back(record, now);
        }
    }

    /// Dials a newcomer back that has sent its record.
    pub(super) fn dial_back(&mut self, newcomer: &MemberRecord, now: Instant) {
        let id = newcomer.id;
        let known = self.table.get(id).map(|member| member.record.precedence());
        let is_paused = self.dial_backs.unanswered.get(&id).is_some_and(|&until| now < until);
        let is_pending = self.dial_backs.pending.values().any(|pending| pending.newcomer.id == id);
        if known < Some(newcomer.precedence()) && !is_paused && !is_pending {
            self.start_dial_back(DialBack { newcomer: newcomer.clone(), list: None, exchange: None });
        }
    }

    /// Dials a newcomer back that has sent its list; it waits for this member's if there is an exchange.
    pub(super) fn dial_back_list(&mut self, list: &PushPull, exchange: Option<u64>) {
        self.start_dial_back(DialBack { newcomer: list.from.clone(), list: Some(list.clone()), exchange });
    }

    fn start_dial_back(&mut self, dial_back: DialBack) {
        if self.dial_backs.pending.len() >= MAX_DIAL_BACKS {
            self.refuse(&dial_back, AdmissionError::Busy);
            return;
        }
        self.counters.dial_backs += 1;
        let (seq, to) = (self.prober.next_seq(), dial_back.newcomer.address);
        let believed = self.table.get(dial_back.newcomer.id).map(|member| member.record.clone());
        let message = TcpPing { target: dial_back.newcomer.id, believed };
        let timeout = self.config.dial_back_timeout;
        self.effects.push_back(SwimEffect::TcpPing { seq, to, message, timeout });
        self.dial_backs.pending.insert(seq, dial_back);
    }

    /// Takes the result of a ping if that was a dial-back; returns whether it was.
    pub(super) fn on_dialled_back(&mut self, seq: u64, outcome: &TcpPingOutcome, now: Instant) -> bool {
        let Some(dial_back) = self.dial_backs.pending.remove(&seq) else { return false };
        let DialBack { newcomer, list, exchange } = &dial_back;
        match outcome {
            TcpPingOutcome::Answered { record }
                if (record.id, record.address) == (newcomer.id, newcomer.address) =>
            {
                self.counters.admissions += 1;
                self.dial_backs.unanswered.remove(&newcomer.id);
                self.table.note_reached(newcomer.id);
                if self.phase != Phase::Left {
                    self.merge(record, Source::Itself, now);
                }
                if let Some(list) = list {
                    self.merge_list(list, now);
                }
                if let Some(exchange) = *exchange {
                    self.reply(exchange, now);
                }
            }
            TcpPingOutcome::Answered { .. } | TcpPingOutcome::Refused => {
                self.note_unanswered(newcomer.id, now);
                self.refuse(&dial_back, AdmissionError::not_listening(newcomer));
            }
            TcpPingOutcome::TimedOut => {
                self.note_unanswered(newcomer.id, now);
                let limit = self.config.dial_back_timeout;
                self.refuse(&dial_back, AdmissionError::no_answer_from(newcomer, limit));
            }
        }
        true
    }

    fn note_unanswered(&mut self, id: NodeId, now: Instant) {
        let unanswered = &mut self.dial_backs.unanswered;
        unanswered.retain(|_, until| now < *until);
        if unanswered.len() < MAX_DIAL_BACKS {
            unanswered.insert(id, now + self.config.dial_back_pause);
        }
    }

    fn refuse(&mut self, dial_back: &DialBack, error: AdmissionError) {
        self.counters.refusals += 1;
        if let Some(exchange) = dial_back.exchange {
            self.effects.push_back(SwimEffect::RefusePushPull { exchange, error });
        }
    }
}
