"""Reading parts of a log from end to end, for whoever has the time to wait for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from threading import Event

from orchestrator.errors import SagaError
from orchestrator.log.base import Failure, Log, Passed, ReadFailed, Record, TopicPartition

WITHIN_S = 60.0
"""A read is given up where nothing comes for so long."""


class SpanUnreadable(SagaError):
    """A partition's part could not be read to its end; `failure` says why, as far as the log told."""

    def __init__(self, message: str, failure: Failure | None = None) -> None:
        super().__init__(message)
        self.failure = failure


def records_in(log: Log, spans: Mapping[TopicPartition, tuple[int, int]]) -> Iterator[Record]:
    """The records of each partition from an offset up to before another, each partition's in order.

    Raises `SpanUnreadable`.
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
                    place = f"{happening.topic}-{happening.partition}"
                    raise SpanUnreadable(f"{place} cannot be read: {happening.detail}", happening.failure)
                if not isinstance(happening, Record | Passed):
                    continue
                key, reached = (happening.topic, happening.partition), happening.offset
                if isinstance(happening, Record):
                    if reached < left.get(key, -1):
                        yield happening
                    reached += 1
                if key in left and reached >= left[key]:
                    del left[key]
                    reader.unassign(*key)
            if left and not happenings:
                if not wake.wait(WITHIN_S):
                    (topic, partition), end = next(iter(left.items()))
                    raise SpanUnreadable(
                        f"{topic}-{partition} gives nothing more for {WITHIN_S:.0f} s, before its end at offset {end}"
                    )
                wake.clear()
