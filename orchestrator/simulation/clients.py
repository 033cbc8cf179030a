"""What clients do in a simulated world: they start sagas, tell them, ask them, and fill in forms."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from orchestrator.checker.evidence import Told
from orchestrator.checker.reads import SEEN
from orchestrator.correlation import CORRELATOR, TOLD, id_of, publish
from orchestrator.model.events import StepKind
from orchestrator.model.locks import HELD, saga_of
from orchestrator.model.messages import Conflict, Reuse
from orchestrator.model.queries import PUBLISHED
from orchestrator.model.state import SagaState
from orchestrator.schedules.schedule import ID_PREFIX, SCHEDULE_TYPE, Overlap, Schedule, ScheduleState
from orchestrator.schedules.times import Interval, ScheduleSpec
from orchestrator.simulation import sagas
from orchestrator.simulation.drawing import (
    BUSINESS_KEYS,
    KEYS,
    PROMISES,
    TYPES,
    draw_call,
    draw_child,
    draw_update,
    pick,
)
from orchestrator.simulation.processes import KEYS as TOKEN_KEYS
from orchestrator.simulation.processes import TOPICS
from orchestrator.simulation.requests import ADDRESS, SIGNAL, amount_of
from orchestrator.simulation.tally import TALLY
from orchestrator.tasks import CLAIM, COMPLETE
from orchestrator.wire import headers as h
from orchestrator.wire.promises import write_token

if TYPE_CHECKING:
    from orchestrator.simulation.world import World

Headers = dict[str, str | int | None]
ANSWERED: Headers = {h.REPLY_TO: TOPICS.answers, h.REPLY_PARTITION: 0}
SCHEDULE = f"{ID_PREFIX}a"


def start_saga(world: World, number: int) -> None:
    """A client starts one saga; sometimes twice, sometimes on the wrong partition."""
    random = world.random
    saga_id = f"saga-{number}"
    headers: Headers = {
        h.SAGA_TYPE: random.choice(TYPES),
        h.MESSAGE_ID: f"start-{number}",
        h.REPLY_TO: TOPICS.answers,
        h.REPLY_PARTITION: number % world.partitions,
        h.CORRELATION_ID: saga_id,
        h.START_DELAY_MS: random.choice((1, 500, 3_000)) if random.random() < 0.1 else None,
        h.BAGGAGE: "tenant=a" if random.random() < 0.2 else None,
    }
    if random.random() < 0.1:
        headers |= {h.SIGNAL: SIGNAL, h.SIGNAL_VALUE: '"at once"'}
    astray = random.random() < 0.1
    world.send(TOPICS.inbox, saga_id, world.payloads[number], headers, astray=astray)
    world.told[saga_id] = Told(saga_id, True)
    if random.random() < 0.1:
        world.send(TOPICS.inbox, saga_id, world.payloads[number], headers, astray=random.random() < 0.5)


def start_again(world: World, number: int) -> None:
    """Another start of the same id, with policies for what is there, and sometimes with an input that does not fit."""
    random = world.random
    headers: Headers = {
        h.SAGA_TYPE: random.choice(TYPES),
        h.MESSAGE_ID: f"start-{number}-again-{random.randrange(2)}",
        h.REUSE: random.choice((None, *Reuse)),
        h.CONFLICT: random.choice((None, *Conflict)),
    }
    payload = world.payloads[number] if random.random() < 0.9 else b'"bad"'
    world.send(TOPICS.inbox, f"saga-{number}", payload, headers, astray=random.random() < 0.1)


def move_saga(world: World, number: int) -> None:
    """Somebody wants a saga to begin at another time; most have begun."""
    headers: Headers = {
        h.INPUT_TYPE: "reschedule",
        h.MESSAGE_ID: f"moved-{number}",
        h.START_DELAY_MS: world.random.choice((0, 100, 4_000)),
    }
    world.send(TOPICS.inbox, f"saga-{number}", b"", headers, astray=world.random.random() < 0.1)


# -- what sagas are told


def tell_saga(world: World, number: int) -> None:
    """A signal, a promise settled, or an update, sometimes twice; the saga may not have started, or not ask."""
    random = world.random
    headers: Headers = {
        h.INPUT_TYPE: "signal",
        h.SIGNAL: SIGNAL,
        h.MESSAGE_ID: f"told-{number}-{random.randrange(3)}",
    }
    value = b'"now"' if random.random() < 0.95 else b'"bad"'
    if random.random() < 0.4:
        headers |= {h.INPUT_TYPE: "promise", h.PROMISE: random.choice(PROMISES)}
        if random.random() < 0.5:
            headers |= {h.OUTCOME: "failure", h.ERROR_TYPE: "Denied"}
    if random.random() < 0.2:
        headers |= {h.INPUT_TYPE: "update", h.UPDATE: sagas.ACT, **ANSWERED}
        headers[h.CORRELATION_ID] = f"update/{headers[h.MESSAGE_ID]}"
        value = draw_update(random)
    for _ in range(random.choice((1, 1, 1, 2))):
        world.send(TOPICS.inbox, f"saga-{number}", value, headers, astray=random.random() < 0.1)


def settle_promise(world: World) -> None:
    """Somebody has the token of a promise that a saga waits for."""
    waiting = [
        (state.saga_id, state.run, step.command)
        for state in world.unfinished()
        for sequence in sorted(state.open)
        if (step := state.steps[sequence]).kind is StepKind.PROMISE
    ]
    if waiting:
        promise = world.random.choice(waiting)
        headers: Headers = {
            h.INPUT_TYPE: "promise",
            h.PROMISE_TOKEN: write_token(TOKEN_KEYS, *promise),
            h.MESSAGE_ID: f"by-token-{world.random.random()}",
        }
        world.send(TOPICS.inbox, promise[0], b'"by token"', headers, astray=world.random.random() < 0.1)


def tell_by_key(world: World) -> None:
    """Somebody knows a business key, and not who listens for it."""
    random = world.random
    keeper = id_of(ADDRESS, pick(random, BUSINESS_KEYS))
    headers: Headers = {
        h.SAGA_TYPE: CORRELATOR,
        h.MESSAGE_ID: f"by-key-{random.random()}",
        h.SIGNAL: TOLD,
        h.SIGNAL_VALUE: publish(b'"by a client"', random.choice((1, 3_000))).decode(),
        h.REUSE: Reuse.ALLOW_DUPLICATE,
    }
    world.send(TOPICS.inbox, keeper, b"{}", headers, astray=random.random() < 0.1)


def fill_in(world: World) -> None:
    """Somebody claims a task or fills in its form; not every form fits, and not every task is still open."""
    random = world.random
    waiting = [state.saga_id for state in world.unfinished() if _has_task(state)]
    if not waiting:
        return
    by = random.choice(("ann", "bob"))
    claims = random.random() < 0.2
    form = {"approved": random.random() < 0.8} if random.random() < 0.8 else {"approved": "perhaps"}
    arguments = {"task": "", "by": by} if claims else {"task": "", "by": by, "form": form}
    once = f"task-{random.random()}"
    headers: Headers = {
        h.INPUT_TYPE: "update",
        h.UPDATE: (CLAIM if claims else COMPLETE).name,
        h.MESSAGE_ID: once,
        h.CORRELATION_ID: f"update/{once}",
        **ANSWERED,
    }
    value = json.dumps(arguments).encode()
    world.send(TOPICS.inbox, random.choice(waiting), value, headers, astray=random.random() < 0.1)


def _has_task(state: SagaState) -> bool:
    return any(step.kind is StepKind.NOTE and b'"title"' in step.result for step in state.steps.values())


# -- what is asked


def ask_tally(world: World, number: int) -> None:
    """A client asks an entity for something, sometimes once more when it may have gone on in another run."""
    random = world.random
    call, once = draw_call(random), f"client/{number}/{random.randrange(2)}"
    headers: Headers = {
        h.INPUT_TYPE: "update",
        h.UPDATE: "add",
        h.UPDATE_ID: once,
        h.SAGA_TYPE: TALLY,
        h.CORRELATION_ID: f"update/{once}",
        **ANSWERED,
    }
    for after_ms in random.choice(((0,), (0, 0), (0, 1_000), (0, 6_000))):
        again = partial(world.send, TOPICS.inbox, call["id"], amount_of(call), headers, astray=random.random() < 0.1)
        world.later(after_ms, again)


def look_at(world: World, number: int) -> None:
    """A client asks a saga how far it is, or what it has published, and soon asks again."""
    random = world.random
    saga_id = f"{TALLY}/{random.randrange(3)}" if random.random() < 0.3 else f"saga-{number}"
    name, value = random.choice(((SEEN, b""), (PUBLISHED, f"0 {sagas.STREAM}".encode())))
    for after_ms in (0, random.choice((20, 400, 2_000))):
        headers: Headers = {
            h.INPUT_TYPE: "query",
            h.QUERY: name,
            h.CORRELATION_ID: f"{name}/{random.random()}",
            **ANSWERED,
        }
        ask = partial(world.send, TOPICS.inbox, saga_id, value, headers, astray=random.random() < 0.1)
        world.later(after_ms, ask)


def look_at_lock(world: World) -> None:
    """Somebody asks who holds a key."""
    random = world.random
    lock_id = saga_of(pick(random, KEYS))
    headers: Headers = {h.INPUT_TYPE: "query", h.QUERY: HELD, h.MESSAGE_ID: f"lock-{random.random()}", **ANSWERED}
    world.send(TOPICS.inbox, lock_id, b"", headers)


# -- schedules


def draw_schedule(random: Random, end_ms: int) -> bytes:
    """The start of a schedule, whose last time is before `end_ms`."""
    spec = ScheduleSpec(
        intervals=(Interval(every=random.choice((0.3, 1.5, 4.0))),),
        jitter=random.choice((0.0, 1.0)),
        end=datetime.fromtimestamp(end_ms / 1000, UTC),
    )
    schedule = Schedule(
        saga_type=TYPES[0],
        input=draw_child(random)["plan"],
        spec=spec,
        overlap=random.choice(list(Overlap)),
        catch_up_window=random.choice((1.0, 3_600.0)),
        pause_on_failure=random.random() < 0.2,
        remaining_actions=random.randint(1, 4),
    )
    return ScheduleState(schedule=schedule).model_dump_json().encode()


def start_schedule(world: World, end_ms: int) -> None:
    """A client has sagas started at given times, and changes its mind about them."""
    random = world.apart
    payload = draw_schedule(random, end_ms)
    world.send(TOPICS.inbox, SCHEDULE, payload, {h.SAGA_TYPE: SCHEDULE_TYPE, h.MESSAGE_ID: "start-schedule"})
    world.told[SCHEDULE] = Told(SCHEDULE, True)
    for _ in range(random.choice((0, 1, 2, 4))):
        world.later(random.randint(0, 6_000), partial(change_schedule, world))
    world.later(7_000, partial(_update_schedule, world, "resume", {}))


def change_schedule(world: World) -> None:
    random = world.apart
    now = datetime.fromtimestamp((world.now_ms - random.randint(0, 3_000)) / 1000, UTC).isoformat()
    later = datetime.fromtimestamp(world.now_ms / 1000, UTC).isoformat()
    name, arguments = random.choice(
        (
            ("pause", {"note": "for a while"}),
            ("resume", {}),
            ("trigger", {"overlap": random.choice((None, *Overlap))}),
            ("backfill", {"start": now, "end": later, "overlap": random.choice(list(Overlap))}),
            ("change", {"changes": {"overlap": random.choice(list(Overlap)), "remaining_actions": 2}}),
        )
    )
    _update_schedule(world, name, arguments)


def _update_schedule(world: World, name: str, arguments: object) -> None:
    once = f"{name}-{world.apart.random()}"
    headers: Headers = {h.INPUT_TYPE: "update", h.UPDATE: name, h.MESSAGE_ID: once, **ANSWERED}
    world.send(TOPICS.inbox, SCHEDULE, json.dumps(arguments).encode(), headers)
