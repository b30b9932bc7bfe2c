"""Writes the bill of materials of a release, in CycloneDX's JSON: sbom.py FILE

It lists the crates that are compiled into the programs and the wheel, with the checksums of the lock files, and the
Python packages that the model server's lock file names. It is written only if it is valid by CycloneDX's schema. The
same sources and SOURCE_DATE_EPOCH make the same file, byte by byte.

Needs cargo, and the packages of scripts/requirements-release.lock.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parent.parent
# Each workspace with the packages of it that are released, and the features that they are built with.
WORKSPACES = {
    ".": (["idunno-daemon", "idunno-console"], ["idunno-daemon/parquet", "idunno-console/parquet"]),
    "daemon/gateway": (["idunno-gateway"], []),
    "shared/python": (["idunno-python"], ["parquet"]),
}
PLATFORM = "x86_64-unknown-linux-gnu"
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def metadata(folder: Path, features: list[str]) -> dict:
    """What cargo knows of a workspace, with its graph of packages."""
    words = ["cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={PLATFORM}"]
    words += [f"--features={','.join(features)}"] if features else []
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def compiled(known: dict, roots: list[str]) -> set[str]:
    """The packages that are compiled into these: not what only builds or tests them."""
    nodes = {node["id"]: node for node in known["resolve"]["nodes"]}
    left = [package["id"] for package in known["packages"] if package["name"] in roots]
    found = set()
    while left:
        package = left.pop()
        if package in found:
            continue
        found.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                left.append(dependency["pkg"])
    return found


def crates() -> Iterator[Component]:
    """The crates of others, as components."""
    for folder, (roots, features) in WORKSPACES.items():
        lock = tomllib.loads((ROOT / folder / "Cargo.lock").read_text(encoding="utf-8"))
        sums = {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}
        known = metadata(ROOT / folder, features)
        wanted = compiled(known, roots)
        for package in known["packages"]:
            if package["id"] not in wanted or package["source"] is None:
                continue
            name, version = package["name"], package["version"]
            yield component("cargo", name, version, sums[name, version], package["license"])


def python_packages() -> Iterator[Component]:
    """What idunno-setup-python installs on a VM. A package has a wheel for each platform, so no single checksum."""
    lock = (ROOT / "python_model_server/requirements.lock").read_text(encoding="utf-8")
    for name, version in PINNED.findall(lock):
        yield component("pypi", name.lower(), version, None, None)


def component(kind: str, name: str, version: str, checksum: str | None, licence: str | None) -> Component:
    url = PackageURL(kind, None, name, version)
    # Cargo once allowed a slash for OR.
    licences = [LicenseFactory().make_from_string(licence.replace("/", " OR "))] if licence else []
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=checksum)] if checksum else []
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        purl=url,
        bom_ref=str(url),
        licenses=licences,
        hashes=hashes,
    )


def document() -> str:
    """The bill of materials. Raises ValueError if it is not valid."""
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    version = cargo["workspace"]["package"]["version"]
    bom = Bom()
    bom.metadata.component = Component(
        type=ComponentType.APPLICATION, name="idunno", version=version, bom_ref=f"idunno@{version}"
    )
    # A crate that two workspaces share is one component.
    for one in [*crates(), *python_packages()]:
        bom.components.add(one)
    parts = sorted(one.bom_ref.value for one in bom.components)
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, "\n".join([version, *parts]))
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    bom.metadata.timestamp = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    bom.register_dependency(bom.metadata.component, bom.components)
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error:
        raise ValueError(f"the bill of materials is not valid: {error}")
    return text


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    Path(sys.argv[1]).write_text(document() + "\n", encoding="utf-8")
