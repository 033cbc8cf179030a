"""Raw Kafka settings: what is ours, what is refused, what is logged."""

from __future__ import annotations

import logging
from threading import Event

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.log.kafka import ConfigError, KafkaLog
from orchestrator.log.kafka_config import LOGGER, PROTECTED, admin_config, consumer_config, producer_config

SERVERS = "127.0.0.1:1"


@pytest.mark.parametrize("block", ["common", "producer", "consumer"])
@pytest.mark.parametrize("key", sorted(PROTECTED))
def test_protected_keys_are_refused_everywhere_with_a_reason(block: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KafkaLog(SERVERS, **{block: {key: "the value"}})
    text = str(caught.value)
    assert repr(key) in text
    assert repr(block) in text
    assert PROTECTED[key] in text
    assert "the value" not in text
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ConfigurationError)


def test_raw_settings_are_merged_over_ours() -> None:
    common = {"client.id": "mine", "security.protocol": "SSL"}
    producer = producer_config(SERVERS, common, {"compression.type": "lz4"}, delivery_timeout_ms=7, bound=8)
    assert producer["client.id"] == "mine"
    assert producer["security.protocol"] == "SSL"
    assert producer["compression.type"] == "lz4"
    assert producer["delivery.timeout.ms"] == 7
    assert producer["queue.buffering.max.messages"] == 8
    consumer = consumer_config(SERVERS, common, {"fetch.wait.max.ms": 5}, group="g")
    assert consumer["fetch.wait.max.ms"] == 5
    assert consumer["group.id"] == "g"
    assert "compression.type" not in consumer
    assert admin_config(SERVERS, common)["client.id"] == "mine"


def test_what_correctness_rests_on_is_set() -> None:
    producer = producer_config(SERVERS, {}, {}, delivery_timeout_ms=1, bound=1)
    assert (producer["enable.idempotence"], producer["acks"], producer["linger.ms"]) == (True, "all", 0)
    consumer = consumer_config(SERVERS, {}, {}, group=None)
    assert consumer["auto.offset.reset"] == "error"
    assert (consumer["enable.auto.commit"], consumer["check.crcs"]) == (False, True)


def test_unknown_settings_are_refused_by_name() -> None:
    log = KafkaLog(SERVERS, common={"no.such.setting": "secret"})
    makers = (lambda: log.appender(wake=Event()), lambda: log.reader(wake=Event()), log.admin)
    for make in makers:
        with pytest.raises(ConfigError, match=r"no\.such\.setting") as caught:
            make()
        assert "secret" not in str(caught.value)


def test_repeated_lines_of_the_library_are_damped(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER.name):
        for _ in range(3):
            LOGGER.log(logging.ERROR, "%s [%s] %s", "FAIL", "one", "refused")
            LOGGER.log(logging.ERROR, "%s [%s] %s", "FAIL", "two", "refused")
            LOGGER.warning("ours")
    assert sorted(record.getMessage() for record in caplog.records) == [
        "FAIL [one] refused",
        "FAIL [two] refused",
        "ours",
        "ours",
        "ours",
    ]
