//! One supervisor for each model server of a member.

use std::path::Path;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::server_config::{Backend, ServerConfig, secret_variables};
use super::status::{ServerStatuses, StatusSender};
use super::{Supervisor, SupervisorTiming};

/// The supervisors of a member's model servers.
pub struct Supervisors {
    /// One of each server, in the order of [`ServerStatuses::all`]: it takes reasons to restart the server.
    pub restart: Vec<mpsc::Sender<String>>,
    pub tasks: Vec<JoinHandle<()>>,
}

impl Supervisors {
    /// Starts them. They publish what they find until they are stopped.
    pub fn start(
        (own, backends): (&ServerConfig, &[Backend]),
        data_dir: &Path,
        timing: SupervisorTiming,
        all: &watch::Sender<ServerStatuses>,
        stop: &CancellationToken,
    ) -> Self {
        let (mut restart, mut tasks) = (Vec::new(), Vec::new());
        let servers = all.borrow().all().len();
        for index in 0..servers {
            let (request, restart_requests) = mpsc::channel(1);
            restart.push(request);
            let status = StatusSender { all: all.clone(), index };
            let backend = status.backend();
            let backend = backends.iter().find(|found| Some(&found.name) == backend.as_ref());
            let server = backend.map_or_else(
                || own.clone(),
                |backend| ServerConfig::Elsewhere { endpoint: backend.endpoint.clone() },
            );
            let supervisor = Supervisor {
                config: server,
                data_dir: data_dir.to_owned(),
                timing,
                status,
                restart_requests,
                stop: stop.clone(),
                resources_due: Instant::now(),
                secret_variables: secret_variables(backends),
            };
            tasks.push(tokio::spawn(supervisor.run()));
        }
        Self { restart, tasks }
    }
}
