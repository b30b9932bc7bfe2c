//! Whether the operations on each file can be put into one order that explains every answer.
//!
//! Each file is a register whose state is its kept versions. An order explains a history if every operation takes
//! effect at one moment between its beginning and its end (Herlihy and Wing 1990: linearizability, which is local, so
//! that files are judged one by one). An operation without an answer may take effect at any moment after its beginning,
//! or never. The search is Wing and Gong's with Lowe's memory of the states already tried.
//!
//! That one rule holds all that is promised of files: an acknowledged put is in every later answer with its bytes until
//! it is deleted or five newer ones came, versions are numbered without gaps in the order of their effects, a deleted
//! file stays away, a put is done once, no answer is older than one that was given before.
//!
//! Bounds: [`STATES_MAX`] states a file; a file that needs more is reported, not passed.

use std::collections::{BTreeMap, HashSet};

use idunno_shared::ids::Digest;
use idunno_shared::wire::control::VERSIONS_KEPT;

use super::Violation;
use crate::history::{Call, End, Operation, Reply, line, versions_line};

/// Most states that are tried for one file.
const STATES_MAX: usize = 300_000;
const PROMISE: &str = "files are linearizable";
/// Operations shown around the place where no order goes on.
const SHOWN: usize = 8;

/// Kept versions of a file, oldest first; none of a file that is not there.
type State = Vec<(u64, Digest)>;

/// Judges all files of a history, complete or not.
pub(crate) fn check(operations: &[Operation]) -> Vec<Violation> {
    let mut files: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        files.entry(&operation.name).or_default().push(operation);
    }
    files.into_iter().filter_map(|(name, operations)| check_file(name, &operations)).collect()
}

fn check_file(name: &str, operations: &[&Operation]) -> Option<Violation> {
    if let Some(foreign) = foreign_bytes(operations) {
        return Some(Violation::new("only bytes that were put come back", format!("'{name}': {foreign}")));
    }
    let mut entries: Vec<Entry<'_>> =
        operations.iter().filter_map(|operation| Entry::of(operation)).collect();
    entries.sort_by_key(|entry| entry.begun);
    let mut search = Search {
        entries: &entries,
        seen: seen_bytes(operations),
        tried: HashSet::new(),
        best: (0, Vec::new(), Vec::new()),
    };
    match search.explain(&vec![false; entries.len()], &Vec::new()) {
        Verdict::Explained => None,
        Verdict::TooLarge => Some(Violation::new(
            PROMISE,
            format!("'{name}' cannot be judged: {STATES_MAX} states tried, {} operations", entries.len()),
        )),
        Verdict::Impossible => Some(Violation::new(PROMISE, search.why(name))),
    }
}

/// The bytes that some answer showed.
fn seen_bytes(operations: &[&Operation]) -> HashSet<Digest> {
    let replies = operations.iter().filter_map(|operation| operation.end.as_ref()?.outcome.as_ref().ok());
    let seen = replies.flat_map(|reply| match reply {
        Reply::Found { bytes, .. } => vec![*bytes],
        Reply::Kept(versions) => versions.iter().map(|(_, bytes)| *bytes).collect(),
        _ => Vec::new(),
    });
    seen.collect()
}

/// A reply with bytes that no client put under this name.
fn foreign_bytes(operations: &[&Operation]) -> Option<String> {
    let put: HashSet<Digest> = operations
        .iter()
        .filter_map(|operation| match operation.call {
            Call::Put(bytes) => Some(bytes),
            _ => None,
        })
        .collect();
    let foreign = operations.iter().find(|operation| match operation.end.as_ref().map(|end| &end.outcome) {
        Some(Ok(Reply::Found { bytes, .. })) => !put.contains(bytes),
        Some(Ok(Reply::Kept(versions))) => versions.iter().any(|(_, bytes)| !put.contains(bytes)),
        _ => false,
    });
    foreign.map(|operation| line(operation))
}

/// An operation that matters.
struct Entry<'a> {
    call: Call,
    reply: Option<&'a Reply>,
    begun: u64,
    /// Without an answer: never.
    ended: u64,
    operation: &'a Operation,
}

/// What an operation does to a state in which it can take effect.
enum Effect {
    Nothing,
    Becomes(State),
}

impl<'a> Entry<'a> {
    /// A read without an answer says nothing.
    fn of(operation: &'a Operation) -> Option<Self> {
        let (reply, ended) = match &operation.end {
            Some(End { at, outcome: Ok(reply) }) => (Some(reply), *at),
            _ => (None, u64::MAX),
        };
        let is_read = matches!(operation.call, Call::Get | Call::Versions);
        let entry = Self { call: operation.call, reply, begun: operation.begun, ended, operation };
        (reply.is_some() || !is_read).then_some(entry)
    }

    /// The effect in `state`; `None` if the answer cannot come from there.
    fn effect(&self, state: &State) -> Option<Effect> {
        let (fits, effect) = match (self.call, self.reply) {
            (Call::Put(bytes), reply) => {
                let number = state.last().map_or(1, |(newest, _)| newest + 1);
                let fits = match reply {
                    Some(Reply::Committed { version, .. }) => *version == number,
                    reply => reply.is_none(),
                };
                let dropped = (state.len() + 1).saturating_sub(VERSIONS_KEPT);
                let kept = state.iter().copied().skip(dropped);
                (fits, Effect::Becomes(kept.chain([(number, bytes)]).collect()))
            }
            (Call::Get, Some(Reply::Found { version, bytes })) => {
                (state.last() == Some(&(*version, *bytes)), Effect::Nothing)
            }
            (Call::Versions, Some(Reply::Kept(kept))) => {
                (!state.is_empty() && state.iter().rev().eq(kept), Effect::Nothing)
            }
            (Call::Delete, Some(Reply::Deleted { versions })) => {
                let counts = u32::try_from(state.len()).is_ok_and(|count| count == *versions);
                (!state.is_empty() && counts, Effect::Becomes(Vec::new()))
            }
            // Where it would change nothing it may as well never happen.
            (Call::Delete, None) => (!state.is_empty(), Effect::Becomes(Vec::new())),
            (_, Some(Reply::Absent)) => (state.is_empty(), Effect::Nothing),
            _ => (false, Effect::Nothing),
        };
        fits.then_some(effect)
    }
}

enum Verdict {
    Explained,
    Impossible,
    TooLarge,
}

struct Search<'a> {
    entries: &'a [Entry<'a>],
    /// Bytes that some answer showed.
    seen: HashSet<Digest>,
    tried: HashSet<(Vec<bool>, State)>,
    /// How far the best order went: operations, the state behind them, and which they are.
    best: (usize, State, Vec<bool>),
}

impl Search<'_> {
    /// Whether the operations that are not yet `placed` can follow on `state`.
    fn explain(&mut self, placed: &[bool], state: &State) -> Verdict {
        let mut placed = placed.to_vec();
        let candidates = self.place_reads(&mut placed, state);
        if (0..placed.len()).all(|index| placed[index] || self.entries[index].reply.is_none()) {
            return Verdict::Explained;
        }
        if !self.tried.insert((placed.clone(), state.clone())) {
            return Verdict::Impossible;
        }
        if self.tried.len() > STATES_MAX {
            return Verdict::TooLarge;
        }
        let count = placed.iter().filter(|placed| **placed).count();
        if count >= self.best.0 {
            self.best = (count, state.clone(), placed.clone());
        }
        for index in self.worth_trying(candidates) {
            let Some(Effect::Becomes(next)) = self.entries[index].effect(state) else { continue };
            placed[index] = true;
            match self.explain(&placed, &next) {
                Verdict::Impossible => placed[index] = false,
                verdict => return verdict,
            }
        }
        Verdict::Impossible
    }

    /// Places every answer that changes nothing and fits: doing so at once never hinders another. Returns which
    /// operations may come next.
    fn place_reads(&self, placed: &mut [bool], state: &State) -> Vec<usize> {
        loop {
            let candidates = self.candidates(placed);
            let fits = |index: &usize| matches!(self.entries[*index].effect(state), Some(Effect::Nothing));
            let reads: Vec<usize> = candidates.iter().copied().filter(fits).collect();
            if reads.is_empty() {
                return candidates;
            }
            reads.into_iter().for_each(|index| placed[index] = true);
        }
    }

    /// Those that began before every other one that is left had ended.
    fn candidates(&self, placed: &[bool]) -> Vec<usize> {
        let left = || (0..placed.len()).filter(|index| !placed[*index]);
        let horizon = left().map(|index| self.entries[index].ended).min().unwrap_or(u64::MAX);
        left().filter(|index| self.entries[*index].begun <= horizon).collect()
    }

    /// What was answered comes first: mostly what was not has never happened. Of the puts without an answer whose bytes
    /// nobody saw any does as well as any other, now and later, and of such deletes too: one of them is enough.
    fn worth_trying(&self, mut candidates: Vec<usize>) -> Vec<usize> {
        candidates.sort_by_key(|index| self.entries[*index].ended);
        let (mut has_put, mut has_delete) = (false, false);
        candidates.retain(|index| match (self.entries[*index].call, self.entries[*index].reply) {
            (Call::Put(bytes), None) if !self.seen.contains(&bytes) => !std::mem::replace(&mut has_put, true),
            (Call::Delete, None) => !std::mem::replace(&mut has_delete, true),
            _ => true,
        });
        candidates
    }

    fn why(&self, name: &str) -> String {
        let (count, state, placed) = &self.best;
        let mut text = format!(
            "no order explains '{name}': after {count} of {} operations its versions are {}, and of these none that \
             was answered can follow:",
            self.entries.len(),
            versions_line(state)
        );
        let left = (0..placed.len()).filter(|index| !placed[*index]);
        for index in left.take(SHOWN) {
            text = text + "\n      " + &line(self.entries[index].operation);
        }
        text += "\n    placed before them:";
        let before: Vec<usize> = (0..placed.len()).filter(|index| placed[*index]).collect();
        for index in &before[before.len().saturating_sub(SHOWN)..] {
            text = text + "\n      " + &line(self.entries[*index].operation);
        }
        text
    }
}

#[cfg(test)]
mod tests;
