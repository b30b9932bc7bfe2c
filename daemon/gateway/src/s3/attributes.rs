//! What S3 keeps with an object beside its bytes, as attributes of a version: headers by their names, metadata under `x-amz-meta-`.

use idunno_shared::wire::control::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, Attributes};
use s3s::dto::{Metadata, Timestamp, TimestampFormat};
use s3s::{S3ErrorCode, S3Result};

use crate::errors::error;

/// What the names of metadata start with.
const METADATA: &str = "x-amz-meta-";
/// The framing of a request's body, which is no property of the object.
const FRAMING: &str = "aws-chunked";
/// The upload of which an object was made, so that its completion can be repeated.
pub const UPLOAD: &str = "upload";
/// What the name of an object's checksum starts with.
pub const CHECKSUM: &str = "checksum-";

/// Headers and metadata of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers {
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Expires`.
    pub expires: Option<Timestamp>,
    /// User-defined metadata.
    pub metadata: Option<Metadata>,
}

/// The headers in an input of s3s.
macro_rules! headers_of {
    ($input:expr) => {
        $crate::s3::attributes::Headers {
            cache_control: $input.cache_control.take(),
            content_disposition: $input.content_disposition.take(),
            content_encoding: $input.content_encoding.take(),
            content_language: $input.content_language.take(),
            content_type: $input.content_type.take(),
            expires: $input.expires.take(),
            metadata: $input.metadata.take(),
        }
    };
}
pub(crate) use headers_of;

/// Fills the headers of an output of s3s.
macro_rules! set_headers {
    ($output:expr, $attributes:expr) => {{
        let headers = $crate::s3::attributes::Headers::of($attributes);
        $output.cache_control = headers.cache_control;
        $output.content_disposition = headers.content_disposition;
        $output.content_encoding = headers.content_encoding;
        $output.content_language = headers.content_language;
        $output.content_type = headers.content_type;
        $output.expires = headers.expires;
        $output.metadata = headers.metadata;
    }};
}
pub(crate) use set_headers;

/// A time as HTTP has it.
pub(crate) fn http_date(time: &Timestamp) -> Option<String> {
    let mut text = Vec::new();
    time.format(TimestampFormat::HttpDate, &mut text).ok()?;
    String::from_utf8(text).ok()
}

impl Headers {
    /// The attributes of a version. Refused if they are more than the store keeps.
    pub fn into_attributes(self) -> S3Result<Attributes> {
        let encoding = self.content_encoding.as_deref().map(without_framing).filter(|rest| !rest.is_empty());
        let fixed = [
            ("cache-control", self.cache_control),
            ("content-disposition", self.content_disposition),
            ("content-encoding", encoding),
            ("content-language", self.content_language),
            ("content-type", self.content_type),
            ("expires", self.expires.as_ref().and_then(http_date)),
        ];
        let fixed = fixed.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let metadata = self.metadata.unwrap_or_default().into_iter();
        let metadata =
            metadata.map(|(name, value)| (format!("{METADATA}{}", name.to_ascii_lowercase()), value));
        let attributes: Attributes = fixed.chain(metadata).collect();
        let bytes: usize = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        // Some are left for what the gateway notes itself.
        if attributes.len() > ATTRIBUTES_MAX - 8 || bytes > ATTRIBUTE_BYTES_MAX - 512 {
            let text =
                format!("headers and metadata have {bytes} bytes, more than the store keeps with an object");
            return Err(error(S3ErrorCode::MetadataTooLarge, text));
        }
        Ok(attributes)
    }

    /// The headers that attributes stand for.
    pub fn of(attributes: &Attributes) -> Self {
        let get = |name: &str| attributes.get(name).cloned();
        let metadata = attributes
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(METADATA)?.to_owned(), value.clone())));
        let expires = attributes.get("expires");
        Self {
            cache_control: get("cache-control"),
            content_disposition: get("content-disposition"),
            content_encoding: get("content-encoding"),
            content_language: get("content-language"),
            content_type: Some(get("content-type").unwrap_or_else(|| String::from("binary/octet-stream"))),
            expires: expires.and_then(|text| Timestamp::parse(TimestampFormat::HttpDate, text).ok()),
            metadata: Some(metadata.collect()),
        }
    }
}

/// An encoding without that of the request's body.
fn without_framing(encoding: &str) -> String {
    let parts = encoding.split(',').map(str::trim).filter(|part| !part.eq_ignore_ascii_case(FRAMING));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_given() {
        let headers = Headers {
            content_type: Some("text/plain".into()),
            content_encoding: Some("gzip".into()),
            metadata: Some([("mtime".to_owned(), "1.5".to_owned())].into()),
            expires: Timestamp::parse(TimestampFormat::HttpDate, "Tue, 01 Dec 2026 16:00:00 GMT").ok(),
            ..Headers::default()
        };
        assert_eq!(Headers::of(&headers.clone().into_attributes().unwrap()), headers);
        let framed = Headers { content_encoding: Some("aws-chunked, gzip".into()), ..headers.clone() };
        assert_eq!(Headers::of(&framed.into_attributes().unwrap()), headers);
        let several =
            Headers { content_encoding: Some("deflate, aws-chunked, gzip".into()), ..Headers::default() };
        assert_eq!(several.into_attributes().unwrap()["content-encoding"], "deflate, gzip");
        let only = Headers { content_encoding: Some("aws-chunked".into()), ..Headers::default() };
        assert!(only.into_attributes().unwrap().is_empty());
    }

    #[test]
    fn too_much_metadata_is_refused() {
        let metadata = [("x".to_owned(), "y".repeat(ATTRIBUTE_BYTES_MAX))];
        let headers = Headers { metadata: Some(metadata.into()), ..Headers::default() };
        assert_eq!(*headers.into_attributes().unwrap_err().code(), S3ErrorCode::MetadataTooLarge);
    }
}
