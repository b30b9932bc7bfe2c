//! Where a model server is, whom a call trusts, and how it shows who calls.
//!
//! Invariants: queries and headers leave this machine only under TLS; the server that a member runs itself is called on a Unix
//! socket in the member's own folder, so that no other user of the machine can call it or take its place; no value of a header is part of a text, so none
//! reaches a log, an error or another process.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use idunno_shared::client::transport::is_this_machine;
use idunno_shared::security::SecurityError;
use idunno_shared::security::private_file;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Url, redirect};
use thiserror::Error;

use super::CONNECT_TIMEOUT;

/// The headers that a call sets itself.
const OWN_HEADERS: [&str; 6] =
    ["connection", "content-length", "content-type", super::HEADER_LENGTH, "te", "transfer-encoding"];

/// Longest path of a socket that every Unix takes, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// A server to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// For example `http://127.0.0.1:8080`.
    pub url: String,
    /// The certificates that are trusted, in PEM; the system's without it.
    pub ca_file: Option<PathBuf>,
    pub headers: Vec<Header>,
    /// The Unix socket on which it listens, whatever host the URL names.
    pub socket: Option<PathBuf>,
}

/// A header of every call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    /// What precedes the value, such as `Bearer `.
    pub prefix: &'static str,
    pub value: ValueSource,
}

/// Where the value of a header is. It is read again while the server is watched, so that it can be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// A file that only its owner can read. White space around the value does not count.
    File(PathBuf),
    /// A variable of this process's environment.
    Variable(String),
}

/// A server cannot be called as it is configured.
#[derive(Debug, Error)]
pub enum EndpointError {
    #[error("cannot use the model server URL '{url}': {reason}; give one such as http://127.0.0.1:8080")]
    Url { url: String, reason: String },
    #[error(
        "cannot send a header '{0}' to a model server: calls set it themselves, or it is no header's name"
    )]
    HeaderName(String),
    #[error("cannot read the value of header '{name}': {source}")]
    HeaderFile { name: String, source: SecurityError },
    #[error("cannot read the value of header '{name}': the environment variable {variable} is not set")]
    HeaderVariable { name: String, variable: String },
    #[error("cannot send header '{0}': its value is empty, or has characters that a header cannot have")]
    HeaderValue(String),
    #[error("cannot trust the certificates in {}: {reason}", path.display())]
    Certificates { path: PathBuf, reason: String },
    #[error("cannot open the folder of the model server's socket {}: {source}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("cannot set up calls to the model server at {url}: {reason}")]
    Client { url: String, reason: String },
}

impl Endpoint {
    /// A server that takes calls from anybody.
    pub fn open(url: impl Into<String>) -> Self {
        Self { url: url.into(), ca_file: None, headers: Vec::new(), socket: None }
    }

    /// A server that listens on a Unix socket.
    pub fn at_socket(path: PathBuf) -> Self {
        Self { socket: Some(path), ..Self::open("http://model-server") }
    }

    /// Checks all that can be checked without reading a file or the environment.
    ///
    /// Queries and their answers would cross the network in the clear without TLS, so a server without it must run on this
    /// machine. Credentials in a URL are refused: they end up in logs, and hide the host in `http://127.0.0.1@host`.
    pub fn check(&self) -> Result<(), EndpointError> {
        let wrong = |reason: &str| {
            Err(EndpointError::Url { url: without_credentials(&self.url), reason: reason.to_owned() })
        };
        let parsed = match Url::parse(&self.url) {
            Ok(parsed) => parsed,
            Err(error) => return wrong(&error.to_string()),
        };
        let host = parsed.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let is_here = self.socket.is_some() || host == "localhost" || host.parse().is_ok_and(is_this_machine);
        let is_encrypted = parsed.scheme() == "https";
        match () {
            () if !(is_encrypted || parsed.scheme() == "http") || host.is_empty() => {
                return wrong("it must consist of http:// or https:// and a host");
            }
            () if !parsed.username().is_empty() || parsed.password().is_some() => {
                return wrong("it has a user name or a password");
            }
            () if parsed.query().is_some() || parsed.fragment().is_some() => {
                return wrong("it has a query or a fragment");
            }
            () if !is_here && !is_encrypted => {
                return wrong("requests are not encrypted, so the server must run on this machine");
            }
            () if self.ca_file.is_some() && !is_encrypted => {
                return wrong("certificates count only for https://");
            }
            () => {}
        }
        self.headers.iter().try_for_each(|header| header.checked_name().map(drop))
    }

    /// Reads the values of the headers.
    pub fn read_headers(&self) -> Result<HeaderMap, EndpointError> {
        self.headers.iter().map(|header| Ok((header.checked_name()?, header.read()?))).collect()
    }

    /// A client, and what must stay open while it is used.
    pub(super) fn client(&self, headers: HeaderMap) -> Result<(Client, Option<File>), EndpointError> {
        self.check()?;
        let mut folder = None;
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .default_headers(headers);
        if let Some(path) = &self.ca_file {
            let failed = |reason: String| EndpointError::Certificates { path: path.clone(), reason };
            let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
            let trusted = Certificate::from_pem_bundle(&text)
                .map_err(|error| failed(super::error::root_cause(&error)))?;
            if trusted.is_empty() {
                return Err(failed("it has no certificate in PEM".to_owned()));
            }
            builder = builder.tls_certs_only(trusted);
        } else if !self.url.starts_with("https:") {
            // A machine without certificates of the system must be able to call a server without TLS.
            builder = builder.tls_certs_only([]);
        }
        if let Some(socket) = &self.socket {
            let (path, opened) = short_path(socket)
                .map_err(|source| EndpointError::Socket { path: socket.clone(), source })?;
            builder = builder.unix_socket(path);
            folder = opened;
        }
        let client = builder.build().map_err(|error| {
            let reason = super::error::root_cause(&error);
            match &self.ca_file {
                // They are only looked at here.
                Some(path) => EndpointError::Certificates { path: path.clone(), reason },
                None => EndpointError::Client { url: self.url.clone(), reason },
            }
        })?;
        Ok((client, folder))
    }
}

impl Header {
    /// A token, as most gateways and servers want it.
    pub fn bearer(value: ValueSource) -> Self {
        Self { name: "authorization".to_owned(), prefix: "Bearer ", value }
    }

    fn checked_name(&self) -> Result<HeaderName, EndpointError> {
        let name = HeaderName::from_bytes(self.name.as_bytes()).ok();
        let foreign = name.filter(|name| !OWN_HEADERS.contains(&name.as_str()));
        foreign.ok_or_else(|| EndpointError::HeaderName(self.name.clone()))
    }

    fn read(&self) -> Result<HeaderValue, EndpointError> {
        let text = match &self.value {
            ValueSource::File(path) => {
                let bytes = private_file::read(path)
                    .map_err(|source| EndpointError::HeaderFile { name: self.name.clone(), source })?;
                String::from_utf8(bytes).map_err(|_| EndpointError::HeaderValue(self.name.clone()))?
            }
            ValueSource::Variable(variable) => std::env::var(variable).map_err(|_| {
                EndpointError::HeaderVariable { name: self.name.clone(), variable: variable.clone() }
            })?,
        };
        let text = text.trim();
        let value = HeaderValue::from_str(&format!("{}{text}", self.prefix)).ok();
        let mut value = value
            .filter(|_| !text.is_empty())
            .ok_or_else(|| EndpointError::HeaderValue(self.name.clone()))?;
        // It is not shown by Debug.
        value.set_sensitive(true);
        Ok(value)
    }
}

/// A path to a socket that fits into an address of the kernel, by way of its open folder if it is too long itself.
fn short_path(socket: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok((socket.to_owned(), None));
    }
    let folder = File::open(folder)?;
    Ok((Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name), Some(folder)))
}

/// A URL for an error message: what stands before its host may be a password.
fn without_credentials(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            // Both succeed for a URL that has a host.
            let _ = parsed.set_username("");
            let _ = parsed.set_password(None);
            parsed.to_string()
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ModelServerClient;
    use super::*;
    use crate::testing::fake_server::FakeServer;

    fn file(folder: &Path, name: &str, text: &str) -> ValueSource {
        let path = folder.join(name);
        private_file::create(&path, text).unwrap();
        ValueSource::File(path)
    }

    fn header(name: &str, value: ValueSource) -> Header {
        Header { name: name.to_owned(), prefix: "", value }
    }

    #[tokio::test]
    async fn a_socket_below_a_long_path_is_called_as_one_below_a_short_path() {
        let folder = tempfile::tempdir().unwrap();
        let fake = FakeServer::start().await;
        let socket = folder.path().join("fake");
        fake.listen_at(&socket);
        for below in [folder.path().join("short"), folder.path().join("long".repeat(50))] {
            fs::create_dir(&below).unwrap();
            let path = below.join("socket");
            let server = ModelServerClient::new(&Endpoint::at_socket(path.clone())).unwrap();
            assert!(server.live().await.is_err(), "nobody listens yet");
            // A server that is started later is found by the same client.
            std::os::unix::fs::symlink(&socket, &path).unwrap();
            server.live().await.unwrap();
        }
        let absent = Endpoint::at_socket(folder.path().join("no".repeat(100)).join("socket"));
        let error = ModelServerClient::new(&absent).unwrap_err().to_string();
        assert!(error.contains("cannot open the folder"), "{error}");
    }

    fn with(headers: Vec<Header>) -> Endpoint {
        Endpoint { headers, ..Endpoint::open("https://models.example.org") }
    }

    #[test]
    fn invalid_urls_are_refused() {
        for url in ["", "127.0.0.1:8080", "ftp://host", "http://", "https://", "http://127.0.0.1/?a=b"] {
            assert!(Endpoint::open(url).check().is_err(), "{url}");
        }
        for url in [
            "http://localhost:80",
            "http://[::1]:80",
            "http://127.9.9.9",
            "http://[::ffff:127.0.0.1]:80",
            "https://models.example.org/team",
        ] {
            Endpoint::open(url).check().unwrap();
        }
        let plain = Endpoint { ca_file: Some("ca.pem".into()), ..Endpoint::open("http://127.0.0.1") };
        assert!(plain.check().unwrap_err().to_string().contains("only for https://"));
    }

    #[test]
    fn a_url_that_leaves_this_machine_in_the_clear_is_refused_however_it_is_written() {
        for url in [
            "http://192.0.2.1:8080",
            "http://example.org",
            "http://127.0.0.1.example.org",
            "http://localhost.example.org",
            "http://127.0.0.1@192.0.2.1/",
            "http://127.0.0.1:80@192.0.2.1/",
            "http://user:hunter2@127.0.0.1:8080",
            "https://user:hunter2@example.org",
            "http://[::ffff:192.0.2.1]:80",
            // 192.0.2.1 as one number.
            "http://3221225985/",
        ] {
            let error = Endpoint::open(url).check().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn headers_are_read_from_private_files_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let headers = vec![
            Header::bearer(file(folder.path(), "token", "hunter2\n")),
            header("X-Key", file(folder.path(), "key", " swordfish ")),
            header("X-Home", ValueSource::Variable("PATH".to_owned())),
        ];
        let endpoint = with(headers);
        let read = endpoint.read_headers().unwrap();
        assert_eq!(read["authorization"], "Bearer hunter2");
        assert_eq!(read["x-key"], "swordfish");
        assert_eq!(read["x-home"], std::env::var("PATH").unwrap().trim());
        let shown = format!("{read:?} {endpoint:?} {:?}", endpoint.client(read.clone()).unwrap().0);
        assert!(!shown.contains("hunter2") && !shown.contains("swordfish"), "{shown}");
    }

    #[test]
    fn values_that_cannot_be_sent_are_refused_by_the_name_of_their_header() {
        let folder = tempfile::tempdir().unwrap();
        let exposed = folder.path().join("exposed");
        fs::write(&exposed, "hunter2").unwrap();
        for (value, words) in [
            (ValueSource::File(folder.path().join("none")), "No such file"),
            (ValueSource::File(exposed), "chmod 600"),
            (
                ValueSource::Variable("IDUNNO_NO_SUCH_VARIABLE".to_owned()),
                "IDUNNO_NO_SUCH_VARIABLE is not set",
            ),
            (file(folder.path(), "empty", "\n"), "its value is empty"),
            (file(folder.path(), "lines", "hunter2\nx-other: 1"), "characters that a header cannot have"),
        ] {
            let error = with(vec![header("x-key", value)]).read_headers().unwrap_err().to_string();
            assert!(error.contains("'x-key'") && error.contains(words), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        for name in ["content-length", "Inference-Header-Content-Length", "no header", ""] {
            let header = header(name, ValueSource::Variable("PATH".to_owned()));
            assert!(with(vec![header]).check().is_err(), "{name}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, broken) = (folder.path().join("empty.pem"), folder.path().join("broken.pem"));
        fs::write(&empty, "").unwrap();
        fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        for path in [folder.path().join("none.pem"), empty, broken] {
            let endpoint =
                Endpoint { ca_file: Some(path.clone()), ..Endpoint::open("https://models.example.org") };
            let error = endpoint.client(HeaderMap::new()).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
