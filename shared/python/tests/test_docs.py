"""What docs/python.md shows is run as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import idunno

PAGE = Path(__file__).parents[3] / "docs/python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_first_result_takes_ten_lines(tmp_path: Path) -> None:
    first = BLOCKS[0]
    assert len([line for line in first.splitlines() if line.strip()]) <= 10
    script = tmp_path / "first.py"
    script.write_text(first)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 rec.sport.hockey", "1 sci.space"]


def test_the_decorated_model_runs(cluster: idunno.LocalCluster, tmp_path: Path) -> None:
    block = next(block for block in BLOCKS if "@idunno.model" in block)
    script = tmp_path / "model.py"
    script.write_text(
        f"import idunno\nclient = idunno.connect(dir={str(cluster.dir)!r})\n"
        + block.replace("client.run(WordCount", "job = client.run(WordCount")
        + "\nprint(job.to_arrow()['output'].to_pylist())\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[2, 1]\n"
