"""Roles and their permissions: what none but the right role may do, the names of what they are for, the verb."""

import inspect
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from confluent_kafka import KafkaError

from orchestrator import cli
from orchestrator.acls import OWNERS, PUBLISHERS, Role, acls_of, missing
from orchestrator.errors import ConfigurationError
from orchestrator.log.acl import Acl, Operation, Resource
from orchestrator.log.kafka_acls import acl_of, binding_of
from orchestrator.log.kafka_failure import explain
from orchestrator.model.events import Status
from orchestrator.model.ids import partition_of
from orchestrator.runtime import lifecycle
from orchestrator.runtime.worker import Worker
from orchestrator.topics import TopicNames
from tests.shop_world import PARTITIONS, World

NAMES = TopicNames("t-", {"payments.commands": "pay"})
SERVICES = ("inventory", "payments")


def acls(role: Role, *services: str) -> list[Acl]:
    return acls_of(role, "User:somebody", NAMES, services or SERVICES, [("shop.orders", "orders")])


def who_may(operation: Operation, topic: str) -> set[Role]:
    return {role for role in Role if Acl("User:somebody", operation, Resource.TOPIC, topic) in acls(role)}


@pytest.mark.parametrize("topic", [NAMES.journal, NAMES.internal, NAMES.answers, NAMES.lifecycle])
def test_only_workers_write_what_is_theirs(topic: str) -> None:
    assert who_may(Operation.WRITE, topic) == {Role.WORKER}


def test_who_writes_the_inputs_and_the_commands() -> None:
    assert who_may(Operation.WRITE, NAMES.inbox) == {Role.CLIENT, Role.SOURCE, Role.OPERATOR}
    assert who_may(Operation.WRITE, NAMES.replies) == {Role.PARTICIPANT, Role.OPERATOR}
    assert who_may(Operation.WRITE, NAMES.operations) == {Role.OPERATOR}
    assert who_may(Operation.WRITE, "pay") == {Role.WORKER, Role.COMPLETER, Role.OPERATOR}
    assert who_may(Operation.WRITE, NAMES.ledger("payments")) == {Role.PARTICIPANT}


def test_only_workers_delete_records_and_never_the_journals() -> None:
    deleted = {acl.name for acl in acls(Role.WORKER) if acl.operation is Operation.DELETE}
    consumed = {NAMES.inbox, NAMES.replies, NAMES.internal, NAMES.operations}
    assert deleted == consumed | {NAMES.commands(service) for service in SERVICES}
    assert not [acl for role in Role if role is not Role.WORKER for acl in acls(role) if acl.operation.name == "DELETE"]


def test_a_participant_has_nothing_of_another_service() -> None:
    assert not [acl for acl in acls(Role.PARTICIPANT, "inventory") if acl.name in ("pay", "t-payments.ledger")]
    assert Acl("User:somebody", Operation.READ, Resource.GROUP, "t-inventory") in acls(Role.PARTICIPANT, "inventory")


LETTERS = {"A": "Alter", "C": "Create", "D": "Describe", "R": "Read", "W": "Write", "X": "Delete"}


def test_the_documents_table_is_the_list() -> None:
    lines = (Path(__file__).parents[2] / "docs" / "security.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    start = next(number for number, row in enumerate(rows) if row[0] == "on")
    roles = [Role(name) for name in rows[start][1:]]
    documented: dict[Role, set[tuple[str, str]]] = {role: set() for role in roles}
    for name, *cells in (row for row in rows[start + 2 :] if len(row) == len(roles) + 1):
        for role, letters in zip(roles, cells, strict=True):
            documented[role] |= {(name.replace("`", ""), LETTERS[letter]) for letter in letters.split()}
    assert set(roles) == set(Role)
    for role in roles:
        listed = acls_of(role, "User:somebody", TopicNames(), ["payments"], [("shop.orders", "shop.orders")])
        assert documented[role] == {(called(acl), acl.operation.value) for acl in listed} - {
            (acl.name, "DescribeConfigs") for acl in listed
        }


def called(acl: Acl) -> str:
    return {Resource.CLUSTER: "the cluster", Resource.GROUP: f"group {acl.name}"}.get(acl.resource, acl.name)


def test_clients_need_no_group_and_only_admins_the_cluster() -> None:
    assert {acl.resource for acl in acls(Role.CLIENT)} == {Resource.TOPIC}
    assert [role for role in Role if Resource.CLUSTER in {acl.resource for acl in acls(role)}] == [Role.ADMIN]


@pytest.mark.parametrize("role", Role)
def test_each_permission_is_listed_once_and_under_the_prefix(role: Role) -> None:
    listed = acls(role)
    assert len(listed) == len(set(listed))
    assert all(acl.name.startswith("t-") or acl.name in ("pay", "shop.orders", "kafka-cluster") for acl in listed)


def test_the_workers_groups_are_those_that_workers_join() -> None:
    assert inspect.signature(Worker).parameters["group"].default == OWNERS
    assert lifecycle.GROUP == PUBLISHERS


def test_what_is_missing_keeps_its_order() -> None:
    wanted = acls(Role.CLIENT)
    assert missing(wanted, [wanted[1], *acls(Role.PARTICIPANT)]) == [wanted[0], *wanted[2:]]
    assert missing(wanted, wanted) == []


@pytest.mark.parametrize("principal", ["worker", "User:", ":worker", "User: worker"])
def test_a_principal_is_a_type_and_a_name(principal: str) -> None:
    with pytest.raises(ConfigurationError, match="such as User:client"):
        acls_of(Role.CLIENT, principal, NAMES)


def test_a_source_reads_its_topic_in_a_group_of_its_own() -> None:
    assert {acl.name for acl in acls(Role.SOURCE)} == {
        *(NAMES.inbox, "shop.orders", "t-saga-source.orders", NAMES.dead_letters)
    }
    with pytest.raises(ConfigurationError, match="by FromTopic"):
        acls_of(Role.SOURCE, "User:somebody", NAMES, SERVICES)


@pytest.mark.parametrize("role", [Role.WORKER, Role.PARTICIPANT, Role.COMPLETER])
def test_who_deals_with_commands_has_services(role: Role) -> None:
    with pytest.raises(ConfigurationError, match="--service"):
        acls_of(role, "User:somebody", NAMES)


@pytest.mark.parametrize("role", Role)
def test_permissions_are_the_same_on_their_way_to_kafka_and_back(role: Role) -> None:
    assert [acl_of(binding_of(acl)) for acl in acls(role)] == acls(role)


def test_a_refusal_says_who_needs_what() -> None:
    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "a request of four hundred characters")
    need = "Write on topic saga.journal"
    assert explain(error, need, {"sasl.username": "ann"}).endswith(
        "failed: User:ann needs Write on topic saga.journal, see `saga acls`"
    )
    assert "this client needs Write" in explain(error, need, {})
    assert explain(KafkaError(KafkaError._TIMED_OUT, "too late"), need, {}) == "too late"


def test_the_verb_lists_by_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_TOPICS", '{"payments.commands": "pay"}')
    command = ["acls", "list", "-b", "nowhere:1", "--prefix", "t-", "--role", "participant"]
    command += ["--principal", "User:pat", "--service", "payments"]
    told = CliRunner().invoke(cli.saga, [*command, "--json"])
    assert told.exit_code == 0, told.output
    listed = json.loads(told.output.splitlines()[-1])["acls"]
    assert {"principal": "User:pat", "operation": "Read", "resource": "topic", "name": "pay"} in listed
    shown = CliRunner().invoke(cli.saga, command).output.splitlines()
    assert shown[0].split() == ["principal", "operation", "on", "name"]
    assert len(shown) == 1 + len(listed)
    assert ["User:pat", "Read", "group", "t-payments"] in [line.split() for line in shown]


@pytest.mark.parametrize("kind", ["start", "attach"])
@pytest.mark.parametrize("target", ["saga.journal", "payments.commands"])
def test_nobody_has_an_owner_answer_where_he_may_not_write_himself(kind: str, target: str) -> None:
    world = World()
    headers = {"saga-type": "OrderFulfilment", "input-type": kind, "reply-to": target, "reply-partition": "0"}
    encoded = [(name, content.encode()) for name, content in headers.items()]
    home = partition_of("o-1", PARTITIONS)
    world.log.appender().append(world.topics.inbox, home, b'{"id":"o-1"}', key=b"o-1", headers=encoded, token=None)
    world.settle()
    (letter,) = world.records(world.topics.dead_letters)
    reason = dict(letter.headers)["__connect.errors.exception.message"].decode()
    assert reason == f"header 'reply-to': answers go to saga.answers, not to '{target}'"
    # The partition goes on.
    plain = [("saga-type", b"OrderFulfilment")]
    world.log.appender().append(world.topics.inbox, home, b'{"id":"o-1"}', key=b"o-1", headers=plain, token=None)
    world.settle()
    assert world.status("o-1") is Status.COMPLETED


def test_only_workers_that_cut_journals_may_delete_of_them() -> None:
    cut = (Operation.DELETE, TopicNames().journal)
    for role in Role:
        given = [
            acls_of(role, "User:x", TopicNames(), ["s"], [("t", "t")], archive=archive) for archive in (False, True)
        ]
        found = [cut in [(acl.operation, acl.name) for acl in acls] for acls in given]
        assert found == [False, role is Role.WORKER]
