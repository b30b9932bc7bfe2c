//! Recovery from the loss of a majority: reads a survivor's store offline, and makes a new store of it.
//!
//! The whole log counts as committed, as with etcd's `--force-new-cluster`: the members that knew which of its last entries
//! were acknowledged are lost. Applying an entry that was not acknowledged is allowed, because its caller never learnt the
//! outcome; losing one that was is not.
//! The new store holds a snapshot of that state and no log, so the two logs can never be compared. Its only voter has a new
//! id, which no vote was ever cast for, and its terms are above all that were led.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use idunno_core::metadata::{self, State};
use idunno_shared::ids::NodeId;
use openraft::{CommittedLeaderId, EmptyNode, Membership, StoredMembership, Vote};
use redb::{Database, ReadableDatabase};

use super::open::{builder, identify};
use super::state_machine::apply;
use crate::errors::{InitialStateError, RecoverError};
use crate::file::snapshot_rows::{RowReader, decode_state, encode_state_rows};
use crate::file::tables::{
    KEY_COMMITTED, KEY_NODE, KEY_PURGED, KEY_SNAPSHOT, KEY_VOTE, LOG, LogId, META, SNAPSHOT_CHUNKS,
    SnapshotHeader, SnapshotMeta, StoreFault, decode_row, encode_row, read_meta, read_meta_row,
};
use crate::types::Entry;

/// Terms left unused, because the lost voters may have led terms that no survivor knows of. It keeps the terms that people
/// and programs see monotonic; safety does not depend on it, because the ids are new.
const TERMS_SKIPPED: u64 = 1_000;
/// The number of the first snapshot's rows.
const GENERATION: u64 = 1;

/// The content of a survivor's store, with its whole log applied.
#[derive(Debug)]
pub struct SurvivorLog {
    pub node: NodeId,
    /// The last index that this member knew to be committed.
    pub committed: Option<u64>,
    pub voters: BTreeSet<NodeId>,
    pub initial: InitialState,
}

impl SurvivorLog {
    /// Reads the store at `path`, which must not be open elsewhere. The file is unchanged but for redb's own repair after
    /// a crash. Blocks.
    pub fn read(path: &Path) -> Result<Self, RecoverError> {
        let unreadable = |reason: String| RecoverError::Unreadable { path: PathBuf::from(path), reason };
        let database = builder().open(path).map_err(|error| unreadable(error.to_string()))?;
        let node = owner(&database).map_err(|fault| unreadable(fault.to_string()))?;
        let node = node.ok_or_else(|| unreadable(String::from("it does not name its member")))?;
        identify(&database, path, node)?;
        let (last, replayed) = replay(&database).map_err(|fault| unreadable(fault.to_string()))?;
        let Some(last) = last else { return Err(RecoverError::Empty { path: PathBuf::from(path) }) };
        let Replayed { state, membership, applied } = replayed;
        if applied != Some(last) {
            return Err(unreadable(format!("its log ends at {last}, with a gap before")));
        }
        state.check().map_err(|wrong| unreadable(format!("its metadata are inconsistent: {wrong}")))?;
        let vote: Option<Vote<u64>> =
            read_meta(&database, KEY_VOTE).map_err(|fault| unreadable(fault.to_string()))?;
        let committed: Option<LogId> =
            read_meta(&database, KEY_COMMITTED).map_err(|fault| unreadable(fault.to_string()))?;
        Ok(Self {
            node,
            committed: committed.map(|id| id.index),
            voters: membership.membership().voter_ids().map(NodeId).collect(),
            initial: InitialState {
                term: vote.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term),
                state,
                last,
            },
        })
    }
}

/// The metadata that a new cluster starts with: a survivor's, or a backup's.
#[derive(Debug)]
pub struct InitialState {
    /// The highest known term.
    pub term: u64,
    pub state: State,
    last: LogId,
}

impl InitialState {
    /// Decodes the state of a backup that was taken at this term and index of the log.
    pub fn decode(term: u64, index: u64, state: &[u8]) -> Result<Self, InitialStateError> {
        let state = decode_row::<metadata::Snapshot>(state).map(State::from);
        let state = state.map_err(|fault| InitialStateError::Codec(fault.to_string()))?;
        state.check().map_err(|violation| InitialStateError::Inconsistent(violation.to_string()))?;
        Ok(Self { term, state, last: LogId::new(CommittedLeaderId::new(term, 0), index) })
    }

    /// Term and index of the last entry. Recover the survivor whose position is highest.
    pub fn last_log(&self) -> (u64, u64) {
        (self.last.leader_id.term, self.last.index)
    }

    /// All terms of the new cluster are above this one.
    pub fn term_floor(&self) -> u64 {
        self.term.saturating_add(TERMS_SKIPPED)
    }

    /// Writes a new store at `path` with `voter` as its only voter. Durable on return. Blocks.
    pub fn write_store(self, voter: NodeId, path: &Path) -> Result<(), RecoverError> {
        let failed = |reason: String| RecoverError::Unwritable { path: PathBuf::from(path), reason };
        let database = Database::create(path).map_err(|error| failed(error.to_string()))?;
        identify(&database, path, voter)?;
        self.write(voter, &database).map_err(|fault| failed(fault.to_string()))
    }

    fn write(self, voter: NodeId, database: &Database) -> Result<(), StoreFault> {
        let vote = encode_row(&Vote::<u64>::new(self.term_floor(), voter.0))?;
        let last = encode_row(&self.last)?;
        let voters = Membership::new(vec![BTreeSet::from([voter.0])], ());
        let meta = SnapshotMeta {
            last_log_id: Some(self.last),
            last_membership: StoredMembership::new(Some(self.last), voters),
            snapshot_id: self.last.to_string(),
        };
        let header = encode_row(&SnapshotHeader { generation: GENERATION, meta })?;
        let rows = [
            (KEY_VOTE, &vote[..]),
            (KEY_COMMITTED, &last[..]),
            (KEY_PURGED, &last[..]),
            (KEY_SNAPSHOT, &header[..]),
        ];
        write_rows(database, self.state, &rows).map_err(|error| StoreFault::new("write the metadata", &error))
    }
}

fn write_rows(database: &Database, state: State, meta_rows: &[(&str, &[u8])]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut chunks = transaction.open_table(SNAPSHOT_CHUNKS)?;
        let mut number = 0;
        let encoded = encode_state_rows(state, |row| {
            let inserted = chunks.insert((GENERATION, number), row.as_slice());
            number += 1;
            inserted.map(drop).map_err(|error| StoreFault::new("write the metadata", &error))
        });
        encoded.map_err(|fault| redb::Error::Io(std::io::Error::other(fault)))?;
        let mut meta = transaction.open_table(META)?;
        for (key, row) in meta_rows {
            meta.insert(*key, *row)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Encodes the metadata as backups and snapshots hold them. Blocks.
pub fn encode_state(state: State) -> Result<Vec<u8>, InitialStateError> {
    encode_row(&metadata::Snapshot::from(state)).map_err(|fault| InitialStateError::Codec(fault.to_string()))
}

struct Replayed {
    state: State,
    membership: StoredMembership<u64, EmptyNode>,
    applied: Option<LogId>,
}

/// The last entry of the log, and the snapshot with the entries after it applied, up to the first gap.
fn replay(database: &Database) -> Result<(Option<LogId>, Replayed), StoreFault> {
    let mut replayed = match SnapshotHeader::read(database)? {
        Some(SnapshotHeader { generation, meta }) => Replayed {
            state: decode_state(&mut RowReader::open(database, generation)?)?,
            membership: meta.last_membership,
            applied: meta.last_log_id,
        },
        None => Replayed { state: State::new(), membership: StoredMembership::default(), applied: None },
    };
    let mut last = replayed.applied.max(read_meta(database, KEY_PURGED)?);
    let fault = |error: redb::Error| StoreFault::new("read the metadata log", &error);
    let behind = replayed.applied.map_or(Bound::Unbounded, |id| Bound::Excluded(id.index));
    let rows = || -> Result<_, redb::Error> {
        Ok(database.begin_read()?.open_table(LOG)?.range::<u64>((behind, Bound::Unbounded))?)
    };
    for row in rows().map_err(fault)? {
        let (_, value) = row.map_err(|error| fault(error.into()))?;
        let entry: Entry = decode_row(value.value())?;
        last = last.max(Some(entry.log_id));
        if entry.log_id.index == replayed.applied.map_or(0, |id| id.index + 1) {
            replayed.applied = Some(entry.log_id);
            apply(&mut replayed.state, &mut replayed.membership, entry);
        }
    }
    Ok((last, replayed))
}

fn owner(database: &Database) -> Result<Option<NodeId>, StoreFault> {
    let row = read_meta_row(database, KEY_NODE)
        .map_err(|error| StoreFault::new("read the metadata store", &error))?;
    Ok(row.and_then(|bytes| bytes.try_into().ok()).map(|bytes| NodeId(u64::from_be_bytes(bytes))))
}
