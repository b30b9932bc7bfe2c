"""What the machines are made of: Debian, the wheels of the model server, and a disk with its Python environment.

Everything lies in one folder and is made once; what it was made from is part of each name.
"""

import hashlib
import os
import shutil
from pathlib import Path

from machines import clear, overlay, run, say

ROOT = Path(__file__).resolve().parent.parent.parent
RELEASE = "bookworm"
# Debian's own, unless it is set.
MIRROR = os.environ.get("IDUNNO_VMS_MIRROR")
# What the model server's environment is made of.
LOCKS = ("requirements.lock", "src/idunno_model_server/data_files.toml")
PACKAGES = "systemd,systemd-sysv,dbus,adduser,iproute2,procps,python3,python3-venv,openssh-server"


def name_of(kind, *parts):
    return f"{kind}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"


def finished(place, make):
    """A directory that `make` fills; an unfinished one is made again."""
    done = place.with_name(f"{place.name}.done")
    if not done.exists():
        clear(place)
        place.mkdir(parents=True)
        make(place)
        done.touch()
    return place


def base(folder):
    """A Debian with systemd and Python, about 300 MB."""

    def make(place):
        say(f"fetching Debian {RELEASE}, which takes minutes")
        words = ["nice", "debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, place]
        run(*words, *filter(None, [MIRROR]), timeout_s=3600)
        shutil.rmtree(place / "var/cache/apt", ignore_errors=True)

    return finished(folder / name_of("debian", RELEASE, PACKAGES), make)


def wheels(folder):
    """The model server's dependencies and its data files, for the Python of that Debian."""
    sources = ROOT / "python_model_server"
    wanted = [(sources / name).read_text() for name in LOCKS]

    def make(place):
        say("fetching the wheels of the model server")
        python = os.environ.get("PYTHON", "python3")
        command = [python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", f"--dest={place}"]
        # The package itself comes with the Debian package.
        command += ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
        run(*command, "-r", sources / "requirements.lock", timeout_s=1200)
        path = f"PYTHONPATH={sources / 'src'}"
        run("env", path, python, "-m", "idunno_model_server.fetch_data", "--quiet", place, timeout_s=1200)

    return finished(folder / name_of("wheels", *wanted), make)


def prepared(folder, below, wheels, package):
    """A layer over the base, like an operator's image: network enabled, Python environment made."""
    sources = ROOT / "python_model_server"
    wanted = [(sources / name).read_text() for name in LOCKS]
    script = (ROOT / "scripts/idunno-setup-python").read_text()

    def make(place):
        say("making the machines' common disk: the model server's environment")
        disk, work = place / "disk", place / "work"
        for part in (place / "upper", disk, work):
            part.mkdir()
        overlay(disk, [below], place / "upper", work)
        try:
            # With an empty file each machine takes an id of its own at its first boot.
            (disk / "etc/machine-id").write_text("")
            (disk / "var/lib/dbus/machine-id").unlink(missing_ok=True)
            (disk / "etc/resolv.conf").unlink(missing_ok=True)
            systemctl = ["systemctl", f"--root={disk}"]
            run(*systemctl, "enable", "systemd-networkd", "systemd-networkd-wait-online")
            run(*systemctl, "mask", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer")
            run("dpkg-deb", "--extract", package, disk / "tmp/package")
            (disk / "tmp/wheels").mkdir()
            run("mount", "--bind", wheels, disk / "tmp/wheels")
            inside = "/tmp/package/usr/sbin/idunno-setup-python --source /tmp/package/usr/share/idunno/python"
            run("chroot", disk, "sh", "-c", f"{inside} --wheels /tmp/wheels", timeout_s=1200)
            run("umount", disk / "tmp/wheels")
            (disk / "tmp/wheels").rmdir()
            shutil.rmtree(disk / "tmp/package")
        finally:
            run("umount", "--recursive", disk, check=False)

    name = name_of("prepared", below.name, script, Path(__file__).read_text(), *wanted)
    return finished(folder / name, make) / "upper"


def photos(folder, layers, count):
    """Labelled photos for the main job, made by the model server's own package."""

    def make(place):
        disk, upper, work = (folder / f"photos-{part}" for part in ("disk", "upper", "work"))
        for part in (disk, upper, work):
            clear(part)
            part.mkdir()
        overlay(disk, layers, upper, work)
        try:
            (disk / "mnt/photos").mkdir()
            run("mount", "--bind", place, disk / "mnt/photos")
            python = ["/opt/idunno/venv/bin/python", "-m", "idunno_model_server.make_dataset", "photos", "/mnt/photos"]
            run("chroot", disk, *python, "--images", count, timeout_s=600)
        finally:
            run("umount", "--recursive", disk, check=False)
            for part in (disk, upper, work):
                clear(part)

    return finished(folder / f"photos-{count}", make)
