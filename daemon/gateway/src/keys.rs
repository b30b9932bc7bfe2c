//! Who asks: secrets of access keys, what is refused before anything is done, and a cluster for each key.
//!
//! The gateway holds the cluster's secret and no table. It tells a key's secret from its id, and asks the cluster with an identity that it
//! issues for that key: what a key may do is decided by the cluster's own rules, and a revoked name is refused by its members.
//!
//! Bounds: [`CALLERS_MAX`] keys have connections at once.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Uri, header};
use idunno_shared::client::cluster::Cluster;
use idunno_shared::client::files::Files;
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::security::secret::Secret;
use idunno_shared::security::{AccessKeyId, Credentials, SecurityError};
use lru::LruCache;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3ErrorCode, S3Result};

use crate::errors::error;

/// Keys that have connections to the cluster at once.
pub const CALLERS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);
/// Longest validity of a presigned URL, in seconds: as on AWS.
pub const PRESIGNED_S_MAX: u64 = 604_800;
/// How long a request is repeated before a program is asked to try again: longer than most failovers, shorter than programs wait.
const CLUSTER_DEADLINE: Duration = Duration::from_secs(20);
/// How long a store may take without storing anything.
const PUT_LIMIT: Duration = Duration::from_secs(50);

/// The keys of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
}

struct Inner {
    secret: Secret,
    seeds: Vec<SocketAddr>,
    callers: Mutex<LruCache<String, Files>>,
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Keys {
    /// The keys of the cluster that has this secret and is found through `seeds`.
    pub fn new(secret: Secret, seeds: Vec<SocketAddr>) -> Self {
        Self { inner: Arc::new(Inner { secret, seeds, callers: Mutex::new(LruCache::new(CALLERS_MAX)) }) }
    }

    fn secret_of(&self, id: &str) -> S3Result<(AccessKeyId, String)> {
        let unknown = |why: String| error(S3ErrorCode::InvalidAccessKeyId, why);
        let id: AccessKeyId = id.parse().map_err(|wrong| unknown(format!("{wrong}")))?;
        if id.ends_s <= now_s() {
            return Err(unknown(format!("the key of '{}' has ended: have another one made", id.name)));
        }
        let secret = self.inner.secret.access_secret(&id);
        let secret = secret
            .ok_or_else(|| unknown(String::from("the cluster's key that it was made with was replaced")))?;
        Ok((id, secret))
    }

    /// The id of a key that is written as one text, `ID:SECRET`.
    pub fn bearer(&self, token: &str) -> S3Result<AccessKeyId> {
        let wrong = |why: &str| error(S3ErrorCode::InvalidAccessKeyId, why);
        let (id, given) = token.split_once(':').ok_or_else(|| {
            wrong("the key is no ACCESS_KEY_ID:SECRET_ACCESS_KEY, the two texts of 'idunno key create'")
        })?;
        let (id, secret) = self.secret_of(id)?;
        // Digests are compared in constant time.
        if blake3::hash(given.as_bytes()) == blake3::hash(secret.as_bytes()) {
            Ok(id)
        } else {
            Err(wrong("the key's secret is not that of its id"))
        }
    }

    /// The cluster's files, as a key's holder may use them.
    pub fn files(&self, id: &str) -> S3Result<Files> {
        let (parsed, _) = self.secret_of(id)?;
        let mut callers = self.inner.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = callers.get(id) {
            return Ok(files.clone());
        }
        let failed = |wrong: SecurityError| error(S3ErrorCode::InternalError, wrong.to_string());
        let files = self.connect(&parsed).map_err(failed)?;
        callers.put(id.to_owned(), files.clone());
        Ok(files)
    }

    fn connect(&self, id: &AccessKeyId) -> Result<Files, SecurityError> {
        let valid = Duration::from_secs(id.ends_s.saturating_sub(now_s()).max(60));
        let identity = self.inner.secret.mint_lasting(&id.grant(), valid)?;
        let connector = TcpConnector::new(Credentials::of(&identity)?);
        let cluster = Cluster::new(Arc::new(connector), self.inner.seeds.clone());
        Ok(Files::new(cluster.with_deadline(CLUSTER_DEADLINE)).put_limit(PUT_LIMIT))
    }
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(self.secret_of(access_key)?.1))
    }
}

/// What is refused whoever asks.
pub struct Gate;

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        check_signature(cx.headers(), cx.uri())?;
        match cx.credentials() {
            Some(_) => Ok(()),
            None => Err(error(S3ErrorCode::AccessDenied, "the request is not signed")),
        }
    }
}

/// Refuses signatures that are too weak or last too long: the library accepts them.
fn check_signature(headers: &HeaderMap, uri: &Uri) -> S3Result<()> {
    let signed = headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let query = uri.query().unwrap_or_default();
    let mut parameters = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let is_old = signed.starts_with(b"AWS ") || parameters.clone().any(|(name, _)| name == "Signature");
    if is_old {
        let text = "signatures of version 2 are not accepted: have the program sign with version 4";
        return Err(error(S3ErrorCode::InvalidRequest, text));
    }
    let expires = parameters.find(|(name, _)| *name == "X-Amz-Expires");
    if expires.is_some_and(|(_, seconds)| seconds.parse::<u64>().is_ok_and(|s| s > PRESIGNED_S_MAX)) {
        let text = "X-Amz-Expires must be at most 604800 seconds, which is a week";
        return Err(error(S3ErrorCode::AuthorizationQueryParametersError, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (Keys, AccessKeyId) {
        let secret = Secret::generate().unwrap();
        let name = "anna".parse().unwrap();
        let role = idunno_shared::access::Role::Viewer;
        let id = AccessKeyId { name, role, prefix: None, key: 1, ends_s: now_s() + 60 };
        (Keys::new(secret, vec![]), id)
    }

    #[test]
    fn a_key_has_a_secret_until_it_ends() {
        let (keys, id) = keys();
        assert_eq!(keys.secret_of(&id.to_string()).unwrap().1, keys.inner.secret.access_secret(&id).unwrap());
        let ended = AccessKeyId { ends_s: now_s() - 1, ..id.clone() };
        let replaced = AccessKeyId { key: 2, ..id };
        for wrong in [ended.to_string(), replaced.to_string(), String::from("AKIAIOSFODNN7EXAMPLE")] {
            let refused = keys.secret_of(&wrong).unwrap_err();
            assert_eq!(*refused.code(), S3ErrorCode::InvalidAccessKeyId, "{wrong}");
        }
    }

    #[test]
    fn a_bearer_proves_its_id_by_its_secret() {
        let (keys, id) = keys();
        let secret = keys.inner.secret.access_secret(&id).unwrap();
        assert_eq!(keys.bearer(&format!("{id}:{secret}")).unwrap(), id);
        let ended = AccessKeyId { ends_s: now_s() - 1, ..id.clone() };
        for wrong in
            [secret.clone(), id.to_string(), format!("{id}:"), format!("{id}:x"), format!("{ended}:{secret}")]
        {
            assert_eq!(*keys.bearer(&wrong).unwrap_err().code(), S3ErrorCode::InvalidAccessKeyId, "{wrong}");
        }
    }

    #[test]
    fn weak_and_lasting_signatures_are_refused() {
        let check = |signed: &'static str, uri: &'static str| {
            let headers =
                HeaderMap::from_iter([(header::AUTHORIZATION, http::HeaderValue::from_static(signed))]);
            check_signature(&headers, &Uri::from_static(uri)).map_err(|error| error.code().clone())
        };
        assert_eq!(check("AWS4-HMAC-SHA256 x", "/b/k?X-Amz-Expires=604800&X-Amz-Signature=a"), Ok(()));
        assert_eq!(check("AWS a:b", "/b/k"), Err(S3ErrorCode::InvalidRequest));
        assert_eq!(
            check("", "/b/k?AWSAccessKeyId=a&Signature=b&Expires=1"),
            Err(S3ErrorCode::InvalidRequest)
        );
        let lasting = check("", "/b/k?X-Amz-Expires=604801&X-Amz-Signature=a");
        assert_eq!(lasting, Err(S3ErrorCode::AuthorizationQueryParametersError));
    }
}
