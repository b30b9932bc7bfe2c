//! Identities that have connected, and names that are revoked.
//!
//! An identity is made offline, from the secret, so the log learns of it when a member first sees it. A revocation is of a
//! name: of all identities that bear it, seen or not, now and later. It is final, because an identity that nobody has seen
//! may be about; a name can be given away once.
//!
//! Bounds: [`NAMES_MAX`] names seen and as many revoked, [`CERTIFICATES_PER_NAME_MAX`] certificates of a name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use idunno_shared::access::{Issued, NAMES_MAX, SubjectName};
use idunno_shared::wire::control::{
    CERTIFICATES_PER_NAME_MAX, Changed, IDENTITIES_PER_PAGE_MAX, NamedIdentity, Period, Revocation,
    SeenCertificate,
};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{Applied, State};
use crate::invariant::InvariantViolation;

/// Names that are revoked; shared between states until it changes.
pub type RevokedNames = Arc<BTreeMap<SubjectName, Revocation>>;

/// Identities by the name of who has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Identities {
    /// The certificates of each name, the one that ends first foremost; at least one.
    seen: OrdMap<SubjectName, Arc<Vec<SeenCertificate>>>,
    revoked: RevokedNames,
}

impl Identities {
    /// Makes room for another name: drops one whose identities have ended, if there is one.
    fn make_room(&mut self, now_ms: u64) -> bool {
        let has_ended =
            |seen: &[SeenCertificate]| seen.last().is_none_or(|last| last.issued.ends_ms < now_ms);
        let ended = self.seen.iter().find(|(_, seen)| has_ended(seen)).map(|(name, _)| name.clone());
        ended.is_some_and(|name| self.seen.remove(&name).is_some())
    }

    pub(super) fn check(&self) -> Result<(), InvariantViolation> {
        let counts = [self.seen.len(), self.revoked.len()];
        InvariantViolation::unless(counts.iter().all(|count| *count <= NAMES_MAX), || {
            format!("{counts:?} names of identities are seen and revoked")
        })?;
        let is_valid = |name: &SubjectName, seen: &[SeenCertificate]| {
            (1..=CERTIFICATES_PER_NAME_MAX).contains(&seen.len())
                && seen.is_sorted_by_key(|seen| seen.issued.ends_ms)
                && seen.iter().all(|seen| seen.issued.grant.name == *name)
        };
        let wrong = self.seen.iter().find(|(name, seen)| !is_valid(name, seen));
        InvariantViolation::unless(wrong.is_none(), || format!("the certificates of {wrong:?}"))
    }
}

impl State {
    /// The revoked names.
    pub fn revoked(&self) -> &RevokedNames {
        &self.identities.revoked
    }

    /// Whether this identity has been seen.
    pub fn has_seen(&self, issued: &Issued) -> bool {
        let seen = self.identities.seen.get(&issued.grant.name);
        seen.is_some_and(|seen| seen.iter().any(|seen| seen.issued.certificate == issued.certificate))
    }

    /// A page of the identities whose last certificate ends within `period`, without revoked ones, in the order of their
    /// names, and whether more follow. Looks at all names.
    pub fn identities_ending(
        &self,
        period: Period,
        after: Option<&SubjectName>,
        limit: u32,
    ) -> (Vec<NamedIdentity>, bool) {
        let Identities { seen, revoked } = &self.identities;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(IDENTITIES_PER_PAGE_MAX);
        let from = after.map_or(Unbounded, Excluded);
        let is_ending = |certificates: &[SeenCertificate]| {
            certificates.last().is_some_and(|last| period.contains(last.issued.ends_ms))
        };
        let ending = seen.range::<_, SubjectName>((from, Unbounded));
        let ending = ending.filter(|(name, seen)| is_ending(seen) && !revoked.contains_key(*name));
        let row = |(name, seen): (&SubjectName, &Arc<Vec<SeenCertificate>>)| NamedIdentity {
            name: name.clone(),
            certificates: (**seen).clone(),
            revoked: None,
        };
        let mut rows: Vec<_> = ending.take(limit + 1).map(row).collect();
        let more = rows.len() > limit;
        rows.truncate(limit);
        (rows, more)
    }

    /// A page of the identities, seen or revoked, in the order of their names, and whether more follow.
    pub fn identities(&self, after: Option<&SubjectName>, limit: u32) -> (Vec<NamedIdentity>, bool) {
        let Identities { seen, revoked } = &self.identities;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(IDENTITIES_PER_PAGE_MAX);
        let from = after.map_or(Unbounded, Excluded);
        // Of either kind one more than fits, so that it shows whether more follow.
        let of_seen = seen.range::<_, SubjectName>((from, Unbounded)).map(|(name, _)| name);
        let of_revoked = revoked.range::<SubjectName, _>((from, Unbounded)).map(|(name, _)| name);
        let names: BTreeSet<_> = of_seen.take(limit + 1).chain(of_revoked.take(limit + 1)).collect();
        let more = names.len() > limit;
        let row = |name: &SubjectName| NamedIdentity {
            name: name.clone(),
            certificates: seen.get(name).map(|seen| (**seen).clone()).unwrap_or_default(),
            revoked: revoked.get(name).cloned(),
        };
        (names.into_iter().take(limit).map(row).collect(), more)
    }

    pub(super) fn note_identity(&mut self, issued: &Issued) -> Result<Applied, Refusal> {
        let name = &issued.grant.name;
        if name.is_of_secret() || self.has_seen(issued) {
            return Ok(Applied::Done);
        }
        let mut seen = self.identities.seen.get(name).map(|seen| (**seen).clone()).unwrap_or_default();
        if seen.is_empty()
            && self.identities.seen.len() >= NAMES_MAX
            && !self.identities.make_room(self.now_ms)
        {
            return Err(Refusal::conflict(format!("{NAMES_MAX} names of identities are listed")));
        }
        let at = seen.partition_point(|seen| seen.issued.ends_ms <= issued.ends_ms);
        seen.insert(at, SeenCertificate { issued: issued.clone(), seen_ms: self.now_ms });
        if seen.len() > CERTIFICATES_PER_NAME_MAX {
            seen.remove(0);
        }
        self.identities.seen.insert(name.clone(), Arc::new(seen));
        Ok(Applied::Done)
    }

    /// Repeating it changes nothing.
    pub(super) fn revoke_identity(
        &mut self,
        name: &SubjectName,
        unseen: bool,
        by: Option<&SubjectName>,
    ) -> Result<Changed, Refusal> {
        if name.is_of_secret() {
            return Err(Refusal::invalid(format!(
                "'{name}' stands for whoever has the cluster's secret: replace the secret's key, 'idunno cluster rotate'"
            )));
        }
        if self.identities.revoked.contains_key(name) {
            return Ok(Changed::Done);
        }
        if !unseen && !self.identities.seen.contains_key(name) {
            return Err(Refusal::not_found(format!(
                "no identity of '{name}' has connected: 'idunno identity ls' lists those that have, and --unseen revokes \
                 one that has not"
            )));
        }
        if self.identities.revoked.len() >= NAMES_MAX {
            return Err(Refusal::conflict(format!(
                "{NAMES_MAX} names are revoked, which is the maximum: replace the secret's key, 'idunno cluster rotate'"
            )));
        }
        let revocation = Revocation { at_ms: self.now_ms, by: by.cloned() };
        Arc::make_mut(&mut self.identities.revoked).insert(name.clone(), revocation);
        Ok(Changed::Done)
    }

    /// Refuses a change that a revoked identity asked for.
    pub(super) fn check_asker(&self, by: Option<&SubjectName>) -> Result<(), Refusal> {
        match by.filter(|name| self.identities.revoked.contains_key(*name)) {
            Some(name) => Err(Refusal::new(RefusalCode::Forbidden, revoked_text(name))),
            None => Ok(()),
        }
    }
}

/// What a revoked identity is told.
pub fn revoked_text(name: &SubjectName) -> String {
    format!("the identity of '{name}' was revoked: have one made for another name")
}
