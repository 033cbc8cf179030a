"""Topics: what is planned, created, found wrong and exported."""

import tomllib
from dataclasses import replace

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.log.base import TopicSpec
from orchestrator.log.memory import MemoryLog
from orchestrator.provisioning import apply, audit, check, plan, to_commands, to_strimzi, to_terraform
from orchestrator.topics import TopicNames

NAMES = TopicNames("p-")


def planned(partitions: int = 4, replication: int = 3) -> dict[str, TopicSpec]:
    specs = plan(NAMES, partitions=partitions, replication=replication, services=["payments"])
    return {spec.name.removeprefix("p-"): spec for spec in specs}


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(lambda: 0)


def changed(log: MemoryLog, topic: str, **settings: str) -> None:
    """Another setting behind the orchestrator's back."""
    state = log.topics[topic]
    renamed = {name.replace("_", "."): value for name, value in settings.items()}
    log.topics[topic] = replace(state, settings={**state.settings, **renamed})


def test_every_topic_is_planned_with_the_same_partitions() -> None:
    specs = planned()
    assert set(specs) == {
        "saga.inbox",
        "saga.replies",
        "saga.internal",
        "saga.operations",
        "saga.journal",
        "saga.lifecycle",
        "saga.answers",
        "saga.dead-letters",
        "payments.commands",
        "payments.ledger",
    }
    assert {(spec.partitions, spec.replication) for spec in specs.values()} == {(4, 3)}
    assert {spec.settings["cleanup.policy"] for spec in specs.values()} == {"delete"}
    assert {spec.settings["min.insync.replicas"] for spec in specs.values()} == {"2"}


def test_the_journal_is_kept_for_ever_under_the_brokers_time() -> None:
    journal = planned()["saga.journal"].settings
    assert (journal["retention.ms"], journal["retention.bytes"]) == ("-1", "-1")
    assert journal["message.timestamp.type"] == "LogAppendTime"
    assert journal["unclean.leader.election.enable"] == "false"


def test_a_dead_letter_holds_what_anybody_may_send() -> None:
    limits = {name: int(spec.settings["max.message.bytes"]) for name, spec in planned().items()}
    foreign = {limits.pop(name) for name in ("saga.inbox", "saga.replies", "saga.operations")}
    assert foreign == {4_194_304}
    assert limits.pop("saga.dead-letters") == 5_242_880
    assert set(limits.values()) == {1_048_588}


def test_answers_are_kept_for_an_hour_and_the_ledger_for_a_month() -> None:
    specs = planned()
    assert specs["saga.answers"].settings["retention.ms"] == "3600000"
    assert specs["payments.ledger"].settings["retention.ms"] == "2592000000"


@pytest.mark.parametrize(("replication", "insync"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_the_guard_fits_the_replication(replication: int, insync: str) -> None:
    assert planned(replication=replication)["saga.journal"].settings["min.insync.replicas"] == insync


def test_apply_creates_what_is_missing_and_leaves_the_rest(log: MemoryLog) -> None:
    specs = list(planned().values())
    log.create(TopicSpec("p-saga.inbox", 7, 1, {}))
    created = apply(log.admin(), specs)
    assert set(created) == {spec.name for spec in specs} - {"p-saga.inbox"}
    assert log.topics["p-saga.inbox"].partitions == 7
    assert apply(log.admin(), specs) == []


def test_what_was_applied_has_no_findings(log: MemoryLog) -> None:
    specs = list(planned().values())
    apply(log.admin(), specs)
    assert check(log.admin(), NAMES, specs) == []
    audit(log.admin(), NAMES, partitions=4, replication=3)


def test_a_missing_topic_is_found(log: MemoryLog) -> None:
    findings = check(log.admin(), NAMES, list(planned().values()))
    assert len(findings) == 10
    assert all(finding.severe and "saga topics apply" in finding.remedy for finding in findings)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "delete,compact"),
        ("retention.ms", "604800000"),
        ("retention.bytes", "1000000"),
        ("message.timestamp.type", "CreateTime"),
        ("max.message.bytes", "1000000"),
        ("min.insync.replicas", "1"),
        ("unclean.leader.election.enable", "true"),
    ],
)
def test_a_journal_that_could_lose_records_is_refused(log: MemoryLog, setting: str, value: str) -> None:
    specs = list(planned().values())
    apply(log.admin(), specs)
    changed(log, "p-saga.journal", **{setting: value})
    (finding,) = check(log.admin(), NAMES, specs)
    assert finding.severe
    assert f"{setting} is {value}, not " in finding.problem
    assert f"--entity-name p-saga.journal --add-config {setting}=" in finding.remedy
    with pytest.raises(ConfigurationError, match=setting):
        audit(log.admin(), NAMES, partitions=4, replication=3)


def test_all_that_the_promise_rests_on_is_written_through_to_the_disk_where_that_is_wanted(log: MemoryLog) -> None:
    specs = plan(NAMES, partitions=4, replication=3, services=["payments"], fsync=True)
    kept = {spec.name for spec in specs if spec.settings.get("flush.messages") != "1"}
    assert kept == {"p-saga.lifecycle", "p-saga.answers"}
    apply(log.admin(), specs)
    assert check(log.admin(), NAMES, specs) == []
    assert check(log.admin(), NAMES, list(planned().values())) == [], "who does not want it does not mind it"
    changed(log, "p-saga.inbox", **{"flush.messages": "9223372036854775807"})
    (finding,) = check(log.admin(), NAMES, specs)
    assert (finding.topic, finding.severe) == ("p-saga.inbox", True)
    assert "in the brokers' memory alone" in finding.problem


@pytest.mark.parametrize(
    ("topic", "setting", "value"),
    [
        ("p-saga.journal", "max.message.bytes", "5000000"),
        ("p-saga.inbox", "max.message.bytes", "1048588"),
        ("p-saga.journal", "compression.type", "zstd"),
        ("p-saga.journal", "min.insync.replicas", "3"),
        ("p-payments.ledger", "retention.ms", "-1"),
        ("p-payments.ledger", "retention.ms", "9999999999"),
    ],
)
def test_what_is_stricter_is_no_finding(log: MemoryLog, topic: str, setting: str, value: str) -> None:
    specs = list(planned().values())
    apply(log.admin(), specs)
    changed(log, topic, **{setting: value})
    assert check(log.admin(), NAMES, specs) == []


@pytest.mark.parametrize(
    ("topic", "setting", "value", "severe"),
    [
        ("p-payments.ledger", "retention.ms", "1000", True),
        ("p-payments.ledger", "cleanup.policy", "compact", True),
        ("p-payments.commands", "message.timestamp.type", "CreateTime", True),
        ("p-saga.inbox", "compression.type", "gzip", False),
        ("p-saga.inbox", "max.message.bytes", "1000000", True),
        ("p-saga.dead-letters", "max.message.bytes", "4194304", False),
        ("p-saga.lifecycle", "retention.ms", "1000", False),
        ("p-saga.answers", "segment.ms", "604800000", False),
    ],
)
def test_only_what_the_promise_needs_is_severe(
    log: MemoryLog, topic: str, setting: str, value: str, severe: bool
) -> None:
    specs = list(planned().values())
    apply(log.admin(), specs)
    changed(log, topic, **{setting: value})
    (finding,) = check(log.admin(), NAMES, specs)
    assert (finding.topic, finding.severe) == (topic, severe)


@pytest.mark.parametrize(("partitions", "words"), [(3, "set partitions to 3"), (5, "keys have moved")])
def test_another_partition_count_is_severe(log: MemoryLog, partitions: int, words: str) -> None:
    log.create(replace(planned()["saga.replies"], partitions=partitions))
    apply(log.admin(), list(planned().values()))
    (finding,) = check(log.admin(), NAMES, list(planned().values()))
    assert finding.severe
    assert words in finding.remedy
    with pytest.raises(ConfigurationError, match=f"{partitions} partitions, not 4"):
        audit(log.admin(), NAMES, partitions=4, replication=3)


def test_too_few_replicas_are_found(log: MemoryLog) -> None:
    apply(log.admin(), list(planned(replication=1).values()))
    findings = [f for f in check(log.admin(), NAMES, list(planned().values())) if "replicas, not" in f.problem]
    assert len(findings) == 10
    audit(log.admin(), NAMES, partitions=4, replication=1)


def test_the_export_names_every_topic_with_all_its_settings() -> None:
    specs = list(planned().values())
    commands, strimzi, terraform = to_commands(specs, "kafka:9092"), to_strimzi(specs, "main"), to_terraform(specs)
    assert commands.count("--create --if-not-exists") == len(specs)
    assert "--topic p-saga.journal \\\n  --partitions 4 --replication-factor 3" in commands
    assert "--config message.timestamp.type=LogAppendTime" in commands
    assert strimzi.count("apiVersion: kafka.strimzi.io/v1\n") == len(specs)
    assert '    retention.ms: "-1"' in strimzi
    assert terraform.count('resource "kafka_topic"') == len(specs)
    assert 'resource "kafka_topic" "p_saga_dead_letters"' in terraform
    for spec in specs:
        assert f"  topicName: {spec.name}\n" in strimzi
        assert f'"{spec.name}"' in terraform


def test_exported_config_blocks_are_well_formed() -> None:
    text = to_terraform([planned()["saga.journal"]])
    config = text[text.index("config = {") + len("config = {") : text.index("  }\n  lifecycle")]
    assert tomllib.loads(config) == planned()["saga.journal"].settings
