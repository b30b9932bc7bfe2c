//! Two hundred jobs beside ten thousand finished ones: what is done for the running ones does not depend on the finished
//! ones, nor on the workers that wait.

use std::time::Instant;

use idunno_core::metadata::{Action, JOBS_MAX, MergedRows, Snapshot, State};
use idunno_core::scheduler::SchedulerStatistics;
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::{Change, JobState};
use idunno_shared::wire::jobs::BatchSize;

use crate::ALLOCATED;
use crate::harness::heavy;
use crate::many_queries::start_over_records;
use crate::metadata::{add_job, change, command, extent, train};
use crate::no_op_cluster::{Cost, NoOpCluster};
use crate::size::{figure, sized};

const RUNNING: usize = 200;
const FINISHED: (usize, usize) = (1_000, JOBS_MAX - RUNNING);
const QUERIES: u64 = 500;
const WORKERS: (u64, u64) = (50, 500);
/// A finished job whose results are in a file, with that file.
const BYTES_PER_FINISHED_JOB_MAX: f64 = 8_000.0;

fn dataset(number: usize) -> String {
    format!("records/{number:05}.jsonl")
}

/// Jobs that are done, whose results are merged.
fn with_finished(count: usize) -> State {
    let mut state = State::new();
    train(&mut state);
    let jobs: Vec<JobId> = (0..count)
        .map(|number| {
            let job = add_job(&mut state, &dataset(number));
            start_over_records(&mut state, job, &dataset(number), 4);
            job
        })
        .collect();
    let mut cluster = NoOpCluster::new(state, 4);
    cluster.run(&jobs);
    let mut state = cluster.state;
    for job in jobs {
        let finished_ms = state.job(job).unwrap().finished_ms.unwrap();
        let extents = vec![extent(&format!("results of {job}"), 100)];
        let digest = extents[0].0.digest;
        let rows = Some(MergedRows { worker: NodeId(1), first_queries: vec![0] });
        let filed = Action::FileResults { job, finished_ms, size: 100, digest, extents, rows };
        state.apply(&command(filed)).unwrap();
    }
    state
}

/// Runs two hundred jobs in this state, and returns what that took.
fn run_jobs(mut state: State, workers: u64) -> (State, Cost, SchedulerStatistics) {
    let jobs: Vec<JobId> = (0..RUNNING)
        .map(|number| {
            let name = format!("running/{number}.jsonl");
            let job = add_job(&mut state, &name);
            change(&mut state, Change::SetBatchSize { job, batch_size: BatchSize::from(10) });
            start_over_records(&mut state, job, &name, QUERIES);
            job
        })
        .collect();
    let mut cluster = NoOpCluster::new(state, workers);
    assert_eq!(cluster.announce(), RUNNING, "finished jobs are not looked at");
    cluster.run(&jobs);
    for job in jobs {
        assert_eq!(cluster.state.job(job).unwrap().state, JobState::Done);
    }
    let statistics = cluster.scheduler.statistics();
    (cluster.state, cluster.cost, statistics)
}

#[tokio::test]
async fn finished_jobs_cost_running_ones_nothing() {
    let _turn = heavy().await;
    let (finished, workers) = (sized(FINISHED.0, FINISHED.1), sized(WORKERS.0, WORKERS.1));
    let before = ALLOCATED.current_usage();
    let full = with_finished(finished);
    let bytes = (ALLOCATED.current_usage() - before) as f64 / finished as f64;
    figure("jobs: bytes a finished one", format!("{bytes:.0}, of {finished}"));
    assert!(bytes <= BYTES_PER_FINISHED_JOB_MAX);
    assert_eq!(full.unsettled_jobs().count(), 0);

    let (mut costs, mut times) = (Vec::new(), Vec::new());
    for state in [with_finished(1), full] {
        let started = Instant::now();
        let (state, cost, statistics) = run_jobs(state, workers);
        times.push(started.elapsed());
        costs.push((cost.events, statistics.compared));
        let restarted: Snapshot =
            rmp_serde::from_slice(&rmp_serde::to_vec(&Snapshot::from(state.clone())).unwrap()).unwrap();
        assert_eq!(
            State::from(restarted).unsettled_jobs().count(),
            RUNNING,
            "their results are yet to be merged"
        );
    }
    figure("jobs: 200 beside 1 finished one, and beside all: events, comparisons", format!("{costs:?}"));
    figure("jobs: time for the same", format!("{times:.1?}"));
    assert_eq!(costs[0], costs[1], "finished jobs change nothing");
    let (events, compared) = costs[0];
    let each_max = 2 * (RUNNING as u64 + workers);
    assert!(compared <= each_max * events, "{compared} jobs and workers were compared in {events} events");
}
