//! Which role may send which request. The match names every request, so that a new one does not compile until it has a role.

use idunno_shared::security::Role;
use idunno_shared::wire::control::ControlRequest;
use idunno_shared::wire::frame::{
    FRAME_BYTES_MAX, OPERATOR_REQUEST_BYTES_MAX, Request, VIEWER_REQUEST_BYTES_MAX,
};
use idunno_shared::wire::membership::IntroductionRequest;
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use idunno_store::memory::MemoryBudget;
use idunno_store::server::BlobAccess;

/// Refuses a request that the role does not permit.
pub fn check(role: Role, request: &Request) -> Result<(), Refusal> {
    let needed = needed(request);
    if role >= needed {
        return Ok(());
    }
    let why = match needed {
        Role::Member => "only members may send this request".to_owned(),
        Role::Operator | Role::Viewer => format!(
            "a {role}'s identity may read but not change anything: use an operator's, made with 'idunno cluster issue'"
        ),
    };
    Err(Refusal::new(RefusalCode::Forbidden, why))
}

/// The largest request that a role may send, in bytes.
pub fn request_bytes_max(role: Role) -> usize {
    match role {
        Role::Viewer => VIEWER_REQUEST_BYTES_MAX,
        Role::Operator => OPERATOR_REQUEST_BYTES_MAX,
        Role::Member => FRAME_BYTES_MAX,
    }
}

/// What a role may do on a blob connection.
pub fn blob_access(role: Role, memory: Option<MemoryBudget>) -> BlobAccess {
    BlobAccess { may_store: role >= Role::Operator, is_member: role >= Role::Member, memory }
}

/// The least role that may send the request.
pub fn needed(request: &Request) -> Role {
    match request {
        Request::PushPull(_)
        | Request::Ping(_)
        | Request::Election(_)
        | Request::Consensus(_)
        | Request::Files(_)
        | Request::Jobs(_)
        | Request::LeaderAnnouncement(_)
        | Request::Work(_)
        | Request::Introduction(IntroductionRequest::Introduce { .. }) => Role::Member,
        Request::Introduction(IntroductionRequest::ListMembers) => Role::Viewer,
        Request::Control(request) => needed_to_control(request),
    }
}

fn needed_to_control(request: &ControlRequest) -> Role {
    match request {
        ControlRequest::Join
        | ControlRequest::Leave
        | ControlRequest::Plan { .. }
        | ControlRequest::EndUpload(_)
        | ControlRequest::Change { .. }
        // It changes nothing, but copies all metadata at once, which a viewer must not carry away.
        | ControlRequest::Backup => Role::Operator,
        ControlRequest::Members
        | ControlRequest::Identity
        | ControlRequest::Coordinator
        | ControlRequest::List { .. }
        | ControlRequest::Locate { .. }
        | ControlRequest::Versions { .. }
        | ControlRequest::Stored { .. }
        | ControlRequest::Jobs(_)
        | ControlRequest::Assignments(_)
        | ControlRequest::Models
        | ControlRequest::Results { .. }
        | ControlRequest::DeadLetters { .. }
        | ControlRequest::Watch
        | ControlRequest::Folder { .. }
        | ControlRequest::Log { .. }
        | ControlRequest::SearchLog(_)
        | ControlRequest::JobPage { .. }
        | ControlRequest::Leases { .. } => Role::Viewer,
    }
}
