"""The topics as they must be: planned, created, checked, exported.

Nothing relies on topics that brokers create by themselves: the journal's safety rests on settings that are not Kafka's
defaults. What is created is never changed here; a difference becomes a finding that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import ConfigurationError
from orchestrator.log.base import Admin, TopicSpec, TopicState
from orchestrator.topics import TopicNames

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS

MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's default, stated because a cluster's may be lower. Producers end a batch at 1,000,000 bytes."""
LEAST_MESSAGE_BYTES = 1_000_512
"""Below, a broker refuses a batch that a producer took for small enough, and by then the next record has landed."""
MAX_FOREIGN_BYTES = 4 << 20
"""Where anybody may write: what is far too large for a saga gets in, and becomes a dead letter that says why."""
MAX_DEAD_LETTER_BYTES = 5 << 20
"""The largest foreign record, whole, with where it stood and why it is there."""
LEDGER_RETENTION_MS = 30 * _DAY_MS

_KEPT = {"retention.ms": "-1", "retention.bytes": "-1"}
"""Nothing is deleted by age: what is consumed is trimmed by the owners, the journal only below its archive."""
_OUTSIDE = {"compression.type": "uncompressed", "max.message.bytes": str(MAX_FOREIGN_BYTES)}
"""Where anybody may write, a record is never larger unpacked than the limit: clients unpack without one."""
_WHOLE = {"max.message.bytes": str(MAX_DEAD_LETTER_BYTES)}
_OWNERS = {"compression.type": "producer"}
_FLUSHED = {"flush.messages": "1"}
"""Every record is on the leader's disk before it is acknowledged."""
_ROLLED_DAILY = {"segment.ms": str(_DAY_MS)}
"""Only whole segments are freed when a topic is trimmed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between a topic and its plan. `severe`: the orchestrator must not run like this."""

    topic: str
    problem: str
    remedy: str
    severe: bool

    def __str__(self) -> str:
        return f"{self.topic}: {self.problem}; {self.remedy}"


def plan(
    names: TopicNames,
    *,
    partitions: int,
    replication: int,
    services: Iterable[str] = (),
    ledger_retention_ms: int = LEDGER_RETENTION_MS,
    fsync: bool = False,
) -> list[TopicSpec]:
    """All topics of an installation; `services` are those that have commands and a ledger here.

    `fsync`: every record is written through to the disk, but for what is only told to others (lifecycle, answers). The
    journal says what was read of the inputs and sent of the commands: it must not know of more than the others have.

    Ledgers are planned before commands: a command partition without its ledger partition would stand still.
    """
    always = {
        "cleanup.policy": "delete",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        # Times by the brokers: an owner's clock starts from the journal's, a participant refuses late commands by it.
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(min(2, max(1, replication - 1))),
        "unclean.leader.election.enable": "false",
    }

    def spec(name: str, *settings: Mapping[str, str]) -> TopicSpec:
        merged = dict(always)
        if fsync and name not in (names.lifecycle, names.answers):
            merged |= _FLUSHED
        for more in settings:
            merged |= more
        return TopicSpec(name, partitions, replication, dict(sorted(merged.items())))

    def for_days(days: int) -> dict[str, str]:
        return {"retention.ms": str(days * _DAY_MS), "retention.bytes": "-1"}

    specs = [
        spec(names.journal, _KEPT, _OWNERS),
        spec(names.inbox, _KEPT, _OUTSIDE, _ROLLED_DAILY),
        spec(names.replies, _KEPT, _OUTSIDE, _ROLLED_DAILY),
        spec(names.internal, _KEPT, _OWNERS, _ROLLED_DAILY),
        spec(names.operations, _KEPT, _OUTSIDE, _ROLLED_DAILY),
        spec(names.lifecycle, for_days(7), _OWNERS),
        spec(
            names.answers,
            {"retention.ms": str(_HOUR_MS), "retention.bytes": "-1", "segment.ms": str(_HOUR_MS // 6)},
            _OWNERS,
        ),
        spec(names.dead_letters, for_days(30), _OUTSIDE, _WHOLE),
    ]
    for service in sorted(set(services)):
        kept = {"retention.ms": str(ledger_retention_ms), "retention.bytes": "-1"}
        specs.append(spec(names.ledger(service), kept, _OWNERS))
        specs.append(spec(names.commands(service), _KEPT, _OWNERS, _ROLLED_DAILY))
    return specs


def apply(admin: Admin, specs: Sequence[TopicSpec]) -> list[str]:
    """Creates the topics that are missing and gives their names; one that exists stays as it is.

    Raises `AdminFailed`.
    """
    existing = admin.describe([spec.name for spec in specs])
    missing = [spec for spec in specs if spec.name not in existing]
    admin.create(missing)
    return [spec.name for spec in missing]


def check(admin: Admin, names: TopicNames, specs: Sequence[TopicSpec]) -> list[Finding]:
    """What differs from the plan, by topic in its order. Raises `AdminFailed`."""
    existing = admin.describe([spec.name for spec in specs])
    # What is only told to others may be kept as its readers like it.
    lenient = {names.lifecycle, names.answers, names.dead_letters}
    return [finding for spec in specs for finding in _compare(spec, existing.get(spec.name), spec.name not in lenient)]


def audit(admin: Admin, names: TopicNames, *, partitions: int, replication: int) -> None:
    """What a worker asks before it touches a journal. Raises `ConfigurationError` with all severe findings.

    It looks at the topics that workers read and write by number: journal and inputs. `replication` is the one that was
    planned; a journal with fewer replicas or a laxer guard than that is refused.
    """
    watched = {names.journal, names.inbox, names.replies, names.internal, names.operations}
    specs = [spec for spec in plan(names, partitions=partitions, replication=replication) if spec.name in watched]
    severe = [finding for finding in check(admin, names, specs) if finding.severe]
    if severe:
        raise ConfigurationError("\n".join(str(finding) for finding in severe))


def _compare(spec: TopicSpec, state: TopicState | None, strict: bool) -> list[Finding]:
    if state is None:
        return [Finding(spec.name, "it does not exist", "create it with `saga topics apply`", True)]
    findings = []
    if state.partitions != spec.partitions:
        remedy = f"set partitions to {state.partitions}, if the topics were made with as many; else restore the topic"
        if state.partitions > spec.partitions:
            remedy += ": partitions cannot be taken away, and keys have moved"
        findings.append(
            Finding(spec.name, f"it has {state.partitions} partitions, not {spec.partitions}", remedy, True)
        )
    if state.replication < spec.replication:
        problem = f"it has {state.replication} replicas, not {spec.replication}"
        findings.append(Finding(spec.name, problem, "reassign its partitions to more brokers", strict))
    for name, wanted in spec.settings.items():
        is_right, severe, why = _RULES[name]
        found = state.settings.get(name, "")
        if not is_right(found, wanted):
            problem = f"{name} is {found or 'not set'}, not {wanted}: {why}"
            findings.append(Finding(spec.name, problem, _set(spec.name, name, wanted), severe and strict))
    return findings


def _set(topic: str, name: str, value: str) -> str:
    return f"run `kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {name}={value}`"


def _same(found: str, wanted: str) -> bool:
    return found == wanted


def _large_enough(found: str, wanted: str) -> bool:
    """Inputs may be kept smaller: then whoever sends too much is told by Kafka."""
    least = LEAST_MESSAGE_BYTES if int(wanted) < MAX_DEAD_LETTER_BYTES else int(wanted)
    return bool(found) and int(found) >= least


def _kept_as_long(found: str, wanted: str) -> bool:
    if not found:
        return False
    return int(found) == -1 or (wanted != "-1" and int(found) >= int(wanted))


_RULES: Mapping[str, tuple[Callable[[str, str], bool], bool, str]] = {
    "cleanup.policy": (_same, True, "compaction removes records that others are chained to"),
    "compression.type": (
        lambda found, wanted: wanted in ("producer", found),
        False,
        "what anybody may send packed is unpacked by clients without a limit",
    ),
    "flush.messages": (
        lambda found, wanted: bool(found) and int(found) <= int(wanted),
        True,
        "an acknowledged record may be in the brokers' memory alone",
    ),
    "max.message.bytes": (
        _large_enough,
        True,
        f"below {LEAST_MESSAGE_BYTES} a record may be refused after the next one has landed, and dead letters that "
        "take less than the inputs lose what was too large",
    ),
    "message.timestamp.type": (_same, True, "timers and late commands are told by the brokers' time"),
    "min.insync.replicas": (
        lambda found, wanted: bool(found) and int(found) >= int(wanted),
        True,
        "an acknowledged record could be lost with one broker",
    ),
    "retention.bytes": (_kept_as_long, True, "records would be deleted by size while they are needed"),
    "retention.ms": (_kept_as_long, True, "records would be deleted by age while they are needed"),
    "segment.ms": (
        lambda found, wanted: bool(found) and int(found) <= int(wanted),
        False,
        "disk space is freed by whole segments",
    ),
    "unclean.leader.election.enable": (_same, True, "acknowledged records could be lost, and every owner would halt"),
}
"""For each setting: whether a value is as good as the planned one, whether a difference is severe, why it matters."""


# Export


def to_commands(specs: Sequence[TopicSpec], bootstrap_servers: str) -> str:
    """A shell script of `kafka-topics.sh` calls."""
    calls = []
    for spec in specs:
        parts = [
            f"kafka-topics.sh --bootstrap-server {bootstrap_servers} --create --if-not-exists --topic {spec.name}",
            f"--partitions {spec.partitions} --replication-factor {spec.replication}",
            *(f"--config {name}={value}" for name, value in spec.settings.items()),
        ]
        calls.append(" \\\n  ".join(parts))
    return "#!/bin/sh\nset -e\n" + "\n".join(calls) + "\n"


def to_strimzi(specs: Sequence[TopicSpec], cluster: str) -> str:
    """`KafkaTopic` resources (kafka.strimzi.io/v1) for the Strimzi cluster of that name."""
    documents = []
    for spec in specs:
        lines = [
            "apiVersion: kafka.strimzi.io/v1",
            "kind: KafkaTopic",
            "metadata:",
            f"  name: {_resource_name(spec.name)}",
            "  labels:",
            f"    strimzi.io/cluster: {cluster}",
            "spec:",
            f"  topicName: {spec.name}",
            f"  partitions: {spec.partitions}",
            f"  replicas: {spec.replication}",
            "  config:",
            *(f'    {name}: "{value}"' for name, value in spec.settings.items()),
        ]
        documents.append("\n".join(lines) + "\n")
    return "---\n".join(documents)


def to_terraform(specs: Sequence[TopicSpec]) -> str:
    """`kafka_topic` resources for the provider Mongey/kafka. None of them is ever destroyed by a plan."""
    blocks = []
    for spec in specs:
        lines = [
            f'resource "kafka_topic" "{_resource_name(spec.name).replace(".", "_").replace("-", "_")}" {{',
            f'  name               = "{spec.name}"',
            f"  partitions         = {spec.partitions}",
            f"  replication_factor = {spec.replication}",
            "  config = {",
            *(f'    "{name}" = "{value}"' for name, value in spec.settings.items()),
            "  }",
            "  lifecycle {",
            "    prevent_destroy = true",
            "  }",
            "}",
        ]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _resource_name(topic: str) -> str:
    """A Kubernetes name: lower case, digits, '-' and '.', beginning and ending with a letter or digit."""
    return topic.lower().replace("_", "-").strip(".-") or "topic"
