"""Captures the console from a real run: every page as text, and pictures of three.

Four members answer photos with two models, among them a few files that are no images. The coordinator is killed while
the console watches; every page is captured after the failover. Text comes in two sizes; the pictures are SVG files with
the console's own colours.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import terminal_svg
from local_cluster import ROOT, Failed, LocalCluster, make_dataset, run_program, say

MODELS = ("squeezenet1.1", "efficientnet-lite0")
MEMBERS = 4
# Enough for a warm-up and all pages.
PHOTOS = 8000
BROKEN_FILES = 6
TEXT_SIZES = ((200, 60), (120, 40), (80, 24))
PICTURE_SIZE = (120, 32)
# A page may take this long to show what it is recognised by, and then this long for the cluster's answers.
PAGE_TIMEOUT_S = 15
PAGE_SETTLING_S = 1
# A key right behind Escape would be read as that key with Alt.
ESCAPE_S = 0.5
# The charts move every five seconds.
FAILOVER_SETTLING_S = 12


@dataclass(frozen=True)
class Page:
    """A page: its file's name, the keys that open it from the one before, a text that it shows, the keys back."""

    name: str
    keys: tuple[str, ...]
    shows: str
    back: tuple[str, ...] = ()


# In this order: Enter looks into what is selected, and the newest jobs are those that run.
PAGES = (
    Page("overview", ("1",), "CLUSTER"),
    Page("members", ("2", "j"), "STATE"),
    Page("member", ("Enter",), "incarnation", ("Escape",)),
    Page("jobs", ("3", "G", "k"), "PROGRESS"),
    Page("job-vms", ("Enter",), "SHARE OF"),
    Page("job-batches", ("Right",), "batch"),
    Page("job-dead-letters", ("Right",), "REASON", ("Escape",)),
    Page("assignments", ("4",), "NOW"),
    Page("files", ("5", "j"), "HOLDERS"),
    Page("models", ("6",), "READY"),
    Page("logs", ("7",), "following"),
    Page("events", ("8",), "KIND"),
    Page("form", ("a", "n"), "MODEL", ("Escape",)),
    Page("line", (":", *"add-job"), "add-job MODEL", ("Escape",)),
    Page("palette", ("C-p",), "type to search", ("Escape",)),
    Page("help", ("?",), "search"),
)
PICTURES = ("overview", "members", "job-dead-letters")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/console_screens.sh", description=__doc__)
    parser.add_argument("--warm-up", type=int, default=45, metavar="S", help="seconds before the kill (45)")
    parser.add_argument("--only-pictures", action="store_true", help="leave the text files as they are")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/console", metavar="DIR", help="target (docs/console)")
    parser.add_argument("--dir", type=Path, default=ROOT / ".demo/screens", help="working directory (.demo/screens)")
    parser.add_argument("--programs", type=Path, default=ROOT / "target/release", help=argparse.SUPPRESS)
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not shutil.which("tmux"):
        parser.error("tmux is not installed")
    return arguments


class Terminal:
    """A console in a tmux session of its own, which nobody else's settings reach."""

    def __init__(self, cluster: LocalCluster, size: tuple[int, int]) -> None:
        self.socket = f"idunno-screens-{os.getpid()}"
        self.missed: list[str] = []
        width, height = map(str, size)
        # Settings of nobody, who has seen the tour.
        self.settings = tempfile.TemporaryDirectory()
        Path(self.settings.name, "tour-seen").touch()
        settings = ["LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TERM=xterm-256color", f"IDUNNO_CONFIG_DIR={self.settings.name}"]
        console = ["env", "-u", "NO_COLOR", "-u", "IDUNNO_CLUSTER", *settings]
        # The header shows the directory as it is given.
        console += [cluster.idunno, "--dir", cluster.folder.name]
        start = ("new-session", "-d", "-c", str(cluster.folder.parent), "-x", width, "-y", height)
        self.tmux("-f", "/dev/null", *start, *console, ";", "set-option", "status", "off")

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-L", self.socket, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self.socket, "kill-server"], check=False, capture_output=True)
        self.settings.cleanup()

    def text(self) -> str:
        return self.tmux("capture-pane", "-p")

    def coloured(self) -> str:
        return self.tmux("capture-pane", "-p", "-e", "-N")

    def await_text(self, text: str) -> None:
        """Waits for a text. One that does not come is noted, and what there is is captured all the same."""
        deadline = time.monotonic() + PAGE_TIMEOUT_S
        while text not in self.text():
            if time.monotonic() > deadline:
                self.missed.append(text)
                return
            time.sleep(0.05)

    def open(self, page: Page) -> None:
        self.press(*page.keys)
        self.await_text(page.shows)
        time.sleep(PAGE_SETTLING_S)

    def leave(self, page: Page) -> None:
        if page.back:
            self.press(*page.back)
            time.sleep(ESCAPE_S)

    def press(self, *keys: str) -> None:
        # One by one: the console redraws in between, as it does under a person's hands.
        for key in keys:
            self.tmux("send-keys", key)
            time.sleep(0.1)


@contextmanager
def watched_failover(arguments: argparse.Namespace, cluster: LocalCluster, size: tuple[int, int]) -> Iterator[Terminal]:
    """A console on two jobs that run, whose coordinator is killed. Yields twice the work: the console during it."""
    jobs = [cluster.run("add-job", model, "--dataset", "photos")["job"] for model in MODELS]
    cluster.run("start-job", *jobs)
    terminal = Terminal(cluster, size)
    killed = []
    try:
        terminal.await_text("LIVE")
        # The charts need a past.
        time.sleep(arguments.warm_up)
        killed = cluster.run("local", "kill", "--coordinator")["killed"]
        yield terminal
    finally:
        terminal.close()
        if killed:
            cluster.run("local", "start", killed[0]["name"])
            wait_until_whole(cluster)
        for job in jobs:
            cluster.run("cancel-job", job, "--yes")


def wait_until_whole(cluster: LocalCluster) -> None:
    """Waits until all members are up again and their model servers answer."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if all(member["state"] == "up" for member in cluster.run("list_mem")["items"]):
            return
        time.sleep(0.5)
    raise Failed("the cluster was not whole within 60 s")


def capture_text(arguments: argparse.Namespace, cluster: LocalCluster, size: tuple[int, int]) -> list[str]:
    """Every page as text; what was not seen."""
    suffix = f"{size[0]}x{size[1]}"

    def write(name: str, terminal: Terminal) -> None:
        (arguments.out / f"{name}-{suffix}.txt").write_text(terminal.text(), encoding="utf-8")

    with watched_failover(arguments, cluster, size) as terminal:
        terminal.await_text("ELECTING")
        write("electing", terminal)
        terminal.await_text("LIVE")
        time.sleep(FAILOVER_SETTLING_S)
        for page in PAGES:
            terminal.open(page)
            write(page.name, terminal)
            terminal.leave(page)
        return terminal.missed


def capture_pictures(arguments: argparse.Namespace, cluster: LocalCluster) -> list[str]:
    """The pictures; what was not seen."""
    with watched_failover(arguments, cluster, PICTURE_SIZE) as terminal:
        terminal.await_text("ELECTING")
        terminal.await_text("LIVE")
        time.sleep(FAILOVER_SETTLING_S)
        for page in PAGES:
            terminal.open(page)
            if page.name in PICTURES:
                screen = terminal.coloured()
                (arguments.dir / f"{page.name}.ansi").write_text(screen, encoding="utf-8")
                picture = terminal_svg.draw(screen, f"idunno: {page.name.replace('-', ' ')}")
                (arguments.out / f"{page.name}.svg").write_text(picture, encoding="utf-8")
            terminal.leave(page)
            if page.name == PICTURES[-1]:
                break
        return terminal.missed


def put_photos(cluster: LocalCluster, photos: Path, folder: Path) -> None:
    """Stores the photos, with a few files that are no images."""
    broken = folder / "broken"
    broken.mkdir(exist_ok=True)
    for number in range(1, BROKEN_FILES + 1):
        (broken / f"broken-{number}.jpg").write_text(f"no image {number}\n", encoding="utf-8")
    for directory in (photos, broken):
        cluster.run("populate-test-data", directory, "--dataset", "photos")


def main() -> None:
    arguments = parse_arguments()
    arguments.out = arguments.out.absolute()
    arguments.dir = arguments.dir.absolute()
    for folder in (arguments.out, arguments.dir):
        folder.mkdir(parents=True, exist_ok=True)
    cluster = LocalCluster(arguments.programs, arguments.python, arguments.dir / "lab")
    cluster.clear()
    photos = make_dataset(arguments.python, "photos", PHOTOS, arguments.dir)
    missed = []
    try:
        say(f"starting {MEMBERS} members")
        cluster.up(MEMBERS)
        put_photos(cluster, photos, arguments.dir)
        cluster.run("train-start", *MODELS, "mnist-mlp", "--wait")
        say("capturing the pictures")
        missed += capture_pictures(arguments, cluster)
        for size in () if arguments.only_pictures else TEXT_SIZES:
            say(f"capturing the pages at {size[0]} by {size[1]}")
            missed += capture_text(arguments, cluster, size)
    finally:
        cluster.down()
    if missed:
        raise Failed(f"captured all, but never saw {', '.join(map(repr, missed))}: are the keys in PAGES still right?")


if __name__ == "__main__":
    run_program(main)
