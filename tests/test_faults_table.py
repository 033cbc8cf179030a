"""`docs/faults.md` against the code: every row is there, and what it names exists."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from orchestrator.chaos.schedule import KINDS as CHAOS
from orchestrator.simulation.nemesis import KINDS as SIMULATED
from orchestrator.simulation.network import FAULTS

ROOT = Path(__file__).parent.parent
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in (ROOT / "docs" / "faults.md").read_text().splitlines()
    if re.match(r"\| \d", line)
]
CHAOTIC = {kind.name for kind in CHAOS}


@cache
def source(path: str) -> str:
    return (ROOT / path).read_text()


def missing(shown: str) -> list[str]:
    """What of a cell's names does not exist."""
    found = []
    for where, name in re.findall(r"(simulator |chaos |)`([^`]+)`", shown):
        if where == "simulator ":
            exists = name in SIMULATED or name in FAULTS
        elif where == "chaos ":
            exists = name in CHAOTIC
        elif "::" in name:
            path, _, test = name.partition("::")
            exists = (ROOT / path).is_file() and f"\ndef {test}(" in source(path)
        else:
            exists = name.startswith("make ") and f"\n{name.removeprefix('make ')}:" in source("Makefile")
        if not exists:
            found.append(where + name)
    return found


def test_every_fault_of_the_list_has_its_row() -> None:
    numbers: list[int] = []
    for number, *_ in ROWS:
        first, _, last = number.partition("–")
        numbers += range(int(first), int(last or first) + 1)
    assert numbers == list(range(1, 54))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_a_row_names_exists_or_it_says_that_nothing_does(row: tuple[str, ...]) -> None:
    _, _, _, shown = row
    assert missing(shown) == []
    assert "`" in shown or shown.startswith("not shown")
    assert shown.count("not shown") == len(re.findall(r"(?:^|; )not shown: \w", shown)), "what is not, at the end"


def test_every_kind_of_chaos_is_in_a_row() -> None:
    named = {name for row in ROWS for name in re.findall(r"chaos `([^`]+)`", row[3])}
    assert named == CHAOTIC


def test_a_name_that_is_not_there_is_found() -> None:
    assert missing("`tests/unit/test_timers.py::test_of_nothing`, simulator `rain`, chaos `rain`, `make rain`") == [
        "tests/unit/test_timers.py::test_of_nothing",
        "simulator rain",
        "chaos rain",
        "make rain",
    ]
