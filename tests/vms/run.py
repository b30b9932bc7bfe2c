"""The multi-VM test: `scripts/test-vms.sh` runs it; tests/vms/README.md says what it does."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import breaks
import image
import tasks
from cluster import Cluster
from machines import IN_LAB, Failed, Lab, clear, enter_lab, furnish_lab, run, say
from scenario import Scenario

ROOT = image.ROOT
UNDER_LOAD, ALONE = breaks.UNDER_LOAD | tasks.UNDER_LOAD, breaks.ALONE | tasks.ALONE


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/test-vms.sh", description="Boots machines and breaks them.")
    parser.add_argument("--members", type=int, default=5, metavar="N", help="members, 5 to 9 (5)")
    parser.add_argument("--photos", type=int, default=200, metavar="N", help="queries of each job (200)")
    parser.add_argument("--model", default="squeezenet1.1", help="the jobs' model (squeezenet1.1)")
    parser.add_argument("--programs", type=Path, default=ROOT / "target/release", metavar="DIR", help="idunno, idunnod")
    parser.add_argument("--dir", type=Path, default=ROOT / "target/vms", metavar="DIR", help="working directory")
    parser.add_argument("--only", metavar="A,B", help="only these trials")
    parser.add_argument("--keep", action="store_true", help="wait for Ctrl-C at the end, so that you can look around")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--started", type=float, default=time.time(), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set((arguments.only or "").split(",")) - {"", *UNDER_LOAD, *ALONE}:
        parser.error(f"--only: unknown {', '.join(unknown)}; choose from {', '.join([*UNDER_LOAD, *ALONE])}")
    if not 5 <= arguments.members <= 9:
        parser.error("--members takes 5 to 9")
    for program in ("idunno", "idunnod"):
        if not (arguments.programs / program).exists():
            parser.error(f"{arguments.programs / program} does not exist: cargo build --release, or --programs DIR")
    arguments.dir, arguments.programs = arguments.dir.absolute(), arguments.programs.absolute()
    return arguments


def chosen(trials, only):
    return trials if only is None else {name: trials[name] for name in trials if name in only.split(",")}


def package(arguments, version):
    """Makes the Debian package of the programs, with this version."""
    out = arguments.dir / "packages"
    words = [ROOT / "scripts/package.sh", "--programs", arguments.programs, "--out", out]
    return Path(run("nice", *words, "--version", version, timeout_s=600).strip())


def again(package, version, next_version):
    """Makes the same package with another version."""
    tree = package.parent / "tree"
    run("dpkg-deb", "--raw-extract", package, tree)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace(f"Version: {version}\n", f"Version: {next_version}\n"))
    out = package.with_name(package.name.replace(version, next_version))
    run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, out)
    clear(tree)


def unpack_source(arguments, wheels):
    """What scripts/install.sh needs: the repository with programs, and a directory with wheels and data files."""
    place = arguments.dir / "source"
    clear(place)
    for part in ("scripts", "python_model_server"):
        shutil.copytree(ROOT / part, place / part)
    shutil.copytree(wheels, place / "wheels", copy_function=os.link)
    (place / "target/release").mkdir(parents=True)
    for program in ("idunno", "idunnod"):
        shutil.copy(arguments.programs / program, place / "target/release")


def prepare(arguments):
    """Makes what needs the network, before the lab is entered."""
    arguments.dir.mkdir(parents=True, exist_ok=True)
    image.base(arguments.dir)
    wheels = image.wheels(arguments.dir)
    clear(arguments.dir / "packages")
    version = run("sed", "-n", 's/^version = "\\(.*\\)"/\\1/p', ROOT / "Cargo.toml").split()[0]
    say("making two Debian packages: one to install, one to upgrade to")
    first = package(arguments, version)
    again(first, version, f"{version}+next")
    unpack_source(arguments, wheels)


def work(arguments):
    """Everything in the lab."""
    furnish_lab()
    below, wheels = image.base(arguments.dir), image.wheels(arguments.dir)
    first, second = sorted((arguments.dir / "packages").glob("*.deb"), key=lambda place: "+next" in place.name)
    layers = [image.prepared(arguments.dir, below, wheels, first), below]
    photos = image.photos(arguments.dir, layers, arguments.photos)
    prepared_s = time.time() - arguments.started
    say(f"Debian, wheels, packages and photos are ready after {prepared_s:.0f} s")
    folder = arguments.dir / "run"
    clear(folder)
    shares = {"/packages": arguments.dir / "packages", "/wheels": wheels, "/source": arguments.dir / "source"}
    lab = Lab(folder, layers, shares)
    try:
        introducer = lab.machine("intro", 10)
        members = [lab.machine(f"vm{number}", 10 + number) for number in range(1, arguments.members + 1)]
        # A copy: the programs may be rebuilt meanwhile.
        program = folder / "idunno"
        run("cp", arguments.programs / "idunno", program)
        cluster = Cluster(program, members, folder)
        scenario = Scenario(lab, introducer, members, cluster, photos, arguments.model, (first.name, second.name))
        scenario.figures["prepared_s"] = round(prepared_s, 1)
        try:
            scenario.run(*(chosen(trials, arguments.only) for trials in (UNDER_LOAD, ALONE)))
        finally:
            scenario.report(arguments.json)
            if arguments.keep:
                look_around(cluster)
    finally:
        lab.end()


def look_around(cluster):
    say("the machines stay up until Ctrl-C; a shell among them:")
    say(f"nsenter -m -n -p -t $(pgrep -P $(pgrep -P {os.environ[IN_LAB]}))")
    say(f"and there: {cluster.program} --identity {cluster.identity} --cluster {cluster.addresses()}")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass


def main():
    arguments = parse_arguments()
    try:
        if not os.environ.get(IN_LAB):
            prepare(arguments)
            enter_lab([sys.executable, *sys.argv, "--started", str(arguments.started)])
        work(arguments)
    except KeyboardInterrupt:
        sys.exit("ended: interrupted")
    except (Failed, OSError, subprocess.SubprocessError, json.JSONDecodeError) as error:
        sys.exit(f"failed: {error}")


if __name__ == "__main__":
    main()
