"""A Kafka cluster as a `Log`: makes its clients, all with the same connection settings."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event

from orchestrator.log.kafka_admin import KafkaAdmin
from orchestrator.log.kafka_appender import KafkaAppender
from orchestrator.log.kafka_config import ConfigError, Raw, check
from orchestrator.log.kafka_reader import KafkaReader

__all__ = ["ConfigError", "KafkaAdmin", "KafkaAppender", "KafkaLog", "KafkaReader"]


class KafkaLog:
    """Bootstrap servers and three blocks of raw librdkafka settings; a protected key raises `ConfigError` here.

    `read_committed`: readers pass over what others wrote in transactions that did not commit.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        common: Raw | None = None,
        producer: Raw | None = None,
        consumer: Raw | None = None,
        read_committed: bool = False,
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._common = dict(common or {})
        self._producer = dict(producer or {})
        self._consumer = dict(consumer or {})
        check("common", self._common)
        check("producer", self._producer)
        check("consumer", self._consumer)
        if read_committed:
            self._consumer["isolation.level"] = "read_committed"

    def appender(
        self, *, wake: Event, linger_ms: float = 0.0, delivery_timeout_ms: int = 30_000, bound: int = 100_000
    ) -> KafkaAppender:
        """A producer that holds at most `bound` records and gives each up, outcome unknown, after the timeout."""
        return KafkaAppender(
            self._bootstrap_servers,
            wake=wake,
            common=self._common,
            producer={"linger.ms": linger_ms, **self._producer},
            delivery_timeout_ms=delivery_timeout_ms,
            bound=bound,
        )

    def reader(self, group: str | None = None, topics: Iterable[str] = (), *, wake: Event) -> KafkaReader:
        """A consumer; with a group it joins, subscribed to `topics`."""
        return KafkaReader(
            self._bootstrap_servers,
            group=group,
            topics=topics,
            wake=wake,
            common=self._common,
            consumer=self._consumer,
        )

    def admin(self) -> KafkaAdmin:
        """An administrative client."""
        return KafkaAdmin(self._bootstrap_servers, common=self._common)
