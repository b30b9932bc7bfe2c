"""Finds and reads archives on the package indexes that pip is configured for (PEP 503 and 691). pip downloads nothing:
before it installs a source distribution, it would run its code.

Of pip's settings these count: index-url, extra-index-url, no-index, find-links (directories), cert and proxy, from its
files and from its variables (`PIP_INDEX_URL` and so on). Credentials in an index's URL are sent to its host only.
"""

from __future__ import annotations

import ast
import html.parser
import http.client
import json
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from .errors import FetchDataError

PYPI = "https://pypi.org/simple"
PAGE_TYPES = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
PAGE_MAX_BYTES = 64 << 20
TIMEOUT_S = 60.0
ATTEMPTS = 3
PAUSE_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class PackageSources:
    """Where packages come from: directories first, then the indexes."""

    indexes: tuple[str, ...] = (PYPI,)
    directories: tuple[Path, ...] = ()
    certificates: str | None = None
    proxy: str | None = None


def parse_pip_settings(listing: str) -> PackageSources:
    """What `pip config list` prints. Variables count before the section `install`, and that before `global`."""
    values: dict[str, str] = {}
    # An empty setting is none, as for pip: it does not hide the one of another section.
    lines = [line.partition("=") for line in listing.splitlines() if "=" in line and not line.endswith(("=''", '=""'))]
    for section in ("global", "install", ":env:"):
        values |= {key.removeprefix(f"{section}."): value for key, _, value in lines if key.startswith(f"{section}.")}
    text = {key: str(ast.literal_eval(value)) for key, value in values.items()}
    indexes = [text.get("index-url", PYPI), *text.get("extra-index-url", "").split()]
    links = [link.removeprefix("file://") for link in text.get("find-links", "").split()]
    return PackageSources(
        indexes=() if is_true(text.get("no-index", "")) else tuple(index.rstrip("/") for index in indexes),
        directories=tuple(Path(link).expanduser() for link in links if "://" not in link),
        certificates=text.get("cert"),
        proxy=text.get("proxy"),
    )


def is_true(value: str) -> bool:
    return value.lower() in ("1", "true", "yes", "on")


def read_pip_settings() -> PackageSources:
    """Raises FetchDataError if this Python has no pip."""
    # -P: a file pip.py in the working directory is not pip.
    command = [sys.executable, "-P", "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise FetchDataError(f"cannot read pip's settings with {sys.executable}: {reason}")
    return parse_pip_settings(done.stdout)


class Answer:
    """What a server sends."""

    def __init__(self, url: str, response: http.client.HTTPResponse) -> None:
        self._url = url
        self._response = response

    def read(self, size_max: int) -> bytes:
        """Raises FetchDataError."""
        try:
            return self._response.read(size_max)
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(self._url, error) from error

    def links(self) -> list[str]:
        """The URLs on a project's page of an index. Raises FetchDataError."""
        content = self.read(PAGE_MAX_BYTES)
        try:
            is_json = self._response.headers.get_content_type().endswith("json")
            links = _json_links(content) if is_json else _html_links(content)
        except (ValueError, KeyError, TypeError) as error:
            raise FetchDataError(f"{self._url} is not a page of a package index") from error
        return [urljoin(self._response.url, link) for link in links]


class PackageIndexes:
    """The package indexes, asked in their order."""

    def __init__(self, sources: PackageSources) -> None:
        self.urls = [_without_credentials(index) for index in sources.indexes]
        passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
        for index in sources.indexes:
            parts = urlsplit(index)
            if parts.username is not None:
                host = urlsplit(_without_credentials(index)).netloc
                user, password = unquote(parts.username), unquote(parts.password or "")
                passwords.add_password(None, f"{parts.scheme}://{host}/", user, password, is_authenticated=True)
        proxies = {"http": sources.proxy, "https": sources.proxy} if sources.proxy else None
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler(proxies),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=sources.certificates)),
            urllib.request.HTTPBasicAuthHandler(passwords),
        )

    def find(self, project: str, file: str) -> str | None:
        """The URL of a file; None if no index has it. Raises FetchDataError if an index cannot be read."""
        for index in self.urls:
            url = retried(partial(self._find_on_page, f"{index}/{project}/", file))
            if url is not None:
                return url
        return None

    def _find_on_page(self, page: str, file: str) -> str | None:
        try:
            with self.open(page, PAGE_TYPES) as answer:
                links = answer.links()
        except FetchDataError as error:
            if isinstance(error.__cause__, urllib.error.HTTPError) and error.__cause__.code == 404:
                return None
            raise
        return next((url for url in links if unquote(urlsplit(url).path).rpartition("/")[2] == file), None)

    @contextmanager
    def open(self, url: str, accept: str = "*/*") -> Iterator[Answer]:
        """Raises FetchDataError if there is no answer, or one that says so."""
        if urlsplit(url).scheme not in ("http", "https"):
            raise FetchDataError(f"{url}: only indexes over http and https can be asked")
        request = urllib.request.Request(url, headers={"Accept": accept})  # noqa: S310 - the scheme is checked
        try:
            response = self._opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            raise FetchDataError(f"{url}: {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _unreachable(url, error) from error
        with response:
            yield Answer(url, response)


def _unreachable(url: str, error: Exception) -> FetchDataError:
    reason = getattr(error, "reason", None) or str(error) or repr(error)
    return FetchDataError(f"cannot read {url}: {reason}. Without a network, name a directory with the files by --from")


def retried(action: Callable[[], T]) -> T:
    """Runs an action again, after a pause, if the network or the index may be at fault for a moment."""
    for attempt in range(1, ATTEMPTS):
        try:
            return action()
        except FetchDataError as error:
            cause = error.__cause__
            if cause is None or (isinstance(cause, urllib.error.HTTPError) and cause.code < 500):
                raise
            time.sleep(attempt * PAUSE_S)
    return action()


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _json_links(content: bytes) -> list[str]:
    return [str(entry["url"]) for entry in json.loads(content)["files"]]


def _html_links(content: bytes) -> list[str]:
    links: list[str] = []

    class Anchors(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            links.extend(value for key, value in attrs if (tag, key) == ("a", "href") and value)

    Anchors().feed(content.decode(errors="replace"))
    return links


def file_in(directories: tuple[Path, ...], name: str) -> IO[bytes] | None:
    """The first regular file of that name, opened."""
    for directory in directories:
        if (directory / name).is_file():
            return (directory / name).open("rb")
    return None
