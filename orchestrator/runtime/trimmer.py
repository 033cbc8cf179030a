"""Deletes what was consumed: inputs below the positions of `trim_lag` ago, commands below their group's offset.

The positions are read from the journal itself, at the record that stood last when the lag began. So nothing has to be
remembered, a new owner goes on where the one before stopped, and a journal restored from a backup or mirror that is
younger than the lag finds all inputs that it has not consumed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Event

from orchestrator.log.base import Admin, Log, ReadFailed, Record, TopicPartition
from orchestrator.topics import TopicNames
from orchestrator.wire.avro import UnreadableRecord
from orchestrator.wire.inputs import input_topics
from orchestrator.wire.journal import read_envelope

log = logging.getLogger(__name__)

LOOK_BACK = 100
"""Journal records that are looked through for positions, backwards: claims have none."""
_WAITS = 100
_WAIT_S = 0.1
"""A read is given up after so many waits: it is tried again with the next trimming."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a worker owns: for each partition its confirmed positions by role; and the services it has heard of."""

    positions: Mapping[int, Mapping[str, int]]
    services: frozenset[str]


class Trimmer:
    """Trims for one worker. Its calls block; `stopping` ends a wait early."""

    def __init__(self, log_: Log, admin: Admin, topics: TopicNames, lag_ms: int, stopping: Event) -> None:
        self._admin = admin
        self._topics = topics
        self._lag_ms = lag_ms
        self._stopping = stopping
        self._wake = Event()
        self._reader = log_.reader(wake=self._wake)
        self._roles = input_topics(topics)

    def trim(self, holdings: Holdings, now_ms: int) -> dict[TopicPartition, int]:
        """Trims the partitions held, and gives what begins where now. Raises `AdminFailed`.

        `now_ms` is the wall clock's, which the brokers' append times are compared with.
        """
        bounds = self._consumed_inputs(holdings, now_ms - self._lag_ms)
        bounds |= self._consumed_commands(holdings)
        found = self._admin.ends(list(bounds))
        # Beyond the end: the topic was created anew. Whoever reads it finds that out.
        due = {key: offset for key, offset in bounds.items() if found[key][0] < offset <= found[key][1]}
        self._admin.trim(due)
        return due

    def close(self) -> None:
        self._reader.close()

    def _consumed_inputs(self, holdings: Holdings, until_ms: int) -> dict[TopicPartition, int]:
        keys = [(self._topics.journal, number) for number in holdings.positions]
        begins = self._admin.offsets_at(keys, until_ms)
        starts = self._admin.ends(keys)
        ranges = {number: (starts[topic, number][0], begins[topic, number]) for topic, number in keys}
        bounds = {}
        for number, journaled in self._positions_before(ranges).items():
            confirmed = holdings.positions[number]
            for role, topic in self._roles.items():
                # The record may be one that does not count: what is confirmed is a bound in any case.
                bounds[topic, number] = min(journaled.get(role, -1), confirmed.get(role, -1))
        return bounds

    def _consumed_commands(self, holdings: Holdings) -> dict[TopicPartition, int]:
        bounds: dict[TopicPartition, int] = {}
        existing = self._admin.describe([self._topics.commands(service) for service in holdings.services])
        for service in holdings.services:
            topic = self._topics.commands(service)
            if topic in existing:
                keys = [(topic, number) for number in holdings.positions if number < existing[topic].partitions]
                bounds |= self._admin.committed(self._topics.group(service), keys)
        return bounds

    def _positions_before(self, ranges: Mapping[int, tuple[int, int]]) -> dict[int, Mapping[str, int]]:
        """For each partition the positions in its last journal record before an offset, of those from another on."""
        found: dict[int, Mapping[str, int]] = {}
        for record in self._read(
            {number: (max(low, high - LOOK_BACK), high) for number, (low, high) in ranges.items()}
        ):
            try:
                positions = read_envelope(record.value).input_positions
            except UnreadableRecord:
                continue
            if positions:
                found[record.partition] = positions
        return found

    def _read(self, ranges: Mapping[int, tuple[int, int]]) -> Iterable[Record]:
        """The journal's records from an offset up to before another, each partition's in order; fewer if it fails."""
        journal = self._topics.journal
        left = {number: high for number, (low, high) in ranges.items() if low < high}
        for number in left:
            self._reader.assign(journal, number, ranges[number][0])
        records = []
        for _ in range(_WAITS):
            for happening in self._reader.poll():
                if not isinstance(happening, Record | ReadFailed) or happening.partition not in left:
                    continue
                number = happening.partition
                if isinstance(happening, Record) and happening.offset < left[number]:
                    records.append(happening)
                if isinstance(happening, ReadFailed) or happening.offset + 1 >= left[number]:
                    del left[number]
                    self._reader.unassign(journal, number)
            if not left or self._stopping.is_set():
                break
            self._wake.wait(_WAIT_S)
            self._wake.clear()
        for number in left:
            self._reader.unassign(journal, number)
        return records
