//! Uploads in progress, in one coordinator's term: what keeps a blob from being deleted before it is committed.
//!
//! Decides: which uploads are alive, the watermark below which none is, and whether a member may be ordered to delete
//! blobs. An upload lives until it is ended, or has been idle for [`IDLE_MAX`], or is [`AGE_MAX`] old. A holder keeps what an upload at or above
//! the watermark has touched ([`Pins`](crate::placement::Pins)). A member that restarts forgets what was touched, so it may
//! delete nothing while an upload lives that is older than what is known of its restart.
//!
//! Source: our own; epochs of reclamation (Fraser 2004) are the closest relative.
//!
//! Invariants: upload numbers only rise; the watermark is at or below every live upload and never goes back; a
//! [`DeletionPermit`] is given only for the boot that is known, and only when every live upload began after that boot was
//! known.
//!
//! Bounds: [`UPLOADS_MAX`] uploads alive, of which one name that is confined to its own has [`UPLOADS_PER_NAME_MAX`] and all
//! such names [`UPLOADS_CONFINED_MAX`]; one entry per member.
//!
//! Does not do: keep the bytes. A commit is checked here when it is asked for, and against the watermark in the log when it
//! is applied ([`State::upload_watermark`](crate::metadata::State::upload_watermark)): it may be applied long after.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use idunno_shared::access::SubjectName;
use idunno_shared::ids::{NodeId, Term, UploadId};
use thiserror::Error;

use crate::access::may_use;
use crate::invariant::InvariantViolation;
use crate::machine::Machine;
use crate::time::Instant;

/// How long an upload may go without a request before it is over.
/// Longer than a holder may keep a worker's put waiting before the worker plans again.
pub const IDLE_MAX: Duration = Duration::from_secs(40);
/// How long an upload lives at most, however often it is used: while it does, nothing that was stored since is deleted.
pub const AGE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Uploads alive at once; more are refused until some end.
pub const UPLOADS_MAX: usize = 4_096;

/// Uploads alive at once of one name that is confined to its own.
pub const UPLOADS_PER_NAME_MAX: usize = 256;
/// Uploads alive at once of all such names: the rest is kept for operators and members.
pub const UPLOADS_CONFINED_MAX: usize = UPLOADS_MAX / 2;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadsEvent {
    /// A client uses an upload, or opens one: answered by one [`UploadsEffect::Answer`].
    Use {
        /// The driver's number for the request.
        request: u64,
        /// The upload; none for a new one.
        upload: Option<UploadId>,
        /// Whose uploads are meant; `None` for whoever may use all.
        confined_to: Option<SubjectName>,
    },
    /// An upload is over: all is committed, or it was given up.
    End {
        /// The upload.
        upload: UploadId,
        /// Whose uploads are meant; `None` for whoever may end all.
        confined_to: Option<SubjectName>,
    },
    /// A member reported its boot count.
    Booted {
        /// The member.
        node: NodeId,
        /// Its boot count.
        generation: u64,
    },
    /// A member is to delete blobs: answered by one [`UploadsEffect::Permit`].
    PermitRequested {
        /// The driver's number for the request.
        request: u64,
        /// The member.
        node: NodeId,
        /// Its boot count, as membership has it.
        generation: u64,
    },
}

/// What the driver is to do; effects are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadsEffect {
    /// Answer a [`UploadsEvent::Use`].
    Answer {
        /// The number from the event.
        request: u64,
        /// The upload, which is alive for [`IDLE_MAX`] from now.
        outcome: Result<UploadId, UploadError>,
    },
    /// Answer a [`UploadsEvent::PermitRequested`].
    Permit {
        /// The number from the event.
        request: u64,
        /// None while an upload may depend on blobs whose pins the member forgot.
        permit: Option<DeletionPermit>,
    },
}

/// What a member needs to know to delete blobs. Metadata with at least its watermark holds all that uploads below it ever
/// commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletionPermit {
    /// The member.
    pub node: NodeId,
    /// The boot for which it holds.
    pub generation: u64,
    /// Every upload below is over.
    pub watermark: UploadId,
}

/// Why an upload cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UploadError {
    /// Too many are alive.
    #[error("{UPLOADS_MAX} uploads are under way: try again in a moment")]
    TooMany,
    /// Too many of whoever asks are alive.
    #[error(
        "as many uploads are under way as one identity ({UPLOADS_PER_NAME_MAX}), or all submitters together \
         ({UPLOADS_CONFINED_MAX}), may have: end some, or wait until they have been idle for {} s",
        IDLE_MAX.as_secs()
    )]
    TooManyOwn,
    /// It has ended, or is of another term.
    #[error(
        "the upload has ended, because the coordinator changed or it was idle for {} s: plan it again",
        IDLE_MAX.as_secs()
    )]
    Over,
    /// Somebody else opened it.
    #[error("the upload is somebody else's: plan one of your own, or use an operator's identity")]
    Foreign,
}

/// The first number of a coordinator's uploads and deletion orders; `taken_over_at` is the index of the log's entry by
/// which it took over. A coordinator that restarts quickly leads the same term again, and must use none of its earlier
/// numbers. The index grows with each take-over, which a clock does not.
///
/// Bounds: 2^32 numbers for each take-over. A higher index loses its high bits, which matters only between two take-overs
/// in one term.
pub const fn first_number(taken_over_at: u64) -> u64 {
    taken_over_at << 32
}

/// The uploads of one term.
#[derive(Debug)]
pub struct Uploads {
    term: Term,
    next: u64,
    alive: BTreeMap<u64, Use>,
    boots: BTreeMap<NodeId, Boot>,
    /// The highest watermark given out.
    given: u64,
    effects: VecDeque<UploadsEffect>,
}

/// When an upload was opened, and used last.
#[derive(Clone, Debug)]
struct Use {
    /// Who opened it, unless that may use all.
    owner: Option<SubjectName>,
    opened: Instant,
    last: Instant,
}

/// What is known of a member's process.
#[derive(Clone, Copy, Debug)]
struct Boot {
    generation: u64,
    /// The first upload minted after that was known.
    first: u64,
}

impl Machine for Uploads {
    type Event = UploadsEvent;
    type Effect = UploadsEffect;

    fn handle(&mut self, event: UploadsEvent, now: Instant) {
        self.alive.retain(|_, used| now.since(used.last) < IDLE_MAX && now.since(used.opened) < AGE_MAX);
        match event {
            UploadsEvent::Use { request, upload, confined_to } => {
                let outcome = match upload {
                    Some(upload) => self.touch(upload, confined_to.as_ref(), now),
                    None => self.open(confined_to, now),
                };
                self.effects.push_back(UploadsEffect::Answer { request, outcome });
            }
            UploadsEvent::End { upload, confined_to } => {
                if self.usable(upload, confined_to.as_ref()).is_ok() {
                    self.alive.remove(&upload.number);
                }
            }
            UploadsEvent::Booted { node, generation } => {
                let known = Boot { generation, first: self.next };
                let boot = self.boots.entry(node).or_insert(known);
                if boot.generation != generation {
                    *boot = known;
                }
            }
            UploadsEvent::PermitRequested { request, node, generation } => {
                let permit = self.permit(node, generation);
                self.effects.push_back(UploadsEffect::Permit { request, permit });
            }
        }
    }

    /// None: idle uploads expire with the next event, and nothing needs to be done when they do.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn poll_effect(&mut self) -> Option<UploadsEffect> {
        self.effects.pop_front()
    }

    fn check(&self) -> Result<(), InvariantViolation> {
        let alive = self.alive.len();
        InvariantViolation::unless(alive <= UPLOADS_MAX, || format!("{alive} uploads"))?;
        let newest = self.alive.last_key_value().map_or(0, |(&number, _)| number);
        InvariantViolation::unless(alive == 0 || newest < self.next, || {
            format!("upload {newest} is to be minted")
        })?;
        let oldest = self.oldest();
        InvariantViolation::unless(self.given <= oldest, || {
            format!("upload {oldest} is alive below the watermark {}", self.given)
        })?;
        let early = self.boots.iter().find(|(_, boot)| boot.first > self.next);
        InvariantViolation::unless(early.is_none(), || format!("a boot is known from the future: {early:?}"))
    }
}

impl Uploads {
    /// No uploads yet. `first` is a [`first_number`].
    pub fn new(term: Term, first: u64) -> Self {
        Self {
            term,
            next: first,
            alive: BTreeMap::new(),
            boots: BTreeMap::new(),
            given: first,
            effects: VecDeque::new(),
        }
    }

    fn open(&mut self, owner: Option<SubjectName>, now: Instant) -> Result<UploadId, UploadError> {
        if self.alive.len() >= UPLOADS_MAX {
            return Err(UploadError::TooMany);
        }
        if owner.is_some() {
            let confined = || self.alive.values().filter(|used| used.owner.is_some());
            let own = confined().filter(|used| used.owner == owner).count();
            if own >= UPLOADS_PER_NAME_MAX || confined().count() >= UPLOADS_CONFINED_MAX {
                return Err(UploadError::TooManyOwn);
            }
        }
        let number = self.next;
        self.next += 1;
        self.alive.insert(number, Use { owner, opened: now, last: now });
        Ok(UploadId { term: self.term, number })
    }

    fn touch(
        &mut self,
        upload: UploadId,
        confined_to: Option<&SubjectName>,
        now: Instant,
    ) -> Result<UploadId, UploadError> {
        self.usable(upload, confined_to)?.last = now;
        Ok(upload)
    }

    /// The upload, if it is alive and may be used.
    fn usable(
        &mut self,
        upload: UploadId,
        confined_to: Option<&SubjectName>,
    ) -> Result<&mut Use, UploadError> {
        let is_ours = upload.term == self.term;
        let used = self.alive.get_mut(&upload.number).filter(|_| is_ours).ok_or(UploadError::Over)?;
        if may_use(confined_to, used.owner.as_ref()) { Ok(used) } else { Err(UploadError::Foreign) }
    }

    fn permit(&mut self, node: NodeId, generation: u64) -> Option<DeletionPermit> {
        let oldest = self.oldest();
        let boot =
            self.boots.get(&node).filter(|boot| boot.generation == generation && boot.first <= oldest)?;
        self.given = self.given.max(oldest);
        let watermark = UploadId { term: self.term, number: oldest };
        Some(DeletionPermit { node, generation: boot.generation, watermark })
    }

    /// Every upload below is over.
    fn oldest(&self) -> u64 {
        self.alive.first_key_value().map_or(self.next, |(&number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn handle(uploads: &mut Uploads, event: UploadsEvent, now: Instant) -> Option<UploadsEffect> {
        uploads.handle(event, now);
        uploads.check().unwrap();
        uploads.poll_effect()
    }

    fn use_upload(
        uploads: &mut Uploads,
        upload: Option<UploadId>,
        now: Instant,
    ) -> Result<UploadId, UploadError> {
        use_as(uploads, upload, None, now)
    }

    fn use_as(
        uploads: &mut Uploads,
        upload: Option<UploadId>,
        name: Option<&str>,
        now: Instant,
    ) -> Result<UploadId, UploadError> {
        let confined_to = name.map(|name| name.parse().unwrap());
        match handle(uploads, UploadsEvent::Use { request: 7, upload, confined_to }, now) {
            Some(UploadsEffect::Answer { request: 7, outcome }) => outcome,
            effect => panic!("{effect:?}"),
        }
    }

    fn end(uploads: &mut Uploads, upload: UploadId) {
        let event = UploadsEvent::End { upload, confined_to: None };
        assert_eq!(handle(uploads, event, at(0)), None);
    }

    fn boot(uploads: &mut Uploads, generation: u64) {
        assert_eq!(handle(uploads, UploadsEvent::Booted { node: NODE, generation }, at(0)), None);
    }

    fn watermark(uploads: &mut Uploads, generation: u64, now: Instant) -> Option<UploadId> {
        match handle(uploads, UploadsEvent::PermitRequested { request: 8, node: NODE, generation }, now) {
            Some(UploadsEffect::Permit { request: 8, permit }) => permit.map(|permit| permit.watermark),
            effect => panic!("{effect:?}"),
        }
    }

    #[test]
    fn the_watermark_stays_below_the_oldest_live_upload() {
        let mut uploads = Uploads::new(Term(3), 1);
        boot(&mut uploads, 1);
        let first = use_upload(&mut uploads, None, at(0)).unwrap();
        let second = use_upload(&mut uploads, None, at(0)).unwrap();
        assert_eq!(watermark(&mut uploads, 1, at(1)), Some(first));
        end(&mut uploads, first);
        assert_eq!(watermark(&mut uploads, 1, at(1)), Some(second));
        end(&mut uploads, second);
        assert!(watermark(&mut uploads, 1, at(1)) > Some(second));
    }

    #[test]
    fn an_idle_upload_is_over_and_a_used_one_is_not() {
        let mut uploads = Uploads::new(Term(3), 1);
        let idle = use_upload(&mut uploads, None, at(0)).unwrap();
        let used = use_upload(&mut uploads, None, at(0)).unwrap();
        assert_eq!(use_upload(&mut uploads, Some(used), at(30)), Ok(used));
        assert_eq!(use_upload(&mut uploads, Some(idle), at(41)), Err(UploadError::Over));
        assert_eq!(use_upload(&mut uploads, Some(used), at(41)), Ok(used));
    }

    #[test]
    fn an_upload_that_is_used_for_ever_is_over_in_the_end() {
        let mut uploads = Uploads::new(Term(3), 1);
        boot(&mut uploads, 1);
        let kept_alive = use_upload(&mut uploads, None, at(0)).unwrap();
        let mut second = 0;
        while use_upload(&mut uploads, Some(kept_alive), at(second)).is_ok() {
            second += 30;
            assert!(second <= AGE_MAX.as_secs(), "its pins would stay for ever");
        }
        assert_eq!(second, AGE_MAX.as_secs());
        assert!(watermark(&mut uploads, 1, at(second)) > Some(kept_alive));
    }

    #[test]
    fn uploads_of_other_terms_are_over() {
        let mut uploads = Uploads::new(Term(3), 1);
        let ours = use_upload(&mut uploads, None, at(0)).unwrap();
        let theirs = UploadId { term: Term(2), ..ours };
        assert_eq!(use_upload(&mut uploads, Some(theirs), at(0)), Err(UploadError::Over));
        end(&mut uploads, theirs);
        assert_eq!(use_upload(&mut uploads, Some(ours), at(0)), Ok(ours));
    }

    #[test]
    fn a_submitter_uses_and_ends_uploads_of_its_own_only() {
        let mut uploads = Uploads::new(Term(3), 1);
        let annas = use_as(&mut uploads, None, Some("anna"), at(0)).unwrap();
        let operators = use_upload(&mut uploads, None, at(0)).unwrap();
        for foreign in [annas, operators] {
            assert_eq!(use_as(&mut uploads, Some(foreign), Some("ben"), at(1)), Err(UploadError::Foreign));
            let end = UploadsEvent::End { upload: foreign, confined_to: Some("ben".parse().unwrap()) };
            assert_eq!(handle(&mut uploads, end, at(1)), None);
            assert_eq!(use_upload(&mut uploads, Some(foreign), at(1)), Ok(foreign), "it goes on");
        }
        assert_eq!(use_as(&mut uploads, Some(annas), Some("anna"), at(1)), Ok(annas));
        let end = UploadsEvent::End { upload: annas, confined_to: Some("anna".parse().unwrap()) };
        assert_eq!(handle(&mut uploads, end, at(1)), None);
        assert_eq!(use_upload(&mut uploads, Some(annas), at(1)), Err(UploadError::Over));
    }

    #[test]
    fn uploads_are_bounded_and_the_idle_make_room() {
        let mut uploads = Uploads::new(Term(3), 1);
        for _ in 0..UPLOADS_MAX {
            use_upload(&mut uploads, None, at(0)).unwrap();
        }
        assert_eq!(use_upload(&mut uploads, None, at(1)), Err(UploadError::TooMany));
        assert!(use_upload(&mut uploads, None, at(40)).is_ok());
    }

    #[test]
    fn neither_one_submitter_nor_all_together_keep_others_from_uploading() {
        let mut uploads = Uploads::new(Term(3), 1);
        for _ in 0..UPLOADS_PER_NAME_MAX {
            use_as(&mut uploads, None, Some("anna"), at(0)).unwrap();
        }
        assert_eq!(use_as(&mut uploads, None, Some("anna"), at(1)), Err(UploadError::TooManyOwn));
        for number in UPLOADS_PER_NAME_MAX..UPLOADS_CONFINED_MAX {
            use_as(&mut uploads, None, Some(&format!("n{}", number % 20)), at(1)).unwrap();
        }
        assert_eq!(use_as(&mut uploads, None, Some("ben"), at(1)), Err(UploadError::TooManyOwn));
        for _ in UPLOADS_CONFINED_MAX..UPLOADS_MAX {
            use_upload(&mut uploads, None, at(1)).unwrap();
        }
        assert_eq!(use_upload(&mut uploads, None, at(1)), Err(UploadError::TooMany));
    }

    #[test]
    fn a_coordinator_that_leads_its_term_again_uses_none_of_its_numbers() {
        let mut before = Uploads::new(Term(3), first_number(7));
        let last = (0..1_000).map(|_| use_upload(&mut before, None, at(0)).unwrap()).last().unwrap();
        let mut again = Uploads::new(Term(3), first_number(8));
        boot(&mut again, 1);
        assert_eq!(use_upload(&mut again, Some(last), at(0)), Err(UploadError::Over));
        assert!(
            watermark(&mut again, 1, at(0)) > Some(last),
            "a late order cannot delete what is stored now"
        );
        assert!(use_upload(&mut again, None, at(0)).unwrap() > last);
        assert!(first_number(8) - first_number(7) > u64::from(u32::MAX), "more than are ever used");
    }

    #[test]
    fn a_restarted_holder_deletes_only_after_the_uploads_it_forgot() {
        let mut uploads = Uploads::new(Term(3), 1);
        assert_eq!(watermark(&mut uploads, 1, at(0)), None, "its boot is unknown");
        boot(&mut uploads, 1);
        let before = use_upload(&mut uploads, None, at(0)).unwrap();
        assert!(watermark(&mut uploads, 1, at(0)).is_some());
        boot(&mut uploads, 2);
        assert_eq!(watermark(&mut uploads, 2, at(0)), None, "an upload from before the restart is alive");
        assert_eq!(watermark(&mut uploads, 1, at(0)), None, "that process is gone");
        end(&mut uploads, before);
        assert!(watermark(&mut uploads, 2, at(0)).is_some());
    }
}
