"""What people do to the sagas of a simulated world: they stop, pause and undo them, decide about them, run them again.

Each asks for something of one saga, mostly of one that has not ended, whether it makes sense there or not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from orchestrator.model.events import StepKind
from orchestrator.model.locks import BREAK, saga_of
from orchestrator.model.pauses import PARTITION
from orchestrator.model.state import SagaState, StepStatus
from orchestrator.simulation.clients import ANSWERED, Headers
from orchestrator.simulation.drawing import KEYS, SERVICES, TYPES, pick
from orchestrator.simulation.processes import TOPICS
from orchestrator.simulation.world import World
from orchestrator.wire import headers as h
from orchestrator.wire.inputs import RULE, TARGET, VERSION

FORKS = 6
"""Ids that forks get: some are wanted twice."""


def cancel_saga(world: World) -> None:
    _ask(world, _saga(world), "cancel", topic=world.random.choice((TOPICS.inbox, TOPICS.operations)))


def terminate_saga(world: World) -> None:
    """A person ends a saga at once; sometimes another one thinks better of it."""
    saga_id = _saga(world)
    _ask(world, saga_id, "terminate")
    if world.random.random() < 0.3:
        world.later(world.random.choice((50, 500)), partial(_ask, world, saga_id, "redrive"))


def move_version(world: World) -> None:
    """An operator has a saga go on with another version of its code, or with the newest again."""
    _ask(world, _saga(world), "move-version", {VERSION: world.random.choice((0, 0, 1, 2, 2))})


def operate_saga(world: World) -> None:
    """A person decides about what is parked or cannot be undone yet, and about a saga that may not be either."""
    random = world.random
    chosen: list[tuple[SagaState | None, str, int]] = []
    for state in world.unfinished():
        if state.parked and random.random() < 0.7:
            sequence = random.choice((0, *(s for s in state.parked if s)))
            chosen.append((state, state.saga_id, sequence))
        chosen += [(state, state.saga_id, sequence) for sequence in _backing_off(state)]
    for decided, saga_id, sequence in (*chosen, (None, _saga(world), 0)):
        action = random.choice(("retry", "skip", "skip") if sequence else ("retry", "skip", "set-result"))
        value = b'"by hand"' if action == "set-result" else None
        if action == "retry" and decided is not None and sequence and random.random() < 0.5:
            value = _better(decided, sequence)
        _ask(world, saga_id, action, {h.STEP: sequence} if sequence else {}, value)


def _better(state: SagaState, sequence: int) -> bytes | None:
    """Arguments with which a step does not fail."""
    return b"s/s" if state.steps[sequence].kind in (StepKind.SERVICE, StepKind.LOCAL) else None


def _backing_off(state: SagaState) -> list[int]:
    """Steps whose undo is between two attempts."""
    return [s for s in sorted(state.undo_open) if state.steps[s].status is StepStatus.UNDO_BACKING_OFF]


def compensate_saga(world: World) -> None:
    _ask(world, _saga(world), "compensate")


def run_again(world: World) -> None:
    """A person has a saga run again, from the beginning, its failure or some step; sometimes another one cancels it."""
    random = world.random
    saga_id = _any_saga(world)
    kind = random.choice(("restart", "redrive", "reset", "reset"))
    value = random.choice(world.payloads) if kind != "reset" and random.random() < 0.3 else None
    _ask(world, saga_id, kind, _to_step(world) if kind == "reset" else {}, value)
    if random.random() < 0.3:
        world.later(random.choice((10, 40, 200)), partial(_ask, world, saga_id, "cancel"))


def fork_saga(world: World) -> None:
    """A person has another saga go on from some step of one; sometimes that one is set back or undone besides."""
    random = world.random
    saga_id = _any_saga(world)
    _ask(world, saga_id, "fork", {**_to_step(world), TARGET: f"fork-{random.randrange(FORKS)}"})
    if random.random() < 0.4:
        kind = random.choice(("compensate", "reset", "cancel"))
        world.later(random.choice((0, 10, 200)), partial(_ask, world, saga_id, kind, _to_step(world)))


def break_lock(world: World) -> None:
    """A person takes a key away from the saga that holds it."""
    once = f"break-{world.random.random()}"
    headers: Headers = {h.INPUT_TYPE: "update", h.UPDATE: BREAK, h.MESSAGE_ID: once, **ANSWERED}
    world.send(TOPICS.inbox, saga_of(pick(world.random, KEYS)), b'{"by": "ann"}', headers)


def pause_saga(world: World) -> None:
    """A person keeps one saga where it is for a while; sometimes another one lets it go before."""
    saga_id = _saga(world)
    _ask(world, saga_id, "pause")
    world.later(world.random.choice((50, 1_000, 4_000)), partial(_ask, world, saga_id, "resume"))


def pause_by_rule(world: World) -> None:
    """A type, a service, a step or a partition is paused for a while."""
    random = world.random
    service = random.choice(SERVICES)
    rule = random.choice((f"type:{TYPES[0]}", f"service:{service}", f"step:{service}.do", PARTITION))
    everywhere = range(world.partitions)
    for number in everywhere if rule != PARTITION else (random.choice(everywhere),):
        for kind, after_ms in (("pause", random.choice((0, 30))), ("resume", random.choice((100, 1_500, 5_000)))):
            headers = h.write_headers(
                {h.INPUT_TYPE: kind, RULE: rule, h.MESSAGE_ID: f"rule-{random.random()}"}
                | {**ANSWERED, h.CORRELATION_ID: "rule"}
            )
            append = partial(world.client.append, TOPICS.operations, number, None, key=b"rule", headers=headers)
            world.later(after_ms, partial(append, token=None))


def attach_saga(world: World) -> None:
    _ask(world, _saga(world), "attach", topic=TOPICS.inbox)


def _ask(
    world: World,
    saga_id: str,
    kind: str,
    headers: Headers | None = None,
    value: bytes | None = None,
    *,
    topic: str = TOPICS.operations,
) -> None:
    """A person asks for something, and mostly wants to hear what came of it."""
    given: Headers = {h.INPUT_TYPE: kind, h.MESSAGE_ID: f"{kind}-{world.random.random()}"}
    if kind == "attach" or world.random.random() < 0.7:
        given |= {**ANSWERED, h.CORRELATION_ID: kind}
    world.send(topic, saga_id, value, {**given, **(headers or {})})


def _to_step(world: World) -> Headers:
    return {h.STEP: world.random.choice((1, 1, 2, 2, 3, 4))}


def _saga(world: World) -> str:
    """Mostly one that has not ended."""
    unfinished = world.unfinished()
    if unfinished and world.random.random() < 0.7:
        return world.random.choice(unfinished).saga_id
    return f"saga-{world.random.randrange(world.to_start + 1)}"


def _any_saga(world: World) -> str:
    return f"saga-{world.random.randrange(world.to_start + 1)}" if world.random.random() < 0.5 else _saga(world)


KINDS: dict[str, tuple[int, Callable[[World], None]]] = {
    "saga cancelled": (3, cancel_saga),
    "saga terminated": (2, terminate_saga),
    "person decides": (3, operate_saga),
    "client attaches": (1, attach_saga),
    "saga moved to another version": (3, move_version),
    "compensation forced": (1, compensate_saga),
    "saga run again": (4, run_again),
    "saga forked": (2, fork_saga),
    "lock broken": (1, break_lock),
    "saga paused": (2, pause_saga),
    "many paused": (2, pause_by_rule),
}
"""What people do in the middle of everything, with its weight."""

AFTERWARDS = ("saga cancelled", "saga terminated", "person decides", "person decides")
"""What people do when the faults are over."""
