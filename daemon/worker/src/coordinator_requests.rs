//! What the coordinator asks of any worker besides running batches. Each request is independent of the worker's state.

use idunno_shared::client::files::Files;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{Parameters, ServerState, WorkReply, WorkRequest};
use idunno_shared::wire::refusal::Refusal;
use tokio::sync::watch;

use super::model_server::ServerError;
use super::result_merge::{Scratch, merge_results};
use super::supervisor::{ReadyServer, ServerStatus};

/// Serves the requests. Cheap to clone.
#[derive(Clone)]
pub struct CoordinatorRequests {
    pub status: watch::Receiver<ServerStatus>,
    pub files: Files,
    pub scratch: Scratch,
}

impl CoordinatorRequests {
    /// After a refusal, another worker may succeed.
    pub async fn serve(&self, request: WorkRequest) -> Result<WorkReply, Refusal> {
        match request {
            WorkRequest::CheckParameters { model, parameters } => {
                self.check_parameters(&model, &parameters).await
            }
            WorkRequest::MergeResults { job } => {
                let merged = merge_results(&self.files, self.scratch.clone(), job).await;
                merged.map(WorkReply::ResultsMerged).map_err(|error| Refusal::internal(error.to_string()))
            }
        }
    }

    async fn check_parameters(
        &self,
        model: &ModelName,
        parameters: &Parameters,
    ) -> Result<WorkReply, Refusal> {
        let ServerStatus { state, server, .. } = self.status.borrow().clone();
        let (ServerState::Ready, Some(ReadyServer { server, extensions })) = (state, server) else {
            return Err(Refusal::conflict("the model server of this worker is not ready"));
        };
        if !extensions.idunno {
            // A third-party server checks parameters when it is asked to infer.
            return Ok(WorkReply::Checked(Ok(())));
        }
        match server.check_parameters(model, parameters).await {
            Ok(()) => Ok(WorkReply::Checked(Ok(()))),
            Err(ServerError::Status { status: 400, message }) => Ok(WorkReply::Checked(Err(message))),
            Err(error) => Err(Refusal::conflict(error.to_string())),
        }
    }
}
