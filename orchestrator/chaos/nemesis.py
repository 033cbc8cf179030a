"""Carries out the schedule: each lane one fault after the other, each healed before the next of its lane."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from orchestrator.broker import Node
from orchestrator.chaos import inputs, stores
from orchestrator.chaos.history import NOT_DONE, Histories, Struck
from orchestrator.chaos.links import Links, Manner
from orchestrator.chaos.load import CLIENTS, Load
from orchestrator.chaos.sagas import SERVICES, slow_file
from orchestrator.chaos.schedule import KINDS, Lane, Planned
from orchestrator.chaos.system import EXTRA, PARTITIONS, System
from orchestrator.demo.processes import Process
from orchestrator.errors import SagaError
from orchestrator.log.base import AdminFailed

T = TypeVar("T")

BROKER_BACK_WITHIN_S = 120.0
BETWEEN_S = {Lane.BROKERS: 15.0, Lane.WORKERS: 5.0, Lane.SERVICES: 5.0, Lane.LINKS: 8.0, Lane.INPUTS: 2.0}
"""At least so long passes after a fault that took longer than planned, before the next of its lane."""
FLAP_S = 0.7
"""A network that flaps is there for so long, and then gone for as long."""
RUN_S, REST_S = 0.02, 0.18
"""Of a starved worker, in turn."""


class Nemesis:
    """Strikes a running system. `strike` returns when all faults of the schedule are healed."""

    def __init__(
        self, system: System, load: Load, links: Links | None, histories: Histories, say: Callable[[str], None]
    ) -> None:
        self._system = system
        self._load = load
        self._links = links
        self._histories = histories
        self._say = say
        self._ways = {kind.name: self._way(kind.name) for kind in KINDS}

    def _way(self, name: str) -> Callable[[Planned, Struck], Awaitable[None]]:
        way: Callable[[Planned, Struck], Awaitable[None]] = getattr(self, "_" + name.replace("-", "_"))
        return way

    async def strike(self, schedule: Sequence[Planned], seconds: float) -> None:
        """The faults of a load of so many seconds; those that a slow machine would begin later are left out.

        Raises `SagaError` where something that was struck cannot be brought back.
        """
        began = time.monotonic()
        lanes: dict[Lane, list[Planned]] = defaultdict(list)
        for planned in schedule:
            lanes[planned.kind.lane].append(planned)
        async with asyncio.TaskGroup() as group:
            for lane in lanes.values():
                group.create_task(self._lane(lane, began, began + seconds))

    async def _lane(self, schedule: Sequence[Planned], began: float, until: float) -> None:
        healed = 0.0
        for planned in schedule:
            due = max(began + planned.begin_s, healed + BETWEEN_S[planned.kind.lane])
            if due > until:
                self._histories.note("left out", number=planned.number, kind=planned.kind.name)
                continue
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            struck = self._histories.begin(planned.number, planned.kind.name, self._target(planned))
            self._say(f"{planned.kind.name} {struck.target}".rstrip())
            try:
                await self._ways[planned.kind.name](planned, struck)
            except AdminFailed as failed:
                struck.note = f"{NOT_DONE}: {failed}"
            self._histories.heal(struck)
            healed = time.monotonic()

    # -- what is struck

    def _target(self, planned: Planned) -> str:
        lane, name = planned.kind.lane, planned.kind.name
        if name == "worker-joins":
            return EXTRA
        if lane is Lane.WORKERS:
            return self._worker(planned).name
        if lane is Lane.SERVICES:
            return self._service(planned).name
        if lane is Lane.BROKERS and name.startswith("broker-"):
            return f"broker {self._node(planned).layout.node_id}"
        return ""

    def _worker(self, planned: Planned) -> Process:
        return _pick([each for each in self._system.workers.values() if each.name != EXTRA], planned)

    def _service(self, planned: Planned) -> Process:
        return _pick(list(self._system.services.values()), planned)

    def _node(self, planned: Planned) -> Node:
        return _pick(self._system.cluster.nodes, planned)

    # -- workers

    async def _worker_killed(self, planned: Planned, struck: Struck) -> None:
        worker = self._worker(planned)
        await _apart(self._system.kill_worker, worker.name)
        await asyncio.sleep(planned.lasts_s)
        worker.start()

    async def _worker_process_killed(self, planned: Planned, struck: Struck) -> None:
        struck.note = f"{self._system.kill_worker(self._worker(planned).name, whole=False)} processes"
        await asyncio.sleep(planned.lasts_s)

    async def _worker_restarted(self, planned: Planned, struck: Struck) -> None:
        await _restart(self._worker(planned), planned.lasts_s)

    async def _worker_frozen_long(self, planned: Planned, struck: Struck) -> None:
        await _freeze(self._worker(planned), planned.lasts_s)

    async def _worker_frozen_briefly(self, planned: Planned, struck: Struck) -> None:
        await _freeze(self._worker(planned), planned.lasts_s)

    async def _worker_starved(self, planned: Planned, struck: Struck) -> None:
        worker, until = self._worker(planned), time.monotonic() + planned.lasts_s
        try:
            while time.monotonic() < until:
                worker.freeze()
                await asyncio.sleep(REST_S)
                worker.thaw()
                await asyncio.sleep(RUN_S)
        finally:
            worker.thaw()

    async def _worker_joins(self, planned: Planned, struck: Struck) -> None:
        worker = self._system.workers[EXTRA]
        worker.start()
        await asyncio.sleep(planned.lasts_s)
        await _apart(worker.stop)

    async def _store_deleted(self, planned: Planned, struck: Struck) -> None:
        worker = self._worker(planned)
        await _apart(worker.stop)
        struck.note = f"{stores.delete(self._system.stores(worker.name))} stores"
        await asyncio.sleep(planned.lasts_s)
        worker.start()

    async def _store_bit_flipped(self, planned: Planned, struck: Struck) -> None:
        worker = self._worker(planned)
        await _apart(worker.stop)
        struck.note = f"{stores.flip_bits(self._damage(worker), Random(planned.choice))} stores"
        await asyncio.sleep(planned.lasts_s)
        worker.start()

    async def _store_cut(self, planned: Planned, struck: Struck) -> None:
        worker = self._worker(planned)
        await _apart(self._system.kill_worker, worker.name)
        struck.note = f"{stores.cut(self._damage(worker), Random(planned.choice))} stores"
        await asyncio.sleep(planned.lasts_s)
        worker.start()

    def _damage(self, worker: Process) -> list[Path]:
        found = self._system.stores(worker.name)
        self._system.damaged.update(found)
        return found

    # -- services

    async def _service_killed(self, planned: Planned, struck: Struck) -> None:
        service = self._service(planned)
        await _apart(service.kill)
        await asyncio.sleep(planned.lasts_s)
        service.start()

    async def _service_restarted(self, planned: Planned, struck: Struck) -> None:
        await _restart(self._service(planned), planned.lasts_s)

    async def _service_frozen(self, planned: Planned, struck: Struck) -> None:
        await _freeze(self._service(planned), planned.lasts_s)

    async def _service_slow(self, planned: Planned, struck: Struck) -> None:
        file = slow_file(self._system.books, self._service(planned).name)
        file.write_text(str(20 + int(40 * planned.choice)))
        await asyncio.sleep(planned.lasts_s)
        file.unlink()

    # -- brokers

    async def _broker_killed(self, planned: Planned, struck: Struck) -> None:
        await self._down(self._node(planned), planned.lasts_s)

    async def _journal_leader_killed(self, planned: Planned, struck: Struck) -> None:
        partition = int(planned.choice * PARTITIONS)
        place = await _apart(self._system.leader, self._system.names.journal, partition)
        node = self._system.cluster.nodes[place] if place is not None else self._node(planned)
        struck.target = f"broker {node.layout.node_id}, which leads partition {partition}"
        await self._down(node, planned.lasts_s)

    async def _broker_restarted(self, planned: Planned, struck: Struck) -> None:
        node = self._node(planned)
        await _apart(node.stop)
        await asyncio.sleep(planned.lasts_s)
        await _apart(node.start, BROKER_BACK_WITHIN_S)

    async def _brokers_rolled(self, planned: Planned, struck: Struck) -> None:
        for node in self._system.cluster.nodes:
            await _apart(node.stop)
            await _apart(node.start, BROKER_BACK_WITHIN_S)
            await asyncio.sleep(planned.lasts_s)

    async def _broker_frozen(self, planned: Planned, struck: Struck) -> None:
        node = self._node(planned)
        node.pause()
        try:
            await asyncio.sleep(planned.lasts_s)
        finally:
            node.resume()

    async def _broker_frozen_long(self, planned: Planned, struck: Struck) -> None:
        await self._broker_frozen(planned, struck)

    async def _broker_disk_full(self, planned: Planned, struck: Struck) -> None:
        node = self._node(planned)
        struck.note = "it ended by itself" if await _apart(node.fill_disk, planned.lasts_s) else "it went on"
        await _apart(node.kill)
        await _apart(node.start, BROKER_BACK_WITHIN_S)

    async def _brokers_all_killed(self, planned: Planned, struck: Struck) -> None:
        for node in self._system.cluster.nodes:
            await _apart(node.kill)
        await asyncio.sleep(planned.lasts_s)
        await _apart(self._system.cluster.start, BROKER_BACK_WITHIN_S)

    async def _down(self, node: Node, seconds: float) -> None:
        await _apart(node.kill)
        await asyncio.sleep(seconds)
        await _apart(node.start, BROKER_BACK_WITHIN_S)

    # -- inputs

    async def _inputs_duplicated(self, planned: Planned, struck: Struck) -> None:
        names = self._system.names
        partition = int(planned.choice * PARTITIONS)
        struck.note = await _apart(inputs.repeat, self._system, [names.inbox, names.replies], partition)

    async def _replies_late(self, planned: Planned, struck: Struck) -> None:
        partition, topics = int(planned.choice * PARTITIONS), [self._system.names.replies]
        struck.note = await _apart(inputs.repeat, self._system, topics, partition, latest=False)

    async def _commands_duplicated(self, planned: Planned, struck: Struck) -> None:
        random = Random(planned.choice)
        topics = [self._system.names.commands(random.choice(SERVICES))]
        struck.note = await _apart(inputs.repeat, self._system, topics, random.randrange(PARTITIONS))

    async def _poison(self, planned: Planned, struck: Struck) -> None:
        random = Random(planned.choice)
        struck.note = await _apart(inputs.poison, self._system, random, random.choice(SERVICES))

    async def _reply_forged(self, planned: Planned, struck: Struck) -> None:
        random = Random(planned.choice)
        struck.note = await _apart(inputs.forge_replies, self._system, random, random.choice(SERVICES))

    async def _start_oversize(self, planned: Planned, struck: Struck) -> None:
        ids, struck.note = await _apart(inputs.start_oversize, self._system, planned.number)
        for saga_id in ids:
            self._histories.start(saga_id, "ChaosOrder", False, "larger than any saga's input")

    async def _start_of_unknown_type(self, planned: Planned, struck: Struck) -> None:
        struck.note = await _apart(inputs.start_unknown, self._system, planned.number)

    async def _claim_forged(self, planned: Planned, struck: Struck) -> None:
        struck.note = await _apart(inputs.forge_claim, self._system, Random(planned.choice))

    async def _start_repeated(self, planned: Planned, struck: Struck) -> None:
        struck.note = f"{await self._load.repeat(20)} starts"

    async def _client_dropped(self, planned: Planned, struck: Struck) -> None:
        await self._load.renew(int(planned.choice * CLIENTS))

    # -- links

    async def _link_slow(self, planned: Planned, struck: Struck) -> None:
        await self._link(Manner.SLOW, planned, struck)

    async def _link_half_open(self, planned: Planned, struck: Struck) -> None:
        await self._link(Manner.SILENT, planned, struck)

    async def _link_reset(self, planned: Planned, struck: Struck) -> None:
        await self._link(Manner.RESET, planned, struck)

    async def _link_flaps(self, planned: Planned, struck: Struck) -> None:
        until = time.monotonic() + planned.lasts_s
        assert self._links is not None
        struck.target = self._links.worker
        try:
            while time.monotonic() < until:
                for manner in (Manner.CUT, Manner.OPEN):
                    self._links.behave(manner)
                    await asyncio.sleep(FLAP_S)
        finally:
            self._links.behave(Manner.OPEN)

    async def _worker_cut_off(self, planned: Planned, struck: Struck) -> None:
        await self._link(Manner.CUT, planned, struck)

    async def _link(self, manner: Manner, planned: Planned, struck: Struck) -> None:
        if self._links is None:
            raise SagaError("there is no link to strike")
        struck.target = self._links.worker
        self._links.behave(manner, delay_s=0.05 + 0.15 * planned.choice)
        try:
            await asyncio.sleep(planned.lasts_s)
        finally:
            self._links.behave(Manner.OPEN)


def _pick(candidates: Sequence[T], planned: Planned) -> T:
    return candidates[min(len(candidates) - 1, int(planned.choice * len(candidates)))]


async def _apart(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Called in a thread, for it blocks."""
    return await asyncio.to_thread(function, *arguments, **named)


async def _restart(process: Process, seconds: float) -> None:
    await _apart(process.stop)
    await asyncio.sleep(seconds)
    process.start()


async def _freeze(process: Process, seconds: float) -> None:
    process.freeze()
    try:
        await asyncio.sleep(seconds)
    finally:
        process.thaw()
