//! A cluster, as Python sees it: commands of the command line's grammar, and what that has no command for.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use idunno_console::answer::{Exit, Failure};
use idunno_console::command::{Arguments, JobRef, Verb};
use idunno_console::execute;
use idunno_console::session::{Reporter, Session};
use idunno_console::settings::{Settings, directory};
use idunno_shared::client::files::{NoProgress, Progress, PutItem, PutOptions};
use idunno_shared::names::FileName;
use idunno_shared::security::Role;
use idunno_shared::wire::control::{Change, Changed};
use pyo3::prelude::*;

use crate::errors::raise;
use crate::operation::{Operation, Value};
use crate::runtime::{self, PerProcess};
use crate::stream::Stream;
use crate::{events, rows};

/// Names in one deletion.
const DELETE_NAMES_MAX: usize = 1_000;

/// Progress is shown in Python.
struct Silent;

impl Reporter for Silent {
    fn start(&self, _label: &str, _files: u64, _bytes: u64) -> Box<dyn Progress> {
        Box::new(NoProgress)
    }
}

/// A cluster. Safe to use from several threads, and in forked children.
#[pyclass(frozen, module = "idunno._native")]
pub(crate) struct Client {
    /// The options that say which cluster, as on a command line.
    options: Vec<OsString>,
    session: Mutex<PerProcess<Session>>,
}

impl Client {
    /// The session of this process.
    fn session(&self) -> PyResult<Session> {
        let opened = {
            let mut current = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(session) = current.get() {
                return Ok(session.clone());
            }
            open(&self.options).inspect(|session| *current = PerProcess::new(session.clone()))
        };
        opened.map_err(|failure| raise(&failure))
    }
}

#[pymethods]
impl Client {
    /// A client of the cluster that these options of the command line name. Nothing is asked of it yet.
    #[new]
    fn new(options: Vec<OsString>) -> PyResult<Self> {
        let session = open(&options).map_err(|failure| raise(&failure))?;
        Ok(Self { options, session: Mutex::new(PerProcess::new(session)) })
    }

    /// The cluster's name for people, the role that the identity grants, and the folders that it may change, if not all.
    fn describe(&self) -> PyResult<(String, String, Vec<String>)> {
        let session = self.session()?;
        let submitter = session.grant.iter().filter(|grant| grant.role == Role::Submitter);
        let prefixes = submitter.flat_map(|grant| &grant.prefixes);
        Ok((session.label(), session.role.to_string(), prefixes.map(ToString::to_string).collect()))
    }

    /// Runs a command, given as its words. Gives its document and why that is incomplete.
    fn run(&self, words: Vec<OsString>) -> PyResult<Operation> {
        let session = self.session()?;
        let verb = verb(words).map_err(|failure| raise(&failure))?;
        Operation::spawn(async move {
            if session.is_local() {
                // A local cluster may have been started again at other addresses.
                session.refresh();
            }
            execute::run(&session, verb).await.map(Value::from)
        })
    }

    /// Stores local files under names, many at once.
    fn put_files(&self, items: Vec<(String, PathBuf)>) -> PyResult<Operation> {
        let session = self.session()?;
        let items = items.into_iter().map(|(name, path)| Ok(PutItem { name: parsed(&name)?, path }));
        let items: Vec<PutItem> = items.collect::<Result<_, Failure>>().map_err(|failure| raise(&failure))?;
        Operation::spawn(async move {
            if session.read_only {
                return Err(read_only());
            }
            session.files().put_files(items, PutOptions::default(), &NoProgress).await?;
            Ok(Value::Nothing)
        })
    }

    /// Deletes files with all their versions; those that do not exist are left out.
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 makes owned values of Python's")]
    fn delete_files(&self, names: Vec<String>) -> PyResult<Operation> {
        let session = self.session()?;
        let names: Vec<FileName> = names
            .iter()
            .map(|name| parsed(name))
            .collect::<Result<_, Failure>>()
            .map_err(|failure| raise(&failure))?;
        Operation::spawn(async move {
            if session.read_only {
                return Err(read_only());
            }
            for part in names.chunks(DELETE_NAMES_MAX) {
                match session.cluster().change(Change::DeleteFiles { names: part.to_vec() }).await? {
                    Changed::Deleted { .. } | Changed::Done => {}
                    _ => return Err(Failure::unexpected()),
                }
            }
            Ok(Value::Nothing)
        })
    }

    /// The rows of a job while it runs.
    fn rows(&self, job: &str, only_failed: bool) -> PyResult<Stream> {
        let session = self.session()?;
        let job: JobRef = parsed(job).map_err(|failure| raise(&failure))?;
        Stream::spawn(|sink| rows::read(session, job, only_failed, sink))
    }

    /// What happens in the cluster from now on. The first chunk is empty, and given once the cluster has answered.
    fn events(&self) -> PyResult<Stream> {
        let session = self.session()?;
        Stream::spawn(|sink| events::read(session, sink))
    }
}

/// Opens a session as the command line does for a command.
fn open(options: &[OsString]) -> Result<Session, Failure> {
    // Connections belong to a runtime.
    let runtime = runtime::handle()?;
    let _entered = runtime.enter();
    let settings = Settings::load(&directory(|name| std::env::var_os(name)));
    settings.check()?;
    let words: Vec<OsString> =
        std::iter::once("idunno".into()).chain(options.iter().cloned()).chain(["info".into()]).collect();
    let arguments = Arguments::read(&words).map_err(|error| usage(&error))?;
    let global = settings.resolve(arguments.global)?;
    Session::new(&global, Arc::new(Silent))
}

fn verb(words: Vec<OsString>) -> Result<Verb, Failure> {
    let words: Vec<OsString> = std::iter::once("idunno".into()).chain(words).collect();
    let arguments = Arguments::read(&words).map_err(|error| usage(&error))?;
    arguments.verb.ok_or_else(|| Failure::new(Exit::Usage, "there is no command"))
}

/// What is wrong with the words, without where a shell finds help.
fn usage(error: &impl ToString) -> Failure {
    let text = error.to_string();
    let text = text.split("\n\n").next().unwrap_or_default();
    Failure::new(Exit::Usage, text.trim_start_matches("error: ").trim_end())
}

fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error: T::Err| Failure::new(Exit::Usage, format!("'{text}': {error}")))
}

fn read_only() -> Failure {
    Failure::new(Exit::Refused, "refused: this client may not change the cluster")
}
