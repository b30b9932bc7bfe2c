//! What the roles of [`idunno_core::access`] mean at a member's port: which requests are refused, how large they may be, and
//! what a blob connection may do.

use idunno_core::access::{Asker, Denial, Need, decide};
use idunno_core::metadata::State;
use idunno_shared::security::Role;
use idunno_shared::wire::frame::{FRAME_BYTES_MAX, OPERATOR_REQUEST_BYTES_MAX, VIEWER_REQUEST_BYTES_MAX};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use idunno_store::access::BlobAccess;
use idunno_store::memory::MemoryBudget;

/// Refuses what was not granted. Only the coordinator has the `state` that says whose a job is.
pub fn check(asker: Asker<'_>, need: Need<'_>, state: Option<&State>) -> Result<(), Refusal> {
    decide(asker, need, state).map_err(|denial| {
        let code = match denial {
            Denial::NoJob(_) => RefusalCode::NotFound,
            Denial::MembersOnly
            | Denial::Role { .. }
            | Denial::Place { .. }
            | Denial::Job { .. }
            | Denial::Weight { .. } => RefusalCode::Forbidden,
        };
        Refusal::new(code, denial.to_string())
    })
}

/// The largest request that a role may send, in bytes.
pub fn request_bytes_max(role: Role) -> usize {
    match role {
        Role::Viewer => VIEWER_REQUEST_BYTES_MAX,
        Role::Submitter | Role::Operator => OPERATOR_REQUEST_BYTES_MAX,
        Role::Member => FRAME_BYTES_MAX,
    }
}

/// What a role may do on a blob connection. What a submitter stores becomes a file only by a commit, which is checked.
pub fn blob_access(role: Role, memory: Option<MemoryBudget>) -> BlobAccess {
    BlobAccess { may_store: role >= Role::Submitter, is_member: role >= Role::Member, memory }
}
