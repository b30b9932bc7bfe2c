//! Calls to a member's own model server, past the member.

use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::Value;
use tokio::net::UnixStream;

use super::LocalCluster;
use super::http::http_over;

impl LocalCluster {
    /// Where the model server of member `index` listens.
    pub(crate) fn model_server_socket(&self, index: usize) -> PathBuf {
        self.members[index].data_dir.join("model-server/socket")
    }

    /// When the model server of member `index` was last started, once it listens.
    pub(crate) fn model_server_started(&self, index: usize) -> Option<SystemTime> {
        std::fs::metadata(self.model_server_socket(index)).and_then(|socket| socket.modified()).ok()
    }

    /// What the model server of member `index` answers: to a POST of `body`, or to a GET.
    pub(crate) async fn ask_model_server(
        &self,
        index: usize,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, String> {
        let described = |error: std::io::Error| format!("{path} at {}: {error}", self.members[index].name);
        let body = body.map(Value::to_string);
        let answered = async {
            let stream = UnixStream::connect(self.model_server_socket(index)).await?;
            http_over(stream, path, body.as_deref()).await
        };
        let (_, answer) = answered.await.map_err(described)?;
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
