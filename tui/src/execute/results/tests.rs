use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::{DeadLetter, JobState, JobView};
use idunno_shared::wire::jobs::QueryRange;
use idunno_shared::wire::records::RecordIdentity;

use super::{Merge, ResultsError};

pub(super) fn job(state: JobState, submitted: u64, done: u64, dead: u64) -> JobView {
    let added = JobView::added(JobId(1), "m".parse().unwrap(), "d".parse().unwrap(), 2.into());
    JobView { state, submitted, done, dead, ..added }
}

pub(super) fn rows(queries: &[u64]) -> Vec<u8> {
    queries
        .iter()
        .flat_map(|query| format!("{{\"query\":{query},\"name\":\"d/{query}\"}}\n").into_bytes())
        .collect()
}

pub(super) fn range(first: u64, count: u32) -> QueryRange {
    QueryRange { first, count }
}

pub(super) fn dead_letter(index: u64) -> DeadLetter {
    let name = format!("d/{index}").parse().unwrap();
    DeadLetter {
        index,
        name,
        reason: "bad \"image\"".into(),
        worker: NodeId(1),
        attempts: 3,
        dropped: false,
        identity: RecordIdentity::default(),
    }
}

#[test]
fn rows_come_in_query_order_and_unclaimed_ones_are_skipped() {
    let mut merge = Merge::default();
    merge.segment(&rows(&[4, 3, 9]), &[range(3, 2)]).unwrap();
    merge.segment(&rows(&[0, 1]), &[range(0, 2)]).unwrap();
    merge.dead_letter(&dead_letter(2));
    let rows = merge.finish(&job(JobState::Done, 5, 4, 1)).unwrap();
    for (query, row) in rows.iter().enumerate() {
        assert!(row.contains(&format!("\"query\":{query}")), "{row}");
    }
    assert_eq!(rows[2], r#"{"query":2,"name":"d/2","error":"bad \"image\""}"#);
}

#[test]
fn a_query_with_two_rows_is_named() {
    let mut merge = Merge::default();
    merge.segment(&rows(&[0, 1]), &[range(0, 2)]).unwrap();
    merge.segment(&rows(&[1]), &[range(1, 1)]).unwrap();
    let error = merge.finish(&job(JobState::Done, 2, 2, 0)).unwrap_err();
    assert_eq!(error, ResultsError::Repeated { count: 1, named: "1".into() });

    let mut merge = Merge::default();
    merge.segment(&rows(&[0, 0]), &[range(0, 1)]).unwrap();
    assert!(matches!(merge.finish(&job(JobState::Done, 1, 1, 0)), Err(ResultsError::Repeated { .. })));

    let mut merge = Merge::default();
    merge.segment(&rows(&[0]), &[range(0, 1)]).unwrap();
    merge.dead_letter(&dead_letter(0));
    assert!(matches!(merge.finish(&job(JobState::Done, 1, 0, 1)), Err(ResultsError::Repeated { .. })));
}

#[test]
fn raw_rows_are_all_there_were() {
    let mut merge = Merge::default();
    merge.segment(&rows(&[1, 0, 1]), &[range(0, 2)]).unwrap();
    merge.dead_letter(&dead_letter(0));
    let raw = merge.raw();
    let count = |query: u64| raw.iter().filter(|row| row.contains(&format!("\"query\":{query}"))).count();
    assert_eq!((count(0), count(1), raw.len()), (2, 2, 4));
}

#[test]
fn a_query_without_a_row_is_named() {
    let mut merge = Merge::default();
    merge.segment(&rows(&[0]), &[range(0, 2)]).unwrap();
    let error = merge.finish(&job(JobState::Running, 5, 2, 0)).unwrap_err();
    assert_eq!(error, ResultsError::Missing { count: 1, named: "1".into() });

    let mut merge = Merge::default();
    merge.segment(&rows(&[0]), &[range(0, 1)]).unwrap();
    let error = merge.finish(&job(JobState::Done, 20, 20, 0)).unwrap_err().to_string();
    assert!(error.contains("19 queries") && error.contains("1, 2, 3") && error.ends_with("..."), "{error}");
}

#[test]
fn figures_and_rows_must_agree() {
    let mut merge = Merge::default();
    merge.segment(&rows(&[0, 1]), &[range(0, 2)]).unwrap();
    let error = merge.finish(&job(JobState::Running, 5, 1, 0)).unwrap_err();
    assert!(matches!(error, ResultsError::Figures { rows: 2, done: 1, .. }), "{error}");
}

#[test]
fn a_broken_line_is_named() {
    let error = Merge::default().segment(b"{\"query\":0}\nnonsense\n", &[range(0, 1)]).unwrap_err();
    assert!(matches!(error, ResultsError::Row { line: 2, .. }), "{error}");
    assert!(Merge::default().segment(b"{\"query\":0}\n\xff\n", &[range(0, 1)]).is_err());
}

#[test]
fn an_unfinished_job_gives_the_rows_so_far() {
    let mut merge = Merge::default();
    merge.segment(&rows(&[6, 7]), &[range(6, 2)]).unwrap();
    assert_eq!(merge.finish(&job(JobState::Running, 100, 2, 0)).unwrap().len(), 2);
}
