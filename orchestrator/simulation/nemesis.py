"""Faults: what can go wrong, each by name, drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.simulation import people
from orchestrator.simulation.drawing import SERVICES
from orchestrator.simulation.network import FAULTS, NetworkLink
from orchestrator.simulation.processes import TOPICS, Worker
from orchestrator.simulation.world import World
from orchestrator.wire import headers as h


def kill_worker(world: World) -> None:
    _worker(world).kill(world.random.choice((0, 200, 3_000)))


def freeze_worker(world: World) -> None:
    """A zombie: stopped beyond its session, counted as dead, and later it goes on where it stood."""
    worker = _worker(world)
    if worker.engine is None or worker.frozen:
        return
    worker.freeze()
    for link in worker.links:
        link.hold_group = True
    world.log.expire(worker.inputs)
    world.later(world.random.choice((300, 2_000, 12_000)), lambda: _thaw_worker(worker))


def _thaw_worker(worker: Worker) -> None:
    worker.thaw()
    world = worker.world
    world.healed_ms = max(world.healed_ms, world.now_ms)

    def hear() -> None:
        for link in worker.links:
            link.release_group()

    world.later(world.random.choice((0, 50, 1_000)), hear)


def expire_worker(world: World) -> None:
    """Cut off from the coordinator only: two live owners for a while."""
    worker = _worker(world)
    if worker.engine is None or worker.frozen:
        return
    links = list(worker.links)
    for link in links:
        link.hold_group = True
    world.log.expire(worker.inputs)

    def hear() -> None:
        for link in links:
            link.release_group()

    world.later(world.random.choice((100, 1_000, 5_000)), hear)


def stop_worker(world: World) -> None:
    """A graceful stop: partitions are handed back first."""
    worker = _worker(world)
    if worker.engine is None or worker.frozen:
        return
    engine = worker.engine
    engine.leave(worker.mono_ms())
    world.later(2_500, lambda: worker.kill(500) if worker.engine is engine else None)


def spoil_worker(world: World) -> None:
    worker = _worker(world)
    if worker.engine is not None:
        _spoil(world, world.random.choice(worker.links[2:]))


def lose_store(world: World) -> None:
    """The disk is gone when the worker comes back."""
    worker = _worker(world)
    worker.kill(100)
    for partition in range(world.partitions):
        worker.stores.wipe(partition)


def damage_store(world: World) -> None:
    worker = _worker(world)
    worker.stores.damage(world.random.randrange(world.partitions))
    world.damaged = True


def detune_worker(world: World) -> None:
    """A machine's clock goes a tenth too fast or too slow from now on."""
    world.besides.choice(world.workers).set_pace(world.besides.choice((90, 110)))


def fill_disk(world: World) -> None:
    """A worker can write nothing to its disk for a moment, or for some seconds."""
    stores = world.besides.choice(world.workers).stores
    stores.full = True
    world.later(world.besides.choice((100, 3_000)), lambda: setattr(stores, "full", False))


def kill_service(world: World) -> None:
    world.random.choice(world.services).kill(world.random.choice((0, 200, 3_000)))


def freeze_service(world: World) -> None:
    process = world.random.choice(world.services)
    if process.engine is None or process.frozen:
        return
    process.freeze()
    engine = process.engine
    world.log.expire(process.reader)
    world.later(world.random.choice((300, 4_000, 15_000)), lambda: process.thaw() if process.engine is engine else None)


def spoil_service(world: World) -> None:
    process = world.random.choice(world.services)
    if process.engine is not None:
        _spoil(world, process.links[1])


def duplicate_reply(world: World) -> None:
    _duplicate(world, TOPICS.replies)


def duplicate_command(world: World) -> None:
    _duplicate(world, TOPICS.commands(world.random.choice(SERVICES)))


def duplicate_start(world: World) -> None:
    _duplicate(world, TOPICS.inbox)


def misdirect_reply(world: World) -> None:
    """A reply comes on a partition that does not own its saga."""
    record = world.some_record(TOPICS.replies)
    if record is not None:
        target = (record.partition + 1) % world.partitions
        world.client.append(TOPICS.replies, target, record.value, key=record.key, headers=record.headers, token=None)


def bad_input(world: World) -> None:
    """Bytes nobody asked for, in any input topic."""
    random = world.random
    topic = random.choice((TOPICS.inbox, TOPICS.replies, TOPICS.operations, TOPICS.internal))
    headers = random.choice(
        (
            (),
            ((h.SAGA_ID, b"saga-1"), (h.SAGA_TYPE, b"Plain"), (h.INPUT_TYPE, b"dance")),
            ((h.SAGA_ID, b"saga-1"), (h.SAGA_RUN, b"9-9-9"), (h.STEP, b"1"), (h.OUTCOME, b"success")),
        )
    )
    partition = random.randrange(world.partitions)
    world.client.append(topic, partition, random.randbytes(20), key=None, headers=headers, token=None)


def forge_reply(world: World) -> None:
    record = world.some_record(TOPICS.replies)
    if record is not None:
        headers = [(name, b"sim.00" if name == h.REPLY_TOKEN else value) for name, value in record.headers]
        headers = [(name, b"failure" if name == h.OUTCOME else value) for name, value in headers]
        world.client.append(TOPICS.replies, record.partition, record.value, key=record.key, headers=headers, token=None)


def _worker(world: World) -> Worker:
    return world.random.choice(world.workers)


def _spoil(world: World, link: NetworkLink) -> None:
    fault = world.random.choice(FAULTS)
    world.counters[f"fault: {fault}"] += 1
    link.spoil(fault, world.random.randint(1, 6))


def _duplicate(world: World, topic: str) -> None:
    record = world.some_record(topic)
    if record is not None:
        world.client.append(topic, record.partition, record.value, key=record.key, headers=record.headers, token=None)


KINDS: dict[str, tuple[int, Callable[[World], None]]] = {
    "worker killed": (5, kill_worker),
    "worker frozen": (4, freeze_worker),
    "worker cut off from the group": (3, expire_worker),
    "worker stopped": (2, stop_worker),
    "worker's appends spoiled": (6, spoil_worker),
    "store lost": (1, lose_store),
    "store damaged": (1, damage_store),
    "service killed": (4, kill_service),
    "service frozen": (2, freeze_service),
    "service's appends spoiled": (4, spoil_service),
    "reply duplicated": (2, duplicate_reply),
    "command duplicated": (2, duplicate_command),
    "start duplicated": (1, duplicate_start),
    "reply misdirected": (1, misdirect_reply),
    "bad input": (2, bad_input),
    "reply forged": (1, forge_reply),
    **people.KINDS,
    "worker's clock off": (0, detune_worker),
    "worker's disk full": (0, fill_disk),
}
"""Each fault with its weight. What has none strikes beside the others, in some worlds."""
