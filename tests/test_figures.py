"""What the README and the pages say of long runs against what those runs printed, kept in `docs/figures`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
RUNS = sorted((ROOT / "docs" / "figures").glob("chaos-*.json"), key=lambda path: int(path.stem.rpartition("-")[2]))


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def words(page: str) -> str:
    """A page on one line, for a sentence may be broken anywhere."""
    return re.sub(r"\s+", " ", (ROOT / page).read_text())


def test_the_readme_says_what_the_longest_run_found() -> None:
    run = read(RUNS[-1])
    p50, p99 = (run["recovery_ms"][name] / 1000 for name in ("p50", "p99"))
    said = (
        f"{run['minutes']:g} minutes of it on three brokers: {run['sagas']:,} sagas, {run['faults']:,} faults of "
        f"{run['fault_kinds']} kinds, {counted(run['violations'])}; after a `kill -9` the next owner decided within "
        f"{p50:.1f} s at the median and {p99:.1f} s at the 99th percentile"
    )
    assert said in words("README.md")


def counted(violations: int) -> str:
    return "1 violation" if violations == 1 else f"{violations} violations"


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_page_of_chaos_has_a_row_of_each_run(path: Path) -> None:
    run = read(path)
    recovery = run["recovery_ms"]
    cells = [
        f"{run['minutes']:g}",
        str(run["seed"]),
        f"{run['sagas']:,}",
        f"{run['decisions']:,}",
        f"{run['effects']:,}",
        f"{run['faults']:,} of {run['fault_kinds']} kinds",
        str(run["workers_killed"]),
        f"{recovery['p50'] / 1000:.1f}, {recovery['p99'] / 1000:.1f}",
        str(run["violations"]),
    ]
    assert f"| {' | '.join(cells)} |" in words("docs/chaos.md")
    assert run["violations"] == len(run["violation_list"])
    for violation in run["violation_list"]:
        assert violation.partition(": ")[2][-40:] in words("docs/chaos.md"), "what was violated is said there"
