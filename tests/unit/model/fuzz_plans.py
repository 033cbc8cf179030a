"""What the fuzzer's sagas do: drawn from the payload they are started with, so that a replay draws the same.

A payload is a number and a depth, such as `b"7319 2"`: how deep groups and children may be nested.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any, Protocol
from zlib import crc32

from model.fuzz_entity import ENTITY_IDS, ENTITY_TYPE
from orchestrator.errors import Abort, ContinueAsNew, StepFailed
from orchestrator.model.asked import Asked
from orchestrator.model.definition import ChildRequest, Context, Definition, SignalRequest, StepRequest, WaitRequest
from orchestrator.model.events import StepKind
from orchestrator.model.groups import Together
from orchestrator.model.messages import ChildCancellation, Leaving, ParentClose, Reuse
from orchestrator.model.retries import RetryPolicy
from orchestrator.model.versions import by_type

SAGA_TYPE = "T"
SERVICE = "shop"
SIGNAL = "told"
PROMISES = ("p", "q")
KEYS = ("k", "l")
IDS = ("a", "b", "c")
"""Ids that several sagas want: as children, as starts and as forks of their own."""
_LAST = b" last"
"""Ends the payload of a migrated run, which has only the last part of its plan to do."""


class Part(Protocol):
    async def run(self, context: Context) -> None: ...


@dataclass(frozen=True)
class Act:
    """A step of a service."""

    undo: bool
    pivot: bool
    park: bool
    timeout_ms: int | None

    async def run(self, context: Context) -> None:
        await Asked(
            StepRequest(
                SERVICE,
                "act",
                b"x",
                "revert" if self.undo else None,
                pivot=self.pivot,
                start_to_close_ms=self.timeout_ms,
                retry=RetryPolicy(maximum_attempts=2, park=self.park),
                undo_retry=RetryPolicy(maximum_attempts=2, park=True),
            )
        )


@dataclass(frozen=True)
class Listen:
    timeout_ms: int | None

    async def run(self, context: Context) -> None:
        await Asked(WaitRequest(StepKind.SIGNAL, SIGNAL, self.timeout_ms))


@dataclass(frozen=True)
class Sleep:
    duration_ms: int

    async def run(self, context: Context) -> None:
        await Asked(WaitRequest(StepKind.SLEEP, "", self.duration_ms))


@dataclass(frozen=True)
class Await:
    """A promise of its run, which may be settled already."""

    promise: str
    timeout_ms: int | None

    async def run(self, context: Context) -> None:
        await Asked(WaitRequest(StepKind.PROMISE, self.promise, self.timeout_ms))


@dataclass(frozen=True)
class Call:
    """An entity is asked; `waited`: its answer is waited for. It does something itself before where it `works`."""

    entity_id: str
    amount: int
    works: bool
    undo: bool
    waited: bool
    timeout_ms: int | None

    async def run(self, context: Context) -> None:
        name, payload = "work" if self.works else "add", b"%d" % self.amount
        if not self.waited:
            context.tell(SignalRequest(self.entity_id, name, payload, (ENTITY_TYPE, b"null"), update=True))
            return
        undo, undo_payload = ("add", b"%d" % -self.amount) if self.undo else (None, None)
        await Asked(
            StepRequest(
                self.entity_id,
                name,
                payload,
                undo,
                undo_payload,
                schedule_to_close_ms=self.timeout_ms,
                kind=StepKind.CALL,
            )
        )


@dataclass(frozen=True)
class Locked:
    """`kept`: the key is held to the end of the run, where it could be had."""

    key: str
    part: Part
    timeout_ms: int
    at_once: bool
    kept: bool

    async def run(self, context: Context) -> None:
        hold = await Asked(WaitRequest(StepKind.LOCK, self.key, self.timeout_ms, at_once=self.at_once))
        await self.part.run(context)
        if hold is not None and not self.kept:
            context.unlock(int(hold))


@dataclass(frozen=True)
class Tell:
    saga_id: str

    async def run(self, context: Context) -> None:
        context.tell(SignalRequest(self.saga_id, SIGNAL, b'"x"'))


@dataclass(frozen=True)
class Child:
    """`waited`: its end is; else it is begun and left alone. `stopped`: after a while it is told to stop."""

    request: ChildRequest
    waited: bool
    stopped: Leaving | None = None

    async def run(self, context: Context) -> None:
        if not self.waited:
            context.begin(self.request)
        elif self.stopped is None:
            await Asked(self.request)
        else:
            await Together((Asked(self.request), self._stop_later(context, self.stopped)))

    async def _stop_later(self, context: Context, how: Leaving) -> None:
        await Sleep(50).run(context)
        context.stop(self.request, how)


@dataclass(frozen=True)
class Group:
    parts: tuple[Part, ...]
    successes: int | None
    tolerated: int
    concurrency: int | None

    async def run(self, context: Context) -> None:
        branches = tuple(_Branch(context, part) for part in self.parts)
        await Together(branches, self.successes, self.tolerated, self.concurrency)


@dataclass(frozen=True)
class _Branch:
    """Nothing before it is awaited, which it may never be."""

    context: Context
    part: Part

    def __await__(self) -> Generator[Any, Any, None]:
        return (yield from self.part.run(self.context).__await__())


@dataclass(frozen=True)
class Tried:
    parts: tuple[Part, ...]

    async def run(self, context: Context) -> None:
        try:
            for part in self.parts:
                await part.run(context)
        except StepFailed:
            pass


@dataclass(frozen=True)
class Cleaned:
    """Cleans up, however the part ends."""

    part: Part
    cleaning: Part

    async def run(self, context: Context) -> None:
        try:
            await self.part.run(context)
        finally:
            await self.cleaning.run(context)


@dataclass(frozen=True)
class GiveUp:
    async def run(self, context: Context) -> None:
        raise Abort("A")


@dataclass(frozen=True)
class Mended:
    """Where the first version of the code has a bug, and the second one none."""

    async def run(self, context: Context) -> None:
        pass


@dataclass(frozen=True)
class Again:
    payload: bytes

    async def run(self, context: Context) -> None:
        raise ContinueAsNew(self.payload)


def payload_of(random: Random, depth: int) -> bytes:
    """Draws what a saga is started with."""
    return b"%d %d" % (random.randrange(1_000_000), depth)


@cache
def plan_of(payload: bytes) -> tuple[Part, ...]:
    """What a saga started with this does, one after the other."""
    if payload.endswith(_LAST):
        return plan_of(payload.removesuffix(_LAST))[-1:]
    random, depth = Random(payload), int(payload.split()[1])
    parts = [_part(random, depth) for _ in range(random.randint(1, 3))]
    if random.random() < 0.05:
        parts.insert(random.randint(0, len(parts)), Mended())
    chance = random.random()
    if chance < 0.12:
        parts.append(GiveUp())
    elif chance < 0.25:
        parts += [_act(random, pivot=True), _part(random, random.choice((0, depth)))]
    elif chance < 0.33 and depth < 2:
        parts.append(Again(payload_of(random, 0)))
    return tuple(parts)


def _part(random: Random, depth: int) -> Part:
    chance = random.random()
    if depth and chance < 0.58:
        return _nested(random, depth, chance)
    if chance < 0.65:
        return Listen(random.choice((100, None, None)))
    if chance < 0.69:
        return Sleep(random.choice((0, 100)))
    if chance < 0.72:
        return Tell(random.choice(IDS))
    if chance < 0.77:
        return Await(random.choice(PROMISES), random.choice((100, None)))
    if chance < 0.83:
        return _call(random)
    return _act(random)


def _nested(random: Random, depth: int, chance: float) -> Part:
    if chance < 0.22:
        parts = tuple(_part(random, depth - 1) for _ in range(random.randint(2, 3)))
        if chance < 0.07:
            return Tried(parts)
        return Group(parts, random.choice((None, None, 1)), random.choice((0, 0, 1)), random.choice((None, 1)))
    if chance < 0.27:
        return Cleaned(_part(random, depth - 1), _part(random, depth - 1))
    if chance < 0.33:
        key, part = random.choice(KEYS), _part(random, depth - 1)
        return Locked(key, part, random.choice((50, 500)), random.random() < 0.2, random.random() < 0.5)
    child = _child(random, depth)
    if chance < 0.36:
        return replace(child, waited=True, stopped=random.choice((Leaving.CANCEL, Leaving.TERMINATE)))
    return child


def _act(random: Random, *, pivot: bool = False) -> Act:
    undo = not pivot and random.random() < 0.8
    return Act(undo, pivot, random.random() < 0.3, random.choice((None, None, 300)))


def _call(random: Random) -> Call:
    flags = random.random() < 0.4, random.random() < 0.7, random.random() < 0.8
    return Call(random.choice(ENTITY_IDS), random.choice((0, 1, 1)), *flags, random.choice((None, None, 100)))


def _child(random: Random, depth: int) -> Child:
    undo = random.random() < 0.75
    cancellations = [each for each in ChildCancellation if not undo or each is not ChildCancellation.ABANDON]
    request = ChildRequest(
        SAGA_TYPE,
        payload_of(random, depth - 1),
        random.choice((None, None, *IDS)),
        undo,
        random.choice(tuple(ParentClose)),
        random.choice(cancellations),
        random.choice((None, None, *Reuse)),
    )
    return Child(request, waited=undo or random.random() < 0.6)


async def _body(context: Context, payload: bytes) -> bytes:
    for part in plan_of(payload):
        await part.run(context)
    return b'"done"'


async def _body_with_bug(context: Context, payload: bytes) -> bytes:
    for part in plan_of(payload):
        if isinstance(part, Mended):
            raise ValueError("a bug")
        await part.run(context)
    return b'"done"'


async def _update(subject: Any, name: str, payload: bytes) -> bytes:
    await Asked(StepRequest(SERVICE, "act", b"x", "revert", retry=RetryPolicy(maximum_attempts=2)))
    return b"1"


def _migrate(version: int, payload: bytes, done: tuple[tuple[str, str, bytes], ...]) -> bytes | None:
    return payload.removesuffix(_LAST) + _LAST if crc32(payload) % 3 else None


def releases(timeout_ms: int | None) -> tuple[Definition | None, ...]:
    """What owners may have: no code, the first version, the second one for all sagas, and that for half of them.

    `timeout_ms`: of all runs, and of all that one saga does.
    """
    first = Definition(
        SAGA_TYPE,
        _body_with_bug,
        update=_update,
        check_update=lambda subject, name, payload: None,
        execution_timeout_ms=timeout_ms,
        run_timeout_ms=timeout_ms,
    )
    second = replace(first, body=_body, version=2, migrate=_migrate)
    both = by_type((first, second))[SAGA_TYPE]
    half = by_type((first, second), {(SAGA_TYPE, 2): 50.0})[SAGA_TYPE]
    return None, first, both, half
