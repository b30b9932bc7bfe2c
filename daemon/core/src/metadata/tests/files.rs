//! Files, versions, blobs, and the outcomes of operations.

use super::*;

#[test]
fn five_versions_are_kept_and_their_blobs_referenced() {
    let mut fixture = Fixture::default();
    for version in 1..=7 {
        let applied = fixture.apply(commit(vec![file("a", &format!("v{version}"))])).unwrap();
        assert_eq!(applied, Applied::Changed(Changed::Files(vec![(version, 4)])));
    }
    let numbers = |fixture: &Fixture| -> Vec<u64> {
        fixture.state.versions(&name("a"), 9).unwrap().iter().map(|version| version.number).collect()
    };
    assert_eq!(numbers(&fixture), [7, 6, 5, 4, 3]);
    assert_eq!((fixture.references("v2"), fixture.references("v3")), (Some(0), Some(1)));
    fixture.apply(commit(vec![file("b", "v7")])).unwrap();
    assert_eq!(fixture.change(Change::Delete { name: name("a") }), Ok(Changed::Deleted { versions: 5 }));
    assert_eq!((fixture.references("v7"), fixture.references("v6")), (Some(1), Some(0)));
    assert_eq!(code(fixture.change(Change::Delete { name: name("a") })), RefusalCode::NotFound);
}

#[test]
fn a_commit_is_all_or_nothing() {
    let mut fixture = Fixture::default();
    fixture.apply(commit(vec![file("a", "one")])).unwrap();
    let mut short = file("c", "three");
    short.size = 4;
    let mut unheld = file("c", "three");
    unheld.extents[0].1.clear();
    let mut large = file("c", "three");
    large.size = EXTENT_BYTES_MAX + 1;
    large.extents[0].0.size = large.size;
    let mut resized = file("c", "one");
    (resized.size, resized.extents[0].0.size) = (4, 4);
    for bad in [short, unheld, large, resized] {
        assert_eq!(code(fixture.apply(commit(vec![file("b", "two"), bad]))), RefusalCode::Invalid);
        assert_eq!(fixture.state.file_count(), 1);
    }
    assert_eq!(code(fixture.apply(commit(vec![]))), RefusalCode::Invalid);
    let empty = NewFile { name: name("empty"), size: 0, digest: Digest::of(b""), extents: vec![] };
    assert!(fixture.apply(commit(vec![empty])).is_ok());
}

#[test]
fn an_operation_is_applied_once_and_a_refused_one_may_be_repeated() {
    let mut fixture = Fixture::default();
    let op = Some(OpId(1, 2));
    let delete = Action::Change(Change::Delete { name: name("a") });
    assert!(fixture.apply_as(op, delete.clone()).is_err());
    fixture.apply(commit(vec![file("a", "one")])).unwrap();
    let done = fixture.apply_as(op, delete.clone());
    fixture.apply(commit(vec![file("a", "two")])).unwrap();
    let revision = fixture.state.revision();
    assert_eq!(fixture.apply_as(op, delete), done);
    assert_eq!((fixture.state.revision(), fixture.state.file_count()), (revision, 1));
}

#[test]
fn a_commit_whose_upload_is_over_is_refused_when_it_is_applied() {
    let mut fixture = Fixture::default();
    let upload = |number| UploadId { term: Term(2), number };
    let put = |number, name: &str| {
        let change = Change::CommitFiles { upload: upload(number), files: vec![file(name, name)] };
        Command {
            at_ms: 0,
            op: Some(OpId(number, 0)),
            action: Action::Change(change),
            upload: None,
            by: None,
        }
    };
    let made = fixture.apply_command(&put(1, "a"));
    fixture.apply(Action::EndUploads(upload(3))).unwrap();
    fixture.apply(Action::EndUploads(upload(2))).unwrap();
    assert_eq!(fixture.state.upload_watermark(), upload(3), "it never goes back");
    assert_eq!(fixture.apply_command(&put(1, "a")), made, "it was made before");
    assert_eq!(code(fixture.apply_command(&put(2, "b"))), RefusalCode::UploadOver);
    assert!(fixture.apply_command(&put(3, "b")).is_ok());
    // Rows, models and merged results name their upload beside the action.
    let delete = Action::Change(Change::Delete { name: name("a") });
    let beside = |number| Command {
        at_ms: 0,
        op: None,
        action: delete.clone(),
        upload: Some(upload(number)),
        by: None,
    };
    assert_eq!(code(fixture.apply_command(&beside(2))), RefusalCode::UploadOver);
    assert!(fixture.apply_command(&beside(3)).is_ok());
}

#[test]
fn outcomes_are_kept_for_a_minute_however_many_there_are() {
    let mut operations = operations::Operations::default();
    for number in 0..2 * OPERATIONS_KEPT as u64 {
        operations.keep(OpId(0, number), &Applied::Done, 1_000);
    }
    operations.keep(OpId(1, 0), &Applied::Done, 1_000 + KEPT_MS - 1);
    assert!(operations.outcome(OpId(0, 0)).is_some(), "its client may repeat it");
    operations.keep(OpId(1, 1), &Applied::Done, 1_000 + KEPT_MS);
    operations.check().unwrap();
    let first = OPERATIONS_KEPT as u64 + 2;
    assert!(operations.outcome(OpId(0, first - 1)).is_none() && operations.outcome(OpId(0, first)).is_some());
}

#[test]
fn outcomes_are_bounded() {
    let mut operations = operations::Operations::default();
    for number in 0..OPERATIONS_MAX as u64 + 5 {
        operations.keep(OpId(0, number), &Applied::Done, 0);
    }
    assert!(operations.outcome(OpId(0, 4)).is_none() && operations.outcome(OpId(0, 5)).is_some());
    operations.keep(OpId(1, 0), &Applied::Changed(Changed::Files(vec![(1, 4); 1_000_001])), 0);
    operations.check().unwrap();
    assert!(operations.outcome(OpId(0, 5)).is_none() && operations.outcome(OpId(1, 0)).is_some());
}

#[test]
fn listings_filter_by_prefix_and_page() {
    let mut fixture = Fixture::default();
    for path in ["a", "b/1", "b/2", "b/3", "b0", "c"] {
        fixture.apply(commit(vec![file(path, path)])).unwrap();
    }
    let names = |(files, more): (Vec<idunno_shared::wire::control::FileSummary>, bool)| {
        (files.iter().map(|file| file.name.to_string()).collect::<Vec<_>>(), more)
    };
    assert_eq!(names(fixture.state.list("b/", None, 2)), (vec!["b/1".into(), "b/2".into()], true));
    assert_eq!(names(fixture.state.list("b/", Some(&name("b/2")), 2)), (vec!["b/3".into()], false));
    assert_eq!(names(fixture.state.list("b/", Some(&name("a")), 9)).0.len(), 3);
    assert_eq!(names(fixture.state.list("", None, 9)).0.len(), 6);
    assert!(names(fixture.state.list("b/", Some(&name("c")), 9)).0.is_empty());
    assert_eq!(fixture.state.stored(NodeId(4), None, 9).files.len(), 6);
    assert_eq!(fixture.state.stored(NodeId(5), None, 9), StoredPage { visited: 6, ..StoredPage::default() });
    let first = fixture.state.stored(NodeId(4), None, 4);
    assert_eq!((first.files.len(), first.next.as_ref()), (4, Some(&name("b/3"))));
    let rest = fixture.state.stored(NodeId(4), first.next.as_ref(), 4);
    assert_eq!((rest.files.len(), rest.next), (2, None));
    assert_eq!(fixture.state.list("a", None, 1).0[0].holders.len(), 4);
}

#[test]
fn a_recommitted_blob_has_only_its_new_holders() {
    let mut fixture = Fixture::default();
    fixture.apply(commit(vec![file("a", "one")])).unwrap();
    fixture.change(Change::Delete { name: name("a") }).unwrap();
    let extents = vec![extent("one", &[5, 6, 6])];
    let back = NewFile { name: name("b"), size: 3, digest: Digest::of(b"one"), extents };
    let applied = fixture.apply(commit(vec![back])).unwrap();
    assert_eq!(applied, Applied::Changed(Changed::Files(vec![(1, 2)])));
    assert_eq!(fixture.state.holders(&Digest::of(b"one")), [NodeId(5), NodeId(6)]);
    fixture.apply(Action::Forget(vec![Digest::of(b"one")])).unwrap();
    assert_eq!(fixture.references("one"), Some(1), "a referenced blob is not forgotten");
}

#[test]
fn a_snapshot_contains_the_whole_state() {
    let mut fixture = Fixture::with_job(10);
    fixture.segment("rows", vec![batch(JobId(1), 0, 4, &[(0, 4)])]).unwrap();
    fixture.apply(Action::DeadLetters { job: JobId(1), dead_letters: vec![dead_letter(5)] }).unwrap();
    fixture.apply_as(Some(OpId(1, 1)), commit(vec![file("x", "y")])).unwrap();
    let bytes = rmp_serde::to_vec(&Snapshot::from(fixture.state.clone())).unwrap();
    let read: Snapshot = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!(State::from(read.clone()), fixture.state);
    assert_eq!(rmp_serde::to_vec(&read).unwrap(), bytes);
}

#[test]
fn a_page_of_what_a_member_stores_looks_at_a_bounded_number_of_files() {
    let mut fixture = Fixture::default();
    let count = STORED_VISITED_MAX + 10;
    let names: Vec<String> = (0..count).map(|number| format!("f/{number:06}")).collect();
    for part in names.chunks(1_000) {
        fixture.apply(commit(part.iter().map(|path| file(path, "same")).collect())).unwrap();
    }
    // Nobody holds less than a member that holds nothing: it is looked for the longest.
    let first = fixture.state.stored(NodeId(5), None, 9);
    assert_eq!((first.visited, first.files.len()), (STORED_VISITED_MAX, 0));
    assert_eq!(first.next, Some(name(&names[STORED_VISITED_MAX - 1])));
    let rest = fixture.state.stored(NodeId(5), first.next.as_ref(), 9);
    assert_eq!((rest.visited, rest.files.len(), rest.next), (10, 0, None));
}

fn commit_file(file: NewFile, attributes: Attributes, expected: Option<Expected>) -> Change {
    Change::CommitFile { upload: UploadId::default(), file, attributes, expected, borrows: false }
}

fn attributes(entries: &[(&str, &str)]) -> Attributes {
    entries.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn of_two_writers_that_saw_one_version_the_first_commits() {
    let mut fixture = Fixture::default();
    let put = |content: &str, expected| commit_file(file("a", content), Attributes::new(), expected);
    let version =
        |number, content: &str| Some(Expected::Version { number, digest: Digest::of(content.as_bytes()) });
    assert_eq!(code(fixture.change(put("one", version(1, "none")))), RefusalCode::NotNewest);
    assert_eq!(fixture.change(put("one", Some(Expected::NoFile))), Ok(Changed::Files(vec![(1, 4)])));
    assert_eq!(code(fixture.change(put("two", Some(Expected::NoFile)))), RefusalCode::NotNewest);
    assert_eq!(fixture.change(put("two", version(1, "one"))), Ok(Changed::Files(vec![(2, 4)])));
    assert_eq!(code(fixture.change(put("three", version(1, "one")))), RefusalCode::NotNewest);
    fixture.change(Change::Delete { name: name("a") }).unwrap();
    fixture.change(put("other", None)).unwrap();
    fixture.change(put("more", None)).unwrap();
    assert_eq!(
        code(fixture.change(put("x", version(2, "two")))),
        RefusalCode::NotNewest,
        "numbers begin again"
    );
}

#[test]
fn a_version_keeps_its_attributes_and_lists_show_its_etag() {
    let mut fixture = Fixture::default();
    let kept = attributes(&[(ETAG, "abc"), ("content-type", "text/plain")]);
    fixture.change(commit_file(file("a", "one"), kept.clone(), None)).unwrap();
    fixture.apply(commit(vec![file("b", "one")])).unwrap();
    let again: State = rmp_serde::from_slice::<Snapshot>(
        &rmp_serde::to_vec(&Snapshot::from(fixture.state.clone())).unwrap(),
    )
    .unwrap()
    .into();
    for state in [&fixture.state, &again] {
        let found = |path: &str| state.locate(&name(path), None).unwrap().attributes().cloned();
        assert_eq!((found("a"), found("b")), (Some(kept.clone()), None));
        let etags: Vec<_> = state.list("", None, 9).0.into_iter().map(|file| file.etag).collect();
        assert_eq!(etags, [Some("abc".to_owned()), None]);
    }
    let large = attributes(&[("x", &"y".repeat(ATTRIBUTE_BYTES_MAX))]);
    assert_eq!(code(fixture.change(commit_file(file("a", "two"), large, None))), RefusalCode::Invalid);
}

#[test]
fn a_file_that_is_sent_again_at_once_gets_no_second_version() {
    let mut fixture = Fixture::default();
    let put = |kept: &str| commit_file(file("a", "one"), attributes(&[("kept", kept)]), None);
    assert_eq!(fixture.change(put("x")), Ok(Changed::Files(vec![(1, 4)])));
    fixture.now_ms = SAME_COMMIT_MS - 1;
    assert_eq!(fixture.change(put("x")), Ok(Changed::Files(vec![(1, 4)])));
    assert_eq!(fixture.change(put("y")), Ok(Changed::Files(vec![(2, 4)])), "other attributes");
    fixture.now_ms *= 3;
    assert_eq!(fixture.change(put("y")), Ok(Changed::Files(vec![(3, 4)])), "later it is news");
}

#[test]
fn extents_are_shared_only_while_a_file_has_them() {
    let mut fixture = Fixture::default();
    let copy = |target: &str| Change::CommitFile {
        upload: UploadId::default(),
        file: file(target, "one"),
        attributes: Attributes::new(),
        expected: None,
        borrows: true,
    };
    assert_eq!(code(fixture.change(copy("b"))), RefusalCode::NotFound);
    fixture.apply(commit(vec![file("a", "one")])).unwrap();
    fixture.change(copy("b")).unwrap();
    assert_eq!(fixture.references("one"), Some(2));
    let both = Change::DeleteFiles { names: vec![name("a"), name("none"), name("b")] };
    assert_eq!(fixture.change(both), Ok(Changed::Deleted { versions: 2 }));
    assert_eq!(fixture.references("one"), Some(0));
    assert_eq!(code(fixture.change(copy("b"))), RefusalCode::NotFound, "its holders may be deleting it");
}

fn copies(pairs: &[(&str, &str)]) -> Vec<FileCopy> {
    pairs.iter().map(|(from, to)| FileCopy { from: name(from), to: name(to) }).collect()
}

#[test]
fn a_copy_shares_the_newest_version_and_a_move_takes_all() {
    let mut fixture = Fixture::default();
    fixture.apply(commit(vec![file("a", "one")])).unwrap();
    fixture.change(commit_file(file("a", "two"), attributes(&[("kept", "x")]), None)).unwrap();
    let copy = Change::CopyFiles { copies: copies(&[("a", "b")]), moves: false, replace: false };
    assert_eq!(fixture.change(copy.clone()), Ok(Changed::Copied(vec![1])));
    assert_eq!((fixture.references("one"), fixture.references("two")), (Some(1), Some(2)));
    let found = |fixture: &Fixture, path: &str| -> Vec<(u64, Digest, Option<Attributes>)> {
        let file = fixture.state.file(&name(path));
        let versions = file.into_iter().flat_map(FileRecord::versions);
        versions.map(|found| (found.number, found.digest(), found.attributes().cloned())).collect()
    };
    let newest = (Digest::of(b"two"), Some(attributes(&[("kept", "x")])));
    assert_eq!(found(&fixture, "b"), [(1, newest.0, newest.1.clone())]);

    assert_eq!(code(fixture.change(copy)), RefusalCode::Conflict, "the copy exists");
    let moved = Change::CopyFiles { copies: copies(&[("a", "b")]), moves: true, replace: true };
    assert_eq!(fixture.change(moved), Ok(Changed::Copied(vec![3])));
    let (one, first) = (Digest::of(b"one"), (1, newest.0, newest.1.clone()));
    assert_eq!(found(&fixture, "b"), [(3, newest.0, newest.1), (2, one, None), first]);
    assert_eq!(found(&fixture, "a"), []);
    assert_eq!((fixture.references("one"), fixture.references("two")), (Some(1), Some(2)));
    fixture.apply(Action::Change(Change::Delete { name: name("b") })).unwrap();
    assert_eq!((fixture.references("one"), fixture.references("two")), (Some(0), Some(0)));
}

#[test]
fn copies_are_made_together_or_not_at_all() {
    let mut fixture = Fixture::default();
    fixture.apply(commit(vec![file("a", "one"), file("b", "two")])).unwrap();
    for (pairs, wanted) in [
        (&[("a", "c"), ("none", "d")][..], RefusalCode::NotFound),
        (&[("a", "c"), ("none", "b")], RefusalCode::NotFound),
        (&[("a", "c"), ("c", "d")], RefusalCode::Invalid),
        (&[("a", "c"), ("b", "c")], RefusalCode::Invalid),
        (&[("a", "a")], RefusalCode::Invalid),
        (&[], RefusalCode::Invalid),
    ] {
        for moves in [false, true] {
            let change = Change::CopyFiles { copies: copies(pairs), moves, replace: true };
            assert_eq!(code(fixture.change(change)), wanted, "{pairs:?}");
        }
    }
    assert_eq!(fixture.state.list("", None, 9).0.len(), 2);
    assert_eq!((fixture.references("one"), fixture.references("two")), (Some(1), Some(1)));
}

#[test]
fn lists_leave_out_what_gateways_keep() {
    let mut fixture = Fixture::default();
    let part = format!("{S3_UPLOADS}b/key/1/00001");
    fixture.apply(commit(vec![file("a", "one"), file(&part, "two")])).unwrap();
    let listed = |prefix: &str| -> Vec<String> {
        fixture.state.list(prefix, None, 9).0.into_iter().map(|file| file.name.to_string()).collect()
    };
    assert_eq!((listed(""), listed(S3_UPLOADS)), (vec!["a".to_owned()], vec![part.clone()]));
}
