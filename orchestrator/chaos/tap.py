"""Reads topics while a run goes on: owners delete what is consumed and archived, and the checker needs it all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing

from orchestrator.errors import SagaError
from orchestrator.log.base import ReadFailed, Record, TopicPartition
from orchestrator.log.kafka import KafkaLog

AT_THE_END_WITHIN_S = 120.0


class Tap:
    """Gives `keep` every record from the first of each partition on, in a thread of its own."""

    def __init__(self, log: KafkaLog, topics: Sequence[str], partitions: int, keep: Callable[[Record], object]) -> None:
        self._log = log
        self._keep = keep
        self._keys: list[TopicPartition] = [(topic, partition) for topic in topics for partition in range(partitions)]
        self._next = dict.fromkeys(self._keys, 0)
        self._ends: dict[TopicPartition, int] | None = None
        self._wake = threading.Event()
        self._closing = False
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Reads up to where the topics end now. Raises `SagaError` where something was missed, `AdminFailed`."""
        with closing(self._log.admin()) as admin:
            self._ends = {key: end for key, (_, end) in admin.ends(self._keys).items()}
        self._wake.set()
        self._thread.join(AT_THE_END_WITHIN_S)
        if self._thread.is_alive() or self._failure:
            raise SagaError(self._failure or f"the topics were not read within {AT_THE_END_WITHIN_S:.0f} s")

    def close(self) -> None:
        """Ends it wherever it is."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        with closing(self._log.reader(wake=self._wake)) as reader:
            for topic, partition in self._keys:
                reader.assign(topic, partition, 0)
            while not self._done():
                happenings = reader.poll()
                for happening in happenings:
                    if isinstance(happening, ReadFailed):
                        self._failure = f"{happening.topic}-{happening.partition} cannot be read: {happening.detail}"
                        return
                    if isinstance(happening, Record):
                        self._keep(happening)
                        self._next[happening.topic, happening.partition] = happening.offset + 1
                if not happenings:
                    self._wake.wait(1.0)
                    self._wake.clear()

    def _done(self) -> bool:
        ends = self._ends
        return self._closing or (ends is not None and all(self._next[key] >= end for key, end in ends.items()))
