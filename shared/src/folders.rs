//! The folders of the store in which the cluster keeps files of its own. Nobody is given a prefix there.

use crate::names::FileName;

/// The artefact of each model: what its training made, or its package.
pub const MODELS: &str = "models";
/// The report of each model's last training.
pub const TRAINING: &str = "training";
/// The results of finished jobs.
pub const RESULTS: &str = "results";
/// Buckets without files, and parts of uploads, of gateways. Lists leave it out.
pub const S3: &str = ".s3/";
/// The part of [`S3`] for uploads: whoever may change a file may change what follows its name here.
pub const S3_UPLOADS: &str = ".s3/uploads/";

/// The folder of the cluster that a name belongs to or is.
pub fn of_cluster(name: &FileName) -> Option<&'static str> {
    let first = name.as_str().split('/').next();
    [MODELS, TRAINING, RESULTS, S3.trim_end_matches('/')].into_iter().find(|folder| first == Some(folder))
}
