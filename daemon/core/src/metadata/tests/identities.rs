//! Identities that were seen, and names that are revoked.

use idunno_shared::access::{Grant, Issued, NAMES_MAX, Role, SubjectName};
use idunno_shared::wire::blobs::COPIES;
use idunno_shared::wire::control::{
    CERTIFICATES_PER_NAME_MAX, IDENTITIES_PER_PAGE_MAX, NewPackage, PackageSummary, Period,
};

use super::*;

fn subject(text: &str) -> SubjectName {
    text.parse().unwrap()
}

fn asked_by(name: &str, role: Role) -> AskedBy {
    AskedBy { name: subject(name), role, gone: Vec::new() }
}

fn issued(name: &str, certificate: u64, ends_ms: u64) -> Issued {
    let grant = Grant { name: subject(name), role: Role::Viewer, prefixes: Vec::new() };
    Issued { certificate: Digest::of(&certificate.to_be_bytes()), grant, ends_ms }
}

fn revoke(name: &str, unseen: bool) -> Change {
    Change::RevokeIdentity { name: subject(name), unseen }
}

fn delete_by(by: &str, op: u64, path: &str) -> Command {
    let action = Action::Change(Change::Delete { name: name(path) });
    Command { at_ms: 0, op: Some(OpId(op, 0)), action, upload: None, by: Some(asked_by(by, Role::Operator)) }
}

#[test]
fn a_change_of_a_revoked_identity_is_refused_however_it_got_into_the_log() {
    let mut fixture = Fixture::default();
    fixture.apply(commit(vec![file("a/1", "one"), file("a/2", "two")])).unwrap();
    fixture.apply(Action::NoteIdentity(issued("anna", 1, 9))).unwrap();
    let before = fixture.apply_command(&delete_by("anna", 1, "a/1")).unwrap();
    fixture.change(revoke("anna", false)).unwrap();
    let refused = fixture.apply_command(&delete_by("anna", 2, "a/2")).unwrap_err();
    assert_eq!(refused.code, RefusalCode::Forbidden);
    assert!(refused.message.contains("'anna' was revoked"), "{refused}");
    assert!(fixture.state.file(&name("a/2")).is_some());
    assert_eq!(fixture.apply_command(&delete_by("anna", 1, "a/1")), Ok(before), "it was made before");
    fixture.apply_command(&delete_by("ben", 3, "a/2")).unwrap();
}

#[test]
fn a_revocation_is_final_survives_a_snapshot_and_may_be_repeated() {
    let mut fixture = Fixture { now_ms: 5, ..Fixture::default() };
    let action = Action::Change(revoke("anna", true));
    let command =
        Command { at_ms: 5, op: None, action, upload: None, by: Some(asked_by("olga", Role::Operator)) };
    fixture.apply_command(&command).unwrap();
    fixture.now_ms = 9;
    fixture.change(revoke("anna", false)).unwrap();
    let bytes = rmp_serde::to_vec(&Snapshot::from(fixture.state.clone())).unwrap();
    let restored = State::from(rmp_serde::from_slice::<Snapshot>(&bytes).unwrap());
    assert_eq!(restored, fixture.state);
    let revocation = &restored.revoked()[&subject("anna")];
    assert_eq!((revocation.at_ms, revocation.by.clone()), (5, Some(subject("olga"))), "the first one counts");
}

#[test]
fn a_name_that_nobody_has_used_is_revoked_only_on_purpose() {
    let mut fixture = Fixture::default();
    fixture.apply(Action::NoteIdentity(issued("anna", 1, 9))).unwrap();
    let refused = fixture.change(revoke("ana", false)).unwrap_err();
    assert_eq!(refused.code, RefusalCode::NotFound);
    fixture.change(revoke("ana", true)).unwrap();
    fixture.change(revoke("anna", false)).unwrap();
    assert_eq!(fixture.change(revoke("secret-holder", true)).unwrap_err().code, RefusalCode::Invalid);
}

#[test]
fn identities_are_listed_by_name_with_what_is_known_of_them() {
    let mut fixture = Fixture { now_ms: 3, ..Fixture::default() };
    for (name, certificate, ends_ms) in [("ben", 1, 50), ("anna", 2, 90), ("anna", 3, 40), ("anna", 2, 90)] {
        fixture.apply(Action::NoteIdentity(issued(name, certificate, ends_ms))).unwrap();
    }
    fixture.apply(Action::NoteIdentity(issued("secret-holder", 4, 9))).unwrap();
    fixture.change(revoke("ben", false)).unwrap();
    fixture.change(revoke("carl", true)).unwrap();
    let listed = |after: Option<&str>, limit| {
        let (rows, more) = fixture.state.identities(after.map(subject).as_ref(), limit);
        let row = |row: &NamedIdentity| {
            let ends: Vec<u64> = row.certificates.iter().map(|seen| seen.issued.ends_ms).collect();
            (row.name.to_string(), ends, row.revoked.is_some())
        };
        (rows.iter().map(row).collect::<Vec<_>>(), more)
    };
    let anna = (String::from("anna"), vec![40, 90], false);
    let (ben, carl) = ((String::from("ben"), vec![50], true), (String::from("carl"), vec![], true));
    assert_eq!(listed(None, 9), (vec![anna.clone(), ben.clone(), carl.clone()], false));
    assert_eq!(listed(None, 1), (vec![anna], true));
    assert_eq!(listed(Some("anna"), 2), (vec![ben, carl], false));
}

#[test]
fn lists_are_bounded_and_what_has_ended_makes_room() {
    let mut state = State::new();
    let apply = |state: &mut State, at_ms, action| {
        state.apply(&Command { at_ms, op: None, action, upload: None, by: None })
    };
    for number in 0..NAMES_MAX as u64 {
        let ends_ms = if number == 7 { 50 } else { 1_000 };
        apply(&mut state, 1, Action::NoteIdentity(issued(&format!("n{number}"), number, ends_ms))).unwrap();
    }
    let one_more = Action::NoteIdentity(issued("late", 1, 1_000));
    assert_eq!(apply(&mut state, 40, one_more.clone()).unwrap_err().code, RefusalCode::Conflict);
    apply(&mut state, 60, one_more).unwrap();
    assert!(state.has_seen(&issued("late", 1, 1_000)) && !state.has_seen(&issued("n7", 7, 50)));
    for certificate in 0..20 {
        apply(&mut state, 60, Action::NoteIdentity(issued("late", certificate, 2_000 + certificate)))
            .unwrap();
    }
    let (rows, _) = state.identities(Some(&subject("la")), 1);
    let ends: Vec<u64> = rows[0].certificates.iter().map(|seen| seen.issued.ends_ms).collect();
    assert_eq!(ends.len(), CERTIFICATES_PER_NAME_MAX);
    assert_eq!((ends[0], ends.last()), (2_012, Some(&2_019)), "those that end last");
    assert_eq!(state.identities(None, u32::MAX).0.len(), IDENTITIES_PER_PAGE_MAX);
    for number in 0..NAMES_MAX {
        apply(&mut state, 60, Action::Change(revoke(&format!("r{number}"), true))).unwrap();
    }
    let beyond = apply(&mut state, 60, Action::Change(revoke("beyond", true))).unwrap_err();
    assert_eq!(beyond.code, RefusalCode::Conflict);
    state.check().unwrap();
}

#[test]
fn a_job_belongs_to_whoever_added_it() {
    let mut fixture = Fixture::with_job(1);
    assert_eq!(fixture.job().owner, None);
    let (model, dataset) = ("mnist-mlp".parse().unwrap(), "data".parse().unwrap());
    let add = Change::AddJob { model, dataset, batch_size: 4.into(), options: JobOptions::default() };
    let (by, action) = (Some(subject("anna")), Action::Change(add));
    let asked = asked_by("anna", Role::Submitter);
    fixture.apply_command(&Command { at_ms: 0, op: None, action, upload: None, by: Some(asked) }).unwrap();
    let job = fixture.state.job(JobId(2)).unwrap();
    assert_eq!((&job.owner, job.view(0, 0).details.owner), (&by, by.clone()));
    // Others may steer it, which changes nothing about that.
    fixture.change(Change::start(JobId(2))).unwrap();
    fixture.change(Change::SetWeight { job: JobId(2), weight: 5 }).unwrap();
    assert_eq!(fixture.state.job(JobId(2)).unwrap().owner, by);
}

#[test]
fn a_submitter_cannot_make_copies_of_others_look_surplus() {
    let mut fixture = Fixture::default();
    fixture.apply(commit(vec![file("theirs", "content"), file("other", "more")])).unwrap();
    let digest = Digest::of(b"content");
    let before = fixture.state.holders(&digest).to_vec();
    assert_eq!(before.len(), COPIES);
    let lie = |path: &str, content: &str, holders: &[u64]| {
        let extents = vec![extent(content, holders)];
        NewFile { name: name(path), size: content.len() as u64, digest: extents[0].0.digest, extents }
    };
    let commit_as = |role, file| {
        let action = commit(vec![file]);
        Command { at_ms: 0, op: None, action, upload: None, by: Some(asked_by("anna", role)) }
    };
    fixture.apply_command(&commit_as(Role::Submitter, lie("a/1", "content", &[5, 6, 7, 8]))).unwrap();
    assert_eq!(
        fixture.state.holders(&digest),
        before,
        "they would be trimmed in favour of copies that do not exist"
    );
    // What lacks copies may gain them, and what is new has those that were stored.
    let gone = HolderChange { digest, add: vec![], remove: vec![before[0], before[1]] };
    fixture.apply(Action::Holders(vec![gone])).unwrap();
    fixture.apply_command(&commit_as(Role::Submitter, lie("a/2", "content", &[5, 6, 7, 8]))).unwrap();
    assert_eq!(fixture.state.holders(&digest).len(), COPIES);
    assert!(before[2..].iter().all(|node| fixture.state.holders(&digest).contains(node)));
    fixture.apply_command(&commit_as(Role::Submitter, lie("a/3", "new", &[1, 2, 3, 4]))).unwrap();
    assert_eq!(fixture.state.holders(&Digest::of(b"new")).len(), COPIES);
    // Not by saying it again and again, either.
    let again: Vec<_> = [5, 6, 7, 8].map(|node| extent("more", &[node])).into();
    let size = again.iter().map(|(blob, _)| blob.size).sum();
    let many = NewFile { name: name("a/4"), size, digest, extents: again };
    fixture.apply_command(&commit_as(Role::Submitter, many)).unwrap();
    assert_eq!(fixture.state.holders(&Digest::of(b"more")).len(), COPIES);
    // Copies of members that are not up do not count against those that it has stored.
    let full = fixture.state.holders(&digest).to_vec();
    let file = lie("a/5", "content", &[21, 22, 23, 24]);
    let mut after_deaths = commit_as(Role::Submitter, file);
    let Action::Change(change) = &after_deaths.action else { panic!("{after_deaths:?}") };
    let gone = fixture.state.gone_holders(change, |node| node != full[0] && node != full[1]);
    assert_eq!(gone, full[..2]);
    // The same of a package with these bytes.
    let summary = PackageSummary { runtime: String::from("python"), files: 0, bytes: 0 };
    let package = NewPackage { summary, extents: vec![extent("content", &[21])] };
    let upload = UploadId { term: Term(1), number: 1 };
    let adds = Change::AddModel { upload, model: "mine".parse().unwrap(), package, unchecked: true };
    assert_eq!(fixture.state.gone_holders(&adds, |node| node != full[0]), full[..1]);
    after_deaths.by = after_deaths.by.map(|by| AskedBy { gone, ..by });
    fixture.apply_command(&after_deaths).unwrap();
    let believed: Vec<NodeId> =
        fixture.state.holders(&digest).iter().copied().filter(|node| node.0 > 20).collect();
    assert_eq!(believed, [NodeId(21), NodeId(22)]);
    // An operator is believed.
    fixture.apply_command(&commit_as(Role::Operator, lie("b/1", "more", &[5, 6]))).unwrap();
    assert_eq!(fixture.state.holders(&Digest::of(b"more")).len(), COPIES + 2);
}

#[test]
fn identities_that_end_soon_are_found_without_the_others() {
    let mut fixture = Fixture::default();
    for number in 0..2 * IDENTITIES_PER_PAGE_MAX as u64 {
        fixture.apply(Action::NoteIdentity(issued(&format!("n{number:04}"), number, 1_000))).unwrap();
    }
    let others = [("ended", 9), ("ending", 100), ("replaced", 100), ("revoked", 100)];
    for (certificate, (name, ends_ms)) in (10_000..).zip(others) {
        fixture.apply(Action::NoteIdentity(issued(name, certificate, ends_ms))).unwrap();
    }
    fixture.apply(Action::NoteIdentity(issued("replaced", 20_000, 900))).unwrap();
    fixture.change(revoke("revoked", false)).unwrap();
    let period = Period { after_ms: 9, until_ms: 100 };
    let (found, more) = fixture.state.identities_ending(period, None, 9);
    let names: Vec<&str> = found.iter().map(|named| named.name.as_str()).collect();
    assert_eq!((names, more), (vec!["ending"], false));
    let all = Period { after_ms: 9, until_ms: 1_000 };
    let (first, more) = fixture.state.identities_ending(all, None, 3);
    assert_eq!((first.len(), more), (3, true));
    let (rest, more) = fixture.state.identities_ending(all, first.last().map(|last| &last.name), 1);
    assert!(rest[0].name > first[2].name && more);
}
