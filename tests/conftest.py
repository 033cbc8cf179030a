"""What every test may ask for: a real broker, started once, and a prefix that keeps its topics apart."""

import os
import signal
import uuid
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from orchestrator.broker import SHORT_LIVED, find_kit, provide
from orchestrator.errors import BrokerUnavailable

_workers: list[int] = []
"""Pids of the processes of pytest-xdist that this one has run tests."""


def pytest_configure() -> None:
    """A run that is terminated puts away what its fixtures started, as one that is interrupted does."""
    signal.signal(signal.SIGTERM, _end)
    # How long an example takes says nothing on a machine that is busy.
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_newgateway(gateway: Any) -> None:
    """A worker is terminated with this process: by itself it learns of it late, and is then left no time."""
    _workers.append(gateway.remote_exec("import os; channel.send(os.getpid())").receive())


def _end(number: int, frame: FrameType | None) -> None:
    for pid in _workers:
        os.kill(pid, number)
    signal.default_int_handler(number, frame)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "broker" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.broker)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch Kafka before the first test: once it takes longer than a test may."""
    wanted = any(item.get_closest_marker("broker") for item in session.items)
    if wanted and not session.config.option.collectonly and not os.environ.get("SAGA_TEST_BOOTSTRAP"):
        try:
            find_kit()
        except BrokerUnavailable:
            return  # the fixture says it again, as the failure of the tests that need it


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """Bootstrap servers of a Kafka broker: the one SAGA_TEST_BOOTSTRAP names, else one started for this session."""
    with provide(os.environ.get("SAGA_TEST_BOOTSTRAP"), ephemeral=True, jvm=SHORT_LIVED) as provided:
        yield provided.bootstrap_servers


@pytest.fixture
def prefix() -> str:
    """To be put before the name of every topic, group and transactional id of a test, such as `t4f9a2c1-`."""
    return f"t{uuid.uuid4().hex[:7]}-"
