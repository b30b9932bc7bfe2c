//! What a URL means.
//!
//! The key of an object in a bucket stands in its URL as it is, as the services' own tools write it: `%20` is three characters.
//! URLs of the web and of files are encoded as such URLs are.

use std::path::PathBuf;

use idunno_shared::wire::references::URL_BYTES_MAX;
use reqwest::Url;

/// A service that has buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Service {
    S3,
    GoogleCloud,
    Azure,
}

/// Where an object or a folder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Bucket { service: Service, bucket: String, key: String },
    Web(Url),
    Folder(PathBuf),
}

impl Place {
    /// The place of a URL, or what is wrong with it.
    pub(crate) fn of(url: &str) -> Result<Self, String> {
        if url.len() > URL_BYTES_MAX {
            return Err(format!("it has {} bytes, but a URL may have {URL_BYTES_MAX}", url.len()));
        }
        let (scheme, rest) = url.split_once("://").ok_or(SCHEMES)?;
        let service = match scheme {
            "s3" | "s3a" => Service::S3,
            "gs" => Service::GoogleCloud,
            "az" => Service::Azure,
            "http" | "https" => return web(url).map(Self::Web),
            "file" => return folder(url).map(Self::Folder),
            _ => return Err(String::from(SCHEMES)),
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        // Not '..', which would lead out of the service's path.
        let begins = bucket.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || !bucket.chars().all(is_name) {
            return Err(format!("'{bucket}' is not the name of a bucket"));
        }
        Ok(Self::Bucket { service, bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// The URL by which an operator lists the place: where the requests go. A key stands in it as it is, so that no part of
    /// it means another place.
    pub(crate) fn listed_as(&self, endpoint: Option<&Url>) -> String {
        match (self, endpoint) {
            (Self::Bucket { bucket, key, .. }, Some(endpoint)) => {
                format!("{}/{bucket}/{key}", endpoint.as_str().trim_end_matches('/'))
            }
            (Self::Bucket { service, bucket, key }, None) => {
                let scheme = match service {
                    Service::S3 => "s3",
                    Service::GoogleCloud => "gs",
                    Service::Azure => "az",
                };
                format!("{scheme}://{bucket}/{key}")
            }
            (Self::Web(url), _) => url.to_string(),
            (Self::Folder(path), _) => {
                Url::from_file_path(path).map_or_else(|()| String::new(), String::from)
            }
        }
    }
}

/// The URL of a service, as it is written by everybody.
pub(crate) fn endpoint(text: &str) -> Result<Url, String> {
    let url = web(text)?;
    if url.query().is_some() { Err(format!("'{text}' has a query")) } else { Ok(url) }
}

fn web(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("'{text}' is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("'{text}' is no http:// or https:// URL of a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(String::from(
            "it has a password in it, which would stand in the dataset and its results",
        ));
    }
    Ok(url)
}

fn folder(text: &str) -> Result<PathBuf, String> {
    let url = Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
    url.to_file_path().map_err(|()| String::from("write it as file:///PATH, with the whole path"))
}

const SCHEMES: &str =
    "write it as s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY, https://HOST/PATH or file:///PATH";

#[cfg(test)]
mod tests {
    use super::*;

    fn listed_as(url: &str, at: Option<&str>) -> String {
        Place::of(url).unwrap().listed_as(at.map(|url| endpoint(url).unwrap()).as_ref())
    }

    #[test]
    fn the_key_of_a_bucket_is_taken_as_it_stands() {
        let place = Place::of("s3://b/a b%20c#d?e/f.jpg").unwrap();
        let key = String::from("a b%20c#d?e/f.jpg");
        assert_eq!(place, Place::Bucket { service: Service::S3, bucket: "b".into(), key });
        assert_eq!(Place::of("file:///data/a%20b").unwrap(), Place::Folder(PathBuf::from("/data/a b")));
        assert!(matches!(Place::of("gs://b").unwrap(), Place::Bucket { key, .. } if key.is_empty()));
    }

    #[test]
    fn a_place_is_listed_by_where_requests_go() {
        assert_eq!(listed_as("s3a://b/k", None), "s3://b/k");
        assert_eq!(listed_as("s3://b/k", Some("http://MINIO:9000/")), "http://minio:9000/b/k");
        assert_eq!(
            listed_as("s3://b/a/%2e%2e/k", Some("https://minio:443")),
            "https://minio/b/a/%2e%2e/k",
            "it is a key, and leads nowhere else"
        );
        assert_eq!(listed_as("https://EXAMPLE.com/a/../b", None), "https://example.com/b");
        assert_eq!(listed_as("file:///data/%2e%2e/etc", None), "file:///etc");
    }

    #[test]
    fn what_is_no_place_says_why() {
        for (url, why) in [
            ("b/k", "s3://BUCKET/KEY"),
            ("ftp://host/x", "s3://BUCKET/KEY"),
            ("s3:///k", "'' is not the name of a bucket"),
            ("s3://../k", "'..' is not the name of a bucket"),
            ("s3://a@b/k", "not the name of a bucket"),
            ("https://user:word@host/x", "password"),
            ("file://host/x", "file:///PATH"),
            ("https://", "no URL"),
        ] {
            let found = Place::of(url).unwrap_err();
            assert!(found.contains(why), "{url}: {found}");
        }
        assert!(Place::of(&format!("s3://b/{}", "x".repeat(URL_BYTES_MAX))).is_err());
        assert!(endpoint("http://minio:9000/?x=1").is_err() && endpoint("s3://b").is_err());
    }
}
