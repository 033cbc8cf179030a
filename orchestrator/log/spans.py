"""Reading parts of a log from end to end, for whoever has the time to wait for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from threading import Event

from orchestrator.errors import SagaError
from orchestrator.log.base import Log, ReadFailed, Record, TopicPartition

WITHIN_S = 60.0
"""A read is given up where nothing comes for so long."""


def records_in(log: Log, spans: Mapping[TopicPartition, tuple[int, int]]) -> Iterator[Record]:
    """The records of each partition from an offset up to before another, each partition's in order. Raises `SagaError`.

    The last offset before each end must be a record's.
    """
    left = {key: end for key, (first, end) in spans.items() if first < end}
    if not left:
        return
    wake = Event()
    with closing(log.reader(wake=wake)) as reader:
        for topic, partition in left:
            reader.assign(topic, partition, spans[topic, partition][0])
        while left:
            happenings = reader.poll()
            for happening in happenings:
                if isinstance(happening, ReadFailed):
                    raise SagaError(f"{happening.topic}-{happening.partition} cannot be read: {happening.detail}")
                if isinstance(happening, Record):
                    key = (happening.topic, happening.partition)
                    if happening.offset < left.get(key, -1):
                        yield happening
                    if key in left and happening.offset + 1 >= left[key]:
                        del left[key]
                        reader.unassign(*key)
            if left and not happenings:
                if not wake.wait(WITHIN_S):
                    topic, partition = next(iter(left))
                    raise SagaError(f"{topic}-{partition} gives nothing more for {WITHIN_S:.0f} s, before its end")
                wake.clear()
