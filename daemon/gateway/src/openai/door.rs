//! Addresses and keys: which request is whose, and what is done for it.
//!
//! Everything lies below `/v1`, which is no bucket of S3: a bucket's name has three characters at least.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use idunno_shared::access::Prefix;
use s3s::Body;
use tokio::sync::Semaphore;

use super::error::{ApiError, ApiResult};
use super::ids::Home;
use super::query::ListQuery;
use crate::deliver::Delivery;
use crate::hex::hex;
use crate::keys::Keys;
use crate::memory::Memory;
use crate::s3::gateway::Gateway;
use crate::store::Store;

/// Batches whose lines are checked at once.
const ADMISSIONS_MAX: usize = 4;

/// The second door. Cheap to clone; it keeps nothing that a restart loses.
#[derive(Clone)]
pub struct Door {
    keys: Keys,
    pub(super) receiving: Memory,
    pub(super) delivery: Delivery,
    /// Batches of which this gateway checks the lines or starts the job.
    pub(super) admitted: Arc<Mutex<BTreeSet<String>>>,
    pub(super) admissions: Arc<Semaphore>,
}

/// Who asks.
#[derive(Clone)]
pub struct Caller {
    /// The name that a key has.
    pub(super) name: String,
    pub(super) store: Store,
    pub(super) home: Home,
}

/// Whether a request is for this door.
pub fn is_of_door(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/")
}

impl Door {
    /// A door beside that of S3, which shares its memory.
    pub fn new(gateway: &Gateway) -> Self {
        Self {
            keys: gateway.keys.clone(),
            receiving: gateway.receiving.clone(),
            delivery: gateway.delivery.clone(),
            admitted: Arc::default(),
            admissions: Arc::new(Semaphore::new(ADMISSIONS_MAX)),
        }
    }

    /// Answers a request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let mut response = self.route(request).await.unwrap_or_else(|wrong| {
            tracing::debug!(%method, path, status = %wrong.status, message = wrong.message, "refuses a request");
            wrong.into_response()
        });
        if let Some(id) = request_id() {
            response.headers_mut().insert("x-request-id", id);
        }
        response
    }

    fn caller(&self, request: &Request<Incoming>) -> ApiResult<Caller> {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|given| given.to_str().ok());
        let token = given.and_then(|given| given.strip_prefix("Bearer ")).ok_or_else(|| {
            ApiError::unauthorized(
                "the request has no key: Authorization: Bearer ACCESS_KEY_ID:SECRET_ACCESS_KEY",
            )
        })?;
        let id = self.keys.bearer(token.trim())?;
        let files = self.keys.files(&id.to_string())?;
        let own = id.prefix.clone().unwrap_or_else(|| Prefix::of_home(&id.name));
        Ok(Caller { name: id.name.to_string(), store: Store { files }, home: Home::new(own.as_str()) })
    }

    async fn route(&self, request: Request<Incoming>) -> ApiResult<Response<Body>> {
        let caller = self.caller(&request)?;
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let parts: Vec<&str> = path.split('/').skip(2).collect();
        let query = request.uri().query().map(str::to_owned);
        let query = || ListQuery::parse(query.as_deref());
        let method = request.method().clone();
        match (&method, &parts[..]) {
            (&Method::POST, ["files"]) => self.upload(&caller, request).await,
            (&Method::GET, ["files"]) => self.list_files(&caller, &query()?).await,
            (&Method::GET, ["files", id]) => self.file(&caller, &id.parse()?).await,
            (&Method::DELETE, ["files", id]) => self.delete_file(&caller, &id.parse()?).await,
            (&Method::GET, ["files", id, "content"]) => self.content(&caller, &id.parse()?).await,
            (&Method::POST, ["batches"]) => self.create(&caller, request.into_body()).await,
            (&Method::GET, ["batches"]) => self.list_batches(&caller, &query()?).await,
            (&Method::GET, ["batches", id]) => self.batch(&caller, &id.parse()?).await,
            (&Method::POST, ["batches", id, "cancel"]) => self.cancel(&caller, &id.parse()?).await,
            (&Method::GET, ["models"]) => self.list_models(&caller).await,
            (&Method::GET, ["models", name]) => self.model(&caller, name).await,
            (_, ["files" | "batches" | "models", ..]) if parts.len() <= 3 => {
                let message = format!("Not allowed to {method} on {path}.");
                Err(ApiError::unknown_url(StatusCode::METHOD_NOT_ALLOWED, message))
            }
            _ => {
                let message =
                    format!("Unknown request URL: {method} {path}. This API has files, batches and models.");
                Err(ApiError::unknown_url(StatusCode::NOT_FOUND, message))
            }
        }
    }
}

/// An id by which people find a request; none if the machine has no randomness.
fn request_id() -> Option<HeaderValue> {
    let (first, second) = (getrandom::u64().ok()?, getrandom::u64().ok()?);
    let id = hex(&[first.to_be_bytes(), second.to_be_bytes()].concat());
    HeaderValue::from_str(&format!("req_{id}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_addresses_are_no_buckets() {
        for (path, is_ours) in [
            ("/v1", true),
            ("/v1/files", true),
            ("/v1/", true),
            ("/v10/files", false),
            ("/v1.x/y", false),
            ("/", false),
            ("/bucket/v1/files", false),
        ] {
            assert_eq!(is_of_door(path), is_ours, "{path}");
        }
        use s3s::validation::{AwsNameValidation, NameValidation};
        assert!(!AwsNameValidation::new().validate_bucket_name("v1"));
    }
}
