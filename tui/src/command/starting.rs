//! Arguments that say what a job runs, when it gives up, and what happens at its end.

use std::num::NonZeroU64;

use clap::Args;
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{FailedMax, Reuse, Selection, StartOptions};

use super::values::{JobRef, OnEnd};

/// How a job is started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Starting {
    /// Run only the first N records or files of the dataset: at the first start
    #[arg(long, value_name = "N", conflicts_with = "sample")]
    pub limit: Option<NonZeroU64>,
    /// Run only N records or files drawn at random, the same ones each time: at the first start
    #[arg(long, value_name = "N")]
    pub sample: Option<NonZeroU64>,
    /// Take answers over from the newest earlier job with this option, over the same dataset, and run only what is new: at the
    /// first start
    #[arg(long)]
    pub only_new: bool,
    /// Pause a job once more of its queries than this have failed: a number, or a percentage such as 5%
    #[arg(long, value_name = "N|P%")]
    pub max_failed: Option<FailedMax>,
    /// Run only once another job is done; the queries are chosen now
    #[arg(long, value_name = "JOB")]
    pub after: Option<JobRef>,
    /// What happens when a job is done, paused or cancelled: the cluster tells a URL; a command runs here, with --wait
    #[arg(long, value_name = "URL|COMMAND")]
    pub on_end: Option<OnEnd>,
}

impl Starting {
    /// Takes the command that this machine is to run; a URL stays.
    pub fn take_command(&mut self) -> Option<String> {
        match self.on_end.take()? {
            OnEnd::Command(command) => Some(command),
            url @ OnEnd::Url(_) => {
                self.on_end = Some(url);
                None
            }
        }
    }

    /// What a job runs, and when it gives up. `after` is the job that [`Self::after`] names.
    pub fn options(&self, after: Option<JobId>) -> StartOptions {
        let first = self.limit.map(Selection::First);
        let selection = first.or_else(|| self.sample.map(Selection::Sample)).unwrap_or_default();
        let reuse = if self.only_new { Reuse::On } else { Reuse::Off };
        StartOptions { selection, failed_max: self.max_failed, after, reuse }
    }
}
