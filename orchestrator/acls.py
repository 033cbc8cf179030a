"""Who needs which permission on a secured cluster: for each role the least with which all it does goes through.

Only workers write the journal; a service's participants read no other service's commands. `tests/integration` runs
every role on a broker that allows nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum

from orchestrator.errors import ConfigurationError
from orchestrator.log.acl import CLUSTER_NAME, Acl, Operation, Resource
from orchestrator.topics import TopicNames

OWNERS = "saga-owners"
PUBLISHERS = "saga-lifecycle"
"""The workers' consumer groups, without the prefix: who owns what, and up to where the lifecycle is published."""


class Role(Enum):
    """What a principal is there for."""

    ADMIN = "admin"
    """Plans, creates and checks topics, and gives permissions."""
    WORKER = "worker"
    """Owns partitions: the only one that writes journal, internal messages, answers and lifecycle."""
    PARTICIPANT = "participant"
    """Executes the commands of its services."""
    COMPLETER = "completer"
    """Completes work that its services' handlers left pending. Commands carry no signature: it is of the service."""
    CLIENT = "client"
    """Starts, cancels and waits for sagas."""
    SOURCE = "source"
    """Reads business topics, and starts and tells sagas what is there."""
    OPERATOR = "operator"
    """Decides about sagas and redrives dead letters; reads everything, as the checker and `saga show` do."""


Need = tuple[Operation, Resource, str]


def acls_of(
    role: Role,
    principal: str,
    names: TopicNames,
    services: Iterable[str] = (),
    sources: Iterable[tuple[str, str]] = (),
    *,
    archive: bool = False,
) -> list[Acl]:
    """What `principal` needs, in the order of the design's topics.

    `services` are those whose commands a worker sends, a participant executes or a completer completes, or that an
    admin or operator looks after; `sources` what a source reads, each a topic and the source's name. Workers that move
    the journals into an archive may also delete their records.
    Raises `ConfigurationError`.
    """
    if not _PRINCIPAL.fullmatch(principal):
        raise ConfigurationError(f"{principal!r} is no principal: it is a type and a name, such as User:{role.value}")
    chosen = sorted(set(services))
    if not chosen and role in (Role.WORKER, Role.PARTICIPANT, Role.COMPLETER):
        raise ConfigurationError(
            f"a {role.value} has services: name them by --service, or the modules that define them"
        )
    if role is Role.SOURCE:
        read = sorted(set(sources))
        if not read:
            raise ConfigurationError("a source reads topics: name the modules that define it by FromTopic")
        return [Acl(principal, *need) for need in dict.fromkeys(_source(names, read))]
    needs = list(_NEEDS[role](names, chosen))
    if archive and role is Role.WORKER:
        needs += _topic(names.journal, *_TRIM)
    return [Acl(principal, *need) for need in dict.fromkeys(needs)]


def missing(wanted: Sequence[Acl], existing: Iterable[Acl]) -> list[Acl]:
    """Those of `wanted` that do not exist, in their order."""
    known = set(existing)
    return [acl for acl in wanted if acl not in known]


_PRINCIPAL = re.compile(r"[A-Za-z]+:\S.*")

_READ, _WRITE = (Operation.READ,), (Operation.WRITE,)
_READ_WRITE = (Operation.READ, Operation.WRITE)
_DESCRIBE = (Operation.DESCRIBE,)
"""Of a topic that is neither read nor written."""
_LOOK = (Operation.DESCRIBE_CONFIGS,)
"""For settings: workers hold them against the plan, others learn the number of partitions together with them."""
_TRIM = (Operation.DELETE,)
"""Of records: workers delete what was consumed."""


def _topic(name: str, *operations: Operation) -> Iterator[Need]:
    for operation in operations:
        yield operation, Resource.TOPIC, name


def _group(name: str, operation: Operation = Operation.READ) -> Need:
    return operation, Resource.GROUP, name


def _admin(names: TopicNames, services: Sequence[str]) -> Iterator[Need]:
    yield Operation.ALTER, Resource.CLUSTER, CLUSTER_NAME
    for topic in _all_topics(names, services):
        yield from _topic(topic, Operation.CREATE, *_DESCRIBE, *_LOOK)


def _worker(names: TopicNames, services: Sequence[str]) -> Iterator[Need]:
    for topic in (names.inbox, names.replies, names.operations):
        yield from _topic(topic, *_READ, *_TRIM, *_LOOK)
    yield from _topic(names.internal, *_READ_WRITE, *_TRIM, *_LOOK)
    yield from _topic(names.journal, *_READ_WRITE, *_LOOK)
    for service in services:
        yield from _topic(names.commands(service), *_WRITE, *_TRIM, *_LOOK)
        yield _group(names.group(service), Operation.DESCRIBE)
    for topic in (names.lifecycle, names.answers, names.dead_letters):
        yield from _topic(topic, *_WRITE)
    yield _group(names.prefix + OWNERS)
    yield _group(names.prefix + PUBLISHERS)


def _participant(names: TopicNames, services: Sequence[str]) -> Iterator[Need]:
    yield from _topic(names.replies, *_WRITE)
    for service in services:
        yield from _topic(names.commands(service), *_READ)
        yield from _topic(names.ledger(service), *_READ_WRITE)
        yield _group(names.group(service))
    yield from _topic(names.dead_letters, *_WRITE)


def _completer(names: TopicNames, services: Sequence[str]) -> Iterator[Need]:
    yield from _topic(names.inbox, *_DESCRIBE, *_LOOK)
    for service in services:
        yield from _topic(names.commands(service), *_WRITE)
    yield from _topic(names.answers, *_DESCRIBE, *_LOOK)


def _client(names: TopicNames, services: Sequence[str]) -> Iterator[Need]:
    yield from _topic(names.inbox, *_WRITE, *_LOOK)
    yield from _topic(names.lifecycle, *_READ)
    yield from _topic(names.answers, *_READ, *_LOOK)


def _source(names: TopicNames, sources: Sequence[tuple[str, str]]) -> Iterator[Need]:
    yield from _topic(names.inbox, *_WRITE, *_LOOK)
    for topic, name in sources:
        yield from _topic(topic, *_READ)
        yield _group(names.source_group(name))
    yield from _topic(names.dead_letters, *_WRITE)


def _operator(names: TopicNames, services: Sequence[str]) -> Iterator[Need]:
    # To all between the first and the last, redriven dead letters go back; the last is told that they did.
    written = {names.operations, names.inbox, names.replies, *map(names.commands, services), names.dead_letters}
    for topic in _all_topics(names, services):
        yield from _topic(topic, *(_READ_WRITE if topic in written else _READ), *_LOOK)
    for service in services:
        yield _group(names.group(service), Operation.DESCRIBE)  # a backup leaves out what it has consumed
    yield _group(names.prefix + PUBLISHERS, Operation.DESCRIBE)  # likewise what was published


def _all_topics(names: TopicNames, services: Sequence[str]) -> list[str]:
    saga = [names.inbox, names.replies, names.internal, names.operations, names.journal]
    told = [names.lifecycle, names.answers, names.dead_letters]
    return [*saga, *(topic(service) for service in services for topic in (names.commands, names.ledger)), *told]


_NEEDS: Mapping[Role, Callable[[TopicNames, Sequence[str]], Iterator[Need]]] = {
    Role.ADMIN: _admin,
    Role.WORKER: _worker,
    Role.PARTICIPANT: _participant,
    Role.COMPLETER: _completer,
    Role.CLIENT: _client,
    Role.OPERATOR: _operator,
}
