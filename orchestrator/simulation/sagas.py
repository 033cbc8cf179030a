"""Random sagas: a plan drawn from the seed travels as the start's payload, one body carries out any plan.

A plan is a tree of ("seq", plans), ("try", plans), ("par", plans, successes, tolerated, concurrency), ("step", ...),
("sleep", ms), ("receive", ms), ("promise", name, ms), ("hold", ms, ms), ("note", name), ("patch", plans, name),
("child", ...), ("tell", saga id, type and plan to start it by), ("lock", plans, keys, ms, at once, to the end),
("call", {...}), ("abort",). A step carries the script its service will act by: what each attempt of its `do` and
`undo` comes to.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Coroutine, Generator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from random import Random
from typing import Any, TypeVar, cast

from orchestrator.errors import Abort, ContinueAsNew, StepFailed
from orchestrator.model.definition import ChildRequest, Context, Definition, SignalRequest, StepRequest, WaitRequest
from orchestrator.model.driver import Asked, Until
from orchestrator.model.events import StepKind
from orchestrator.model.groups import Together
from orchestrator.model.locks import DEFINITION as LOCK
from orchestrator.model.messages import ChildCancellation, ParentClose, Reuse
from orchestrator.model.retries import Jitter, RetryPolicy, RetryRule
from orchestrator.model.versions import by_type
from orchestrator.schedules.saga import ScheduleSaga
from orchestrator.schedules.schedule import SCHEDULE_TYPE as SCHEDULE_TYPE
from orchestrator.schedules.schedule import Overlap, Schedule, ScheduleState
from orchestrator.schedules.times import Interval, ScheduleSpec
from orchestrator.simulation.local import ScriptedFunctions
from orchestrator.simulation.tally import DEFINITION as TALLY
from orchestrator.simulation.tally import call_request, draw_call

SERVICES = ("inventory", "payments", "shipping")
TYPES = ("Plain", "Timed")
LOCAL = ""
"""In place of a service's name: the worker itself acts."""
SIGNAL = "told"
PROMISES = ("asked", "asked again")
KEYS = ("red", "green", "blue")
Plan = list[Any]
T = TypeVar("T")
_CLOSES = tuple(ParentClose)
FUNCTIONS = ScriptedFunctions()


async def carry_out(context: Context, payload: bytes) -> bytes:
    """The body of every simulated saga."""
    plan, cleanup, bug, again = _read(payload)
    try:
        await _walk(context, plan)
    finally:
        if cleanup is not None:
            await Asked(cleanup)
    if bug:
        raise ValueError("a bug in the saga's code")
    if again is not None:
        raise ContinueAsNew(again)
    return b'"done"'


@lru_cache(512)
def _read(payload: bytes) -> tuple[Plan, StepRequest | None, bool, bytes | None]:
    """The plan with requests in place of what describes them, the clean-up, whether the code fails in the end, and the
    next run's input if there is one.

    The code is run again and again from the same start, so this is kept.
    """
    plan = json.loads(payload)
    again = json.dumps({**plan, "again": plan["again"] - 1}).encode() if plan["again"] else None
    return _with_requests(plan["plan"]), plan["cleanup"] and _request(plan["cleanup"]), plan["bug"], again


def _with_requests(plan: Plan) -> Plan:
    kind = plan[0]
    if kind == "step":
        return [kind, _request(plan[1])]
    if kind == "sleep":
        return [kind, WaitRequest(StepKind.SLEEP, "", plan[1])]
    if kind == "receive":
        return [kind, WaitRequest(StepKind.SIGNAL, SIGNAL, plan[1])]
    if kind == "child":
        return [kind, _child_request(plan[1]), plan[1]["waited for"]]
    if kind == "promise":
        return [kind, WaitRequest(StepKind.PROMISE, plan[1], plan[2])]
    if kind in ("hold", "note"):
        return plan
    if kind == "tell":
        return [*plan[:2], None if plan[2] is None else (plan[2][0], plan[2][1].encode())]
    if kind == "abort":
        return plan
    if kind == "call":
        return [kind, call_request(plan[1])]
    return [kind, [_with_requests(part) for part in plan[1]], *plan[2:]]


class _Branch:
    """A plan that is begun when its turn comes."""

    def __init__(self, context: Context, plan: Plan) -> None:
        self._context = context
        self._plan = plan

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from _walk(self._context, self._plan).__await__())


def _walk(context: Context, plan: Plan) -> Awaitable[Any]:
    kind = plan[0]
    if kind in ("step", "sleep", "receive", "promise", "call") or (kind == "child" and plan[2]):
        return Asked(plan[1])
    if kind == "hold":
        until_ms = context.now_ms + plan[1]
        return Until(lambda: context.now_ms >= until_ms, plan[2])
    if kind == "par":
        return Together(tuple(_Branch(context, part) for part in plan[1]), *plan[2:])
    return _sequence(context, plan)


async def _sequence(context: Context, plan: Plan) -> None:
    if plan[0] == "abort":
        raise Abort("Aborted")
    if plan[0] == "child":
        context.begin(plan[1])
        return
    if plan[0] == "tell":
        context.tell(SignalRequest(plan[1], SIGNAL, b'"by another"', plan[2]))
        return
    if plan[0] == "note":
        context.record(StepKind.VALUE, plan[1], lambda: b"%d" % context.now_ms)
        return
    if plan[0] == "patch" and not context.patched(plan[2]):
        return
    holds = await _lock(context, *plan[2:5]) if plan[0] == "lock" else []
    try:
        for part in plan[1]:
            await _walk(context, part)
    except StepFailed:
        if plan[0] != "try":
            raise
    if holds and not plan[5]:
        for hold in holds:
            context.unlock(hold)


async def _lock(context: Context, keys: list[str], timeout_ms: int | None, at_once: bool) -> list[int]:
    """Takes the keys one after the other; what cannot be had in time is done without."""
    taken = [await Asked(WaitRequest(StepKind.LOCK, key, timeout_ms, at_once=at_once)) for key in keys]
    return [int(hold) for hold in taken if hold is not None]


def _child_request(child: dict[str, Any]) -> ChildRequest:
    return ChildRequest(
        child["type"],
        json.dumps(child["plan"]).encode(),
        child["id"],
        child["undo"],
        ParentClose(child["close"]),
        ChildCancellation(child["cancellation"]),
        child["reuse"] and Reuse(child["reuse"]),
    )


def _request(step: dict[str, Any]) -> StepRequest:
    script = step["script"].encode()
    return StepRequest(
        step["service"],
        "act",
        script,
        "revert" if step["undo"] else None,
        (lambda reply: script) if step["undo"] == "by reply" else None,
        pivot=step["pivot"],
        start_to_close_ms=step["timeout"],
        schedule_to_close_ms=step["deadline"],
        retry=RetryPolicy(
            initial_interval_ms=step["interval"],
            maximum_interval_ms=5_000,
            maximum_attempts=step["attempts"],
            park=step["park"],
            jitter=Jitter(step["jitter"]),
            retry_timeout_ms=step["retry timeout"],
            asks=step["asks"],
            rules=(RetryRule("Unsure", 50, 1.0, 50, 5, Jitter.NONE),) if step["rule"] else (),
        ),
        undo_retry=RetryPolicy(
            initial_interval_ms=step["interval"], maximum_interval_ms=3_000, maximum_attempts=4, park=True
        ),
        spread=step["spread"],
        schedule_to_start_ms=step["start"] if step["service"] else None,
        heartbeat_ms=step["heartbeat"] if step["service"] else None,
        retry_if=(lambda failed: failed.attempt != 2) if step["asks"] else None,
        kind=StepKind.SERVICE if step["service"] else StepKind.LOCAL,
    )


class _Before:
    """The context of code as it was before its patches."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def patched(self, name: str) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def _carry_out_before(context: Context, payload: bytes) -> Coroutine[Any, Any, bytes]:
    return carry_out(cast(Context, _Before(context)), payload)


async def _handle(subject: Any, name: str, payload: bytes) -> bytes:
    """An update does one step, and fails as it does."""
    await Asked(_request(json.loads(payload)))
    return b'"done"'


UPDATES: dict[str, Any] = {"check_update": lambda subject, name, payload: None, "update": _handle}


def _migrate(version: int, payload: bytes, done: tuple[tuple[str, str, bytes], ...]) -> bytes | None:
    """Some sagas go on with the last of their parts where newer code comes; the others repeat what was done."""
    plan = json.loads(payload)
    if not plan.get("migrates"):
        return None
    kind, parts = plan["plan"]
    return json.dumps({**plan, "plan": [kind, parts[-1:]], "migrates": False}).encode()


def draw_update(random: Random) -> bytes:
    """An update's arguments."""
    return json.dumps(_step(random)).encode()


def definitions(*, newest: bool = True) -> dict[str, Definition]:
    """Both saga types; the second one has a time limit, and its runs keep their version. The newest knows patches."""
    found = []
    for version, body in ((1, _carry_out_before), (2, carry_out))[: 2 if newest else 1]:
        migrate = _migrate if version > 1 else None
        plain = Definition("Plain", body, functions=FUNCTIONS, version=version, migrate=migrate, **UPDATES)
        timed = replace(plain, name="Timed", execution_timeout_ms=12_000, run_timeout_ms=11_000, pinned=True)
        found += [plain, timed]
    return by_type([*found, TALLY, LOCK, ScheduleSaga.definition])


def _pick(random: Random, options: Sequence[T]) -> T:
    """As `random.choice` in a third of the time; a world draws some thousand times."""
    return options[int(random.random() * len(options))]


def draw_schedule(random: Random, end_ms: int) -> bytes:
    """The start of a schedule, whose last time is before `end_ms`."""
    spec = ScheduleSpec(
        intervals=(Interval(every=random.choice((0.3, 1.5, 4.0))),),
        jitter=random.choice((0.0, 1.0)),
        end=datetime.fromtimestamp(end_ms / 1000, UTC),
    )
    schedule = Schedule(
        saga_type=TYPES[0],
        input=_child(random)["plan"],
        spec=spec,
        overlap=random.choice(list(Overlap)),
        catch_up_window=random.choice((1.0, 3_600.0)),
        remaining_actions=random.randint(1, 4),
    )
    return ScheduleState(schedule=schedule).model_dump_json().encode()


def draw(random: Random) -> bytes:
    """A start's payload."""
    kind = random.random()
    parts = [_part(random, 2) for _ in range(random.randint(1, 5))]
    if kind < 0.12:
        parts.append(["abort"])
    elif kind < 0.32:
        parts.append(["step", _step(random, pivot=True)])
        parts.extend(["step", _step(random, after_pivot=True)] for _ in range(random.randint(0, 2)))
    elif kind < 0.36:
        parts.append(_group(random, [["step", _step(random)] for _ in range(random.randint(10, 30))]))
    cleanup = _step(random) if random.random() < 0.08 else None
    again = _pick(random, (1, 2)) if random.random() < 0.08 else 0
    plan = {"plan": ["seq", parts], "cleanup": cleanup, "bug": random.random() < 0.02, "again": again}
    plan["migrates"] = random.random() < 0.3
    return json.dumps(plan).encode()


def _part(random: Random, depth: int) -> Plan:
    kind = random.random()
    if depth and kind < 0.2:
        return _group(random, [_part(random, depth - 1) for _ in range(random.randint(2, 3))])
    if depth and kind < 0.26:
        return ["try", [_part(random, depth - 1) for _ in range(random.randint(1, 2))]]
    if depth and kind < 0.32:
        return ["seq", [_part(random, depth - 1) for _ in range(random.randint(2, 3))]]
    if kind < 0.36:
        return ["sleep", _pick(random, (0, 1, 50, 3_000, 10_000))]
    if kind < 0.385:
        return ["promise", _pick(random, PROMISES), _pick(random, (1, 500, 3_000, 10_000))]
    if kind < 0.42:
        return ["receive", _pick(random, (1, 500, 3_000, 10_000))]
    if kind < 0.44:
        return ["hold", _pick(random, (0, 300, 2_000)), _pick(random, (1, 1_000, 5_000))]
    if kind < 0.455:
        return ["note", "made"]
    if kind < 0.47:
        return ["tell", f"saga-{random.randrange(40)}", None] if random.random() < 0.7 else _started_by_a_saga(random)
    if kind < 0.49:
        return ["call", draw_call(random)]
    if depth == 2 and kind < 0.53:
        return _locked(random)
    if depth == 2 and kind < 0.55:
        return ["child", _child(random)]
    if depth and kind < 0.57:
        return ["patch", [_part(random, depth - 1)], f"patch-{random.randrange(4)}"]
    return ["step", _step(random)]


def _started_by_a_saga(random: Random) -> Plan:
    """Another saga is told something, and is started with that if it is not there: as those are that keep a key."""
    parts = [["receive", 1], ["receive", 500]]
    plan = {"plan": ["seq", parts], "cleanup": None, "bug": False, "again": 0}
    return ["tell", f"told-{random.randrange(20)}", ["Plain", json.dumps(plan)]]


def _locked(random: Random) -> Plan:
    parts = [_part(random, 1) for _ in range(random.randint(1, 2))]
    keys = sorted(random.sample(KEYS, random.choice((1, 1, 2))))
    return ["lock", parts, keys, random.choice((None, 500, 5_000, 5_000)), random.random() < 0.2, random.random() < 0.5]


def _group(random: Random, parts: list[Plan]) -> Plan:
    """All, the first, the first success, some, whatever they come to; all at once or a few at a time."""
    size = len(parts)
    successes = _pick(random, (None, None, None, 1, 1, size - 1 or 1))
    tolerated = _pick(random, (0, 0, 1, size - 1, size))
    return ["par", parts, successes, tolerated, _pick(random, (None, None, 1, max(1, size // 3)))]


def _child(random: Random) -> dict[str, Any]:
    """A small saga, which has no children itself. Some have ids that others want, too."""
    waited = random.random() < 0.85
    undo = waited and random.random() < 0.8
    parts = [_part(random, 1) for _ in range(random.randint(1, 2))]
    if random.random() < 0.1:
        parts.append(["abort"])
    cancellations = [how for how in ChildCancellation if not (undo and how is ChildCancellation.ABANDON)]
    return {
        "type": _pick(random, TYPES),
        "plan": {"plan": ["seq", parts], "cleanup": None, "bug": random.random() < 0.02, "again": 0},
        "id": _pick(random, (None, None, "child-1", "child-2", "child-3")),
        "reuse": _pick(random, (None, None, *Reuse)),
        "waited for": waited,
        "undo": undo,
        "close": _pick(random, _CLOSES),
        "cancellation": _pick(random, cancellations),
    }


def _step(random: Random, *, pivot: bool = False, after_pivot: bool = False) -> dict[str, Any]:
    undo = None if pivot else _pick(random, (None, "same", "same", "by reply"))
    return {
        "service": _pick(random, (*SERVICES, LOCAL)),
        "undo": undo,
        "pivot": pivot,
        "attempts": _pick(random, (1, 2, 4)),
        "interval": _pick(random, (200, 200, 2_000)),
        "timeout": _pick(random, (None, None, None, 400, 2_000)),
        "deadline": _pick(random, (None, None, None, None, 700, 5_000)),
        "start": _pick(random, (None, None, None, None, None, 300, 5_000)),
        "heartbeat": _pick(random, (None, None, None, 300, 900)),
        "park": random.random() < 0.1,
        "jitter": _pick(random, ("none", "none", "half", "full")),
        "retry timeout": _pick(random, (None, None, None, None, 1_000)),
        "asks": random.random() < 0.1,
        "rule": random.random() < 0.1,
        "spread": random.random() < 0.2,
        "script": _script(random),
    }


def _script(random: Random) -> str:
    """Outcomes of `do` by attempt, the last one for all that follow, a slash, and those of `undo`.

    s success, f failure, r retry, e retry after an effect, h hangs beyond a timeout and then succeeds, g hangs and then
    fails, v fails when it runs first under its key and succeeds when it runs again. A failure never follows an attempt
    that may have had an effect.
    """
    kind = random.random()
    if kind < 0.62:
        do = "s"
    elif kind < 0.72:
        do = "f"
    elif kind < 0.82:
        do = "r" * random.randint(1, 3) + _pick(random, "sf")
    elif kind < 0.90:
        do = "e" * random.randint(1, 3) + "s"
    elif kind < 0.93:
        do = "hs"
    elif kind < 0.95:
        do = "g" + _pick(random, "sf")
    elif kind < 0.97:
        do = "v"
    else:
        do = "r"
    kind = random.random()
    undo = "s" if kind < 0.8 else "rs" if kind < 0.9 else "ehs" if kind < 0.96 else "f"
    return f"{do}/{undo}"
