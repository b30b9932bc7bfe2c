//! The jobs that the coordinator's view leaves out, so that the jobs page is sorted and filtered as a whole.

use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{ClusterView, JobView};

use super::query::QueryError;

/// They are fetched again at most this often: they are over, so little about them changes.
const PERIOD_MS: u64 = 10_000;

#[derive(Clone, Debug, Default)]
pub struct OldJobs {
    /// In the order of their numbers.
    jobs: Vec<JobView>,
    /// Counts answers.
    pub generation: u64,
    in_flight: bool,
    /// When they were asked for last, and how many there were then.
    asked: Option<(u64, u64)>,
}

impl OldJobs {
    /// Whether to fetch them now.
    pub fn is_due(&mut self, view: &ClusterView, now_ms: u64) -> bool {
        let left_out = view.jobs_left_out;
        let due = match self.asked {
            None => left_out > 0,
            Some((asked_ms, before)) => left_out != before && now_ms.saturating_sub(asked_ms) >= PERIOD_MS,
        };
        let due = due && !self.in_flight;
        if due {
            (self.in_flight, self.asked) = (true, Some((now_ms, left_out)));
        }
        due
    }

    /// Takes the answer. If there is none, they are asked for again.
    pub fn accept(&mut self, result: Result<Vec<JobView>, QueryError>) {
        self.in_flight = false;
        match result {
            Ok(jobs) => {
                self.jobs = jobs;
                self.generation += 1;
            }
            Err(_) => self.asked = self.asked.map(|(asked_ms, _)| (asked_ms, 0)),
        }
    }

    /// Those that the view does not have, and the view's.
    pub fn with_those_of<'a>(&'a self, view: &'a ClusterView) -> impl Iterator<Item = &'a JobView> {
        let is_left_out = |job: &&JobView| view.jobs.binary_search_by_key(&job.id, |known| known.id).is_err();
        self.jobs.iter().filter(is_left_out).chain(&view.jobs)
    }

    /// A job, wherever it is.
    pub fn find<'a>(&'a self, view: &'a ClusterView, id: JobId) -> Option<&'a JobView> {
        view.jobs.iter().chain(&self.jobs).find(|job| job.id == id)
    }
}
