//! Whose a certificate is, as people and logs tell: the name it was issued for, beside its role.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::Role;
use crate::ids::Digest;

/// Longest name, in dead_letters.
const LETTERS_MAX: usize = 40;
/// What follows a holder's name in a certificate: no role's name ends so.
const SUFFIX: &str = ".holder.idunno";
/// Of a certificate's digest, where it has no name.
const DIGITS: usize = 16;

/// A person's name, or that of what acts for them: 1 to 40 of `a` to `z`, `0` to `9` and, in between, `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectName(String);

impl SubjectName {
    /// Whoever has the secret itself.
    pub fn of_secret() -> Self {
        Self(String::from("secret-holder"))
    }

    /// The name in its certificates.
    pub(super) fn certified(&self) -> String {
        format!("{}{SUFFIX}", self.0)
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SubjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_good = |dead_letter: u8| {
            dead_letter.is_ascii_lowercase() || dead_letter.is_ascii_digit() || dead_letter == b'-'
        };
        let is_name = (1..=LETTERS_MAX).contains(&text.len())
            && text.bytes().all(is_good)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_name {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("'{text}' is no name: 1 to {LETTERS_MAX} letters a-z, digits and, in between, hyphens"))
    }
}

/// The role and the name of a certificate's holder; the beginning of its digest for a name where it has none.
pub fn describe(role: Role, certificate: &CertificateDer<'_>) -> String {
    let parsed = EndEntityCert::try_from(certificate).ok();
    let name = parsed
        .as_ref()
        .and_then(|parsed| parsed.valid_dns_names().find_map(|name| name.strip_suffix(SUFFIX)));
    match name {
        Some(name) => format!("{role} {name}"),
        None => format!("{role} {}", Digest::of(certificate).to_string().split_at(DIGITS).0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::secret::Secret;
    use super::*;

    #[test]
    fn a_name_is_in_the_certificate_and_changes_no_role() {
        let (secret, day) = (Secret::generate().unwrap(), Duration::from_secs(24 * 3_600));
        let anna = "anna-2".parse().unwrap();
        let named = secret.mint_lasting(Role::Viewer, Some(&anna), day).unwrap();
        assert_eq!(describe(named.role, &named.certificate), "viewer anna-2");
        assert_eq!(Role::of(&named.certificate), Some(Role::Viewer));
        let unnamed = [(); 2].map(|()| secret.mint(Role::Operator, day).unwrap());
        let [one, other] = unnamed.map(|identity| describe(identity.role, &identity.certificate));
        assert!(
            one.starts_with("operator ") && one.len() == "operator ".len() + DIGITS && one != other,
            "{one}"
        );
    }

    #[test]
    fn a_name_cannot_be_taken_for_a_role() {
        for wrong in ["", "-", "a-", "Anna", "a.b", "member.idunno", "a b", &"a".repeat(LETTERS_MAX + 1)] {
            assert!(wrong.parse::<SubjectName>().is_err(), "{wrong}");
        }
    }
}
