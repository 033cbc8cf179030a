"""librdkafka settings: ours, the user's three raw blocks, and the keys that are not the user's to set.

The blocks hold librdkafka's own names (`security.protocol`, `sasl.*`, `ssl.*`, `compression.type`, `client.id` and so
on). A key on which correctness rests is refused in every block. No message holds a value: it may be secret.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException

from orchestrator.errors import ConfigurationError

Raw = Mapping[str, Any]

LOGGER = logging.getLogger("orchestrator.log.kafka")
"""Where librdkafka's log lines go, and ours about it."""


class Damper(logging.Filter):
    """Lets one line of a kind and client through in ten seconds: without a broker each client writes many a second."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[Any, Any], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        # The library's lines alone have these three arguments: the kind, the client's name, the text.
        if not isinstance(record.args, tuple) or len(record.args) != 3 or not record.msg.startswith("%s [%s]"):
            return True
        kind = record.args[:2]
        if record.created - self._last.get(kind, 0.0) < _DAMPED_S:
            return False
        if len(self._last) >= _DAMPED_KINDS:  # of clients that are gone, mostly
            self._last = {of: at for of, at in self._last.items() if record.created - at < _DAMPED_S}
        self._last[kind] = record.created
        return True


_DAMPED_S = 10.0
_DAMPED_KINDS = 1_000
LOGGER.addFilter(Damper())


class ConfigError(ConfigurationError, ValueError):
    """A raw Kafka setting that is refused or that librdkafka does not take; the message names the key and why."""


_ADDRESS = "the bootstrap servers are a setting of their own"
_IDEMPOTENT = "appends must be idempotent, in order and acknowledged by all in-sync replicas"
_TRANSACTIONS = "the journal is fenced by its own content, not by transactions"
_PLACED = "records are appended to explicit partitions"
_REPORTED = "outcomes and errors are reported by polling, all of them"
_GROUP = "the group's name, protocol and membership are the worker's"
_POSITIONS = "positions come from the journal; group offsets are never used to start reading"
_INTEGRITY = "every record is read and its checksum verified"
_SIZES = "a topic refuses a larger batch whole, after the next one has landed; dead letters are larger than any input"
_AUTO_CREATED = "topics are planned and created on purpose, never by mention"

PROTECTED: Mapping[str, str] = {
    "bootstrap.servers": _ADDRESS,
    "metadata.broker.list": _ADDRESS,
    "enable.idempotence": _IDEMPOTENT,
    "acks": _IDEMPOTENT,
    "request.required.acks": _IDEMPOTENT,
    "max.in.flight": _IDEMPOTENT,
    "max.in.flight.requests.per.connection": _IDEMPOTENT,
    "retries": _IDEMPOTENT,
    "message.send.max.retries": _IDEMPOTENT,
    "enable.gapless.guarantee": "one record's failure would end the producer for all partitions",
    "queuing.strategy": _IDEMPOTENT,
    "batch.size": _SIZES,
    "message.max.bytes": _SIZES,
    "produce.offset.report": _REPORTED,
    "transactional.id": _TRANSACTIONS,
    "transaction.timeout.ms": _TRANSACTIONS,
    "partitioner": _PLACED,
    "partitioner_cb": _PLACED,
    "delivery.report.only.error": _REPORTED,
    "dr_cb": _REPORTED,
    "dr_msg_cb": _REPORTED,
    "on_delivery": _REPORTED,
    "error_cb": _REPORTED,
    "on_commit": _REPORTED,
    "offset_commit_cb": _REPORTED,
    "rebalance_cb": _GROUP,
    "group.id": _GROUP,
    "group.instance.id": "a static member restarted after a kill is refused by the broker: " + _GROUP,
    "group.protocol": _GROUP,
    "group.protocol.type": _GROUP,
    "group.remote.assignor": _GROUP,
    "partition.assignment.strategy": _GROUP,
    "enable.auto.commit": _POSITIONS,
    "auto.commit.interval.ms": _POSITIONS,
    "enable.auto.offset.store": _POSITIONS,
    "auto.offset.reset": _POSITIONS,
    "offset.store.method": _POSITIONS,
    "isolation.level": "who has had an effect is decided by the journal's rule, not by transaction markers",
    "check.crcs": _INTEGRITY,
    "enable.partition.eof": "an end without a record, as a transaction leaves it, is told by nothing else",
    "allow.auto.create.topics": _AUTO_CREATED,
    "default.topic.config": "set its keys by themselves, so that each can be checked",
    "logger": "log lines go to the logger " + LOGGER.name,
    "log_cb": "log lines go to the logger " + LOGGER.name,
    "log.queue": "log lines go to the logger " + LOGGER.name,
}

_COMMON: Raw = {
    "client.id": "saga-orchestrator",
    "reconnect.backoff.ms": 250,
    "reconnect.backoff.max.ms": 1_000,
    "socket.keepalive.enable": True,
    # An unknown topic is waited for this long before it is reported: the time a new one takes to be known everywhere.
    "topic.metadata.propagation.max.ms": 5_000,
}

_PRODUCER: Raw = {
    "enable.idempotence": True,
    "acks": "all",
    "max.in.flight.requests.per.connection": 5,
    # Waiting for more is the journal writer's affair: it gathers while a batch is unacknowledged.
    "linger.ms": 0,
    # A batch ends here, unless its one record is larger: so what is small never shares the refusal of a large one.
    "batch.size": 1_000_000,
    # The largest record is a dead letter: 4 MiB as foreign clients may send, and why. Others are checked where made.
    "message.max.bytes": 5_000_000,
    "queue.buffering.max.kbytes": 256 << 10,
    "retry.backoff.ms": 50,
    "retry.backoff.max.ms": 500,
}

_CONSUMER: Raw = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_uncommitted",
    "check.crcs": True,
    "enable.partition.eof": True,
    "allow.auto.create.topics": False,
    "group.protocol": "classic",
    "partition.assignment.strategy": "cooperative-sticky",
    "heartbeat.interval.ms": 500,
    "session.timeout.ms": 8_000,
    # A fetch that waits for data delays the first one of a partition assigned or resumed meanwhile by as much.
    "fetch.wait.max.ms": 100,
    # Defaults (100,000 records a partition, 1 s and 0.5 s of backing off) suit bulk readers.
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 32 << 10,
    "fetch.queue.backoff.ms": 50,
    "fetch.error.backoff.ms": 100,
}

ASKING: Raw = {
    # The library remembers for minutes who led a partition, and asks a broker that is gone until it is told otherwise.
    # Clients that read or write are told by their errors; those that only ask now and then look for themselves.
    "topic.metadata.refresh.interval.ms": 1_000,
}


def producer_config(
    bootstrap_servers: str, common: Raw, producer: Raw, *, delivery_timeout_ms: int, bound: int
) -> dict[str, Any]:
    """Settings of an appender that holds at most `bound` records and gives each up after the timeout."""
    ours = {"delivery.timeout.ms": delivery_timeout_ms, "queue.buffering.max.messages": bound}
    return _merge(bootstrap_servers, {**_PRODUCER, **ours}, common, producer)


def consumer_config(bootstrap_servers: str, common: Raw, consumer: Raw, *, group: str | None) -> dict[str, Any]:
    """Settings of a reader. Without a group the library still wants a name; nothing is committed under it."""
    return _merge(bootstrap_servers, {**_CONSUMER, "group.id": group or "unused"}, common, consumer)


def admin_config(bootstrap_servers: str, common: Raw) -> dict[str, Any]:
    """Settings of an administrative client."""
    return _merge(bootstrap_servers, ASKING, common, {})


def check(block: str, raw: Raw) -> None:
    """Refuses protected keys. `block` is "common", "producer" or "consumer"."""
    for key in raw:
        reason = PROTECTED.get(key.removeprefix("topic."))
        if reason is not None:
            raise ConfigError(f"Kafka setting {key!r} in {block!r} cannot be set: {reason}; remove it")


def refused(error: KafkaException) -> ConfigError:
    """What librdkafka says when it is given a setting that it does not know or take."""
    return ConfigError(f"Kafka client not created: {error.args[0].str()}; correct the raw Kafka settings")


def _merge(bootstrap_servers: str, ours: Raw, common: Raw, specific: Raw) -> dict[str, Any]:
    check("common", common)
    return {**_COMMON, **ours, **common, **specific, "bootstrap.servers": bootstrap_servers, "logger": LOGGER}
