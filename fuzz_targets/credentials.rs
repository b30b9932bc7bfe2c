//! Files of secrets and identities: what is read is rendered and read again, and everything else is refused.
#![no_main]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use idunno_shared::security::identity::Identity;
use idunno_shared::security::secret::Secret;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static DIR: TempDir = TempDir::new().expect("a directory");
}

fuzz_target!(|text: &str| {
    DIR.with(|dir| {
        let path = dir.path().join("file.pem");
        let write = |text: &str| {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("private");
        };
        write(text);
        if let Ok(identity) = Identity::load(&path) {
            write(&identity.render());
            assert!(Identity::load(&path).is_ok());
        }
        write(text);
        if let Ok(secret) = Secret::load(&path) {
            write(&secret.render());
            assert_eq!(Secret::load(&path).expect("read again").fingerprints(), secret.fingerprints());
        }
    });
});
