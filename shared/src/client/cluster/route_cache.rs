//! The members and the coordinator that a client knows. Bound: [`KNOWN_MAX`] members.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::ids::Term;

const KNOWN_MAX: usize = 256;

#[derive(Default)]
pub(super) struct RouteCache {
    pub(super) coordinator: Option<SocketAddr>,
    /// The highest term in which a coordinator was named: a member that names one of an older term is outdated.
    term: Term,
    members: BTreeSet<SocketAddr>,
}

impl RouteCache {
    pub(super) fn learn(&mut self, members: impl Iterator<Item = SocketAddr>) {
        self.members.extend(members);
        while self.members.len() > KNOWN_MAX {
            self.members.pop_first();
        }
    }

    /// Whether a coordinator of `term` is as new as any that was named; remembers the newest.
    pub(super) fn is_news(&mut self, term: Term) -> bool {
        let is_news = term >= self.term;
        self.term = self.term.max(term);
        is_news
    }

    /// Members to ask, best first.
    pub(super) fn candidates(&self, seeds: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut candidates = Vec::with_capacity(1 + seeds.len() + self.members.len());
        candidates.extend(self.coordinator);
        candidates.extend(seeds.iter().copied());
        candidates.extend(self.members.iter().copied());
        let mut seen = BTreeSet::new();
        candidates.retain(|address| seen.insert(*address));
        candidates
    }
}

/// Why a request is not answered yet, for the error at the deadline, the most useful reason first.
#[derive(Default)]
pub(super) struct FailureReasons {
    /// The coordinator's, for having the request repeated.
    pub(super) coordinator: Option<String>,
    /// A member's, for not coordinating.
    pub(super) refused: Option<String>,
    /// The failure to reach a member.
    pub(super) failed: Option<String>,
}

impl FailureReasons {
    pub(super) fn last(self) -> String {
        self.coordinator
            .or(self.refused)
            .or(self.failed)
            .unwrap_or_else(|| String::from("no address is known"))
    }
}
