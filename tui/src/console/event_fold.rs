//! Repeated events as one: "rebalanced 12 times in 40 s". What is repeated does not push other events out of sight.

use std::collections::BTreeMap;

use super::events::{Event, Repeat};
use super::theme::Tone;
use crate::answer::text;

/// An event that follows an equal one within this time is folded into it.
const FOLD_MS: u64 = 60_000;

/// One event, or several that are one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoldedEvent {
    /// The number of the first of them, which stays the same when another is folded in.
    pub first: u64,
    /// The number of the last of them.
    pub number: u64,
    /// The time of the last of them, in milliseconds since the epoch.
    pub at_ms: u64,
    pub tone: Tone,
    pub kind: &'static str,
    pub text: String,
}

/// Events that are folded, oldest first.
struct Group<'a> {
    events: Vec<&'a Event>,
}

impl Group<'_> {
    fn last(&self) -> Option<&Event> {
        self.events.last().copied()
    }

    fn folded(&self) -> Option<FoldedEvent> {
        let (first, last) = (self.events.first()?, self.last()?);
        let count = self.events.len();
        let span = text::seconds((last.at_ms.saturating_sub(first.at_ms) / 1000).max(1) as f64);
        let text = match last.repeat {
            Some(_) if count == 1 => last.text.clone(),
            Some(Repeat::Rebalance) => {
                format!("rebalanced {count} times in {span}: {}", shares(&last.text))
            }
            Some(Repeat::DeadLetters(job)) => {
                let queries = self.events.iter().map(|event| event.amount).sum();
                format!("{job}: {} failed permanently in {span}", text::queries(queries))
            }
            Some(Repeat::Server(_)) => format!("{}, after {count} changes in {span}", last.text),
            None => last.text.clone(),
        };
        let (first, number, at_ms) = (first.number, last.number, last.at_ms);
        Some(FoldedEvent { first, number, at_ms, tone: last.tone, kind: last.kind, text })
    }
}

/// Who has which share now: the text without its reason, and without who serves whom.
fn shares(text: &str) -> &str {
    let text = text.split_once(": ").map_or(text, |(_, shares)| shares);
    text.split_once("; ").map_or(text, |(shares, _)| shares)
}

/// The events with repeated ones folded, oldest first; a folded one stands where the last of them did.
pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<FoldedEvent> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut open: BTreeMap<Repeat, usize> = BTreeMap::new();
    for event in events {
        let group = event.repeat.and_then(|repeat| open.get(&repeat).copied());
        let continued = group.and_then(|index| groups.get_mut(index)).filter(|group| {
            group.last().is_some_and(|last| event.at_ms.saturating_sub(last.at_ms) <= FOLD_MS)
        });
        if let Some(group) = continued {
            group.events.push(event);
            continue;
        }
        if let Some(repeat) = event.repeat {
            open.insert(repeat, groups.len());
        }
        groups.push(Group { events: vec![event] });
    }
    let mut folded: Vec<FoldedEvent> = groups.iter().filter_map(Group::folded).collect();
    folded.sort_by_key(|event| event.number);
    folded
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::JobId;

    use super::*;
    use crate::console::events::Events;

    fn texts(events: &Events) -> Vec<String> {
        fold(&events.list).into_iter().map(|event| event.text).collect()
    }

    #[test]
    fn repeated_events_are_one_line_and_hide_no_death() {
        let mut events = Events::default();
        let share = |percent| format!("rebalanced: job-1 {percent} % of workers; m1 now serves job-1");
        events.record_repeated(0, Tone::Plain, "sharing", share(10), Repeat::Rebalance, 1);
        assert_eq!(texts(&events), [share(10)], "once is told in full");
        events.record(5_000, Tone::Bad, "member", "m4 is dead");
        for second in 1..=40 {
            events.record_repeated(
                second * 1000,
                Tone::Plain,
                "sharing",
                share(second),
                Repeat::Rebalance,
                1,
            );
        }
        assert_eq!(texts(&events), ["m4 is dead", "rebalanced 41 times in 40 s: job-1 40 % of workers"]);
        events.record_repeated(101_001, Tone::Plain, "sharing", share(50), Repeat::Rebalance, 1);
        assert_eq!(texts(&events).len(), 3, "after a minute without one, it is another");
    }

    #[test]
    fn amounts_are_added_up_and_subjects_are_kept_apart() {
        let mut events = Events::default();
        let dead = |events: &mut Events, second: u64, job, amount| {
            let (job, repeat) = (JobId(job), Repeat::DeadLetters(JobId(job)));
            let text = format!("{job}: {} failed permanently", text::queries(amount));
            events.record_repeated(second * 1000, Tone::Bad, "job", text, repeat, amount);
        };
        dead(&mut events, 1, 3, 6);
        dead(&mut events, 2, 4, 1);
        dead(&mut events, 4, 3, 2);
        assert_eq!(
            texts(&events),
            ["job-4: 1 query failed permanently", "job-3: 8 queries failed permanently in 3 s"]
        );
    }
}
