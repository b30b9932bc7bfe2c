//! Calls to a member's own model server, past the member.

use std::net::SocketAddr;

use serde_json::Value;

use super::LocalCluster;
use super::http::http;

impl LocalCluster {
    /// The port of the model server of member `index`, as it wrote it down itself.
    pub(crate) fn model_server_port(&self, index: usize) -> u16 {
        let file = self.members[index].data_dir.join("model-server/port");
        std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }

    /// What the model server of member `index` answers: to a POST of `body`, or to a GET.
    pub(crate) async fn ask_model_server(
        &self,
        index: usize,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, String> {
        let described = |error: std::io::Error| format!("{path} at {}: {error}", self.members[index].name);
        let address = SocketAddr::from(([127, 0, 0, 1], self.model_server_port(index)));
        let body = body.map(Value::to_string);
        let (_, answer) = http(address, path, body.as_deref()).await.map_err(described)?;
        serde_json::from_str(&answer).map_err(|error| format!("{path}: {error}: {answer}"))
    }

    /// How many infer calls the model servers of all members have answered for a model.
    pub(crate) async fn infer_calls(&self, model: &str) -> u64 {
        let mut calls = 0;
        for index in self.up() {
            let stats = self.ask_model_server(index, &format!("/v2/models/{model}/stats"), None).await;
            let stats = stats.unwrap_or_else(|error| self.fail(&error));
            calls += stats["model_stats"][0]["execution_count"].as_u64().unwrap();
        }
        calls
    }
}
