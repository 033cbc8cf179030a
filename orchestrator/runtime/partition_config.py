"""What every partition of a worker is told."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model.definition import Definition
from orchestrator.model.frozen import frozen
from orchestrator.model.turn import ENDED_KEEP_MS, SIGNAL_TTL_MS
from orchestrator.topics import TopicNames
from orchestrator.wire.tokens import TokenKeys


@frozen
class PartitionConfig:
    """`partitions` is N, `definitions` the sagas by their type's name; `warm` how many runs stay in memory.

    `signal_ttl_ms`: how long a signal is kept for an id that nobody has started; `ended_keep_ms`: a saga after
    its end.
    `circuit_failures`: attempts without an answer in a row after which a service is asked only every
    `circuit_probe_ms`; 0: it is asked on and on.
    """

    topics: TopicNames
    partitions: int
    keys: TokenKeys
    definitions: Mapping[str, Definition]
    warm: int = 10_000
    signal_ttl_ms: int = SIGNAL_TTL_MS
    circuit_failures: int = 0
    circuit_probe_ms: int = 5_000
    ended_keep_ms: int = ENDED_KEEP_MS
