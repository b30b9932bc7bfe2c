//! What the coordinator asks of any worker besides running batches. Each request is independent of the worker's state.

use idunno_shared::client::files::Files;
use idunno_shared::ids::Digest;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{ModelArtefact, Parameters, ServerState, WorkReply, WorkRequest};
use idunno_shared::wire::refusal::Refusal;
use tokio::sync::watch;

use super::model_server::ServerError;
use super::packages::Packages;
use super::result_merge::{Scratch, merge_results};
use super::supervisor::{ReadyServer, ServerStatus, ServerStatuses};

/// Serves the requests. Cheap to clone.
#[derive(Clone)]
pub struct CoordinatorRequests {
    pub status: watch::Receiver<ServerStatuses>,
    pub files: Files,
    pub packages: Packages,
    pub scratch: Scratch,
}

impl CoordinatorRequests {
    /// After a refusal, another worker may succeed.
    pub async fn serve(&self, request: WorkRequest) -> Result<WorkReply, Refusal> {
        match request {
            WorkRequest::CheckParameters { model, parameters, version } => {
                self.check_parameters(&model, version.as_ref(), &parameters).await
            }
            WorkRequest::CheckPackage(artefact) => self.check_package(&artefact, None).await,
            WorkRequest::CheckTraining { package, has_dataset } => {
                self.check_package(&package, Some(has_dataset)).await
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
        version: Option<&Digest>,
        parameters: &Parameters,
    ) -> Result<WorkReply, Refusal> {
        let ReadyServer { server, extensions } = self.ready_server(model)?;
        if !extensions.idunno {
            // A third-party server checks parameters when it is asked to infer.
            return Ok(WorkReply::Checked(Ok(())));
        }
        checked(server.check_parameters(model, version, parameters).await)
    }

    /// Checks that a package is a model, or that it can be trained with or without a dataset.
    async fn check_package(
        &self,
        artefact: &ModelArtefact,
        trained_on_dataset: Option<bool>,
    ) -> Result<WorkReply, Refusal> {
        let ReadyServer { server, extensions } = self.ready_server(&artefact.model)?;
        if !extensions.idunno {
            return Err(Refusal::conflict("the model server of this worker loads no packages"));
        }
        let fetched = self.packages.fetch(artefact).await;
        fetched.map_err(|error| Refusal::conflict(error.to_string()))?;
        checked(server.check_package(&artefact.model, &artefact.version, trained_on_dataset).await)
    }

    fn ready_server(&self, model: &ModelName) -> Result<ReadyServer, Refusal> {
        match self.status.borrow().of(model).cloned() {
            Some(ServerStatus { state: ServerState::Ready, server: Some(server), .. }) => Ok(server),
            _ => Err(Refusal::conflict("the model server of this worker is not ready")),
        }
    }
}

/// The model server's verdict; any other failure is a refusal.
fn checked(answer: Result<(), ServerError>) -> Result<WorkReply, Refusal> {
    match answer {
        Ok(()) => Ok(WorkReply::Checked(Ok(()))),
        Err(ServerError::Status { status: 400, message }) => Ok(WorkReply::Checked(Err(message))),
        Err(error) => Err(Refusal::conflict(error.to_string())),
    }
}
