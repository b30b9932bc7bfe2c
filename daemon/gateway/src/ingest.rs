//! Receives the bytes of an object or part: cut into extents, hashed, stored as they come, and compared with what was announced.
//!
//! Nothing is visible before the commit that follows. While an extent is stored the next is read. Bounds: two extents of [`SMALL_EXTENT_BYTES`], or
//! of 64 MiB for what is larger than [`SMALL_BYTES_MAX`]; each takes its room in memory before it is read.

use std::mem;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use idunno_shared::client::files::StoredBlobs;
use idunno_shared::ids::{Digest, UploadId};
use idunno_shared::wire::blobs::{EXTENT_BYTES_MAX, PlacedBlob};
use idunno_shared::wire::control::EXTENTS_PER_FILE_MAX;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::{Checksum, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::errors::{error, of_put};
use crate::hex::hex;
use crate::memory::Memory;
use crate::store::Store;
use crate::tree::{self, PartHasher};

/// An extent of what is not large: parts of most programs are one extent.
const SMALL_EXTENT_BYTES: u64 = 16 << 20;
/// The largest body that is cut into small extents.
const SMALL_BYTES_MAX: u64 = 64 << 20;
/// How long a program may send nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A quarter of the time after which the coordinator gives an idle upload up.
const KEEP_UPLOAD_PERIOD: Duration = Duration::from_secs(10);

/// What was announced of a body.
#[derive(Default)]
pub struct Announced {
    /// Its length.
    pub length: Option<u64>,
    /// Its MD5 in Base64.
    pub md5: Option<String>,
    /// Its checksums in Base64.
    pub sums: Checksum,
    /// The checksum that comes after it, by its header's name.
    pub trailer: Option<String>,
    /// What comes after it.
    pub trailing: Option<TrailingHeaders>,
    /// Where in an object it will probably be, if it is a part.
    pub place: Option<u64>,
}

/// What was received and stored.
pub struct Received {
    /// The upload, which is open: commit, then end it.
    pub upload: UploadId,
    /// The extents in order.
    pub extents: Vec<PlacedBlob>,
    /// In bytes.
    pub size: u64,
    /// Of all bytes.
    pub digest: Digest,
    /// MD5 in hexadecimal.
    pub md5: String,
    /// Those that were announced, computed.
    pub sums: Checksum,
    /// The subtrees of a part, as text.
    pub tree: Option<String>,
}

/// All hashes of a body.
struct Hashes {
    md5: Md5,
    sums: ChecksumHasher,
    /// `None` while there is one extent, whose own digest it would be.
    whole: Option<blake3::Hasher>,
    tree: Option<PartHasher>,
}

impl Hashes {
    fn new(announced: &Announced, is_one_extent: bool) -> Self {
        let Checksum {
            checksum_crc32,
            checksum_crc32c,
            checksum_crc64nvme,
            checksum_sha1,
            checksum_sha256,
            ..
        } = &announced.sums;
        let trailer = announced.trailer.as_deref().unwrap_or_default();
        let wants = |given: &Option<String>, name: &str| given.is_some() || trailer == name;
        let sums = ChecksumHasher {
            crc32: wants(checksum_crc32, "x-amz-checksum-crc32").then(Crc32::new),
            crc32c: wants(checksum_crc32c, "x-amz-checksum-crc32c").then(Crc32c::new),
            sha1: wants(checksum_sha1, "x-amz-checksum-sha1").then(Sha1::new),
            sha256: wants(checksum_sha256, "x-amz-checksum-sha256").then(Sha256::new),
            crc64nvme: wants(checksum_crc64nvme, "x-amz-checksum-crc64nvme").then(Crc64Nvme::new),
        };
        let tree = announced.place.zip(announced.length).and_then(|(at, length)| PartHasher::new(at, length));
        Self { md5: Md5::new(), sums, whole: (!is_one_extent).then(blake3::Hasher::new), tree }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.sums.update(bytes);
        if let Some(whole) = &mut self.whole {
            whole.update(bytes);
        }
        if let Some(tree) = &mut self.tree {
            tree.update(bytes);
        }
    }
}

/// An extent that is being stored, and its room.
type Storing =
    JoinHandle<(Result<StoredBlobs, idunno_shared::client::files::PutError>, OwnedSemaphorePermit)>;

fn gone() -> S3Error {
    error(S3ErrorCode::InternalError, "the gateway is stopping")
}

/// Receives a body and stores it under a new upload.
pub async fn receive(
    store: &Store,
    memory: &Memory,
    body: Option<StreamingBlob>,
    announced: Announced,
) -> S3Result<Received> {
    let mut receiver =
        Receiver { store, upload: None, kept: Instant::now(), extents: Vec::new(), storing: None };
    match receiver.run(memory, body, &announced).await {
        Ok(received) => Ok(received),
        Err(failed) => {
            let files = store.files.clone();
            if let Some(storing) = receiver.storing.take() {
                storing.abort();
            }
            if let Some(upload) = receiver.upload {
                tokio::spawn(async move { files.end_upload(upload).await });
            }
            Err(failed)
        }
    }
}

struct Receiver<'a> {
    store: &'a Store,
    /// Opened with the first extent.
    upload: Option<UploadId>,
    kept: Instant,
    extents: Vec<PlacedBlob>,
    storing: Option<Storing>,
}

impl Receiver<'_> {
    async fn run(
        &mut self,
        memory: &Memory,
        body: Option<StreamingBlob>,
        announced: &Announced,
    ) -> S3Result<Received> {
        let is_small = announced.length.is_some_and(|length| length <= SMALL_BYTES_MAX);
        let extent_bytes = if is_small { SMALL_EXTENT_BYTES } else { EXTENT_BYTES_MAX };
        let is_one_extent = announced.length.is_some_and(|length| length <= extent_bytes);
        let mut hashes = Hashes::new(announced, is_one_extent);
        let mut source = Source { body, rest: Bytes::new() };
        let mut size = 0;
        loop {
            let left =
                announced.length.map_or(extent_bytes, |length| length.saturating_sub(size)).min(extent_bytes);
            // At the announced end one more byte would be too many.
            let room = memory.take(left.max(1)).await.ok_or_else(gone)?;
            let bytes = self.read(&mut source, left).await?;
            if bytes.is_empty() {
                break;
            }
            size += bytes.len() as u64;
            let hashed = bytes.clone();
            hashes = spawn_blocking(move || {
                hashes.update(&hashed);
                hashes
            })
            .await
            .map_err(|_| gone())?;
            self.finish_storing().await?;
            if self.extents.len() >= EXTENTS_PER_FILE_MAX {
                return Err(error(
                    S3ErrorCode::EntityTooLarge,
                    "the object has more extents than a file may have",
                ));
            }
            let (files, upload) = (self.store.files.clone(), self.upload);
            let store = async move { (files.store_more(upload, vec![bytes]).await, room) };
            self.storing = Some(tokio::spawn(store));
        }
        self.finish_storing().await?;
        if announced.length.is_some_and(|length| length != size) {
            return Err(error(
                S3ErrorCode::IncompleteBody,
                format!("the body has {size} bytes, others were announced"),
            ));
        }
        let (sums, md5) = (hashes.sums.finalize(), hashes.md5.finalize());
        check(announced, &sums, &md5)?;
        let digest = match (&hashes.whole, &self.extents[..]) {
            (_, []) => Digest::of(&[]),
            (None, [only, ..]) => only.blob.digest,
            (Some(whole), _) => Digest(*whole.finalize().as_bytes()),
        };
        let tree = hashes.tree.and_then(PartHasher::finish).map(|subtrees| tree::encode(&subtrees));
        let extents = mem::take(&mut self.extents);
        let upload = match self.upload {
            Some(upload) => upload,
            None => self.store.keep_upload(None).await?,
        };
        Ok(Received { upload, extents, size, digest, md5: hex(&md5), sums, tree })
    }

    /// Reads at most so many bytes; none at the body's end.
    async fn read(&mut self, source: &mut Source, most: u64) -> S3Result<Bytes> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::new();
        loop {
            if bytes.len() == most && most > 0 {
                return Ok(bytes.freeze());
            }
            if source.rest.is_empty() {
                let Some(chunk) = source.next().await? else { return Ok(bytes.freeze()) };
                source.rest = chunk;
                continue;
            }
            if most == 0 {
                return Err(error(S3ErrorCode::IncompleteBody, "the body is longer than was announced"));
            }
            if bytes.is_empty() && source.rest.len() < most {
                bytes.reserve(most);
            }
            let count = source.rest.len().min(most - bytes.len());
            bytes.extend_from_slice(&source.rest.split_to(count));
            if self.upload.is_some() && self.kept.elapsed() > KEEP_UPLOAD_PERIOD {
                self.kept = Instant::now();
                self.store.keep_upload(self.upload).await?;
            }
        }
    }

    async fn finish_storing(&mut self) -> S3Result<()> {
        let Some(storing) = self.storing.take() else { return Ok(()) };
        let (stored, _room) = storing.await.map_err(|_| gone())?;
        let stored = stored.map_err(of_put)?;
        self.kept = Instant::now();
        self.upload = Some(stored.upload);
        self.extents.extend(stored.blobs);
        Ok(())
    }
}

/// A body, and what was read of it too early.
struct Source {
    body: Option<StreamingBlob>,
    rest: Bytes,
}

impl Source {
    async fn next(&mut self) -> S3Result<Option<Bytes>> {
        let Some(body) = &mut self.body else { return Ok(None) };
        match timeout(SILENCE_MAX, body.next()).await {
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(None) => {
                self.body = None;
                Ok(None)
            }
            Ok(Some(Err(broken))) => Err(of_body(&broken.to_string())),
            Err(_) => Err(error(S3ErrorCode::RequestTimeout, "nothing came for 30 s")),
        }
    }
}

/// Why a body cannot be read: the library's errors are known by their texts only.
fn of_body(text: &str) -> S3Error {
    if text.contains("Sha256Mismatch") {
        let mut mismatch =
            error(S3ErrorCode::BadDigest, "the body has another SHA-256 than x-amz-content-sha256");
        if let Some(code) = S3ErrorCode::from_bytes(b"XAmzContentSHA256Mismatch") {
            mismatch.set_code(code);
            mismatch.set_status_code(http::StatusCode::BAD_REQUEST);
        }
        return mismatch;
    }
    if text.contains("SignatureMismatch") {
        return error(S3ErrorCode::SignatureDoesNotMatch, "a chunk of the body has another signature");
    }
    error(S3ErrorCode::IncompleteBody, format!("the body cannot be read: {text}"))
}

/// Compares what was announced with what came.
fn check(announced: &Announced, sums: &Checksum, md5: &[u8]) -> S3Result<()> {
    if let Some(given) = &announced.md5 {
        let given = decode_base64(given).filter(|given| given.len() == 16);
        let given = given.ok_or_else(|| error(S3ErrorCode::InvalidDigest, "Content-MD5 is no MD5"))?;
        if given != md5 {
            return Err(error(S3ErrorCode::BadDigest, "the body has another MD5 than Content-MD5"));
        }
    }
    let given = &announced.sums;
    let pairs = [
        ("x-amz-checksum-crc32", &given.checksum_crc32, &sums.checksum_crc32),
        ("x-amz-checksum-crc32c", &given.checksum_crc32c, &sums.checksum_crc32c),
        ("x-amz-checksum-crc64nvme", &given.checksum_crc64nvme, &sums.checksum_crc64nvme),
        ("x-amz-checksum-sha1", &given.checksum_sha1, &sums.checksum_sha1),
        ("x-amz-checksum-sha256", &given.checksum_sha256, &sums.checksum_sha256),
    ];
    let differs =
        |name: &str| error(S3ErrorCode::BadDigest, format!("the body has another checksum than {name}"));
    if let Some((name, ..)) = pairs.iter().find(|(_, given, found)| given.is_some() && given != found) {
        return Err(differs(name));
    }
    let Some(trailer) = &announced.trailer else { return Ok(()) };
    let Some((name, _, found)) = pairs.iter().find(|(name, ..)| name == trailer) else { return Ok(()) };
    let trailing = announced.trailing.as_ref().and_then(TrailingHeaders::take);
    let came = trailing.and_then(|headers| headers.get(*name)?.to_str().ok().map(str::to_owned));
    match came {
        None => Err(error(S3ErrorCode::IncompleteBody, format!("{name} was to follow the body and did not"))),
        Some(came) if Some(&came) != found.as_ref() => Err(differs(name)),
        Some(_) => Ok(()),
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| -> Option<u32> {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        Some(value.into())
    };
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::new();
    for group in text.chunks(4) {
        let mut value = 0;
        for &byte in group {
            value = value << 6 | digit(byte)?;
        }
        value <<= 6 * (4 - group.len());
        let all = value.to_be_bytes();
        bytes.extend_from_slice(&all[1..group.len()]);
    }
    Some(bytes)
}

/// The tag of an object of parts with these MD5s in hexadecimal.
pub fn etag_of_parts<'a>(tags: impl ExactSizeIterator<Item = &'a str>) -> Option<String> {
    let count = tags.len();
    let mut md5 = Md5::new();
    for tag in tags {
        let bytes: Option<Vec<u8>> =
            (0..tag.len() / 2).map(|at| u8::from_str_radix(tag.get(2 * at..2 * at + 2)?, 16).ok()).collect();
        md5.update(&bytes?);
    }
    Some(format!("{}-{count}", hex(&md5.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        for (text, bytes) in [("", ""), ("YQ==", "a"), ("YWI=", "ab"), ("YWJj", "abc"), ("YWJjZA==", "abcd")]
        {
            assert_eq!(decode_base64(text).unwrap(), bytes.as_bytes(), "{text}");
        }
        assert_eq!(decode_base64("Zm9*"), None);
    }

    #[test]
    fn what_differs_from_its_announcement_is_refused() {
        let md5 = Md5::checksum(b"foo");
        let sums = Checksum { checksum_crc32: Some("jHNlIQ==".into()), ..Checksum::default() };
        let code =
            |announced: Announced| check(&announced, &sums, &md5).map_err(|error| error.code().clone());
        assert_eq!(code(Announced::default()), Ok(()));
        assert_eq!(
            code(Announced { md5: Some("rL0Y20zC+Fzt72VPzMSk2A==".into()), ..Announced::default() }),
            Ok(())
        );
        let other = Announced { md5: Some("sL0Y20zC+Fzt72VPzMSk2A==".into()), ..Announced::default() };
        assert_eq!(code(other), Err(S3ErrorCode::BadDigest));
        assert_eq!(
            code(Announced { md5: Some("x".into()), ..Announced::default() }),
            Err(S3ErrorCode::InvalidDigest)
        );
        let sum = Checksum { checksum_crc32: Some("AAAAAA==".into()), ..Checksum::default() };
        assert_eq!(code(Announced { sums: sum, ..Announced::default() }), Err(S3ErrorCode::BadDigest));
        let lacking = Announced { trailer: Some("x-amz-checksum-crc32".into()), ..Announced::default() };
        assert_eq!(code(lacking), Err(S3ErrorCode::IncompleteBody));
    }

    #[test]
    fn the_tag_of_parts_is_that_of_aws() {
        // Of two parts "foo" and "bar", as botocore computes it.
        let parts = ["acbd18db4cc2f85cedef654fccc4a4d8", "37b51d194a7513e45b56f6524f2d51f2"];
        let tag = etag_of_parts(parts.into_iter()).unwrap();
        assert!(tag.ends_with("-2") && tag.len() == 34, "{tag}");
    }
}
