use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::ids::{Digest, NodeId, Term, UploadId};
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{Change, NewFile};

use super::inventory::Page;
use super::*;
use crate::machine::Machine;
use crate::metadata::{Action, Command, HOLDERS_PER_BLOB_MAX, HolderChange, State};
use crate::uploads::DeletionPermit;

const FREE: u64 = 100 << 30;

fn node(id: u64) -> NodeId {
    NodeId(id)
}

fn candidates(nodes: std::ops::Range<u64>) -> Vec<Candidate> {
    nodes.map(|id| Candidate { node: node(id), free_bytes: FREE }).collect()
}

fn members(live: &[u64], absent: &[u64]) -> Members {
    Members {
        live: live.iter().map(|id| (node(*id), FREE)).collect(),
        absent: absent.iter().map(|id| (node(*id), Instant::START)).collect(),
    }
}

fn apply(state: &mut State, action: Action) {
    state.apply(&Command { at_ms: 0, op: None, action, upload: None, by: None }).unwrap();
}

fn put(state: &mut State, name: &str, holders: &[u64]) -> Digest {
    let digest = Digest::of(name.as_bytes());
    let holders = holders.iter().map(|id| node(*id)).collect();
    let extents = vec![(BlobRef { digest, size: 10 }, holders)];
    let file = NewFile { name: name.parse().unwrap(), size: 10, digest, extents };
    let change = Change::CommitFiles { upload: UploadId::default(), files: vec![file] };
    apply(state, Action::Change(change));
    digest
}

fn delete(state: &mut State, name: &str) {
    apply(state, Action::Change(Change::Delete { name: name.parse().unwrap() }));
}

fn planner() -> ReplicationPlanner {
    ReplicationPlanner::new(ReplicationConfig::default(), 1)
}

fn snapshot(state: &State, members: &Members) -> StoreSnapshot {
    StoreSnapshot { state: Arc::new(state.clone()), members: members.clone() }
}

fn handle(planner: &mut ReplicationPlanner, event: ReplicationEvent, now: Instant) -> Vec<ReplicationEffect> {
    planner.handle(event, now);
    planner.check().unwrap();
    std::iter::from_fn(|| planner.poll_effect()).collect()
}

/// Reads a page of each live member's inventory, one that shows nothing.
fn settle(planner: &mut ReplicationPlanner, state: &State, members: &Members) {
    for &node in members.live.keys() {
        ask(planner, state, node, None);
        let page = Page { node, digests: &[], after: None, last: false };
        assert_eq!(read(planner, state, members, page), Reconciled::default());
    }
}

fn plan(planner: &mut ReplicationPlanner, state: &State, members: &Members, now: Instant) -> Vec<CopyTask> {
    settle(planner, state, members);
    let copy = |effect| match effect {
        ReplicationEffect::Copy(task) => task,
        effect => panic!("{effect:?}"),
    };
    handle(planner, ReplicationEvent::Observed(snapshot(state, members)), now).into_iter().map(copy).collect()
}

fn end_copy(planner: &mut ReplicationPlanner, task: &CopyTask, ok: bool, now: Instant) {
    let event = ReplicationEvent::CopyEnded { digest: task.blob.digest, target: task.target, ok };
    assert_eq!(handle(planner, event, now), []);
}

fn trim(planner: &mut ReplicationPlanner, state: &State, members: &Members) -> Vec<HolderChange> {
    match &handle(planner, ReplicationEvent::TrimDue(snapshot(state, members)), later(0))[..] {
        [] => Vec::new(),
        [ReplicationEffect::Trim(trims)] => trims.clone(),
        effects => panic!("{effects:?}"),
    }
}

fn garbage(planner: &mut ReplicationPlanner, state: &State, members: &Members) -> Garbage {
    match &handle(planner, ReplicationEvent::GarbageDue(snapshot(state, members)), later(0))[..] {
        [] => Garbage::default(),
        [ReplicationEffect::Forget(garbage)] => garbage.clone(),
        effects => panic!("{effects:?}"),
    }
}

/// The number of the order to delete a blob, if one is given.
fn order(
    planner: &mut ReplicationPlanner,
    state: &State,
    members: &Members,
    node: NodeId,
    digest: Digest,
) -> Option<u64> {
    let permit = DeletionPermit { node, generation: 1, watermark: UploadId::default() };
    let snapshot = snapshot(state, members);
    let event = ReplicationEvent::DeletionDue { snapshot, permit, digests: vec![digest] };
    match &handle(planner, event, later(0))[..] {
        [] => None,
        [ReplicationEffect::Delete { order, digests, .. }] if *digests == [digest] => Some(*order),
        effects => panic!("{effects:?}"),
    }
}

/// Asks a member for a page, and returns the number below which its orders to delete are void.
fn ask(planner: &mut ReplicationPlanner, state: &State, node: NodeId, after: Option<Digest>) -> u64 {
    let event = ReplicationEvent::InventoryDue { state: Arc::new(state.clone()), node, after };
    match handle(planner, event, later(0))[..] {
        [ReplicationEffect::AskInventory { node: asked, after: asked_after, void_below }] => {
            assert_eq!((asked, asked_after), (node, after));
            void_below
        }
        ref effects => panic!("{effects:?}"),
    }
}

fn read(planner: &mut ReplicationPlanner, state: &State, members: &Members, page: Page<'_>) -> Reconciled {
    let Page { node, digests, after, last } = page;
    let (snapshot, digests) = (snapshot(state, members), digests.to_vec());
    let event = ReplicationEvent::InventoryRead { snapshot, node, digests, after, last };
    match &handle(planner, event, later(0))[..] {
        [ReplicationEffect::Reconcile { node: read, reconciled }] if *read == node => reconciled.clone(),
        effects => panic!("{effects:?}"),
    }
}

fn later(seconds: u64) -> Instant {
    Instant::START + Duration::from_secs(seconds)
}

#[test]
fn a_member_that_comes_or_goes_moves_only_its_share() {
    let (ten, nine) = (candidates(0..10), candidates(0..9));
    let mut moved = 0;
    for number in 0..2000u32 {
        let digest = Digest::of(&number.to_le_bytes());
        let before = choose(&digest, &ten, &[], 4);
        let after = choose(&digest, &nine, &[], 4);
        assert_eq!(after, choose(&digest, &ten, &[node(9)], 4));
        assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 4);
        let new = after.iter().filter(|id| !before.contains(id)).count();
        assert_eq!(new, usize::from(before.contains(&node(9))), "only a lost member is replaced");
        moved += new;
    }
    assert!((700..900).contains(&moved), "{moved} of 2000 blobs should have lost one of 4 among 10");
}

#[test]
fn free_space_is_weighed_coarsely_and_full_members_come_last() {
    let mut wide = candidates(0..4);
    wide[0].free_bytes = 4 * FREE;
    let first = |set: &[Candidate]| {
        let mut counts = BTreeMap::new();
        for number in 0..4000u32 {
            *counts.entry(choose(&Digest::of(&number.to_le_bytes()), set, &[], 1)[0]).or_insert(0) += 1;
        }
        counts
    };
    let share = first(&wide)[&node(0)];
    assert!((2150..2450).contains(&share), "{share} of 4000 for 4 parts of 7");
    let mut changed = candidates(0..4);
    changed[2].free_bytes -= 10 << 30;
    assert_eq!(first(&changed), first(&candidates(0..4)), "a small change moves nothing");
    changed[1].free_bytes = 1 << 20;
    assert!(!first(&changed).contains_key(&node(1)));
    assert_eq!(
        choose(&Digest::default(), &changed, &[], 4)[3],
        node(1),
        "taken all the same when there is no other"
    );
}

#[test]
fn blobs_with_the_fewest_copies_go_first_and_three_copies_wait_for_absent_holders() {
    let mut state = State::new();
    let patient = put(&mut state, "patient", &[1, 2, 3, 4]);
    let urgent = put(&mut state, "urgent", &[1, 4, 5, 6]);
    put(&mut state, "lost", &[4, 5, 6]);
    let mut planner = planner();
    let members = members(&[1, 2, 3, 7], &[4, 5, 6]);
    let tasks = plan(&mut planner, &state, &members, later(1));
    assert!(tasks.iter().all(|task| task.blob.digest == urgent && task.sources == [node(1)]), "{tasks:?}");
    assert_eq!(tasks.len(), 3);
    let figures = planner.figures();
    assert_eq!((figures.under_replicated, figures.unavailable, figures.bytes), (3, 1, 30));
    let tasks = plan(&mut planner, &state, &members, later(11));
    assert_eq!(tasks.len(), 1);
    assert_eq!((tasks[0].blob.digest, tasks[0].target, tasks[0].sources.len()), (patient, node(7), 3));
    assert_eq!(tasks[0].sources.last(), Some(&node(1)), "the busy source comes last");
}

#[test]
fn copies_are_bounded_by_target_and_source_and_failed_ones_are_retried_later() {
    let mut state = State::new();
    for number in 0..50 {
        put(&mut state, &format!("f{number}"), &[1]);
    }
    let mut planner = ReplicationPlanner::new(
        ReplicationConfig { copies_per_member: 3, ..ReplicationConfig::default() },
        1,
    );
    let members = members(&[1, 2], &[]);
    let tasks = plan(&mut planner, &state, &members, later(0));
    assert_eq!(tasks.len(), 3);
    assert!(plan(&mut planner, &state, &members, later(0)).is_empty());
    let failed = tasks[0].blob.digest;
    end_copy(&mut planner, &tasks[0], false, later(0));
    let next = plan(&mut planner, &state, &members, later(0));
    assert!(next.len() == 1 && next[0].blob.digest != failed, "{next:?}");
    for task in tasks[1..].iter().chain(&next) {
        let change = HolderChange { digest: task.blob.digest, add: vec![task.target], remove: vec![] };
        apply(&mut state, Action::Holders(vec![change]));
        end_copy(&mut planner, task, true, later(1));
    }
    assert_eq!(planner.copies_under_way(), 0);
    assert_eq!(planner.figures().under_replicated, 50);
    assert!(plan(&mut planner, &state, &members, later(9)).iter().any(|task| task.blob.digest == failed));
    assert_eq!(planner.figures().under_replicated, 47);
}

#[test]
fn surplus_copies_are_trimmed_only_while_four_others_are_live() {
    let mut state = State::new();
    let digest = put(&mut state, "f", &[1, 2, 3, 4, 5]);
    let mut planner = planner();
    assert!(trim(&mut planner, &state, &members(&[1, 2, 3, 4], &[5])).is_empty());
    let all = members(&[1, 2, 3, 4, 5], &[]);
    let trims = trim(&mut planner, &state, &all);
    assert_eq!((trims.len(), trims[0].remove.len()), (1, 1));
    let surplus_holder = trims[0].remove[0];
    assert_eq!(
        order(&mut planner, &state, &all, surplus_holder, digest),
        None,
        "not before the record is gone"
    );
    apply(&mut state, Action::Holders(trims));
    assert!(order(&mut planner, &state, &all, surplus_holder, digest).is_some());
    assert!(trim(&mut planner, &state, &all).is_empty());
    let mut fewer = all.clone();
    fewer.live.retain(|id, _| *id == surplus_holder || !state.holders(&digest)[..1].contains(id));
    assert_eq!(
        order(&mut planner, &state, &fewer, surplus_holder, digest),
        None,
        "one of the four others is missing"
    );
}

#[test]
fn garbage_is_forgotten_and_then_collected_at_live_members() {
    let mut state = State::new();
    let digest = put(&mut state, "f", &[1, 2]);
    put(&mut state, "kept", &[1, 2]);
    delete(&mut state, "f");
    let mut planner = planner();
    let members = members(&[1], &[2]);
    let found = garbage(&mut planner, &state, &members);
    assert_eq!(found, Garbage { collect: BTreeMap::from([(node(1), vec![digest])]), forget: vec![digest] });
    assert!(order(&mut planner, &state, &members, node(1), digest).is_some());
    assert!(garbage(&mut planner, &state, &members).collect.is_empty(), "ordered once");
    apply(&mut state, Action::Forget(found.forget));
    assert!(state.blob(&digest).is_none());
    assert!(order(&mut planner, &state, &members, node(1), digest).is_some());
    put(&mut state, "f", &[1]);
    assert_eq!(order(&mut planner, &state, &members, node(1), digest), None, "it was stored again");
}

#[test]
fn nothing_is_deleted_before_the_log_refuses_the_commits_of_uploads_that_are_over() {
    let (mut state, mut planner, members) = (State::new(), planner(), members(&[1], &[]));
    let watermark = UploadId { term: Term(1), number: 7 };
    let permit = DeletionPermit { node: node(1), generation: 1, watermark };
    let digests = vec![Digest::of(b"f")];
    let mut due = |state: &State| {
        let digests = digests.clone();
        let event = ReplicationEvent::DeletionDue { snapshot: snapshot(state, &members), permit, digests };
        handle(&mut planner, event, later(0))
    };
    assert_eq!(due(&state), [ReplicationEffect::EndUploads { permit, digests: digests.clone() }]);
    apply(&mut state, Action::EndUploads(watermark));
    assert_eq!(due(&state), [ReplicationEffect::Delete { permit, order: 1, digests: digests.clone() }]);
}

#[test]
fn an_inventory_corrects_the_records() {
    let mut state = State::new();
    let lost = put(&mut state, "lost", &[1, 2]);
    let short = put(&mut state, "short", &[2]);
    let surplus = put(&mut state, "surplus", &[2, 3, 4, 5]);
    let mut planner = planner();
    ask(&mut planner, &state, node(1), None);
    let fresh = put(&mut state, "fresh", &[1, 2]);
    let unknown = Digest::of(b"unknown");
    let mut digests = [short, surplus, unknown];
    digests.sort_unstable();
    let mut members = members(&[1, 2, 3, 4, 5], &[]);
    let page = Page { node: node(1), digests: &digests, after: None, last: true };
    let mut reconciled = read(&mut planner, &state, &members, page);
    reconciled.collect.sort_unstable();
    let mut unwanted = vec![surplus, unknown];
    unwanted.sort_unstable();
    assert_eq!(reconciled, Reconciled { add: vec![short], remove: vec![lost], collect: unwanted });
    assert_eq!(read(&mut planner, &state, &members, page), Reconciled::default(), "it was asked for once");

    ask(&mut planner, &state, node(1), None);
    let number = order(&mut planner, &state, &members, node(1), surplus).unwrap();
    members.live.remove(&node(5));
    assert_eq!(read(&mut planner, &state, &members, page).add, [short], "the other is being deleted there");
    ask(&mut planner, &state, node(1), None);
    let answered = ReplicationEvent::DeletionEnded { node: node(1), order: number, digests: vec![surplus] };
    assert_eq!(handle(&mut planner, answered, later(0)), []);
    assert_eq!(read(&mut planner, &state, &members, page).add, [short], "the other was deleted since");
    ask(&mut planner, &state, node(1), None);
    let empty = Page { digests: &[], last: false, ..page };
    assert_eq!(read(&mut planner, &state, &members, empty), Reconciled::default());
    ask(&mut planner, &state, node(1), None);
    let later_page = Page { digests: &[], after: Some(lost.max(fresh)), ..page };
    assert!(!read(&mut planner, &state, &members, later_page).remove.contains(&lost), "not of this page");
}

#[test]
fn the_pages_of_one_inventory_leave_each_others_orders_valid() {
    let mut state = State::new();
    let mut planner = planner();
    let members = members(&[1], &[]);
    let unknown = Digest::of(b"unknown");
    ask(&mut planner, &state, node(1), None);
    let first = Page { node: node(1), digests: &[unknown], after: None, last: false };
    assert_eq!(read(&mut planner, &state, &members, first).collect, [unknown]);
    let number = order(&mut planner, &state, &members, node(1), unknown).unwrap();
    assert!(ask(&mut planner, &state, node(1), Some(unknown)) <= number, "the order may still be on its way");
    // Someone stores it again meanwhile.
    let wanted = put(&mut state, "unknown", &[2]);
    assert_eq!(wanted, unknown);
    read(&mut planner, &state, &members, Page { digests: &[], after: Some(unknown), last: true, ..first });
    let again = |planner: &mut ReplicationPlanner| {
        let void_below = ask(planner, &state, node(1), None);
        (void_below, read(planner, &state, &members, Page { last: true, ..first }).add)
    };
    let (void_below, add) = again(&mut planner);
    assert!(void_below > number, "the next inventory settles it");
    assert_eq!(add, [unknown]);
}

#[test]
fn a_member_whose_copies_all_fail_gets_none_for_a_while() {
    let mut state = State::new();
    for number in 0..500 {
        put(&mut state, &format!("f{number}"), &[1]);
    }
    let mut planner = planner();
    let (members, mut tried) = (members(&[1, 2, 3], &[]), 0);
    for step in 0..100 {
        let now = Instant::START + Duration::from_millis(step);
        for task in plan(&mut planner, &state, &members, now) {
            tried += usize::from(task.target == node(2));
            end_copy(&mut planner, &task, task.target == node(3), now);
        }
    }
    assert!(tried <= 16, "{tried} copies were tried at a member whose copies fail");
    let again = plan(&mut planner, &state, &members, later(6));
    assert!(again.iter().any(|task| task.target == node(2)), "it is tried again after the pause");
}

/// Found by the simulator: the coordinator restarted in its term, and an order of before deleted a copy made since.
#[test]
fn a_member_gets_no_copy_before_it_has_voided_the_orders_of_earlier_coordinators() {
    let (mut state, mut planner, members) = (State::new(), planner(), members(&[1, 2], &[]));
    put(&mut state, "f", &[1]);
    let observed = || ReplicationEvent::Observed(snapshot(&state, &members));
    assert_eq!(handle(&mut planner, observed(), later(0)), []);
    settle(&mut planner, &state, &members);
    assert!(matches!(handle(&mut planner, observed(), later(0))[..], [ReplicationEffect::Copy(_)]));
}

#[test]
fn a_full_member_gets_no_copy() {
    let mut state = State::new();
    put(&mut state, "f", &[1]);
    let mut members = members(&[1, 2, 3], &[]);
    members.live.insert(node(2), 0);
    let tasks = plan(&mut planner(), &state, &members, later(0));
    assert_eq!(tasks.iter().map(|task| task.target).collect::<Vec<_>>(), [node(3)]);
}

#[test]
fn records_of_members_long_gone_are_dropped_once_all_copies_exist() {
    let mut state = State::new();
    let gone: Vec<u64> = (100..100 + HOLDERS_PER_BLOB_MAX as u64).collect();
    let digest = put(&mut state, "f", &gone);
    for live in 1..=4 {
        let add = HolderChange { digest, add: vec![node(live)], remove: vec![] };
        apply(&mut state, Action::Holders(vec![add]));
        assert!(state.holders(&digest).contains(&node(live)), "a new copy is always recorded");
    }
    let (mut planner, members) = (planner(), members(&[1, 2, 3, 4], &[]));
    let trims = trim(&mut planner, &state, &members);
    apply(&mut state, Action::Holders(trims));
    assert_eq!(state.holders(&digest), [node(1), node(2), node(3), node(4)]);
    let few = put(&mut state, "g", &[1, 2, 3, 4, 100]);
    assert!(trim(&mut planner, &state, &members).is_empty(), "{:?} may still come back", state.holders(&few));
}
