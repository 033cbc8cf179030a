"""A log and stores that count what a process asks of them, and kill it (SIGKILL, by itself) at one of those calls.

A *point* is a call that did something, by its kind and number: `journal.append_run:3` is the third run that was handed
to the appender of journals. Its *moment* says when the process dies there:

- `before` the call, for whatever is told to Kafka or RocksDB or asked of them
- `after` it returned
- `landed`: an append or commit has returned, and its outcome has come to the process, which has not looked at it. Right
  after an append the record is still in the client's queue and dies with it; so this is where "in the log, but nobody
  was told" comes from every time, and not by luck.

A poll that brings nothing is no point: how often one looks depends on the clock, and there would be no last one. One
that brings something changes nothing outside of the process, and what it brings is known only then: its one moment is
`after`. So it is with what an administrator or an inquirer asks, in threads beside the engine's, and with files that
are opened.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import Consumer
from fsspec import register_implementation
from fsspec.implementations.local import LocalFileSystem

from orchestrator.log import kafka_inquirer
from orchestrator.log.base import (
    Admin,
    Committed,
    Delivery,
    Happening,
    Log,
    Reader,
    RunAppender,
    TopicPartition,
)
from orchestrator.store.base import Change, Store, Stores
from tests.waiting import eventually

T = TypeVar("T")
LOGGER = logging.getLogger("calls")

BEFORE, AFTER, LANDED = "before", "after", "landed"
ASKING = ("poll", "describe", "ends", "offsets_at", "committed", "offsets_for_times", "list_topics")
OPENING = ("open_to_read", "open_to_write")
LANDING = ("append", "append_run", "commit")
LANDED_WITHIN_S = 10.0
"""Then it dies without having been told; a busy broker may have nothing to say."""


class Point(NamedTuple):
    """Where a process dies: `number` counts from 1."""

    kind: str
    number: int
    moment: str

    @classmethod
    def read(cls, text: str) -> Point:
        """From `kind:number:moment`. Raises `ValueError`."""
        kind, number, moment = text.split(":")
        if moment not in (BEFORE, AFTER, LANDED):
            raise ValueError(f"{moment} is no moment")
        return cls(kind, int(number), moment)

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}:{self.moment}"


def moments_of(kind: str) -> tuple[str, ...]:
    """When a process may die at a call of this kind."""
    call = kind.rpartition(".")[2]
    if call in ASKING + OPENING:
        return (AFTER,)
    return (BEFORE, AFTER, LANDED) if call in LANDING else (BEFORE, AFTER)


class Fuse:
    """Counts calls by kind and kills the process at `point`, if there is one. For all threads of a process."""

    def __init__(self, point: Point | None) -> None:
        self.calls: Counter[str] = Counter()
        self._point = point
        self._lock = threading.Lock()

    def count(self, kind: str) -> str:
        """Counts a call; at which moment the process dies there, or ""."""
        with self._lock:
            self.calls[kind] += 1
            LOGGER.info("%s:%d", kind, self.calls[kind])
            point = self._point
            if point is not None and (point.kind, point.number) == (kind, self.calls[kind]):
                return point.moment
        return ""

    def call(self, kind: str, function: Callable[[], T], landed: Callable[[], None] | None = None) -> T:
        """Does something that is a point in any case. `landed` waits for its outcome."""
        moment = self.count(kind)
        if moment == BEFORE:
            die()
        try:
            result = function()
        except Exception:
            if moment:
                die()
            raise
        if moment == LANDED and landed is not None:
            landed()
        if moment:
            die()
        return result

    def polled(self, kind: str, found: list[T]) -> list[T]:
        """What a poll brought: a point if it is something."""
        if found and self.count(kind):
            die()
        return found

    def save(self, path: Path) -> None:
        """Writes the counts, for whoever wants to know how many points there are."""
        path.write_text(json.dumps(self.calls))


def die() -> None:
    """As if somebody had pulled the plug of this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    # The other threads may end a moment before this one; it goes no further.
    threading.Event().wait()


class FusedLog:
    """The clients of a log, each under a name: `readers` and `appenders` in the order in which they are made.

    What is made by a further thread is named after it, such as `lifecycle-reader`.
    """

    def __init__(self, log: Log, fuse: Fuse, readers: Sequence[str], appenders: Sequence[str]) -> None:
        self._log = log
        self._fuse = fuse
        self._main = threading.current_thread()
        self._readers = list(readers)
        self._appenders = list(appenders)

    def _name(self, names: list[str], kind: str) -> str:
        thread = threading.current_thread()
        return names.pop(0) if thread is self._main and names else f"{thread.name}-{kind}"

    def appender(self, *, wake: Event, linger_ms: float = 0.0) -> RunAppender:
        name = self._name(self._appenders, "appender")
        return FusedAppender(self._log.appender(wake=wake, linger_ms=linger_ms), self._fuse, name)

    def reader(self, group: str | None = None, topics: Iterable[str] = (), *, wake: Event) -> Reader:
        name = self._name(self._readers, "reader")
        return FusedReader(self._log.reader(group, topics, wake=wake), self._fuse, name, group is not None)

    def admin(self) -> Admin:
        admin: Any = FusedAdmin(self._log.admin(), self._fuse, self._name([], "admin"))
        return admin  # type: ignore[no-any-return]


class FusedAppender:
    """An appender whose calls are points."""

    def __init__(self, appender: RunAppender, fuse: Fuse, name: str) -> None:
        self._appender = appender
        self._fuse = fuse
        self._name = name

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
        append = self._appender.append
        self._fuse.call(
            f"{self._name}.append",
            lambda: append(topic, partition, value, token=token, key=key, headers=headers),
            self._land,
        )

    def append_run(self, topic: str, partition: int, run: Sequence[tuple[bytes | None, Any]]) -> int:
        append_run = self._appender.append_run
        return self._fuse.call(f"{self._name}.append_run", lambda: append_run(topic, partition, run), self._land)

    def poll(self) -> list[Delivery]:
        return self._fuse.polled(f"{self._name}.poll", self._appender.poll())

    @property
    def pending(self) -> int:
        return self._appender.pending

    def close(self, timeout_s: float) -> int:
        return self._fuse.call(f"{self._name}.close", lambda: self._appender.close(timeout_s))

    def _land(self) -> None:
        def landed() -> bool:
            self._appender.poll()
            return not self._appender.pending

        eventually(landed, LANDED_WITHIN_S)


class FusedReader:
    """A reader whose calls are points."""

    def __init__(self, reader: Reader, fuse: Fuse, name: str, grouped: bool) -> None:
        self._reader = reader
        self._fuse = fuse
        self._name = name
        self._grouped = grouped

    def _call(self, call: str, function: Callable[[], T], landed: Callable[[], None] | None = None) -> T:
        return self._fuse.call(f"{self._name}.{call}", function, landed)

    def assign(self, topic: str, partition: int, offset: int) -> None:
        self._call("assign", lambda: self._reader.assign(topic, partition, offset))

    def unassign(self, topic: str, partition: int) -> None:
        self._call("unassign", lambda: self._reader.unassign(topic, partition))

    def pause(self, topic: str, partition: int) -> None:
        self._call("pause", lambda: self._reader.pause(topic, partition))

    def resume(self, topic: str, partition: int) -> None:
        self._call("resume", lambda: self._reader.resume(topic, partition))

    def poll(self, limit: int = 500) -> list[Happening]:
        return self._fuse.polled(f"{self._name}.poll", self._reader.poll(limit))

    def ask_ends(self, partitions: Sequence[TopicPartition], token: Any) -> None:
        self._call("ask_ends", lambda: self._reader.ask_ends(partitions, token))

    def ask_starts(self, partitions: Sequence[TopicPartition], token: Any) -> None:
        self._call("ask_starts", lambda: self._reader.ask_starts(partitions, token))

    def ask_committed(self, partitions: Sequence[TopicPartition], token: Any) -> None:
        self._call("ask_committed", lambda: self._reader.ask_committed(partitions, token))

    def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]], token: Any = None) -> None:
        # With a token of its own where there is none, so that its outcome can be waited for.
        known = object() if token is None else token
        self._call("commit", lambda: self._reader.commit(offsets, token), lambda: self._land(offsets, known))

    def _land(self, offsets: Mapping[TopicPartition, tuple[int, str]], token: object) -> None:
        """Commits the same again and waits for that: a member's commits are answered in their order."""
        self._reader.commit(offsets, token)

        def landed() -> bool:
            return any(isinstance(each, Committed) and each.token is token for each in self._reader.poll())

        eventually(landed, LANDED_WITHIN_S)

    def close(self) -> None:
        self._call("close", self._reader.close)


class FusedAdmin:
    """An administrative client whose calls are points."""

    def __init__(self, admin: Admin, fuse: Fuse, name: str) -> None:
        self._admin = admin
        self._fuse = fuse
        self._name = name

    def __getattr__(self, call: str) -> Any:
        function = getattr(self._admin, call)
        return lambda *given, **named: self._fuse.call(f"{self._name}.{call}", lambda: function(*given, **named))


class FusedStores:
    """Stores whose calls are points."""

    def __init__(self, stores: Stores, fuse: Fuse) -> None:
        self._stores = stores
        self._fuse = fuse

    def open(self, partition: int) -> Store:
        return self._fuse.call("store.open", lambda: FusedStore(self._stores.open(partition), self._fuse))

    def wipe(self, partition: int) -> None:
        self._fuse.call("store.wipe", lambda: self._stores.wipe(partition))


class FusedStore:
    """A store whose calls are points; the steps of a scan are not, for nobody outside sees one."""

    def __init__(self, store: Any, fuse: Fuse) -> None:
        self._store = store
        self._fuse = fuse

    def get(self, key: bytes) -> bytes | None:
        return self._fuse.call("store.get", lambda: self._store.get(key))

    def scan(
        self, prefix: bytes, start: bytes | None = None, end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._fuse.call("store.scan", lambda: self._store.scan(prefix, start, end))

    def write(self, changes: Iterable[Change]) -> None:
        self._fuse.call("store.write", lambda: self._store.write(changes))

    def checkpoint(self, target: Path) -> None:
        self._fuse.call("store.checkpoint", lambda: self._store.checkpoint(target))

    def close(self) -> None:
        self._fuse.call("store.close", self._store.close)


def fuse_questions(fuse: Fuse) -> None:
    """Makes points of what this process's inquirers ask a broker, in threads of their own."""

    class FusedConsumer(Consumer):
        def offsets_for_times(self, *given: Any, **named: Any) -> Any:
            return fuse.call("inquirer.offsets_for_times", lambda: Consumer.offsets_for_times(self, *given, **named))

        def committed(self, *given: Any, **named: Any) -> Any:
            return fuse.call("inquirer.committed", lambda: Consumer.committed(self, *given, **named))

        def list_topics(self, *given: Any, **named: Any) -> Any:
            return fuse.call("inquirer.list_topics", lambda: Consumer.list_topics(self, *given, **named))

    vars(kafka_inquirer)["Consumer"] = FusedConsumer


def fuse_files(fuse: Fuse) -> None:
    """Makes points of what this process writes and opens through fsspec: snapshots and archives.

    Between one that is opened to be written and its move to where it belongs its content is written. What is read at
    once, and not piece by piece, is no point.
    """

    class FusedFiles(LocalFileSystem):  # type: ignore[misc]
        def open(self, path: str, mode: str = "rb", *given: Any, **named: Any) -> Any:
            kind = "files.open_to_read" if mode == "rb" else "files.open_to_write"
            return fuse.call(kind, lambda: LocalFileSystem.open(self, path, mode, *given, **named))

        def cat_file(self, path: str, *given: Any, **named: Any) -> bytes:
            return Path(path).read_bytes()

        def mv(self, *given: Any, **named: Any) -> None:
            fuse.call("files.move", lambda: LocalFileSystem.mv(self, *given, **named))

        def rm_file(self, path: str) -> None:
            fuse.call("files.delete", lambda: LocalFileSystem.rm_file(self, path))

    register_implementation("file", FusedFiles, clobber=True)
