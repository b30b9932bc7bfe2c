//! Lists keys as S3 does: in the order of their bytes, those with a common prefix up to the delimiter rolled up into one entry, in pages.
//!
//! A page goes on after the last entry of the page before, be it a key or a common prefix: what is not greater than it is left out, and so is
//! everything that starts with a common prefix. So one text serves as marker, token and start. Names that are rolled up are not walked: the next
//! request begins after all of them.

use idunno_shared::names::FileName;
use idunno_shared::wire::control::FileSummary;
use s3s::S3Result;

use super::names;
use crate::store::Store;

/// Most entries of a page.
pub const ENTRIES_MAX: usize = 1_000;
const NAMES_PER_REQUEST: u32 = 1_024;

/// What is listed.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The bucket.
    pub bucket: String,
    /// Only keys that start with this.
    pub prefix: String,
    /// What ends a common prefix; none if it is empty.
    pub delimiter: String,
    /// Only entries that are greater; all if it is empty.
    pub after: String,
    /// Most entries.
    pub limit: usize,
}

/// An entry of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Its key, and its file.
    Object(String, FileSummary),
    /// What keys have in common up to the delimiter.
    Prefix(String),
}

impl Entry {
    /// What entries are ordered by.
    pub fn text(&self) -> &str {
        match self {
            Self::Object(key, _) => key,
            Self::Prefix(prefix) => prefix,
        }
    }
}

/// Rolls keys up.
struct Folder<'a> {
    listing: &'a Listing,
    entries: Vec<Entry>,
}

/// What became of a file.
#[derive(PartialEq, Eq, Debug)]
enum Folded {
    /// An entry, or left out.
    Taken,
    /// It has the common prefix of the last entry, or of what was listed before: so have those that follow.
    RolledUp(String),
    /// One more than fits.
    Full,
}

impl Folder<'_> {
    fn fold(&mut self, file: FileSummary) -> Folded {
        let Listing { bucket, prefix, delimiter, after, limit } = self.listing;
        let Some(key) = file.name.as_str().get(bucket.len() + 1..) else { return Folded::Taken };
        let rest = key.get(prefix.len()..).unwrap_or_default();
        let end = if delimiter.is_empty() { None } else { rest.find(delimiter.as_str()) };
        let common = end.map(|at| key[..prefix.len() + at + delimiter.len()].to_owned());
        let text = common.as_deref().unwrap_or(key);
        let is_old = !after.is_empty() && text <= after.as_str();
        if is_old || self.entries.last().is_some_and(|last| last.text() == text) {
            return common.map_or(Folded::Taken, Folded::RolledUp);
        }
        if self.entries.len() == *limit {
            return Folded::Full;
        }
        let key = key.to_owned();
        self.entries.push(common.map_or_else(|| Entry::Object(key, file), Entry::Prefix));
        Folded::Taken
    }
}

/// The greatest name that is not listed any more; `None` to list from the beginning.
fn start(listing: &Listing) -> Option<FileName> {
    let Listing { bucket, delimiter, after, .. } = listing;
    if after.is_empty() {
        return None;
    }
    if !delimiter.is_empty() && after.ends_with(delimiter.as_str()) {
        return names::last_with_prefix(&format!("{bucket}/{after}"));
    }
    // What is no name itself, such as `a/`: the names from the longest that it starts with are looked at.
    let text = format!("{bucket}/{after}");
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let mut ends: Vec<usize> = ends.filter(|&end| end > bucket.len() + 1).collect();
    ends.reverse();
    ends.into_iter().find_map(|end| text[..end].parse().ok())
}

/// The first rows, at most `limit`, and whether more follow.
pub(super) fn page<T>(mut rows: impl Iterator<Item = T>, limit: usize) -> (Vec<T>, bool) {
    let page = rows.by_ref().take(limit).collect();
    (page, rows.next().is_some())
}

/// A page, and whether more entries follow.
pub async fn list(store: &Store, listing: &Listing) -> S3Result<(Vec<Entry>, bool)> {
    if listing.limit == 0 {
        return Ok((Vec::new(), false));
    }
    let prefix = format!("{}/{}", listing.bucket, listing.prefix);
    let mut folder = Folder { listing, entries: Vec::new() };
    let mut after = start(listing);
    loop {
        let (files, more) = store.list(&prefix, after.take(), NAMES_PER_REQUEST).await?;
        let last = files.last().map(|last| last.name.clone());
        let mut rolled_up = None;
        for file in files {
            rolled_up = match folder.fold(file) {
                Folded::Full => return Ok((folder.entries, true)),
                Folded::RolledUp(common) => Some(common),
                Folded::Taken => None,
            };
        }
        if !more {
            return Ok((folder.entries, false));
        }
        let skipped =
            rolled_up.and_then(|common| names::last_with_prefix(&format!("{}/{common}", listing.bucket)));
        after = skipped.or(last);
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::Digest;

    use super::*;

    fn file(key: &str) -> FileSummary {
        FileSummary {
            name: format!("b/{key}").parse().unwrap(),
            version: 1,
            versions: 1,
            size: 0,
            digest: Digest::default(),
            created_ms: 0,
            holders: vec![],
            etag: None,
        }
    }

    /// All pages over these keys, as texts.
    fn pages(keys: &[&str], prefix: &str, delimiter: &str, limit: usize) -> Vec<Vec<String>> {
        let mut listing = Listing {
            bucket: "b".into(),
            prefix: prefix.into(),
            delimiter: delimiter.into(),
            after: String::new(),
            limit,
        };
        let mut pages = Vec::new();
        loop {
            let mut folder = Folder { listing: &listing, entries: Vec::new() };
            let begin = start(&listing);
            let rest = keys.iter().filter(|key| key.starts_with(prefix)).map(|key| file(key));
            let mut rest = rest.filter(|file| begin.as_ref().is_none_or(|begin| file.name > *begin));
            let full = rest.any(|file| folder.fold(file) == Folded::Full);
            let page: Vec<String> = folder.entries.iter().map(|entry| entry.text().to_owned()).collect();
            let last = page.last().cloned();
            pages.push(page);
            match last {
                Some(last) if full => listing.after = last,
                _ => return pages,
            }
        }
    }

    #[test]
    fn each_prefix_is_listed_once_over_all_pages() {
        let keys = ["a", "b/1", "b/2", "b/c/3", "b0", "c%d", "c/x", "d"];
        for limit in 1..9 {
            let all = |prefix, delimiter| pages(&keys, prefix, delimiter, limit).concat();
            assert_eq!(all("", "/"), ["a", "b/", "b0", "c%d", "c/", "d"], "{limit}");
            assert_eq!(all("b/", "/"), ["b/1", "b/2", "b/c/"]);
            assert_eq!(all("b", "/"), ["b/", "b0"]);
            assert_eq!(all("", "%"), ["a", "b/1", "b/2", "b/c/3", "b0", "c%", "c/x", "d"]);
            assert_eq!(all("", ""), keys);
            assert!(all("x", "/").is_empty());
        }
        assert_eq!(pages(&keys, "", "/", 2), [vec!["a", "b/"], vec!["b0", "c%d"], vec!["c/", "d"]]);
    }

    #[test]
    fn a_start_may_be_any_text() {
        let after = |after: &str, delimiter: &str| {
            let listing = Listing {
                bucket: "b".into(),
                after: after.into(),
                delimiter: delimiter.into(),
                limit: 1,
                ..Listing::default()
            };
            start(&listing).map(|name| name.to_string())
        };
        assert_eq!(after("", "/"), None);
        assert_eq!(after("k", "/"), Some("b/k".into()));
        assert_eq!(after("k/", ""), Some("b/k".into()), "those up to it are left out one by one");
        assert_eq!(after("k/", "/"), Some("b/k/\u{10ffff}".into()));
        assert_eq!(after("/", ""), None);
        assert_eq!(after("é\u{1}", ""), Some("b/é".into()));
    }
}
