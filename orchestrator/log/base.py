"""What the engine needs of a log: append with delivery reports, read at explicit positions, belong to a group.

Three small protocols. `log.kafka` implements them over a broker, `log.memory` in one process; one contract suite holds
both to the same behaviour. Nothing here knows sagas: records are bytes on a topic's partition.

No method blocks and none calls back: whatever happens is fetched with `poll`. An implementation with threads of its own
sets the `threading.Event` it was given whenever `poll` has something new, so that one thread can wait for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from threading import Event
from typing import Any, NamedTuple, Protocol

TopicPartition = tuple[str, int]
Headers = tuple[tuple[str, bytes], ...]


class Record(NamedTuple):
    """One record as read. `timestamp_ms` is the broker's append time where the topic says so, else the producer's.

    A named tuple like `Delivery`: there is one for every record, and it is made ten times faster than a frozen
    dataclass (0.2 against 1.9 µs).
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Passed:
    """The end of a partition is reached, and the offsets between the last record read and `offset`, which the next
    one may get, hold none: somebody's transaction ended there, or what stood there is gone.
    """

    topic: str
    partition: int
    offset: int


class Failure(Enum):
    """Why a read, an append or an administrative call failed, as far as the engine must tell cases apart."""

    UNKNOWN_TOPIC = "unknown topic or partition"
    UNAUTHORIZED = "missing authorization"
    TOO_LARGE = "record too large"
    OUT_OF_RANGE = "position outside the log"
    DAMAGED = "record damaged"
    NOT_OWNED = "partition not owned by this member"
    UNKNOWN_OUTCOME = "outcome unknown"
    FATAL = "client unusable"


class Delivery(NamedTuple):
    """What became of one append.

    Success has `offset` and no `failure`. A report with neither (the broker answered a repeated sequence) and any
    report with a `failure` other than UNKNOWN_TOPIC, UNAUTHORIZED or TOO_LARGE mean: unknown, it may yet land.
    """

    token: Any
    offset: int | None
    timestamp_ms: int
    failure: Failure | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ReadFailed:
    """Reading a partition stopped and it is no longer assigned, or the whole client stopped (topic "", partition -1).

    A partition: OUT_OF_RANGE, UNKNOWN_TOPIC, UNAUTHORIZED, TOO_LARGE, DAMAGED. The client: FATAL, UNAUTHORIZED.
    A broker that cannot be reached is no failure: reading goes on when it can. That a partition is missing may be
    said seconds later, for a new one is not known everywhere at once.
    """

    topic: str
    partition: int
    failure: Failure
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Granted:
    """The group says this member should own these partitions too, of the subscribed topics. Nothing is read yet."""

    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class Revoked:
    """The group took these partitions away; they are no longer assigned, and none of their records follows.

    `lost`: without asking, another member may own them already. Partitions of other topics stay as they are.
    """

    partitions: tuple[TopicPartition, ...]
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Ends:
    """Answer to `ask_ends`: for each partition the offset the next record will get, read after the question. To
    `ask_starts`: the offset of the first.

    With a `failure` the partitions it concerns are absent. `metadata` is what was committed beside the offset, in the
    answer to `ask_committed` only.
    """

    token: Any
    offsets: Mapping[TopicPartition, int]
    failure: Failure | None = None
    metadata: Mapping[TopicPartition, str] = field(default_factory=dict)
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """Answer to `commit(..., token)`: the coordinator took the offsets from this member, or why not."""

    token: Any
    failure: Failure | None = None
    detail: str = ""


Happening = Record | Passed | ReadFailed | Granted | Revoked | Ends | Committed


class LogFull(Exception):
    """The appender's queue is at its bound. Nothing was taken; poll deliveries, then append again."""


class AdminFailed(Exception):
    """An administrative call failed; UNKNOWN_OUTCOME (no answer in time) may yet take effect."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(f"{failure.value}: {detail}")
        self.failure = failure
        self.detail = detail


class Appender(Protocol):
    """An idempotent producer: per partition in order, acknowledged by all in-sync replicas, no transactions."""

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        *,
        token: Any,
        key: bytes | None = None,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        """Queues one record; its `Delivery` with `token` comes from `poll`, exactly one for each call that returned.

        Raises `LogFull` when the queue is at its bound. Every other failure, also one known at once such as an
        unknown partition, is a `Delivery`.
        """

    def poll(self) -> list[Delivery]:
        """The deliveries since the last call, for each partition in the order of its appends.

        A failure known at once (UNKNOWN_TOPIC, UNAUTHORIZED, TOO_LARGE) may come before the deliveries of earlier
        appends.
        """

    @property
    def pending(self) -> int:
        """Appends whose delivery `poll` has not returned yet."""

    def close(self, timeout_s: float) -> int:
        """Stops after giving queued records up to `timeout_s`; returns how many appends were left without report.

        Those may yet land. What was reported until then still comes from `poll`.
        """


class RunAppender(Appender, Protocol):
    """An appender that also takes several records at once."""

    def append_run(self, topic: str, partition: int, run: Sequence[tuple[bytes | None, Any]]) -> int:
        """Queues several records without key and headers, each a value and a token; how many it took, in their order.

        As one `append` after the other, except that none leaves before all are queued, as far as the client can do
        that. What it did not take met the bound: poll, then hand it in again.
        """


class Reader(Protocol):
    """A consumer that reads assigned partitions at explicit positions and, where built with a group, is a member of it.

    Positions are the caller's: group offsets are committed for others to see and never used to start reading.
    """

    def assign(self, topic: str, partition: int, offset: int) -> None:
        """Begins reading at `offset`. Already assigned: moves there. Outside the log: a `ReadFailed` OUT_OF_RANGE.

        A partition of a subscribed topic is assigned only while granted; otherwise the call does nothing, for a
        `Revoked` is under way. A pause outlives a move, not an `unassign`.
        """

    def unassign(self, topic: str, partition: int) -> None:
        """Stops reading. Records of it that were fetched and not yet polled are dropped."""

    def pause(self, topic: str, partition: int) -> None:
        """Keeps assignment and position, delivers nothing until `resume`; records already fetched may still come."""

    def resume(self, topic: str, partition: int) -> None: ...

    def poll(self, limit: int = 500) -> list[Happening]:
        """What happened since the last call, at most `limit` entries, records of one partition in offset order.

        Behind its last record a partition may have offsets without any: that they are passed is told in this order
        too (`Passed`). Those between two records are told by the second.

        Whoever gets `limit` entries polls again before waiting. After `unassign` or a move returned, no record fetched
        before comes out any more.
        """

    def ask_ends(self, partitions: Sequence[TopicPartition], token: Any) -> None:
        """Asks the broker for end offsets; one `Ends` with `token` comes from `poll`."""

    def ask_starts(self, partitions: Sequence[TopicPartition], token: Any) -> None:
        """Asks the broker for the first offsets that there are; one `Ends` with `token` comes from `poll`."""

    def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]], token: Any = None) -> None:
        """Commits (next offset, metadata) to the group; with a token, one `Committed` comes from `poll`.

        Only what this member owns: granted, or of a topic not subscribed and assigned. One partition of another kind
        fails the whole commit (NOT_OWNED), as does having no group.
        """

    def ask_committed(self, partitions: Sequence[TopicPartition], token: Any) -> None:
        """Asks for the group's committed offsets; an `Ends` with `token` comes, a partition without one is absent.

        Failure NOT_OWNED without a group.
        """

    def close(self) -> None:
        """Leaves the group and stops."""


class Log(Protocol):
    """Where clients come from. `wake` is set when the client's `poll` has something; one event may serve several."""

    def appender(self, *, wake: Event, linger_ms: float = 0.0) -> RunAppender:
        """An appender; where nobody waits for its records, they may wait so long for each other."""

    def reader(self, group: str | None = None, topics: Iterable[str] = (), *, wake: Event) -> Reader:
        """A reader; with a group it joins, subscribed to `topics`."""

    def admin(self) -> Admin: ...


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be: settings are the broker's names and values as strings."""

    name: str
    partitions: int
    replication: int
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is: `topic_id` changes when a topic is deleted and created again."""

    name: str
    topic_id: str
    partitions: int
    replication: int
    settings: Mapping[str, str]


class Admin(Protocol):
    """Administrative calls. These block, up to `timeout_s`, and are never made from the engine's thread.

    Each raises `AdminFailed` when it could not be done.
    """

    def describe(self, names: Sequence[str], timeout_s: float = 10.0) -> dict[str, TopicState]:
        """The topics among `names` that exist, with all their settings."""

    def create(self, topics: Sequence[TopicSpec], timeout_s: float = 30.0) -> None:
        """Creates topics; one that exists already is left as it is. Returns when all can be written to."""

    def delete(self, names: Sequence[str], timeout_s: float = 30.0) -> None:
        """Deletes topics; one that does not exist is no failure. Returns when none is to be seen any more."""

    def trim(self, offsets: Mapping[TopicPartition, int], timeout_s: float = 10.0) -> None:
        """Deletes the records below each offset. Beyond the end: OUT_OF_RANGE, nothing is deleted there."""

    def ends(
        self, partitions: Sequence[TopicPartition], timeout_s: float = 10.0
    ) -> dict[TopicPartition, tuple[int, int]]:
        """For each partition its (log start, end) offsets."""

    def offsets_at(
        self, partitions: Sequence[TopicPartition], timestamp_ms: int, timeout_s: float = 10.0
    ) -> dict[TopicPartition, int]:
        """For each partition the offset of the first record of that time or later, or the end if there is none."""

    def committed(
        self, group: str, partitions: Sequence[TopicPartition], timeout_s: float = 10.0
    ) -> dict[TopicPartition, int]:
        """The offsets that a group has committed; a partition without one is absent."""

    def close(self) -> None: ...
