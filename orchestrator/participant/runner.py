"""A participant as a process: clocks, threads, signals and the loop around the engine."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Thread

from orchestrator.errors import ConfigurationError
from orchestrator.log.base import Admin, AdminFailed, Log, TopicPartition
from orchestrator.participant.engine import Engine
from orchestrator.participant.executor import ThreadedExecutor
from orchestrator.participant.handlers import Participant
from orchestrator.participant.loop import Loop, steady_ms
from orchestrator.participant.settings import ParticipantSettings
from orchestrator.participant.work import Work
from orchestrator.topics import TopicNames

LOGGER = logging.getLogger("orchestrator.participant")

EXIT_OVERDUE = 70
"""Exit code when a handler ran beyond its limit."""
LOG_START_RETRY_S = 1.0


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def settle_collector() -> None:
    """For a process that runs a worker or participants and nothing else, once, when all is imported.

    What is there stays there, so it is never looked at again. What a command leaves behind is freed by counting;
    looking for cycles at every 700 objects, and each time at all of them, cost a sixth of the engine's time. What stays
    in memory is looked at twice, some thousands at a time: at 50,000 everything else waited for 70 ms, then for 800.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(3_000, 3, 10_000)


class LogStarts:
    """Asks where partitions begin, in a thread of its own, for administrative calls block."""

    def __init__(self, admin: Admin, wake: Event) -> None:
        self._admin = admin
        self._wake = wake
        self._asked: set[TopicPartition] = set()
        self._known: dict[TopicPartition, int] = {}
        self._queue: SimpleQueue[TopicPartition | None] = SimpleQueue()
        self._closing = Event()
        self._thread = Thread(target=self._work, name="log-starts", daemon=True)
        self._thread.start()

    def __call__(self, topic: str, partition: int) -> int | None:
        """The start if it is known by now; each answer is given once, for the next question is about a later time."""
        key = (topic, partition)
        if key in self._known:
            return self._known.pop(key)
        if key not in self._asked:
            self._asked.add(key)
            self._queue.put(key)
        return None

    def close(self) -> None:
        self._closing.set()
        self._queue.put(None)
        self._thread.join(2.0)
        self._admin.close()

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            try:
                self._known[key] = self._admin.ends([key])[key][0]
                self._asked.discard(key)
                self._wake.set()
            except AdminFailed as error:
                LOGGER.warning("%s-%d: where it begins is not known yet: %s", *key, error)
                if self._closing.wait(LOG_START_RETRY_S):
                    return
                self._asked.discard(key)


class Runner:
    """Runs a participant's handlers until it is told to stop.

    `exit` ends the process at once; it is called with a code if a handler runs beyond its limit, for then another
    participant may have taken over already. Whoever supervises the process starts it again.
    """

    def __init__(
        self,
        participant: Participant,
        log: Log,
        *,
        topics: TopicNames | None = None,
        settings: ParticipantSettings | None = None,
        owner: str = "",
        exit: Callable[[int], None] = os._exit,
    ) -> None:
        participant.check()
        if participant.inbox is not None:
            participant.inbox.prepare()
        self._inbox = participant.inbox
        self._participant = participant
        self.topics = topics or TopicNames()
        self.settings = settings or ParticipantSettings()
        self._exit = exit
        self._loop = Loop()
        self.wake = self._loop.wake
        service = participant.service.name
        self._reader = log.reader(self.topics.group(service), [self.topics.commands(service)], wake=self.wake)
        self._appender = log.appender(wake=self.wake)
        self._starts = LogStarts(log.admin(), self.wake)
        self._executor = ThreadedExecutor(
            participant, self.settings.concurrency, self.settings.handler_limit_ms, steady_ms, self.wake
        )
        self.engine = Engine(
            service,
            self._reader,
            self._appender,
            self._executor,
            steady_ms,
            log_start=self._starts,
            new_nonce=lambda: secrets.token_bytes(16),
            overdue=self._overdue,
            topics=self.topics,
            settings=self.settings,
            ledger=participant.inbox is None,
            owner=owner or f"{socket.gethostname()}-{os.getpid()}",
            wall_ms=wall_ms,
        )

    def stop(self) -> None:
        """Begins a graceful stop; from any thread or a signal handler."""
        self._loop.stop()

    def run(self, *, signals: bool = False, every_turn: Callable[[], None] | None = None) -> None:
        """Works until `stop`; then running handlers end, the ledger says so, and the group is left.

        `signals` and `every_turn` are the loop's. Raises `EngineFailed` if a client has become unusable.
        """
        # Handlers have their limit; as long again for what they ended with to be told.
        grace_ms = 2 * self.settings.handler_limit_ms
        stall_s = lambda: self._executor.due_s  # noqa: E731
        try:
            if not self._loop.run(self.engine, grace_ms, signals=signals, every_turn=every_turn, stall_s=stall_s):
                LOGGER.error("stopped without having told everything; whoever goes on asks the memory")
        finally:
            self._reader.close()
            left = self._appender.close(2.0)
            self._executor.close()
            self._starts.close()
            if self._inbox is not None:
                self._inbox.close()
            self._participant.close()
            if left:
                LOGGER.warning("%d records were given up; they may yet arrive", left)

    def _overdue(self, work: Work) -> None:
        command = work.command
        LOGGER.critical(
            "the handler of %s for %s runs longer than %d ms: this process ends, for another may take over",
            command.command_type,
            command.idempotency_key,
            self.settings.handler_limit_ms,
        )
        faulthandler.dump_traceback(all_threads=True)
        self._exit(EXIT_OVERDUE)


def load_participant(place: str) -> Participant:
    """The participant at `module:object`, as `saga participant` takes it. Raises `ConfigurationError`."""
    module_name, _, name = place.partition(":")
    if not module_name or not name:
        raise ConfigurationError(f"{place!r}: say module:object, such as shop:payments")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # the module is there; it is what it imports that is missing
        raise ConfigurationError(f"{place!r}: there is no module {error.name!r} here") from error
    found = getattr(module, name, None)
    if not isinstance(found, Participant):
        raise ConfigurationError(f"{place!r}: {name!r} is no Participant but {type(found).__name__}")
    return found
