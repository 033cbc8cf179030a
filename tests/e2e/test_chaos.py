"""A short run of chaos on three real brokers: more than ten kinds of faults, sagas of every type, nothing violated."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.chaos.history import read_lines
from orchestrator.chaos.verdict import conclude

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(560)]
MINUTES = "0.9"
PER_SECOND = "12"
TYPES = 11
WITHIN_S = 480.0


def run_chaos(*options: str) -> tuple[int, str]:
    """The exit code and all that it said. Where it takes too long it is told to end, and ends all that it started."""
    command = [sys.executable, "-m", "orchestrator.cli", "chaos", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            told, _ = process.communicate(timeout=WITHIN_S)
        except BaseException:
            process.terminate()
            raise
    return process.returncode, told


def test_chaos_for_a_minute_violates_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    options = ("--minutes", MINUTES, "--seed", "11", "--sagas-per-second", PER_SECOND, "--workers", "2")
    code, told = run_chaos(*options, "--folder", str(folder), "--json")
    assert code == 0, told[-6_000:]
    result = json.loads(told.splitlines()[-1])
    assert result["violations"] == 0
    assert result["violation_list"] == []
    assert result["fault_kinds"] >= 10
    assert result["fault_kinds"] == len(result["faults_by_kind"])
    assert result["sagas"] > 300
    assert len(result["sagas_by_type"]) == TYPES
    assert all(result["sagas_by_type"].values())
    assert result["effects"] > result["sagas"] / 4
    assert result["stores_compared"] > 0
    assert (result["brokers"], result["replication"], result["workers"]) == (3, 3, 2)
    lines = list(read_lines(folder / "history.jsonl"))
    faults = result["faults"] + result["faults_not_done"]
    assert sum(line["what"] == "fault" for line in lines) == faults
    assert sum(line["what"] == "healed" for line in lines) == faults
    settings = json.loads((folder / "settings.json").read_text())
    assert {name: result[name] for name in settings} == settings
    assert settings["command"] in (folder / "report.html").read_text()
    assert str(folder) in told.splitlines()[0]
    assert json.loads((folder / "result.json").read_text()) == result
    assert "No invariant was violated" in (folder / "report.html").read_text()
    assert any((folder / "raw").glob("saga.journal-*.jsonl"))
    assert conclude(folder).result == {**result, "folder": str(folder)}
    check_planted(folder)


def check_planted(folder: Path) -> None:
    """An effect that is entered a second time in a service's book turns the verdict."""
    with closing(sqlite3.connect(folder / "books" / "stock.db")) as book, book:
        book.execute(
            "INSERT INTO book (key, saga_id, run, step, direction, entry)"
            " SELECT key, saga_id, run, step, direction, entry FROM book WHERE saga_id LIKE 'order-%' LIMIT 1"
        )
    outcome = conclude(folder)
    (story,) = outcome.stories
    assert story.violation.startswith("C3")
    assert "had its effect twice" in story.violation
    assert any("SagaStarted" in line for line in story.lines)
    assert "1 violations of invariants" in (folder / "report.html").read_text()
