"""The floor: the hops and records of a three-step saga on bare clients, with nothing in between.

Records, sizes, headers, topics, settings and the order of what waits for what are the system's; the bytes are made
beforehand. Nothing is decoded, encoded, checked, kept or committed. `python -m orchestrator.bench.floor ROLE` takes
the rest as one line of JSON on stdin.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from orchestrator.bench.processes import Process
from orchestrator.bench.scenarios import SHOP
from orchestrator.bench.sizes import Size
from orchestrator.errors import SagaError
from orchestrator.log.kafka_bare import bare_consumer, bare_producer
from orchestrator.participant.loop import SWITCH_INTERVAL_S
from orchestrator.topics import TopicNames

CHUNK = 500
GIVE_UP_S = 60.0


class Message(Protocol):
    """What is asked of a record that was read."""

    def key(self) -> bytes: ...
    def partition(self) -> int: ...
    def topic(self) -> str: ...
    def error(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Template:
    """The bytes of one kind of record."""

    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Setup:
    """What every role is told."""

    servers: str
    names: TopicNames
    partitions: int
    templates: Mapping[str, Template]

    @classmethod
    def make(cls, servers: str, prefix: str, partitions: int, sizes: Mapping[str, Size]) -> Setup:
        templates = {kind: Template(bytes(size.value), list(size.headers)) for kind, size in sizes.items()}
        return cls(servers, TopicNames(prefix), partitions, templates)

    def to_json(self) -> str:
        kinds = {
            kind: [len(template.value), [[name, value.hex()] for name, value in template.headers]]
            for kind, template in self.templates.items()
        }
        return json.dumps([self.servers, self.names.prefix, self.partitions, kinds])

    @classmethod
    def from_json(cls, text: str) -> Setup:
        servers, prefix, partitions, kinds = json.loads(text)
        templates = {
            kind: Template(bytes(size), [(name, bytes.fromhex(value)) for name, value in headers])
            for kind, (size, headers) in kinds.items()
        }
        return cls(servers, TopicNames(prefix), partitions, templates)


class Out:
    """A producer whose reports run in a thread of its own, as an appender's do."""

    def __init__(self, servers: str) -> None:
        self._producer = bare_producer(servers)
        self._closed = False
        self.produce: Callable[..., None] = self._producer.produce
        self._thread = threading.Thread(target=self._poll, name="reports", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        self._thread.join()

    def _poll(self) -> None:
        poll = self._producer.poll
        while not self._closed:
            poll(0.2)


def read(setup: Setup, topics: Sequence[str]) -> Generator[list[Message], None, None]:
    """What the topics hold and will hold, chunk by chunk, until it is closed; an empty one now and then."""
    consumer: Any = bare_consumer(setup.servers, topics, setup.partitions)
    try:
        while True:
            first = consumer.poll(0.2)
            chunk = [] if first is None else [first, *consumer.consume(CHUNK - 1, 0)]
            for message in chunk:
                if message.error() is not None:
                    raise SagaError(f"the floor cannot read: {message.error()}")
            yield chunk
    finally:
        consumer.close()


def _check(error: Any) -> None:
    if error is not None:
        sys.stderr.write(f"the floor cannot write: {error}\n")
        sys.stderr.flush()
        os._exit(1)


def run_owner(setup: Setup) -> None:
    """An input, a journal record, and when that is acknowledged a command or the answer, and what is told to others."""
    names, templates = setup.names, setup.templates
    journal, outward, public = (Out(setup.servers).produce for _ in range(3))
    commands = [names.commands(service) for service in SHOP]
    command, answer, decision = templates["command"], templates["answer"], templates["journal"].value
    event = templates["lifecycle"]
    stages: dict[bytes, int] = {}

    def confirmed(key: bytes, number: int, stage: int, error: Any, message: Any) -> None:
        _check(error)
        if stage < len(commands):
            outward(commands[stage], command.value, key, number, headers=command.headers)
        else:
            outward(names.answers, answer.value, key, 0, headers=answer.headers)
            public(names.lifecycle, event.value, key, number, headers=event.headers)
        public(names.lifecycle, event.value, key, number, headers=event.headers)

    for chunk in read(setup, [names.inbox, names.replies]):
        for message in chunk:
            key, number = message.key(), message.partition()
            stage = stages.pop(key, 0)
            if stage < len(commands):
                stages[key] = stage + 1
            journal(names.journal, decision, None, number, partial(confirmed, key, number, stage))


def run_participant(setup: Setup) -> None:
    """A command, a ledger record, and when that is acknowledged the reply."""
    names, templates = setup.names, setup.templates
    produce = Out(setup.servers).produce
    ledgers = {names.commands(service): names.ledger(service) for service in SHOP}
    reply, entry = templates["reply"], templates["ledger"]

    def recorded(key: bytes, number: int, error: Any, message: Any) -> None:
        _check(error)
        produce(names.replies, reply.value, key, number, headers=reply.headers)

    for chunk in read(setup, list(ledgers)):
        for message in chunk:
            key, number = message.key(), message.partition()
            produce(ledgers[message.topic()], entry.value, key, number, partial(recorded, key, number))


class FloorClient:
    """Starts sagas and takes their answers. `processes` are those that give them."""

    def __init__(self, setup: Setup, processes: Sequence[Process]) -> None:
        self._processes = processes
        self._inbox = setup.names.inbox
        self._template = setup.templates["inbox"]
        self._partitions = setup.partitions
        self._out = Out(setup.servers)
        self._chunks = read(setup, [setup.names.answers])
        self._count = 0

    def run(self, sagas: int) -> float:
        """So many at once. Returns the seconds from the first start to the last answer."""
        began = time.perf_counter()
        for _ in range(sagas):
            self._start()
        self._await(sagas)
        return time.perf_counter() - began

    def run_singly(self, sagas: int) -> list[float]:
        """One after the other. Returns the seconds of each."""
        return [self.run(1) for _ in range(sagas)]

    def _start(self) -> None:
        self._count += 1
        key = b"order-%07d" % self._count
        number = self._count % self._partitions
        self._out.produce(self._inbox, self._template.value, key, number, headers=self._template.headers)

    def _await(self, left: int) -> None:
        heard = time.monotonic()
        for chunk in self._chunks:
            left -= len(chunk)
            if left <= 0:
                return
            if chunk:
                heard = time.monotonic()
                continue
            for process in self._processes:
                process.check()
            if time.monotonic() - heard > GIVE_UP_S:
                raise SagaError(f"{left} answers of the floor did not come")

    def close(self) -> None:
        self._out.close()
        self._chunks.close()


def main(role: str) -> None:
    """One role, until stdin ends."""
    setup = Setup.from_json(sys.stdin.buffer.readline().decode())
    threading.Thread(target=_end_with_parent, name="stdin", daemon=True).start()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    {"owner": run_owner, "participant": run_participant}[role](setup)


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
