//! A job's dead letters, read page by page.

use crate::client::cluster::{Cluster, ClusterError};
use crate::ids::JobId;
use crate::wire::control::{ControlReply, ControlRequest, DeadLetter, ITEMS_PER_REQUEST_MAX};
use crate::wire::refusal::Refusal;

/// All dead letters of a job, in query order.
pub async fn dead_letters(cluster: &Cluster, job: JobId) -> Result<Vec<DeadLetter>, ClusterError> {
    let limit = u32::try_from(ITEMS_PER_REQUEST_MAX).unwrap_or(u32::MAX);
    let mut all: Vec<DeadLetter> = Vec::new();
    loop {
        let from = all.last().map_or(0, |dead_letter| dead_letter.index + 1);
        let reply = cluster.control(ControlRequest::DeadLetters { job, from, limit }).await?;
        let ControlReply::DeadLetters { dead_letters: page, more } = reply else {
            let text = "unexpected reply of the coordinator to a request for dead letters";
            return Err(Refusal::internal(text).into());
        };
        let is_empty = page.is_empty();
        all.extend(page);
        if !more || is_empty {
            return Ok(all);
        }
    }
}
