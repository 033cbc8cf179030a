"""What a worker does beside its engine's thread, because the answers of brokers take their time.

It looks whether the topics are still those that the journals were made for, measures how far the worker is behind, and
trims what is consumed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from threading import Event

from orchestrator.log.base import AdminFailed, Log
from orchestrator.runtime.identity import altered, pinned_topics
from orchestrator.runtime.trimmer import Holdings, Trimmer
from orchestrator.topics import TopicNames
from orchestrator.wire.inputs import input_topics

log = logging.getLogger(__name__)

COMPARE_EVERY_MS = 60_000
LAG_EVERY_MS = 10_000
TRIM_EVERY_MS = 180_000
TRIM_LAG_MS = 86_400_000


class Upkeep:
    """Asks `holdings` what the worker owns. `step` blocks; not for the engine.

    `tell` gets the topics' ids, and what was changed about them that nobody can go on with (`identity.altered`).

    `stopping` ends a wait early. `lag` is replaced every ten seconds: by partition and role, the records that stand in
    the topic beyond the position that is confirmed.
    """

    def __init__(
        self,
        log_: Log,
        topics: TopicNames,
        holdings: Callable[[], Holdings],
        tell: Callable[[Mapping[str, str], str], None],
        partitions: int,
        trim_lag_ms: int = TRIM_LAG_MS,
        *,
        stopping: Event | None = None,
    ) -> None:
        self._admin = log_.admin()
        self._topics = topics
        self._holdings = holdings
        self._tell = tell
        self._partitions = partitions
        self._trimmer = Trimmer(log_, self._admin, topics, trim_lag_ms, stopping or Event())
        self.lag: Mapping[tuple[int, str], int] = {}
        self._compare_at_ms = 0
        self._lag_at_ms = 0
        self._trim_at_ms: int | None = None

    def step(self, mono_ms: int, now_ms: int) -> None:
        """Does what is due by the monotonic time; `now_ms` is the wall clock's. What fails is logged and due again."""
        if self._trim_at_ms is None:
            self._trim_at_ms = mono_ms + TRIM_EVERY_MS
        if mono_ms >= self._compare_at_ms:
            self._compare_at_ms = mono_ms + COMPARE_EVERY_MS
            self._try("looking at the topics", self._compare)
        if mono_ms >= self._lag_at_ms:
            self._lag_at_ms = mono_ms + LAG_EVERY_MS
            self._try("measuring the lag", self._measure_lag)
        if mono_ms >= self._trim_at_ms:
            self._trim_at_ms = mono_ms + TRIM_EVERY_MS
            self._try("trimming", lambda: self._trimmer.trim(self._holdings(), now_ms))

    def close(self) -> None:
        self._trimmer.close()
        self._admin.close()

    def _compare(self) -> None:
        found = self._admin.describe(pinned_topics(self._topics))
        self._tell({topic: state.topic_id for topic, state in found.items()}, altered(found, self._partitions))

    def _measure_lag(self) -> None:
        names = input_topics(self._topics)
        held = [(number, role) for number in self._holdings().positions for role in names]
        ends = self._admin.ends([(names[role], number) for number, role in held])
        # Read after the ends: what is confirmed meanwhile is no lag.
        positions = self._holdings().positions
        lag = {}
        for number, role in held:
            begin, end = ends[names[role], number]
            lag[number, role] = max(0, end - max(begin, positions.get(number, {}).get(role, 0)))
        self.lag = lag

    def _try(self, what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except AdminFailed as failed:
            log.warning("%s failed: %s", what, failed)
        except Exception:
            log.exception("%s failed", what)
