"""A gateway beside a local cluster: started, killed, restarted and stopped with it."""

import json
import os
from pathlib import Path

from conftest import client_at
from gateway import Cluster


def processes(cluster):
    """The role of each process that runs, by name."""
    listed = json.loads(cluster.idunno("--output", "json", "local", "status"))["items"]
    return {process["name"]: process["address"] for process in listed if process["running"]}


def test_a_local_cluster_has_a_gateway_if_asked(tmp_path):
    tmp_path.chmod(0o700)
    cluster = Cluster(Path(os.environ["IDUNNO_PROGRAMS"]), tmp_path / "cluster", members=3)
    try:
        up = json.loads(cluster.idunno("--output", "json", "local", "up", "--members", "3", "--gateway"))
        s3 = client_at(up["gateway"], cluster.key("local"))
        s3.create_bucket(Bucket="photos")
        s3.put_object(Bucket="photos", Key="a", Body=b"one")
        assert cluster.files("photos/") == ["photos/a"]
        assert up["gateway"] == f"http://{processes(cluster)['gateway']}"

        cluster.idunno("local", "kill", "gateway")
        assert "gateway" not in processes(cluster)
        cluster.idunno("local", "start")
        # Programs find it where it was.
        assert s3.get_object(Bucket="photos", Key="a")["Body"].read() == b"one"

        # It is part of the cluster from then on.
        cluster.idunno("local", "down")
        assert not processes(cluster)
        again = json.loads(cluster.idunno("--output", "json", "local", "up"))
        assert again["gateway"] == up["gateway"]
        assert s3.get_object(Bucket="photos", Key="a")["Body"].read() == b"one"
    finally:
        cluster.idunno("local", "down", "--purge", "--yes", check=False)
