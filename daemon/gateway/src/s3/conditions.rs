//! Conditions of requests: on what is read, and on what is written over.

use http::{HeaderMap, HeaderValue, header};
use idunno_shared::wire::control::{Expected, FileVersion};
use s3s::dto::{ETag, ETagCondition, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result};
use time::OffsetDateTime;

use super::attributes::http_date;
use super::names;
use crate::errors::error;

/// The conditions of a read.
#[derive(Clone, Debug, Default)]
pub struct ReadConditions {
    /// Read only what has this tag.
    pub if_match: Option<ETagCondition>,
    /// Read only what has not this tag.
    pub if_none_match: Option<ETagCondition>,
    /// Read only what is newer.
    pub if_modified_since: Option<Timestamp>,
    /// Read only what is not newer.
    pub if_unmodified_since: Option<Timestamp>,
}

/// A time in milliseconds since the epoch, as S3 shows it.
pub fn timestamp(at_ms: u64) -> Timestamp {
    let seconds = i64::try_from(at_ms / 1_000).unwrap_or(0);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH).into()
}

/// The tag of a version, without quotes.
pub fn tag(version: &FileVersion) -> String {
    names::etag(&version.attributes, version.digest)
}

fn matches(condition: &ETagCondition, tag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(given) => given.value() == tag,
    }
}

/// A program keeps what it has, and learns its tag (RFC 9110, section 15.4.5).
fn not_modified(tag: &str, modified: &Timestamp) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    let date = http_date(modified);
    let named = [(header::ETAG, Some(format!("\"{tag}\""))), (header::LAST_MODIFIED, date)];
    let headers =
        named.into_iter().filter_map(|(name, text)| Some((name, HeaderValue::try_from(text?).ok()?)));
    error.set_headers(headers.collect::<HeaderMap>());
    error
}

fn failed(condition: &str) -> S3Error {
    error(S3ErrorCode::PreconditionFailed, format!("the condition {condition} does not hold"))
}

impl ReadConditions {
    /// Whether a version may be read. A condition on the tag counts more than one on the time (RFC 9110, section 13.2.2).
    pub fn check(&self, version: &FileVersion) -> S3Result<()> {
        let (tag, modified) = (tag(version), timestamp(version.created_ms));
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) if !matches(condition, &tag) => return Err(failed("If-Match")),
            (None, Some(since)) if modified > *since => return Err(failed("If-Unmodified-Since")),
            _ => {}
        }
        match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) if matches(condition, &tag) => Err(not_modified(&tag, &modified)),
            (None, Some(since)) if modified <= *since => Err(not_modified(&tag, &modified)),
            _ => Ok(()),
        }
    }

    /// The same for the source of a copy, where nothing is answered with 304.
    pub fn check_source(&self, version: &FileVersion) -> S3Result<()> {
        self.check(version).map_err(|wrong| match wrong.code() {
            S3ErrorCode::NotModified => failed("x-amz-copy-source-if-none-match or -if-modified-since"),
            _ => wrong,
        })
    }
}

/// What must be the newest version for a write, given the newest that there is.
pub fn expected(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
    newest: Option<&FileVersion>,
) -> S3Result<Option<Expected>> {
    let seen = newest.map(|newest| Expected::Version { number: newest.version, digest: newest.digest });
    let found = newest.map(tag);
    match (if_match, if_none_match) {
        (None, None) => Ok(None),
        (Some(condition), None) => match (&found, seen) {
            (Some(found), Some(seen)) if matches(condition, found) => Ok(Some(seen)),
            (None, _) => Err(error(S3ErrorCode::NoSuchKey, "there is no object for If-Match")),
            _ => Err(failed("If-Match")),
        },
        (None, Some(condition)) => match (&found, seen) {
            (Some(found), _) if matches(condition, found) => Err(failed("If-None-Match")),
            (Some(_), Some(seen)) => Ok(Some(seen)),
            _ => Ok(Some(Expected::NoFile)),
        },
        (Some(_), Some(_)) => {
            Err(error(S3ErrorCode::InvalidRequest, "If-Match and If-None-Match exclude each other"))
        }
    }
}

/// A tag as S3 answers it.
pub fn strong(tag: String) -> ETag {
    ETag::Strong(tag)
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::Digest;
    use idunno_shared::wire::control::{Attributes, ETAG};

    use super::*;

    fn version() -> FileVersion {
        FileVersion {
            name: "b/k".parse().unwrap(),
            version: 3,
            size: 0,
            digest: Digest::of(b"x"),
            created_ms: 1_795_395_723_456,
            extents: vec![],
            attributes: Attributes::from([(ETAG.to_owned(), "abc".to_owned())]),
        }
    }

    fn etag(text: &str) -> ETagCondition {
        ETagCondition::ETag(ETag::Strong(text.into()))
    }

    #[test]
    fn a_tag_counts_more_than_a_time() {
        let code =
            |conditions: ReadConditions| conditions.check(&version()).map_err(|error| error.code().clone());
        let (old, new) = (Some(timestamp(0)), Some(timestamp(1_795_395_724_000)));
        let none = ReadConditions::default;
        assert_eq!(code(none()), Ok(()));
        assert_eq!(
            code(ReadConditions { if_match: Some(etag("x")), ..none() }),
            Err(S3ErrorCode::PreconditionFailed)
        );
        let both = ReadConditions { if_match: Some(etag("abc")), if_unmodified_since: old.clone(), ..none() };
        assert_eq!(code(both), Ok(()));
        let unmodified = ReadConditions { if_unmodified_since: old, ..none() };
        assert_eq!(code(unmodified.clone()), Err(S3ErrorCode::PreconditionFailed));
        assert_eq!(
            code(ReadConditions { if_none_match: Some(etag("abc")), ..none() }),
            Err(S3ErrorCode::NotModified)
        );
        let kept =
            ReadConditions { if_none_match: Some(etag("abc")), ..none() }.check(&version()).unwrap_err();
        let headers = kept.headers().unwrap();
        assert_eq!(headers[header::ETAG], "\"abc\"");
        assert_eq!(headers[header::LAST_MODIFIED], "Mon, 23 Nov 2026 01:02:03 GMT");
        let other =
            ReadConditions { if_none_match: Some(etag("x")), if_modified_since: new.clone(), ..none() };
        assert_eq!(code(other), Ok(()));
        assert_eq!(code(ReadConditions { if_modified_since: new, ..none() }), Err(S3ErrorCode::NotModified));
        let same_second = Some(timestamp(1_795_395_723_000));
        assert_eq!(
            code(ReadConditions { if_modified_since: same_second, ..none() }),
            Err(S3ErrorCode::NotModified)
        );
    }

    #[test]
    fn a_write_names_what_it_saw() {
        let (newest, any) = (version(), ETagCondition::Any);
        let seen = Some(Expected::Version { number: 3, digest: newest.digest });
        let code = |result: S3Result<Option<Expected>>| result.map_err(|error| error.code().clone());
        assert_eq!(code(expected(None, None, Some(&newest))), Ok(None));
        assert_eq!(code(expected(None, Some(&any), None)), Ok(Some(Expected::NoFile)));
        assert_eq!(code(expected(None, Some(&any), Some(&newest))), Err(S3ErrorCode::PreconditionFailed));
        assert_eq!(code(expected(Some(&etag("abc")), None, Some(&newest))), Ok(seen));
        assert_eq!(
            code(expected(Some(&etag("x")), None, Some(&newest))),
            Err(S3ErrorCode::PreconditionFailed)
        );
        assert_eq!(code(expected(Some(&any), None, None)), Err(S3ErrorCode::NoSuchKey));
    }
}
