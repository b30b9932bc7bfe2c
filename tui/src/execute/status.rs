//! `status`: the whole cluster on one page.

use idunno_shared::client::cluster::Cluster;
use idunno_shared::wire::control::{ClusterView, Liveness};
use idunno_shared::wire::jobs::ServerState;

use super::clock::now_ms;
use super::{identity, models};
use crate::answer::cluster::ClusterStatus;
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, identities, text, warnings};
use crate::session::Session;

/// The first view that the coordinator pushes.
pub async fn first_view(session: &Session) -> Result<ClusterView, Failure> {
    let mut views = session.cluster().watch().await?;
    let reply = views.recv().await;
    let gone = || Failure::new(Exit::Unreachable, "lost the connection to the coordinator: try again");
    reply.and_then(Cluster::view).ok_or_else(gone)
}

/// `status`.
pub async fn run(session: &Session) -> Result<Answer, Failure> {
    let view = first_view(session).await?;
    let mut status = ClusterStatus::from(&view);
    status.warnings.extend(of_identities(session).await);
    let lines = summary(&view) + &warnings::lines(&status.warnings);
    Ok(Answer::new(&status, lines))
}

/// Which identities end soon. Without an answer there is nothing to tell.
async fn of_identities(session: &Session) -> Vec<String> {
    let now_ms = now_ms();
    let own = identities::own_warning(session.ends_ms, now_ms);
    let ending = identity::ending(session, now_ms).await.unwrap_or_default();
    own.into_iter().chain(identities::warnings(&ending, now_ms)).collect()
}

/// Members by liveness: up, suspect, dead, left.
pub fn census(view: &ClusterView) -> [usize; 4] {
    let count = |state| view.members.iter().filter(|member| member.liveness == state).count();
    [count(Liveness::Alive), count(Liveness::Suspect), count(Liveness::Dead), count(Liveness::Left)]
}

/// The cluster on one page, as text.
pub fn summary(view: &ClusterView) -> String {
    let [up, suspect, dead, left] = census(view);
    let ready = view.workers.iter().filter(|worker| worker.server == ServerState::Ready).count();
    let store = &view.store;
    let mut lines = vec![
        format!("coordinator  {}, term {}", text::member_name(&view.members, view.coordinator), view.term),
        format!("members      {up} up, {suspect} suspect, {dead} dead, {left} left"),
        format!("workers      {ready} of {} model servers ready", view.workers.len()),
        format!("policy       {}: {}", text::policy(view.policy).0, text::policy(view.policy).1),
        format!(
            "files        {} in {} ({}); {} under-replicated, {} copying, {} unavailable",
            store.files,
            text::count(store.blobs, "blob"),
            text::bytes(store.bytes),
            store.under_replicated,
            store.copying,
            store.unavailable
        ),
    ];
    let hung = view.members.iter().filter(|member| member.disk_hung());
    let hung: Vec<&str> = hung.map(|member| member.name.as_str()).collect();
    if !hung.is_empty() {
        let names = hung.join(", ");
        lines.push(format!(
            "disks        no answer from the disk of {names}: check it, or restart the member"
        ));
    }
    if store.full_disks > 0 {
        let full = text::count(store.full_disks, "member");
        lines.push(format!(
            "disks        full at {full}: free some space there, delete files, or add members"
        ));
    }
    for model in &view.models {
        let loaded = model.workers.iter().filter(|(_, state)| text::model_state(state).0 == "ready").count();
        lines.push(format!(
            "model        {} {}, loaded on {loaded}",
            model.model,
            models::model_summary(model)
        ));
    }
    if view.jobs.is_empty() {
        lines.push(String::from("jobs         none"));
    } else {
        let mut table = Table::new("JOB MODEL STATE >DONE >DEAD >TOTAL >QPS_10S ETA");
        for job in &view.jobs {
            table.row([
                job.id.to_string(),
                job.model.to_string(),
                text::job_state(&job.state).0.to_owned(),
                job.done.to_string(),
                job.dead.to_string(),
                job.submitted.to_string(),
                format!("{:.1}", job.rate_10s_qps),
                job.eta_s.map_or_else(|| String::from("-"), text::seconds),
            ]);
        }
        lines.push(String::new());
        lines.push(table.render());
        if view.jobs_left_out > 0 {
            let left_out = text::count(view.jobs_left_out, "older job");
            lines.push(format!("{left_out} not shown: get-job-stats lists all"));
        }
    }
    lines.join("\n")
}
