"""Every role on a broker that allows only what `saga acls apply` has given it: that suffices, and no more goes."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBindingFilter,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from orchestrator.client import Client
from orchestrator.config import load_settings
from orchestrator.demo.processes import Process
from orchestrator.errors import Disconnected
from orchestrator.log.acl import Acl, Operation, Resource
from orchestrator.log.base import Admin, AdminFailed, Delivery, Failure, ReadFailed, TopicPartition, TopicSpec
from orchestrator.log.kafka import KafkaLog
from orchestrator.log.kafka_acls import binding_of
from orchestrator.runtime.trimmer import Holdings, Trimmer
from orchestrator.topics import TopicNames
from orchestrator.wire.inputs import ROLES
from tests.processes import running
from tests.secured_broker import LISTENER, ROOT, SecuredBroker, another_certificate, secured_broker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

SHOP = "tests.secured_shop"
PREFIX = "secured-"
NAMES = TopicNames(PREFIX)
PARTITIONS = 2
USERS = ("admin", "worker", "payments", "bank", "client", "source", "operator")
WITHIN_S = 60.0
HERE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Cluster:
    """The broker with all topics and each user's permissions. Its worker may not send commands to shipping."""

    broker: SecuredBroker
    folder: Path

    def environment(self, user: str) -> dict[str, str]:
        keys = self.folder / "reply-token-keys"
        keys.write_text("k1:a secret that nobody else knows\n")
        return {
            **self.broker.environment(user),
            "PYTHONPATH": str(HERE),
            "SAGA_PREFIX": PREFIX,
            "SAGA_DEVELOPMENT": "true",
            "SAGA_PARTITIONS": str(PARTITIONS),
            "SAGA_REPLY_TOKEN_KEYS_FILE": str(keys),
            "SAGA_STATE_DIRECTORY": str(self.folder / user),
            "SAGA_METRICS_PORT": "0",
        }

    def run(self, user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A verb as this user, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *arguments],
            env=os.environ | self.environment(user),
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
        )

    def told(self, user: str, *arguments: str, expect: int = 0) -> dict[str, Any]:
        """What it says as JSON."""
        done = self.run(user, *arguments, "--json")
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told

    def refusal(self, user: str, *arguments: str) -> str:
        """What a verb says that ends with 1 because something is not allowed."""
        done = self.run(user, *arguments)
        assert done.returncode == 1, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1]

    def log(self, user: str) -> KafkaLog:
        settings = load_settings(environ=self.environment(user))
        return KafkaLog(settings.bootstrap_servers or "", common=settings.common)

    def start(self, saga_type: str, saga_id: str, expect: int = 0) -> dict[str, Any]:
        """Starts a saga as the client and waits for its end."""
        given = json.dumps({"order_id": saga_id})
        return self.told("client", "start", saga_type, "--id", saga_id, "--input", given, "--wait", "40", expect=expect)

    def running(self, user: str, *arguments: str) -> AbstractContextManager[Process]:
        return running(Process(user, arguments, self.folder, self.environment(user)))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("secured")
    with secured_broker(folder, USERS) as broker:
        made = Cluster(broker, folder)
        give(made, ROOT, "admin", "--service", "payments", "--service", "shipping")
        assert len(made.told("admin", "topics", "apply", SHOP)["created"]) == 8 + 2 * 2
        give(made, "admin", "worker", "--service", "payments")
        give(made, "admin", "payments", "--service", "payments", role="participant")
        give(made, "admin", "bank", "--service", "payments", role="completer")
        give(made, "admin", "client")
        give(made, "admin", "source", SHOP)
        give(made, "admin", "operator", SHOP)
        yield made


def give(cluster: Cluster, giver: str, user: str, *arguments: str, role: str = "") -> None:
    command = ("acls", "apply", "--role", role or user, "--principal", f"User:{user}", *arguments)
    assert cluster.told(giver, *command)["created"]
    assert cluster.told(giver, *command)["created"] == []


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Cluster]:
    """With a worker and the payments service, each as its own user."""
    with (
        cluster.running("worker", "worker", SHOP),
        cluster.running("payments", "participant", f"{SHOP}:payments"),
    ):
        yield cluster


def test_pending_work_is_completed(shop: Cluster) -> None:
    given = json.dumps({"order_id": "later"})
    shop.told("client", "start", "Order", "--id", "later-1", "--input", given)
    tokens: list[str] = []

    def is_pending() -> bool:
        said = (shop.folder / "payments.log").read_text().rpartition("\n")[0].splitlines()  # the last may be half there
        tokens[:] = [line.removeprefix("token ") for line in said if line.startswith("token ")]
        return bool(tokens)

    eventually(is_pending)

    async def complete(user: str) -> None:
        settings = load_settings(environ=shop.environment(user))
        async with Client.connect(shop.broker.bootstrap_servers, prefix=PREFIX, common=settings.common) as client:
            await client.complete(tokens[0], "charged by the bank")

    with pytest.raises(Disconnected, match=f"User:client needs Write on topic {NAMES.commands('payments')}"):
        asyncio.run(complete("client"))
    asyncio.run(complete("bank"))
    done = shop.start("Order", "later-1")
    assert (done["status"], done["result"]) == ("COMPLETED", "charged by the bank")


def test_a_business_topic_starts_orders(shop: Cluster) -> None:
    wake = Event()
    root = shop.log(ROOT)
    admin = root.admin()
    admin.create([TopicSpec("business.orders", 1, 1, {})])
    admin.close()
    with shop.running("source", "source", f"{SHOP}:orders"):
        appender = root.appender(wake=wake)
        appender.append("business.orders", 0, b"?", token=None)
        appender.append("business.orders", 0, b'{"order_id": "b-1"}', token=None)
        appender.close(10.0)
        eventually(lambda: shop.run("operator", "show", "b-1").returncode == 0)
    done = shop.start("Order", "b-1")
    assert (done["status"], done["result"]) == ("COMPLETED", "charged b-1")
    letters = shop.told("operator", "dead-letters", "list")["dead_letters"]
    assert [letter["reason"] for letter in letters if letter["topic"] == "business.orders"] == [
        "the value does not fit: Invalid JSON: expected value at line 1 column 1"
    ]
    refused = shop.refusal("client", "source", f"{SHOP}:orders")
    assert "may not look at its topic (business.orders: " in refused
    assert "see `saga acls`" in refused


def eventually(condition: Callable[[], bool]) -> None:
    """Asks until it is true; every question takes a while by itself."""
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline


def test_an_order_completes_and_is_seen_by_the_operator(shop: Cluster) -> None:
    done = shop.start("Order", "o-1")
    followed = shop.run("client", "follow", "o-1", "progress")
    assert (followed.returncode, followed.stdout) == (0, ""), followed.stderr
    assert (done["status"], done["result"]) == ("COMPLETED", "charged o-1")
    listed = {saga["saga_id"]: saga["status"] for saga in shop.told("operator", "list", "--type", "Order")["sagas"]}
    assert listed["o-1"] == "COMPLETED"
    assert shop.told("operator", "topics", "check", SHOP)["findings"] == []
    assert shop.told("operator", "doctor", SHOP)["wrong"] == 0
    assert "the saga has ended" in shop.refusal("operator", "terminate", "o-1")
    assert "the saga has ended" in shop.refusal("client", "cancel", "o-1")


def test_what_happened_is_published_and_the_position_committed(shop: Cluster) -> None:
    shop.start("Order", "o-2")
    admin = shop.log(ROOT).admin()
    eventually(lambda: held(admin, NAMES.lifecycle) > 0)
    journals = [(NAMES.journal, partition) for partition in range(PARTITIONS)]
    eventually(lambda: bool(admin.committed(f"{PREFIX}saga-lifecycle", journals)))
    admin.close()


def held(admin: Admin, topic: str) -> int:
    bounds = admin.ends([(topic, partition) for partition in range(PARTITIONS)])
    return sum(end - start for start, end in bounds.values())


def test_a_worker_may_trim_what_it_has_consumed(shop: Cluster) -> None:
    shop.start("Order", "o-3")
    log = shop.log("worker")
    admin = log.admin()
    holdings = Holdings({number: dict.fromkeys(ROLES, 1) for number in range(PARTITIONS)}, frozenset({"payments"}))
    trimmer = Trimmer(log, admin, NAMES, 0, Event())
    trimmed: dict[TopicPartition, int] = {}

    def trims() -> bool:
        trimmed.update(trimmer.trim(holdings, time.time_ns() // 1_000_000 + 60_000))
        return {NAMES.inbox, NAMES.replies, NAMES.commands("payments")} <= {topic for topic, _ in trimmed}

    eventually(trims)
    trimmer.close()
    with pytest.raises(AdminFailed) as refused:
        admin.trim({(NAMES.journal, 0): 1})
    assert refused.value.failure is Failure.UNAUTHORIZED
    admin.close()


def test_a_command_that_may_not_be_sent_is_an_input_to_its_step(shop: Cluster) -> None:
    failed = shop.start("Parcel", "p-1", expect=1)
    assert (failed["status"], failed["error_type"]) == ("COMPENSATED", "SendFailed")
    assert f"User:worker needs Write on topic {NAMES.commands('shipping')}" in failed["error_message"]
    assert [(step["command"], step["status"]) for step in shop.told("operator", "show", "p-1")["steps"]] == [
        ("charge", "UNDONE"),
        ("ship", "UNKNOWN"),
    ]
    assert shop.start("Order", "p-2")["status"] == "COMPLETED"


def test_a_worker_that_may_not_write_the_journal_goes_on_when_it_may_again(shop: Cluster) -> None:
    write = Acl("User:worker", Operation.WRITE, Resource.TOPIC, NAMES.journal)
    settings = load_settings(environ=shop.environment(ROOT))
    root = AdminClient({"bootstrap.servers": settings.bootstrap_servers, **settings.common})
    (taken,) = root.delete_acls([filter_for(write)]).values()
    assert len(taken.result(WITHIN_S)) == 1
    shop.told("client", "start", "Order", "--id", "o-5", "--input", '{"order_id":"o-5"}')
    eventually(
        lambda: f"needs Write on topic {NAMES.journal}, see `saga acls`" in (shop.folder / "worker.log").read_text()
    )
    again = ("acls", "apply", "--role", "worker", "--principal", "User:worker", "--service", "payments")
    assert [acl["name"] for acl in shop.told("admin", *again)["created"]] == [NAMES.journal]
    assert shop.start("Order", "o-5")["status"] == "COMPLETED"


def test_a_certificate_is_replaced_while_all_runs(shop: Cluster) -> None:
    """Connections that there are go on; new ones, of clients and of a worker that joins, meet the new certificate."""
    assert shop.start("Order", "o-6")["status"] == "COMPLETED"
    host, _, port = shop.broker.bootstrap_servers.partition(":")
    before = ssl.get_server_certificate((host, int(port)))
    settings = load_settings(environ=shop.environment(ROOT))
    root = AdminClient({"bootstrap.servers": settings.bootstrap_servers, **settings.common})
    name = f"listener.name.{LISTENER.lower()}.ssl.keystore.location"
    place = str(another_certificate(shop.folder))
    entry = ConfigEntry(name, place, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.BROKER, str(shop.broker.node_id), incremental_configs=[entry])
    for altered in root.incremental_alter_configs([resource]).values():
        altered.result(WITHIN_S)
    eventually(lambda: ssl.get_server_certificate((host, int(port))) != before)
    assert shop.start("Order", "o-7")["status"] == "COMPLETED"
    with running(Process("another", ["worker", SHOP], shop.folder, shop.environment("worker"))) as another:
        eventually(lambda: "owning partition" in another.told())
        for number in range(8, 12):
            assert shop.start("Order", f"o-{number}")["status"] == "COMPLETED"


def test_an_operator_may_take_a_backup(shop: Cluster) -> None:
    assert shop.start("Order", "o-12")["status"] == "COMPLETED"
    taken = shop.told("operator", "backup", str(shop.folder / "backup"))
    assert taken["services"] == ["payments", "shipping"]
    assert taken["records"] > 10


def filter_for(acl: Acl) -> AclBindingFilter:
    made = binding_of(acl)
    return AclBindingFilter(
        made.restype,
        made.name,
        made.resource_pattern_type,
        made.principal,
        made.host,
        made.operation,
        made.permission_type,
    )


def test_an_owner_is_no_ones_way_into_the_journal(shop: Cluster) -> None:
    headers = [("saga-type", b"Order"), ("reply-to", NAMES.journal.encode()), ("reply-partition", b"0")]
    (sent,) = append(shop, "client", [(NAMES.inbox, headers)])
    assert sent.failure is None
    letters: list[dict[str, Any]] = []

    def buried() -> bool:
        told = shop.told("operator", "dead-letters", "list")["dead_letters"]
        letters[:] = [letter for letter in told if letter["topic"] == NAMES.inbox]
        return len(letters) == 1

    eventually(buried)
    assert letters[0]["reason"] == f"header 'reply-to': answers go to {NAMES.answers}, not to '{NAMES.journal}'"
    assert len(shop.told("operator", "dead-letters", "redrive", letters[0]["place"])["redriven"]) == 1
    assert shop.start("Order", "o-4")["status"] == "COMPLETED"


def append(cluster: Cluster, user: str, records: list[tuple[str, list[tuple[str, bytes]]]]) -> list[Delivery]:
    """To partition 0 of each topic; the deliveries in their order."""
    wake = Event()
    appender = cluster.log(user).appender(wake=wake)
    for number, (topic, headers) in enumerate(records):
        appender.append(topic, 0, b'{"order_id":"x"}', key=b"x", headers=headers, token=number)
    done: dict[int, Delivery] = {}
    while len(done) < len(records):
        assert wake.wait(WITHIN_S)
        wake.clear()
        done |= {delivery.token: delivery for delivery in appender.poll()}
    appender.close(1.0)
    return [done[number] for number in range(len(records))]


FOREIGN = {
    "client": [NAMES.journal, NAMES.replies, NAMES.operations, NAMES.internal, NAMES.commands("payments")],
    "source": [NAMES.journal, NAMES.replies, NAMES.operations, NAMES.internal, NAMES.commands("payments")],
    "payments": [NAMES.journal, NAMES.inbox, NAMES.answers, NAMES.commands("shipping"), NAMES.ledger("shipping")],
    "bank": [NAMES.journal, NAMES.inbox, NAMES.replies, NAMES.commands("shipping")],
    "operator": [NAMES.journal, NAMES.internal, NAMES.answers, NAMES.ledger("payments")],
    "worker": [NAMES.inbox, NAMES.replies, NAMES.operations, NAMES.ledger("payments"), NAMES.commands("shipping")],
}


@pytest.mark.parametrize("user", FOREIGN)
def test_what_is_others_to_write_is_refused(cluster: Cluster, user: str) -> None:
    for topic, delivery in zip(FOREIGN[user], append(cluster, user, [(t, []) for t in FOREIGN[user]]), strict=True):
        assert delivery.failure is Failure.UNAUTHORIZED, delivery
        assert f"User:{user} needs Write on topic {topic}, see `saga acls`" in delivery.detail


SECRET = {
    "client": [NAMES.journal, NAMES.inbox, NAMES.commands("payments"), NAMES.dead_letters],
    "payments": [NAMES.journal, NAMES.replies, NAMES.commands("shipping"), NAMES.ledger("shipping")],
}


@pytest.mark.parametrize("user", SECRET)
def test_what_is_others_to_read_is_refused(cluster: Cluster, user: str) -> None:
    wake = Event()
    reader = cluster.log(user).reader(wake=wake)
    for topic in SECRET[user]:
        reader.assign(topic, 0, 0)
    failed: dict[str, ReadFailed] = {}
    while failed.keys() != set(SECRET[user]):
        assert wake.wait(WITHIN_S), failed
        wake.clear()
        for happening in reader.poll():
            assert isinstance(happening, ReadFailed), happening
            failed[happening.topic] = happening
    reader.close()
    for topic, failure in failed.items():
        assert failure.failure is Failure.UNAUTHORIZED, failure
        assert f"User:{user} needs Read on topic {topic}, see `saga acls`" in failure.detail


def test_verbs_beyond_a_role_say_what_is_missing(cluster: Cluster) -> None:
    others = cluster.refusal("payments", "participant", f"{SHOP}:shipping")
    assert others.startswith("saga: shipping cannot be served")
    assert f"User:payments needs Read on group {PREFIX}shipping" in others
    operates = cluster.refusal("client", "terminate", "o-1")
    assert f"User:client needs Write on topic {NAMES.operations}" in operates
    assert f"User:client needs Describe on topic {NAMES.journal}" in cluster.refusal("client", "worker", SHOP)
    owns = cluster.refusal("operator", "worker", SHOP)
    assert owns.startswith("saga: the worker may not own partitions")
    assert f"User:operator needs Read on group {PREFIX}saga-owners" in owns
    promotion = ("acls", "apply", "--role", "operator", "--principal", "User:client")
    assert "User:client needs Alter on the cluster" in cluster.refusal("client", *promotion)
