"""librdkafka's clients as they are, with the settings of ours: what a measurement is held against."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import Consumer, Producer, TopicPartition

from orchestrator.log.kafka_config import consumer_config, producer_config

BOUND = 100_000


def bare_producer(bootstrap_servers: str) -> Producer:
    """As an appender's."""
    return Producer(producer_config(bootstrap_servers, {}, {}, delivery_timeout_ms=30_000, bound=BOUND))


def bare_consumer(bootstrap_servers: str, topics: Iterable[str], partitions: int) -> Consumer:
    """As a reader's without a group, reading all partitions of the topics from their first record on: only records."""
    config = consumer_config(bootstrap_servers, {}, {}, group=None) | {"enable.partition.eof": False}
    consumer = Consumer(config)
    consumer.assign([TopicPartition(topic, partition, 0) for topic in topics for partition in range(partitions)])
    return consumer
