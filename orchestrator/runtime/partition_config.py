"""What every partition of a worker is told."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model.definition import Definition
from orchestrator.model.frozen import frozen
from orchestrator.topics import TopicNames
from orchestrator.wire.tokens import TokenKeys


@frozen
class PartitionConfig:
    """`partitions` is N, `definitions` the sagas by their type's name; `warm` how many runs stay in memory."""

    topics: TopicNames
    partitions: int
    keys: TokenKeys
    definitions: Mapping[str, Definition]
    warm: int = 10_000
