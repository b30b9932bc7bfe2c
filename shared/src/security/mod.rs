//! Authentication: how processes and people prove who they are, and whom they trust.
//!
//! A cluster has one secret: the private key of a certificate authority that no other cluster trusts ([`secret`]). Each
//! daemon issues itself a certificate from the secret at its start. People and programs get an identity, a certificate
//! issued for them ([`identity`]). A certificate states its subject's [`Role`], its name and a submitter's prefixes
//! ([`subject`]). [`credentials`] hands out what connections and datagrams are protected with: mutual TLS 1.3 for
//! connections ([`tls`]), keys derived from the secret for datagrams ([`datagrams`]). [`trust`] judges a peer's certificate.
//!
//! No code here opens a connection; the transports do. Two things must stay absent: a default secret, and any way to
//! trust an authority that is not in the file.

pub mod access_key;
mod authority;
pub mod credentials;
pub mod datagrams;
pub mod identity;
pub mod private_file;
pub mod secret;
pub mod subject;
pub mod tls;
pub mod trust;
mod webhook_key;

pub use crate::access::Role;
pub use access_key::AccessKeyId;
pub use authority::{CLOCK_TOLERANCE, VALID_DAYS_DEFAULT, VALID_DAYS_MAX};
pub use credentials::Credentials;
pub use rustls::pki_types::CertificateDer;
pub use secret::RotationError;
pub use webhook_key::WebhookKey;

use std::path::PathBuf;

use thiserror::Error;

use crate::access::{PREFIXES_MAX, SubjectName};

use self::identity::IdentityFormatError;
use self::secret::SecretFormatError;
use self::trust::TrustError;

/// Why credentials could not be read, made or written.
#[derive(Debug, Error)]
pub enum SecurityError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        reason: std::io::Error,
    },
    /// Other users can read the file, so possession of it proves nothing.
    #[error(
        "{path} is readable by other users (mode {mode:03o}): run 'chmod 600 {path}', and replace it if somebody has read it"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not a secret.
    #[error("cannot use {path}: {reason}")]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: SecretFormatError,
    },
    /// The file is not an identity.
    #[error("cannot use {path}: {reason}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: IdentityFormatError,
    },
    /// Members would not trust the identity in the file.
    #[error("cannot use {path}: it {reason}")]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Why they would not.
        reason: TrustError,
    },
    /// The identity has expired.
    #[error("the identity in {path} expired on {date}: have a new one made with 'idunno identity create'")]
    Expired {
        /// The file.
        path: PathBuf,
        /// The date of expiry: year, month and day.
        date: String,
    },
    /// The file exists and must not be overwritten.
    #[error("{path} exists: name another file, or move it away first")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        reason: std::io::Error,
    },
    /// A step of a key rotation came out of order.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// Nobody may have this name.
    #[error("an identity cannot be named '{0}': the logs name whoever has the secret so")]
    Reserved(SubjectName),
    /// An identity with more prefixes than allowed.
    #[error("the identity would have {0} prefixes; at most {PREFIXES_MAX} are allowed")]
    Prefixes(usize),
    /// The certificate library failed.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// TLS cannot be configured.
    #[error("cannot configure TLS: {0}")]
    Tls(#[from] rustls::Error),
}
