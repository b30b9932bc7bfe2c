"""Looks up all locked Python packages in the advisory database of the Python package index, by pip-audit.

The exit code is 0 if no package has a known vulnerability, 1 if one has, and 3 if no database could be asked, because
there is no network or the package index is a mirror without advisories.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("python_model_server/requirements-dev.lock", "scripts/requirements-dev.lock", "scripts/requirements-ray.lock")
VULNERABLE, UNKNOWN = 1, 3


def judge(report):
    """The exit code for pip-audit's report, and what to print."""
    packages = report["dependencies"]
    found = [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'none'}"
        for package in packages
        for flaw in package.get("vulns", [])
    ]
    if found:
        return VULNERABLE, found
    skipped = [package["skip_reason"] for package in packages if "skip_reason" in package]
    if skipped or not packages:
        return UNKNOWN, [f"{len(skipped)} of {len(packages)} packages could not be looked up: {' '.join(skipped[:1])}"]
    return 0, []


def main():
    words = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--format=json"]
    words += ["--progress-spinner=off", *(f"--requirement={ROOT / lock}" for lock in LOCKS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        print(f"pip-audit ended with {done.returncode}: {said[-1]}", file=sys.stderr)
        return UNKNOWN
    code, lines = judge(report)
    for line in lines:
        print(f"pip-audit: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
