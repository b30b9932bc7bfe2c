"""awscli, rclone and s3cmd: each puts, lists, reads back, and syncs twice; the second sync moves nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import contents


def run(environment, *command, check=True) -> str:
    """Runs a program of this environment, and answers what it prints."""
    here = Path(sys.executable).parent
    found = shutil.which(command[0], path=f"{here}:{environment['PATH']}")
    done = subprocess.run([found, *command[1:]], env=environment, capture_output=True, text=True, timeout=120)
    if check:
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.does("awscli", "put", "get", "list", "multipart", "copy", "delete", "sync twice")
def test_awscli(environment, bucket, tree, tmp_path):
    def aws(*arguments):
        return run(environment, "aws", "s3", *arguments)

    assert aws("sync", str(tree), f"s3://{bucket}/tree").count("upload: ") == len(contents(tree))
    assert aws("sync", str(tree), f"s3://{bucket}/tree") == "", "nothing changed"
    listed = aws("ls", "--recursive", f"s3://{bucket}/tree/")
    assert len(listed.strip().splitlines()) == len(contents(tree)) and "ümläut" in listed
    assert "PRE b/" in aws("ls", f"s3://{bucket}/tree/")
    aws("sync", f"s3://{bucket}/tree", str(tmp_path / "back"))
    assert contents(tmp_path / "back") == contents(tree)
    aws("cp", f"s3://{bucket}/tree/large.bin", f"s3://{bucket}/copied.bin")
    aws("cp", f"s3://{bucket}/copied.bin", str(tmp_path / "copied.bin"))
    assert (tmp_path / "copied.bin").read_bytes() == (tree / "large.bin").read_bytes()
    (tree / "a.txt").write_bytes(b"changed, and longer than it was before")
    (tree / "b/c.bin").unlink()
    changed = aws("sync", "--delete", str(tree), f"s3://{bucket}/tree")
    assert "upload: " in changed and "delete: " in changed and len(changed.strip().splitlines()[-2:]) == 2
    aws("rm", "--recursive", f"s3://{bucket}/")
    aws("rb", f"s3://{bucket}")


def rclone_environment(cluster, key, environment):
    settings = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENDPOINT": cluster.endpoint,
        "ACCESS_KEY_ID": key.id,
        "SECRET_ACCESS_KEY": key.secret,
    }
    plain = {name: value for name, value in environment.items() if not name.startswith("AWS_")}
    return {**plain, "RCLONE_CONFIG": "/dev/null/none"} | {
        f"RCLONE_CONFIG_ID_{name}": it for name, it in settings.items()
    }


@pytest.mark.does("rclone", "put", "get", "list", "multipart", "copy", "delete", "sync twice", "metadata")
def test_rclone(cluster, key, environment, bucket, tree, tmp_path):
    own = rclone_environment(cluster, key, environment)

    def rclone(*arguments):
        return run(own, "rclone", "--config", "", *arguments)

    target = f"ID:{bucket}/tree"
    rclone("sync", "--s3-upload-cutoff", "6M", "--s3-chunk-size", "5M", str(tree), target)
    again = rclone("sync", "-v", "--stats-one-line", str(tree), target)
    assert "Copied" not in again, again
    rclone("check", "--download", str(tree), target)
    assert len(rclone("lsf", "-R", "--files-only", target).strip().splitlines()) == len(contents(tree))
    rclone("copy", target, str(tmp_path / "back"))
    assert contents(tmp_path / "back") == contents(tree)
    stamps = {name: (tree / name).stat().st_mtime for name in contents(tree)}
    assert all(abs((tmp_path / "back" / name).stat().st_mtime - at) < 0.01 for name, at in stamps.items())
    rclone("copy", target, f"ID:{bucket}/second")
    rclone("check", "--download", target, f"ID:{bucket}/second")
    (tree / "a.txt").unlink()
    rclone("sync", str(tree), target)
    assert "a.txt" not in rclone("lsf", target)
    rclone("purge", f"ID:{bucket}")
    assert bucket not in rclone("lsd", "ID:")


@pytest.mark.does("s3cmd", "put", "get", "list", "multipart", "copy", "delete", "sync twice")
def test_s3cmd(cluster, key, environment, bucket, tree, tmp_path):
    host = cluster.endpoint.removeprefix("http://")
    config = tmp_path / "s3cfg"
    config.write_text(
        f"[default]\naccess_key = {key.id}\nsecret_key = {key.secret}\nhost_base = {host}\nhost_bucket = {host}\n"
        "use_https = False\nmultipart_chunk_size_mb = 5\n"
    )

    def s3cmd(*arguments):
        return run(environment, "s3cmd", "--no-progress", "-c", str(config), *arguments)

    (tree / "b/ümläut.txt").rename(tree / "b/umlaut.txt")
    s3cmd("sync", f"{tree}/", f"s3://{bucket}/tree/")
    again = s3cmd("sync", f"{tree}/", f"s3://{bucket}/tree/")
    assert "upload:" not in again, again
    assert len(s3cmd("ls", "-r", f"s3://{bucket}/tree/").strip().splitlines()) == len(contents(tree))
    (tmp_path / "back").mkdir()
    s3cmd("sync", f"s3://{bucket}/tree/", f"{tmp_path}/back/")
    assert contents(tmp_path / "back") == contents(tree)
    s3cmd("cp", f"s3://{bucket}/tree/a.txt", f"s3://{bucket}/copied.txt")
    assert "copied.txt" in s3cmd("ls", f"s3://{bucket}/")
    s3cmd("info", f"s3://{bucket}/copied.txt")
    s3cmd("del", "-r", "-f", f"s3://{bucket}/")
    s3cmd("rb", f"s3://{bucket}")
