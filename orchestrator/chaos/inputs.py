"""What is written into topics by hand during chaos: repeats, rubbish, forgeries."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from random import Random
from threading import Event

from orchestrator.chaos.system import PARTITIONS, System
from orchestrator.errors import SagaError
from orchestrator.log.base import Headers, ReadFailed, Record
from orchestrator.model.ids import partition_of
from orchestrator.wire import headers as h
from orchestrator.wire.journal import Claim, claim_record

READ_WITHIN_S = 20.0
WRITTEN_WITHIN_S = 20.0
AT_MOST = 40
"""Records that are repeated at once."""
OVERSIZE = (900_000, 2 << 20)
"""Bytes: above what a saga's input may have, and above what a topic of owners takes."""
NOTHING = "0 records"
"""What is noted where a broker took nothing."""

Raw = tuple[str, int, bytes | None, bytes | None, Headers]
"""A record to be written: topic, partition, key, value, headers."""


def write(system: System, records: Sequence[Raw]) -> int:
    """Appends them as they are. Returns how many were acknowledged."""
    wake = Event()
    appender = system.log().appender(wake=wake)
    for topic, partition, key, value, headers in records:
        appender.append(topic, partition, value, token=None, key=key, headers=headers)
    left = appender.close(WRITTEN_WITHIN_S)
    return len(records) - left


def read(system: System, topic: str, partition: int, count: int, *, latest: bool) -> list[Record]:
    """The first or the latest records of a partition, so many at most. Raises `SagaError`, `AdminFailed`."""
    log, wake = system.log(), Event()
    with closing(log.admin()) as admin:
        start, end = admin.ends([(topic, partition)], READ_WITHIN_S)[topic, partition]
    first = max(start, end - count) if latest else start
    last = min(end, first + count)
    found: list[Record] = []
    with closing(log.reader(wake=wake)) as reader:
        if first < last:
            reader.assign(topic, partition, first)
        while first < last and (not found or found[-1].offset + 1 < last):
            happenings = reader.poll()
            for happening in happenings:
                if isinstance(happening, ReadFailed):
                    raise SagaError(f"{topic}-{partition} cannot be read: {happening.detail}")
                if isinstance(happening, Record) and happening.offset < last:
                    found.append(happening)
            if not happenings:
                if not wake.wait(READ_WITHIN_S):
                    break
                wake.clear()
    return found


def repeat(system: System, topics: Sequence[str], partition: int, *, latest: bool = True) -> str:
    """Writes records of these topics' partition again."""
    written = 0
    for topic in topics:
        found = read(system, topic, partition, AT_MOST, latest=latest)
        small = [each for each in found if len(each.value or b"") < OVERSIZE[0]]
        written += write(system, [(topic, partition, each.key, each.value, each.headers) for each in small])
    return f"{written} records"


def poison(system: System, random: Random, service: str) -> str:
    """Bytes that nobody can read, where people and services write."""
    names, partition = system.names, random.randrange(PARTITIONS)
    rubbish = random.randbytes(40)
    nobody = (("saga-id", b"nobody"),)
    records: list[Raw] = [
        (names.inbox, partition, None, rubbish, ()),
        (names.inbox, partition, b"nobody", rubbish, (("saga-type", b"ChaosOrder"),)),
        (names.replies, partition, None, rubbish, (("saga-id", b"\xff\xfe"),)),
        (names.replies, partition_of("nobody", PARTITIONS), None, b"null", nobody),
        (names.operations, partition_of("nobody", PARTITIONS), None, b"", (*nobody, ("input-type", b"dance"))),
        (names.commands(service), partition, None, rubbish, ()),
        (names.commands(service), partition, None, rubbish, (*nobody, ("command-type", b"dance"))),
    ]
    return f"{write(system, records)} records"


def forge_replies(system: System, random: Random, service: str) -> str:
    """Answers the latest commands of a service with a token that is none."""
    names, partition = system.names, random.randrange(PARTITIONS)
    forged: list[Raw] = []
    for command in read(system, names.commands(service), partition, AT_MOST // 4, latest=True):
        headers = dict(command.headers)
        if h.REPLY_TOKEN in headers:
            echoed = {name: headers[name] for name in h.ECHOED if name in headers}
            echoed |= {h.REPLY_TOKEN: b"development.00000000000000000000000000000000", h.OUTCOME: b"success"}
            saga_id = headers[h.SAGA_ID].decode()
            home = partition_of(saga_id, PARTITIONS)
            forged.append((names.replies, home, command.key, b'"forged"', tuple(echoed.items())))
    return f"{write(system, forged)} replies"


def start_unknown(system: System, number: int) -> str:
    """Starts a saga of a type that no worker has. Returns its id."""
    saga_id = f"unknown-{number}"
    home = partition_of(saga_id, PARTITIONS)
    written = write(system, [(system.names.inbox, home, saga_id.encode(), b"{}", ((h.SAGA_TYPE, b"OfTomorrow"),))])
    return saga_id if written else NOTHING


def start_oversize(system: System, number: int) -> tuple[list[str], str]:
    """Starts whose input is larger than any saga's may be. Returns the ids that must not become sagas, and a note."""
    ids = [f"oversize-{number}-{size}" for size in OVERSIZE]
    records: list[Raw] = []
    for saga_id, size in zip(ids, OVERSIZE, strict=True):
        value = b'{"order": "' + b"x" * size + b'"}'
        home = partition_of(saga_id, PARTITIONS)
        records.append((system.names.inbox, home, saga_id.encode(), value, ((h.SAGA_TYPE, b"ChaosOrder"),)))
    return ids, f"{write(system, records)} records"


def forge_claim(system: System, random: Random) -> str:
    """Somebody else claims a partition, who will never decide anything."""
    partition = random.randrange(PARTITIONS)
    claim = claim_record(random.randbytes(16), Claim("nobody-0", "", (), ""))
    written = write(system, [(system.names.journal, partition, None, claim, ())])
    return f"partition {partition}" if written else NOTHING
