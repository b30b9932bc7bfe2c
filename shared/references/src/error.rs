//! Why an object outside the cluster is not listed or read.

use thiserror::Error;

/// An object is not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The program has no code for it.
    #[error("{NOT_BUILT}")]
    NotBuilt,
    /// Its URL means nothing.
    #[error("{url} cannot be read: {why}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// It lies where this process may not be led.
    #[error("{url} is not read: {why}")]
    Refused {
        /// The URL.
        url: String,
        /// Why, and what to do.
        why: String,
    },
    /// It is not the one that was listed.
    #[error("{url} has changed since it was listed: {what}")]
    Changed {
        /// The URL.
        url: String,
        /// What differs.
        what: String,
    },
    /// It is not there any more.
    #[error("{url} is gone")]
    Gone {
        /// The URL.
        url: String,
    },
    /// The service asks for other credentials.
    #[error("{url} is not readable with the credentials at hand: {why}")]
    Denied {
        /// The URL.
        url: String,
        /// What the service says.
        why: String,
    },
    /// It may be readable later.
    #[error("cannot read {url}: {why}")]
    Failed {
        /// The URL.
        url: String,
        /// What happened.
        why: String,
    },
}

/// What a URL leads to cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ListError {
    /// The program has no code for it.
    #[error("{NOT_BUILT}")]
    NotBuilt,
    /// The URL means nothing.
    #[error("{url} cannot be listed: {why}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// An object's name is none that can be asked for.
    #[error(
        "{url} has an object that cannot be read by its name: {why}. Rename it, or list a folder without it"
    )]
    Name {
        /// The URL.
        url: String,
        /// The name, and what is wrong with it.
        why: String,
    },
    /// Nothing tells whether the object changes.
    #[error(
        "{url} has neither a strong ETag nor a time of its last change, so a change would go unnoticed: download it and put \
         it into the store"
    )]
    Unversioned {
        /// The URL.
        url: String,
    },
    /// There is nothing.
    #[error("{url} leads to no object")]
    Nothing {
        /// The URL.
        url: String,
    },
    /// The service did not answer, or asks for other credentials.
    #[error("cannot list {url}: {why}")]
    Failed {
        /// The URL.
        url: String,
        /// What happened.
        why: String,
    },
}

/// An object is not written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WriteError {
    /// The program has no code for it.
    #[error("{NOT_BUILT}")]
    NotBuilt,
    /// The URL is none of an object in a bucket.
    #[error("{url} cannot be written: {why}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// Another object has the name.
    #[error(
        "{url} is there already, with other content: nothing is replaced. Choose another prefix, or delete it"
    )]
    Differs {
        /// The URL.
        url: String,
    },
    /// The service did not answer, or asks for other credentials.
    #[error("cannot write {url}: {why}")]
    Failed {
        /// The URL.
        url: String,
        /// What happened.
        why: String,
    },
}

const NOT_BUILT: &str = "this program was built without references: install IDunno's Debian package or its wheel, or build \
                         it with --features references";
