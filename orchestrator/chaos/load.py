"""Mixed sagas at a pace, from clients that are told what became of each."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from typing import Any

from orchestrator.chaos import sagas
from orchestrator.chaos.history import Histories
from orchestrator.chaos.sagas import Given
from orchestrator.chaos.system import PARTITIONS
from orchestrator.client import Client, Handle
from orchestrator.errors import (
    Disconnected,
    InvalidRequest,
    NotAcknowledged,
    ResultTimeout,
    SagaFailed,
    SagaNotFound,
)
from orchestrator.log.kafka import KafkaLog
from orchestrator.saga import Saga
from orchestrator.topics import TopicNames

CLIENTS = 2
ACKNOWLEDGED_WITHIN_S = 30.0
SETTLED_WITHIN_S = 240.0
"""After the last start. What takes longer is told as not ended, which the checker does not let pass."""
AGAIN_S = 0.5
HEARD_WITHIN_S = 20.0
"""What came of an update; it is then said again, under the same id."""
ASKED_AGAIN_AFTER_S = 12.0
"""A result that has not come: most are late and not lost, and thousands of questions would make them later."""
MOST_UNDER_WAY = 4_000
"""Sagas. Above it, starts wait and are made up for later: what does not come back in time is not helped by more."""
TICK_S = 0.01
CATCH_UP = 3
"""Times the pace: how fast starts are made up for."""
SHELVES = 40
"""Keys that sagas take turns at."""

_MIX: tuple[tuple[type[Saga[Given, Any]], int], ...] = (
    (sagas.ChaosOrder, 18),
    (sagas.ChaosLocal, 24),
    (sagas.ChaosSleeper, 16),
    (sagas.ChaosTold, 13),
    (sagas.ChaosParallel, 8),
    (sagas.ChaosContinued, 6),
    (sagas.ChaosStubborn, 5),
    (sagas.ChaosParent, 4),
    (sagas.ChaosCancelled, 4),
    (sagas.ChaosLocked, 2),
    (sagas.ChaosCounted, 2),
)
"""Saga types with their share."""


@dataclass(frozen=True, slots=True)
class Errand:
    """One saga that is to be started, drawn from the seed and its number."""

    saga: type[Saga[Given, Any]]
    id: str
    given: Given
    client: int
    cancel_after_s: float | None


def draw(seed: int, number: int) -> Errand:
    """The saga of this number: the same seed gives the same."""
    random = Random(f"{seed}/{number}")
    (saga,) = random.choices([saga for saga, _ in _MIX], [share for _, share in _MIX])
    name = saga.definition.name
    saga_id = f"{name.removeprefix('Chaos').lower()}-{number:07d}"
    amounts = {
        "ChaosSleeper": (500, 4_000),
        "ChaosTold": (1, 3),
        "ChaosContinued": (1, 3),
        "ChaosLocked": (1, SHELVES),
        "ChaosCounted": (2, 4),
    }
    amount = random.randint(*amounts.get(name, (0, 0)))
    given = Given(order=saga_id, refused=random.random() < 0.1, amount=amount)
    cancel = random.uniform(0.2, 3.0) if name == "ChaosCancelled" else None
    return Errand(saga, saga_id, given, random.randrange(CLIENTS), cancel)


class Caller:
    """A client that can be dropped and made anew under those who use it."""

    def __init__(self, servers: str) -> None:
        self._log = KafkaLog(servers)
        self._stack = AsyncExitStack()
        self._client: Client | None = None
        self._there = asyncio.Event()

    async def open(self) -> None:
        """A new client; it connects when it is used."""
        client = Client(
            self._log, TopicNames(), PARTITIONS, timeout_s=ACKNOWLEDGED_WITHIN_S, attach_first_s=ASKED_AGAIN_AFTER_S
        )
        self._client = await self._stack.enter_async_context(client)
        self._there.set()

    async def close(self) -> None:
        self._there.clear()
        self._client = None
        await self._stack.aclose()

    async def client(self) -> Client:
        """The client there is; waits while there is none."""
        while self._client is None:
            await self._there.wait()
        return self._client


class Load:
    """Starts sagas for a time, and waits until all have ended."""

    def __init__(self, servers: str, seed: int, per_second: float, histories: Histories) -> None:
        self._seed = seed
        self._per_second = per_second
        self._histories = histories
        self._callers = [Caller(servers) for _ in range(CLIENTS)]
        self._until = float("inf")
        self.running: dict[str, Errand] = {}
        self.started = 0
        self.ended: Counter[str] = Counter()
        """By saga type."""
        self.lost: list[str] = []
        """What is wrong in what clients were told."""

    async def open(self) -> None:
        """Makes all clients."""
        for caller in self._callers:
            await caller.open()

    async def close(self) -> None:
        for caller in self._callers:
            await caller.close()

    async def first(self, within_s: float) -> None:
        """One saga of each type to its end: then all is up. Raises `ResultTimeout`, `SagaError`."""
        client = await self._callers[0].client()
        firsts: tuple[type[Saga[Given, Any]], ...] = (sagas.ChaosOrder, sagas.ChaosStubborn)
        for saga in firsts:
            saga_id = f"first-{saga.definition.name.lower()}"
            handle = await client.start(saga, Given(order=saga_id), id=saga_id)
            self._histories.start(saga_id, saga.definition.name, True)
            await handle.result(within_s)
            self._histories.end(saga_id, "COMPLETED")

    async def run(self, seconds: float) -> None:
        """The load, at its pace whatever comes back; returns when all has ended or the time for it is up."""
        began = time.monotonic()
        tasks: set[asyncio.Task[None]] = set()
        at_once = 1 + int(CATCH_UP * self._per_second * TICK_S)
        self._until = began + seconds + SETTLED_WITHIN_S
        while (passed := time.monotonic() - began) < seconds:
            due = min(int(passed * self._per_second) - self.started, MOST_UNDER_WAY - len(self.running), at_once)
            for _ in range(due):
                self.started += 1
                errand = draw(self._seed, self.started)
                self.running[errand.id] = errand
                task = asyncio.create_task(self._do(errand))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(TICK_S)
        while tasks:
            await asyncio.gather(*tasks)

    async def renew(self, number: int) -> None:
        """Drops a client in the middle and makes another one in its place."""
        caller = self._callers[number]
        await caller.close()
        await caller.open()

    async def repeat(self, count: int) -> int:
        """Starts some sagas again that are under way, as new requests under their ids. Returns how many."""
        errands = list(self.running.values())[:count]
        for errand in errands:
            client = await self._callers[errand.client].client()
            try:
                await client.start(errand.saga, errand.given, id=errand.id)
            except (NotAcknowledged, Disconnected):
                continue
        return len(errands)

    async def _do(self, errand: Errand) -> None:
        try:
            handle = await self._start(errand)
            if handle is None:
                return
            if errand.saga is sagas.ChaosTold:
                await self._tell(errand)
            if errand.saga is sagas.ChaosCounted:
                await self._count(errand)
            if errand.cancel_after_s is not None:
                await asyncio.sleep(errand.cancel_after_s)
                await self._talk(errand, lambda client: client.cancel(errand.id, reason="enough"))
            await self._hear(errand, handle)
        except Exception as error:
            self.lost.append(f"C14: nobody could talk about {errand.id}: {type(error).__name__}: {error}")
        finally:
            del self.running[errand.id]

    async def _start(self, errand: Errand) -> Handle[Any] | None:
        """A handle, None where the start was refused. What became of the start is noted."""
        caller, name = self._callers[errand.client], errand.saga.definition.name
        client = await caller.client()
        try:
            handle = await client.start(errand.saga, errand.given, id=errand.id)
        except InvalidRequest as refused:
            self._histories.start(errand.id, name, False, str(refused))
            return None
        except (NotAcknowledged, Disconnected) as unsure:
            self._histories.start(errand.id, name, None, type(unsure).__name__)
            return await self._attach(errand)
        self._histories.start(errand.id, name, True)
        return handle

    async def _attach(self, errand: Errand) -> Handle[Any]:
        found: list[Handle[Any]] = []

        async def attach(client: Client) -> None:
            found.append(await client.attach(errand.saga, errand.id))

        await self._talk(errand, attach)
        return found[-1]

    async def _tell(self, errand: Errand) -> None:
        for number in range(errand.given.amount):
            message = f"{errand.id}-word-{number}"

            async def tell(client: Client, number: int = number, message: str = message) -> None:
                await client.signal(errand.id, sagas.ChaosTold.word, number, message_id=message)

            await self._talk(errand, tell)

    async def _count(self, errand: Errand) -> None:
        """Updates, each said until its outcome is known; a query after one shows it. What does not is C11."""
        total = 0
        for number in range(1, errand.given.amount + 1):
            heard: list[int] = []

            async def add(client: Client, number: int = number, heard: list[int] = heard) -> None:
                name = f"{errand.id}-update-{number}"
                handle = await client.start_update_as(name, errand.id, sagas.ChaosCounted.add, number)
                heard.append(await handle.result(HEARD_WITHIN_S))

            async def look(client: Client, heard: list[int] = heard) -> None:
                heard.append(await client.query(errand.id, sagas.ChaosCounted.total))

            await self._talk(errand, add)
            total += number
            await self._talk(errand, look)
            if heard != [total, total]:
                self.lost.append(f"C11: {errand.id} tells {heard} after an update that makes it {total}")

    async def _talk(self, errand: Errand, say: Callable[[Client], Awaitable[None]]) -> None:
        """Says something until it is acknowledged, by whichever client there is."""
        caller = self._callers[errand.client]

        async def once() -> None:
            await say(await caller.client())

        await self._until_done(once)

    async def _until_done(self, what: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await what()
            except Exception as error:
                if isinstance(error, InvalidRequest) or time.monotonic() > self._until:
                    raise
                await asyncio.sleep(AGAIN_S)

    async def _hear(self, errand: Errand, handle: Handle[Any]) -> None:
        status: str | None = None
        why = ""
        while True:
            try:
                await handle.result(max(0.1, self._until - time.monotonic()))
                status = "COMPLETED"
            except Disconnected:
                handle = await self._attach(errand)
                continue
            except SagaFailed as failed:
                status, why = str(failed.status), failed.error_type
            except SagaNotFound:
                why = "not found"
                if self._histories.told[errand.id].accepted:
                    self.lost.append(f"C8: the start of {errand.id} was acknowledged, and nobody knows it")
            except ResultTimeout:
                why = "no result in time"
                self.lost.append(f"C2: {errand.id} had no result {SETTLED_WITHIN_S:.0f} s after the last start")
            break
        self._histories.end(errand.id, status, why)
        if status is not None:
            self.ended[errand.saga.definition.name] += 1
