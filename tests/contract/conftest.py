"""Each implementation of a log, in turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from orchestrator.log.kafka import KafkaLog
from orchestrator.log.memory import MemoryLog
from tests.contract.log_world import World


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.broker)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        world = World(MemoryLog(itertools.count(1_000).__next__), "m-")
    else:
        # A topic that does not exist is reported after this time.
        common = {"topic.metadata.propagation.max.ms": 1_000}
        world = World(KafkaLog(request.getfixturevalue("broker"), common=common), request.getfixturevalue("prefix"))
    yield world
    world.close()
