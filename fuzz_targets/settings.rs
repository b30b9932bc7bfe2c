//! A daemon's settings file: it is taken, or the mistake is named with the file.
#![no_main]

use std::fs;

use idunno_daemon::config::Settings;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static DIR: TempDir = TempDir::new().expect("a directory");
}

fuzz_target!(|text: &str| {
    DIR.with(|dir| {
        let path = dir.path().join("member.toml");
        fs::write(&path, text).expect("written");
        match (Settings { config: Some(path), ..Settings::default() }).with_file() {
            Ok(settings) => drop(settings.member()),
            Err(error) => assert!(error.to_string().contains("member.toml"), "{error}"),
        }
    });
});
