//! Parameters of lists, and a page of one.

use serde::Serialize;

use super::error::{ApiError, ApiResult};

/// What is asked of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// The last id of the page before.
    pub after: Option<String>,
    /// Most rows.
    pub limit: Option<usize>,
    /// Whether the oldest come first.
    pub is_ascending: bool,
    /// Only files of this purpose.
    pub purpose: Option<String>,
}

impl ListQuery {
    /// Reads the part of an address after its question mark. What is unknown is left out, as OpenAI does.
    pub fn parse(query: Option<&str>) -> ApiResult<Self> {
        let mut parsed = Self::default();
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "after" if !value.is_empty() => parsed.after = Some(value.to_owned()),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=10_000).contains(limit));
                    let wrong = || ApiError::invalid("limit", format!("limit '{value}' is no number from 1"));
                    parsed.limit = Some(limit.ok_or_else(wrong)?);
                }
                "order" => parsed.is_ascending = value == "asc",
                "purpose" if !value.is_empty() => parsed.purpose = Some(value.to_owned()),
                _ => {}
            }
        }
        Ok(parsed)
    }
}

/// A page.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    object: &'static str,
    data: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_id: Option<String>,
    has_more: bool,
}

impl<T> Page<T> {
    /// Rows with their ids, and whether more follow.
    pub fn new(rows: Vec<(String, T)>, has_more: bool) -> Self {
        let (first_id, last_id) =
            (rows.first().map(|(id, _)| id.clone()), rows.last().map(|(id, _)| id.clone()));
        let data = rows.into_iter().map(|(_, row)| row).collect();
        Self { object: "list", data, first_id, last_id, has_more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_checked() {
        let parsed = ListQuery::parse(Some("after=batch_1&limit=2&order=asc&purpose=batch&x=y")).unwrap();
        let wanted = ListQuery {
            after: Some("batch_1".into()),
            limit: Some(2),
            is_ascending: true,
            purpose: Some("batch".into()),
        };
        assert_eq!(parsed, wanted);
        assert_eq!(ListQuery::parse(None).unwrap(), ListQuery::default());
        for wrong in ["limit=0", "limit=x", "limit=10001", "limit=-1"] {
            assert_eq!(ListQuery::parse(Some(wrong)).unwrap_err().param, Some("limit"), "{wrong}");
        }
    }

    #[test]
    fn a_page_names_its_ends() {
        let page = Page::new(vec![("a".to_owned(), 1), ("b".to_owned(), 2)], true);
        let text = serde_json::to_string(&page).unwrap();
        assert_eq!(text, r#"{"object":"list","data":[1,2],"first_id":"a","last_id":"b","has_more":true}"#);
        let empty = serde_json::to_string(&Page::<u8>::new(vec![], false)).unwrap();
        assert_eq!(empty, r#"{"object":"list","data":[],"has_more":false}"#);
    }
}
