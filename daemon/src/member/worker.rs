//! The member's worker: how it is started, and how it learns of a new coordinator.

use std::sync::Arc;

use idunno_consensus::Consensus;
use idunno_shared::client::cluster::Cluster;
use idunno_shared::ids::Term;
use idunno_worker::WorkerConfig;
use idunno_worker::model_files::ModelFiles;
use idunno_worker::model_server::Endpoint;
use idunno_worker::supervisor::{ServerConfig, ServerStatuses};
use idunno_worker::traits::FileStore;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::parts::Parts;
use crate::config::{MemberConfig, ModelServer};
use crate::membership::MembershipHandle;

/// The running worker.
pub(super) struct Worker {
    pub(super) task: JoinHandle<()>,
    /// Makes the worker finish what it runs, return the rest and end.
    pub(super) drain: CancellationToken,
}

impl Worker {
    pub(super) fn start(
        config: &MemberConfig,
        parts: &Parts,
        server_status: watch::Sender<ServerStatuses>,
    ) -> Self {
        let (announce, coordinator_term) = watch::channel(Term(0));
        let (membership, consensus) = (parts.deps.membership.clone(), parts.deps.consensus.clone());
        let follow = follow_coordinator(parts.cluster.clone(), membership, consensus, announce);
        parts.spawn("coordinator follower", follow);
        let server = server_config(&config.model_server);
        let (me, data_dir) = (parts.deps.me, config.common.data_dir.clone());
        let worker = WorkerConfig {
            backends: config.backends.clone(),
            reference_urls: config.reference_urls.clone(),
            model_files: model_files(config),
            ..WorkerConfig::new(me, config.name.clone(), parts.generation, server, data_dir)
        };
        let coordinator = Arc::new(parts.cluster.clone());
        let (view, watched) = watch::channel(idunno_worker::first_view(me));
        let drain = CancellationToken::new();
        let shutdown = drain.clone();
        let store: Arc<dyn FileStore> = parts.local_store.clone();
        let files = (store, parts.packages.clone());
        let task = tokio::spawn(async move {
            // The coordinator reads the worker's state from its reports; nobody watches it here.
            let _watched = watched;
            idunno_worker::run(worker, coordinator, files, coordinator_term, view, server_status, shutdown)
                .await;
        });
        Self { task, drain }
    }
}

/// Where the member puts what its model server reads.
pub(super) fn model_files(config: &MemberConfig) -> ModelFiles {
    match &config.model_files_dir {
        Some(folder) => ModelFiles::shared(folder.clone()),
        None => ModelFiles::in_data_dir(&config.common.data_dir),
    }
}

/// The state of the member's model servers before the worker runs.
pub(super) fn first_status(config: &MemberConfig) -> ServerStatuses {
    ServerStatuses::new(&server_config(&config.model_server), &config.backends)
}

fn server_config(model_server: &ModelServer) -> ServerConfig {
    match model_server {
        ModelServer::None => ServerConfig::None,
        ModelServer::Url(url) => ServerConfig::Elsewhere { endpoint: Endpoint::open(url.as_str()) },
        ModelServer::Socket(path) => ServerConfig::Elsewhere { endpoint: Endpoint::at_socket(path.clone()) },
        ModelServer::Python { python, threads } => {
            ServerConfig::Supervised { python: python.clone(), threads: u32::try_from(*threads).ok() }
        }
    }
}

/// Points the worker's client to each new coordinator as soon as this member knows it, and announces the new term.
async fn follow_coordinator(
    cluster: Cluster,
    membership: MembershipHandle,
    consensus: Consensus,
    announce: watch::Sender<Term>,
) {
    let (mut view, mut leadership) = (membership.view(), consensus.leadership());
    loop {
        let (view_now, leadership_now) =
            (view.borrow_and_update().clone(), leadership.borrow_and_update().clone());
        if let Some(address) = leadership_now.leader.and_then(|leader| view_now.address(leader)) {
            announce.send_if_modified(|term| {
                let is_news = *term < leadership_now.term;
                if is_news {
                    cluster.follow(leadership_now.term, address);
                    *term = leadership_now.term;
                }
                is_news
            });
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}
