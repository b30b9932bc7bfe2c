"""A package index on this machine, and archives to put into it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from idunno_model_server.data_lock import Archive, DataFile


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def zipped(members: Mapping[str, bytes], link: str = "") -> bytes:
    """A wheel. The member `link` is marked as a symbolic link."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path, content in members.items():
            info = zipfile.ZipInfo(path)
            info.external_attr = (0o120777 if path == link else 0o100644) << 16
            archive.writestr(info, content)
    return file.getvalue()


def tarred(members: Mapping[str, bytes], links: Mapping[str, tuple[bytes, str]] | None = None) -> bytes:
    """A source distribution. `links`: type and target by path."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for path, content in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for path, (kind, target) in (links or {}).items():
            info = tarfile.TarInfo(path)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return file.getvalue()


def locked(file: str, content: bytes, members: Mapping[str, tuple[str, bytes]]) -> Archive:
    """The archive as the lock has it. `members`: name and content by path."""
    files = tuple(DataFile(path, name, len(data), sha256(data)) for path, (name, data) in members.items())
    return Archive(file.partition("-")[0], file, len(content), sha256(content), True, False, files)


class PackageServer:
    """Serves files by name below /files and lists all of them on every project's page; both can be broken."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.html = False
        self.other_host = ""
        """Where the pages say that the files are, in place of this server."""
        self.sent_max: int | None = None
        """After so many bytes of a file the connection ends, once `released`."""
        self.sent = threading.Event()
        """Those bytes are on their way."""
        self.released = threading.Event()
        self.released.set()
        self.requests: list[tuple[str, str | None]] = []
        """Paths with the credentials that came with them."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/simple"

    def page(self) -> tuple[str, bytes]:
        links = {name: f"{self.other_host}/files/{name}#sha256={sha256(data)}" for name, data in self.files.items()}
        if self.html:
            return "text/html", "".join(f'<a href="{url}">{name}</a>' for name, url in links.items()).encode()
        files = [{"filename": name, "url": url, "hashes": {}} for name, url in links.items()]
        return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files}).encode()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append((handler.path, handler.headers["Authorization"]))
        name = handler.path.rpartition("/")[2]
        if handler.path.startswith("/simple/"):
            send(handler, *self.page())
        elif name in self.files:
            send(handler, "application/octet-stream", self.files[name], self.sent_max)
            self.sent.set()
            self.released.wait()
        else:
            handler.send_error(404)


def send(handler: BaseHTTPRequestHandler, kind: str, content: bytes, sent_max: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:sent_max])
    handler.wfile.flush()


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[PackageServer]:
    packages = PackageServer(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            packages.answer(self)

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    packages.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield packages
    finally:
        packages.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
