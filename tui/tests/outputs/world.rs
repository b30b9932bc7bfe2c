//! A small cluster at one moment: three members, three jobs, two models, four files. All of it is fixed, so that what the program
//! prints of it is always the same.

use std::net::SocketAddr;

use idunno_shared::access::{Grant, Issued, Role};
use idunno_shared::backup::{self, BackupInfo};
use idunno_shared::ids::{Digest, JobId, NodeId, Term, UploadId};
use idunno_shared::wire::blobs::{BlobRef, Holder, PlacedBlob};
use idunno_shared::wire::control::{
    AssignmentView, Attributes, Chain, Change, Changed, ClusterView, ControlReply, ControlRequest,
    DeadLetter, FileSummary, FileVersion, IdentityView, LeaseStage, LeaseView, Liveness, LoadView, LogCursor,
    LogMatches, LogPage, LogRole, MemberView, ModelView, NamedIdentity, PackageSummary, RebalanceView,
    Revocation, SeenCertificate, SegmentView, StoreView, WorkerView,
};
use idunno_shared::wire::frame::Reply;
use idunno_shared::wire::jobs::{Lease, ModelState, Policy, QueryRange, ServerState};
use idunno_shared::wire::records::RecordIdentity;
use idunno_shared::wire::refusal::Refusal;
use idunno_shared::wire::resources::WorkerResources;

use super::jobs;

pub(crate) const M1: NodeId = NodeId(1);
/// The members that hold everything.
pub(crate) const HOLDERS: [u64; 2] = [1, 2];
/// 2026-11-23 01:50:00 UTC.
pub(crate) const NOW_MS: u64 = 1_795_398_600_000;
const REPORT: &[u8] = b"the newest report\n";
const DRAFT: &[u8] = b"the first draft\n";
const LOG: &[u8] = b"2026-11-23T01:49:58.000000Z  INFO this member coordinates term=3\n\
    2026-11-23T01:49:59.000000Z  WARN m3 does not answer\n";

/// What is stored in the cluster.
pub(crate) fn contents() -> Vec<Vec<u8>> {
    vec![REPORT.to_vec(), DRAFT.to_vec(), jobs::rows().into_bytes()]
}

/// The answers to a request, the last of which ends it.
pub(crate) fn answer(request: ControlRequest, address: SocketAddr) -> Vec<Reply> {
    use ControlRequest as Ask;
    let refused = |refusal| vec![Reply::Refused(refusal)];
    let reply = match request {
        Ask::Members => ControlReply::Members(members(address)),
        Ask::Identity => ControlReply::Identity(IdentityView {
            member: members(address).remove(0),
            joined: true,
            data_dir: "/var/lib/idunno".into(),
            pid: 4242,
            program_version: "0.1.0".into(),
        }),
        Ask::Join | Ask::Leave | Ask::EndUpload(_) => ControlReply::Done,
        Ask::Coordinator => {
            ControlReply::Coordinator { coordinator: Holder { node: M1, address }, term: Term(3) }
        }
        Ask::List { prefix, .. } => {
            let files = files().into_iter().filter(|file| file.name.as_str().starts_with(&prefix)).collect();
            ControlReply::Files { files, more: false }
        }
        Ask::Stored { .. } => ControlReply::Stored { files: files(), next: None },
        Ask::Locate { names, .. } => {
            let located = names.iter().map(|name| versions(name.as_str(), address).into_iter().next());
            ControlReply::Located(located.collect())
        }
        Ask::Versions { name, limit } => {
            let mut versions = versions(name.as_str(), address);
            if versions.is_empty() {
                return refused(Refusal::not_found(format!("there is no file {name}")));
            }
            versions.truncate(limit as usize);
            ControlReply::Versions(versions)
        }
        Ask::Plan { blobs, .. } => {
            let chain = HOLDERS.map(|node| Holder { node: NodeId(node), address }).to_vec();
            let chains = blobs.iter().map(|_| Chain(chain.clone())).collect();
            ControlReply::Planned { upload: UploadId { term: Term(3), number: 1 }, chains, copies: 2 }
        }
        Ask::Change { change, .. } => match change_made(change) {
            Ok(changed) => ControlReply::Changed(changed),
            Err(refusal) => return refused(refusal),
        },
        Ask::Jobs(None) => ControlReply::Jobs(jobs::all()),
        Ask::Jobs(Some(id)) => match jobs::all().into_iter().find(|job| job.id == id) {
            Some(job) => ControlReply::Jobs(vec![job]),
            None => return refused(Refusal::not_found(format!("there is no {id}"))),
        },
        Ask::JobPage { .. } => ControlReply::JobPage { jobs: jobs::all(), more: false },
        Ask::Assignments(job) => {
            let is_of = |row: &AssignmentView| job.is_none_or(|job| row.current.contains(&job));
            ControlReply::Assignments(assignments().into_iter().filter(is_of).collect())
        }
        Ask::Models => ControlReply::Models(models()),
        Ask::Results { job, .. } => {
            let job = jobs::all().into_iter().find(|known| known.id == job).unwrap();
            ControlReply::Results { segments: vec![segment(address)], more: false, job }
        }
        Ask::DeadLetters { from, .. } => {
            let dead_letters = if from <= 2 { vec![dead_letter()] } else { vec![] };
            ControlReply::DeadLetters { dead_letters, more: false }
        }
        Ask::Watch => return views(address),
        Ask::Log { .. } => {
            let end = LogCursor { file: "idunnod.2026-11-23.log".into(), offset: LOG.len() as u64 };
            ControlReply::Log(LogPage { end, cut: false, bytes: LOG.to_vec() })
        }
        Ask::SearchLog(search) => {
            let end = LogCursor { file: "idunnod.2026-11-23.log".into(), offset: LOG.len() as u64 };
            let lines = if search.after.is_none() { LOG.to_vec() } else { Vec::new() };
            ControlReply::FoundLog(LogMatches { lines, end, more: false })
        }
        Ask::Leases { .. } => ControlReply::Leases { leases: leases(), more: false },
        Ask::Identities { .. } => ControlReply::Identities { identities: identities(), more: false },
        Ask::Backup => return backup_pieces(),
        other => panic!("{other:?}"),
    };
    vec![Reply::Control(Box::new(reply))]
}

fn change_made(change: Change) -> Result<Changed, Refusal> {
    Ok(match change {
        Change::CommitFiles { files, .. } => Changed::Files(files.iter().map(|_| (1, 2)).collect()),
        Change::CommitFile { .. } => Changed::Files(vec![(1, 2)]),
        Change::Delete { .. } | Change::DeleteFiles { .. } => Changed::Deleted { versions: 2 },
        Change::TrainStart { models, .. } => Changed::Training(models),
        Change::AddJob { .. } => Changed::JobAdded(JobId(4)),
        Change::StartJob { job: JobId(3), .. } => Changed::JobStarted { submitted: 3 },
        Change::StartJob { job, .. } => {
            let known = jobs::all().into_iter().find(|known| known.id == job);
            let known = known.ok_or_else(|| Refusal::not_found(format!("there is no {job}")))?;
            Changed::StartedBefore { submitted: known.submitted, state: known.state }
        }
        Change::RetryDeadLetters { .. } => Changed::Retried { queries: 1 },
        Change::DropDeadLetters { .. } => Changed::Dropped { queries: 1 },
        Change::AddModel { .. } => Changed::ModelAdded { is_new: true },
        Change::CopyFiles { copies, .. } => Changed::Copied(copies.iter().map(|_| 1).collect()),
        _ => Changed::Done,
    })
}

fn members(address: SocketAddr) -> Vec<MemberView> {
    let member = |number: u16, address: SocketAddr, liveness, role| MemberView {
        id: NodeId(number.into()),
        name: format!("m{number}").parse().unwrap(),
        address,
        generation: 1,
        incarnation: 2,
        liveness,
        udp_blocked: number == 2,
        since_ms: NOW_MS,
        doubts: None,
        role,
    };
    vec![
        member(1, address, Liveness::Alive, LogRole::Coordinator),
        member(2, ([127, 0, 0, 1], 47_402).into(), Liveness::Suspect, LogRole::Voter),
        member(3, ([127, 0, 0, 1], 47_403).into(), Liveness::Dead, LogRole::Voter),
    ]
}

fn files() -> Vec<FileSummary> {
    let file = |name: &str, version, bytes: &[u8]| FileSummary {
        name: name.parse().unwrap(),
        version,
        versions: u32::try_from(version).unwrap(),
        size: bytes.len() as u64,
        digest: Digest::of(bytes),
        created_ms: NOW_MS,
        holders: HOLDERS.map(NodeId).to_vec(),
        etag: None,
    };
    vec![file("docs/report.txt", 2, REPORT), file("photos/a.txt", 1, DRAFT)]
}

/// The versions of a file, newest first.
fn versions(name: &str, address: SocketAddr) -> Vec<FileVersion> {
    let contents: &[(u64, &[u8])] = match name {
        "docs/report.txt" => &[(2, REPORT), (1, DRAFT)],
        "photos/a.txt" => &[(1, DRAFT)],
        _ => &[],
    };
    let version = |(version, bytes): &(u64, &[u8])| FileVersion {
        name: name.parse().unwrap(),
        version: *version,
        size: bytes.len() as u64,
        digest: Digest::of(bytes),
        created_ms: NOW_MS,
        extents: vec![placed(bytes, address)],
        attributes: Attributes::new(),
    };
    contents.iter().map(version).collect()
}

fn placed(bytes: &[u8], address: SocketAddr) -> PlacedBlob {
    let blob = BlobRef { digest: Digest::of(bytes), size: bytes.len() as u64 };
    PlacedBlob { blob, holders: vec![Holder { node: M1, address }] }
}

fn segment(address: SocketAddr) -> SegmentView {
    let ranges = vec![QueryRange { first: 0, count: 2 }];
    SegmentView { segment: placed(jobs::rows().as_bytes(), address), ranges }
}

fn dead_letter() -> DeadLetter {
    DeadLetter {
        index: 2,
        name: "photos/c.jpg".parse().unwrap(),
        reason: "the image is cut off: 3 of 4 tries".into(),
        worker: NodeId(2),
        attempts: 3,
        dropped: false,
        identity: RecordIdentity::default(),
    }
}

fn models() -> Vec<ModelView> {
    let trained = ModelView {
        model: "squeezenet1.1".parse().unwrap(),
        version: Some(Digest([7; 32])),
        training: false,
        failure: None,
        workers: vec![
            (M1, ModelState::Ready(Digest([7; 32]))),
            (NodeId(2), ModelState::Failed("no memory".into())),
        ],
        progress: vec![],
        metrics: vec![("accuracy".into(), "0.58".into())],
        package: None,
    };
    let added = ModelView {
        model: "backwards".parse().unwrap(),
        version: Some(Digest::of(DRAFT)),
        workers: vec![(M1, ModelState::Loading)],
        metrics: vec![],
        package: Some(PackageSummary { runtime: "python".into(), files: 1, bytes: DRAFT.len() as u64 }),
        ..trained.clone()
    };
    vec![trained, added]
}

fn assignments() -> Vec<AssignmentView> {
    vec![AssignmentView {
        node: M1,
        name: "m1".into(),
        shares: vec![(JobId(2), 0.75)],
        current: vec![JobId(2)],
        target_shares: vec![(JobId(2), 1.0)],
    }]
}

fn leases() -> Vec<LeaseView> {
    let range = QueryRange { first: 32, count: 32 };
    let lease = Lease { job: JobId(2), range, attempt: 1, term: Term(3) };
    vec![LeaseView { node: M1, name: "m1".into(), lease, stage: LeaseStage::Running { ms: 1234 } }]
}

fn identities() -> Vec<NamedIdentity> {
    let grant = Grant {
        name: "anna".parse().unwrap(),
        role: Role::Submitter,
        prefixes: vec!["photos".parse().unwrap()],
    };
    let issued = Issued { certificate: Digest([9; 32]), grant, ends_ms: NOW_MS + 86_400_000 };
    let seen = SeenCertificate { issued, seen_ms: NOW_MS };
    let revocation = Revocation { at_ms: NOW_MS, by: Some("olga".parse().unwrap()) };
    vec![
        NamedIdentity { name: "anna".parse().unwrap(), certificates: vec![seen], revoked: None },
        NamedIdentity { name: "ben".parse().unwrap(), certificates: vec![], revoked: Some(revocation) },
    ]
}

/// The view, and the view after a change.
fn views(address: SocketAddr) -> Vec<Reply> {
    let view = ClusterView {
        term: Term(3),
        coordinator: M1,
        at_ms: NOW_MS,
        revision: 10,
        members: members(address),
        workers: vec![WorkerView {
            node: M1,
            server: ServerState::Ready,
            models: vec![],
            resources: WorkerResources::default(),
        }],
        models: models(),
        jobs: jobs::all(),
        assignments: assignments(),
        store: StoreView { files: 2, blobs: 3, bytes: 300, under_replicated: 1, ..StoreView::default() },
        loads: vec![LoadView { node: M1, batches: 1, queries: 32, blobs: 3, bytes: 300 }],
        policy: Policy::Rate,
        rebalances: vec![],
        rates: None,
        jobs_left_out: 0,
    };
    let mut later = view.clone();
    later.at_ms += 1000;
    later.store.under_replicated = 0;
    let text = String::from("m2 was lost: job-2 100 % of workers");
    later.rebalances = vec![RebalanceView { at_ms: NOW_MS + 900, text }];
    [view, later].map(|view| Reply::Control(Box::new(ControlReply::View(view)))).to_vec()
}

fn backup_pieces() -> Vec<Reply> {
    let about = BackupInfo {
        program_version: "0.1.0".into(),
        founder: Some(M1),
        term: 3,
        index: 17,
        made_ms: NOW_MS,
        files: 2,
        jobs: 3,
    };
    let bytes = backup::encode(about, b"the state").unwrap();
    let digest = Some(Digest::of(&bytes));
    let pieces = [(vec![], None), (bytes, digest)];
    let piece = |(bytes, digest)| Reply::Control(Box::new(ControlReply::Backup { bytes, digest }));
    pieces.map(piece).to_vec()
}
