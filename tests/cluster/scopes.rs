//! Identities: a submitter keeps to its own jobs and prefixes, and a revoked identity is refused by every member, at once and
//! for good.

use std::net::SocketAddr;
use std::time::Duration;

use idunno_shared::access::{Grant, Role};
use idunno_shared::client::cluster::{Cluster, ClusterError};
use idunno_shared::client::connection::Connection;
use idunno_shared::client::files::{Files, NoProgress, PutOptions};
use idunno_shared::client::link::DialError;
use idunno_shared::ids::{JobId, OpId, UploadId};
use idunno_shared::security::{Credentials, private_file};
use idunno_shared::wire::control::{
    Change, Changed, ControlReply, ControlRequest, JobOptions, NamedIdentity, NewFile,
};
use idunno_shared::wire::frame::{Reply, Request};
use idunno_shared::wire::jobs::{Policy, Training};
use idunno_shared::wire::refusal::RefusalCode;
use rustix::process::Signal;

use crate::backup::idunno;
use crate::harness::{Expected, LocalCluster, SOON, heavy, light, name, refusal};
use crate::recovery::recover;
use crate::security::{READS, client, connect, is_forbidden, one_of_each, secret_of};

const DAY: Duration = Duration::from_secs(24 * 3_600);
const MODEL: &str = "mnist-mlp";
/// What "at once" means: an announcement is repeated every quarter of a second.
const AT_ONCE: Duration = Duration::from_secs(5);

fn issued(cluster: &LocalCluster, name: &str, role: Role, prefixes: &[&str]) -> Credentials {
    let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
    let grant = Grant { name: name.parse().unwrap(), role, prefixes };
    Credentials::of(&secret_of(cluster).mint_lasting(&grant, DAY).unwrap()).unwrap()
}

fn submitter(cluster: &LocalCluster, name: &str, prefixes: &[&str]) -> Credentials {
    issued(cluster, name, Role::Submitter, prefixes)
}

/// Makes a change once; the code and text of its refusal if there is one.
async fn ask(cluster: &Cluster, change: Change) -> Result<Changed, (RefusalCode, String)> {
    match cluster.change(change).await {
        Ok(changed) => Ok(changed),
        Err(ClusterError::Refused(refusal)) => Err((refusal.code, refusal.message)),
        Err(error) => panic!("{error}"),
    }
}

/// The change is refused by what the identity was granted; returns the text.
async fn forbidden(cluster: &Cluster, change: Change) -> String {
    match ask(cluster, change.clone()).await {
        Err((RefusalCode::Forbidden, text)) => text,
        other => panic!("{change}: {other:?}"),
    }
}

fn add_job(weight: Option<u32>) -> Change {
    Change::AddJob {
        model: MODEL.parse().unwrap(),
        dataset: "data".parse().unwrap(),
        batch_size: 4.into(),
        options: JobOptions { weight, ..JobOptions::default() },
    }
}

async fn added(cluster: &Cluster) -> JobId {
    match ask(cluster, add_job(None)).await {
        Ok(Changed::JobAdded(job)) => job,
        other => panic!("{other:?}"),
    }
}

/// Every change of a job.
fn steer(job: JobId) -> [Change; 7] {
    [
        Change::SetBatchSize { job, batch_size: 9.into() },
        Change::start(job),
        Change::StopJob { job },
        Change::RetryDeadLetters { job, queries: vec![] },
        Change::DropDeadLetters { job, queries: vec![] },
        Change::CancelJob { job },
        Change::DeleteJob { job },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitter_steers_its_own_jobs_and_no_others() {
    let _turn = light().await;
    let cluster = LocalCluster::start(3, false).await;
    let (anna, ben) = (submitter(&cluster, "anna", &["a"]), submitter(&cluster, "ben", &["b"]));
    let (anna, ben) = (client(&cluster, anna), client(&cluster, ben));
    let (annas, bens, operators) = (added(&anna).await, added(&ben).await, added(&cluster.client()).await);
    assert_eq!(cluster.job(annas).await.unwrap().details.owner, Some("anna".parse().unwrap()));
    for (job, owner) in [(bens, "ben"), (operators, "secret-holder")] {
        for change in steer(job) {
            let text = forbidden(&anna, change).await;
            assert!(text.contains(owner) && text.contains("submitter anna"), "{text}");
        }
        // Not even under the operation id with which its owner did something.
        let op = OpId::random();
        let request = |change| ControlRequest::Change { op, change };
        ben.control(request(Change::SetBatchSize { job: bens, batch_size: 5.into() })).await.unwrap();
        for change in
            [Change::SetBatchSize { job: bens, batch_size: 5.into() }, Change::DeleteJob { job: bens }]
        {
            let answer = anna.control(request(change)).await;
            assert!(
                matches!(&answer, Err(ClusterError::Refused(refusal)) if refusal.code == RefusalCode::Forbidden),
                "she is told what ben's operation did: {answer:?}"
            );
        }
    }
    // A job that does not exist yet will be somebody's.
    let next = JobId(operators.0 + 1);
    assert_eq!(ask(&anna, Change::DeleteJob { job: next }).await.unwrap_err().0, RefusalCode::NotFound);
    let view = cluster.job(bens).await.unwrap();
    assert_eq!(view.details.owner, Some("ben".parse().unwrap()));
    // What takes from others is not its to do.
    for change in [
        add_job(Some(1_000)),
        Change::SetWeight { job: annas, weight: 1_000 },
        Change::SetPolicy(Policy::Fifo),
        Change::TrainStart { models: vec![], training: Training { seed: 1, ..Training::default() } },
        Change::TrainStop { models: vec![MODEL.parse().unwrap()] },
        Change::RevokeIdentity { name: "ben".parse().unwrap(), unseen: true },
    ] {
        let text = forbidden(&anna, change).await;
        assert!(text.contains("operator") && text.contains("submitter anna"), "{text}");
    }
    // Its own are.
    ask(&anna, Change::SetBatchSize { job: annas, batch_size: 9.into() }).await.unwrap();
    let untrained = ask(&anna, Change::start(annas)).await.unwrap_err();
    assert_eq!(untrained.0, RefusalCode::Conflict, "{}", untrained.1);
    ask(&anna, Change::CancelJob { job: annas }).await.unwrap();
    ask(&anna, Change::DeleteJob { job: annas }).await.unwrap();
    ask(&cluster.client(), Change::DeleteJob { job: bens }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitter_writes_below_its_prefixes_and_nowhere_else() {
    let _turn = light().await;
    let cluster = LocalCluster::start(3, false).await;
    let mut theirs = Expected::small("b", 0..2);
    theirs.add("aa/x", vec![1; 10]);
    theirs.add("a", vec![2; 10]);
    theirs.put(&cluster).await;
    let anna = submitter(&cluster, "anna", &["a", "deep/er"]);
    let (annas, files) = (client(&cluster, anna.clone()), Files::new(client(&cluster, anna.clone())));
    let put = async |expected: &Expected| {
        files.put_files(expected.write_local(&cluster), PutOptions::default(), &NoProgress).await
    };
    let mut own = Expected::small("a", 0..3);
    own.add("deep/er/still/x", vec![3; 1_000]);
    put(&own).await.unwrap();
    own.verify(&cluster).await;
    // Names that look like it, and names that are not names.
    for outside in
        ["b/0000", "aa/x", "a", "A/x", "deep/x", "deep/er", "deep/ers/x", "users/anna/x", "models/x"]
    {
        let mut wrong = Expected::default();
        wrong.add(outside, vec![9; 20]);
        let error = put(&wrong).await.unwrap_err().to_string();
        assert!(error.contains("a/ and deep/er/"), "{outside}: {error}");
        let text = forbidden(&annas, Change::Delete { name: name(outside) }).await;
        assert!(text.contains(outside) && text.contains("submitter anna"), "{text}");
    }
    for trick in ["a/../b/0000", "a/./../b/0000", "a//../b", "./b/0000", "a/..", "/b/0000"] {
        assert!(trick.parse::<idunno_shared::names::FileName>().is_err(), "{trick} is a name");
    }
    // The same with bytes of its own making, which the client's checks never see.
    let (coordinator, _) = cluster.coordinator().await;
    let raw = connect(anna.clone(), cluster.members[coordinator].address()).await.unwrap();
    let request = ControlRequest::Change { op: OpId(1, 1), change: Change::Delete { name: name("a/0000") } };
    let bytes = rmp_serde::to_vec(&request).unwrap();
    let at = bytes.windows(6).position(|window| window == b"a/0000").unwrap();
    let mut forged = bytes.clone();
    forged[at..at + 6].copy_from_slice(b"a/../b");
    assert!(rmp_serde::from_slice::<ControlRequest>(&forged).is_err(), "a name with '..' decodes");
    assert!(rmp_serde::from_slice::<ControlRequest>(&bytes).is_ok());
    // One file outside spoils the commit of many; an upload of somebody else is out of reach.
    let plan = |upload| ControlRequest::Plan { upload, blobs: vec![], exclude: vec![] };
    let upload = async |cluster: &Cluster| match cluster.control(plan(None)).await.unwrap() {
        ControlReply::Planned { upload, .. } => upload,
        other => panic!("{other:?}"),
    };
    let (own_upload, their_upload) = (upload(&annas).await, upload(&cluster.client()).await);
    let file = |path: &str| NewFile {
        name: name(path),
        size: 0,
        digest: idunno_shared::ids::Digest::of(b""),
        extents: Vec::new(),
    };
    let commit = |upload: UploadId, paths: &[&str]| Change::CommitFiles {
        upload,
        files: paths.iter().map(|path| file(path)).collect(),
    };
    forbidden(&annas, commit(own_upload, &["a/new", "b/new", "a/newer"])).await;
    forbidden(&annas, commit(their_upload, &["a/new"])).await;
    for foreign in [plan(Some(their_upload))] {
        assert_eq!(refusal(annas.control(foreign).await).code, RefusalCode::Forbidden);
    }
    annas.control(ControlRequest::EndUpload(their_upload)).await.unwrap();
    cluster.client().control(plan(Some(their_upload))).await.unwrap();
    ask(&annas, commit(own_upload, &["a/new"])).await.unwrap();
    ask(&annas, Change::Delete { name: name("a/0000") }).await.unwrap();
    theirs.verify(&cluster).await;
    // It reads what a viewer reads, and no member does anything else for it.
    let own = ["Plan", "EndUpload", "Change"];
    for index in 0..3 {
        let connection = connect(anna.clone(), cluster.members[index].address()).await.unwrap();
        for (kind, request) in one_of_each::<ControlRequest>() {
            if !own.contains(&kind.as_str()) {
                let forbidden = is_forbidden(&connection, Request::Control(request)).await;
                assert_eq!(forbidden, !READS.contains(&kind.as_str()), "{kind}");
            }
        }
    }
    drop(raw);
}

/// What the cluster lists of a name.
async fn listed(cluster: &LocalCluster, wanted: &str) -> Option<NamedIdentity> {
    match cluster.client().control(ControlRequest::Identities { after: None, limit: 256, ending: None }).await
    {
        Ok(ControlReply::Identities { identities, more: false }) => {
            identities.into_iter().find(|named| named.name.as_str() == wanted)
        }
        other => panic!("{other:?}"),
    }
}

async fn is_listed(cluster: &LocalCluster, wanted: &str) -> NamedIdentity {
    let listed = async || listed(cluster, wanted).await.ok_or_else(|| String::from("not yet"));
    cluster.eventually(&format!("{wanted} is listed"), SOON, listed).await
}

/// Whether a member refuses a new connection because the identity is revoked.
async fn refuses(credentials: &Credentials, address: SocketAddr) -> Result<(), String> {
    match connect(credentials.clone(), address).await {
        Err(DialError::Revoked { reason, .. }) if reason.contains("was revoked") => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(_) => Err(String::from("it is welcome")),
    }
}

async fn all_refuse(cluster: &LocalCluster, credentials: &Credentials, limit: Duration) {
    for index in cluster.up() {
        let (member, address) = (&cluster.members[index].name, cluster.members[index].address());
        let what = format!("{member} refuses the revoked identity");
        cluster.eventually(&what, limit, async || refuses(credentials, address).await).await;
    }
}

async fn has_ended(connection: &Connection) -> Result<(), String> {
    match connection.call(Request::Control(ControlRequest::Members), Duration::from_secs(1)).await {
        Err(_) => Ok(()),
        Ok(_) => Err(String::from("it answers")),
    }
}

/// Eight members, of which one does not receive the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_identity_is_refused_at_once_everywhere_and_after_restarts() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(8, false).await;
    let anna = issued(&cluster, "anna", Role::Operator, &[]);
    // Another certificate of the same name, which nobody has seen.
    let unseen = issued(&cluster, "anna", Role::Viewer, &[]);
    let ben = issued(&cluster, "ben", Role::Operator, &[]);
    let mut open = Vec::new();
    for member in &cluster.members {
        open.push(connect(anna.clone(), member.address()).await.unwrap());
    }
    let mut watching = client(&cluster, anna.clone()).watch().await.unwrap();
    let seen = is_listed(&cluster, "anna").await;
    assert_eq!((seen.certificates.len(), seen.revoked), (1, None));
    assert_eq!(seen.certificates[0].issued.grant.role, Role::Operator);
    is_listed_with_ben(&cluster, &ben).await;

    // A member that hangs during the revocation hears of it as soon as it goes on.
    let (coordinator, _) = cluster.coordinator().await;
    let hung = (coordinator + 1) % 8;
    cluster.members[hung].signal(Signal::STOP);
    let shown = idunno(&cluster, &["identity", "revoke", "anna", "--yes"]).unwrap();
    assert!(shown.contains("anna"), "{shown}");
    for index in (0..8).filter(|index| *index != hung) {
        let address = cluster.members[index].address();
        let what = format!("{} refuses it", cluster.members[index].name);
        cluster.eventually(&what, AT_ONCE, async || refuses(&anna, address).await).await;
        cluster.eventually("its open connection ends", AT_ONCE, async || has_ended(&open[index]).await).await;
    }
    let ended =
        async { while watching.recv().await.is_some_and(|reply| !matches!(reply, Reply::Refused(_))) {} };
    tokio::time::timeout(AT_ONCE, ended).await.expect("its watch goes on");
    cluster.members[hung].signal(Signal::CONT);
    all_refuse(&cluster, &anna, SOON).await;
    all_refuse(&cluster, &unseen, AT_ONCE).await;

    // A client gives up at once, and says why.
    let asked = client(&cluster, anna.clone()).change(Change::Delete { name: name("x") }).await;
    match asked {
        Err(ClusterError::Untrusted(reason)) => assert!(reason.contains("'anna' was revoked"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let text = idunno(&cluster, &["identity", "ls"]).unwrap();
    assert!(text.contains("anna") && text.contains("revoked") && text.contains("secret-holder"), "{text}");
    assert!(client(&cluster, ben.clone()).control(ControlRequest::Models).await.is_ok(), "ben goes on");

    // All are killed and started again; the member without the log must not wait for anybody to tell it.
    let all = cluster.up();
    for &index in &all {
        let member = &cluster.members[index];
        let file = member.data_dir.join("revoked.json");
        let is_kept = async || match std::fs::read_to_string(&file) {
            Ok(names) if names.contains("anna") => Ok(()),
            other => Err(format!("{other:?}")),
        };
        cluster.eventually(&format!("{} keeps the revocation", member.name), SOON, is_kept).await;
    }
    cluster.kill(&all);
    cluster.restart(&all).await;
    for index in all {
        refuses(&anna, cluster.members[index].address()).await.unwrap();
    }
    cluster.ready().await;
    assert!(is_listed(&cluster, "anna").await.revoked.is_some());
    assert!(client(&cluster, ben).control(ControlRequest::Models).await.is_ok(), "ben goes on");
}

async fn is_listed_with_ben(cluster: &LocalCluster, ben: &Credentials) {
    // By way of a member that does not coordinate.
    let (coordinator, _) = cluster.coordinator().await;
    let _open = connect(ben.clone(), cluster.members[(coordinator + 3) % 8].address()).await.unwrap();
    is_listed(cluster, "ben").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocations_survive_a_restore_also_those_after_the_backup() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(1, false).await;
    let before = issued(&cluster, "before", Role::Operator, &[]);
    let after = issued(&cluster, "after", Role::Submitter, &["a"]);
    for credentials in [&before, &after] {
        client(&cluster, credentials.clone()).control(ControlRequest::Models).await.unwrap();
    }
    is_listed(&cluster, "before").await;
    is_listed(&cluster, "after").await;
    let file = cluster.scratch("metadata.backup").display().to_string();
    idunno(&cluster, &["identity", "revoke", "before", "--yes"]).unwrap();
    idunno(&cluster, &["backup", &file]).unwrap();
    idunno(&cluster, &["identity", "revoke", "after", "--yes"]).unwrap();
    all_refuse(&cluster, &after, AT_ONCE).await;
    let known = cluster.members[0].data_dir.join("revoked.json");
    let knows = async || match std::fs::read_to_string(&known) {
        Ok(text) if text.contains("after") => Ok(()),
        other => Err(format!("{other:?}")),
    };
    cluster.eventually("the member keeps what it has learned", SOON, knows).await;

    cluster.kill(&[0]);
    std::fs::remove_file(cluster.members[0].data_dir.join("metadata.redb")).unwrap();
    cluster.introducer.reap();
    std::fs::remove_file(cluster.introducer.data_dir.join("introducer.json")).unwrap();
    recover(&cluster.members[0].data_dir, &["--backup", &file, "--yes"]).unwrap();
    cluster.introducer.spawn();
    cluster.introducer.started().await;
    cluster.restart(&[0]).await;
    cluster.ready().await;
    all_refuse(&cluster, &before, AT_ONCE).await;
    all_refuse(&cluster, &after, AT_ONCE).await;
    // The log gets back what the backup did not have.
    let is_revoked = async || match listed(&cluster, "after").await {
        Some(named) if named.revoked.is_some() => Ok(()),
        other => Err(format!("{other:?}")),
    };
    cluster.eventually("the log knows the later revocation again", SOON, is_revoked).await;
    assert!(is_listed(&cluster, "before").await.revoked.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn people_make_list_and_revoke_identities_by_command() {
    let _turn = light().await;
    let cluster = LocalCluster::start(1, false).await;
    let (out, secret) = (cluster.scratch("anna.pem"), cluster.secret().display().to_string());
    let path = out.display().to_string();
    let create = ["identity", "create", "anna", "--role", "submit", "--secret", &secret, "--out", &path];
    let made = idunno(&cluster, &create).unwrap();
    assert!(made.contains("a submitter") && made.contains("users/anna/"), "{made}");
    let credentials = Credentials::load(&out).unwrap();
    let days = (credentials.ends_ms().unwrap() - now_ms()) / (24 * 3_600_000);
    assert!((89..=90).contains(&days), "{days}");
    assert!(!idunno(&cluster, &["identity", "ls"]).unwrap().contains("anna"), "nobody has used it");
    let typo = idunno(&cluster, &["identity", "revoke", "ana", "--yes"]).unwrap_err();
    assert!(typo.contains("no identity of 'ana'") && typo.contains("--unseen"), "{typo}");

    // One that ends soon is told.
    let soon = cluster.scratch("soon.pem");
    let grant = Grant { name: "soon".parse().unwrap(), role: Role::Viewer, prefixes: Vec::new() };
    let identity = secret_of(&cluster).mint_lasting(&grant, 3 * DAY).unwrap();
    private_file::create(&soon, &identity.render()).unwrap();
    for credentials in [credentials.clone(), Credentials::load(&soon).unwrap()] {
        client(&cluster, credentials).control(ControlRequest::Models).await.unwrap();
    }
    is_listed(&cluster, "anna").await;
    is_listed(&cluster, "soon").await;
    let shown = idunno(&cluster, &["identity", "ls"]).unwrap();
    let row = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(row("anna").contains("submitter") && row("anna").contains("users/anna/"), "{shown}");
    assert!(row("anna").trim_end().ends_with("valid") && row("soon").contains("ends in"), "{shown}");
    let status = idunno(&cluster, &["status"]).unwrap();
    assert!(status.contains("warning: the identity of soon ends in"), "{status}");

    idunno(&cluster, &["identity", "revoke", "anna", "--yes"]).unwrap();
    let shown = idunno(&cluster, &["--output", "json", "identity", "ls"]).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let anna = shown["items"].as_array().unwrap().iter().find(|item| item["name"] == "anna").unwrap();
    assert_eq!((&anna["state"], &anna["revoked_by"]), (&"revoked".into(), &"secret-holder".into()));
    all_refuse(&cluster, &credentials, AT_ONCE).await;
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}
