"""Tests of a saga without a broker: `SagaTest` runs it in memory, time skips by itself. See `docs/testing.md`."""

from orchestrator.testing.end import End
from orchestrator.testing.entities import EntityTest
from orchestrator.testing.flights import Sent
from orchestrator.testing.handler_test import Called, HandlerTest
from orchestrator.testing.histories import check_histories, replay
from orchestrator.testing.proof import Proof, prove
from orchestrator.testing.running import Running
from orchestrator.testing.saga_test import SagaTest
from orchestrator.testing.sources import Mapped, mapped

__all__ = [
    "Called",
    "End",
    "EntityTest",
    "HandlerTest",
    "Mapped",
    "Proof",
    "Running",
    "SagaTest",
    "Sent",
    "check_histories",
    "mapped",
    "prove",
    "replay",
]
