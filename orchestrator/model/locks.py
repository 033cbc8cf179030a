"""Locks over business keys: each key is a saga of its own, `lock/<key>`, which one saga holds and others wait for.

Whoever asks has a step of kind LOCK, and hears by `Called` that it holds the key. A key is given back by the end of the
block, or when the run has ended, after all that it undoes, however it ends. A lock begins when somebody asks for it and
ends when nobody holds it or waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Abort, ContinueAsNew
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.asked import Until
from orchestrator.model.definition import Context, Definition
from orchestrator.model.state import Step, StepStatus

if TYPE_CHECKING:
    from orchestrator.model.turn import Turn

LOCK = "saga.lock"
"""The saga type of locks."""
TAKE, GIVE, BREAK, HELD = "take", "give", "break", "held"
LONG = 4_000
"""Outcomes after which a lock goes on in a run of its own."""


def saga_of(key: str) -> str:
    """The id of a key's lock."""
    return f"lock/{key}"


# -- the side of who asks


def take(turn: Turn, step: Step, *, at_once: bool) -> None:
    """Asks for the key of a step; `at_once`: it is not waited for."""
    state = turn.state
    hold = state.unit_of(step)
    payload = json.dumps({"hold": hold, "saga": state.saga_id, "at_once": at_once}).encode()
    take_id = f"{hold}/take"
    turn.send(msg.Update(saga_of(step.command), take_id, take_id, TAKE, payload, None, LOCK, state.asker(step)))


def give(turn: Turn, step: Step) -> None:
    """Gives the key back, or no longer waits for it. One that is undone after its end did so when it ended."""
    if turn.state.ended_at_ms:
        return
    hold = turn.state.unit_of(step)
    payload = json.dumps({"hold": hold}).encode()
    turn.send(msg.Update(saga_of(step.command), f"{hold}/give", f"{hold}/give", GIVE, payload, None, LOCK))


def give_all(turn: Turn, follows: ev.RunFollows | None) -> None:
    """The run has come to its end. Keys that the next one inherits are its own from then on."""
    state = turn.state
    cause = None if follows is None else follows.cause
    for sequence in sorted(state.locks | state.open):
        step = state.steps[sequence]
        goes_on = cause is ev.Following.MIGRATED or (cause is ev.Following.RESET and sequence < state.keep)
        inherited = sequence in state.locks and goes_on
        if step.kind is ev.StepKind.LOCK and not inherited:
            give(turn, step)


def taken(turn: Turn, step: Step, input: msg.Called) -> None:
    """The saga holds the key, or cannot have it."""
    if step.status is not StepStatus.WAITING:
        turn.absorb(input, f"late: the step is {step.status}", step.sequence)
    elif input.error_type:
        turn.emit(ev.LockRefused(step.sequence, input.error_type, input.error_message))
    else:
        turn.emit(ev.LockTaken(step.sequence))


# -- the lock itself


class Lock:
    """A key: who holds it, by which takings, and who waits, the longest first. `queue` has (taking, saga id)."""

    def __init__(self, holder: str, holds: list[str]) -> None:
        self.holder = holder
        self.holds = holds
        self.queue: list[tuple[str, str]] = []
        self.asked = bool(holds)
        self.moving = False
        """It goes on in the next run, which gets who waits."""

    @property
    def free(self) -> bool:
        return self.asked and not self.holds and not self.queue

    def next(self) -> None:
        """Whoever has waited longest gets it, with all that the same saga waits for."""
        self.holder = self.queue[0][1] if self.queue else ""
        self.holds = [hold for hold, saga in self.queue if saga == self.holder]
        self.queue = [each for each in self.queue if each[1] != self.holder]

    async def take(self, hold: str, saga: str, at_once: bool) -> None:
        self.asked = True
        if hold in self.holds:
            return  # the run before gave it, and could not say so any more
        if self.holder in ("", saga):
            self.holder = saga
            self.holds.append(hold)
            return
        if at_once:
            raise Abort("Locked", f"{self.holder} holds it")
        self.queue.append((hold, saga))
        await Until(lambda: not self.moving and (hold, saga) not in self.queue)
        if hold not in self.holds:
            raise Abort("Left", "it was not waited for any longer")

    async def give(self, hold: str) -> None:
        self.asked = True
        self.queue = [each for each in self.queue if each[0] != hold]
        if hold in self.holds:
            self.holds.remove(hold)
            if not self.holds:
                self.next()

    def held(self) -> dict[str, Any]:
        return {"holder": self.holder, "waiting": [saga for _, saga in self.queue]}


async def _body(context: Context, payload: bytes) -> bytes:
    given = json.loads(payload) or {"holder": "", "holds": []}
    lock = Lock(given["holder"], given["holds"])
    context.subject = lock
    await Until(lambda: lock.free or context.outcomes >= LONG)
    if lock.free:
        return b"null"
    lock.moving = True
    raise ContinueAsNew(json.dumps({"holder": lock.holder, "holds": lock.holds}).encode(), hands_on=True)


def _check(subject: Any, name: str, payload: bytes) -> str | None:
    if name not in (TAKE, GIVE, BREAK):
        return f"a lock has no update {name[:40]!r}"
    return None if name == BREAK else "only sagas take and give locks"


def _update(subject: Any, name: str, payload: bytes) -> Coroutine[Any, Any, bytes]:
    return _carry_out(subject, name, json.loads(payload))


async def _carry_out(lock: Lock, name: str, given: dict[str, Any]) -> bytes:
    was = lock.holder
    if name == TAKE:
        await lock.take(given["hold"], given["saga"], given["at_once"])
    elif name == GIVE:
        await lock.give(given["hold"])
    else:
        lock.asked = True
        lock.next()
    return json.dumps(was).encode()


def _query(subject: Any, name: str, payload: bytes) -> bytes:
    if name != HELD:
        raise ValueError(f"a lock answers {HELD!r}, not {name[:40]!r}")
    return json.dumps(subject.held()).encode()


DEFINITION = Definition(LOCK, _body, query=_query, check_update=_check, update=_update, lasting=True)
"""What every worker has beside the sagas that it is given."""
