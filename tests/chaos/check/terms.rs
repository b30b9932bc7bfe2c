//! Checks that no two members coordinated in the same term.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;

/// A member coordinated in a term, according to its reply or its log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) term: u64,
    /// The member's id; a wiped member has a new one.
    pub(crate) who: String,
}

/// Checks all claims of a run.
pub(crate) fn check(claims: &BTreeSet<Claim>) -> Vec<Violation> {
    let mut terms: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for Claim { term, who } in claims {
        terms.entry(*term).or_default().push(who);
    }
    let shared = terms.into_iter().filter(|(_, who)| who.len() > 1);
    let violation = |(term, who): (u64, Vec<&str>)| {
        Violation::new("one coordinator a term", format!("in term {term} coordinated {}", who.join(" and ")))
    };
    shared.map(violation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(claims: &[(u64, &str)]) -> BTreeSet<Claim> {
        claims.iter().map(|&(term, who)| Claim { term, who: who.to_owned() }).collect()
    }

    #[test]
    fn one_coordinator_a_term_passes() {
        assert_eq!(check(&claims(&[(1, "m1"), (1, "m1"), (2, "m2"), (3, "m1")])), []);
    }

    #[test]
    fn two_in_one_term_are_caught() {
        let violations = check(&claims(&[(1, "m1"), (2, "m1"), (2, "m3"), (3, "m2")]));
        assert_eq!(violations.len(), 1);
        assert!(violations[0].detail.contains("term 2 coordinated m1 and m3"), "{violations:?}");
        assert_eq!(check(&claims(&[(1, "m1"), (1, "m2")])).len(), 1);
    }
}
