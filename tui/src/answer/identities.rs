//! JSON of commands on identities.

use idunno_shared::wire::control::NamedIdentity;
use schemars::JsonSchema;
use serde::Serialize;

use super::document::documents;
use super::text;

documents!(CreatedIdentity, CreatedKey, RevokedIdentity, WebhookKeys);
documents!(listed Identity);

const DAY_MS: u64 = 24 * 3_600_000;
/// How long before an identity ends people are told.
pub const ENDING_MS: u64 = 14 * DAY_MS;

/// `identity create`: an identity of a person or program.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CreatedIdentity {
    /// The local file.
    pub path: String,
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub role: String,
    /// Where a submitter may change files.
    pub prefixes: Vec<String>,
    /// When it ends, in milliseconds since the epoch.
    pub ends_ms: u64,
}

/// `key create`: an access key.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CreatedKey {
    /// The access key's id.
    pub access_key_id: String,
    /// Its secret. Nobody keeps it: it cannot be shown again without the cluster's secret.
    pub secret_access_key: String,
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub role: String,
    /// Where a submitter may change files.
    pub prefixes: Vec<String>,
    /// When it ends, in milliseconds since the epoch.
    pub ends_ms: u64,
}

/// `key webhook`: what signatures of webhooks are verified with.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct WebhookKeys {
    /// The keys, the newest first; several only while the cluster's secret is being replaced.
    pub keys: Vec<String>,
}

/// `identity revoke`: the name whose identities are revoked.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RevokedIdentity {
    /// The name.
    pub name: String,
}

/// `identity ls`: an identity that has been used, or a name that was revoked before it was.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Identity {
    /// Whose it is.
    pub name: String,
    /// What it may do; null if it has not been used.
    pub role: Option<String>,
    /// Where a submitter may change files.
    pub prefixes: Vec<String>,
    /// When it ends, in milliseconds since the epoch.
    pub ends_ms: Option<u64>,
    /// When it was first used, in milliseconds since the epoch.
    pub first_seen_ms: Option<u64>,
    /// Its state now.
    pub state: IdentityState,
    /// When it was revoked, in milliseconds since the epoch.
    pub revoked_ms: Option<u64>,
    /// Who revoked it.
    pub revoked_by: Option<String>,
    /// The start of its certificate's digest.
    pub certificate: Option<String>,
}

/// The state of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IdentityState {
    /// It is accepted.
    Valid,
    /// It is accepted, and ends within 14 days.
    Ending,
    /// It has ended.
    Ended,
    /// It is refused for good.
    Revoked,
}

/// The rows of a name: one for each certificate, or one for a name that was revoked before it was used.
pub fn rows(named: &NamedIdentity, now_ms: u64) -> Vec<Identity> {
    let revoked = named.revoked.as_ref();
    let unseen = Identity {
        name: named.name.to_string(),
        role: None,
        prefixes: Vec::new(),
        ends_ms: None,
        first_seen_ms: None,
        state: IdentityState::Revoked,
        revoked_ms: revoked.map(|revoked| revoked.at_ms),
        revoked_by: revoked.and_then(|revoked| revoked.by.as_ref()).map(ToString::to_string),
        certificate: None,
    };
    if named.certificates.is_empty() {
        return vec![unseen];
    }
    let row = |seen: &idunno_shared::wire::control::SeenCertificate| {
        let issued = &seen.issued;
        Identity {
            role: Some(issued.grant.role.name().to_owned()),
            prefixes: issued.grant.prefixes.iter().map(ToString::to_string).collect(),
            ends_ms: Some(issued.ends_ms),
            first_seen_ms: Some(seen.seen_ms),
            state: match issued.ends_ms {
                _ if revoked.is_some() => IdentityState::Revoked,
                ends_ms if ends_ms <= now_ms => IdentityState::Ended,
                ends_ms if ends_ms - now_ms <= ENDING_MS => IdentityState::Ending,
                _ => IdentityState::Valid,
            },
            certificate: Some(issued.certificate.to_string().chars().take(16).collect()),
            ..unseen.clone()
        }
    };
    named.certificates.iter().map(row).collect()
}

/// The state in words.
pub fn state_text(row: &Identity, now_ms: u64) -> String {
    match row.state {
        IdentityState::Valid => String::from("valid"),
        IdentityState::Ending => format!("ends in {}", left(row.ends_ms.unwrap_or(now_ms), now_ms)),
        IdentityState::Ended => String::from("ended"),
        IdentityState::Revoked => {
            let by = row.revoked_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            format!("revoked {}{by}", row.revoked_ms.map(text::moment).unwrap_or_default())
        }
    }
}

fn left(ends_ms: u64, now_ms: u64) -> String {
    let left_ms = ends_ms.saturating_sub(now_ms);
    match left_ms / DAY_MS {
        0 => text::seconds(left_ms as f64 / 1000.0),
        days => text::count(days, "day"),
    }
}

/// What to tell of the identity in use: nothing, unless it ends soon.
pub fn own_warning(ends_ms: Option<u64>, now_ms: u64) -> Option<String> {
    let ends_ms = ends_ms.filter(|ends_ms| ends_ms.saturating_sub(now_ms) <= ENDING_MS)?;
    let left = left(ends_ms, now_ms);
    Some(format!("this identity ends in {left}: have another one made with 'idunno identity create'"))
}

/// What to tell of the identities of others: the names whose last one ends soon.
pub fn warnings(all: &[NamedIdentity], now_ms: u64) -> Vec<String> {
    let ending = all.iter().filter(|named| named.revoked.is_none()).filter_map(|named| {
        let ends_ms = named.certificates.last()?.issued.ends_ms;
        let is_ending = ends_ms > now_ms && ends_ms - now_ms <= ENDING_MS;
        is_ending.then(|| format!("the identity of {} ends in {}", named.name, left(ends_ms, now_ms)))
    });
    ending.collect()
}

#[cfg(test)]
mod tests {
    use idunno_shared::access::{Grant, Issued, Role};
    use idunno_shared::ids::Digest;
    use idunno_shared::wire::control::{Revocation, SeenCertificate};

    use super::*;

    fn named(name: &str, ends_days: &[u64], revoked: bool) -> NamedIdentity {
        let grant = Grant { name: name.parse().unwrap(), role: Role::Viewer, prefixes: Vec::new() };
        let seen = |days: &u64| SeenCertificate {
            issued: Issued {
                certificate: Digest::of(&days.to_be_bytes()),
                grant: grant.clone(),
                ends_ms: days * DAY_MS,
            },
            seen_ms: 0,
        };
        let revoked = revoked.then(|| Revocation { at_ms: 0, by: Some("olga".parse().unwrap()) });
        NamedIdentity {
            name: grant.name.clone(),
            certificates: ends_days.iter().map(seen).collect(),
            revoked,
        }
    }

    #[test]
    fn what_ends_soon_is_told_unless_a_later_one_is_in_use() {
        let now_ms = 100 * DAY_MS;
        let all = [
            named("replaced", &[105, 190], false),
            named("ending", &[90, 105], false),
            named("ended", &[90], false),
            named("revoked", &[105], true),
            named("unseen", &[], true),
        ];
        let states: Vec<Vec<IdentityState>> =
            all.iter().map(|named| rows(named, now_ms).iter().map(|row| row.state).collect()).collect();
        use IdentityState::{Ended, Ending, Revoked, Valid};
        let expected =
            vec![vec![Ending, Valid], vec![Ended, Ending], vec![Ended], vec![Revoked], vec![Revoked]];
        assert_eq!(states, expected);
        let told = warnings(&all, now_ms);
        assert!(told.len() == 1 && told[0].starts_with("the identity of ending ends in"), "{told:?}");
        assert!(
            own_warning(Some(now_ms + 20 * DAY_MS), now_ms).is_none() && own_warning(None, now_ms).is_none()
        );
        assert!(own_warning(Some(now_ms + 2 * DAY_MS), now_ms).is_some());
    }
}
