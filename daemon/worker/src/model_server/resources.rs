//! What a model server of ours says of its devices and of the processes that run its models.

use std::time::Duration;

use idunno_shared::ids::Digest;
use idunno_shared::names::ModelName;
use idunno_shared::wire::resources::{
    DEVICES_MAX, Device, RESOURCE_TEXT_CHARACTERS_MAX, RUNNERS_MAX, Runner, WorkerResources,
};
use serde::Deserialize;

use super::{ModelServerClient, RESPONSE_BYTES_MAX, ServerError};

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    devices: Vec<DeviceAnswer>,
    #[serde(default)]
    runners: Vec<RunnerAnswer>,
}

#[derive(Deserialize)]
struct DeviceAnswer {
    index: u32,
    #[serde(default)]
    uuid: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    memory_mib: u64,
    #[serde(default)]
    memory_used_mib: u64,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct RunnerAnswer {
    model: String,
    version: String,
    #[serde(default)]
    device: String,
    #[serde(default)]
    memory_mib: u64,
    #[serde(default)]
    state: String,
}

impl ModelServerClient {
    /// The devices and runners of a server of ours. None of an older one, which does not know the question.
    pub async fn resources(&self) -> Result<WorkerResources, ServerError> {
        let response = match self.send(self.get("/idunno/runners"), TIMEOUT).await {
            Ok(response) => response,
            Err(ServerError::Status { status: 404 | 405, .. }) => return Ok(WorkerResources::default()),
            Err(error) => return Err(error),
        };
        let body = self.body(response, RESPONSE_BYTES_MAX, TIMEOUT).await?;
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|error| ServerError::Malformed(error.to_string()))?;
        Ok(bounded(answer))
    }
}

/// What fits into a report. A runner of a model that the cluster cannot name is left out.
fn bounded(Answer { devices, runners }: Answer) -> WorkerResources {
    let short = |text: &str| text.chars().take(RESOURCE_TEXT_CHARACTERS_MAX).collect();
    let device = |device: DeviceAnswer| Device {
        index: device.index,
        uuid: short(&device.uuid),
        name: short(&device.name),
        memory_mib: device.memory_mib,
        memory_used_mib: device.memory_used_mib,
        reason: short(&device.reason),
    };
    let runner = |runner: RunnerAnswer| {
        let model: ModelName = runner.model.parse().ok()?;
        let version: Digest = runner.version.parse().ok()?;
        let (device, state) = (short(&runner.device), short(&runner.state));
        Some(Runner { model, version, device, memory_mib: runner.memory_mib, state })
    };
    WorkerResources {
        devices: devices.into_iter().take(DEVICES_MAX).map(device).collect(),
        runners: runners.into_iter().filter_map(runner).take(RUNNERS_MAX).collect(),
        ..WorkerResources::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_bounded_and_surplus_fields_do_no_harm() {
        let version = Digest::of(b"v");
        let json = format!(
            r#"{{"devices": [{{"index": 1, "uuid": "GPU-1", "name": "{long}", "memory_mib": 143771,
                "memory_used_mib": 7, "reason": "", "clock": 5}}],
              "runners": [
                {{"model": "ocr", "version": "{version}", "device": "cuda:1", "memory_mib": 812, "state": "running", "pid": 4711}},
                {{"model": "no model!", "version": "{version}", "device": "cpu", "memory_mib": 1, "state": "running", "pid": 1}},
                {{"model": "ocr", "version": "none", "device": "cpu", "memory_mib": 1, "state": "failed", "pid": null}}]}}"#,
            long = "H".repeat(1000)
        );
        let WorkerResources { devices, runners, .. } = bounded(serde_json::from_str(&json).unwrap());
        let [device] = &devices[..] else { panic!("{devices:?}") };
        assert_eq!((device.index, device.memory_mib, device.memory_used_mib), (1, 143_771, 7));
        assert_eq!(device.name.len(), RESOURCE_TEXT_CHARACTERS_MAX);
        let ocr = Runner {
            model: "ocr".parse().unwrap(),
            version,
            device: "cuda:1".to_owned(),
            memory_mib: 812,
            state: "running".to_owned(),
        };
        assert_eq!(runners, [ocr]);
        assert!(bounded(serde_json::from_str("{}").unwrap()).is_empty());
    }
}
