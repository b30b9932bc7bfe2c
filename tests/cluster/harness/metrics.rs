//! What a member exports to Prometheus.

use std::net::SocketAddr;

use super::LocalCluster;
use super::http::http;

impl LocalCluster {
    /// The address of a member's metrics endpoint, from its log.
    pub(crate) fn metrics(&self, index: usize) -> SocketAddr {
        let log = self.members[index].log();
        let line = log.lines().rfind(|line| line.contains("serving metrics")).unwrap();
        let (_, address) = line.split_once("address=").unwrap();
        address.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The value of a series with its labels as exported; `None` if there is no such series.
    pub(crate) async fn figure(&self, index: usize, series: &str) -> Option<f64> {
        let (status, page) = http(self.metrics(index), "/metrics", None).await.unwrap();
        assert_eq!(status, 200, "{page}");
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }
}
