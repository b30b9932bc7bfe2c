//! The user's settings: `config.toml` (theme, clusters) and `keymap.toml` (keys), in one directory.
//!
//! An invalid `config.toml` is refused as a whole, because it says which cluster commands go to and whether they may change
//! it. Problems of keys and aliases are reported and ignored: a console that does not open helps nobody.
//! Precedence: command line, environment, context, file, default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use idunno_shared::names::NameError;
use serde::Deserialize;

use crate::answer::{Exit, Failure};
use crate::command::{Global, Palette, SeedsError, alias};
use crate::console::keymap::Keymap;

const CONFIG: &str = "config.toml";
const KEYMAP: &str = "keymap.toml";

/// The characters that the console draws with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Symbols {
    /// Chosen by the locale.
    #[default]
    Auto,
    /// Blocks and circles.
    Unicode,
    Ascii,
}

/// A cluster in `config.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Addresses of members, separated by commas.
    pub cluster: String,
    /// The identity file.
    pub identity: Option<PathBuf>,
    /// The member that commands act on if none is named.
    pub member: Option<String>,
    #[serde(default)]
    pub read_only: bool,
    /// A theme that tells clusters apart.
    pub theme: Option<Palette>,
}

/// `config.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    pub theme: Palette,
    pub symbols: Symbols,
    /// Whether the console captures the mouse from the start.
    pub mouse: bool,
    pub read_only: bool,
    /// The identity file for contexts that have none.
    pub identity: Option<PathBuf>,
    /// The default context.
    pub context: Option<String>,
    /// Clusters by name.
    pub contexts: BTreeMap<String, Context>,
    /// Commands by alias.
    pub aliases: BTreeMap<String, String>,
}

/// The settings, and the problems of their files.
#[derive(Debug, Default)]
pub struct Settings {
    /// The directory of the files.
    pub dir: PathBuf,
    pub config: ConfigFile,
    /// `keymap.toml` on top of the default keys.
    pub keymap: Arc<Keymap>,
    /// Problems of the aliases.
    pub problems: Vec<String>,
    /// Why `config.toml` is not in force, if it is not.
    pub invalid: Option<String>,
}

/// The directory of the settings: `IDUNNO_CONFIG_DIR`, or `idunno` in the user's configuration directory.
pub fn directory(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("IDUNNO_CONFIG_DIR") {
        return dir;
    }
    let home = || set("HOME").map(|home| home.join(".config"));
    let base = set("XDG_CONFIG_HOME").or_else(|| set("APPDATA")).or_else(home);
    base.unwrap_or_default().join("idunno")
}

impl Settings {
    /// Reads the files of a directory; missing files count as empty.
    pub fn load(dir: &Path) -> Self {
        let (config, invalid) = match read_config(&dir.join(CONFIG)) {
            Ok(config) => (config, None),
            Err(why) => (ConfigFile::default(), Some(why)),
        };
        let mut problems: Vec<String> =
            alias::problems(&config.aliases).map(|problem| format!("{CONFIG}: {problem}")).collect();
        let keymap = read(&dir.join(KEYMAP)).unwrap_or_else(|why| {
            problems.push(why);
            String::new()
        });
        let keymap = Arc::new(Keymap::read(&keymap));
        Self { dir: dir.to_owned(), config, keymap, problems, invalid }
    }

    /// Fails if `config.toml` is not in force.
    pub fn check(&self) -> Result<(), Failure> {
        match &self.invalid {
            None => Ok(()),
            Some(why) => Err(Failure::new(Exit::Usage, format!("{why}\nnothing was done: correct the file"))),
        }
    }

    /// All problems, each prefixed with its file's name.
    pub fn all_problems(&self) -> Vec<String> {
        let keys = self.keymap.problems.iter().map(|problem| format!("{KEYMAP}: {problem}"));
        self.invalid.iter().chain(&self.problems).cloned().chain(keys).collect()
    }

    /// Applies the selected context, if any.
    pub fn resolve(&self, mut global: Global) -> Result<Global, Failure> {
        let named = global.context.clone().or_else(|| self.config.context.clone());
        let context = match named.filter(|_| !global.cluster_given) {
            None => None,
            Some(name) => {
                let context = self.config.contexts.get(&name).ok_or_else(|| self.unknown(&name))?;
                let wrong = |error: String| {
                    Failure::new(Exit::Usage, format!("{CONFIG}: the context {name}: {error}"))
                };
                let seeds = context.cluster.parse();
                global.cluster = seeds.map_err(|error: SeedsError| wrong(error.to_string()))?;
                let member = context.member.as_deref().map(str::parse).transpose();
                let member = member.map_err(|error: NameError| wrong(error.to_string()))?;
                global.own_member = global.own_member.or(member);
                global.context = Some(name);
                Some(context)
            }
        };
        global.read_only |= self.config.read_only || context.is_some_and(|context| context.read_only);
        let identity = context.and_then(|context| context.identity.clone());
        let identity = identity.or_else(|| self.config.identity.clone().filter(|_| !global.cluster_given));
        global.context_identity = identity;
        let theme = context.and_then(|context| context.theme).unwrap_or(self.config.theme);
        global.theme = global.theme.or(Some(theme));
        Ok(global)
    }

    fn unknown(&self, name: &str) -> Failure {
        let known: Vec<&str> = self.config.contexts.keys().map(String::as_str).collect();
        let known = if known.is_empty() { String::from("none") } else { known.join(", ") };
        let path = self.dir.join(CONFIG);
        Failure::new(
            Exit::NotFound,
            format!("no context '{name}' in {}: known contexts: {known}", path.display()),
        )
    }

    /// The files, and whether they exist.
    pub fn files(&self) -> [(&'static str, PathBuf, bool); 2] {
        [CONFIG, KEYMAP].map(|name| {
            let path = self.dir.join(name);
            let exists = path.is_file();
            (name, path, exists)
        })
    }
}

/// Reads `config.toml`. The error names the file, the line and its key.
fn read_config(path: &Path) -> Result<ConfigFile, String> {
    let text = read(path)?;
    toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let number = text[..start].matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default().trim();
        format!("{}, line {number}: '{line}': {}", path.display(), error.message().replace('\n', " "))
    })
}

/// The text of a file; a missing file counts as empty.
fn read(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|error| format!("cannot read {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::command::Arguments;

    fn global(words: &str) -> Global {
        let words: Vec<OsString> = format!("idunno {words}").split_whitespace().map(Into::into).collect();
        let mut global = Arguments::read(&words).unwrap().global;
        // Ignore the environment that the tests run in.
        (global.read_only, global.context) = (false, global.context.filter(|_| words.len() > 1));
        global
    }

    #[test]
    fn a_context_names_the_cluster_unless_one_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let text = "theme = 'light'\ncontext = 'lab'\n[contexts.lab]\ncluster = '127.0.0.1:1'\nmember = 'm1'\n\
                    [contexts.prod]\ncluster = '127.0.0.1:2,127.0.0.1:3'\nread_only = true\nidentity = 'prod.pem'\n\
                    theme = 'colour-blind'\n";
        fs::write(dir.path().join(CONFIG), text).unwrap();
        let settings = Settings::load(dir.path());
        assert_eq!(settings.all_problems(), [""; 0]);
        let lab = settings.resolve(global("")).unwrap();
        assert_eq!((lab.cluster.0.len(), lab.read_only, lab.theme), (1, false, Some(Palette::Light)));
        let prod = settings.resolve(global("--context prod")).unwrap();
        assert_eq!((lab.own_member, prod.own_member.clone()), (Some("m1".parse().unwrap()), None));
        assert_eq!((lab.context_identity, prod.context_identity.clone()), (None, Some("prod.pem".into())));
        assert_eq!((prod.cluster.0.len(), prod.read_only, prod.theme), (2, true, Some(Palette::ColourBlind)));
        let named = settings.resolve(global("--cluster 127.0.0.1:9 --context prod")).unwrap();
        assert_eq!((named.cluster.0[0].port(), named.read_only), (9, false));
        assert_eq!(settings.resolve(global("--context x")).unwrap_err().exit, Exit::NotFound);
    }

    #[test]
    fn an_invalid_file_of_keys_is_reported_and_one_of_settings_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEYMAP), "freeze = 'ctrl-'\n").unwrap();
        let settings = Settings::load(dir.path());
        assert!(settings.all_problems()[0].starts_with("keymap.toml: freeze"), "{settings:?}");
        settings.check().unwrap();
        let path = dir.path().join(CONFIG);
        for (text, line, key) in [
            ("read_only = true\nthema = 'light'\n", 2, "thema"),
            ("read_only = 'yes'\n", 1, "read_only"),
            ("[contexts.prod]\ncluster = '127.0.0.1:1'\nreadonly = true\n", 3, "readonly"),
            ("read_only = true\ncontext = \n", 2, "context"),
        ] {
            fs::write(&path, text).unwrap();
            let refused = Settings::load(dir.path()).check().unwrap_err();
            let place = format!("{}, line {line}: ", path.display());
            assert!(refused.message.starts_with(&place) && refused.message.contains(key), "{refused}");
            assert_eq!(refused.exit, Exit::Usage);
        }
        fs::write(&path, b"read_only = true # \xff\n").unwrap();
        assert!(Settings::load(dir.path()).check().unwrap_err().message.contains("cannot read"));
    }

    #[test]
    fn the_directory_follows_the_users_environment() {
        let with = |pairs: &'static [(&str, &str)]| {
            directory(|name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            })
        };
        assert_eq!(with(&[("HOME", "/h")]), PathBuf::from("/h/.config/idunno"));
        assert_eq!(with(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]), PathBuf::from("/x/idunno"));
        assert_eq!(with(&[("IDUNNO_CONFIG_DIR", "/i"), ("HOME", "/h")]), PathBuf::from("/i"));
    }
}
