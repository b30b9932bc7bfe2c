//! Why a request to the cluster has no result.

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use crate::ids::OpId;
use crate::wire::refusal::{Refusal, RefusalCode};

/// Why a request to the cluster has no result.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The cluster refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No member could be reached, or there is no coordinator.
    #[error("no answer{} (asked {asked}): {last}", within(*waited))]
    Unreachable {
        /// How long it was tried.
        waited: Duration,
        /// The addresses tried.
        asked: String,
        /// What happened last.
        last: String,
    },
    /// The members reached belong to another cluster or do not trust this side: asking again would not help.
    #[error("{0}")]
    Untrusted(String),
    /// A member's reply does not fit the request.
    #[error("unexpected reply from {address}: it may run another version")]
    Unexpected {
        /// The member.
        address: SocketAddr,
    },
}

/// How long the caller waited, if that was at least a second.
fn within(waited: Duration) -> String {
    if waited.as_secs() == 0 { String::new() } else { format!(" within {} s", waited.as_secs()) }
}

impl ClusterError {
    /// Whether no coordinator answered, which passes: asking again later may help.
    pub const fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(refusal) => refusal.code.is_repeated(),
            Self::Untrusted(_) | Self::Unexpected { .. } => false,
        }
    }

    /// The same, with the operation's id where the members' logs know more than the message says.
    pub(super) fn of_operation(mut self, op: OpId) -> Self {
        let text = match &mut self {
            // Any other refusal is a verdict on the request, which its message explains.
            Self::Refused(refusal) if refusal.code.is_repeated() || refusal.code == RefusalCode::Internal => {
                &mut refusal.message
            }
            Self::Unreachable { last, .. } => last,
            _ => return self,
        };
        *text = format!("{text} (operation {op}; see 'idunno logs --grep {op}')");
        self
    }

    /// What the cluster refused.
    pub fn refused(&self) -> Option<(&RefusalCode, &str)> {
        let Self::Refused(Refusal { code, message }) = self else { return None };
        Some((code, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operation_is_named_where_logs_know_more() {
        let op = OpId(0x1234, 0);
        let refused = |code| ClusterError::from(Refusal::new(code, "it exists")).of_operation(op);
        let text = "it exists (operation 0000000000001234; see 'idunno logs --grep 0000000000001234')";
        assert_eq!(refused(RefusalCode::Unknown).to_string(), text);
        for verdict in [RefusalCode::Conflict, RefusalCode::Forbidden, RefusalCode::NotFound] {
            assert_eq!(refused(verdict).to_string(), "it exists");
        }
    }

    #[test]
    fn a_wait_of_a_second_or_more_is_reported() {
        let unreachable = |waited| {
            let (asked, last) = (String::from("m1"), String::from("refused"));
            ClusterError::Unreachable { waited, asked, last }.to_string()
        };
        assert_eq!(unreachable(Duration::from_millis(999)), "no answer (asked m1): refused");
        assert_eq!(unreachable(Duration::from_secs(30)), "no answer within 30 s (asked m1): refused");
    }
}
