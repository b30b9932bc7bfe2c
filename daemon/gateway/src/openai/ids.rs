//! Ids of files and batches, and the files of the store that they stand for.
//!
//! An id begins with the time at which it was made, counted down, so that the store lists the newest first, which is the order of the API.
//! Everything of a key lies below the folder in which it may change files, under [`FOLDER`].

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use idunno_shared::names::{FileName, NameError};

use super::error::{ApiError, ApiResult};

/// The folder below a key's own.
const FOLDER: &str = "openai/";
const DIGITS: usize = 24;
/// Bits of the time in milliseconds.
const TIME_BITS: u32 = 48;

/// The time now, in milliseconds since the epoch.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// What an id is made of, as 24 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new one.
    pub fn new() -> ApiResult<Self> {
        let random = getrandom::u64().map_err(|_| ApiError::internal("the machine has no randomness"))?;
        Ok(Self::of(now_ms(), random))
    }

    fn of(at_ms: u64, random: u64) -> Self {
        let countdown = ((1 << TIME_BITS) - 1) - (at_ms & ((1 << TIME_BITS) - 1));
        Self(format!("{countdown:012x}{:012x}", random & ((1 << TIME_BITS) - 1)))
    }

    fn parse(text: &str) -> Option<Self> {
        let is_token =
            text.len() == DIGITS && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        is_token.then(|| Self(text.to_owned()))
    }

    /// When it was made, in milliseconds since the epoch.
    pub fn created_ms(&self) -> u64 {
        let countdown = u64::from_str_radix(&self.0[..DIGITS / 2], 16).unwrap_or_default();
        ((1 << TIME_BITS) - 1) - countdown
    }
}

/// The id of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchId(pub Token);

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch_{}", self.0.0)
    }
}

impl FromStr for BatchId {
    type Err = ApiError;

    fn from_str(text: &str) -> ApiResult<Self> {
        let token = text.strip_prefix("batch_").and_then(Token::parse);
        token.map(Self).ok_or_else(|| no_batch(text))
    }
}

/// There is no such batch.
pub fn no_batch(id: &str) -> ApiError {
    ApiError::not_found(format!("No batch found with id '{}'.", shortened(id)))
}

/// Which rows of a batch a file shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The answers.
    Output,
    /// The lines that failed.
    Errors,
}

/// The id of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileId {
    /// A file that a program put there.
    Uploaded(Token),
    /// Rows of a batch.
    Result(BatchId, Part),
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uploaded(token) => write!(f, "file-{}", token.0),
            Self::Result(batch, Part::Output) => write!(f, "file-{}-output", batch.0.0),
            Self::Result(batch, Part::Errors) => write!(f, "file-{}-errors", batch.0.0),
        }
    }
}

impl FromStr for FileId {
    type Err = ApiError;

    fn from_str(text: &str) -> ApiResult<Self> {
        let parse = || {
            let rest = text.strip_prefix("file-")?;
            let result = |token: &str, part| Some(Self::Result(BatchId(Token::parse(token)?), part));
            match rest.split_once('-') {
                None => Token::parse(rest).map(Self::Uploaded),
                Some((token, "output")) => result(token, Part::Output),
                Some((token, "errors")) => result(token, Part::Errors),
                Some(_) => None,
            }
        };
        parse().ok_or_else(|| no_file(text))
    }
}

/// There is no such file.
pub fn no_file(id: &str) -> ApiError {
    ApiError::not_found(format!("No such File object: {}", shortened(id)))
}

fn shortened(id: &str) -> String {
    id.chars().take(64).collect()
}

/// The folder of a key.
#[derive(Clone, Debug)]
pub struct Home(String);

impl Home {
    /// Below the folder in which the key may change files, whose name ends with a slash.
    pub fn new(own: &str) -> Self {
        Self(format!("{own}{FOLDER}"))
    }

    fn name(&self, rest: &str) -> ApiResult<FileName> {
        let name = format!("{}{rest}", self.0).parse();
        name.map_err(|wrong: NameError| ApiError::internal(wrong.to_string()))
    }

    /// What the names of uploaded files begin with.
    pub fn files(&self) -> String {
        format!("{}files/", self.0)
    }

    /// An uploaded file.
    pub fn file(&self, token: &Token) -> ApiResult<FileName> {
        self.name(&format!("files/file-{}.jsonl", token.0))
    }

    /// What the names of batches' records begin with.
    pub fn batches(&self) -> String {
        format!("{}batches/", self.0)
    }

    /// A batch's record.
    pub fn batch(&self, id: &BatchId) -> ApiResult<FileName> {
        self.name(&format!("batches/{id}.json"))
    }

    /// The inputs of a batch, where they are not its file as it stands.
    pub fn inputs(&self, id: &BatchId) -> ApiResult<FileName> {
        self.name(&format!("inputs/{id}.jsonl"))
    }

    /// What tells that a request to create a batch comes again.
    pub fn creation(&self, digest: &str) -> ApiResult<FileName> {
        self.name(&format!("creations/{digest}"))
    }

    /// The id of an uploaded file, of its name in the store.
    pub fn file_of(&self, name: &FileName) -> Option<Token> {
        let rest = name.as_str().strip_prefix(&self.files())?;
        Token::parse(rest.strip_prefix("file-")?.strip_suffix(".jsonl")?)
    }

    /// The id of a batch, of its record's name in the store.
    pub fn batch_of(&self, name: &FileName) -> Option<BatchId> {
        name.as_str().strip_prefix(&self.batches())?.strip_suffix(".json")?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written_and_the_newest_sorts_first() {
        let (old, new) = (Token::of(1_790_000_000_000, 7), Token::of(1_790_000_000_001, u64::MAX));
        assert_eq!((old.created_ms(), new.created_ms()), (1_790_000_000_000, 1_790_000_000_001));
        let batches = [BatchId(new.clone()), BatchId(old.clone())].map(|id| id.to_string());
        assert!(batches.is_sorted());
        assert_eq!(batches[1].parse::<BatchId>().unwrap(), BatchId(old.clone()));
        for id in [
            FileId::Uploaded(old.clone()),
            FileId::Result(BatchId(old.clone()), Part::Output),
            FileId::Result(BatchId(old), Part::Errors),
        ] {
            assert_eq!(id.to_string().parse::<FileId>().unwrap(), id);
        }
        for wrong in ["", "file-", "file-abc", "../x", "file-0123456789abcdef01234567-other", "batch_x"] {
            assert_eq!(wrong.parse::<FileId>().unwrap_err().status, 404, "{wrong}");
            assert_eq!(wrong.parse::<BatchId>().unwrap_err().status, 404, "{wrong}");
        }
    }

    #[test]
    fn names_in_the_store_are_below_the_key_and_lead_back_to_ids() {
        let home = Home::new("users/anna/");
        let token = Token::of(5, 6);
        let id = BatchId(token.clone());
        assert_eq!(home.file_of(&home.file(&token).unwrap()), Some(token));
        assert_eq!(home.batch_of(&home.batch(&id).unwrap()), Some(id.clone()));
        assert_eq!(home.file_of(&home.batch(&id).unwrap()), None);
        assert!(home.inputs(&id).unwrap().as_str().starts_with("users/anna/openai/inputs/batch_"));
    }
}
