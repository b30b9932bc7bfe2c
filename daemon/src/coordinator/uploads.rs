//! The task that tracks uploads in progress for clients and repair; `core::uploads` decides.
//!
//! Bounds: [`INPUTS_MAX`] requests queue up, then callers wait.

use idunno_core::uploads::{DeletionPermit, UploadError, Uploads, UploadsEffect, UploadsEvent};
use idunno_shared::access::SubjectName;
use idunno_shared::ids::{NodeId, Term, UploadId};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Deps, not_coordinator};
use crate::runtime::driver::{Driver, Shell, Turn, Waiting, ask};

/// Requests that may wait for the task.
pub const INPUTS_MAX: usize = 1_024;

pub(super) enum Input {
    Use(Option<UploadId>, Option<SubjectName>, oneshot::Sender<Result<UploadId, UploadError>>),
    End(UploadId, Option<SubjectName>),
    Booted { node: NodeId, generation: u64 },
    PermitRequested { node: NodeId, generation: u64, reply: oneshot::Sender<Option<DeletionPermit>> },
}

/// The uploads of one term. Cheap to clone.
#[derive(Clone)]
pub struct UploadsHandle {
    deps: Deps,
    inputs: mpsc::Sender<Input>,
}

impl UploadsHandle {
    /// Keeps a member's upload alive, or says that it is over.
    pub async fn touch(&self, upload: UploadId) -> Result<(), Refusal> {
        self.use_as(None, Some(upload)).await.map(drop)
    }

    /// Keeps an upload alive, or opens one, for somebody who is confined to those of a name, if to any.
    pub async fn use_as(
        &self,
        confined_to: Option<&SubjectName>,
        upload: Option<UploadId>,
    ) -> Result<UploadId, Refusal> {
        let answer = ask(&self.inputs, |reply| Input::Use(upload, confined_to.cloned(), reply)).await;
        answer.ok_or_else(|| not_coordinator(&self.deps))?.map_err(refusal)
    }

    /// Ends a member's upload.
    pub async fn end(&self, upload: UploadId) {
        self.end_as(None, upload).await;
    }

    /// Ends an upload, for somebody who is confined to those of a name, if to any.
    pub async fn end_as(&self, confined_to: Option<&SubjectName>, upload: UploadId) {
        // All uploads end with the term.
        let _ = self.inputs.send(Input::End(upload, confined_to.cloned())).await;
    }

    /// Notes a member's boot count, as the member itself reports it.
    pub async fn booted(&self, node: NodeId, generation: u64) {
        // The next term asks again.
        let _ = self.inputs.send(Input::Booted { node, generation }).await;
    }

    /// The permit for the member, at this boot, to delete blobs that nothing refers to.
    pub async fn permit(&self, node: NodeId, generation: u64) -> Option<DeletionPermit> {
        ask(&self.inputs, |reply| Input::PermitRequested { node, generation, reply }).await.flatten()
    }
}

fn refusal(error: UploadError) -> Refusal {
    let code = match error {
        UploadError::TooMany | UploadError::TooManyOwn => RefusalCode::Busy,
        UploadError::Over => RefusalCode::UploadOver,
        UploadError::Foreign => RefusalCode::Forbidden,
    };
    Refusal::new(code, error.to_string())
}

/// Answers the requests of one term.
#[derive(Default)]
pub(super) struct UploadsTask {
    users: Waiting<Result<UploadId, UploadError>>,
    permits: Waiting<Option<DeletionPermit>>,
}

impl UploadsTask {
    /// Starts the task of a term.
    pub(super) fn spawn(deps: Deps, term: Term, first: u64, closed: &CancellationToken) -> UploadsHandle {
        let (clock, monitor) = (deps.clock, deps.monitor.clone());
        let (inputs, queued) = mpsc::channel(INPUTS_MAX);
        let machine = Uploads::new(term, first);
        let driver = Driver { machine, shell: Self::default(), clock, inputs: queued };
        driver.spawn("upload tracker", &monitor, closed);
        UploadsHandle { deps, inputs }
    }
}

impl Shell for UploadsTask {
    type Machine = Uploads;
    type Input = Input;

    async fn translate(&mut self, input: Input, turn: &mut Turn<Self>) {
        turn.event(match input {
            Input::Use(upload, confined_to, reply) => {
                UploadsEvent::Use { request: self.users.add(reply), upload, confined_to }
            }
            Input::End(upload, confined_to) => UploadsEvent::End { upload, confined_to },
            Input::Booted { node, generation } => UploadsEvent::Booted { node, generation },
            Input::PermitRequested { node, generation, reply } => {
                UploadsEvent::PermitRequested { request: self.permits.add(reply), node, generation }
            }
        });
    }

    async fn carry_out(&mut self, effect: UploadsEffect, _turn: &mut Turn<Self>) {
        match effect {
            UploadsEffect::Answer { request, outcome } => self.users.answer(request, outcome),
            UploadsEffect::Permit { request, permit } => self.permits.answer(request, permit),
        }
    }
}
