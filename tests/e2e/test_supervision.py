"""Participants under a supervisor: one that dies is replaced, and none outlives who started it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.broker.process import pid_exists
from orchestrator.cli.dev import _processes
from orchestrator.config import load_settings
from orchestrator.demo.processes import Process
from orchestrator.log.base import TopicSpec
from orchestrator.log.kafka import KafkaLog

WITHIN_S = 60.0
PLACE = "orchestrator.bench.services:payments"


@pytest.fixture
def environment(broker: str, prefix: str, tmp_path: Path) -> dict[str, str]:
    admin = KafkaLog(broker).admin()
    names = ("payments.commands", "payments.ledger", "saga.replies", "saga.dead-letters")
    admin.create([TopicSpec(prefix + name, 1, 1, {}) for name in names])
    admin.close()
    return {
        "SAGA_BOOTSTRAP_SERVERS": broker,
        "SAGA_PREFIX": prefix,
        "SAGA_DEVELOPMENT": "true",
        "SAGA_STATE_DIRECTORY": str(tmp_path / "state"),
        "SAGA_METRICS_PORT": "0",
    }


def children_of(pid: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def until(holds: Callable[[], bool], process: Process) -> None:
    """Looks again and again, for what nobody announces."""
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, process.tail(40)
        time.sleep(0.05)


@pytest.mark.timeout(240)
def test_a_dead_child_is_replaced_and_none_outlives_a_supervisor_that_was_killed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    supervisor = Process("payments", ["participant", PLACE, "--processes", "2"], tmp_path, environment)
    supervisor.start()
    try:
        until(lambda: len(children_of(supervisor.pid)) == 2, supervisor)
        before = children_of(supervisor.pid)
        dead = min(before)
        os.kill(dead, signal.SIGKILL)
        until(lambda: dead not in (now := children_of(supervisor.pid)) and len(now) == 2, supervisor)
        children = children_of(supervisor.pid)
        assert before - {dead} < children
        os.kill(supervisor.pid, signal.SIGKILL)
        until(lambda: not any(pid_exists(pid) for pid in children), supervisor)
    finally:
        supervisor.kill()


@pytest.mark.timeout(240)
def test_a_stopped_supervisor_stops_its_children_gracefully(environment: dict[str, str], tmp_path: Path) -> None:
    ledger = (environment["SAGA_PREFIX"] + "payments.ledger", 0)
    admin = KafkaLog(environment["SAGA_BOOTSTRAP_SERVERS"]).admin()
    supervisor = Process("payments", ["participant", PLACE, "--processes=1"], tmp_path, environment)
    supervisor.start()
    try:
        until(lambda: admin.ends([ledger])[ledger][1] == 1, supervisor)
        (child,) = children_of(supervisor.pid)
        os.kill(supervisor.pid, signal.SIGTERM)
        assert supervisor._process is not None
        assert supervisor._process.wait(WITHIN_S) == 0, supervisor.tail(40)
        assert not pid_exists(child)
        # Claim and release: whoever comes next need not wait.
        assert admin.ends([ledger])[ledger][1] == 2
    finally:
        supervisor.kill()
        admin.close()


def test_under_saga_dev_all_leave_when_it_is_gone(tmp_path: Path) -> None:
    settings = load_settings({"development": True, "state_directory": tmp_path})
    processes = _processes(settings, None, ["shop"], {"payments": "shop:payments"}, tmp_path)
    assert [process.arguments[-1] for process in processes] == ["--child", "--child"]
