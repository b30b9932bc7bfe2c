//! The end of a member: what ends it, and the order in which its parts stop.

use std::time::Duration;

use idunno_consensus::Consensus;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::parts::Parts;
use super::worker::Worker;
use crate::audit::AuditEvent;
use crate::membership::MembershipHandle;
use crate::runtime::process::StopSignals;

/// How long telling the other members may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a faulty log may take to close its file.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Waits for a stop signal, or for a fault that the member cannot survive.
pub(super) async fn wait_for_end(
    parts: &Parts,
    signals: &mut StopSignals,
    worker: &mut Worker,
) -> Option<String> {
    tokio::select! {
        () = signals.next() => None,
        fault = log_fault(&parts.deps.consensus) => Some(format!("the metadata log failed: {fault}")),
        fault = parts.deps.monitor.fault() => Some(fault),
        _ = &mut worker.task => Some(String::from("the worker ended early")),
    }
}

/// Leaves the cluster, then stops all parts. `served` is cancelled once the last request has ended.
pub(super) async fn close(
    parts: Parts,
    mut worker: Worker,
    mut signals: StopSignals,
    served: CancellationToken,
    fault: Option<&str>,
) -> anyhow::Result<()> {
    let membership = &parts.deps.membership;
    let leave_cluster = async {
        let Some(fault) = fault else {
            worker.drain.cancel();
            let drained = (&mut worker.task).await;
            leave(membership).await;
            return drained;
        };
        // With a fault the member leaves first: as long as it is a member others wait for it, and its worker's drain would
        // wait for them.
        error!(%fault, "stopping after a fault");
        leave(membership).await;
        worker.task.abort();
        Ok(())
    };
    tokio::select! {
        drained = leave_cluster => drained?,
        () = signals.next() => warn!("second stop signal: running work is abandoned"),
    }
    parts.stop.cancel();
    served.cancelled().await;
    parts.audit.record(AuditEvent::Stopped).await;
    let consensus = &parts.deps.consensus;
    if fault.is_none() {
        consensus.shutdown().await;
    } else if tokio::time::timeout(CLOSE_TIMEOUT, consensus.shutdown()).await.is_err() {
        // A disk that hangs never closes its file.
        warn!("the metadata log did not close in time");
    }
    Ok(())
}

async fn leave(membership: &MembershipHandle) {
    if tokio::time::timeout(LEAVE_TIMEOUT, membership.leave()).await.is_err() {
        debug!("leaving the cluster timed out");
    }
}

/// Waits until the metadata log has failed.
async fn log_fault(consensus: &Consensus) -> String {
    let mut leadership = consensus.leadership();
    loop {
        if let Some(fault) = leadership.borrow_and_update().fault.clone() {
            return fault;
        }
        if leadership.changed().await.is_err() {
            return String::from("it ended");
        }
    }
}
