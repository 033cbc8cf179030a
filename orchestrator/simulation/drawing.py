"""What simulated sagas do, drawn from the seed: the plans that `sagas` carries out, as JSON.

A plan is a list that begins with its kind:

    seq, try: [kind, plans]                         one after the other; a failed step ends them, or only a `try`
    par: [kind, plans, successes, tolerated, concurrency]
    either: [kind, plans]                           one of them, by the saga's own randomness
    beside: [kind, plan]                            nobody waits for it
    step: [kind, step]                              of a service, or of the worker itself
    call, put: [kind, call]                         an entity is asked, and answers or not
    child: [kind, child], stop: [kind, child, ms, how], which is told to stop after a while
    lock: [kind, plans, keys, ms, at once, to the end]
    sleep, until: [kind, ms], hold: [kind, ms, at most ms], a condition
    receive: [kind, ms], listen: [kind, key, ms], promise: [kind, name, ms], task: [kind, key, due ms, how often]
    tell: [kind, saga id, type and plan to start it by], key: [kind, key, ms], to whoever listens for the key
    note, publish: [kind, name]
    patch, deprecated, gone: [kind, plans, name]    newer code has changed here, and replays what the older one did
    changed: [kind]                                 it has changed, and diverges
    abort: [kind]

A step carries the script that its service acts by: what each attempt of its `do` and `undo` comes to.
"""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random
from typing import Any, TypeVar

from orchestrator.model.messages import ChildCancellation, Leaving, ParentClose, Reuse
from orchestrator.simulation.requests import Plan
from orchestrator.simulation.tally import TALLY

SERVICES = ("inventory", "payments", "shipping")
TYPES = ("Plain", "Timed")
LOCAL = ""
"""In place of a service's name: the worker itself acts."""
PROMISES = ("asked", "asked again")
KEYS = ("red", "green", "blue")
"""Of locks."""
BUSINESS_KEYS = ("invoice-1", "invoice-2", "invoice-3")
T = TypeVar("T")
_CLOSES = tuple(ParentClose)


def pick(random: Random, options: Sequence[T]) -> T:
    """As `random.choice` in a third of the time; a world draws some thousand times."""
    return options[int(random.random() * len(options))]


def draw(random: Random) -> bytes:
    """A start's payload."""
    kind = random.random()
    parts = [_part(random, 2) for _ in range(random.randint(1, 5))]
    if kind < 0.12:
        parts.append(["abort"])
    elif kind < 0.32:
        parts.append(["step", draw_step(random, pivot=True)])
        parts.extend(["step", draw_step(random, after_pivot=True)] for _ in range(random.randint(0, 2)))
    elif kind < 0.36:
        parts.append(_group_of(random, [["step", draw_step(random)] for _ in range(random.randint(10, 30))]))
    plan = whole(["seq", parts], bug=random.random() < 0.02)
    plan["cleanup"] = draw_step(random) if random.random() < 0.08 else None
    plan["again"] = pick(random, (1, 2)) if random.random() < 0.08 else 0
    plan["migrates"] = random.random() < 0.3
    return json.dumps(plan).encode()


def whole(plan: Plan, *, bug: bool = False) -> dict[str, Any]:
    """A saga that does nothing but a plan."""
    return {"plan": plan, "cleanup": None, "bug": bug, "again": 0}


def draw_update(random: Random) -> bytes:
    """An update's arguments."""
    return json.dumps(draw_step(random)).encode()


def _part(random: Random, depth: int) -> Plan:
    ends, draws = _TABLES[depth > 0]
    return draws[bisect(ends, random.random() * ends[-1])](random, depth)


def _parts(random: Random, depth: int, least: int, most: int) -> list[Plan]:
    return [_part(random, depth) for _ in range(random.randint(least, most))]


def _group_of(random: Random, parts: list[Plan]) -> Plan:
    """All, the first, the first success, some, whatever they come to; all at once or a few at a time."""
    size = len(parts)
    successes = pick(random, (None, None, None, 1, 1, size - 1 or 1))
    tolerated = pick(random, (0, 0, 1, size - 1, size))
    return ["par", parts, successes, tolerated, pick(random, (None, None, 1, max(1, size // 3)))]


def _group(random: Random, depth: int) -> Plan:
    return _group_of(random, _parts(random, depth - 1, 2, 3))


def _tell(random: Random, depth: int) -> Plan:
    """Another saga is told something, and sometimes started with that if it is not there: as those that keep a key."""
    if random.random() < 0.7:
        return ["tell", f"saga-{random.randrange(40)}", None]
    start = ["Plain", json.dumps(whole(["seq", [["receive", 1], ["receive", 500]]]))]
    return ["tell", f"told-{random.randrange(20)}", start]


def _locked(random: Random, depth: int) -> Plan:
    """Inside of groups two sagas may wait for each other's keys: there they do so for a while."""
    keys = sorted(random.sample(KEYS, pick(random, (1, 1, 2))))
    times = (None, 500, 5_000, 5_000) if depth == 2 else (500, 3_000)
    parts = _parts(random, min(depth, 1), 1, 2)
    return ["lock", parts, keys, pick(random, times), random.random() < 0.2, random.random() < 0.5]


def draw_child(random: Random) -> dict[str, Any]:
    """A small saga, which may have children itself. Some have ids that others want, too."""
    waited = random.random() < 0.85
    undo = waited and random.random() < 0.8
    parts = _parts(random, 1, 1, 2)
    if random.random() < 0.1:
        parts.append(["abort"])
    cancellations = [how for how in ChildCancellation if not (undo and how is ChildCancellation.ABANDON)]
    return {
        "type": pick(random, TYPES),
        "plan": whole(["seq", parts], bug=random.random() < 0.02),
        "id": pick(random, (None, None, "child-1", "child-2", "child-3")),
        "reuse": pick(random, (None, None, *Reuse)),
        "waited for": waited,
        "undo": undo,
        "close": pick(random, _CLOSES),
        "cancellation": pick(random, cancellations),
    }


def draw_call(random: Random) -> dict[str, Any]:
    """What an entity is asked for: an amount, for which it may have to do a step."""
    undo = pick(random, (None, "same", "by reply"))
    step = {**draw_step(random), "park": False, "asks": False} if random.random() < 0.3 else None
    return {
        "id": f"{TALLY}/{random.randrange(3)}",
        "amount": pick(random, (0, 1, 1, 2)),
        "step": step,
        "undo": undo,
        "timeout": pick(random, (None, None, 50, 1_000)),
    }


def _stopped(random: Random, depth: int) -> Plan:
    child = {**draw_child(random), "waited for": True}
    return ["stop", child, pick(random, (0, 30, 300)), pick(random, (Leaving.CANCEL, Leaving.TERMINATE))]


def draw_step(random: Random, *, pivot: bool = False, after_pivot: bool = False) -> dict[str, Any]:
    """What a step is asked for with."""
    undo = None if pivot else pick(random, (None, "same", "same", "by reply"))
    return {
        "service": pick(random, (*SERVICES, LOCAL)),
        "undo": undo,
        "pivot": pivot,
        "attempts": pick(random, (1, 2, 4)),
        "interval": pick(random, (200, 200, 2_000)),
        "timeout": pick(random, (None, None, None, 400, 2_000)),
        "deadline": pick(random, (None, None, None, None, 700, 5_000)),
        "start": pick(random, (None, None, None, None, None, 300, 5_000)),
        "heartbeat": pick(random, (None, None, None, 300, 900)),
        "park": random.random() < 0.1,
        "jitter": pick(random, ("none", "none", "half", "full")),
        "retry timeout": pick(random, (None, None, None, None, 1_000)),
        "final": random.random() < 0.04,
        "asks": random.random() < 0.1,
        "rule": random.random() < 0.1,
        "spread": random.random() < 0.2,
        "script": _script(random),
    }


def _script(random: Random) -> str:
    """Outcomes of `do` by attempt, the last one for all that follow, a slash, and those of `undo`.

    s success, f failure, r retry, w retry after a while that the service names, e retry after an effect, h hangs beyond
    a timeout and then succeeds, g hangs and then fails, v fails when it runs first under its key and succeeds when it
    runs again. A failure never follows an attempt that may have had an effect.
    """
    kind = random.random()
    if kind < 0.62:
        do = "s"
    elif kind < 0.72:
        do = "f"
    elif kind < 0.82:
        do = pick(random, "rrw") * random.randint(1, 3) + pick(random, "sf")
    elif kind < 0.90:
        do = "e" * random.randint(1, 3) + "s"
    elif kind < 0.93:
        do = "hs"
    elif kind < 0.95:
        do = "g" + pick(random, "sf")
    elif kind < 0.97:
        do = "v"
    else:
        do = "r"
    kind = random.random()
    undo = "s" if kind < 0.8 else "rs" if kind < 0.9 else "ehs" if kind < 0.96 else "f"
    return f"{do}/{undo}"


_Draw = Callable[[Random, int], Plan]
_SIMPLE: tuple[tuple[float, _Draw], ...] = (
    (2.8, lambda random, depth: ["sleep", pick(random, (0, 1, 50, 3_000, 10_000))]),
    (1.0, lambda random, depth: ["until", pick(random, (-1_000, 50, 2_000))]),
    (2.5, lambda random, depth: ["promise", pick(random, PROMISES), pick(random, (1, 500, 3_000, 10_000))]),
    (3.0, lambda random, depth: ["receive", pick(random, (1, 500, 3_000, 10_000))]),
    (1.2, lambda random, depth: ["listen", pick(random, BUSINESS_KEYS), pick(random, (1, 500, 5_000))]),
    (1.5, lambda random, depth: ["hold", pick(random, (0, 300, 2_000)), pick(random, (1, 1_000, 5_000))]),
    (
        1.2,
        lambda random, depth: [
            "task",
            f"task-{random.randrange(1 << 30)}",
            pick(random, (300, 2_000)),
            pick(random, (1, 2)),
        ],
    ),
    (1.2, lambda random, depth: ["note", "made"]),
    (1.2, lambda random, depth: ["publish", "progress"]),
    (1.5, _tell),
    (1.0, lambda random, depth: ["key", pick(random, BUSINESS_KEYS), pick(random, (1, 3_000))]),
    (2.2, lambda random, depth: ["call", draw_call(random)]),
    (0.8, lambda random, depth: ["put", draw_call(random)]),
    (43.0, lambda random, depth: ["step", draw_step(random)]),
)
_NESTED: tuple[tuple[float, _Draw], ...] = (
    (18.0, _group),
    (5.0, lambda random, depth: ["try", _parts(random, depth - 1, 1, 2)]),
    (5.0, lambda random, depth: ["seq", _parts(random, depth - 1, 2, 3)]),
    (1.5, lambda random, depth: ["either", _parts(random, depth - 1, 2, 3)]),
    (0.6, lambda random, depth: ["beside", _part(random, depth - 1)]),
    (3.2, _locked),
    (1.6, lambda random, depth: ["child", draw_child(random)]),
    (0.6, _stopped),
    (1.5, lambda random, depth: ["patch", [_part(random, depth - 1)], f"patch-{random.randrange(4)}"]),
    (0.8, lambda random, depth: ["deprecated", [_part(random, depth - 1)], f"deprecated-{random.randrange(4)}"]),
    (0.8, lambda random, depth: ["gone", [_part(random, depth - 1)], f"gone-{random.randrange(4)}"]),
    (0.3, lambda random, depth: ["changed"]),
)


def _table(kinds: Sequence[tuple[float, _Draw]]) -> tuple[list[float], list[_Draw]]:
    return list(accumulate(weight for weight, _ in kinds)), [draw for _, draw in kinds]


_TABLES = (_table(_SIMPLE), _table((*_SIMPLE, *_NESTED)))
"""For parts that hold no others, and for those that may: the sums of the weights, and what draws."""
