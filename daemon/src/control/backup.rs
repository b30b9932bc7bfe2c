//! `backup`: streams a consistent copy of the metadata.

use idunno_core::metadata::State;
use idunno_shared::backup::{self, BackupInfo, PIECE_BYTES};
use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::wire::control::ControlReply;
use idunno_shared::wire::frame::Reply;
use idunno_shared::wire::refusal::Refusal;
use thiserror::Error;
use tokio::sync::mpsc;

use super::turns::Turn;
use crate::coordinator::LeaderTerm;
use crate::runtime::clock::wall_ms;
use idunno_consensus::{InitialStateError, encode_state};

/// Pieces queued for the caller; the stream waits when the queue is full.
const PIECES_QUEUED_MAX: usize = 1;

/// Streams a committed state, which is in memory until it is sent, and as long keeps its turn. The first piece is empty and is sent once this member has confirmed that it still leads:
/// encoding the rest takes a while.
pub(super) async fn send(
    leader_term: &LeaderTerm,
    founder: Option<NodeId>,
    turn: Turn,
) -> Result<mpsc::Receiver<Reply>, Refusal> {
    let (state, (term, index)) = leader_term.confirmed().await?;
    let about = BackupInfo {
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        founder,
        term,
        index,
        made_ms: wall_ms(),
        files: state.file_count(),
        jobs: state.jobs().count() as u64,
    };
    let (pieces, queued) = mpsc::channel(PIECES_QUEUED_MAX);
    tokio::spawn(async move {
        let _turn = turn;
        if pieces.send(piece(&[], None)).await.is_err() {
            return;
        }
        let encoded = tokio::task::spawn_blocking(move || encode(about, &state)).await;
        let (bytes, digest) = match encoded.map_err(EncodeError::Aborted).flatten() {
            Ok(encoded) => encoded,
            Err(error) => {
                let refusal = Refusal::internal(format!("the metadata cannot be encoded: {error}"));
                // The caller may have disconnected.
                let _ = pieces.send(Reply::Refused(refusal)).await;
                return;
            }
        };
        let last = bytes.len().div_ceil(PIECE_BYTES);
        for (number, bytes) in (1..).zip(bytes.chunks(PIECE_BYTES)) {
            if pieces.send(piece(bytes, (number == last).then_some(digest))).await.is_err() {
                return;
            }
        }
    });
    Ok(queued)
}

#[derive(Debug, Error)]
enum EncodeError {
    #[error(transparent)]
    State(#[from] InitialStateError),
    #[error("the header cannot be encoded: {0}")]
    Header(#[from] serde_json::Error),
    #[error("encoding was aborted: {0}")]
    Aborted(tokio::task::JoinError),
}

fn encode(about: BackupInfo, state: &State) -> Result<(Vec<u8>, Digest), EncodeError> {
    let state = encode_state(state.clone())?;
    let bytes = backup::encode(about, &state)?;
    let digest = Digest::of(&bytes);
    Ok((bytes, digest))
}

fn piece(bytes: &[u8], digest: Option<Digest>) -> Reply {
    Reply::Control(Box::new(ControlReply::Backup { bytes: bytes.to_vec(), digest }))
}
