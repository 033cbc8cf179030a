"""Brokers that err as they are told: the mock cluster inside librdkafka, reached by ctypes.

It speaks Kafka's protocol over loopback and keeps records, groups and producer ids; so our clients are the real ones,
in this process or any other. A real broker seldom gives most of the errors that it may give; this one gives them on
demand.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

import confluent_kafka

_PRODUCER = 0
_COORDINATOR_OF_GROUP = b"group"


class Api(IntEnum):
    """Kinds of requests, by Kafka's number."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    SYNC_GROUP = 14
    API_VERSIONS = 18
    INIT_PRODUCER_ID = 22


class ScriptedCluster:
    """So many brokers on loopback, numbered from 1. Topics are made by `topic`, or by being mentioned."""

    def __init__(self, brokers: int = 3) -> None:
        library = _library()
        settings = library.rd_kafka_conf_new()
        reason = ctypes.create_string_buffer(512)
        # It connects to nothing itself, and would say so.
        library.rd_kafka_conf_set(settings, b"log_level", b"0", reason, len(reason))
        self._handle = library.rd_kafka_new(_PRODUCER, settings, reason, len(reason))
        if not self._handle:
            raise RuntimeError(reason.value.decode())
        self._cluster = library.rd_kafka_mock_cluster_new(self._handle, brokers)
        self._library = library
        # Without one, an administrative call waits until its time is up.
        library.rd_kafka_mock_set_controller_id(self._cluster, 1)
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self.brokers = range(1, brokers + 1)

    @property
    def bootstrap_servers(self) -> str:
        servers: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return servers.decode()

    def topic(self, name: str, partitions: int = 1, *, leader: int | None = None) -> str:
        """Makes a topic, all of it led by one broker if one is named."""
        self._do("topic_create", name.encode(), partitions, len(self.brokers))
        if leader is not None:
            for partition in range(partitions):
                self.lead(name, partition, leader)
        return name

    def lead(self, topic: str, partition: int, broker: int) -> None:
        """Makes a broker the leader of a partition."""
        self._do("partition_set_leader", topic.encode(), partition, broker)

    def coordinate(self, group: str, broker: int) -> None:
        """Makes a broker the coordinator of a group."""
        self._do("coordinator_set", _COORDINATOR_OF_GROUP, group.encode(), broker)

    def err(self, api: Api, *codes: int, broker: int | None = None, rtt_ms: int = 0) -> None:
        """The next requests of a kind, at any broker or at one, are answered by these codes, one each.

        At one broker 0 is no error, but an answer like any other; it comes `rtt_ms` late.
        """
        for code in codes:
            if broker is None:
                errors = (ctypes.c_int * 1)(code)
                self._library.rd_kafka_mock_push_request_errors_array(self._cluster, api, 1, errors)
            else:
                self._do("broker_push_request_error_rtts", broker, api, 1, code, rtt_ms)

    def forgive(self, api: Api) -> None:
        """What is still to come of the errors at any broker does not."""
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, api)

    def left(self, api: Api, broker: int) -> int:
        """How many of a broker's errors are still to come."""
        count = ctypes.c_size_t()
        self._do("broker_error_stack_cnt", broker, api, ctypes.byref(count))
        return count.value

    def take_down(self, broker: int) -> None:
        """Closes its connections and takes no new ones."""
        self._do("broker_set_down", broker)

    def bring_up(self, broker: int) -> None:
        self._do("broker_set_up", broker)

    def slow(self, broker: int, rtt_ms: int) -> None:
        """Every answer of it comes so late."""
        self._do("broker_set_rtt", broker, rtt_ms)

    def close(self) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._handle)

    def _do(self, call: str, *given: Any) -> None:
        code = getattr(self._library, f"rd_kafka_mock_{call}")(self._cluster, *given)
        if code:
            raise RuntimeError(f"{call} of the cluster: error {code}")


@contextmanager
def scripted_cluster(brokers: int = 3) -> Iterator[ScriptedCluster]:
    """A cluster until the block ends."""
    cluster = ScriptedCluster(brokers)
    try:
        yield cluster
    finally:
        cluster.close()


@cache
def _library() -> Any:
    """The very library that the clients use: the one that the wheel brings, else the system's."""
    package = Path(confluent_kafka.__file__).parent
    bundled = [*package.parent.glob("confluent_kafka.libs/librdkafka-*"), *package.glob(".dylibs/librdkafka*")]
    library = ctypes.CDLL(str(bundled[0]) if bundled else "librdkafka.so.1")
    pointer: Any = ctypes.c_void_p
    number = ctypes.c_int
    library.rd_kafka_conf_new.restype = pointer
    library.rd_kafka_conf_set.argtypes = [pointer, *[ctypes.c_char_p] * 3, ctypes.c_size_t]
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [number, pointer, ctypes.c_char_p, ctypes.c_size_t]
    library.rd_kafka_destroy.argtypes = [pointer]
    library.rd_kafka_mock_cluster_new.restype = pointer
    library.rd_kafka_mock_cluster_new.argtypes = [pointer, number]
    library.rd_kafka_mock_cluster_destroy.argtypes = [pointer]
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    library.rd_kafka_mock_push_request_errors_array.argtypes = [pointer, ctypes.c_int16, ctypes.c_size_t, pointer]
    library.rd_kafka_mock_clear_request_errors.argtypes = [pointer, ctypes.c_int16]
    library.rd_kafka_mock_set_controller_id.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_topic_create.argtypes = [pointer, ctypes.c_char_p, number, number]
    library.rd_kafka_mock_partition_set_leader.argtypes = [pointer, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32]
    library.rd_kafka_mock_coordinator_set.argtypes = [pointer, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int32]
    pushed = [pointer, ctypes.c_int32, ctypes.c_int16, ctypes.c_size_t]  # and then pairs of error and delay
    library.rd_kafka_mock_broker_push_request_error_rtts.argtypes = pushed
    library.rd_kafka_mock_broker_error_stack_cnt.argtypes = [pointer, ctypes.c_int32, ctypes.c_int16, pointer]
    library.rd_kafka_mock_broker_set_down.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_broker_set_up.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_broker_set_rtt.argtypes = [pointer, ctypes.c_int32, number]
    return library
