//! Update and draw times of the console on a large cluster: 1,000 members, 200 jobs, one page of a million files.
//!
//! Prints the median and the slowest of many runs, and fails if a median exceeds its limit.

#![expect(clippy::unwrap_used, reason = "a benchmark may panic as tests do")]

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use idunno_console::console::state::{FilesPage, Msg, NetEvent, Page, State};
use idunno_console::console::update::update;
use idunno_console::console::view::view;
use idunno_console::tail::LogLine;
use idunno_shared::ids::{Digest, JobId, NodeId, Term};
use idunno_shared::wire::control::{
    AssignmentView, ClusterView, FileSummary, FolderEntry, JobState, JobView, Liveness, LoadView, LogRole,
    MemberView, ModelView, RatesView, StoreView, WorkerView,
};
use idunno_shared::wire::jobs::{ModelState, Policy, ServerState};
use idunno_shared::wire::resources::WorkerResources;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

const MEMBERS: u64 = 1000;
const JOBS: u64 = 200;
const FILES: u64 = 1_000_000;
const RUNS: usize = 200;
const UPDATE_MAX: Duration = Duration::from_millis(2);
const DRAW_MAX: Duration = Duration::from_millis(8);

fn cluster(second: u64) -> ClusterView {
    let model = || "squeezenet1.1".parse().unwrap();
    let ready = || ModelState::Ready(Digest::default());
    ClusterView {
        term: Term(3),
        coordinator: NodeId(1),
        at_ms: second * 1000,
        revision: second,
        members: (1..=MEMBERS)
            .map(|number| MemberView {
                id: NodeId(number),
                name: format!("m{number}").parse().unwrap(),
                address: ([10, 0, 0, 1], 7401).into(),
                generation: 1,
                incarnation: 1,
                liveness: if number % 100 == second % 100 { Liveness::Suspect } else { Liveness::Alive },
                udp_blocked: false,
                since_ms: 1_700_000_000_000,
                doubts: None,
                role: if number < 8 { LogRole::Voter } else { LogRole::Spare },
            })
            .collect(),
        workers: (1..=MEMBERS)
            .map(|number| WorkerView {
                node: NodeId(number),
                server: ServerState::Ready,
                models: vec![(model(), ready())],
                resources: WorkerResources::default(),
            })
            .collect(),
        models: vec![ModelView {
            model: model(),
            version: Some(Digest::default()),
            training: false,
            failure: None,
            workers: (1..=MEMBERS).map(|number| (NodeId(number), ready())).collect(),
            progress: vec![],
            metrics: vec![],
            package: None,
        }],
        jobs: (1..=JOBS).map(|number| job(number, second)).collect(),
        assignments: (1..=MEMBERS)
            .map(|number| AssignmentView {
                node: NodeId(number),
                name: format!("m{number}"),
                shares: vec![(JobId(1 + number % JOBS), 0.5), (JobId(1 + (number + 1) % JOBS), 0.5)],
                current: vec![JobId(1 + number % JOBS)],
                target_shares: Vec::new(),
            })
            .collect(),
        store: StoreView { files: FILES, blobs: FILES, bytes: FILES * 100_000, ..StoreView::default() },
        policy: Policy::Rate,
        rebalances: Vec::new(),
        rates: Some(rates(second)),
        jobs_left_out: 0,
        loads: (1..=MEMBERS)
            .map(|number| LoadView {
                node: NodeId(number),
                batches: 2,
                queries: number + second,
                blobs: 4000,
                bytes: 1 << 30,
            })
            .collect(),
    }
}

/// All steps are new in every view: the worst case for the console.
fn rates(second: u64) -> RatesView {
    let counts = |number: u64| {
        (0..60).map(|step| u32::try_from((number + step + second) % 200).unwrap_or(0)).collect()
    };
    RatesView {
        step_ms: 5000,
        first: second,
        steps: 60,
        jobs: (1..=JOBS).map(|number| (JobId(number), counts(number))).collect(),
        members: (1..=MEMBERS).map(|number| (NodeId(number), counts(number))).collect(),
    }
}

fn job(number: u64, second: u64) -> JobView {
    let model = "squeezenet1.1".parse().unwrap();
    JobView {
        version: Some(Digest::default()),
        state: JobState::Running,
        submitted: 100_000,
        done: second * 100,
        leased: 64,
        rate_10s_qps: 100.0 + (second % 7) as f64,
        rate_qps: 100.0,
        running_s: second as f64,
        eta_s: Some(60.0),
        local_share: 1.0,
        batch_now: 32,
        ..JobView::added(JobId(number), model, "test-data".parse().unwrap(), 32.into())
    }
}

fn files(state: &mut State) {
    let summary = |number: u64| FileSummary {
        name: format!("test-data/photo-{number:07}.jpg").parse().unwrap(),
        version: 1,
        versions: 1,
        size: 100_000,
        digest: Digest::default(),
        created_ms: 0,
        holders: (number..number + 4).map(|node| NodeId(1 + node % MEMBERS)).collect(),
        etag: None,
    };
    let entries: Vec<FolderEntry> = (0..200).map(|number| FolderEntry::File(summary(number))).collect();
    let query = state.files.in_flight.clone().unwrap_or_default();
    update(state, Msg::Files(query, Ok(FilesPage { entries, first: 0, total: FILES })), 1000);
}

struct Timing {
    median: Duration,
    slowest: Duration,
}

fn measured(mut run: impl FnMut(u64) -> Duration) -> Timing {
    let mut times: Vec<Duration> = (0..RUNS).map(|number| run(number as u64)).collect();
    times.sort();
    Timing { median: times[RUNS / 2], slowest: times[RUNS - 1] }
}

fn main() {
    let mut failed = false;
    println!("{:<12} {:>24} {:>24}", "page", "update median / slowest", "draw median / slowest");
    for page in Page::ALL {
        let mut state = State::new(String::from("large"));
        state.page = page;
        update(&mut state, Msg::Resized(200, 60), 0);
        update(&mut state, Msg::Net(NetEvent::View(Box::new(cluster(0)))), 0);
        files(&mut state);
        let lines = (0..5000).map(|number| LogLine {
            source: format!("m{}", number % 7),
            text: format!("2026-11-23T01:50:00.{number:06}Z  INFO a line of a log"),
        });
        update(&mut state, Msg::Log(lines.collect()), 0);
        let updates = measured(|second| {
            let msg = Msg::Net(NetEvent::View(Box::new(cluster(second + 1))));
            let started = Instant::now();
            black_box(update(&mut state, msg, second * 1000));
            started.elapsed()
        });
        let mut terminal = Terminal::new(TestBackend::new(200, 60)).unwrap();
        let draws = measured(|second| {
            let started = Instant::now();
            terminal.draw(|frame| view(&state, frame, second)).unwrap();
            started.elapsed()
        });
        println!("{:<12} {:>24} {:>24}", page.title(), updates.to_string(), draws.to_string());
        failed |= updates.median > UPDATE_MAX || draws.median > DRAW_MAX;
    }
    assert!(!failed, "a median exceeds its limit: update {UPDATE_MAX:?}, draw {DRAW_MAX:?}");
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        write!(f, "{:.2} ms / {:.2} ms", ms(self.median), ms(self.slowest))
    }
}
