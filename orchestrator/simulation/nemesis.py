"""Faults: what can go wrong, each by name, drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from orchestrator.model.pauses import PARTITION
from orchestrator.model.state import SagaState, StepStatus
from orchestrator.simulation.network import FAULTS, NetworkLink
from orchestrator.simulation.processes import TOPICS, Worker
from orchestrator.simulation.sagas import SERVICES, TYPES
from orchestrator.simulation.world import World
from orchestrator.wire import headers as h
from orchestrator.wire.inputs import RULE, VERSION


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
    engine.leave(world.now_ms + worker.mono_offset)
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


def cancel_saga(world: World) -> None:
    _cancel(world, _saga(world))


def _cancel(world: World, saga_id: str) -> None:
    world.send(TOPICS.inbox, saga_id, b"", {h.INPUT_TYPE: "cancel", h.MESSAGE_ID: f"cancel-{world.random.random()}"})


def terminate_saga(world: World) -> None:
    """A person ends a saga at once; sometimes another one thinks better of it."""
    saga_id = _saga(world)
    world.send(
        TOPICS.operations, saga_id, b"", {h.INPUT_TYPE: "terminate", h.MESSAGE_ID: f"end-{world.random.random()}"}
    )
    if world.random.random() < 0.3:
        world.later(world.random.choice((50, 500)), partial(_run_again, world, saga_id, "redrive"))


def move_version(world: World) -> None:
    """An operator has a saga go on with another version of its code, or with the newest again."""
    headers: dict[str, str | int | None] = {
        h.INPUT_TYPE: "move-version",
        h.MESSAGE_ID: f"move-{world.random.random()}",
        VERSION: world.random.choice((0, 0, 1, 2, 2)),
    }
    world.send(TOPICS.operations, _saga(world), b"", headers)


def operate_saga(world: World) -> None:
    """A person decides about what is parked or cannot be undone yet, and about a saga that may not be either."""
    random = world.random
    unfinished = world.unfinished()
    chosen: list[tuple[str, int | None]] = [
        (state.saga_id, None) for state in unfinished if state.parked and random.random() < 0.7
    ]
    chosen += [(state.saga_id, sequence) for state in unfinished for sequence in _backing_off(state)]
    for saga_id, sequence in (*chosen, (_saga(world), None)):
        action = random.choice(("retry", "skip", "set-result") if sequence is None else ("retry", "skip", "skip"))
        headers: dict[str, str | int | None] = {
            h.INPUT_TYPE: action,
            h.MESSAGE_ID: f"person-{random.random()}",
            h.STEP: sequence,
        }
        world.send(TOPICS.operations, saga_id, b'"by hand"' if action == "set-result" else None, headers)


def _backing_off(state: SagaState) -> list[int]:
    """Steps whose undo is between two attempts."""
    return [s for s in sorted(state.undo_open) if state.steps[s].status is StepStatus.UNDO_BACKING_OFF]


def compensate_saga(world: World) -> None:
    headers: dict[str, str | int | None] = {h.INPUT_TYPE: "compensate", h.MESSAGE_ID: f"undo-{world.random.random()}"}
    world.send(TOPICS.operations, _saga(world), b"", headers)


def run_again(world: World) -> None:
    """A person has a saga run again, from the beginning, its failure or some step; sometimes another one cancels it."""
    saga_id = f"saga-{world.random.randrange(world.to_start + 1)}" if world.random.random() < 0.5 else _saga(world)
    _run_again(world, saga_id, world.random.choice(("restart", "redrive", "reset", "reset")))
    if world.random.random() < 0.3:
        world.later(world.random.choice((10, 40, 200)), partial(_cancel, world, saga_id))


def _run_again(world: World, saga_id: str, kind: str) -> None:
    random = world.random
    headers: dict[str, str | int | None] = {h.INPUT_TYPE: kind, h.MESSAGE_ID: f"{kind}-{random.random()}"}
    if kind == "reset":
        headers[h.STEP] = random.choice((1, 1, 2, 2, 3, 4))
    world.send(TOPICS.operations, saga_id, None, headers)


def pause_saga(world: World) -> None:
    """A person keeps one saga where it is for a while; sometimes another one lets it go before."""
    saga_id = _saga(world)
    for kind, after_ms in (("pause", 0), ("resume", world.random.choice((50, 1_000, 4_000)))):
        headers: dict[str, str | int | None] = {h.INPUT_TYPE: kind, h.MESSAGE_ID: f"{kind}-{world.random.random()}"}
        world.later(after_ms, partial(world.send, TOPICS.operations, saga_id, b"", headers))


def pause_by_rule(world: World) -> None:
    """A type, a service, a step or a partition is paused for a while."""
    random = world.random
    service = random.choice(SERVICES)
    rule = random.choice((f"type:{TYPES[0]}", f"service:{service}", f"step:{service}.do", PARTITION))
    everywhere = range(world.partitions)
    for number in everywhere if rule != PARTITION else (random.choice(everywhere),):
        for kind, after_ms in (("pause", random.choice((0, 30))), ("resume", random.choice((100, 1_500, 5_000)))):
            headers = h.write_headers(
                {h.INPUT_TYPE: kind, RULE: rule, h.MESSAGE_ID: f"rule-{random.random()}", h.REPLY_TO: TOPICS.answers}
                | {h.REPLY_PARTITION: 0, h.CORRELATION_ID: "rule"}
            )
            append = partial(world.client.append, TOPICS.operations, number, None, key=b"rule", headers=headers)
            world.later(after_ms, partial(append, token=None))


def attach_saga(world: World) -> None:
    saga_id = _saga(world)
    headers: dict[str, str | int | None] = {
        h.INPUT_TYPE: "attach",
        h.MESSAGE_ID: f"attach-{world.random.random()}",
        h.REPLY_TO: TOPICS.answers,
        h.REPLY_PARTITION: 0,
        h.CORRELATION_ID: "attached",
    }
    world.send(TOPICS.inbox, saga_id, b"", headers)


def _worker(world: World) -> Worker:
    return world.random.choice(world.workers)


def _saga(world: World) -> str:
    """Mostly one that has not ended."""
    unfinished = world.unfinished()
    if unfinished and world.random.random() < 0.7:
        return world.random.choice(unfinished).saga_id
    return f"saga-{world.random.randrange(world.to_start + 1)}"


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
    "saga cancelled": (3, cancel_saga),
    "saga terminated": (2, terminate_saga),
    "person decides": (3, operate_saga),
    "client attaches": (1, attach_saga),
    "saga moved to another version": (3, move_version),
    "compensation forced": (1, compensate_saga),
    "saga run again": (4, run_again),
    "saga paused": (2, pause_saga),
    "many paused": (2, pause_by_rule),
}
"""Each fault with its weight."""

PEOPLE = ("saga cancelled", "saga terminated", "person decides", "person decides")
"""What people do when the faults are over."""
