"""The public test suites of S3, unchanged, against a local cluster's gateway.

`s3s-e2e` is a program: `cargo install s3s-e2e --version 0.14.1`; `S3S_E2E` names it if it is not on the `PATH`. ceph's
`s3-tests` is a repository: `S3_TESTS` names a clone of it. They are skipped without them. What is not meant to pass
stands in `suites_expected.py`, by reason; docs/s3.md explains the reasons. A test that fails beyond that is a fault.
"""

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as tree
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest
from suites_expected import E2E_FAILS, FAILS, MARKS_NOT_MEANT

# Some tests are long, and there are some 500.
SUITE_S = 3_600


def compared(
    capsys,
    suite: str,
    passed: set[str],
    failed: set[str],
    fails: dict[str, list[str]],
    not_run: int,
) -> None:
    """Prints the numbers of a suite, and compares its failures with those that have a reason."""

    def reason(test: str) -> str | None:
        fits = (why for why, patterns in fails.items() if any(fnmatch(test, pattern) for pattern in patterns))
        return next(fits, None)

    counts = Counter(reason(test) for test in failed)
    without = sorted(test for test in failed if reason(test) is None)
    with capsys.disabled():
        print(f"\n{suite}: {len(passed)} passed, {len(failed)} failed, {not_run} not meant")
        for why, count in counts.most_common():
            print(f"  {count:3} {why or f'without a reason: {without}'}")
    assert not without


def test_s3s_e2e(environment, capsys, tmp_path):
    program = os.environ.get("S3S_E2E") or shutil.which("s3s-e2e")
    if not program:
        pytest.skip("S3S_E2E names no s3s-e2e: cargo install s3s-e2e --version 0.14.1")
    report = tmp_path / "report.json"
    done = subprocess.run(
        [program, "--json", report],
        env={**environment, "AWS_REGION": "us-east-1"},
        capture_output=True,
        text=True,
        timeout=SUITE_S,
    )
    assert report.is_file(), done.stdout + done.stderr
    passed, failed = set(), set()
    for suite in json.loads(report.read_text())["suites"]:
        for fixture in suite["fixtures"]:
            for case in fixture["cases"]:
                (passed if case["passed"] else failed).add(f"{suite['name']}/{fixture['name']}/{case['name']}")
    assert passed or failed, done.stdout + done.stderr
    compared(capsys, "s3s-e2e", passed, failed, E2E_FAILS, 0)


def settings(cluster, key) -> str:
    """The configuration of s3-tests. All its users are one, because the store has no owners."""
    users = ["s3 main", "s3 alt", "s3 tenant", "iam", "iam root", "iam alt root"]
    user = (
        f"user_id = idunno\ndisplay_name = idunno\nemail = tester@example.com\ntenant = none\n"
        f"access_key = {key.id}\nsecret_key = {key.secret}\n"
    )
    server = f"[DEFAULT]\nhost = 127.0.0.1\nport = {cluster.port}\nis_secure = False\nssl_verify = False\n"
    fixtures = "[fixtures]\nbucket prefix = test-{random}-\n"
    return server + fixtures + "".join(f"[{name}]\n{user}" for name in users)


def test_s3_tests(cluster, key, environment, capsys, tmp_path):
    checkout = os.environ.get("S3_TESTS")
    if not checkout:
        pytest.skip("S3_TESTS names no clone of https://github.com/ceph/s3-tests")
    config, report = tmp_path / "s3tests.conf", tmp_path / "report.xml"
    config.write_text(settings(cluster, key))
    marks = " or ".join(MARKS_NOT_MEANT)
    files = ["s3tests/functional/test_s3.py", "s3tests/functional/test_headers.py"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-q",
            "--junit-xml",
            report,
            "-m",
            f"not ({marks})",
            *files,
        ],
        env={**environment, "S3TEST_CONF": str(config)},
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=SUITE_S,
    )
    assert report.is_file(), done.stdout[-4_000:] + done.stderr[-4_000:]
    passed, failed = set(), set()
    for case in tree.parse(report).getroot().iter("testcase"):
        outcomes = {child.tag for child in case}
        if "skipped" not in outcomes:
            wrong = outcomes & {"failure", "error"}
            (failed if wrong else passed).add(case.get("name"))
    (tmp_path / "output").write_text(done.stdout)
    summary = done.stdout.strip().splitlines()[-1]
    deselected = next(
        (int(part.split()[0]) for part in summary.split(", ") if "deselected" in part),
        0,
    )
    assert len(passed) + len(failed) > 100, summary
    compared(
        capsys,
        f"s3-tests of {Path(checkout).name}",
        passed - failed,
        failed,
        FAILS,
        deselected,
    )
