//! `[[backend]]`: the model servers of others, as the configuration file lists them.
//!
//! Invariants: a model is listed by one backend; no value of a header is in the configuration, which others may read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use idunno_shared::names::ModelName;
use idunno_shared::wire::resources::SHARED_BACKENDS_MAX;
use idunno_worker::model_server::{Endpoint, Header, ValueSource};
use idunno_worker::models::MODELS_MAX;
use idunno_worker::supervisor::Backend;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::{ConfigError, invalid};

const NAME_BYTES_MAX: usize = 64;
const BACKENDS_MAX: usize = SHARED_BACKENDS_MAX;
/// What a shared backend takes unless its configuration says so: two members, each with a batch that runs and the next.
const IN_FLIGHT: u16 = 4;
const IN_FLIGHT_MAX: u16 = 1024;
/// The only protocol that a worker speaks itself.
const PROTOCOL: &str = "open-inference";

/// What stands in the reference of all settings: the flags' documentation does not have it.
pub(super) const REFERENCE: &str = r#"
# Model servers of others, which answer for the models that they list. Only in this file, at its end, once for each server
# [[backend]]
# name = "triton"
# url = "https://triton.example.org:8000"
# protocol = "open-inference"
# models = ["resnet50", "bert"]
# ca_file = "/etc/idunno/triton-ca.pem"
# token = { file = "/etc/idunno/triton.token" }
# shared = true
# in_flight = 4
# headers = { "x-api-key" = { file = "/etc/idunno/triton.key" }, "x-team" = { env = "TEAM" } }
"#;

/// A backend as given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendSettings {
    name: String,
    url: String,
    protocol: Option<String>,
    #[serde(default)]
    models: Vec<String>,
    ca_file: Option<PathBuf>,
    token: Option<ValueSettings>,
    #[serde(default)]
    headers: BTreeMap<String, ValueSettings>,
    #[serde(default)]
    shared: bool,
    in_flight: Option<u16>,
}

/// Where the value of a header is. Whatever else is written there may be the value itself: it is refused, and not kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum ValueSettings {
    Source(SourceSettings),
    Other(IgnoredAny),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SourceSettings {
    File(PathBuf),
    Env(String),
}

/// Checks all backends together: their names differ, and so do their models.
pub(super) fn checked(settings: &[BackendSettings]) -> Result<Vec<Backend>, ConfigError> {
    if settings.len() > BACKENDS_MAX {
        return Err(invalid("backend", settings.len(), format!("list at most {BACKENDS_MAX}")));
    }
    let mut backends: Vec<Backend> = Vec::new();
    for given in settings {
        let backend = given.checked()?;
        if backends.iter().any(|other| other.name == backend.name) {
            return Err(invalid("backend", &backend.name, "another one has this name"));
        }
        for other in &backends {
            if let Some(model) = backend.models.intersection(&other.models).next() {
                let why =
                    format!("model {model} is also backend {}'s: only one may answer for it", other.name);
                return Err(invalid("backend", &backend.name, why));
            }
        }
        backends.push(backend);
    }
    Ok(backends)
}

impl BackendSettings {
    fn checked(&self) -> Result<Backend, ConfigError> {
        let wrong = |why: String| invalid("backend", &self.name, why);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.bytes().all(is_plain) {
            return Err(wrong(format!(
                "a name has 1 to {NAME_BYTES_MAX} letters, digits, dots, hyphens and underscores"
            )));
        }
        match self.protocol.as_deref() {
            None | Some(PROTOCOL) => {}
            Some("openai") => {
                let why = "a server that speaks OpenAI's API is a package with a table [openai]: see docs/models.md";
                return Err(wrong(why.to_owned()));
            }
            Some(other) => return Err(wrong(format!("its protocol is '{other}', and must be '{PROTOCOL}'"))),
        }
        let endpoint = self.endpoint()?;
        endpoint.check().map_err(|error| wrong(error.to_string()))?;
        let (models, shared_in_flight) = (self.checked_models()?, self.checked_in_flight()?);
        Ok(Backend { name: self.name.clone(), endpoint, models, shared_in_flight })
    }

    /// How many batches the backend takes of all members together, if they share it.
    fn checked_in_flight(&self) -> Result<Option<u16>, ConfigError> {
        let wrong = |why: String| Err(invalid("backend", &self.name, why));
        match (self.shared, self.in_flight) {
            (false, Some(_)) => wrong("'in_flight' is of a backend with shared = true".to_owned()),
            (false, None) => Ok(None),
            (true, in_flight) => match in_flight.unwrap_or(IN_FLIGHT) {
                in_flight @ 1..=IN_FLIGHT_MAX => Ok(Some(in_flight)),
                _ => wrong(format!("'in_flight' must be 1 to {IN_FLIGHT_MAX}")),
            },
        }
    }

    fn checked_models(&self) -> Result<BTreeSet<ModelName>, ConfigError> {
        let wrong = |why: String| invalid("backend", &self.name, why);
        if self.models.is_empty() || self.models.len() > MODELS_MAX {
            return Err(wrong(format!("list 1 to {MODELS_MAX} models that it answers for, in 'models'")));
        }
        self.models
            .iter()
            .map(|name| name.parse::<ModelName>().map_err(|error| wrong(error.to_string())))
            .collect()
    }

    fn endpoint(&self) -> Result<Endpoint, ConfigError> {
        let source = |name: &str, value: &ValueSettings| match value {
            ValueSettings::Source(SourceSettings::File(path)) => Ok(ValueSource::File(path.clone())),
            ValueSettings::Source(SourceSettings::Env(variable)) => {
                Ok(ValueSource::Variable(variable.clone()))
            }
            ValueSettings::Other(IgnoredAny) => {
                let why = format!(
                    "'{name}' must name where its value is, {{ file = \"PATH\" }} or {{ env = \"VARIABLE\" }}, and not be it"
                );
                Err(invalid("backend", &self.name, why))
            }
        };
        let mut headers = Vec::new();
        if let Some(token) = &self.token {
            headers.push(Header::bearer(source("token", token)?));
        }
        for (name, value) in &self.headers {
            let name = name.to_ascii_lowercase();
            if headers.iter().any(|header| header.name == name) {
                let why = format!("header '{name}' is given twice");
                return Err(invalid("backend", &self.name, why));
            }
            let value = source(&name, value)?;
            headers.push(Header { name, prefix: "", value });
        }
        Ok(Endpoint { ca_file: self.ca_file.clone(), headers, ..Endpoint::open(self.url.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    fn backends(text: &str) -> Result<Vec<Backend>, String> {
        let settings: Settings = toml::from_str(text).map_err(|error| error.to_string())?;
        checked(&settings.backend).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_of_the_reference_is_a_backend() {
        let lines = REFERENCE.lines().skip_while(|line| !line.starts_with("# [[")).map(|line| &line[2..]);
        let text: Vec<&str> = lines.collect();
        let found = backends(&text.join("\n")).unwrap();
        let [triton] = &found[..] else { panic!("{found:?}") };
        assert_eq!((triton.name.as_str(), triton.models.len()), ("triton", 2));
        assert_eq!(triton.shared_in_flight, Some(4));
        let names: Vec<&str> = triton.endpoint.headers.iter().map(|header| header.name.as_str()).collect();
        assert_eq!(names, ["authorization", "x-api-key", "x-team"]);
        assert_eq!(triton.endpoint.headers[2].value, ValueSource::Variable("TEAM".to_owned()));
    }

    #[test]
    fn a_model_of_two_backends_and_other_mistakes_are_refused_by_name() {
        let backend = |name: &str, models: &str| {
            format!("[[backend]]\nname = '{name}'\nurl = 'http://127.0.0.1:1'\n{models}\n")
        };
        let clash = format!("{}{}", backend("a", "models = ['m', 'n']"), backend("b", "models = ['n', 'o']"));
        let error = backends(&clash).unwrap_err();
        assert!(["model n", "backend a", "= b"].iter().all(|part| error.contains(part)), "{error}");

        for (text, words) in [
            (backend("a", "models = ['m']") + &backend("a", "models = ['n']"), "another one has this name"),
            (backend("a b", "models = ['m']"), "a name has"),
            (backend("a", "models = []"), "list 1 to 256"),
            (backend("a", ""), "list 1 to 256"),
            (backend("a", "models = ['not a model']"), "not a model"),
            (backend("a", "models = ['m']\nprotocol = 'openai'"), "[openai]"),
            (backend("a", "models = ['m']\nprotocol = 'grpc'"), "open-inference"),
            (backend("a", "models = ['m']\nca_file = 'ca.pem'"), "only for https://"),
            (backend("a", "models = ['m']\nheaders = { 'content-type' = { env = 'X' } }"), "content-type"),
            (
                backend(
                    "a",
                    "models = ['m']\ntoken = { env = 'X' }\nheaders = { 'Authorization' = { env = 'X' } }",
                ),
                "given twice",
            ),
            (backend("a", "models = ['m']\nmodel = 'm'"), "unknown field"),
            (backend("a", "models = ['m']\nin_flight = 3"), "shared = true"),
            (backend("a", "models = ['m']\nshared = true\nin_flight = 0"), "1 to 1024"),
        ] {
            let error = backends(&text).unwrap_err();
            assert!(error.contains(words), "{text}{error}");
        }
    }

    #[test]
    fn a_secret_that_is_written_into_the_configuration_is_refused_and_not_repeated() {
        for value in ["token = 'hunter2'", "headers = { x-key = 'hunter2' }", "token = { value = 'hunter2' }"]
        {
            let text =
                format!("[[backend]]\nname = 'a'\nurl = 'http://127.0.0.1:1'\nmodels = ['m']\n{value}\n");
            let error = backends(&text).unwrap_err();
            assert!(error.contains("file =") && !error.contains("hunter2"), "{error}");
            let settings: Settings = toml::from_str(&text).unwrap();
            assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
        }
    }
}
