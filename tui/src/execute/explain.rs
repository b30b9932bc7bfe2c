//! `explain`: why a job runs as it does, or does not run, and what to do.
//!
//! Decides from what the coordinator shows everybody; asks nothing that only one member knows.

use std::collections::BTreeMap;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::{
    ClusterView, ControlReply, ControlRequest, JobState, JobView, LeaseStage, LeaseView, Liveness,
};
use idunno_shared::wire::jobs::{ModelState, Policy, RecordFormat, ServerState};
use idunno_shared::wire::resources::ReadFeature;
use idunno_shared::wire::webhooks::WebhookView;

use super::{job_lookup, status};
use crate::answer::jobs::JobExplanation;
use crate::answer::{Answer, Failure, text};
use crate::command::JobRef;
use crate::session::Session;

/// Why a member gets no batch of a dataset that its program cannot read.
const fn not_built(feature: ReadFeature) -> &'static str {
    match feature {
        ReadFeature::Parquet => {
            "its program was built without Parquet: install IDunno's Debian package or its wheel there"
        }
        ReadFeature::References => {
            "its program was built without references: install IDunno's Debian package or its wheel there"
        }
    }
}

/// `explain`.
pub async fn run(session: &Session, job: &JobRef) -> Result<Answer, Failure> {
    let id = job_lookup::resolve(session, job).await?.id;
    let job = job_lookup::job_views(session, Some(id)).await?.pop().ok_or_else(|| job_lookup::missing(id))?;
    let view = status::first_view(session).await?;
    let request = ControlRequest::Leases { job: Some(id), worker: None };
    let ControlReply::Leases { leases, .. } = session.cluster().control(request).await? else {
        return Err(Failure::unexpected());
    };
    let explanation = explain(&job, &view, &leases);
    let mut lines = vec![format!("{id} {}", explanation.summary)];
    lines.extend(explanation.details.iter().map(|detail| format!("  {detail}")));
    lines.extend(explanation.next.iter().map(|next| format!("next: {next}")));
    Ok(Answer::new(&explanation, lines.join("\n")))
}

/// What there is to say of a job.
#[derive(Default)]
struct Finding {
    /// Follows the job's number.
    summary: String,
    details: Vec<String>,
    next: Option<String>,
}

impl Finding {
    fn new(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), ..Self::default() }
    }

    fn next(self, command: String) -> Self {
        Self { next: Some(command), ..self }
    }
}

/// Why a job is in its state. `leases` are its batches.
fn explain(job: &JobView, view: &ClusterView, leases: &[LeaseView]) -> JobExplanation {
    let id = job.id;
    let mut finding = match &job.state {
        JobState::Added => added(job, view),
        JobState::Running => running(job, view, leases),
        JobState::Waiting(before) => follows(*before, view),
        JobState::Stopped => {
            Finding::new("does not run: somebody stopped it").next(format!("idunno start-job {id}"))
        }
        JobState::Paused(reason) => Finding::new(format!("does not run: the cluster paused it: {reason}"))
            .next(format!("idunno dead-letters list {id}")),
        JobState::Done => Finding::new(format!("is done: {}", text::queries(job.submitted)))
            .next(format!("idunno get-job-results {id}")),
        JobState::Cancelled => {
            Finding::new("does not run: it is cancelled for good; its results so far are kept")
                .next(format!("idunno get-job-results {id}"))
        }
    };
    if job.dead > 0 {
        finding.details.push(format!(
            "{} failed for good: 'idunno dead-letters list {id}' has the reasons",
            text::queries(job.dead)
        ));
    }
    finding.details.extend(job.details.webhook.as_deref().and_then(webhook));
    let Finding { summary, details, next } = finding;
    JobExplanation { job: id.to_string(), state: (&job.state).into(), summary, details, next }
}

/// What became of the webhook of a job that has ended.
fn webhook(WebhookView { url, is_due, failure }: &WebhookView) -> Option<String> {
    match failure {
        Some(why) => Some(format!("its webhook was given up: {url}: {why}")),
        None if *is_due => Some(format!(
            "its webhook is yet to be told: 'idunno logs --grep webhook' has the tries to reach {url}"
        )),
        None => None,
    }
}

fn added(job: &JobView, view: &ClusterView) -> Finding {
    let (id, name) = (job.id, &job.model);
    let start = format!("idunno start-job {id}");
    let Some(model) = view.models.iter().find(|model| model.model == *name) else {
        return Finding::new(format!("has not been started, and there is no model '{name}'"))
            .next(String::from("idunno model ls"));
    };
    match (&model.version, model.training, &model.failure) {
        (Some(_), ..) => Finding::new("has not been started").next(start),
        (None, true, _) => {
            Finding::new(format!("has not been started, and its model '{name}' is still being trained"))
                .next(start)
        }
        (None, false, failure) => {
            let why = failure.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            Finding::new(format!("cannot be started: its model '{name}' is not trained{why}"))
                .next(format!("idunno train-start {name}"))
        }
    }
}

fn follows(before: JobId, view: &ClusterView) -> Finding {
    let state = view.jobs.iter().find(|job| job.id == before).map(|job| text::job_state(&job.state).0);
    let is = state.map(|state| format!(", which is {state}")).unwrap_or_default();
    Finding::new(format!("waits for the end of {before}{is}")).next(format!("idunno explain {before}"))
}

fn running(job: &JobView, view: &ClusterView, leases: &[LeaseView]) -> Finding {
    let up: Vec<NodeId> = view
        .members
        .iter()
        .filter(|member| matches!(member.liveness, Liveness::Alive | Liveness::Suspect))
        .map(|member| member.id)
        .collect();
    let (able, others) = workers(job, view, &up);
    if able.is_empty() {
        return cannot_run(job, others);
    }
    let mut finding = if leases.is_empty() { waits(job, view, able.len()) } else { works(job, leases) };
    if view.store.unavailable > 0 {
        finding.details.push(format!(
            "blobs without a copy on a member that is up: {}; inputs among them are read once their members are back",
            view.store.unavailable
        ));
    }
    finding.details.extend(others.into_iter().map(|(why, members)| format!("{}: {why}", members.join(", "))));
    finding
}

/// The members that are up and can run the job's batches, and why the others cannot, with their names.
fn workers(job: &JobView, view: &ClusterView, up: &[NodeId]) -> (Vec<NodeId>, BTreeMap<String, Vec<String>>) {
    let (mut able, mut others) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    for worker in view.workers.iter().filter(|worker| up.contains(&worker.node)) {
        let states = worker.models.iter().filter(|(model, _)| *model == job.model).map(|(_, state)| state);
        let states: Vec<&ModelState> = states.collect();
        let is_loaded = |state: &&ModelState| matches!(state, ModelState::Ready(version) if Some(*version) == job.version);
        let missing = needs(job).filter(|needed| !worker.resources.features().contains(needed));
        let why = match &worker.server {
            ServerState::Starting => String::from("its model server is starting, or it has none"),
            ServerState::Down(reason) => format!("its model server is down: {reason}"),
            ServerState::Ready if missing.is_none() && states.iter().any(is_loaded) => {
                able.push(worker.node);
                continue;
            }
            ServerState::Ready => match states.first() {
                _ if missing.is_some() => missing.map(not_built).unwrap_or_default().to_owned(),
                Some(ModelState::Failed(reason)) => format!("it cannot load '{}': {reason}", job.model),
                Some(ModelState::Training) => format!("it trains '{}'", job.model),
                _ => format!("it is loading '{}'", job.model),
            },
        };
        others.entry(why).or_default().push(text::member_name(&view.members, worker.node));
    }
    (able, others)
}

/// What a program must be built with to read the job's queries.
fn needs(job: &JobView) -> Option<ReadFeature> {
    job.details.records.as_deref().and_then(RecordFormat::needs)
}

/// What the job's dataset is, to a member that may not be able to read it.
fn read(job: &JobView) -> &'static str {
    match needs(job) {
        Some(ReadFeature::Parquet) => "Parquet",
        Some(ReadFeature::References) => "references",
        None => "it",
    }
}

fn cannot_run(job: &JobView, others: BTreeMap<String, Vec<String>>) -> Finding {
    let mut finding = match others.len() {
        0 => Finding::new("waits: no member with a model server is up").next(String::from("idunno list_mem")),
        _ if needs(job).is_some_and(|needed| others.contains_key(not_built(needed))) => Finding::new(
            format!("waits: no member that reads {} has loaded its version of '{}'", read(job), job.model),
        )
        .next(format!("idunno model show {}", job.model)),
        _ => Finding::new(format!("waits: no member has loaded its version of '{}'", job.model))
            .next(format!("idunno model show {}", job.model)),
    };
    finding.details =
        others.into_iter().map(|(why, members)| format!("{}: {why}", members.join(", "))).collect();
    finding
}

/// Members can run it, and none holds a batch of it.
fn waits(job: &JobView, view: &ClusterView, able: usize) -> Finding {
    let older = view.jobs.iter().find(|other| {
        other.id < job.id && other.state == JobState::Running && other.done + other.dead < other.submitted
    });
    match older {
        Some(older) if view.policy == Policy::Fifo => Finding::new(format!(
            "waits: {} is older, and the policy 'fifo' gives it all members first",
            older.id
        ))
        .next(String::from("idunno set-policy rate")),
        _ => Finding::new(format!(
            "waits: {} can run it, and none holds a batch of it at this moment",
            text::count(able as u64, "member")
        ))
        .next(String::from("idunno get-job-assigned-VMs")),
    }
}

fn works(job: &JobView, leases: &[LeaseView]) -> Finding {
    let mut members: Vec<&str> = leases.iter().map(|lease| lease.name.as_str()).collect();
    members.sort_unstable();
    members.dedup();
    let running = leases.iter().filter_map(|lease| match lease.stage {
        LeaseStage::Running { ms } => Some((ms, lease)),
        LeaseStage::Waiting | LeaseStage::AwaitingCommit => None,
    });
    let oldest = running.max_by_key(|(ms, _)| *ms).map(|(ms, lease)| {
        let queries = text::queries(u64::from(lease.lease.range.count));
        let tries = match lease.lease.attempt {
            1 => String::new(),
            attempt => format!(", attempt {attempt}"),
        };
        format!(
            "its oldest batch, {queries}, has run for {:.1} s on {}{tries}",
            f64::from(ms) / 1000.0,
            lease.name
        )
    });
    let place = format!("{} of {} done", job.done + job.dead, text::queries(job.submitted));
    if job.rate_10s_qps > 0.0 {
        let eta = job.eta_s.map(|eta| format!(", {} left", text::seconds(eta))).unwrap_or_default();
        return Finding::new(format!(
            "runs on {}: {:.1} queries/s, {place}{eta}",
            members.join(", "),
            job.rate_10s_qps
        ));
    }
    let mut finding = Finding::new(format!(
        "works on {}, and nothing was answered in the last 10 s: {place}",
        text::count(members.len() as u64, "member")
    ))
    .next(format!("idunno get-job-leases {}", job.id));
    finding.details.extend(oldest);
    finding
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::{Digest, Term};
    use idunno_shared::wire::control::{LogRole, MemberView, ModelView, StoreView, WorkerView};
    use idunno_shared::wire::jobs::{BatchSize, Lease, QueryRange};
    use idunno_shared::wire::records::{ColumnNames, ParquetLayout};
    use idunno_shared::wire::references::ReferenceSource;
    use idunno_shared::wire::resources::WorkerResources;

    use super::*;

    const MODEL: &str = "mine";

    fn job(state: JobState) -> JobView {
        let added =
            JobView::added(JobId(3), MODEL.parse().unwrap(), "set".parse().unwrap(), BatchSize::from(8));
        JobView { state, version: Some(Digest::of(b"mine")), submitted: 100, ..added }
    }

    fn member(id: u64, liveness: Liveness) -> MemberView {
        MemberView {
            id: NodeId(id),
            name: format!("m{id}").parse().unwrap(),
            address: ([127, 0, 0, 1], 1).into(),
            generation: 1,
            incarnation: 0,
            liveness,
            udp_blocked: false,
            role: LogRole::Voter,
            since_ms: 0,
            doubts: None,
        }
    }

    fn worker(id: u64, server: ServerState, state: Option<ModelState>) -> WorkerView {
        let models = state.into_iter().map(|state| (MODEL.parse().unwrap(), state)).collect();
        WorkerView { node: NodeId(id), server, models, resources: WorkerResources::default() }
    }

    fn view(workers: Vec<WorkerView>) -> ClusterView {
        let model = ModelView {
            model: MODEL.parse().unwrap(),
            version: None,
            training: false,
            failure: Some(String::from("no data")),
            workers: Vec::new(),
            progress: Vec::new(),
            metrics: Vec::new(),
            package: None,
        };
        ClusterView {
            term: Term(1),
            coordinator: NodeId(1),
            at_ms: 0,
            revision: 0,
            members: vec![
                member(1, Liveness::Alive),
                member(2, Liveness::Alive),
                member(3, Liveness::Dead),
                member(4, Liveness::Alive),
            ],
            workers,
            models: vec![model],
            jobs: Vec::new(),
            assignments: Vec::new(),
            store: StoreView::default(),
            loads: Vec::new(),
            policy: Policy::Rate,
            rebalances: Vec::new(),
            rates: None,
            jobs_left_out: 0,
        }
    }

    fn lease(stage: LeaseStage, attempt: u32) -> LeaseView {
        let range = QueryRange { first: 8, count: 8 };
        let lease = Lease { job: JobId(3), range, attempt, term: Term(1) };
        LeaseView { node: NodeId(1), name: String::from("m1"), lease, stage }
    }

    fn text_of(explanation: JobExplanation) -> String {
        let JobExplanation { summary, details, next, .. } = explanation;
        format!("{summary} | {} | {}", details.join("; "), next.unwrap_or_default())
    }

    #[test]
    fn a_job_that_does_not_run_says_why_and_what_to_do() {
        let nothing = view(Vec::new());
        for (state, expected) in [
            (
                JobState::Added,
                "cannot be started: its model 'mine' is not trained: no data |  | idunno train-start mine",
            ),
            (JobState::Stopped, "does not run: somebody stopped it |  | idunno start-job job-3"),
            (
                JobState::Paused(String::from("all fail")),
                "does not run: the cluster paused it: all fail |  | idunno dead-letters list job-3",
            ),
            (JobState::Waiting(JobId(2)), "waits for the end of job-2 |  | idunno explain job-2"),
            (JobState::Done, "is done: 100 queries |  | idunno get-job-results job-3"),
            (JobState::Running, "waits: no member with a model server is up |  | idunno list_mem"),
        ] {
            assert_eq!(text_of(explain(&job(state), &nothing, &[])), expected);
        }
        let failed = JobView { dead: 2, ..job(JobState::Done) };
        let text = text_of(explain(&failed, &nothing, &[]));
        assert!(text.contains("2 queries failed for good: 'idunno dead-letters list job-3'"), "{text}");
    }

    #[test]
    fn a_model_that_no_member_has_loaded_is_named_with_each_members_reason() {
        let old = ModelState::Ready(Digest::of(b"old"));
        let view = view(vec![
            worker(1, ServerState::Ready, Some(ModelState::Failed(String::from("no such module")))),
            worker(2, ServerState::Down(String::from("port taken")), None),
            worker(3, ServerState::Ready, Some(ModelState::Ready(Digest::of(b"mine")))),
            worker(4, ServerState::Ready, Some(old)),
        ]);
        let text = text_of(explain(&job(JobState::Running), &view, &[]));
        assert_eq!(
            text,
            "waits: no member has loaded its version of 'mine' | m1: it cannot load 'mine': no such module; \
             m4: it is loading 'mine'; m2: its model server is down: port taken | idunno model show mine"
        );
    }

    #[test]
    fn a_member_whose_program_reads_no_parquet_is_named() {
        let loaded = || Some(ModelState::Ready(Digest::of(b"mine")));
        let no_parquet = not_built(ReadFeature::Parquet);
        let mut job = job(JobState::Running);
        job.details.records = Some(Box::new(RecordFormat::Parquet(ParquetLayout {
            columns: ColumnNames::default(),
            keep: Vec::new(),
            footer_bytes: 8,
            row_bytes: 8,
        })));
        let mut view =
            view(vec![worker(1, ServerState::Ready, loaded()), worker(2, ServerState::Ready, loaded())]);
        let text = text_of(explain(&job, &view, &[]));
        assert_eq!(
            text,
            format!(
                "waits: no member that reads Parquet has loaded its version of 'mine' | m1, m2: {no_parquet} | \
                 idunno model show mine"
            )
        );
        view.workers[0].resources.reads_parquet = true;
        let text = text_of(explain(&job, &view, &[]));
        assert!(
            text.starts_with("waits: 1 member can run it") && text.contains(&format!("m2: {no_parquet}")),
            "{text}"
        );
        job.details.records = Some(Box::new(RecordFormat::References(ReferenceSource::default())));
        let text = text_of(explain(&job, &view, &[]));
        let no_references = not_built(ReadFeature::References);
        assert!(
            text.starts_with("waits: no member that reads references") && text.contains(no_references),
            "{text}"
        );
    }

    #[test]
    fn a_job_that_works_says_where_and_how_fast_or_what_takes_so_long() {
        let loaded = ModelState::Ready(Digest::of(b"mine"));
        let mut view = view(vec![worker(1, ServerState::Ready, Some(loaded))]);
        let text =
            |job: &JobView, view: &ClusterView, leases: &[LeaseView]| text_of(explain(job, view, leases));
        let slow = job(JobState::Running);
        let runs = lease(LeaseStage::Running { ms: 61_500 }, 2);
        let found = text(&slow, &view, &[lease(LeaseStage::Waiting, 1), runs.clone()]);
        assert!(found.starts_with("works on 1 member, and nothing was answered in the last 10 s"), "{found}");
        assert!(found.contains("has run for 61.5 s on m1, attempt 2"), "{found}");
        let fast = JobView { rate_10s_qps: 12.0, eta_s: Some(5.0), done: 40, ..slow.clone() };
        let found = text(&fast, &view, &[runs]);
        assert!(found.starts_with("runs on m1: 12.0 queries/s, 40 of 100 queries done, "), "{found}");
        assert!(text(&slow, &view, &[]).starts_with("waits: 1 member can run it"));
        view.jobs = vec![JobView { id: JobId(2), ..slow.clone() }];
        view.policy = Policy::Fifo;
        assert!(text(&slow, &view, &[]).starts_with("waits: job-2 is older"));
        view.store = StoreView { unavailable: 1, ..StoreView::default() };
        assert!(text(&slow, &view, &[]).contains("without a copy on a member that is up: 1;"));
    }
}
