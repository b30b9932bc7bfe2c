//! `key webhook`: what receivers of webhooks verify signatures with. It is derived from the secret, and nobody keeps it.

use std::path::Path;

use idunno_shared::security::WebhookKey;
use idunno_shared::security::secret::Secret;

use super::cluster;
use crate::answer::identities::WebhookKeys;
use crate::answer::{Answer, Failure};

/// Prints the keys of a secret, the newest first; no member is asked.
pub fn run(secret: &Path) -> Result<Answer, Failure> {
    let secret = Secret::load(secret).map_err(|error| cluster::failure(&error))?;
    let keys: Vec<String> = secret.webhook_keys().iter().map(WebhookKey::text).collect();
    let text = keys.join("\n");
    Ok(Answer::new(&WebhookKeys { keys }, text))
}
