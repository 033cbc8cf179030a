"""Log lines name the saga, the step and the partition, and quote nothing that users sent."""

import json
import logging

import pytest

from orchestrator.cli.logs import _Formatter
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Outcome
from tests.shop_world import PARTITIONS, World, refuse, send_starts


def test_a_parked_step_is_told_with_its_place_and_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.behave = refuse("charge", outcome=Outcome.RETRY)
    number = partition_of("o-1", PARTITIONS)
    with caplog.at_level(logging.WARNING, "orchestrator"):
        send_starts(world, "o-1")
        for _ in range(10):
            world.advance(5_000)
    (told,) = [record for record in caplog.records if "parked" in record.getMessage()]
    line = json.loads(_Formatter(as_json=True).format(told))
    assert (line["saga_id"], line["step"], line["partition"], line["level"]) == ("o-1", 2, number, "warning")
    assert "card" not in line["message"]
