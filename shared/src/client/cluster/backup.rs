//! Fetching a backup: one stream of pieces from one coordinator, all of it or none.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{BACK_OFF_MAX, Cluster, ClusterError};
use crate::backup::{HEADER_BYTES_MAX, STATE_BYTES_MAX};
use crate::ids::Digest;
use crate::wire::control::{ControlReply, ControlRequest};
use crate::wire::frame::{Reply, Request};
use crate::wire::refusal::{Refusal, RefusalCode};

/// Attempts to fetch a backup before giving up.
const TRIES: usize = 5;
/// The longest wait for a piece: the first comes at once, the second when the whole state is encoded.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
const BYTES_MAX: u64 = STATE_BYTES_MAX + HEADER_BYTES_MAX + 32;

/// Why one coordinator's backup did not arrive.
enum Broken {
    /// The request was refused, and would be refused again.
    Refused(Refusal),
    /// The member disconnected, or is no longer the coordinator.
    Moved(String),
}

impl Cluster {
    /// The metadata at one moment, in the file format of [`crate::backup`], held in memory: up to 2 GiB. If the
    /// coordinator changes meanwhile, the backup starts over, at most five times.
    pub async fn backup(&self) -> Result<Vec<u8>, ClusterError> {
        let mut last = String::new();
        for _ in 0..TRIES {
            let address = self.coordinator().await?;
            match self.backup_of(address).await {
                Ok(bytes) => return Ok(bytes),
                Err(Broken::Refused(refusal)) => return Err(refusal.into()),
                Err(Broken::Moved(reason)) => last = reason,
            }
            self.routes().coordinator = None;
            sleep(BACK_OFF_MAX).await;
        }
        Err(self.unreachable(last))
    }

    async fn backup_of(&self, address: std::net::SocketAddr) -> Result<Vec<u8>, Broken> {
        let moved = |error: &dyn std::fmt::Display| Broken::Moved(format!("{address}: {error}"));
        // A slow disk at the client must not delay other calls.
        let connection = self.connections().dedicated(address).await.map_err(|error| moved(&error))?;
        let pieces = connection.watch(Request::Control(ControlRequest::Backup)).await;
        let mut pieces = pieces.map_err(|error| moved(&error))?;
        let mut bytes = Vec::new();
        loop {
            let piece = timeout(PIECE_TIMEOUT, pieces.recv()).await;
            let piece = piece.map_err(|_| moved(&format!("no piece of the backup in {PIECE_TIMEOUT:?}")))?;
            let (piece, digest) = match piece {
                Some(Reply::Control(reply)) => match *reply {
                    ControlReply::Backup { bytes, digest } => (bytes, digest),
                    _ => return Err(moved(&"unexpected reply to a backup request")),
                },
                Some(Reply::Refused(refusal)) => return Err(refused(refusal)),
                Some(_) => return Err(moved(&"unexpected reply to a backup request")),
                None => return Err(moved(&"the connection ended before the backup was complete")),
            };
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > BYTES_MAX {
                let text = format!("the backup has more than {BYTES_MAX} bytes");
                return Err(Broken::Refused(Refusal::internal(text)));
            }
            match digest {
                None => {}
                Some(digest) if digest == Digest::of(&bytes) => return Ok(bytes),
                Some(_) => return Err(moved(&"the backup was damaged in transit")),
            }
        }
    }
}

fn refused(refusal: Refusal) -> Broken {
    match refusal.code {
        RefusalCode::Forbidden | RefusalCode::Unsupported | RefusalCode::Invalid | RefusalCode::Internal => {
            Broken::Refused(refusal)
        }
        _ => Broken::Moved(refusal.message),
    }
}
