"""`saga doctor` without a cluster."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.broker.probe import pick_free_ports
from orchestrator.cli import doctor
from orchestrator.cli.doctor import doctor_command


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SAGA_BOOTSTRAP_SERVERS", "SAGA_CONFIG", "SAGA_STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_cluster_it_says_how_to_get_one() -> None:
    result = CliRunner().invoke(doctor_command)
    assert result.exit_code == 1
    assert "ok     python: 3." in result.output
    assert "saga dev" in result.output


def test_a_broker_that_does_not_answer_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "WITHIN_S", 0.5)
    (port,) = pick_free_ports(1)
    result = CliRunner().invoke(doctor_command, ["-b", f"127.0.0.1:{port}", "--json"])
    assert result.exit_code == 1
    told = json.loads(result.stdout.splitlines()[-1])
    states = {check["check"]: check["state"] for check in told["checks"]}
    assert states["broker"] == "wrong"
    assert states["reply token keys"] == "note"  # outside development none is set, and only workers need them
    assert told["wrong"] == 1


def test_java_is_wrong_only_where_a_broker_has_to_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_JAVA", "/nowhere/java")
    assert doctor.check_java(needed=True).state == "wrong"
    assert doctor.check_java(needed=False).state == "note"


def test_a_package_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor.metadata, "requires", lambda name: ["click>=99", "absent-thing>=1", 'x>=1; extra == "y"']
    )
    found = {check.name: check for check in doctor.check_packages()}
    assert found["click"].state == found["absent-thing"].state == "wrong"
    assert "pip install" in found["click"].remedy
