"""Raw evidence from a cluster and from the services' own books."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event

from orchestrator.checker.evidence import Evidence, Raw, ServiceEffect, Told
from orchestrator.errors import SagaError
from orchestrator.log.base import Log, ReadFailed, Record, TopicPartition
from orchestrator.model.ids import Direction
from orchestrator.topics import TopicNames

READ_WITHIN_S = 60.0


def read_topics(log: Log, topics: Sequence[str], partitions: int) -> Iterator[Record]:
    """Every record of every topic as it stands now, each partition in its order. Raises `SagaError`."""
    wake = Event()
    admin = log.admin()
    wanted: list[TopicPartition] = [(topic, partition) for topic in topics for partition in range(partitions)]
    try:
        bounds = admin.ends(wanted)
    finally:
        admin.close()
    reader = log.reader(wake=wake)
    try:
        left = {key: end for key, (start, end) in bounds.items() if start < end}
        for (topic, partition), (start, _) in bounds.items():
            if (topic, partition) in left:
                reader.assign(topic, partition, start)
        while left:
            happenings = reader.poll()
            for happening in happenings:
                if isinstance(happening, ReadFailed):
                    raise SagaError(f"{happening.topic}-{happening.partition} cannot be read: {happening.detail}")
                if isinstance(happening, Record):
                    key = (happening.topic, happening.partition)
                    if happening.offset < left.get(key, -1):
                        yield happening
                    if happening.offset + 1 >= left.get(key, 1 << 62):
                        del left[key]
                        reader.unassign(*key)
            if left and not happenings:
                if not wake.wait(READ_WITHIN_S):
                    raise SagaError(f"nothing came of {sorted(left)[:3]} for {READ_WITHIN_S:.0f} s")
                wake.clear()
    finally:
        reader.close()


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
