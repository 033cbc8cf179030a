"""A worker: the engine, its clients and the loop. The only place of the runtime that knows the time or waits."""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event

from orchestrator.log.base import Log
from orchestrator.runtime.engine import Clients, Engine
from orchestrator.runtime.partition import PartitionConfig
from orchestrator.runtime.takeover import Owner
from orchestrator.store.base import Stores
from orchestrator.wire.journal import Claim, Genesis

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""With a busy engine thread a delivery report waits up to this long for the interpreter, not Python's 5 ms."""
MAX_WAIT_MS = 200
"""The longest pause of the loop: a stop, a tick or a mark is never later than this."""


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who this worker is, as its claims say. `address` is where strong reads would be sent."""

    name: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    address: str = ""
    version: str = ""


class Worker:
    """Owns partitions until it is told to stop. `topic_ids` go into the genesis of a journal that is empty."""

    def __init__(
        self,
        log_: Log,
        config: PartitionConfig,
        stores: Stores,
        *,
        group: str = "saga-owners",
        identity: WorkerIdentity | None = None,
        topic_ids: Mapping[str, str] | None = None,
    ) -> None:
        self.wake = Event()
        self.stopping = Event()
        who = identity or WorkerIdentity()
        clients = Clients(
            log_.reader(config.topics.prefix + group, [config.topics.inbox], wake=self.wake),
            log_.reader(wake=self.wake),
            log_.appender(wake=self.wake),
            log_.appender(wake=self.wake),
        )
        self._clients = clients
        claim = Claim(who.name, who.address, tuple(sorted(config.definitions)), who.version)
        ids = dict(topic_ids or {})
        owner = Owner(
            claim,
            lambda: secrets.token_bytes(16),
            lambda: Genesis(1, config.partitions, ids, time.time_ns() // 1_000_000),
        )
        self.engine = Engine(config, clients, stores, owner, random.random)

    def run(self, every_tick: Callable[[Engine], None] | None = None) -> None:
        """Works until `stop`, then hands its partitions back and closes. Raises what makes a client unusable."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            self._loop(every_tick)
        finally:
            sys.setswitchinterval(before)
            self._clients.inputs.close()
            self._clients.journals.close()
            self._clients.journal.close(2.0)
            self._clients.outward.close(2.0)

    def stop(self) -> None:
        """Begins a graceful stop; may be called from a signal handler or another thread."""
        self.stopping.set()
        self.wake.set()

    def _loop(self, every_tick: Callable[[Engine], None] | None) -> None:
        engine, wake = self.engine, self.wake
        leaving = False
        tick_at = 0
        while not engine.left:
            mono_ms = time.monotonic_ns() // 1_000_000
            if self.stopping.is_set() and not leaving:
                leaving = True
                engine.leave(mono_ms)
            busy = engine.step(mono_ms)
            if every_tick is not None and mono_ms >= tick_at:
                tick_at = mono_ms + MAX_WAIT_MS
                every_tick(engine)
            if not busy and not engine.left:
                wake.wait(engine.next_due_in_ms(mono_ms, MAX_WAIT_MS) / 1000)
                wake.clear()
