"""What is asked of a run of chaos, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator import cli
from orchestrator.broker.process import pid_exists
from orchestrator.chaos import sagas
from orchestrator.chaos.guard import OURS, watch
from orchestrator.chaos.history import Struck
from orchestrator.chaos.kept import Material, write_material
from orchestrator.chaos.run import LEFT, Chaos, Plan, _leave, _settings, _why
from orchestrator.chaos.verdict import conclude
from orchestrator.errors import BrokerUnavailable, ConfigurationError, SagaError
from orchestrator.simulation.merging import code_digest


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


def test_a_run_without_a_flaw_leaves_what_tells_it_and_not_what_is_large(tmp_path: Path) -> None:
    kept = ["history.jsonl", "report.html", "result.json", "run.json", "settings.json"]
    for name in (*kept, "told.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "saga.journal-0.jsonl").write_text("")
    _leave(tmp_path, LEFT)
    assert sorted(each.name for each in tmp_path.iterdir()) == kept


def test_a_run_that_fails_has_said_where_its_settings_are_and_is_judged_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGA_JAVA", str(tmp_path / "no-java"))
    folder, said = tmp_path / "new", list[str]()
    chaos = Chaos(Plan(2, 7, 20.0, folder=folder), said.append)
    settings = json.loads((folder / "settings.json").read_text())
    assert (settings["seed"], settings["minutes"], settings["sagas_per_second"]) == (7, 2, 20.0)
    assert settings["command"] == "saga chaos --minutes 2 --seed 7 --sagas-per-second 20 --workers 3 --brokers 3"
    assert settings["code"] == code_digest()
    assert str(folder) in said[0]
    with pytest.raises(BrokerUnavailable):
        chaos.run()
    assert "failed" in said[-1]
    assert str(folder) in said[-1]
    assert json.loads((folder / "run.json").read_text())["settings"] == settings
    assert (folder / "history.jsonl").exists()
    result = conclude(folder).result
    assert result["seed"] == 7
    (violation,) = result["violation_list"]
    assert violation.startswith("run: it failed, ")
    assert "BrokerUnavailable: SAGA_JAVA" in violation


def test_a_run_without_a_folder_has_one_too_and_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("SAGA_JAVA", str(tmp_path / "no-java"))
    said: list[str] = []
    with pytest.raises(BrokerUnavailable):
        Chaos(Plan(1, 1), said.append).run()
    (folder,) = tmp_path.glob("saga-chaos-*")
    assert str(folder) in said[0]
    assert (folder / "run.json").exists()


def test_why_a_run_failed_is_one_line_also_where_tasks_failed_side_by_side() -> None:
    several = BaseExceptionGroup("tasks", [ExceptionGroup("inner", [SagaError("a\nb")]), KeyboardInterrupt()])
    assert _why(several) == "SagaError: a b; KeyboardInterrupt"


def test_faults_that_came_to_nothing_are_counted_apart(tmp_path: Path) -> None:
    notes = {
        "poison": ["7 records", "0 records", "not done: no leader"],
        "store-cut": ["10 stores", "0 stores"],
        "reply-forged": ["0 replies"],
        "start-repeated": ["0 starts"],
        "worker-process-killed": ["1 processes", "0 processes"],
        "broker-disk-full": ["it ended by itself", "it went on"],
        "broker-killed": [""],
    }
    faults = [Struck(1, kind, "", 5, 6, note) for kind, each in notes.items() for note in each]
    settings = _settings(Plan(1, 1))
    write_material(tmp_path, Material(settings, 1, 9, faults=faults))
    result = conclude(tmp_path).result
    assert result["faults_by_kind"] == {
        "broker-disk-full": 1,
        "broker-killed": 1,
        "poison": 1,
        "store-cut": 1,
        "worker-process-killed": 1,
    }
    assert (result["faults"], result["fault_kinds"], result["faults_not_done"]) == (5, 5, 7)
    assert result["violations"] == 0
    assert "5 faults of 5 kinds" in (tmp_path / "report.html").read_text()


def test_what_clients_found_wrong_is_told_with_the_end_of_the_run(tmp_path: Path) -> None:
    faults = [Struck(1, "broker-killed", "", 1_000, 2_000), Struck(2, "poison", "", 90_000, 90_001)]
    material = Material(_settings(Plan(1, 1)), 1, 91_000, faults=faults, lost=["C14: topics still grow"])
    write_material(tmp_path, material)
    (story,) = conclude(tmp_path).stories
    assert "FAULT 2 poison" in str(story)
    assert "FAULT 1" not in str(story)


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
