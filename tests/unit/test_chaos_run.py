"""What is asked of a run of chaos, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator import cli
from orchestrator.broker.process import pid_exists
from orchestrator.chaos import sagas
from orchestrator.chaos.guard import OURS, watch
from orchestrator.chaos.run import Chaos, Plan, _leave
from orchestrator.errors import ConfigurationError


def silent(text: str) -> None:
    """Nobody listens."""


def test_what_makes_no_sense_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    for wrong in (
        {"minutes": 0},
        {"minutes": 1, "per_second": 0},
        {"minutes": 1, "workers": 0},
        {"minutes": 1, "brokers": 0},
    ):
        with pytest.raises(ConfigurationError):
            Plan(**{"seed": 1, **wrong})  # type: ignore[arg-type]
    (tmp_path / "something").write_text("")
    with pytest.raises(ConfigurationError, match="is not empty"):
        Chaos(Plan(1, 1, folder=tmp_path), silent)
    ran = CliRunner().invoke(cli.saga, ["chaos", "--minutes", "0"])
    assert ran.exit_code == 2


def test_replicas_are_as_many_as_there_are_brokers_up_to_three() -> None:
    assert [Plan(1, 1, brokers=brokers).replication for brokers in (1, 2, 3, 5)] == [1, 2, 3, 3]


def test_a_run_without_a_flaw_leaves_the_page_and_the_result(tmp_path: Path) -> None:
    for name in ("report.html", "result.json", "history.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "saga.journal-0.jsonl").write_text("")
    _leave(tmp_path, ["report.html", "result.json"])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["report.html", "result.json"]


def test_the_settings_of_a_run_are_kept(tmp_path: Path) -> None:
    chaos = Chaos(Plan(2, 7, 20.0, folder=tmp_path / "new"), silent)
    settings = json.loads(json.dumps(chaos._settings()))
    assert (settings["seed"], settings["minutes"], settings["sagas_per_second"]) == (7, 2, 20.0)
    chaos._histories.close()


def test_a_service_is_as_slow_as_its_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sagas.dawdle("stock")  # no folder is named
    monkeypatch.setenv(sagas.BOOKS, str(tmp_path))
    sagas.slow_file(tmp_path, "stock").write_text("100")
    began = time.monotonic()
    sagas.dawdle("stock")
    assert time.monotonic() - began >= 0.1
    sagas.slow_file(tmp_path, "cards").write_text("600000")
    sagas.dawdle("post")


def test_who_is_started_by_a_run_that_is_killed_is_killed_too() -> None:
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()", OURS], stdin=subprocess.PIPE, start_new_session=True
    )
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        assert watch([f"{sleeper.pid}\n", "end\n"]) == 0
        assert pid_exists(sleeper.pid)
        os.killpg(sleeper.pid, signal.SIGSTOP)
        assert watch([f"{sleeper.pid}\n", f"{stranger.pid}\n"]) == 1
        assert sleeper.wait(20) == -signal.SIGKILL
        assert pid_exists(stranger.pid)
    finally:
        for each in (sleeper, stranger):
            each.kill()
            each.communicate()
