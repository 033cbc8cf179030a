"""Random sagas that start, tell, stop and undo one another while people interfere, on the pure core alone.

    PYTHONPATH=tests/unit python -m model.fuzz --from 0 --seeds 2000 [--oddness 0.1]

A seed draws everything: what the sagas do, what the service answers, what arrives when. In the end nobody interferes
any more and all must come to an end, with all undone that was to be; and once more after some of them were set back.
"""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from model.fuzz_entity import ENTITY_TYPE
from model.fuzz_oddities import ODDITIES, fork, reset
from model.fuzz_plans import IDS, SAGA_TYPE, Mended, payload_of, plan_of
from model.fuzz_world import PARTITIONS, World
from orchestrator.checker.calls import check_calls
from orchestrator.checker.check import is_on_its_own
from orchestrator.checker.evidence import Verdict
from orchestrator.checker.journal import Accepted, History, check_undone
from orchestrator.checker.locks import LOCK, check_locks
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model import turn
from orchestrator.model.events import Status, StepKind
from orchestrator.model.messages import Override
from orchestrator.model.state import SagaState, StepStatus
from orchestrator.model.transitions import FINAL

ODDNESS = 0.1
"""The share of what happens that is somebody's interference."""
_STEPS = 60
_ROUNDS = 2_000
"""Whoever has not ended after that will not."""
_LOG_LINES = 40


def tried(seed: int, oddness: float = ODDNESS) -> str:
    """What is wrong with what a seed draws, with how it came to that; empty where nothing is."""
    world = World(seed)
    try:
        with _budget(small=seed % 3 == 0):
            _play(world, oddness)
            _calm(world)
            _check_ends(world)
            for _ in range(world.random.randrange(3)):
                world.random.choice((reset, fork))(world)
            _calm(world)
            _check_ends(world)
            _calm(world, forgets=True)
            assert not [state.saga_id for state in world.states() if state.ended], "it is never forgotten"
    except Exception:
        return "\n".join(
            [
                *world.log[-_LOG_LINES:],
                traceback.format_exc(limit=-4),
                f"seed {seed}, again: PYTHONPATH=tests/unit python -m model.fuzz --from {seed} --oddness {oddness}",
            ]
        )
    finally:
        world.close()
    return ""


@contextmanager
def _budget(*, small: bool) -> Iterator[None]:
    """Small: decisions are cut into many parts, as those of large sagas are."""
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(turn, "MAX_EFFECTS", 2)
            patch.setattr(turn, "MAX_EVENTS", 4)
        yield


def _play(world: World, oddness: float) -> None:
    random = world.random
    world.take(msg.Start("root", world.message_id(), SAGA_TYPE, payload_of(random, 2)))
    for _ in range(random.randint(10, _STEPS)):
        chance = random.random()
        if chance < oddness:
            random.choice(ODDITIES)(world)
        elif chance < 0.55:
            _ = world.deliver() or world.reply()
        elif chance < 0.9:
            _ = world.reply() or world.deliver()
        else:
            world.fire()


def _calm(world: World, *, forgets: bool = False) -> None:
    """Everybody has code, nothing is in the way, and whoever is stuck is helped until nothing happens any more."""
    world.open_circuits = set()
    for rule in sorted(world.rules):
        world.lift(rule)
    for partition in range(PARTITIONS):
        world.deploy(partition, world.random.choice((2, 3)))
    for state in world.states():
        if state.phase is Status.WAITING_FOR_CODE and state.saga_type != SAGA_TYPE:
            world.take(msg.MoveVersion(state.saga_id, world.message_id(), 0))  # somebody moved it to what is not there
    for _ in range(_ROUNDS):
        if not (
            world.deliver()
            or world.reply(well=True)
            or _resume(world)
            or _unpark(world)
            or world.fire(forgets=forgets)
            or _hear(world)
        ):
            break
    else:
        raise AssertionError("it does not come to an end")
    world.write()


def _resume(world: World) -> bool:
    paused = [state.saga_id for state in world.states() if state.paused is not None]
    if paused:
        world.take(msg.Resume(paused[0], world.message_id()))
    return bool(paused)


def _unpark(world: World) -> bool:
    parked = [(state, sequence) for state in world.states() for sequence in state.parked]
    if not parked:
        return False
    state, sequence = parked[0]
    saga_id = state.saga_id
    if sequence:
        action = Override.SET_RESULT if sequence in state.open else Override.SKIP
        world.take(msg.Unpark(saga_id, world.message_id(), action, sequence, b'"set"', by="ann"))
        return True
    reason = state.parked[0]
    world.take(msg.Unpark(saga_id, world.message_id(), Override.RETRY, by="ann"))
    if 0 in world.runs[saga_id].state.parked:
        known = (
            state.saga_type == SAGA_TYPE
            and state.version == 1
            and any(isinstance(part, Mended) for part in plan_of(state.payload))
        )
        assert known or ("raised" not in reason and "diverges" not in reason), f"{saga_id}: {reason}"
        world.take(msg.Terminate(saga_id, world.message_id()))
    return True


def _hear(world: World) -> bool:
    """Signals or promises, whichever: one may be of no use to who waits for the other."""
    first, second = world.random.sample((_signal, _settle), 2)
    return first(world) or second(world)


def _signal(world: World) -> bool:
    """One of those who wait hears what it waits for."""
    waiting = [
        state.saga_id
        for state in world.states()
        if not state.ended and any(state.steps[sequence].kind is StepKind.SIGNAL for sequence in state.open)
    ]
    if waiting:
        world.signal(world.random.choice(waiting))
    return bool(waiting)


def _settle(world: World) -> bool:
    """A promise that somebody waits for is kept or broken."""
    waiting = [
        (state.saga_id, state.steps[sequence].command)
        for state in world.states()
        for sequence in sorted(state.open)
        if not state.ended and state.steps[sequence].kind is StepKind.PROMISE
    ]
    if waiting:
        saga_id, promise = world.random.choice(waiting)
        broken = world.random.choice(("", "Denied"))
        world.take(msg.Settle(saga_id, world.message_id(), promise, b'"p"', broken))
    return bool(waiting)


def _check_ends(world: World) -> None:
    for state in world.states():
        lasts = state.saga_type == ENTITY_TYPE or (state.saga_type == LOCK and state.saga_id in IDS)  # a lock's fork
        rests = lasts and not (state.open or state.undo_open or state.asked or state.mailbox)
        assert state.ended or rests or state.phase is Status.NOT_STARTED, _situation(state)
    verdict = Verdict()
    accepted = Accepted(world.histories)
    for history in world.histories.values():
        for event in history.events:
            accepted.events[type(event)].append((history, event))
    check_calls(accepted, verdict, settled=True)
    check_locks(accepted, verdict, settled=True)
    for history in world.histories.values():
        if history.state.phase in FINAL and history.state.phase is not Status.TERMINATED:
            check_undone(history, verdict)
        _check_child(world, history)
    assert not verdict.violations, "\n".join(verdict.violations)


def _check_child(world: World, history: History) -> None:
    """A child that counts as undone was not left as it was, if nobody passed over its undo."""
    parent, child = history.state.parent, history.state
    if parent is None or is_on_its_own(history, world.histories):
        return
    parents = world.histories[parent.saga_id, parent.run]
    if parents.state.steps[parent.sequence].status is not StepStatus.UNDONE:
        return
    skipped = any(
        isinstance(event, ev.UndoSucceeded) and event.by and event.sequence == parent.sequence
        for event in parents.events
    )
    stands = not child.ended or child.phase is Status.COMPLETED
    assert skipped or not stands, f"{child.saga_id} counts as undone with {parent}, and is {child.phase}"


def _situation(state: SagaState) -> str:
    steps = [f"{sequence} {step.kind} {step.command} {step.status}" for sequence, step in state.steps.items()]
    return f"{state.saga_id} ({state.run}) is {state.status}, cancel={state.cancel}, cause={state.cause}: {steps}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m model.fuzz", description="random sagas on the pure core")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="SEED")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--oddness", type=float, default=ODDNESS, help="share of interference, 0 to 0.5")
    arguments = parser.parse_args()
    failed = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        problem = tried(seed, arguments.oddness)
        failed += bool(problem)
        if problem:
            print(problem, end="\n\n")
    print(f"{failed} of {arguments.seeds} seeds failed")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
