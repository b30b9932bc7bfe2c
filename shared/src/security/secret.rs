//! A cluster's secret: a file with the keys of its authorities.
//!
//! Whoever has it is the cluster. Usually it has one key. While it is being replaced it has two: the first signs, both
//! are trusted. A key's number says which is the newer one, so that a step done twice is refused.

use std::path::Path;
use std::time::{Duration, SystemTime};

use pem::Pem;
use rustls::pki_types::CertificateDer;

use super::authority::Authority;
use super::datagrams::DatagramKey;
use super::identity::Identity;
use super::private_file::{KEY_TAG, encode};
use super::subject::SubjectName;
use super::{Role, SecurityError, private_file};

/// The keys that a file may hold.
const KEYS_MAX: usize = 2;
const NUMBER: &str = "Number";
const PREAMBLE: &str =
    "The secret of an IDunno cluster. Whoever can read this file is a member of it: keep it private.\n\n";

/// A step of a rotation, in this order. Between two of them every process must have read the file anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new key, trusted from now on.
    Add,
    /// The new key signs.
    Sign,
    /// The old key is trusted no more.
    Drop,
}

/// The keys of a cluster's authorities.
#[derive(Debug)]
pub struct Secret {
    /// The first signs; never empty.
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    number: u64,
    authority: Authority,
}

impl Secret {
    /// A new cluster's.
    pub fn generate() -> Result<Self, SecurityError> {
        Ok(Self { keys: vec![Key { number: 1, authority: Authority::generate()? }] })
    }

    /// Reads a file, which must be private.
    pub fn load(path: &Path) -> Result<Self, SecurityError> {
        let bytes = private_file::read(path)?;
        Self::parse(&bytes).map_err(|why| SecurityError::Unfit { path: path.to_owned(), why })
    }

    /// Reads a file's bytes; else what is wrong with them.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let blocks = pem::parse_many(bytes).map_err(|error| error.to_string())?;
        let keys = blocks.iter().map(Key::parse).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() || keys.len() > KEYS_MAX {
            let count = keys.len();
            return Err(format!(
                "a cluster's secret has one key or two, this has {count}: make one with 'idunno cluster init'"
            ));
        }
        Ok(Self { keys })
    }

    /// The file's text.
    pub fn render(&self) -> String {
        let blocks: String = self.keys.iter().map(Key::render).collect();
        format!("{PREAMBLE}{blocks}")
    }

    /// The next step of a rotation.
    pub fn rotate(&mut self, step: Step) -> Result<(), SecurityError> {
        let newest = self.newest().number;
        let signs_newest = self.keys[0].number == newest;
        match (step, self.keys.len()) {
            (Step::Add, 1) => {
                self.keys.push(Key { number: newest + 1, authority: Authority::generate()? });
            }
            (Step::Add, _) => {
                return Err(SecurityError::Step("there is a new key already: go on with 'sign' and 'drop'"));
            }
            (Step::Sign, 1) => return Err(SecurityError::Step("there is one key only: begin with 'add'")),
            (Step::Sign, _) if signs_newest => {
                return Err(SecurityError::Step("the new key signs already: go on with 'drop'"));
            }
            (Step::Sign, _) => self.keys.reverse(),
            (Step::Drop, 1) => {
                return Err(SecurityError::Step("there is one key only: the rotation is over"));
            }
            (Step::Drop, _) if !signs_newest => {
                return Err(SecurityError::Step("the old key signs still: 'sign' comes first"));
            }
            (Step::Drop, _) => self.keys.truncate(1),
        }
        Ok(())
    }

    /// The keys' fingerprints: the first signs, all are trusted.
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys.iter().map(|key| key.authority.fingerprint()).collect()
    }

    /// A proof for a process or a person, by the key that signs.
    pub fn mint(&self, role: Role, valid: Duration) -> Result<Identity, SecurityError> {
        self.issue(&self.keys[0], (role, None), valid)
    }

    /// The same for a person who has the secret itself.
    pub(super) fn mint_own(&self, role: Role, valid: Duration) -> Result<Identity, SecurityError> {
        self.issue(&self.keys[0], (role, Some(&SubjectName::of_secret())), valid)
    }

    /// A proof that is to outlive a rotation under way: by the newest key. Members that have not read it yet refuse it.
    /// Logs tell its holder by that name, if there is one.
    pub fn mint_lasting(
        &self,
        role: Role,
        holder: Option<&SubjectName>,
        valid: Duration,
    ) -> Result<Identity, SecurityError> {
        self.issue(self.newest(), (role, holder), valid)
    }

    fn issue(
        &self,
        key: &Key,
        whose: (Role, Option<&SubjectName>),
        valid: Duration,
    ) -> Result<Identity, SecurityError> {
        let now = SystemTime::now();
        let issued = key.authority.issue(whose, now, now + valid)?;
        Ok(Identity {
            role: whose.0,
            certificate: issued.certificate,
            key: issued.key,
            trusted: self.trusted(),
        })
    }

    /// The certificates of all authorities.
    pub(super) fn trusted(&self) -> Vec<CertificateDer<'static>> {
        self.keys.iter().map(|key| key.authority.certificate().clone()).collect()
    }

    /// The keys of datagrams: the first seals, all open.
    pub(super) fn datagram_keys(&self) -> Result<Vec<DatagramKey>, SecurityError> {
        self.keys.iter().map(|key| DatagramKey::derive(key.authority.key_der())).collect()
    }

    fn newest(&self) -> &Key {
        self.keys.iter().max_by_key(|key| key.number).unwrap_or(&self.keys[0])
    }
}

impl Key {
    fn parse(block: &Pem) -> Result<Self, String> {
        if block.tag() != KEY_TAG {
            return Err(format!("a cluster's secret has keys only, this has a {}", block.tag()));
        }
        let number = block.headers().get(NUMBER).and_then(|number| number.trim().parse().ok());
        let number =
            number.ok_or("it has a key without a number, so 'idunno cluster init' did not make it")?;
        let authority = Authority::from_der(block.contents()).map_err(|error| error.to_string())?;
        Ok(Self { number, authority })
    }

    fn render(&self) -> String {
        let mut block = Pem::new(KEY_TAG, self.authority.key_der());
        // A number has no character that a header cannot have.
        let _ = block.headers_mut().add(NUMBER, &self.number.to_string());
        encode(&block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_back_as_it_was() {
        let mut secret = Secret::generate().unwrap();
        secret.rotate(Step::Add).unwrap();
        let again = Secret::parse(secret.render().as_bytes()).unwrap();
        assert_eq!(again.fingerprints(), secret.fingerprints());
        assert_eq!(again.render(), secret.render());
        assert_eq!(again.trusted().len(), 2);
    }

    #[test]
    fn steps_of_a_rotation_come_in_order_and_once() {
        let mut secret = Secret::generate().unwrap();
        let old = secret.fingerprints();
        assert!(secret.rotate(Step::Sign).is_err() && secret.rotate(Step::Drop).is_err());
        secret.rotate(Step::Add).unwrap();
        assert_eq!(secret.fingerprints()[0], old[0], "the old one signs still");
        assert!(secret.rotate(Step::Add).is_err() && secret.rotate(Step::Drop).is_err());
        secret.rotate(Step::Sign).unwrap();
        assert_eq!(secret.fingerprints()[1], old[0], "it is trusted still");
        assert!(secret.rotate(Step::Sign).is_err(), "twice would undo it");
        secret.rotate(Step::Drop).unwrap();
        assert!(!secret.fingerprints().contains(&old[0]));
        secret.rotate(Step::Add).unwrap();
    }

    #[test]
    fn what_is_no_secret_is_refused_with_the_reason() {
        let identity = Secret::generate().unwrap().mint(Role::Viewer, Duration::from_secs(60)).unwrap();
        let three = Secret::generate().unwrap().render().repeat(3);
        for (text, word) in [
            (String::new(), "one key or two"),
            (String::from("nonsense"), "one key or two"),
            (identity.render(), "CERTIFICATE"),
            (three, "this has 3"),
            (Secret::generate().unwrap().render().replace("Number: 1\n", ""), "without a number"),
        ] {
            let error = Secret::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
