//! Whether every query of every job was answered exactly once, and as in a run without faults.

use std::collections::{BTreeMap, BTreeSet};

use idunno_shared::wire::jobs::QueryRange;
use serde::Deserialize;

use super::Violation;

const ONCE: &str = "each query is answered exactly once";
const SAME: &str = "rows are those of a run without faults";
const KEPT: &str = "answers and jobs are never lost";

/// A result row, as far as two runs must agree on it: who answered, and at which attempt, may differ.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Row {
    pub(crate) query: u64,
    pub(crate) name: String,
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) output: serde_json::Value,
}

/// A segment of results.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Segment {
    /// The queries whose rows in it count.
    pub(crate) counted: Vec<QueryRange>,
    pub(crate) rows: Vec<Row>,
}

/// A job at the end of the run, as the coordinator shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finished {
    pub(crate) job: u64,
    pub(crate) is_done: bool,
    pub(crate) submitted: u64,
    pub(crate) done: u64,
    pub(crate) dead: u64,
    pub(crate) segments: Vec<Segment>,
}

/// A reply about a job, in the order in which the client received them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observation {
    /// Added under this number.
    Added(u64),
    /// Started with this many queries.
    Started { job: u64, submitted: u64 },
    /// This many queries are answered.
    Progress { job: u64, done: u64 },
}

/// Checks a finished job. `clean` holds the rows of a run without faults over the same dataset.
pub(crate) fn check(finished: &Finished, clean: &BTreeMap<u64, Row>) -> Vec<Violation> {
    let Finished { job, submitted, done, dead, .. } = *finished;
    let mut wrong = Vec::new();
    if !finished.is_done || done + dead != submitted {
        wrong.push(Violation::new(
            ONCE,
            format!("job-{job} has not ended: {done} done and {dead} dead of {submitted}"),
        ));
    }
    if dead > 0 {
        wrong.push(Violation::new(SAME, format!("job-{job} gave {dead} queries up that can be answered")));
    }
    let mut rows: BTreeMap<u64, &Row> = BTreeMap::new();
    for segment in &finished.segments {
        let counts = |query: u64| segment.counted.iter().any(|range| range.queries().contains(&query));
        for row in segment.rows.iter().filter(|row| counts(row.query)) {
            if rows.insert(row.query, row).is_some() {
                wrong.push(Violation::new(ONCE, format!("job-{job} answers query {} twice", row.query)));
            }
        }
    }
    let missing: Vec<u64> = (0..submitted).filter(|query| !rows.contains_key(query)).collect();
    if missing.len() as u64 != dead {
        let (count, first) = (missing.len(), missing.first());
        wrong.push(Violation::new(
            ONCE,
            format!("job-{job} has no rows of {count} queries, the first is {first:?}"),
        ));
    }
    if let Some(beyond) = rows.keys().find(|query| **query >= submitted) {
        wrong.push(Violation::new(ONCE, format!("job-{job} answers query {beyond} of {submitted}")));
    }
    let differs = |row: &&&Row| clean.get(&row.query) != Some(**row);
    if let Some(row) = rows.values().find(differs) {
        let wanted = clean.get(&row.query);
        wrong.push(Violation::new(SAME, format!("job-{job} answered {row:?}, a clean run {wanted:?}")));
    }
    wrong
}

/// Checks a client's observations against the jobs that exist at the end.
pub(crate) fn check_observations(observed: &[Observation], finished: &[Finished]) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let (mut added, mut last): (BTreeSet<u64>, BTreeMap<u64, u64>) = Default::default();
    for observation in observed {
        let complaint = match *observation {
            Observation::Added(job) => (!added.insert(job)).then(|| format!("job-{job} was added twice")),
            Observation::Started { job, submitted } => {
                let kept = finished.iter().any(|end| end.job == job && end.submitted == submitted);
                (!kept)
                    .then(|| format!("job-{job} was started with {submitted} queries, and is not there so"))
            }
            Observation::Progress { job, done } => {
                let before = last.insert(job, done).unwrap_or(0);
                (done < before).then(|| format!("job-{job} had {before} answers, then {done}"))
            }
        };
        wrong.extend(complaint.map(|detail| Violation::new(KEPT, detail)));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(query: u64) -> Row {
        let [name, model, version] = ["n", "m", "v"].map(String::from);
        Row { query, name, model, version, output: query.into() }
    }

    fn clean() -> BTreeMap<u64, Row> {
        (0..4).map(|query| (query, row(query))).collect()
    }

    fn segment(first: u64, count: u32, rows: &[u64]) -> Segment {
        Segment { counted: vec![QueryRange { first, count }], rows: rows.iter().copied().map(row).collect() }
    }

    /// A job of four queries, done, whose results are these.
    fn finished(segments: Vec<Segment>) -> Finished {
        Finished { job: 1, is_done: true, submitted: 4, done: 4, dead: 0, segments }
    }

    fn promises(finished: &Finished) -> Vec<&'static str> {
        check(finished, &clean()).into_iter().map(|violation| violation.promise).collect()
    }

    #[test]
    fn rows_that_do_not_count_are_skipped() {
        let twice_run = finished(vec![segment(0, 2, &[0, 1, 2]), segment(2, 2, &[2, 3])]);
        assert_eq!(promises(&twice_run), [] as [&str; 0]);
    }

    #[test]
    fn an_answer_given_twice_is_caught() {
        assert_eq!(promises(&finished(vec![segment(0, 3, &[0, 1, 2]), segment(2, 2, &[2, 3])])), [ONCE]);
        assert_eq!(promises(&finished(vec![segment(0, 4, &[0, 1, 2, 2, 3])])), [ONCE]);
    }

    #[test]
    fn a_missing_answer_is_caught() {
        assert_eq!(promises(&finished(vec![segment(0, 4, &[0, 1, 3])])), [ONCE]);
        assert_eq!(promises(&finished(vec![segment(0, 3, &[0, 1, 2])])), [ONCE]);
        assert_eq!(promises(&Finished { done: 3, ..finished(vec![segment(0, 4, &[0, 1, 2, 3])]) }), [ONCE]);
        assert_eq!(
            promises(&Finished { is_done: false, ..finished(vec![segment(0, 4, &[0, 1, 2, 3])]) }),
            [ONCE]
        );
    }

    #[test]
    fn another_answer_is_caught() {
        let mut wrong = finished(vec![segment(0, 4, &[0, 1, 2, 3])]);
        wrong.segments[0].rows[2].output = serde_json::json!("seven");
        assert_eq!(promises(&wrong), [SAME]);
        let given_up = Finished { done: 3, dead: 1, ..finished(vec![segment(0, 3, &[0, 1, 2])]) };
        assert_eq!(promises(&given_up), [SAME]);
    }

    #[test]
    fn lost_jobs_and_answers_are_caught() {
        let end = [finished(Vec::new())];
        let started = |submitted| Observation::Started { job: 1, submitted };
        let progress = |done| Observation::Progress { job: 1, done };
        let good = [Observation::Added(1), started(4), progress(1), progress(1), progress(3)];
        assert_eq!(check_observations(&good, &end), []);
        assert_eq!(check_observations(&[Observation::Added(1), Observation::Added(1)], &end).len(), 1);
        assert_eq!(check_observations(&[started(5)], &end).len(), 1);
        assert_eq!(check_observations(&[Observation::Started { job: 2, submitted: 4 }], &end).len(), 1);
        assert_eq!(check_observations(&[progress(3), progress(2)], &end).len(), 1);
    }
}
