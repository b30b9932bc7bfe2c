//! The cluster's models.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use idunno_shared::wire::control::{ControlReply, ControlRequest, ModelView};
use s3s::Body;
use serde::Serialize;

use super::door::{Caller, Door};
use super::error::{ApiError, ApiResult, json};
use super::query::Page;
use super::validation::Shape;
use crate::errors::{of_cluster, unexpected};

/// The runtime of models whose servers speak OpenAI's API.
const RUNTIME: &str = "openai";

/// A model as the API shows it.
#[derive(Debug, Serialize)]
struct Model {
    id: String,
    object: &'static str,
    /// The cluster does not keep it.
    created: u64,
    owned_by: &'static str,
}

impl Model {
    fn new(view: &ModelView) -> Self {
        Self { id: view.model.to_string(), object: "model", created: 0, owned_by: "idunno" }
    }
}

fn shape(view: &ModelView) -> Shape {
    let is_server = view.package.as_ref().is_some_and(|package| package.runtime == RUNTIME);
    if is_server { Shape::Reply } else { Shape::Vector }
}

impl Door {
    async fn models(&self, caller: &Caller) -> ApiResult<Vec<ModelView>> {
        let asked = caller.store.files.cluster().control(ControlRequest::Models).await;
        match asked.map_err(of_cluster)? {
            ControlReply::Models(models) => Ok(models),
            _ => Err(unexpected().into()),
        }
    }

    /// How each model answers.
    pub(super) async fn shapes(&self, caller: &Caller) -> ApiResult<BTreeMap<String, Shape>> {
        let models = self.models(caller).await?;
        Ok(models.iter().map(|view| (view.model.to_string(), shape(view))).collect())
    }

    pub(super) async fn list_models(&self, caller: &Caller) -> ApiResult<Response<Body>> {
        let models = self.models(caller).await?;
        let rows = models.iter().map(|view| (view.model.to_string(), Model::new(view))).collect();
        Ok(json(StatusCode::OK, &Page::new(rows, false)))
    }

    pub(super) async fn model(&self, caller: &Caller, name: &str) -> ApiResult<Response<Body>> {
        let models = self.models(caller).await?;
        let found = models.iter().find(|view| view.model.as_str() == name);
        let none = || ApiError::not_found(format!("The model '{name}' does not exist."));
        Ok(json(StatusCode::OK, &Model::new(found.ok_or_else(none)?)))
    }
}
