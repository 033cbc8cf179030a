"""A source as a process: clocks, threads, signals and the loop around the engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from typing import Any

from orchestrator.client.partitions import partitions_of
from orchestrator.client.requests import Requests
from orchestrator.errors import ConfigurationError
from orchestrator.log.base import AdminFailed, Failure, Log
from orchestrator.participant.loop import Loop, steady_ms
from orchestrator.participant.runner import LogStarts
from orchestrator.participant.settings import ParticipantSettings
from orchestrator.sources.engine import SourceEngine
from orchestrator.sources.mapping import FromTopic
from orchestrator.topics import TopicNames

LOGGER = logging.getLogger("orchestrator.sources")

GRACE_MS = 10_000
"""For what is under way to be acknowledged at the end; what is not is read again by whoever goes on."""


class SourceRunner:
    """Runs a source until it is told to stop. `log` should read committed records only, for others write them.

    Raises `ConfigurationError` where the source's topic or the inbox is missing, or may not be described.
    """

    def __init__(
        self,
        source: FromTopic[Any],
        log: Log,
        servers: str,
        *,
        topics: TopicNames | None = None,
        settings: ParticipantSettings | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        names = topics or TopicNames()
        source.check()
        (partitions,) = partitions_of(log, servers, [names.inbox], timeout_s)
        with closing(log.admin()) as admin:
            try:
                admin.ends([(source.topic, 0)], timeout_s)
            except AdminFailed as error:
                if error.failure is Failure.UNKNOWN_TOPIC:
                    raise ConfigurationError(f"there is no topic {source.topic!r} that {source!r} could read") from None
                raise ConfigurationError(
                    f"{source!r} may not look at its topic ({error.detail}), see `saga acls`"
                ) from None
        self._loop = Loop()
        group = names.source_group(source.name)
        self._reader = log.reader(group, [source.topic], wake=self._loop.wake)
        self._appender = log.appender(wake=self._loop.wake)
        self._starts = LogStarts(log.admin(), self._loop.wake)
        self.engine = SourceEngine(
            source,
            self._reader,
            self._appender,
            Requests(names, partitions),
            steady_ms,
            log_start=self._starts,
            topics=names,
            settings=settings or ParticipantSettings(dead_letter_partitions=partitions),
        )

    def stop(self) -> None:
        """Begins a graceful stop; from any thread or a signal handler."""
        self._loop.stop()

    def run(self, *, signals: bool = False, every_turn: Callable[[], None] | None = None) -> None:
        """Works until `stop`. `signals` and `every_turn` are the loop's.

        Raises `EngineFailed` where Kafka refuses what it reads or writes.
        """
        try:
            if not self._loop.run(self.engine, GRACE_MS, signals=signals, every_turn=every_turn):
                LOGGER.warning("stopped before all was acknowledged; whoever goes on sends it again")
        finally:
            self._reader.close()
            self._appender.close(2.0)
            self._starts.close()
