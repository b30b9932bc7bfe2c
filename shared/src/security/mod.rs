//! Who may talk to whom, and how that is proven.
//!
//! A cluster has one secret: the key of an authority that no other cluster trusts ([`secret`]). Each process of the
//! cluster mints itself a certificate from it when it starts; people get one made for them ([`identity`]). A
//! certificate names its holder's [`roles::Role`], and a person's may say whose it is ([`holder`]). [`credentials`] is what the doors prove themselves with:
//! mutual TLS 1.3 for connections ([`tls`], and whom it believes [`trust`]), a key derived from the secret for datagrams ([`datagrams`]).
//!
//! Nothing here opens a connection: that is done in the doors. What must stay absent: a default secret, and a way to
//! trust an authority that is not in the file.

mod authority;
pub mod credentials;
pub mod datagrams;
pub mod identity;
pub mod private_file;
pub mod roles;
pub mod secret;
pub mod subject;
pub mod tls;
pub mod trust;
mod window;

pub use authority::VALID_DAYS_MAX;
pub use credentials::Credentials;
pub use roles::Role;
pub use rustls::pki_types::CertificateDer;

use std::path::PathBuf;

use thiserror::Error;

/// Why there is no proof of who this is.
#[derive(Debug, Error)]
pub enum SecurityError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// Others can read it, so that it proves nothing.
    #[error(
        "{path} can be read by others than its owner (mode {mode:03o}): run 'chmod 600 {path}', and make a new one if somebody did"
    )]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is something else.
    #[error("{path} cannot be used: {why}")]
    Unfit {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// An identity's time is over.
    #[error("the identity in {path} expired on {date}: have a new one made with 'idunno cluster issue'")]
    Expired {
        /// Which.
        path: PathBuf,
        /// When, as year, month and day.
        date: String,
    },
    /// A file that is not to be overwritten.
    #[error("{path} exists: name another file, or move it away first")]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {reason}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// A step of a rotation that does not follow from the one before.
    #[error("{0}")]
    Step(&'static str),
    /// The cryptographic library failed.
    #[error("cannot make a certificate: {0}")]
    Mint(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("cannot set TLS up: {0}")]
    Tls(#[from] rustls::Error),
}
