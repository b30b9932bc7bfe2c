//! What is looked into: one job, member or file, in parts that the right and left keys turn.

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::names::FileName;
use idunno_shared::wire::control::ClusterView;

use super::msg::{Facts, Question};
use super::table::Table;

/// Parts are asked for again at most this often.
const PERIOD_MS: u64 = 1000;

/// What is looked into: bound by its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A job.
    Job(JobId),
    /// A member: its id and name.
    Member(NodeId, String),
    /// A file.
    File(FileName),
}

impl Target {
    /// Its parts.
    pub const fn parts(&self) -> &'static [&'static str] {
        match self {
            Self::Job(_) => &["VMs", "batches", "dead letters", "results"],
            Self::Member(..) => &["files", "models", "batches"],
            Self::File(_) => &["extents", "versions", "preview"],
        }
    }

    /// Its name.
    pub fn title(&self) -> String {
        match self {
            Self::Job(id) => id.to_string(),
            Self::Member(_, name) => name.clone(),
            Self::File(name) => crate::tail::printable(name.as_str()),
        }
    }

    /// What must be asked for a part; nothing if the view has it.
    fn question(&self, part: usize) -> Option<Question> {
        Some(match (self, part) {
            (Self::Job(id), 1) => Question::Leases { job: Some(*id), worker: None },
            (Self::Job(id), 2) => Question::DeadLetters(*id),
            (Self::Job(id), 3) => Question::Results(*id),
            (Self::Member(id, _), 0) => Question::Stored(*id),
            (Self::Member(id, _), 2) => Question::Leases { job: None, worker: Some(*id) },
            (Self::File(name), 0 | 1) => Question::Versions(name.clone()),
            (Self::File(name), 2) => Question::Preview(name.clone()),
            _ => return None,
        })
    }
}

/// What is looked into, and how.
#[derive(Clone, Debug)]
pub struct Detail {
    /// What.
    pub target: Target,
    /// Which part.
    pub part: usize,
    /// Its rows.
    pub table: Table,
    /// The newest answer.
    pub facts: Option<Facts>,
    /// What went wrong at the last question.
    pub error: Option<String>,
    /// The question under way.
    pub asked: Option<Question>,
    /// Counts answers and parts.
    pub generation: u64,
    asked_ms: u64,
    revision: Option<u64>,
}

impl Detail {
    /// Looks into a target.
    pub fn of(target: Target) -> Self {
        let table = Table::default();
        Self {
            target,
            part: 0,
            table,
            facts: None,
            error: None,
            asked: None,
            generation: 0,
            asked_ms: 0,
            revision: None,
        }
    }

    /// Turns to the next part, or the one before.
    pub fn turn(&mut self, on: bool) {
        let parts = self.target.parts().len();
        self.part = if on { self.part + 1 } else { self.part + parts - 1 } % parts;
        (self.facts, self.error, self.asked, self.revision) = (None, None, None, None);
        (self.table, self.generation) = (Table::default(), self.generation + 1);
    }

    /// Takes an answer, unless its question was given up meanwhile.
    pub fn answer(&mut self, question: &Question, result: Result<Facts, String>) -> bool {
        if self.asked.as_ref() != Some(question) {
            return false;
        }
        self.asked = None;
        match result {
            Ok(facts) => {
                if self.facts.as_ref() != Some(&facts) || self.error.is_some() {
                    (self.facts, self.error) = (Some(facts), None);
                    self.generation += 1;
                }
            }
            Err(error) => self.error = Some(error),
        }
        true
    }

    /// What is to be asked now, if what is shown may be old.
    pub fn ask(&mut self, view: &ClusterView, now_ms: u64) -> Option<Question> {
        let question = self.target.question(self.part)?;
        let aged = now_ms.saturating_sub(self.asked_ms) >= PERIOD_MS;
        // A preview's bytes never change; they are asked for once.
        let old = match (&question, self.revision) {
            (_, None) => true,
            (Question::Preview(_), Some(_)) => self.error.is_some() && aged,
            // Batches come and go without the metadata.
            (Question::Leases { .. }, Some(_)) => aged,
            (_, Some(revision)) => aged && (revision != view.revision || self.error.is_some()),
        };
        if self.asked.is_some() || !old {
            return None;
        }
        self.asked = Some(question.clone());
        (self.asked_ms, self.revision) = (now_ms, Some(view.revision));
        Some(question)
    }
}
