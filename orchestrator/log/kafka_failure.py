"""Kafka's error codes, told apart as far as the engine must."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError

from orchestrator.log.base import Failure

_FAILURES = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: Failure.UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_ID: Failure.UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_TOPIC: Failure.UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION: Failure.UNKNOWN_TOPIC,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: Failure.UNAUTHORIZED,
    KafkaError.GROUP_AUTHORIZATION_FAILED: Failure.UNAUTHORIZED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: Failure.UNAUTHORIZED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Failure.UNAUTHORIZED,
    KafkaError.MSG_SIZE_TOO_LARGE: Failure.TOO_LARGE,
    KafkaError.OFFSET_OUT_OF_RANGE: Failure.OUT_OF_RANGE,
    KafkaError._AUTO_OFFSET_RESET: Failure.OUT_OF_RANGE,
    KafkaError._LOG_TRUNCATION: Failure.OUT_OF_RANGE,
    KafkaError._BAD_MSG: Failure.DAMAGED,
    KafkaError._BAD_COMPRESSION: Failure.DAMAGED,
    KafkaError.ILLEGAL_GENERATION: Failure.NOT_OWNED,
    KafkaError.UNKNOWN_MEMBER_ID: Failure.NOT_OWNED,
    KafkaError.FENCED_INSTANCE_ID: Failure.NOT_OWNED,
    KafkaError._ASSIGNMENT_LOST: Failure.NOT_OWNED,
    KafkaError._FATAL: Failure.FATAL,
}


def failure_of(error: KafkaError) -> Failure:
    """The failure an error code means; UNKNOWN_OUTCOME for all that are not listed."""
    if error.fatal():
        return Failure.FATAL
    return _FAILURES.get(error.code(), Failure.UNKNOWN_OUTCOME)


def explain(error: KafkaError, need: str, config: Mapping[str, Any]) -> str:
    """What the library says and, where a permission is missing, who needs it: such as `Read on topic saga.inbox`."""
    if _FAILURES.get(error.code()) is not Failure.UNAUTHORIZED:
        return error.str()
    # Its own text may hold the whole request.
    return f"{KafkaError(error.code()).str()}: {lacking(need, config)}"


def lacking(need: str, config: Mapping[str, Any]) -> str:
    """Who needs a permission, by the client's settings."""
    user = config.get("sasl.username")
    return f"{f'User:{user}' if user else 'this client'} needs {need}, see `saga acls`"
