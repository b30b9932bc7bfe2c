//! Puts revocations into the log that this member knows and the log lacks: it was recovered from a backup, or from a log, that
//! is older than they are.

use std::sync::Arc;

use idunno_core::metadata::Action;
use idunno_shared::wire::control::Change;
use tracing::warn;

use super::LeaderTerm;

/// Compares once: what is learned later comes from the log.
pub(super) async fn restore(leader_term: Arc<LeaderTerm>) {
    let known = leader_term.deps.revocations.names().borrow().clone();
    let lacking: Vec<_> =
        known.iter().filter(|name| !leader_term.state().revoked().contains_key(*name)).cloned().collect();
    for name in lacking {
        warn!(%name, "the log does not know that this identity was revoked: revoking it again");
        let change = Change::RevokeIdentity { name, unseen: true };
        if let Err(refusal) = leader_term.propose_surely(Action::Change(change)).await {
            warn!(%refusal, "cannot revoke an identity again");
        }
    }
}
