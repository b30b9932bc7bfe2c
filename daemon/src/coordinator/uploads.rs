//! Uploads in progress, in one coordinator's term: what keeps a blob from being collected before it is committed.
//!
//! Pure. An upload lives until it is ended, or idles for [`IDLE_MAX`]. The watermark is below every live upload; a
//! holder keeps what an upload at or above it has touched. A member that restarts forgets what was touched, so nothing
//! may be collected there while an upload lives that is older than the restart ([`Uploads::may_collect`]).

use std::collections::BTreeMap;
use std::time::Duration;

use idunno_core::time::Instant;
use idunno_shared::ids::{NodeId, Term, UploadId};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};

/// How long an upload may go without a request before it is over.
/// Longer than a holder may keep a worker's put waiting before the worker plans again.
pub const IDLE_MAX: Duration = Duration::from_secs(40);
/// Uploads alive at once; more are refused until some end.
pub const UPLOADS_MAX: usize = 4_096;

/// The uploads of one term.
#[derive(Debug)]
pub struct Uploads {
    term: Term,
    next: u64,
    last_used: BTreeMap<u64, Instant>,
    /// Per member: its generation, and the first upload minted after that was known.
    boots: BTreeMap<NodeId, (u64, u64)>,
}

impl Uploads {
    /// No uploads yet. `first` is above every number minted before in this term: a coordinator that restarts quickly
    /// leads the same term again. Milliseconds since the epoch are, as long as fewer are minted on average.
    pub fn new(term: Term, first: u64) -> Self {
        Self { term, next: first, last_used: BTreeMap::new(), boots: BTreeMap::new() }
    }

    /// Opens an upload.
    pub fn open(&mut self, now: Instant) -> Result<UploadId, Refusal> {
        self.expire(now);
        if self.last_used.len() >= UPLOADS_MAX {
            let message = format!("{UPLOADS_MAX} uploads are under way: try again in a moment");
            return Err(Refusal::new(RefusalCode::Busy, message));
        }
        let number = self.next;
        self.next += 1;
        self.last_used.insert(number, now);
        Ok(UploadId { term: self.term, number })
    }

    /// Keeps an upload alive, or says that it is over.
    pub fn touch(&mut self, upload: UploadId, now: Instant) -> Result<(), Refusal> {
        self.expire(now);
        let last_used = (upload.term == self.term).then(|| self.last_used.get_mut(&upload.number)).flatten();
        let Some(last_used) = last_used else {
            let message =
                "the upload is over, because its coordinator changed or it idled for 40 s: plan it anew";
            return Err(Refusal::new(RefusalCode::UploadOver, message));
        };
        *last_used = now;
        Ok(())
    }

    /// Ends an upload.
    pub fn end(&mut self, upload: UploadId) {
        if upload.term == self.term {
            self.last_used.remove(&upload.number);
        }
    }

    /// Every upload below is over.
    pub fn watermark(&mut self, now: Instant) -> UploadId {
        self.expire(now);
        let number = self.last_used.first_key_value().map_or(self.next, |(&number, _)| number);
        UploadId { term: self.term, number }
    }

    /// Notes a member's boot count.
    pub fn booted(&mut self, node: NodeId, generation: u64) {
        let boot = self.boots.entry(node).or_insert((generation, self.next));
        if boot.0 != generation {
            *boot = (generation, self.next);
        }
    }

    /// Whether the member, at this boot, has seen every upload that is alive: only then may it be told to collect.
    pub fn may_collect(&mut self, node: NodeId, generation: u64, now: Instant) -> bool {
        self.expire(now);
        let oldest = self.last_used.first_key_value().map_or(self.next, |(&number, _)| number);
        self.boots.get(&node).is_some_and(|&(known, first)| known == generation && oldest >= first)
    }

    fn expire(&mut self, now: Instant) {
        self.last_used.retain(|_, last_used| now.since(*last_used) < IDLE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn the_watermark_stays_below_the_oldest_live_upload() {
        let mut uploads = Uploads::new(Term(3), 1);
        let first = uploads.open(at(0)).unwrap();
        let second = uploads.open(at(0)).unwrap();
        assert_eq!(uploads.watermark(at(1)), first);
        uploads.end(first);
        assert_eq!(uploads.watermark(at(1)), second);
        uploads.end(second);
        assert!(uploads.watermark(at(1)) > second);
    }

    #[test]
    fn an_idle_upload_is_over_and_a_used_one_is_not() {
        let mut uploads = Uploads::new(Term(3), 1);
        let (idle, used) = (uploads.open(at(0)).unwrap(), uploads.open(at(0)).unwrap());
        uploads.touch(used, at(30)).unwrap();
        assert_eq!(uploads.touch(idle, at(41)).unwrap_err().code, RefusalCode::UploadOver);
        uploads.touch(used, at(41)).unwrap();
    }

    #[test]
    fn uploads_of_other_terms_are_over() {
        let mut uploads = Uploads::new(Term(3), 1);
        let mine = uploads.open(at(0)).unwrap();
        let theirs = UploadId { term: Term(2), ..mine };
        assert!(uploads.touch(theirs, at(0)).is_err());
        uploads.end(theirs);
        assert!(uploads.touch(mine, at(0)).is_ok());
    }

    #[test]
    fn a_restarted_holder_collects_only_after_the_uploads_it_forgot() {
        let mut uploads = Uploads::new(Term(3), 1);
        uploads.booted(NODE, 1);
        let before = uploads.open(at(0)).unwrap();
        assert!(uploads.may_collect(NODE, 1, at(0)));
        uploads.booted(NODE, 2);
        assert!(!uploads.may_collect(NODE, 2, at(0)), "an upload from before the restart is alive");
        assert!(!uploads.may_collect(NODE, 1, at(0)), "that process is gone");
        uploads.end(before);
        assert!(uploads.may_collect(NODE, 2, at(0)));
    }
}
