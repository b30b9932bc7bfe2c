//! A model server that somebody else runs: it is only watched.

use idunno_shared::wire::jobs::ServerState;
use reqwest::header::HeaderMap;
use tokio::time::sleep;

use super::{ServerFailure, Supervisor};
use crate::model_server::{Endpoint, ModelServerClient};

impl Supervisor {
    /// Watches it until this process stops.
    pub(super) async fn watch_elsewhere(&mut self, endpoint: &Endpoint) {
        let mut client = None;
        loop {
            if let Err(failure) = self.look_elsewhere(endpoint, &mut client).await {
                self.publish_down(ServerState::Down(failure.to_string()));
            }
            tokio::select! {
                () = sleep(self.timing.health_interval) => {}
                // It cannot be restarted from here. Its models are loaded again once it answers.
                Some(reason) = self.restart_requests.recv() => self.publish_down(ServerState::Down(reason)),
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Publishes a server that has become ready, or whose headers have other values now.
    async fn look_elsewhere(
        &mut self,
        endpoint: &Endpoint,
        client: &mut Option<(HeaderMap, ModelServerClient)>,
    ) -> Result<(), ServerFailure> {
        let headers = endpoint.read_headers()?;
        let server = match client {
            Some((known, server)) if *known == headers => server.clone(),
            _ => {
                let server = ModelServerClient::with_headers(endpoint, headers.clone())?;
                *client = Some((headers, server.clone()));
                self.replace_client(&server);
                server
            }
        };
        server.ready().await?;
        if self.status.read(|status| status.state != ServerState::Ready) {
            self.publish_ready(&server).await?;
        }
        self.look_at_resources(&server).await;
        Ok(())
    }

    /// What the server has loaded stays.
    fn replace_client(&self, server: &ModelServerClient) {
        self.status.modify(|status| {
            let ready = status.server.as_mut();
            ready.map(|ready| ready.server = server.clone()).is_some()
        });
    }
}
