//! Changes in a few words, as logs tell them. Bound: [`NAMES_MAX`] names of a list, whatever its length.

use std::fmt::{self, Display};

use super::control::Change;

/// Names of a list that are told.
const NAMES_MAX: usize = 3;

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommitFiles { upload, files } => {
                let bytes: u64 = files.iter().map(|file| file.size).fold(0, u64::saturating_add);
                write!(f, "put ({upload}, {bytes} bytes):")?;
                names(f, files.iter().map(|file| &file.name))
            }
            Self::Delete { name } => write!(f, "delete {name}"),
            Self::TrainStart { models, training } => {
                write!(f, "train-start ({training}):")?;
                names(f, models.iter())
            }
            Self::TrainStop { models } => {
                f.write_str("train-stop:")?;
                names(f, models.iter())
            }
            Self::AddJob { model, dataset, batch_size, options } => {
                write!(f, "add-job {model} on {dataset}, batches of {batch_size}")?;
                options.name.as_ref().map_or(Ok(()), |name| write!(f, ", named {name}"))
            }
            Self::SetBatchSize { job, batch_size } => write!(f, "set-batch-size {job} {batch_size}"),
            Self::SetWeight { job, weight } => write!(f, "set-weight {job} {weight}"),
            Self::SetPolicy(policy) => write!(f, "set-policy {policy:?}"),
            Self::StartJob { job } => write!(f, "start-job {job}"),
            Self::StopJob { job } => write!(f, "stop-job {job}"),
            Self::CancelJob { job } => write!(f, "cancel-job {job}"),
            Self::DeleteJob { job } => write!(f, "delete-job {job}"),
            Self::RetryDeadLetters { job, queries } => {
                write!(f, "dead-letters retry {job}:")?;
                names(f, queries.iter())
            }
            Self::DropDeadLetters { job, queries } => {
                write!(f, "dead-letters drop {job}:")?;
                names(f, queries.iter())
            }
        }
    }
}

/// A list's first names, and how many more there are. A list without any stands for all.
fn names<T: Display>(f: &mut fmt::Formatter<'_>, all: impl ExactSizeIterator<Item = T>) -> fmt::Result {
    let more = all.len().saturating_sub(NAMES_MAX);
    if all.len() == 0 {
        return f.write_str(" all");
    }
    for (index, name) in all.take(NAMES_MAX).enumerate() {
        write!(f, "{} {name}", if index == 0 { "" } else { "," })?;
    }
    if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::control::NewFile;
    use super::*;
    use crate::ids::{Digest, JobId, Term, UploadId};

    #[test]
    fn a_thousand_files_are_told_in_a_line() {
        let file = |number: u64| NewFile {
            name: format!("a/{number}").parse().unwrap(),
            size: 10,
            digest: Digest::of(b""),
            extents: Vec::new(),
        };
        let upload = UploadId { term: Term(5), number: 17 };
        let put = Change::CommitFiles { upload, files: (0..1_000).map(file).collect() };
        assert_eq!(put.to_string(), "put (upload-5-17, 10000 bytes): a/0, a/1, a/2 and 997 more");
        let drop = Change::DropDeadLetters { job: JobId(3), queries: Vec::new() };
        assert_eq!(drop.to_string(), "dead-letters drop job-3: all");
    }
}
