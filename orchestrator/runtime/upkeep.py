"""What a worker does beside its engine's thread, because the answers of brokers take their time.

It looks whether the topics are still those that the journals were made for, and trims what is consumed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from threading import Event

from orchestrator.log.base import AdminFailed, Log
from orchestrator.runtime.identity import pinned_topics
from orchestrator.runtime.trimmer import Holdings, Trimmer
from orchestrator.topics import TopicNames

log = logging.getLogger(__name__)

COMPARE_EVERY_MS = 60_000
TRIM_EVERY_MS = 180_000
TRIM_LAG_MS = 86_400_000


class Upkeep:
    """Asks `holdings` what the worker owns and hands the topics' ids to `tell_ids`. `step` blocks; not for the engine.

    `stopping` ends a wait early.
    """

    def __init__(
        self,
        log_: Log,
        topics: TopicNames,
        holdings: Callable[[], Holdings],
        tell_ids: Callable[[Mapping[str, str]], None],
        trim_lag_ms: int = TRIM_LAG_MS,
        *,
        stopping: Event | None = None,
    ) -> None:
        self._admin = log_.admin()
        self._topics = topics
        self._holdings = holdings
        self._tell_ids = tell_ids
        self._trimmer = Trimmer(log_, self._admin, topics, trim_lag_ms, stopping or Event())
        self._compare_at_ms = 0
        self._trim_at_ms: int | None = None

    def step(self, mono_ms: int, now_ms: int) -> None:
        """Does what is due by the monotonic time; `now_ms` is the wall clock's. What fails is logged and due again."""
        if self._trim_at_ms is None:
            self._trim_at_ms = mono_ms + TRIM_EVERY_MS
        if mono_ms >= self._compare_at_ms:
            self._compare_at_ms = mono_ms + COMPARE_EVERY_MS
            self._try("looking at the topics' ids", self._compare)
        if mono_ms >= self._trim_at_ms:
            self._trim_at_ms = mono_ms + TRIM_EVERY_MS
            self._try("trimming", lambda: self._trimmer.trim(self._holdings(), now_ms))

    def close(self) -> None:
        self._trimmer.close()
        self._admin.close()

    def _compare(self) -> None:
        found = self._admin.describe(pinned_topics(self._topics))
        self._tell_ids({topic: state.topic_id for topic, state in found.items()})

    def _try(self, what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except AdminFailed as failed:
            log.warning("%s failed: %s", what, failed)
        except Exception:
            log.exception("%s failed", what)
