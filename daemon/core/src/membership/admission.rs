//! Dial-back: nobody gets on the list by its own word alone.
//!
//! A member that can send but not be reached would be probed in vain, suspected, and come back, for ever; and every
//! stale or forged record would be a ghost (hashicorp/memberlist #45, `CockroachDB` #84289). So what a process says of
//! itself counts only once this member has dialled the address that it advertises, over TCP, and the process there has
//! answered with that identity. What a member on the list says of others counts at once: it, or one before it, has
//! dialled them. What strangers say of others does not count.
//!
//! No dialling is needed for news of a member that is on the list at the same address, nor where this member opened the
//! connection to that address itself.

use std::collections::BTreeMap;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{MemberRecord, PushPull, TcpPing};

use super::merge::Source;
use super::{AdmissionError, MAX_ADMISSIONS, Phase, Swim, SwimEffect, TcpPingOutcome};
use crate::machine::InvariantViolation;
use crate::time::Instant;

/// Who is being dialled back, and who did not answer.
#[derive(Debug, Default)]
pub(super) struct Admissions {
    /// By the ping's number.
    pending: BTreeMap<u64, Admission>,
    /// Newcomers that did not answer: until when what they gossip is not looked into.
    silent: BTreeMap<NodeId, Instant>,
}

/// What waits for a newcomer's answer.
#[derive(Debug)]
struct Admission {
    newcomer: MemberRecord,
    /// The list that it sent, and the exchange in which it waits for ours.
    list: Option<PushPull>,
    exchange: Option<u64>,
}

impl Admissions {
    pub(super) fn check(&self) -> Result<(), InvariantViolation> {
        if self.pending.len() > MAX_ADMISSIONS || self.silent.len() > MAX_ADMISSIONS {
            return Err(InvariantViolation::new(format!(
                "{} admissions, {} silent",
                self.pending.len(),
                self.silent.len()
            )));
        }
        Ok(())
    }
}

impl Swim {
    /// Whether what `record`'s member says of itself counts without dialling it back.
    pub(super) fn is_admitted(&self, record: &MemberRecord) -> bool {
        let on_list = self
            .table
            .get(record.id)
            .is_some_and(|member| member.record.state.is_live() && member.record.address == record.address);
        on_list || !record.state.is_live() || record.id == self.me.id
    }

    /// A member says something of itself.
    pub(super) fn receive_self_record(&mut self, record: &MemberRecord, now: Instant) {
        if self.phase == Phase::Left {
        } else if self.is_admitted(record) {
            self.merge(record, Source::Itself, now);
        } else {
            self.dial_back(record, now);
        }
    }

    /// A newcomer speaks of itself.
    pub(super) fn dial_back(&mut self, newcomer: &MemberRecord, now: Instant) {
        let id = newcomer.id;
        let known = self.table.get(id).map(|member| member.record.precedence());
        let is_silent = self.admissions.silent.get(&id).is_some_and(|&until| now < until);
        let is_asked = self.admissions.pending.values().any(|pending| pending.newcomer.id == id);
        if known < Some(newcomer.precedence()) && !is_silent && !is_asked {
            self.start_dial_back(Admission { newcomer: newcomer.clone(), list: None, exchange: None });
        }
    }

    /// A newcomer sent its list, and waits for ours if there is an exchange.
    pub(super) fn dial_back_list(&mut self, list: &PushPull, exchange: Option<u64>) {
        self.start_dial_back(Admission { newcomer: list.from.clone(), list: Some(list.clone()), exchange });
    }

    fn start_dial_back(&mut self, admission: Admission) {
        if self.admissions.pending.len() >= MAX_ADMISSIONS {
            self.refuse(&admission, AdmissionError::Busy);
            return;
        }
        self.counters.dial_backs += 1;
        let (seq, to) = (self.prober.next_seq(), admission.newcomer.address);
        let believed = self.table.get(admission.newcomer.id).map(|member| member.record.clone());
        let message = TcpPing { target: admission.newcomer.id, believed };
        let timeout = self.config.dial_back_timeout;
        self.effects.push_back(SwimEffect::TcpPing { seq, to, message, timeout });
        self.admissions.pending.insert(seq, admission);
    }

    /// Takes the result of a ping if it was a dial-back; says whether it was.
    pub(super) fn on_dialled_back(&mut self, seq: u64, outcome: &TcpPingOutcome, now: Instant) -> bool {
        let Some(admission) = self.admissions.pending.remove(&seq) else { return false };
        let Admission { newcomer, list, exchange } = &admission;
        match outcome {
            TcpPingOutcome::Answered { record }
                if (record.id, record.address) == (newcomer.id, newcomer.address) =>
            {
                self.counters.admissions += 1;
                self.admissions.silent.remove(&newcomer.id);
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
                self.note_silent(newcomer.id, now);
                self.refuse(&admission, AdmissionError::nobody_at(newcomer));
            }
            TcpPingOutcome::TimedOut => {
                self.note_silent(newcomer.id, now);
                let limit = self.config.dial_back_timeout;
                self.refuse(&admission, AdmissionError::no_answer_from(newcomer, limit));
            }
        }
        true
    }

    fn note_silent(&mut self, id: NodeId, now: Instant) {
        let silent = &mut self.admissions.silent;
        silent.retain(|_, until| now < *until);
        if silent.len() < MAX_ADMISSIONS {
            silent.insert(id, now + self.config.dial_back_pause);
        }
    }

    fn refuse(&mut self, admission: &Admission, error: AdmissionError) {
        self.counters.refusals += 1;
        if let Some(exchange) = admission.exchange {
            self.effects.push_back(SwimEffect::RefusePushPull { exchange, error });
        }
    }
}
