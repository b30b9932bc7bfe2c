//! Has the results of finished jobs put into one file each, by workers. Their bytes do not come here.
//!
//! One job at a time. Whose turn it is, and at which worker, is decided by `core::result_merge`; a worker that dies, or whose
//! file is refused, costs a pause and then another worker's try.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use idunno_core::metadata::Action;
use idunno_core::result_merge::ResultMerge;
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::JobState;
use idunno_shared::wire::jobs::{MergedResults, WorkReply, WorkRequest};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Deps, LeaderTerm};

/// The least time between two looks at the jobs.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// How long a worker may take for one job.
const COMPACT_TIMEOUT: Duration = Duration::from_secs(1800);

/// Works until the leader_term is closed.
pub async fn run(leader_term: Weak<LeaderTerm>, deps: Deps, closed: CancellationToken) {
    let mut archive = ResultMerge::default();
    let mut state = deps.consensus.state().clone();
    loop {
        // Every entry of the log is a change of the state: it need not be looked at that often.
        tokio::select! {
            () = tokio::time::sleep(LOOK_PERIOD) => {}
            () = closed.cancelled() => return,
        }
        let Some(leader_term) = leader_term.upgrade() else { return };
        let due: Vec<JobId> = {
            let state = state.borrow_and_update();
            let done = state.jobs().filter(|job| job.state == JobState::Done && !job.filed);
            done.map(|job| job.id).collect()
        };
        let now = deps.clock.now();
        if let Some(job) = archive.next(&due, now) {
            tokio::select! {
                filed = leader_term.file(&archive, job) => match filed {
                    Ok(()) => archive.filed(job),
                    Err(why) => {
                        warn!(%job, %why, "the results are in no file yet");
                        archive.failed(job, deps.clock.now());
                    }
                },
                () = closed.cancelled() => return,
            }
            continue;
        }
        drop(leader_term);
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            () = deps.clock.sleep_until(archive.next_deadline(&due)) => {}
            () = closed.cancelled() => return,
        }
    }
}

impl LeaderTerm {
    /// Has one job's results made into a file, and enters it into the log.
    async fn file(&self, archive: &ResultMerge, job: JobId) -> Result<(), String> {
        self.may_decide().map_err(|refusal| refusal.message)?;
        let worker = archive.choose(job, &self.loads().await?).ok_or("there is no worker")?;
        let reply = self.ask_worker(worker, WorkRequest::MergeResults { job }, COMPACT_TIMEOUT).await?;
        let WorkReply::ResultsMerged(results) = reply else {
            return Err(String::from("it answered out of turn"));
        };
        let MergedResults { upload, size, digest, extents, finished_ms } = results;
        let touched = self.uploads().touch(upload, self.deps.clock.now());
        touched.map_err(|refusal| refusal.message)?;
        let holders = |placed: idunno_shared::wire::blobs::PlacedBlob| {
            (placed.blob, placed.holders.iter().map(|holder| holder.node).collect())
        };
        let extents = extents.into_iter().map(holders).collect();
        let action = Action::FileResults { job, finished_ms, size, digest, extents };
        let filed = self.propose(None, action).await;
        self.uploads().end(upload);
        filed.map_err(|refusal| refusal.message)?;
        info!(%job, size, "the results are in a file");
        Ok(())
    }

    /// The leases of each live member that has reported.
    async fn loads(&self) -> Result<BTreeMap<NodeId, usize>, String> {
        let view = self.deps.membership.current();
        let reports = self.scheduler.view().await.map_err(|refusal| refusal.message)?.reports;
        let live = reports.into_iter().filter(|(worker, report)| view.is_live(*worker) && !report.draining);
        Ok(live.map(|(worker, report)| (worker, report.leases.len())).collect())
    }
}
