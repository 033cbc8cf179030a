"""Administrative calls over a Kafka broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import closing
from threading import Event
from typing import Any

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from orchestrator.log import base
from orchestrator.log.acl import Acl
from orchestrator.log.base import AdminFailed, Failure, TopicSpec, TopicState
from orchestrator.log.kafka_acls import acl_of, binding_of, filter_of
from orchestrator.log.kafka_config import ASKING, Raw, admin_config, consumer_config, refused
from orchestrator.log.kafka_failure import explain, failure_of

_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_RETRY_S = 0.05
"""Between two looks at whether something has come about."""
_ASK_S = 1.0
"""For so long a group's coordinator is waited for, before anything is asked again."""
_ASKED_AGAIN = {
    KafkaError._TIMED_OUT: _ASK_S,
    KafkaError.NOT_COORDINATOR: _RETRY_S,
    KafkaError.COORDINATOR_NOT_AVAILABLE: _RETRY_S,
}
"""What a group's coordinator says, or does not, while it becomes another broker, and what a try that ends so takes."""


class KafkaAdmin:
    """Blocking calls by an administrative client, for any thread but the engine's."""

    def __init__(self, bootstrap_servers: str, *, common: Raw) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._common = common
        try:
            self._config = admin_config(bootstrap_servers, common)
            self._client: AdminClient = AdminClient(self._config)
        except KafkaException as error:
            raise refused(error) from error

    def describe(self, names: Sequence[str], timeout_s: float = 10.0) -> dict[str, TopicState]:
        if not names:
            return {}
        found = _results(
            self._client.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s),
            timeout_s,
            ignored=(KafkaError.UNKNOWN_TOPIC_OR_PART,),
            told=self._told("Describe"),
        )
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in found]
        settings = {}
        if resources:
            answers = self._client.describe_configs(resources, request_timeout=timeout_s)
            told = self._told("DescribeConfigs")
            entries_of = _results(answers, timeout_s, ignored=(KafkaError.UNKNOWN_TOPIC_OR_PART,), told=told)
            for resource, entries in entries_of.items():
                settings[resource.name] = {name: entry.value for name, entry in entries.items()}
        return {
            name: TopicState(
                name,
                str(topic.topic_id),
                len(topic.partitions),
                min((len(partition.replicas) for partition in topic.partitions), default=0),
                settings[name],
            )
            for name, topic in found.items()
            if name in settings
        }

    def create(self, topics: Sequence[TopicSpec], timeout_s: float = 30.0) -> None:
        if not topics:
            return
        wanted = [NewTopic(spec.name, spec.partitions, spec.replication, config=dict(spec.settings)) for spec in topics]
        created = _results(
            self._client.create_topics(wanted, operation_timeout=timeout_s, request_timeout=timeout_s),
            timeout_s,
            ignored=(KafkaError.TOPIC_ALREADY_EXISTS,),
            told=self._told("Create"),
        )
        # The controller has them; wait for their leaders to answer for them.
        keys = [
            (spec.name, partition) for spec in topics if spec.name in created for partition in range(spec.partitions)
        ]
        named = TopicCollection([spec.name for spec in topics])

        def there(left: float) -> None:
            # The library believes what it saw before, and asks old leaders, until it is made to look again.
            _results(self._client.describe_topics(named, request_timeout=left), left)
            self._offsets(keys, _LATEST, left)

        _retried(there, timeout_s)

    def delete(self, names: Sequence[str], timeout_s: float = 30.0) -> None:
        if not names:
            return
        _results(
            self._client.delete_topics(list(names), operation_timeout=timeout_s, request_timeout=timeout_s),
            timeout_s,
            ignored=(KafkaError.UNKNOWN_TOPIC_OR_PART,),
        )

        def gone(left: float) -> None:
            if there := self.describe(names, left):
                raise AdminFailed(Failure.UNKNOWN_OUTCOME, f"still there: {sorted(there)}")

        _retried(gone, timeout_s)

    def trim(self, offsets: Mapping[base.TopicPartition, int], timeout_s: float = 10.0) -> None:
        if not offsets:
            return
        for key, offset in offsets.items():
            # The library would take it for the end of the log.
            if offset < 0:
                raise AdminFailed(Failure.OUT_OF_RANGE, f"{key[0]}-{key[1]}: {offset} is no offset")
        wanted = [TopicPartition(*key, offset) for key, offset in offsets.items()]
        _results(self._client.delete_records(wanted, request_timeout=timeout_s), timeout_s)

    def ends(
        self, partitions: Sequence[base.TopicPartition], timeout_s: float = 10.0
    ) -> dict[base.TopicPartition, tuple[int, int]]:
        starts = self._offsets(partitions, _EARLIEST, timeout_s)
        ends = self._offsets(partitions, _LATEST, timeout_s)
        return {key: (starts[key], ends[key]) for key in partitions}

    def offsets_at(
        self, partitions: Sequence[base.TopicPartition], timestamp_ms: int, timeout_s: float = 10.0
    ) -> dict[base.TopicPartition, int]:
        # Asked first: a record that comes in between is later than the time, but not before the end.
        ends = self._offsets(partitions, _LATEST, timeout_s)
        found = self._offsets(partitions, OffsetSpec.for_timestamp(max(0, timestamp_ms)), timeout_s)
        return {key: ends[key] if found[key] < 0 else found[key] for key in partitions}

    def committed(
        self, group: str, partitions: Sequence[base.TopicPartition], timeout_s: float = 10.0
    ) -> dict[base.TopicPartition, int]:
        if not partitions:
            return {}
        try:
            # By a consumer that joins nothing: the library's administrative client takes the process along where a
            # group's coordinator has become another broker (librdkafka's issue 5040).
            config = consumer_config(self._bootstrap_servers, self._common, ASKING, group=group)
            with closing(Consumer(config)) as consumer:
                answer = _committed(consumer, partitions, timeout_s)
        except KafkaException as error:
            raise self._hidden(group, sorted({topic for topic, _ in partitions}), error) from None
        for item in answer:
            if item.error is not None and failure_of(item.error) is not Failure.UNKNOWN_TOPIC:
                raise self._hidden(group, [item.topic], KafkaException(item.error))
        return {(item.topic, item.partition): item.offset for item in answer if item.offset >= 0}

    def permissions(self, principal: str, timeout_s: float = 10.0) -> set[Acl]:
        """What the principal may do by permissions of our kind: on a resource by its whole name, from any host.

        Those of other kinds and for other operations are left out. Who may not ask is told of none. Raises
        `AdminFailed`.
        """
        asked = self._client.describe_acls(filter_of(principal), request_timeout=timeout_s)
        found = _results({principal: asked}, timeout_s)[principal]
        return {acl for acl in map(acl_of, found) if acl is not None}

    def permit(self, acls: Sequence[Acl], timeout_s: float = 10.0) -> None:
        """Gives permissions; one that exists is no failure. Raises `AdminFailed`, then some may have been given."""
        if acls:
            created = self._client.create_acls([binding_of(acl) for acl in acls], request_timeout=timeout_s)
            _results(created, timeout_s, told=self._told("Alter"))

    def close(self) -> None:
        # The library has no call for it; the client ends with its last reference.
        del self._client

    def _hidden(self, group: str, topics: Sequence[str], error: KafkaException) -> AdminFailed:
        """That it is not told what a group has committed: a broker may hide the group, or these topics."""
        if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return _failed(", ".join(topics), error, self._told("Describe"))
        return _failed(group, error, self._told("Describe", "group"))

    def _told(self, operation: str, kind: str = "topic") -> _Told:
        """Tells of a failure on a topic or group or, where it is about permissions, on the cluster."""

        def told(key: Any, error: KafkaError) -> str:
            if isinstance(key, AclBinding):
                return explain(error, f"{operation} on the cluster", self._config)
            name = key.name if isinstance(key, ConfigResource) else key
            return f"{name}: {explain(error, f'{operation} on {kind} {name}', self._config)}"

        return told

    def _offsets(
        self, partitions: Sequence[base.TopicPartition], spec: OffsetSpec, timeout_s: float
    ) -> dict[base.TopicPartition, int]:
        if not partitions:
            return {}
        wanted = {TopicPartition(*key): spec for key in partitions}
        try:
            return self._offsets_once(wanted, timeout_s)
        except AdminFailed as error:
            if error.failure is not Failure.UNKNOWN_TOPIC:
                raise
            # The library remembers for minutes what it once saw missing, and does not look again unless made to.
            topics = TopicCollection(sorted({topic for topic, _ in partitions}))
            _results(self._client.describe_topics(topics, request_timeout=timeout_s), timeout_s)
        return self._offsets_once(wanted, timeout_s)

    def _offsets_once(
        self, wanted: dict[TopicPartition, OffsetSpec], timeout_s: float
    ) -> dict[base.TopicPartition, int]:
        answers = _results(self._client.list_offsets(wanted, request_timeout=timeout_s), timeout_s)
        found = {(key.topic, key.partition): answer.offset for key, answer in answers.items()}
        for (topic, partition), offset in found.items():
            # Where a leader did not answer in time the library gives no error but this.
            if offset == OFFSET_INVALID:
                raise AdminFailed(Failure.UNKNOWN_OUTCOME, f"{topic}-{partition}: its leader did not answer")
        return found


_Told = Callable[[Any, KafkaError], str]
"""What is said of a failure, given what it was about."""


def _tell(key: Any, error: KafkaError) -> str:
    return f"{key}: {error.str()}"


def _results(
    futures: Mapping[Any, Future[Any]],
    timeout_s: float,
    ignored: Iterable[int] = (),
    told: _Told = _tell,
) -> dict[Any, Any]:
    """Waits for all and returns their values, without those that failed by an ignored code."""
    # The request's own timeout comes first; this one only guards against an answer that never comes.
    _, late = wait(futures.values(), timeout_s + 1.0)
    if late:
        raise AdminFailed(Failure.UNKNOWN_OUTCOME, f"no answer within {timeout_s} s")
    values = {}
    for key, future in futures.items():
        error = future.exception()
        if error is None:
            values[key] = future.result()
        elif not isinstance(error, KafkaException):
            raise AdminFailed(Failure.UNKNOWN_OUTCOME, repr(error)) from error
        elif error.args[0].code() not in ignored:
            raise _failed(key, error, told)
    return values


def _committed(consumer: Consumer, partitions: Sequence[base.TopicPartition], timeout_s: float) -> list[TopicPartition]:
    """What the consumer's group has committed. Raises `KafkaException`."""
    asked, never, left = [TopicPartition(*key) for key in partitions], Event(), timeout_s
    while True:
        try:
            return consumer.committed(asked, min(_ASK_S, left))
        except KafkaException as error:
            # That the group may not be seen is told to who polls: the question itself would wait for a coordinator.
            message = consumer.poll(0)
            told = None if message is None else message.error()
            if told is not None and failure_of(told) is Failure.UNAUTHORIZED:
                raise KafkaException(told) from None
            code = error.args[0].code()
            left -= _ASKED_AGAIN.get(code, left)
            if left <= 0:
                raise
            if code != KafkaError._TIMED_OUT:
                never.wait(_RETRY_S)


def _failed(key: Any, error: KafkaException, told: _Told = _tell) -> AdminFailed:
    cause: KafkaError = error.args[0]
    # That no partition of the question has a leader is how the library says that it does not know the topic.
    failure = Failure.UNKNOWN_TOPIC if cause.code() == KafkaError._NOENT else failure_of(cause)
    return AdminFailed(failure, told(key, cause))


def _retried(call: Callable[[float], Any], timeout_s: float) -> None:
    """Repeats a call that fails because something has not come about yet."""
    never = Event()
    for left in range(int(timeout_s / _RETRY_S), 0, -1):
        try:
            call(left * _RETRY_S)
        except AdminFailed as error:
            if left == 1 or error.failure not in (Failure.UNKNOWN_TOPIC, Failure.UNKNOWN_OUTCOME):
                raise
            never.wait(_RETRY_S)
        else:
            return
