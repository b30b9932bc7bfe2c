//! Webhooks: the address that is told how a job ends.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest address, in bytes.
pub const WEBHOOK_URL_BYTES_MAX: usize = 1_024;

/// Where a webhook is sent: an address with the scheme `http` or `https`.
///
/// It is kept in the log and shown to whoever may see the job, so it has no user name or password. What proves that a message
/// comes from the cluster is its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebhookUrl(String);

/// The text is no address of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WebhookUrlError {
    /// It is too long.
    #[error("the webhook's URL has {0} bytes; {WEBHOOK_URL_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// It has a space, a control character or one that is not ASCII.
    #[error("a webhook's URL consists of visible ASCII characters: escape others as %XX")]
    Character,
    /// It names no host under a scheme that is spoken.
    #[error("'{0}' is not a webhook's URL: write http://HOST/PATH or https://HOST/PATH")]
    Scheme(String),
    /// It contains a user name or a password.
    #[error("a webhook's URL is kept in the log, so it must have no user name or password")]
    UserInfo,
    /// It has a fragment, which no server sees.
    #[error("a webhook's URL must have no '#'")]
    Fragment,
}

impl WebhookUrl {
    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text is meant as an address, right or wrong.
    pub fn is_meant(text: &str) -> bool {
        without_scheme(text).is_some()
    }
}

/// What follows `http://` or `https://`.
fn without_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    ["http", "https"].iter().any(|spoken| scheme.eq_ignore_ascii_case(spoken)).then_some(rest)
}

impl FromStr for WebhookUrl {
    type Err = WebhookUrlError;

    fn from_str(text: &str) -> Result<Self, WebhookUrlError> {
        if text.len() > WEBHOOK_URL_BYTES_MAX {
            return Err(WebhookUrlError::TooLong(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(WebhookUrlError::Character);
        }
        let scheme = || WebhookUrlError::Scheme(text.to_owned());
        let rest = without_scheme(text).ok_or_else(scheme)?;
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(WebhookUrlError::UserInfo);
        }
        if authority.is_empty() || authority.starts_with(':') {
            return Err(scheme());
        }
        if rest.contains('#') {
            return Err(WebhookUrlError::Fragment);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for WebhookUrl {
    type Error = WebhookUrlError;

    fn try_from(text: String) -> Result<Self, WebhookUrlError> {
        text.parse()
    }
}

impl From<WebhookUrl> for String {
    fn from(url: WebhookUrl) -> Self {
        url.0
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A job's webhook, as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookView {
    /// Where it is sent.
    pub url: WebhookUrl,
    /// Whether the job's last end is yet to be told.
    pub is_due: bool,
    /// Why the telling was given up, if it was.
    pub failure: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_without_secrets_are_webhooks() {
        for right in ["http://10.0.0.1:8000/x?y=1", "https://hooks.example.com", "HTTPS://[fd00::1]/a%20b"] {
            assert_eq!(right.parse::<WebhookUrl>().unwrap().as_str(), right);
        }
        let wrong = |text: &str| text.parse::<WebhookUrl>().unwrap_err();
        assert_eq!(wrong("http://anna:secret@host/"), WebhookUrlError::UserInfo);
        assert_eq!(wrong("http://host/a b"), WebhookUrlError::Character);
        assert_eq!(wrong("http://höst/"), WebhookUrlError::Character);
        assert_eq!(wrong("http://host/#x"), WebhookUrlError::Fragment);
        assert_eq!(wrong(&format!("http://host/{}", "x".repeat(1_024))), WebhookUrlError::TooLong(1_036));
        for text in ["ftp://host/", "host/path", "http://", "http:///path", "https://?x", "http://:80/"] {
            assert_eq!(wrong(text), WebhookUrlError::Scheme(text.to_owned()), "{text}");
        }
        // The at sign of a path is nobody's name.
        assert!("https://host/@anna".parse::<WebhookUrl>().is_ok());
        assert!(WebhookUrl::is_meant("http://anna@host") && !WebhookUrl::is_meant("notify-send done"));
    }
}
