//! The settings of a member's own model server: which one it is, and where it reads the files that the member gives to it.

use std::path::{Path, PathBuf};

use idunno_worker::model_server::Endpoint;

use super::{ConfigError, Settings, invalid};

/// The default URL of a model server that is not run by this process.
pub const MODEL_SERVER_URL: &str = "http://127.0.0.1:8080";
/// In place of a URL: the member has no model server and runs no batches.
pub const NO_MODEL_SERVER: &str = "none";
/// What precedes the path of a Unix socket in place of a URL.
const SOCKET: &str = "unix:";
const THREADS_MAX: usize = 1024;

/// How the model server is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelServer {
    None,
    /// It runs outside this process, at this URL.
    Url(String),
    /// It runs outside this process, and listens on this Unix socket.
    Socket(PathBuf),
    /// This process runs and supervises it.
    Python {
        python: PathBuf,
        threads: usize,
    },
}

impl Settings {
    pub(super) fn model_server(&self) -> Result<ModelServer, ConfigError> {
        match &self.model_server_python {
            Some(python) => self.supervised(python),
            None => self.elsewhere(),
        }
    }

    fn elsewhere(&self) -> Result<ModelServer, ConfigError> {
        // A member with backends needs no server of its own.
        let default = if self.backend.is_empty() { MODEL_SERVER_URL } else { NO_MODEL_SERVER };
        let url = self.model_server_url.as_deref().unwrap_or(default);
        if url == NO_MODEL_SERVER {
            return Ok(ModelServer::None);
        }
        if let Some(path) = url.strip_prefix(SOCKET) {
            if !Path::new(path).is_absolute() {
                return Err(invalid("model_server_url", url, "write unix: and the socket's whole path"));
            }
            return Ok(ModelServer::Socket(PathBuf::from(path)));
        }
        if url.starts_with("https:") {
            let why = "list a server that is called by TLS as a [[backend]], with its models";
            return Err(invalid("model_server_url", url, why));
        }
        let checked = Endpoint::open(url).check();
        checked.map_err(|error| invalid("model_server_url", url, error.to_string()))?;
        Ok(ModelServer::Url(url.to_owned()))
    }

    fn supervised(&self, python: &Path) -> Result<ModelServer, ConfigError> {
        if let Some(url) = &self.model_server_url {
            let why = "model_server_python is also set: give only one of the two";
            return Err(invalid("model_server_url", url, why));
        }
        if python.components().count() > 1 && !python.exists() {
            return Err(invalid("model_server_python", python.display(), "there is no such file"));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.unwrap_or(cores);
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(invalid("threads", threads, "give 1 to 1,024"));
        }
        Ok(ModelServer::Python { python: python.to_owned(), threads })
    }

    pub(super) fn checked_model_files_dir(&self) -> Result<Option<PathBuf>, ConfigError> {
        let Some(folder) = &self.model_files_dir else { return Ok(None) };
        let wrong = |why: &str| Err(invalid("model_files_dir", folder.display(), why));
        if self.model_server_python.is_some() {
            return wrong(
                "a model server that the member starts itself reads the data directory: leave it out",
            );
        }
        if !folder.is_dir() {
            return wrong(
                "there is no such folder: make it, for the member to write to and the model server to enter",
            );
        }
        Ok(Some(folder.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;

    #[test]
    fn a_member_may_have_no_model_server() {
        let none = Settings { model_server_url: Some("none".into()), ..settings() };
        assert_eq!(none.member().unwrap().model_server, ModelServer::None);
    }

    #[test]
    fn a_member_with_backends_has_a_model_server_of_its_own_only_if_it_says_so() {
        let text = "[[backend]]\nname = 'a'\nurl = 'http://127.0.0.1:1'\nmodels = ['m']";
        let with = Settings { backend: toml::from_str::<Settings>(text).unwrap().backend, ..settings() };
        let config = with.member().unwrap();
        assert_eq!((config.model_server, config.backends.len()), (ModelServer::None, 1));
        let both = Settings { model_server_url: Some(MODEL_SERVER_URL.into()), ..with };
        assert_eq!(both.member().unwrap().model_server, ModelServer::Url(MODEL_SERVER_URL.into()));
    }

    #[test]
    fn a_model_server_of_another_user_listens_on_a_socket_and_reads_a_folder_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let url = Some(String::from("unix:/run/idunno-model-server/socket"));
        let shared = Some(folder.path().to_owned());
        let both = Settings { model_server_url: url, model_files_dir: shared, ..settings() };
        let config = both.member().unwrap();
        assert_eq!(config.model_server, ModelServer::Socket("/run/idunno-model-server/socket".into()));
        assert_eq!(config.model_files_dir.as_deref(), Some(folder.path()));

        let relative = Settings { model_server_url: Some("unix:socket".into()), ..settings() };
        let nowhere = Settings { model_files_dir: Some(folder.path().join("nowhere")), ..both.clone() };
        let python = std::env::current_exe().unwrap();
        let supervised = Settings { model_server_url: None, model_server_python: Some(python), ..both };
        for (key, broken) in
            [("model_server_url", relative), ("model_files_dir", nowhere), ("model_files_dir", supervised)]
        {
            let error = broken.member().unwrap_err().to_string();
            assert!(error.contains(&format!("'{key}'")), "{key}: {error}");
        }
    }
}
