//! Cluster views for the tests: a small cluster, and a busy one over a minute with a failover.

use crossterm::event::KeyCode;
use idunno_shared::ids::{Digest, JobId, NodeId, Term};
use idunno_shared::wire::blobs::{BlobRef, Holder, PlacedBlob};
use idunno_shared::wire::control::{
    AssignmentView, Attributes, ClusterView, DeadLetter, Distribution, FileSummary, FileVersion, FolderEntry,
    JobDetails, JobState, JobView, LeaseStage, LeaseView, Liveness, LoadView, LogRole, MemberView, ModelView,
    RatesView, StoreView, WorkerView,
};
use idunno_shared::wire::jobs::{Lease, ModelState, Policy, QueryRange, ServerState, TokenCount};
use idunno_shared::wire::records::RecordIdentity;
use idunno_shared::wire::resources::{Device, Runner, WorkerResources};

use super::{press, push};
use crate::console::query::Gathered;
use crate::console::state::{DetailData, DetailQuery, Effect, FilesPage, Msg, NetEvent, Page, State};
use crate::console::update::update;
use crate::tail::LogLine;

pub(super) fn member(number: u16, liveness: Liveness, role: LogRole) -> MemberView {
    MemberView {
        id: NodeId(number.into()),
        name: format!("m{number}").parse().unwrap(),
        address: ([127, 0, 0, 1], 7400 + number).into(),
        generation: 1,
        incarnation: 2,
        liveness,
        udp_blocked: false,
        since_ms: 1_700_000_000_000,
        doubts: None,
        role,
    }
}

pub(super) fn job(id: u64, state: JobState, done: u64) -> JobView {
    JobView {
        id: JobId(id),
        model: "squeezenet1.1".parse().unwrap(),
        version: Some(Digest::default()),
        dataset: "test-data".parse().unwrap(),
        batch_size: 32.into(),
        state,
        submitted: 1000,
        done,
        dead: 2,
        leased: 64,
        rate_10s_qps: 143.2,
        rate_qps: 120.0,
        running_s: 5.0,
        processing_ms: Distribution { median: 5.5, p99: 9.9, ..Distribution::default() },
        eta_s: Some(72.0),
        labelled: 100,
        correct: 87,
        duplicates_dropped: 0,
        details: JobDetails { weight: 1, ..JobDetails::default() },
        local_share: 1.0,
        batch_now: 32,
        tokens: TokenCount::default(),
    }
}

/// A GPU, and a runner on it.
fn resources() -> WorkerResources {
    let device = Device {
        index: 0,
        uuid: String::from("GPU-1"),
        name: String::from("NVIDIA H200"),
        memory_mib: 143_771,
        memory_used_mib: 1024,
        reason: String::new(),
    };
    let runner = Runner {
        model: "squeezenet1.1".parse().unwrap(),
        version: Digest::default(),
        device: String::from("cuda:0"),
        memory_mib: 812,
        state: String::from("running"),
    };
    WorkerResources {
        devices: vec![device],
        runners: vec![runner],
        reads_parquet: true,
        ..WorkerResources::default()
    }
}

pub(in crate::console) fn fixture() -> ClusterView {
    let models = vec![("squeezenet1.1".parse().unwrap(), ModelState::Loading)];
    ClusterView {
        term: Term(3),
        coordinator: NodeId(1),
        at_ms: 1,
        revision: 10,
        members: vec![
            member(10, Liveness::Alive, LogRole::Spare),
            member(1, Liveness::Alive, LogRole::Coordinator),
            member(2, Liveness::Suspect, LogRole::Voter),
            member(3, Liveness::Dead, LogRole::Voter),
        ],
        workers: vec![
            WorkerView { node: NodeId(1), server: ServerState::Ready, models, resources: resources() },
            WorkerView {
                node: NodeId(2),
                server: ServerState::Down("no port".into()),
                models: vec![],
                resources: WorkerResources::default(),
            },
        ],
        models: vec![ModelView {
            model: "squeezenet1.1".parse().unwrap(),
            version: None,
            training: true,
            failure: None,
            workers: vec![],
            progress: vec![],
            metrics: vec![],
            package: None,
        }],
        jobs: vec![job(1, JobState::Running, 398), job(2, JobState::Paused("all failed".into()), 0)],
        assignments: vec![AssignmentView {
            node: NodeId(1),
            name: "m1".into(),
            shares: vec![(JobId(1), 0.6), (JobId(2), 0.4)],
            current: vec![JobId(1)],
            target_shares: vec![(JobId(1), 1.0)],
        }],
        store: StoreView { files: 1234, under_replicated: 7, ..StoreView::default() },
        loads: vec![LoadView { node: NodeId(1), batches: 2, queries: 64, blobs: 321, bytes: 12_345_678 }],
        policy: Policy::Rate,
        rebalances: Vec::new(),
        rates: None,
        jobs_left_out: 0,
    }
}

pub(super) fn file(name: &str) -> FileSummary {
    let name = name.parse().unwrap();
    let holders = vec![NodeId(1), NodeId(10), NodeId(2)];
    FileSummary {
        name,
        version: 3,
        versions: 2,
        size: 12345,
        digest: Digest::default(),
        created_ms: 0,
        holders,
        etag: None,
    }
}

pub(super) fn entry(name: &str) -> FolderEntry {
    FolderEntry::File(file(name))
}

/// Members of the busy cluster.
const MEMBERS: u16 = 7;
/// 2026-11-23 01:50:00 UTC.
const START_MS: u64 = 1_795_398_600_000;

fn busy_view(second: u64) -> ClusterView {
    let dead = second > 40;
    let live = |number: u16| !(dead && number == 1);
    let coordinator = if dead { 3 } else { 1 };
    let numbers = || 1..=MEMBERS;
    let models = [("squeezenet1.1", JobId(1)), ("efficientnet-lite0", JobId(2))];
    let ready = |name: &str| (name.parse().unwrap(), ModelState::Ready(Digest([7; 32])));
    ClusterView {
        term: Term(if dead { 4 } else { 3 }),
        coordinator: NodeId(coordinator),
        at_ms: START_MS + second * 1000,
        revision: 100 + second,
        members: numbers()
            .map(|number| {
                let liveness = if live(number) { Liveness::Alive } else { Liveness::Dead };
                let role = match number {
                    it if u64::from(it) == coordinator => LogRole::Coordinator,
                    6.. => LogRole::Learner,
                    _ => LogRole::Voter,
                };
                member(number, liveness, role)
            })
            .collect(),
        workers: numbers()
            .filter(|number| live(*number))
            .map(|number| WorkerView {
                node: NodeId(number.into()),
                server: if number == 5 { ServerState::Down("no port".into()) } else { ServerState::Ready },
                models: models.iter().map(|(name, _)| ready(name)).collect(),
                resources: WorkerResources::default(),
            })
            .collect(),
        models: models
            .iter()
            .map(|(name, _)| ModelView {
                model: name.parse().unwrap(),
                version: Some(Digest([7; 32])),
                training: false,
                failure: None,
                workers: numbers()
                    .filter(|number| live(*number))
                    .map(|number| (NodeId(number.into()), ready(name).1))
                    .collect(),
                progress: vec![],
                metrics: vec![],
                package: None,
            })
            .collect(),
        jobs: models
            .iter()
            .map(|(name, id)| {
                let slower = id.0 as f64 * 4.0;
                JobView {
                    model: name.parse().unwrap(),
                    rate_10s_qps: 140.0 + ((second + id.0 * 7) % 20) as f64 - slower,
                    dead: if *id == JobId(2) { 3 } else { 0 },
                    submitted: 5000,
                    details: JobDetails {
                        weight: 1,
                        started_ms: Some(START_MS - 600_000),
                        ..JobDetails::default()
                    },
                    ..job(id.0, JobState::Running, (40 * second).saturating_sub(id.0 * 100))
                }
            })
            .collect(),
        assignments: numbers()
            .filter(|number| live(*number))
            .map(|number| AssignmentView {
                node: NodeId(number.into()),
                name: format!("m{number}"),
                shares: vec![(JobId(1), 0.1 * f64::from(number)), (JobId(2), 1.0 - 0.1 * f64::from(number))],
                current: vec![JobId(1 + u64::from(number % 2))],
                target_shares: Vec::new(),
            })
            .collect(),
        store: StoreView {
            files: 5012,
            blobs: 4980,
            bytes: 612_000_000,
            under_replicated: if dead { 120 } else { 0 },
            copying: if dead { 16 } else { 0 },
            ..StoreView::default()
        },
        policy: Policy::Rate,
        rebalances: Vec::new(),
        rates: Some(rates(second)),
        jobs_left_out: 0,
        loads: numbers()
            .filter(|number| live(*number))
            .map(|number| LoadView {
                node: NodeId(number.into()),
                batches: 2,
                queries: 32 + (second * u64::from(number)) % 33,
                blobs: 2800 + u64::from(number),
                bytes: 349_000_000,
            })
            .collect(),
    }
}

/// The answers up to a second, as that second's coordinator knows them.
fn rates(second: u64) -> RatesView {
    let step = |second: u64| START_MS / 5000 + second / 5;
    // The first coordinator had been working for four minutes.
    let first = if second > 40 { step(45) } else { step(0) - 48 };
    let steps = u16::try_from(step(second).saturating_sub(first)).unwrap();
    let counts = |number: u64, least: u32| -> Vec<u32> {
        (first..first + u64::from(steps))
            .map(|it| least + u32::try_from((it * 7 + number * 13) % 40).unwrap())
            .collect()
    };
    let live = (1..=MEMBERS).filter(|number| second <= 40 || *number != 1);
    RatesView {
        step_ms: 5000,
        first,
        steps,
        jobs: [1, 2].map(|job| (JobId(job), counts(job, 600))).to_vec(),
        members: live.map(|it| (NodeId(it.into()), counts(it.into(), 40 * u32::from(it)))).collect(),
    }
}

/// A minute of a cluster of seven members with two jobs, whose coordinator fails.
pub(super) fn busy_cluster(page: Page) -> State {
    let mut state = State::new("prod".into());
    for second in 1..=40 {
        push(&mut state, busy_view(second), second * 1000);
    }
    let lost = NetEvent::Waiting {
        wait_ms: 100,
        attempt: 1,
        reason: "the coordinator went away".into(),
        member_reachable: true,
        members: None,
    };
    state.epoch_ms = START_MS;
    update(&mut state, Msg::Net(lost), 41_000);
    for second in 44..=60 {
        push(&mut state, busy_view(second), second * 1000);
    }
    state.page = page;
    let lines = ["INFO this member coordinates term=4", "WARN m1 does not answer", "ERROR the disk is full"];
    let lines = (0..30).map(|number| LogLine {
        source: format!("m{}", 1 + number % 7),
        text: format!("2026-11-23T01:50:{number:02}.000000Z  {}", lines[number % 3]),
    });
    update(&mut state, Msg::Log(lines.collect()), 60_000);
    let files = ["labels.csv", "photo-0001.jpg", "photo-0002.jpg"].map(entry);
    let mut entries = vec![FolderEntry::Folder("docs/".into()), FolderEntry::Folder("test-data/".into())];
    entries.extend(files);
    update(&mut state, Msg::Tick, 60_000);
    if let Some(query) = state.files.in_flight.clone() {
        update(
            &mut state,
            Msg::Files(query, Ok(FilesPage { total: entries.len() as u64, entries, first: 0 })),
            60_000,
        );
    }
    press(&mut state, KeyCode::Down);
    state.dirty = true;
    state
}

/// The busy cluster with the details of the selection, `switches` tabs to the right.
pub(super) fn busy_details(page: Page, switches: usize) -> State {
    let mut state = busy_cluster(page);
    let mut effects = press(&mut state, KeyCode::Enter);
    for _ in 0..switches {
        effects = press(&mut state, KeyCode::Right);
    }
    answer(&mut state, effects);
    state
}

/// Answers the queries for details.
pub(super) fn answer(state: &mut State, effects: Vec<Effect>) {
    for effect in effects {
        if let Effect::FetchDetail(query) = effect {
            let data = detail_data(&query);
            update(state, Msg::Detail(query, Ok(data)), 60_000);
        }
    }
}

fn detail_data(query: &DetailQuery) -> DetailData {
    match query {
        DetailQuery::DeadLetters(_) => DetailData::DeadLetters(all((0..3)
            .map(|number| DeadLetter {
                index: 17 + number,
                name: format!("test-data/photo-{number:04}.jpg").parse().unwrap(),
                reason: "the image is cut off: 3 of 4 tries".into(),
                worker: NodeId(2),
                attempts: 3,
                dropped: false,
                identity: RecordIdentity::default(),
            })
            .collect())),
        DetailQuery::Stored(_) => DetailData::Files(all(vec![file("docs/report.pdf")])),
        DetailQuery::Versions(name) => DetailData::Versions(vec![FileVersion {
            name: name.clone(),
            version: 3,
            size: 12_345,
            digest: Digest([1; 32]),
            created_ms: START_MS,
            extents: vec![PlacedBlob {
                blob: BlobRef { digest: Digest([2; 32]), size: 12_345 },
                holders: [2, 3, 4, 6]
                    .map(|node| Holder { node: NodeId(node), address: ([127, 0, 0, 1], 7400).into() })
                    .to_vec(),
            }],
            attributes: Attributes::new(),
        }]),
        DetailQuery::Leases { worker, .. } => DetailData::Leases(all([
            LeaseStage::AwaitingCommit,
            LeaseStage::Running { ms: 1234 },
            LeaseStage::Waiting,
        ]
        .into_iter()
        .zip(0..)
        .map(|(stage, number)| LeaseView {
            node: NodeId(1),
            name: String::from("m1"),
            lease: Lease {
                job: JobId(2),
                range: QueryRange { first: 32 * number, count: 32 },
                attempt: 1,
                term: Term(7),
            },
            stage,
        })
        .filter(|view| worker.is_none_or(|worker| view.node == worker))
        .collect())),
        DetailQuery::Results(_) => {
            let rows =
                ["tabby", "tiger cat", "lynx"].iter().zip(17..).map(|(label, query)| result(query, label));
            DetailData::Results(Gathered { rows: rows.collect(), more: true })
        }
        DetailQuery::Preview(_) => DetailData::Lines(vec!["first".into(), "a long line ".repeat(20)]),
    }
}

fn all<T>(rows: Vec<T>) -> Gathered<T> {
    Gathered { rows, more: false }
}

/// A row of results as a worker writes it.
fn result(query: u64, label: &str) -> String {
    let version = "7a".repeat(32);
    format!(
        r#"{{"query":{query},"name":"test-data/photo-{query:04}.jpg","label":"tabby","model":"squeezenet1.1","version":"{version}","output":{{"top5":[{{"index":281,"label":"{label}","probability":0.{query}5}},{{"index":7,"label":"cock","probability":0.01}}],"ms":{query}}},"worker":"m3","attempt":1}}"#
    )
}
