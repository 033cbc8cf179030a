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
from dataclasses import field
from threading import Event, Thread
from typing import TYPE_CHECKING

from orchestrator.errors import Disconnected
from orchestrator.log.base import Log
from orchestrator.model.frozen import frozen
from orchestrator.model.versions import names_of
from orchestrator.runtime.clients import Clients
from orchestrator.runtime.engine import Engine
from orchestrator.runtime.lifecycle import Feed, Lifecycle
from orchestrator.runtime.local_steps import ThreadedRunner
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.standby import Standby
from orchestrator.runtime.takeover import CLAIM_WAIT_MS, Owner
from orchestrator.runtime.tenure import Phase
from orchestrator.runtime.upkeep import TRIM_LAG_MS, Upkeep
from orchestrator.store.base import Stores
from orchestrator.wire.journal import Claim, Genesis

if TYPE_CHECKING:
    from orchestrator.archive.archiver import Archiver
    from orchestrator.snapshots.keeper import Keeper

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""With a busy engine thread a delivery report waits up to this long for the interpreter, not Python's 5 ms."""
MAX_WAIT_MS = 200
"""The longest pause of the loop: a stop, a tick or a mark is never later than this."""
LISTEN_EVERY_MS = 20
"""While effects are under way: that one was refused wakes nobody, no more than that one was acknowledged."""
PUBLISH_EVERY_S = 0.05
"""Public events wait so long for others: a wake for each would take the interpreter from the engine each time."""
UPKEEP_EVERY_S = 1.0
LEAVE_THEM_S = 5.0
"""A broker that does not answer them holds up no stop."""
AGAIN_S = 5.0
"""After which a publisher that became unusable is replaced."""


@frozen
class WorkerIdentity:
    """Who this worker is, as its claims say. `address` is where strong reads would be sent."""

    name: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    address: str = ""
    version: str = ""


class Worker:
    """Owns partitions until it is told to stop.

    `topic_ids` go into the genesis of a journal that is empty: give those of `identity.pinned_topics`. A partition with
    runs whose code is elsewhere is claimed after `claim_wait_ms`. Consumed inputs are kept for `trim_lag_ms`. With
    `standby` the stores of partitions that others own are kept warm, with `keeper` snapshots are taken, with `archiver`
    what they make needless is moved out of the journals.
    """

    def __init__(
        self,
        log_: Log,
        config: PartitionConfig,
        stores: Stores,
        *,
        group: str = "saga-owners",
        identity: WorkerIdentity | None = None,
        topic_ids: Mapping[str, str] | None = None,
        claim_wait_ms: int = CLAIM_WAIT_MS,
        trim_lag_ms: int = TRIM_LAG_MS,
        standby: bool = False,
        keeper: Keeper | None = None,
        archiver: Archiver | None = None,
    ) -> None:
        self.wake = Event()
        self.stopping = Event()
        who = identity or WorkerIdentity()
        clients = Clients(
            log_.reader(config.topics.prefix + group, [config.topics.inbox], wake=self.wake),
            log_.reader(wake=self.wake),
            log_.appender(wake=self.wake),
            # That an effect is acknowledged is no reason to wake up: it only moves the mark. Its refusal can wait.
            log_.appender(wake=Event()),
        )
        self._clients = clients
        self._log = log_
        self._topics = config.topics
        self._trim_lag_ms = trim_lag_ms
        self._partitions = config.partitions
        self.keeper = keeper
        self.archiver = archiver
        self._over = Event()
        self._news = Event()
        self._feeds: dict[int, Feed] = {}
        claim = Claim(who.name, who.address, names_of(config.definitions), who.version)
        ids = dict(topic_ids or {})
        owner = Owner(
            claim,
            lambda: secrets.token_bytes(16),
            lambda: Genesis(1, config.partitions, ids, _now_ms()),
            lambda: self.engine.topic_ids,
            claim_wait_ms,
        )
        self.standby = self._make_standby(stores) if standby else None
        stores = self.standby or stores
        self.engine = Engine(
            config, clients, stores, owner, random.random, feeds=self._feeds, runner=ThreadedRunner(self.wake)
        )
        self.engine.topic_ids = ids

    def run(self, every_tick: Callable[[Engine], None] | None = None) -> None:
        """Works until `stop`, then hands its partitions back and closes. Raises what makes a client unusable."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        besides = [("lifecycle", self._publish), ("upkeep", self._keep_up)]
        if self.standby is not None:
            besides.append(("standby", self._stand_by))
        if self.keeper is not None:
            besides.append(("snapshots", self._take_snapshots))
        threads = [Thread(target=target, name=name, daemon=True) for name, target in besides]
        for thread in threads:
            thread.start()
        try:
            self._loop(every_tick)
        finally:
            self._over.set()
            self._news.set()
            for thread in threads:
                thread.join(LEAVE_THEM_S)
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
            wake.clear()
            mono_ms = _mono_ms()
            if self.stopping.is_set() and not leaving:
                leaving = True
                engine.leave(mono_ms)
            more = engine.step(mono_ms)
            if every_tick is not None and mono_ms >= tick_at:
                tick_at = mono_ms + MAX_WAIT_MS
                every_tick(engine)
            if not more and not engine.left:
                most_ms = LISTEN_EVERY_MS if self._clients.outward.pending else MAX_WAIT_MS
                wake.wait(engine.next_due_in_ms(_mono_ms(), most_ms) / 1000)

    def _publish(self) -> None:
        while not self._over.is_set():
            lifecycle = Lifecycle(self._log, self._topics, self._feeds)
            try:
                while not self._over.is_set():
                    if not lifecycle.step(_mono_ms()):
                        self._over.wait(PUBLISH_EVERY_S)
            except Disconnected as error:
                log.warning("%s; trying again in %.0f s", error, AGAIN_S)
                self._over.wait(AGAIN_S)
            except Exception:
                log.exception("publishing on %s failed; trying again in %.0f s", self._topics.lifecycle, AGAIN_S)
                self._over.wait(AGAIN_S)
            finally:
                lifecycle.close()

    def _make_standby(self, stores: Stores) -> Standby:
        return Standby(
            stores,
            lambda: self._log.reader(wake=self._news),
            self._topics.journal,
            self._partitions,
            lambda number: number in self.engine.tenures,
        )

    def _stand_by(self) -> None:
        standby = self.standby
        assert standby is not None
        while not self._over.is_set():
            self._news.clear()
            try:
                more = standby.step(_mono_ms())
            except Exception:
                log.exception("keeping stores warm failed; trying again in %.0f s", AGAIN_S)
                self._over.wait(AGAIN_S)
                continue
            if not more:
                self._news.wait(MAX_WAIT_MS / 1000)
        standby.close()

    def _take_snapshots(self) -> None:
        keeper = self.keeper
        assert keeper is not None
        while not self._over.wait(UPKEEP_EVERY_S):
            owned = [each for each in list(self.engine.tenures.values()) if each.phase is Phase.OWNING]
            stores = {each.number: each.store for each in owned if each.store is not None}
            try:
                keeper.step(stores, _mono_ms(), _now_ms())
                if self.archiver is not None:
                    self.archiver.step(stores, _mono_ms(), _now_ms())
            except Exception:
                log.exception("taking snapshots failed; trying again in %.0f s", UPKEEP_EVERY_S)
        if self.archiver is not None:
            self.archiver.close()

    def _keep_up(self) -> None:
        engine = self.engine

        def tell(ids: Mapping[str, str], altered: str) -> None:
            engine.altered, engine.topic_ids = altered, ids

        upkeep = Upkeep(
            self._log,
            self._topics,
            lambda: engine.holdings,
            tell,
            self._partitions,
            self._trim_lag_ms,
            stopping=self._over,
        )
        while not self._over.wait(UPKEEP_EVERY_S):
            upkeep.step(_mono_ms(), _now_ms())
            engine.lag = upkeep.lag
        upkeep.close()


def _mono_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
