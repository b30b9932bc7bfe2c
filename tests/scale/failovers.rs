//! The coordinator of a cluster with many files is killed again and again: each time the next one leases, and no file and no
//! row is lost. Alone, and beside a viewer that asks for the worst it may, all the time.
//!
//! The long form takes an hour: `IDUNNO_FIGURE_RUNS` sets the number of kills.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use idunno_shared::client::cluster::Cluster;
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::names::FileName;
use idunno_shared::security::secret::Secret;
use idunno_shared::security::{Credentials, Role};
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{
    Change, Changed, ControlReply, ControlRequest, FileKey, FileOrder, ITEMS_PER_REQUEST_MAX, NewFile,
};
use tokio::task::JoinSet;

use crate::harness::log_times::{since_epoch, summary};
use crate::harness::{Expected, LocalCluster, SOON, SlowServer, heavy};
use crate::process_figures::ProcessFigures;
use crate::size::{figure, sized};

const MEMBERS: usize = 4;
const KILLS: (usize, usize) = (3, 100);
const FILES: (u64, u64) = (2_000, 1_000_000);
const QUERIES: u64 = 400;
const MODEL: &str = "mnist-mlp";
/// A member with a million files reads them before it listens.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Requests that the viewer has under way.
const REQUESTS: usize = 16;

fn many(number: u64) -> FileName {
    format!("many/{:04}/{number:08}", number / 1_000).parse().unwrap()
}

/// Commits files that have the content of one that is stored.
async fn commit_many(cluster: &LocalCluster, stored: &Expected, count: u64) {
    let version = stored.located(cluster).await.unwrap().remove(0);
    let extents: Vec<(BlobRef, Vec<NodeId>)> = version
        .extents
        .iter()
        .map(|placed| (placed.blob, placed.holders.iter().map(|holder| holder.node).collect()))
        .collect();
    let plan = ControlRequest::Plan { upload: None, blobs: Vec::new(), exclude: Vec::new() };
    let upload = match cluster.client().control(plan).await {
        Ok(ControlReply::Planned { upload, .. }) => upload,
        other => panic!("{other:?}"),
    };
    let file = |number| NewFile {
        name: many(number),
        size: version.size,
        digest: version.digest,
        extents: extents.clone(),
    };
    for first in (0..count).step_by(ITEMS_PER_REQUEST_MAX) {
        let files = (first..count.min(first + ITEMS_PER_REQUEST_MAX as u64)).map(file).collect();
        let changed = cluster.change(Change::CommitFiles { upload, files }).await;
        assert!(matches!(changed, Changed::Files(_)), "{changed:?}");
    }
}

/// The largest requests that a viewer may make.
fn worst_requests(cluster: &LocalCluster) -> Vec<ControlRequest> {
    let limit = u32::MAX;
    vec![
        ControlRequest::Stored { member: cluster.node(0), after: None, limit },
        ControlRequest::Locate {
            names: (0..ITEMS_PER_REQUEST_MAX as u64).map(many).collect(),
            version: None,
        },
        ControlRequest::List { prefix: String::new(), after: None, limit },
        ControlRequest::Folder { prefix: "many/".into(), after: None, limit },
        ControlRequest::SortedFiles {
            prefix: String::new(),
            flat: true,
            order: FileOrder { key: FileKey::Copies, descending: true },
            first: 0,
            limit,
        },
        ControlRequest::JobPage { after: None, limit },
        ControlRequest::Leases { job: None, worker: None },
        ControlRequest::Assignments(None),
    ]
}

/// A viewer that asks and asks; it ends when this is dropped.
struct Viewer {
    answers: Arc<AtomicU64>,
    _asking: JoinSet<()>,
}

impl Viewer {
    fn start(cluster: &LocalCluster) -> Self {
        let secret = Secret::load(&cluster.secret()).unwrap();
        let identity = secret.mint(Role::Viewer, Duration::from_secs(24 * 3_600)).unwrap();
        let connector = Arc::new(TcpConnector::new(Credentials::of(&identity).unwrap()));
        let client = Arc::new(Cluster::new(connector, cluster.addresses()));
        let answers = Arc::new(AtomicU64::new(0));
        let mut asking = JoinSet::new();
        for number in 0..REQUESTS {
            let (client, answers) = (Arc::clone(&client), Arc::clone(&answers));
            let requests = worst_requests(cluster);
            asking.spawn(async move {
                for request in requests.iter().cycle().skip(number) {
                    // Refused while it has too much under way, and while nobody coordinates.
                    if client.control(request.clone()).await.is_ok() {
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        Self { answers, _asking: asking }
    }
}

/// A job of one query a batch, started.
async fn start(cluster: &LocalCluster) -> JobId {
    let job = cluster.add_job(MODEL, "inputs", 1).await;
    cluster.start_job(job).await;
    job
}

/// Kills the coordinator so often, and returns how long the next lease took each time.
async fn kill_again_and_again(cluster: &mut LocalCluster, kills: usize) -> Vec<Duration> {
    let (mut waits, mut last_term) = (Vec::new(), 0);
    let mut job = start(cluster).await;
    for _ in 0..kills {
        if cluster.job(job).await.unwrap().done > QUERIES / 2 {
            job = start(cluster).await;
        }
        let done = cluster.job(job).await.unwrap().done;
        cluster.midway(job, done + 10).await;
        // The death may fall anywhere between two heartbeats.
        let phase = Duration::from_millis(u64::from(since_epoch(SystemTime::now()).subsec_millis() % 500));
        tokio::time::sleep(phase).await;
        let (coordinator, term) = cluster.coordinator().await;
        assert!(term > last_term, "term {term} follows {last_term}");
        last_term = term;
        let at = SystemTime::now();
        cluster.kill(&[coordinator]);
        let line = "the first lease of the term";
        let leased = cluster
            .eventually(line, SOON, async || {
                cluster.first_logged(line, at).ok_or_else(|| String::from("not logged"))
            })
            .await;
        waits.push(leased);
        cluster.restart(&[coordinator]).await;
        cluster.ready_within(&cluster.up(), READY_WITHIN).await;
    }
    let view = cluster.finished(job, READY_WITHIN).await;
    assert_eq!((view.done, view.dead), (QUERIES, 0), "{view:?}");
    waits
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_of_many_files_is_replaced_also_beside_a_greedy_viewer() {
    let _turn = heavy().await;
    let files = sized(FILES.0, FILES.1);
    let runs = std::env::var("IDUNNO_FIGURE_RUNS").ok().map(|runs| runs.parse().unwrap());
    let kills = runs.unwrap_or_else(|| sized(KILLS.0, KILLS.1));
    let server = SlowServer::start(Duration::from_millis(100)).await;
    let mut cluster = LocalCluster::start_at(MEMBERS, &server).await;
    let inputs = Expected::small("inputs", 0..QUERIES);
    inputs.put(&cluster).await;
    cluster.train(&[MODEL]).await;
    commit_many(&cluster, &inputs, files).await;
    let resident = |cluster: &LocalCluster| {
        let members = cluster.up().into_iter().map(|index| ProcessFigures::of(&cluster.members[index]));
        members.map(|figures| figures.resident_mib).max()
    };
    figure("failover: files, MiB resident at most", format!("{files}, {:?}", resident(&cluster)));

    let mut waits = kill_again_and_again(&mut cluster, kills).await;
    figure("failover: SIGKILL to the next lease", summary("alone", &mut waits));
    let viewer = Viewer::start(&cluster);
    let mut waits = kill_again_and_again(&mut cluster, kills).await;
    figure("failover: SIGKILL to the next lease", summary("beside a greedy viewer", &mut waits));
    let answers = viewer.answers.load(Ordering::Relaxed);
    drop(viewer);
    figure("failover: answers that the viewer got", answers);
    assert!(answers > 0);
    figure("failover: MiB resident at most afterwards", format!("{:?}", resident(&cluster)));
    inputs.verify(&cluster).await;
    let view = cluster.view().await.unwrap();
    assert!(view.store.files >= files + QUERIES, "{:?}", view.store);
}
