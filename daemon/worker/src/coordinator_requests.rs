//! What the coordinator asks of a worker beside its batches: each answered by itself, none touches what the worker holds.

use idunno_shared::client::files::Files;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{Parameters, ServerState, WorkReply, WorkRequest};
use idunno_shared::wire::refusal::Refusal;
use tokio::sync::watch;

use super::model_server::ServerError;
use super::result_merge::merge_results;
use super::supervisor::ServerStatus;

/// What they are done with. Cheap to clone.
#[derive(Clone)]
pub struct CoordinatorRequests {
    /// The model server.
    pub status: watch::Receiver<ServerStatus>,
    /// The store.
    pub files: Files,
}

impl CoordinatorRequests {
    /// Does what is asked. A refusal says that another worker may do better.
    pub async fn serve(&self, request: WorkRequest) -> Result<WorkReply, Refusal> {
        match request {
            WorkRequest::CheckParameters { model, parameters } => {
                self.check(&model, &parameters).await.map(WorkReply::Checked)
            }
            WorkRequest::MergeResults { job } => {
                let compacted = merge_results(&self.files, job).await;
                compacted.map(WorkReply::ResultsMerged).map_err(|error| Refusal::internal(error.to_string()))
            }
        }
    }

    async fn check(&self, model: &ModelName, parameters: &Parameters) -> Result<Result<(), String>, Refusal> {
        let unable = |why: String| Refusal::conflict(why);
        let ServerStatus { state, server, .. } = self.status.borrow().clone();
        let (ServerState::Ready, Some((server, extensions))) = (state, server) else {
            return Err(unable(String::from("the model server here is not ready")));
        };
        if !extensions.idunno {
            // Another kind of server says what it makes of them when it is asked to infer.
            return Ok(Ok(()));
        }
        match server.check_parameters(model, parameters).await {
            Ok(()) => Ok(Ok(())),
            Err(ServerError::Status { status: 400, message }) => Ok(Err(message)),
            Err(error) => Err(unable(error.to_string())),
        }
    }
}
