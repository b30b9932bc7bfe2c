//! Who may do what.
//!
//! Decides, for a request and whoever sends it, whether it is carried out. [`need`] is the one table of all requests: its
//! matches have no default arm, so a new request does not compile until it has a place. [`decide`] compares what a request
//! needs with what the identity was granted.
//!
//! Roles ascend: a viewer reads; a submitter also runs jobs of its own and changes files below its prefixes; an operator
//! does all that people do; members do the rest. A job belongs to the name that added it, and an upload to the name that
//! opened it ([`Uploads`](crate::uploads::Uploads) asks [`may_use`]). A name is one person or program, whatever identities it
//! has had.
//!
//! Pure: a certificate is read and a connection refused elsewhere. That a name is revoked is not decided here either: its
//! connections are refused, and the log refuses its changes ([`State::apply`](crate::metadata::State::apply)).

use idunno_shared::access::{Grant, Role, SubjectName, join};
use idunno_shared::folders::S3_UPLOADS;
use idunno_shared::ids::{JobId, UploadId};
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{Change, ControlRequest, FileCopy, JobOptions, NewFile};
use idunno_shared::wire::frame::Request;
use idunno_shared::wire::membership::IntroductionRequest;
use thiserror::Error;

use crate::metadata::State;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Need<'a> {
    /// The role, and nothing else.
    Role(Role),
    /// A submitter to whom this belongs, or an operator.
    Own(Claim<'a>),
}

/// What a submitter claims to be its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Claim<'a> {
    /// An upload; none for a new one.
    Upload(Option<UploadId>),
    /// The places of these files.
    Files(&'a [NewFile]),
    /// The place of a file.
    File(&'a FileName),
    /// The places of files that are named.
    Names(&'a [FileName]),
    /// The places of copies, and of what moves there.
    Copies {
        /// The files.
        copies: &'a [FileCopy],
        /// Whether the files that are copied end.
        moves: bool,
    },
    /// A job with these options, which does not exist yet.
    NewJob(&'a JobOptions),
    /// A job.
    Job(JobId),
}

impl Need<'_> {
    /// The least role with which the request may succeed.
    pub const fn role(&self) -> Role {
        match self {
            Self::Role(role) => *role,
            Self::Own(_) => Role::Submitter,
        }
    }
}

/// What a request needs.
pub fn need(request: &Request) -> Need<'_> {
    match request {
        Request::PushPull(_)
        | Request::Ping(_)
        | Request::Election(_)
        | Request::Consensus(_)
        | Request::Files(_)
        | Request::Jobs(_)
        | Request::LeaderAnnouncement(_)
        | Request::Work(_)
        | Request::Introduction(IntroductionRequest::Introduce { .. }) => Need::Role(Role::Member),
        Request::Introduction(IntroductionRequest::ListMembers) => Need::Role(Role::Viewer),
        Request::Control(request) => need_of_control(request),
    }
}

fn need_of_control(request: &ControlRequest) -> Need<'_> {
    match request {
        ControlRequest::NoteIdentity(_) => Need::Role(Role::Member),
        ControlRequest::Join
        | ControlRequest::Leave
        // It changes nothing, but copies all metadata at once, which others must not carry away.
        | ControlRequest::Backup => Need::Role(Role::Operator),
        ControlRequest::Plan { upload, .. } => Need::Own(Claim::Upload(*upload)),
        ControlRequest::EndUpload(upload) => Need::Own(Claim::Upload(Some(*upload))),
        ControlRequest::Change { change, .. } => need_of_change(change),
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
        | ControlRequest::Leases { .. }
        | ControlRequest::Identities { .. }
        | ControlRequest::SortedFiles { .. } => Need::Role(Role::Viewer),
    }
}

/// What a change needs.
pub fn need_of_change(change: &Change) -> Need<'_> {
    match change {
        Change::CommitFiles { upload: _, files } => Need::Own(Claim::Files(files)),
        Change::CommitFile { file, .. } => Need::Own(Claim::Files(std::slice::from_ref(file))),
        Change::Delete { name } => Need::Own(Claim::File(name)),
        Change::DeleteFiles { names } => Need::Own(Claim::Names(names)),
        Change::CopyFiles { copies, moves, .. } => Need::Own(Claim::Copies { copies, moves: *moves }),
        Change::AddJob { options, .. } => Need::Own(Claim::NewJob(options)),
        Change::SetBatchSize { job, .. }
        | Change::StartJob { job, .. }
        | Change::StopJob { job }
        | Change::CancelJob { job }
        | Change::DeleteJob { job }
        | Change::SetWebhook { job, .. }
        | Change::RetryDeadLetters { job, .. }
        | Change::DropDeadLetters { job, .. } => Need::Own(Claim::Job(*job)),
        // These take from the jobs of others, or from all.
        Change::SetWeight { .. }
        | Change::SetPolicy(_)
        | Change::TrainStart { .. }
        | Change::TrainStop { .. }
        // Its code runs on every member.
        | Change::AddModel { .. }
        | Change::RemoveModel { .. }
        | Change::RevokeIdentity { .. } => Need::Role(Role::Operator),
    }
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denial {
    /// People do not send it.
    #[error("only members may send this request")]
    MembersOnly,
    /// It needs a higher role.
    #[error(
        "this needs {}'s identity, and this one is of {has}: have another one made with 'idunno identity create --role {needed}'",
        needed.noun()
    )]
    Role {
        /// The least role that it needs.
        needed: Role,
        /// Whose identity it is.
        has: String,
    },
    /// A file is not below the submitter's prefixes.
    #[error(
        "'{file}' is not below {below}, where {has} may change files: that needs a prefix that covers it, or an operator's identity"
    )]
    Place {
        /// The file.
        file: FileName,
        /// The prefixes.
        below: String,
        /// Whose identity it is.
        has: String,
    },
    /// A job is somebody else's.
    #[error(
        "{job} belongs to {owner}: {has} may change its own jobs only, other jobs need an operator's identity"
    )]
    Job {
        /// The job.
        job: JobId,
        /// Whose job it is.
        owner: String,
        /// Whose identity it is.
        has: String,
    },
    /// There is no such job, so that it is nobody's.
    #[error("there is no {0}: get-job-stats lists the jobs")]
    NoJob(JobId),
    /// A weight takes from the jobs of others.
    #[error("a job of {has} has the weight 1: another weight needs an operator's identity")]
    Weight {
        /// Whose identity it is.
        has: String,
    },
}

/// Who asks. Without security there is no grant.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// As what it asks: at most what it was granted.
    pub role: Role,
    /// What its certificate grants.
    pub grant: Option<&'a Grant>,
}

impl Asker<'_> {
    /// The name that limits what it may use; `None` for whoever may use everything.
    pub fn confined_to(&self) -> Option<&SubjectName> {
        self.grant.filter(|_| self.role < Role::Operator).map(|grant| &grant.name)
    }

    fn describe(&self) -> String {
        self.grant.map_or_else(|| self.role.to_string(), |grant| format!("{} {}", self.role, grant.name))
    }
}

/// Whether what belongs to `owner` may be used by who is confined to a name, if it is confined.
pub fn may_use(confined_to: Option<&SubjectName>, owner: Option<&SubjectName>) -> bool {
    confined_to.is_none_or(|name| owner == Some(name))
}

/// Decides whether a request with this need is carried out. Members that do not coordinate have no `state` to look jobs up in, and carry out
/// no request that needs it.
pub fn decide(asker: Asker<'_>, need: Need<'_>, state: Option<&State>) -> Result<(), Denial> {
    if asker.role < need.role() {
        return Err(match need.role() {
            Role::Member => Denial::MembersOnly,
            needed => Denial::Role { needed, has: asker.describe() },
        });
    }
    match need {
        Need::Own(claim) if asker.role == Role::Submitter => check_claim(asker, claim, state),
        Need::Role(_) | Need::Own(_) => Ok(()),
    }
}

fn check_claim(asker: Asker<'_>, claim: Claim<'_>, state: Option<&State>) -> Result<(), Denial> {
    match claim {
        Claim::Files(files) => files.iter().try_for_each(|file| check_place(asker, &file.name)),
        Claim::File(name) => check_place(asker, name),
        Claim::Names(names) => names.iter().try_for_each(|name| check_place(asker, name)),
        // Whoever may look at a file may copy it, but a move ends it.
        Claim::Copies { copies, moves } => copies.iter().try_for_each(|copy| {
            check_place(asker, &copy.to)?;
            if moves { check_place(asker, &copy.from) } else { Ok(()) }
        }),
        Claim::NewJob(options) if options.weight.is_some_and(|weight| weight != 1) => {
            Err(Denial::Weight { has: asker.describe() })
        }
        // The coordinator's uploads know whose each is.
        Claim::Upload(_) | Claim::NewJob(_) => Ok(()),
        Claim::Job(job) => state.map_or(Ok(()), |state| check_job(asker, job, state)),
    }
}

fn check_place(asker: Asker<'_>, file: &FileName) -> Result<(), Denial> {
    let prefixes = asker.grant.map_or(&[][..], |grant| &grant.prefixes);
    // Parts of an upload belong to whoever may change the file that they are to become.
    let becomes = file.as_str().strip_prefix(S3_UPLOADS).and_then(|rest| rest.parse().ok());
    let place = becomes.as_ref().unwrap_or(file);
    if prefixes.iter().any(|prefix| prefix.covers(place)) {
        return Ok(());
    }
    let below = if prefixes.is_empty() { String::from("any prefix") } else { join(prefixes) };
    Err(Denial::Place { file: file.clone(), below, has: asker.describe() })
}

fn check_job(asker: Asker<'_>, job: JobId, state: &State) -> Result<(), Denial> {
    let owner = state.job(job).ok_or(Denial::NoJob(job))?.owner.as_ref();
    if may_use(asker.confined_to(), owner) {
        return Ok(());
    }
    let owner = owner.map_or_else(|| String::from("nobody"), ToString::to_string);
    Err(Denial::Job { job, owner, has: asker.describe() })
}

#[cfg(test)]
mod tests;
