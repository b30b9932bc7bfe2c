//! Views of jobs, as many as fit into an answer: with 10,000 jobs, not all of them do.

use std::collections::BTreeMap;

use idunno_core::metadata::{JobRecord, State};
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{ITEMS_PER_REQUEST_MAX, JobState, JobView};
use idunno_shared::wire::records::KEPT_COLUMNS_MAX;

use super::scheduling::SchedulerView;

/// Most bytes of jobs in one answer, or in a view of the cluster: a quarter of a frame.
pub(super) const JOBS_BYTES_MAX: usize = 4 << 20;
/// Most jobs in a view of the cluster, besides those that have workers.
pub(super) const VIEW_JOBS_MAX: usize = ITEMS_PER_REQUEST_MAX;
/// Encoded bytes of a job at most, without its texts of any length.
const JOB_BYTES: usize = 1 << 10;

/// A page of the jobs after `after` at `now_ms`, in the log's time, in the order of their numbers; and whether more follow.
pub(super) fn page(
    state: &State,
    scheduler: &SchedulerView,
    now_ms: u64,
    after: Option<JobId>,
    limit: u32,
) -> (Vec<JobView>, bool) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, ITEMS_PER_REQUEST_MAX);
    let (mut page, mut bytes) = (Vec::new(), 0);
    for record in state.jobs_after(after) {
        let view = job(record, scheduler, now_ms);
        bytes += job_bytes(&view);
        if page.len() == limit || (bytes > JOBS_BYTES_MAX && !page.is_empty()) {
            return (page, true);
        }
        page.push(view);
    }
    (page, false)
}

/// The view of one job.
pub(super) fn job(job: &JobRecord, scheduler: &SchedulerView, now_ms: u64) -> JobView {
    let leased = scheduler.leased.get(&job.id).copied().unwrap_or(0);
    let batch_now = scheduler.batches.get(&job.id).copied().unwrap_or(0);
    JobView { batch_now, ..job.view(leased, now_ms) }
}

/// The jobs in a view of the cluster, in the order of their numbers: those with workers, then the newest.
pub(super) fn shown(state: &State, scheduler: &SchedulerView, now_ms: u64) -> Vec<JobView> {
    let (mut shown, mut bytes) = (BTreeMap::new(), 0);
    let at_work = scheduler.leased.keys().rev().filter_map(|id| state.job(*id));
    for record in at_work.chain(state.jobs().rev().take(VIEW_JOBS_MAX)) {
        if shown.contains_key(&record.id) {
            continue;
        }
        let view = job(record, scheduler, now_ms);
        bytes += job_bytes(&view);
        if bytes > JOBS_BYTES_MAX {
            break;
        }
        shown.insert(record.id, view);
    }
    shown.into_values().collect()
}

fn job_bytes(view: &JobView) -> usize {
    let parameters =
        view.details.parameters.iter().map(|(name, value)| name.as_str().len() + value.len() + 8);
    let reason = if let JobState::Paused(reason) = &view.state { reason.len() } else { 0 };
    let records =
        view.details.records.as_ref().map_or(0, |format| format.names_bytes() + 8 * KEPT_COLUMNS_MAX);
    JOB_BYTES + parameters.sum::<usize>() + reason + records
}

#[cfg(test)]
mod tests {
    use idunno_core::metadata::{Action, Command, JOBS_MAX};
    use idunno_shared::wire::control::{
        Change, ControlReply, JobOptions, PARAMETER_BYTES_MAX, PARAMETERS_MAX,
    };
    use idunno_shared::wire::frame::encode_frame;
    use idunno_shared::wire::jobs::{BatchSize, Parameters};

    use super::*;

    fn with_jobs(count: usize, parameters: &Parameters) -> State {
        let mut state = State::new();
        for _ in 0..count {
            let change = Change::AddJob {
                model: "mnist-mlp".parse().unwrap(),
                dataset: "digits".parse().unwrap(),
                batch_size: BatchSize::Auto,
                options: JobOptions { parameters: parameters.clone(), ..JobOptions::default() },
            };
            state
                .apply(&Command {
                    at_ms: 1,
                    op: None,
                    upload: None,
                    by: None,
                    action: Action::Change(change),
                })
                .unwrap();
        }
        state
    }

    fn largest() -> Parameters {
        let parameter = |number| (format!("p{number}").parse().unwrap(), "x".repeat(PARAMETER_BYTES_MAX));
        (0..PARAMETERS_MAX).map(parameter).collect()
    }

    fn frame_bytes(jobs: &[JobView]) -> usize {
        let mut frame = Vec::new();
        encode_frame(&ControlReply::JobPage { jobs: jobs.to_vec(), more: true }, &mut frame).unwrap();
        frame.len()
    }

    #[test]
    fn pages_hold_all_jobs_and_each_fits_into_a_frame() {
        for (count, parameters) in [(3_000, Parameters::default()), (100, largest())] {
            let (state, mut ids, mut more) = (with_jobs(count, &parameters), Vec::<JobId>::new(), true);
            while more {
                let jobs;
                (jobs, more) = page(&state, &SchedulerView::default(), 1, ids.last().copied(), u32::MAX);
                assert!(!jobs.is_empty() && jobs.len() <= ITEMS_PER_REQUEST_MAX);
                assert!(frame_bytes(&jobs) <= JOBS_BYTES_MAX, "{} bytes", frame_bytes(&jobs));
                ids.extend(jobs.iter().map(|job| job.id));
            }
            assert_eq!(ids, (1..=count as u64).map(JobId).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_view_shows_the_newest_jobs_and_those_with_workers() {
        let state = with_jobs(JOBS_MAX, &Parameters::default());
        let scheduler = SchedulerView { leased: BTreeMap::from([(JobId(7), 3)]), ..SchedulerView::default() };
        let ids: Vec<u64> = shown(&state, &scheduler, 1).iter().map(|job| job.id.0).collect();
        let newest = (JOBS_MAX - VIEW_JOBS_MAX) as u64 + 1..=JOBS_MAX as u64;
        assert_eq!(ids, [7].into_iter().chain(newest).collect::<Vec<_>>());
        let large = shown(&with_jobs(200, &largest()), &scheduler, 1);
        assert!(large.len() < 200 && large[0].id == JobId(7) && large.last().unwrap().id == JobId(200));
        assert!(frame_bytes(&large) <= JOBS_BYTES_MAX);
    }
}
