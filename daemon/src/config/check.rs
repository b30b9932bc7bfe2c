//! `idunnod check-config`: what a start would find, without starting: files that settings name, and this machine's addresses.

use std::net::SocketAddr;

use idunno_shared::security::SecurityError;
use idunno_shared::security::secret::Secret;
use idunno_worker::model_server::{EndpointError, ModelServerClient};
use idunno_worker::supervisor::Backend;
use thiserror::Error;

use super::error::invalid;
use super::{Common, ConfigError, MemberConfig};
use crate::runtime::interfaces;

/// Settings that are valid as such cannot be used on this machine.
#[derive(Debug, Error)]
pub enum UnusableConfig {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Secret(#[from] SecurityError),
    #[error("'backend' = {name} cannot be used: {source}")]
    Backend { name: String, source: Box<EndpointError> },
}

/// Checks what the introducer's settings name. Returns remarks on what may be meant and usually is not.
pub fn introducer(config: &Common) -> Result<Vec<String>, UnusableConfig> {
    common(config)
}

/// The same for a member's.
pub fn member(config: &MemberConfig) -> Result<Vec<String>, UnusableConfig> {
    let remarks = common(&config.common)?;
    if let Some(address) = config.metrics_listen {
        check_interface("metrics_listen", address)?;
    }
    for Backend { name, endpoint, .. } in &config.backends {
        ModelServerClient::new(endpoint)
            .map_err(|error| UnusableConfig::Backend { name: name.clone(), source: Box::new(error) })?;
    }
    Ok(remarks)
}

fn common(config: &Common) -> Result<Vec<String>, UnusableConfig> {
    if let Some(secret) = &config.secret {
        Secret::load(secret)?;
    }
    check_interface("listen", config.listen)?;
    let elsewhere = config.advertise.filter(|address| !interfaces::is_own(address.ip()));
    let remark = |address: SocketAddr| {
        format!(
            "'advertise' = {}: no interface of this machine has this address, which is right only behind address translation",
            address.ip()
        )
    };
    Ok(elsewhere.map(remark).into_iter().collect())
}

fn check_interface(key: &'static str, address: SocketAddr) -> Result<(), ConfigError> {
    if interfaces::is_own(address.ip()) {
        return Ok(());
    }
    Err(invalid(key, address, "no interface of this machine has this address"))
}

#[cfg(test)]
mod tests {
    use idunno_shared::security::private_file;

    use super::*;
    use crate::config::Settings;

    /// Reserved for documentation: no machine has it.
    const NOBODYS: &str = "203.0.113.7";

    fn checked(settings: &Settings) -> Result<Vec<String>, String> {
        let config = settings.member().map_err(|error| error.to_string())?;
        member(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_missing_or_damaged_secret_and_an_address_of_no_interface_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret.pem");
        let settings = |secret: &std::path::Path| Settings {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            introducer: Some("127.0.0.1:7400".into()),
            name: Some("m1".into()),
            secret: Some(secret.to_owned()),
            ..Settings::default()
        };
        let error = checked(&settings(&secret)).unwrap_err();
        assert!(error.contains(&secret.display().to_string()), "{error}");
        private_file::create(&secret, "not a secret").unwrap();
        let error = checked(&settings(&secret)).unwrap_err();
        assert!(error.contains(&secret.display().to_string()), "{error}");

        let secret = dir.path().join("good.pem");
        private_file::create(&secret, &Secret::generate().unwrap().render()).unwrap();
        assert_eq!(checked(&settings(&secret)), Ok(Vec::new()));
        let foreign: SocketAddr = format!("{NOBODYS}:7401").parse().unwrap();
        for (key, settings) in [
            ("listen", Settings { listen: Some(foreign), ..settings(&secret) }),
            ("metrics_listen", Settings { metrics_listen: Some(foreign), ..settings(&secret) }),
        ] {
            let error = checked(&settings).unwrap_err();
            assert!(error.contains(&format!("'{key}'")) && error.contains("no interface"), "{error}");
        }
        let token = dir.path().join("token");
        let text = format!(
            "[[backend]]\nname = 'triton'\nurl = 'https://triton.example.org'\nmodels = ['m']\ntoken = {{ file = '{}' }}",
            token.display()
        );
        let backend = toml::from_str::<Settings>(&text).unwrap().backend;
        let with_backend = Settings { backend, ..settings(&secret) };
        let error = checked(&with_backend).unwrap_err();
        assert!(error.contains("triton") && error.contains(&token.display().to_string()), "{error}");
        private_file::create(&token, "hunter2").unwrap();
        assert_eq!(checked(&with_backend), Ok(Vec::new()));
        let behind = Settings { advertise: Some(NOBODYS.into()), ..settings(&secret) };
        let remarks = checked(&behind).unwrap();
        assert!(remarks.len() == 1 && remarks[0].contains("'advertise'"), "{remarks:?}");
    }
}
