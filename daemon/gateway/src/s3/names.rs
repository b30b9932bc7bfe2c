//! Names of S3 and of the store: a bucket is the first part of a file's name, a key is the rest.
//!
//! Under [`folders::S3`] lie the buckets that have no file yet, and uploads: their record, which is an empty file with the attributes that
//! the object will have, and their parts.

use idunno_shared::folders::{self, S3_UPLOADS};
use idunno_shared::ids::Digest;
use idunno_shared::names::{FileName, NameError};
use idunno_shared::wire::control::{Attributes, ETAG};
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::errors::error;

/// The name of an upload's record beside its parts.
const UPLOAD_RECORD: &str = "upload";
/// Hexadecimal digits of a digest that a version's id has.
const ID_DIGITS: usize = 16;
/// The greatest characters of four, three, two and one bytes in UTF-8: a prefix, followed by the first of them that still fits,
/// sorts after every name with that prefix.
const GREATEST_CHARS: [char; 4] = [char::MAX, '\u{ffff}', '\u{7ff}', '~'];

/// The file of an object.
pub fn object(bucket: &str, key: &str) -> S3Result<FileName> {
    format!("{bucket}/{key}").parse().map_err(|wrong| of_name(&wrong))
}

fn of_name(wrong: &NameError) -> S3Error {
    match wrong {
        NameError::TooLong { .. } => {
            error(S3ErrorCode::KeyTooLongError, "bucket, slash and key have more than 1,024 bytes together")
        }
        _ => error(S3ErrorCode::InvalidArgument, format!("the store has no such key: {wrong}")),
    }
}

/// Refuses a new bucket's name where the library lets it pass: each part between dots begins and ends with a letter or digit.
pub fn check_bucket(bucket: &str) -> S3Result<()> {
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-');
    if bucket.split('.').all(is_part) {
        return Ok(());
    }
    Err(error(S3ErrorCode::InvalidBucketName, format!("'{bucket}' is no valid name of a bucket")))
}

/// The record of a bucket.
pub fn bucket_record(bucket: &str) -> S3Result<FileName> {
    format!("{}{bucket}", bucket_records()).parse().map_err(|wrong| of_name(&wrong))
}

/// What the names of all records of buckets start with.
pub fn bucket_records() -> String {
    format!("{}buckets/", folders::S3)
}

/// The greatest name that starts with `prefix`; `None` if no name is longer.
pub fn last_with_prefix(prefix: &str) -> Option<FileName> {
    GREATEST_CHARS.iter().find_map(|last| format!("{prefix}{last}").parse().ok())
}

/// A version's id. Its number alone would name other bytes once the file was deleted and put again.
pub fn version_id(number: u64, digest: Digest) -> String {
    let mut digits = digest.to_string();
    digits.truncate(ID_DIGITS);
    format!("{number}.{digits}")
}

/// The number in a version's id, if it is one.
pub fn version_number(id: &str) -> Option<u64> {
    let (number, digits) = id.split_once('.')?;
    let is_hex = digits.len() == ID_DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    number.parse().ok().filter(|_| is_hex)
}

/// An object's tag: what the gateway noted, or one that no program takes for an MD5.
pub fn etag(attributes: &Attributes, digest: Digest) -> String {
    etag_or(attributes.get(ETAG).cloned(), digest)
}

/// The same, of what lists show.
pub fn etag_or(noted: Option<String>, digest: Digest) -> String {
    noted.unwrap_or_else(|| {
        let mut digits = digest.to_string();
        digits.truncate(32);
        digits + "-1"
    })
}

/// An upload of parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadName {
    /// The object's bucket.
    pub bucket: String,
    /// The object's key.
    pub key: String,
    /// The upload's id.
    pub id: String,
}

impl UploadName {
    /// Checks an id that a program gives.
    pub fn new(bucket: &str, key: &str, id: &str) -> S3Result<Self> {
        let is_id = id.len() == 32 && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if is_id {
            return Ok(Self { bucket: bucket.to_owned(), key: key.to_owned(), id: id.to_owned() });
        }
        Err(error(S3ErrorCode::NoSuchUpload, format!("there is no upload '{id}'")))
    }

    /// What the names of its files start with.
    pub fn folder(&self) -> String {
        let Self { bucket, key, id } = self;
        format!("{S3_UPLOADS}{bucket}/{key}/{id}/")
    }

    /// Its record.
    pub fn record(&self) -> S3Result<FileName> {
        format!("{}{UPLOAD_RECORD}", self.folder()).parse().map_err(|wrong| of_name(&wrong))
    }

    /// A part.
    pub fn part(&self, number: u32) -> S3Result<FileName> {
        format!("{}{number:05}", self.folder()).parse().map_err(|wrong| of_name(&wrong))
    }

    /// The upload of which a file is the record.
    pub fn of_record(bucket: &str, file: &FileName) -> Option<Self> {
        let inside = file.as_str().strip_prefix(S3_UPLOADS)?.strip_prefix(bucket)?.strip_prefix('/')?;
        let (rest, last) = inside.rsplit_once('/')?;
        let (key, id) = rest.rsplit_once('/')?;
        (last == UPLOAD_RECORD).then(|| Self::new(bucket, key, id).ok()).flatten()
    }
}

/// The number of a part, given its file's name without the upload's folder.
pub fn part_number(name: &str) -> Option<u32> {
    let is_number = name.len() == 5 && name.bytes().all(|digit| digit.is_ascii_digit());
    name.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_id_names_bytes() {
        let id = version_id(12, Digest::of(b"x"));
        assert_eq!((id.len(), version_number(&id)), (19, Some(12)));
        for wrong in ["", "12", "12.", "x.0123456789abcdef", "null", "12.0123456789abcdeg"] {
            assert_eq!(version_number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn keys_that_the_store_has_not_are_refused_with_the_rule() {
        assert_eq!(object("b", "a/b.c").unwrap().as_str(), "b/a/b.c");
        for (key, code) in [
            ("a//b", S3ErrorCode::InvalidArgument),
            ("../x", S3ErrorCode::InvalidArgument),
            ("a/", S3ErrorCode::InvalidArgument),
            (&"k".repeat(1_023), S3ErrorCode::KeyTooLongError),
        ] {
            assert_eq!(*object("b", key).unwrap_err().code(), code, "{key}");
        }
    }

    #[test]
    fn parts_of_a_buckets_name_begin_and_end_with_letters_or_digits() {
        for name in ["foo", "foo.bar", "f-o.b-r"] {
            assert!(check_bucket(name).is_ok(), "{name}");
        }
        for name in ["foo.-bar", "foo-.bar", "foo..bar", "-foo", "foo-"] {
            assert_eq!(*check_bucket(name).unwrap_err().code(), S3ErrorCode::InvalidBucketName, "{name}");
        }
    }

    #[test]
    fn an_upload_is_found_by_its_record() {
        let upload = UploadName::new("b", "a/key", &"0f".repeat(16)).unwrap();
        assert_eq!(UploadName::of_record("b", &upload.record().unwrap()), Some(upload.clone()));
        assert_eq!(UploadName::of_record("b", &upload.part(3).unwrap()), None);
        assert_eq!(UploadName::of_record("c", &upload.record().unwrap()), None);
        assert!(UploadName::new("b", "k", "../../x").is_err());
        let number = |name: FileName| part_number(name.as_str().strip_prefix(&upload.folder()).unwrap());
        assert_eq!(number(upload.part(10_000).unwrap()), Some(10_000));
        assert_eq!(number(upload.record().unwrap()), None);
    }
}
