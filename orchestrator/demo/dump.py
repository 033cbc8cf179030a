"""Raw evidence from a cluster and from the services' own books."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Event

from orchestrator.checker.evidence import Evidence, Raw, ServiceEffect, Told
from orchestrator.errors import SagaError
from orchestrator.log.base import Log, ReadFailed, Record, TopicPartition
from orchestrator.model.ids import Direction
from orchestrator.topics import TopicNames

READ_WITHIN_S = 60.0


def dump_topics(log: Log, topics: Sequence[str], partitions: int) -> dict[str, Raw]:
    """Every record of every topic as it stands now, by topic and partition."""
    wake = Event()
    admin = log.admin()
    wanted: list[TopicPartition] = [(topic, partition) for topic in topics for partition in range(partitions)]
    try:
        bounds = admin.ends(wanted)
    finally:
        admin.close()
    found: dict[TopicPartition, list[Record]] = {key: [] for key in wanted}
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
                        found[key].append(happening)
                    if happening.offset + 1 >= left.get(key, 1 << 62):
                        del left[key]
                        reader.unassign(*key)
            if left and not happenings:
                if not wake.wait(READ_WITHIN_S):
                    raise SagaError(f"nothing came of {sorted(left)[:3]} for {READ_WITHIN_S:.0f} s")
                wake.clear()
    finally:
        reader.close()
    return {topic: {partition: found[topic, partition] for partition in range(partitions)} for topic in topics}


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


def gather_evidence(
    log: Log, names: TopicNames, partitions: int, services: Sequence[str], told: Sequence[Told], books: Path
) -> Evidence:
    """Everything the checker needs after the demonstration."""
    inputs = [names.inbox, names.replies, names.internal, names.operations]
    others = [names.journal, names.answers, names.dead_letters, *(names.commands(service) for service in services)]
    raw = dump_topics(log, inputs + others, partitions)
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
        effects=read_books((service, books / f"{service}.db") for service in services),
        once=frozenset(services),
    )
