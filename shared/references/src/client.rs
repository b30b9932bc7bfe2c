//! The client: decides where requests may go, and sends them there.

use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use idunno_shared::wire::references::{ObjectReference, ReferenceSource};
use reqwest::Client;

use crate::buckets::{Access, Buckets};
use crate::error::{ListError, ReadError, WriteError};
use crate::http::{PRIVATE, guarded, is_private, metadata, open, with_causes};
use crate::place::{Place, endpoint};
use crate::{Created, Listing, Trust, folders, web};

/// Lists and reads objects outside the cluster. Its connections are kept for further ones.
#[derive(Debug)]
pub struct ObjectClient {
    trust: Trust,
    /// Made for the first object: most processes never read one. Fails if this machine offers no randomness or no certificates.
    clients: OnceLock<Result<Clients, String>>,
}

#[derive(Debug)]
struct Clients {
    open: Client,
    guarded: Client,
    buckets: Buckets,
}

impl Clients {
    fn new() -> reqwest::Result<Self> {
        let (open, guarded) = (open()?, guarded()?);
        Ok(Self { buckets: Buckets::new(open.clone(), guarded.clone(), metadata()?), open, guarded })
    }

    fn web(&self, anywhere: bool) -> &Client {
        if anywhere { &self.open } else { &self.guarded }
    }
}

impl ObjectClient {
    /// A client that goes where this trust allows.
    pub fn new(trust: &Trust) -> Self {
        let trust = match trust {
            Trust::Everything => Trust::Everything,
            Trust::Listed(urls) => Trust::Listed(urls.iter().map(|url| normal(url)).collect()),
        };
        Self { trust, clients: OnceLock::new() }
    }

    /// Reads an object whole, if it is still the one that was listed. The caller has looked at its size: it is in memory.
    pub async fn read(&self, source: &ReferenceSource, object: &ObjectReference) -> Result<Bytes, ReadError> {
        self.read_some(source, object, None).await
    }

    /// Reads these bytes of an object, if it is still the one that was listed. A server of the web may know no parts, which
    /// is an error.
    pub async fn read_part(
        &self,
        source: &ReferenceSource,
        object: &ObjectReference,
        part: Range<u64>,
    ) -> Result<Bytes, ReadError> {
        let expected = part.end - part.start;
        let bytes = self.read_some(source, object, Some(part)).await?;
        if bytes.len() as u64 != expected {
            let why = format!("{} bytes came in place of {expected}", bytes.len());
            return Err(ReadError::Failed { url: object.url.clone(), why });
        }
        Ok(bytes)
    }

    async fn read_some(
        &self,
        source: &ReferenceSource,
        object: &ObjectReference,
        part: Option<Range<u64>>,
    ) -> Result<Bytes, ReadError> {
        let url = || object.url.clone();
        let place = Place::of(&object.url).map_err(|why| ReadError::Url { url: url(), why })?;
        let access = self.access(&place, source).map_err(|why| ReadError::Refused { url: url(), why })?;
        let clients = self.clients().map_err(|why| ReadError::Failed { url: url(), why })?;
        match place {
            Place::Bucket { service, bucket, key } => {
                let bucket = clients.buckets.client((service, &bucket), source, access);
                let bucket =
                    bucket.map_err(|error| ReadError::Url { url: url(), why: with_causes(&error) })?;
                bucket.read(&key, object, part).await
            }
            Place::Web(address) => web::read(clients.web(access.anywhere), address, object, part).await,
            Place::Folder(path) => {
                let within = match &self.trust {
                    Trust::Everything => None,
                    Trust::Listed(urls) => Some(urls.as_slice()),
                };
                folders::read(&path, object, part, within).await
            }
        }
    }

    /// Writes an object of a bucket, unless one with the same content is there. Nothing is replaced.
    pub async fn create(
        &self,
        source: &ReferenceSource,
        url: &str,
        content: Bytes,
    ) -> Result<Created, WriteError> {
        let wrong = |why: String| WriteError::Url { url: url.to_owned(), why };
        let place = Place::of(url).map_err(wrong)?;
        let access = self.access(&place, source).map_err(wrong)?;
        let Place::Bucket { service, bucket, key } = place else {
            return Err(wrong(String::from(
                "write it as s3://BUCKET/KEY, gs://BUCKET/KEY or az://CONTAINER/KEY",
            )));
        };
        let clients = self.clients().map_err(|why| WriteError::Failed { url: url.to_owned(), why })?;
        let bucket = clients.buckets.client((service, &bucket), source, access);
        bucket.map_err(|error| wrong(with_causes(&error)))?.create(url, &key, content).await
    }

    /// What a URL leads to: an object, all objects below a key, or all files in a folder. Only their names and what tells
    /// their versions are asked for. All of them are in memory.
    pub async fn list(&self, source: &ReferenceSource, url: &str) -> Result<Listing, ListError> {
        let wrong = |why: String| ListError::Url { url: url.to_owned(), why };
        let place = Place::of(url).map_err(wrong)?;
        let access = self.access(&place, source).map_err(wrong)?;
        let clients = self.clients().map_err(|why| ListError::Failed { url: url.to_owned(), why })?;
        let listing = match place {
            Place::Bucket { service, bucket, key } => {
                let bucket = clients.buckets.client((service, &bucket), source, access);
                bucket.map_err(|error| wrong(with_causes(&error)))?.list(url, &key).await?
            }
            Place::Web(address) => {
                let object = web::list(clients.web(access.anywhere), &address).await?;
                Listing { objects: vec![object], folders: Vec::new() }
            }
            Place::Folder(path) => {
                Listing { objects: vec![folders::reference_of_file(&path)?], folders: Vec::new() }
            }
        };
        if listing.objects.is_empty() { Err(ListError::Nothing { url: url.to_owned() }) } else { Ok(listing) }
    }

    fn clients(&self) -> Result<&Clients, String> {
        let clients = self.clients.get_or_init(|| Clients::new().map_err(|error| with_causes(&error)));
        clients.as_ref().map_err(Clone::clone)
    }

    /// How a place may be reached, or why it may not.
    fn access(&self, place: &Place, source: &ReferenceSource) -> Result<Access, String> {
        let endpoint = source.endpoint.as_deref().map(endpoint).transpose()?;
        let is_trusted = match &self.trust {
            Trust::Everything => true,
            Trust::Listed(urls) => is_below(&place.listed_as(endpoint.as_ref()), urls),
        };
        if is_trusted {
            return Ok(Access { anywhere: true, signs: !source.anonymous });
        }
        let has_private_address = match place {
            Place::Folder(_) => {
                return Err(String::from(
                    "it is a file of this member: an operator may list its folder in the members' reference_urls",
                ));
            }
            Place::Web(url) => is_private(url),
            Place::Bucket { .. } if !source.anonymous => {
                return Err(format!(
                    "an operator may list {} in the members' reference_urls, whose own credentials it then takes; a public \
                     bucket needs none: --anonymous",
                    place.listed_as(endpoint.as_ref())
                ));
            }
            Place::Bucket { .. } => endpoint.as_ref().is_some_and(is_private),
        };
        if has_private_address {
            return Err(PRIVATE.to_owned());
        }
        Ok(Access { anywhere: false, signs: false })
    }
}

/// A URL as it is compared. The host of an endpoint may be written in any case, and need not name a port that goes without
/// saying.
fn normal(url: &str) -> String {
    let parsed =
        if url.starts_with("http") || url.starts_with("file") { reqwest::Url::parse(url).ok() } else { None };
    parsed.map_or_else(|| url.to_owned(), |url| url.to_string())
}

/// Whether a URL is one of these, or lies below one.
fn is_below(url: &str, listed: &[String]) -> bool {
    listed.iter().any(|listed| {
        let rest = url.strip_prefix(listed.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']) || listed.ends_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn member(listed: &[&str]) -> ObjectClient {
        ObjectClient::new(&Trust::Listed(listed.iter().map(|url| (*url).to_owned()).collect()))
    }

    fn source(endpoint: Option<&str>, anonymous: bool) -> ReferenceSource {
        ReferenceSource { endpoint: endpoint.map(str::to_owned), region: None, anonymous }
    }

    fn access(client: &ObjectClient, url: &str, source: &ReferenceSource) -> Result<Access, String> {
        client.access(&Place::of(url).unwrap(), source)
    }

    #[test]
    fn only_listed_places_are_reached_with_the_credentials_of_the_member() {
        let client = member(&["s3://ours/in", "https://Minio:443/lake/", "file:///data/"]);
        let trusted = Ok(Access { anywhere: true, signs: true });
        assert_eq!(access(&client, "s3://ours/in/a", &source(None, false)), trusted);
        assert_eq!(access(&client, "s3://lake/a", &source(Some("https://minio"), false)), trusted);
        assert_eq!(access(&client, "file:///data/a", &source(None, false)), trusted);
        for (url, endpoint) in [
            ("s3://ours/in-2/a", None),
            ("s3://ours", None),
            ("s3://lake/a", None),
            // Whoever chooses the endpoint would be shown what the credentials sign.
            ("s3://ours/in/a", Some("https://elsewhere.example")),
            ("file:///data/../etc/passwd", None),
            ("s3://lake/../ours/in/a", Some("https://minio/x")),
            ("file:///datum", None),
        ] {
            let why = access(&client, url, &source(endpoint, false)).unwrap_err();
            assert!(why.contains("reference_urls"), "{url}: {why}");
        }
    }

    #[test]
    fn all_other_places_are_public_and_are_shown_no_credentials() {
        let client = member(&["http://10.0.0.7:9000/"]);
        let public = Ok(Access { anywhere: false, signs: false });
        assert_eq!(access(&client, "s3://open/a", &source(None, true)), public);
        assert_eq!(access(&client, "https://example.com/a", &source(None, false)), public);
        for (url, endpoint) in [
            ("http://169.254.169.254/latest/meta-data", None),
            ("http://[::1]/x", None),
            ("http://2130706433/x", None),
            ("s3://b/k", Some("http://127.0.0.1:9000")),
        ] {
            let why = access(&client, url, &source(endpoint, true)).unwrap_err();
            assert!(why.contains("private network"), "{url}: {why}");
        }
        let listed = access(&client, "s3://b/k", &source(Some("http://10.0.0.7:9000"), true));
        assert_eq!(listed, Ok(Access { anywhere: true, signs: false }));
    }

    #[tokio::test]
    async fn a_file_is_read_within_listed_folders_and_links_lead_nowhere_else() {
        let (mounted, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (file, secret) = (mounted.path().join("a b"), elsewhere.path().join("secret"));
        fs::write(&file, "one").unwrap();
        fs::write(&secret, "key").unwrap();
        std::os::unix::fs::symlink(&secret, mounted.path().join("link")).unwrap();
        let url = |path: &Path| reqwest::Url::from_file_path(path).unwrap().to_string();
        let (anybody, no_source) = (ObjectClient::new(&Trust::Everything), ReferenceSource::default());
        let client = member(&[&url(mounted.path())]);
        let listed = anybody.list(&no_source, &url(&file)).await.unwrap().objects.remove(0);
        assert!(listed.url.ends_with("/a%20b"), "{listed:?}");
        assert_eq!(client.read(&no_source, &listed).await.unwrap(), "one");
        fs::write(&file, "four").unwrap();
        assert!(matches!(client.read(&no_source, &listed).await, Err(ReadError::Changed { .. })));
        let link =
            anybody.list(&no_source, &url(&mounted.path().join("link"))).await.unwrap().objects.remove(0);
        assert!(matches!(client.read(&no_source, &link).await, Err(ReadError::Refused { .. })));
        let outside = anybody.list(&no_source, &url(&secret)).await.unwrap().objects.remove(0);
        assert!(matches!(client.read(&no_source, &outside).await, Err(ReadError::Refused { .. })));
        fs::remove_file(&file).unwrap();
        assert_eq!(client.read(&no_source, &listed).await, Err(ReadError::Gone { url: listed.url.clone() }));
    }
}
