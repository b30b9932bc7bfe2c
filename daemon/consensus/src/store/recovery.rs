//! The store of a member whose majority is lost, read as it lies, and a new store made of it.
//!
//! The whole log counts as committed, as with etcd's `--force-new-cluster`: who could say what of its end was acknowledged
//! is gone. An entry that was not acknowledged is a change whose outcome its caller never learnt, which may happen late;
//! one that was must not be lost.
//! The new store is a snapshot of that state and no log, so that nothing of the old log can ever be compared with it. Its
//! only voter has an id that nobody has voted for, in terms that nobody has led.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use idunno_core::metadata::{self, State};
use idunno_shared::ids::NodeId;
use openraft::{CommittedLeaderId, EmptyNode, Membership, StoredMembership, Vote};
use redb::{Database, ReadableDatabase};

use super::machine::apply;
use super::snapshot::Stored;
use super::{
    KEY_COMMITTED, KEY_NODE, KEY_PURGED, KEY_SNAPSHOT, KEY_VOTE, LOG, META, PAGE_CACHE_BYTES, PIECES,
    StoreFault, decode_row, encode_row, identify, read_meta, snapshot,
};
use crate::config::{Entry, LogId, SNAPSHOT_PIECE_BYTES, SnapshotMeta};
use crate::errors::RecoverError;

/// The lost voters may have led terms of which no survivor has heard; the new term is to be above those too, for people
/// and programs that remember them. Nothing else rests on it: the ids are new.
const TERMS_SKIPPED: u64 = 1_000;

/// What a survivor's store holds, its whole log applied.
#[derive(Debug)]
pub struct Survivor {
    /// Whose store it is.
    pub node: NodeId,
    /// Up to where it knew that the log was committed.
    pub committed: Option<u64>,
    /// Who voted last.
    pub voters: BTreeSet<NodeId>,
    /// What a new cluster starts from.
    pub origin: Origin,
}

impl Survivor {
    /// Reads the store at `path`, which nobody may have open. Blocks. The only change to the file is what redb repairs
    /// when the process was killed.
    pub fn read(path: &Path) -> Result<Self, RecoverError> {
        let unreadable = |reason: String| RecoverError::Unreadable { path: PathBuf::from(path), reason };
        let database = redb::Builder::new().set_cache_size(PAGE_CACHE_BYTES).open(path);
        let database = database.map_err(|error| unreadable(error.to_string()))?;
        let node = owner(&database).map_err(|fault| unreadable(fault.to_string()))?;
        let node = node.ok_or_else(|| unreadable(String::from("it names no member")))?;
        identify(&database, path, node)?;
        let (last, replayed) = replay(&database).map_err(|fault| unreadable(fault.to_string()))?;
        let Some(last) = last else { return Err(RecoverError::Empty { path: PathBuf::from(path) }) };
        let Replayed { state, membership, applied } = replayed;
        if applied != Some(last) {
            return Err(unreadable(format!("its log ends at {last}, and has a hole before that")));
        }
        state.check().map_err(|wrong| unreadable(format!("its metadata contradict themselves: {wrong}")))?;
        let vote: Option<Vote<u64>> =
            read_meta(&database, KEY_VOTE).map_err(|fault| unreadable(fault.to_string()))?;
        let committed: Option<LogId> =
            read_meta(&database, KEY_COMMITTED).map_err(|fault| unreadable(fault.to_string()))?;
        Ok(Self {
            node,
            committed: committed.map(|id| id.index),
            voters: membership.membership().voter_ids().map(NodeId).collect(),
            origin: Origin {
                term: vote.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term),
                state,
                last,
            },
        })
    }
}

/// What a new cluster starts from: a survivor's metadata, or those of a backup.
#[derive(Debug)]
pub struct Origin {
    /// The highest term that it knows of.
    pub term: u64,
    /// The metadata.
    pub state: State,
    last: LogId,
}

impl Origin {
    /// The encoded state of a backup, which holds all up to that term and index; else why it is none.
    pub fn decode((term, index): (u64, u64), state: &[u8]) -> Result<Self, String> {
        let state = decode_row::<metadata::Snapshot>(state).map(State::from);
        let state = state.map_err(|fault| fault.to_string())?;
        state.check().map_err(|wrong| format!("its metadata contradict themselves: {wrong}"))?;
        Ok(Self { term, state, last: LogId::new(CommittedLeaderId::new(term, 0), index) })
    }

    /// Term and index of the last entry. The survivor with the highest is to be recovered.
    pub fn last_log(&self) -> (u64, u64) {
        (self.last.leader_id.term, self.last.index)
    }

    /// The term above which the new cluster's terms are.
    pub fn new_term(&self) -> u64 {
        self.term.saturating_add(TERMS_SKIPPED)
    }

    /// Writes a store at `path`, where nothing may be, whose only voter is `founder`. Durable on return. Blocks.
    pub fn found(self, founder: NodeId, path: &Path) -> Result<(), RecoverError> {
        let failed = |reason: String| RecoverError::Unwritable { path: PathBuf::from(path), reason };
        let database = Database::create(path).map_err(|error| failed(error.to_string()))?;
        identify(&database, path, founder)?;
        self.write(founder, &database).map_err(|fault| failed(fault.to_string()))
    }

    fn write(self, founder: NodeId, database: &Database) -> Result<(), StoreFault> {
        let vote = encode_row(&Vote::<u64>::new(self.new_term(), founder.0))?;
        let last = encode_row(&self.last)?;
        let voters = Membership::new(vec![BTreeSet::from([founder.0])], ());
        let meta = SnapshotMeta {
            last_log_id: Some(self.last),
            last_membership: StoredMembership::new(Some(self.last), voters),
            snapshot_id: self.last.to_string(),
        };
        let header = encode_row(&(1_u64, meta))?;
        let state = encode_row(&metadata::Snapshot::from(self.state))?;
        let transact = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut pieces = transaction.open_table(PIECES)?;
                for (number, piece) in (0..).zip(state.chunks(SNAPSHOT_PIECE_BYTES)) {
                    pieces.insert((1, number), piece)?;
                }
                let mut meta = transaction.open_table(META)?;
                meta.insert(KEY_VOTE, vote.as_slice())?;
                meta.insert(KEY_COMMITTED, last.as_slice())?;
                meta.insert(KEY_PURGED, last.as_slice())?;
                meta.insert(KEY_SNAPSHOT, header.as_slice())?;
            }
            transaction.commit()?;
            Ok(())
        };
        transact().map_err(|error| StoreFault::new("write the metadata", &error))
    }
}

/// The metadata as a backup and a snapshot hold them. Blocks.
pub fn encode_state(state: State) -> Result<Vec<u8>, String> {
    encode_row(&metadata::Snapshot::from(state)).map_err(|fault| fault.to_string())
}

struct Replayed {
    state: State,
    membership: StoredMembership<u64, EmptyNode>,
    applied: Option<LogId>,
}

/// The last entry, and the snapshot with all entries behind it applied, up to the first that is missing.
fn replay(database: &Database) -> Result<(Option<LogId>, Replayed), StoreFault> {
    let mut replayed = match snapshot::read(database)? {
        Some(Stored { meta, bytes, .. }) => Replayed {
            state: decode_row::<metadata::Snapshot>(&bytes)?.into(),
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
    let get = || -> Result<Option<NodeId>, redb::Error> {
        let meta = database.begin_read()?.open_table(META)?;
        let node =
            meta.get(KEY_NODE)?.and_then(|value| value.value().try_into().ok().map(u64::from_be_bytes));
        Ok(node.map(NodeId))
    };
    get().map_err(|error| StoreFault::new("read the metadata store", &error))
}
