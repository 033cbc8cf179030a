"""Raw evidence from a cluster and from the services' own books."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from orchestrator.checker.evidence import Evidence, Raw, ServiceEffect, Told
from orchestrator.log.base import Log, Record
from orchestrator.log.spans import records_in
from orchestrator.model.ids import Direction
from orchestrator.topics import TopicNames


def read_topics(log: Log, topics: Sequence[str], partitions: int) -> Iterator[Record]:
    """Every record of every topic as it stands now, each partition in its order. Raises `SagaError`."""
    with closing(log.admin()) as admin:
        spans = admin.ends([(topic, partition) for topic in topics for partition in range(partitions)])
    return records_in(log, spans)


def dump_topics(log: Log, topics: Sequence[str], partitions: int) -> dict[str, Raw]:
    """Every record of every topic as it stands now, by topic and partition. Raises `SagaError`."""
    found: dict[str, dict[int, list[Record]]] = {
        topic: {partition: [] for partition in range(partitions)} for topic in topics
    }
    for record in read_topics(log, topics, partitions):
        found[record.topic][record.partition].append(record)
    return dict(found)


def read_books(paths: Iterable[tuple[str, Path]]) -> list[ServiceEffect]:
    """What the services wrote into their books, in each service's own order."""
    effects: list[ServiceEffect] = []
    for service, path in paths:
        connection = sqlite3.connect(path)
        try:
            rows = connection.execute("SELECT number, key, saga_id, run, step, direction FROM book ORDER BY number")
            for number, key, saga_id, run, step, direction in rows:
                kind: Direction = "undo" if direction == "undo" else "do"
                effects.append(ServiceEffect(number, service, key, saga_id, run, step, kind))
        finally:
            connection.close()
    return effects


def evidence_topics(names: TopicNames, services: Sequence[str]) -> list[str]:
    """The topics that the checker looks at."""
    inputs = [names.inbox, names.replies, names.internal, names.operations]
    return [*inputs, names.journal, names.answers, names.dead_letters, *map(names.commands, services)]


def evidence_of(
    raw: Mapping[str, Raw],
    names: TopicNames,
    partitions: int,
    told: Sequence[Told],
    effects: Sequence[ServiceEffect],
    services: Sequence[str],
) -> Evidence:
    """What the checker needs, of topics by name and of services that commit the key with the effect."""
    return Evidence(
        partitions=partitions,
        journal=raw[names.journal],
        inbox=raw[names.inbox],
        replies=raw[names.replies],
        internal=raw[names.internal],
        operations=raw[names.operations],
        answers=raw[names.answers],
        dead_letters=raw[names.dead_letters],
        commands={service: raw[names.commands(service)] for service in services},
        told=told,
        effects=effects,
        once=frozenset(services),
    )


def gather_evidence(
    log: Log, names: TopicNames, partitions: int, services: Sequence[str], told: Sequence[Told], books: Path
) -> Evidence:
    """Everything the checker needs after the demonstration."""
    raw = dump_topics(log, evidence_topics(names, services), partitions)
    effects = read_books((service, books / f"{service}.db") for service in services)
    return evidence_of(raw, names, partitions, told, effects, services)
