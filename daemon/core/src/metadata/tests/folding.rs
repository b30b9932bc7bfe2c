//! Segments that are folded into the file of merged results.

use super::*;
use crate::metadata::FOLDED_RELEASED_PER_COMMAND_MAX;

/// The results of job 1 in one file of these extents, each with the query of its first row.
fn file_results(fixture: &mut Fixture, extents: &[(&str, u64)]) -> Result<Applied, Refusal> {
    let finished_ms = fixture.job().finished_ms.unwrap();
    let first_queries = extents.iter().map(|(_, first)| *first).collect();
    let extents: Vec<_> = extents.iter().map(|(content, _)| extent(content, &[1, 2])).collect();
    let size = extents.iter().map(|(blob, _)| blob.size).sum();
    let rows = Some(MergedRows { worker: NodeId(3), first_queries });
    let digest = Digest::of(format!("{extents:?}").as_bytes());
    fixture.apply(Action::FileResults { job: JobId(1), finished_ms, size, digest, extents, rows })
}

/// The segments of job 1: their blobs, and the queries whose rows count.
fn segments(fixture: &Fixture) -> Vec<(Digest, Vec<(u64, u32)>)> {
    let (segments, more) = fixture.state.segments(JobId(1), 0, 99).unwrap();
    assert!(!more);
    let ranges = |segment: &Segment| segment.ranges.iter().map(|range| (range.first, range.count)).collect();
    segments.into_iter().map(|segment| (segment.blob.digest, ranges(segment))).collect()
}

fn digest(content: &str) -> Digest {
    Digest::of(content.as_bytes())
}

#[test]
fn the_extents_of_merged_results_replace_the_segments_and_outlive_the_file() {
    let mut fixture = Fixture::with_job(6);
    fixture.apply(Action::DeadLetters { job: JobId(1), dead_letters: vec![dead_letter(1)] }).unwrap();
    fixture.segment("odd", vec![batch(JobId(1), 2, 2, &[(3, 1)]), batch(JobId(1), 4, 2, &[(5, 1)])]).unwrap();
    fixture.segment("even", vec![batch(JobId(1), 0, 5, &[(0, 1), (2, 1), (4, 1)])]).unwrap();
    file_results(&mut fixture, &[("rows 0 to 1", 0), ("rows 2 to 5", 2)]).unwrap();
    let folded = [(digest("rows 0 to 1"), vec![(0, 1)]), (digest("rows 2 to 5"), vec![(2, 4)])];
    assert_eq!(segments(&fixture), folded, "the row of the dead query does not count");
    assert_eq!((fixture.references("odd"), fixture.references("even")), (Some(0), Some(0)));
    fixture.change(Change::Delete { name: name("results/job-1.jsonl") }).unwrap();
    assert_eq!(segments(&fixture), folded);
    assert_eq!(fixture.references("rows 2 to 5"), Some(1));

    // A retry adds segments to the folded ones, and the next file replaces both.
    fixture.now_ms = 9;
    fixture.change(Change::RetryDeadLetters { job: JobId(1), queries: vec![1] }).unwrap();
    fixture.segment("retried", vec![batch(JobId(1), 1, 1, &[(1, 1)])]).unwrap();
    assert_eq!(segments(&fixture).len(), 3);
    file_results(&mut fixture, &[("all rows", 0)]).unwrap();
    assert_eq!(segments(&fixture), [(digest("all rows"), vec![(0, 6)])]);
    assert_eq!((fixture.references("retried"), fixture.references("rows 2 to 5")), (Some(0), Some(0)));
    fixture.change(Change::DeleteJob { job: JobId(1) }).unwrap();
    assert_eq!(fixture.references("all rows"), Some(0));
}

#[test]
fn an_extent_without_a_row_that_counts_is_no_segment() {
    let mut fixture = Fixture::with_job(3);
    fixture.apply(Action::DeadLetters { job: JobId(1), dead_letters: vec![dead_letter(0)] }).unwrap();
    fixture.segment("rows", vec![batch(JobId(1), 1, 2, &[(1, 2)])]).unwrap();
    file_results(&mut fixture, &[("a dead row", 0), ("two rows", 1)]).unwrap();
    assert_eq!(segments(&fixture), [(digest("two rows"), vec![(1, 2)])]);
    assert_eq!(fixture.references("a dead row"), Some(1), "the file's");
}

#[test]
fn extents_whose_rows_are_out_of_order_are_refused() {
    let mut fixture = Fixture::with_job(4);
    fixture.segment("rows", vec![batch(JobId(1), 0, 4, &[(0, 4)])]).unwrap();
    for extents in
        [&[("a", 1)][..], &[("a", 0), ("b", 0)], &[("a", 0), ("b", 3), ("c", 2)], &[("a", 0), ("b", 4)]]
    {
        let refusal = file_results(&mut fixture, extents).unwrap_err();
        assert!(refusal.code == RefusalCode::Invalid && refusal.message.contains("job-1"), "{refusal}");
    }
    assert_eq!(segments(&fixture), [(digest("rows"), vec![(0, 4)])]);
}

#[test]
fn many_folded_segments_are_released_by_the_commands_that_follow() {
    let files = FOLDED_RELEASED_PER_COMMAND_MAX + 10;
    let (mut fixture, count) = (Fixture::with_job(files), files as u64);
    let last = |fixture: &Fixture| fixture.references(&format!("segment {}", count - 1));
    for query in 0..count {
        let batch = batch(JobId(1), query, 1, &[(query, 1)]);
        let (worker, job, segment) = (NodeId(1), JobId(1), extent(&format!("segment {query}"), &[1, 2]));
        let action = Action::CommitSegment { worker, job, segment, batches: vec![batch] };
        fixture.state.apply(&Command { at_ms: 0, op: None, action, upload: None, by: None }).unwrap();
    }
    file_results(&mut fixture, &[("all rows", 0)]).unwrap();
    assert_eq!((fixture.references("segment 0"), last(&fixture)), (Some(0), Some(1)));
    assert!(fixture.state.has_unreleased());
    let stored = rmp_serde::to_vec(&Snapshot::from(fixture.state.clone())).unwrap();
    fixture.state = rmp_serde::from_slice::<Snapshot>(&stored).unwrap().into();
    fixture.apply(Action::Forget(Vec::new())).unwrap();
    assert_eq!((last(&fixture), fixture.state.has_unreleased()), (Some(0), false));
}
