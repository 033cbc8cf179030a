"""Random sagas: a plan drawn from the seed travels as the start's payload, one body carries out any plan.

What a plan may be stands in `drawing`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any
from zlib import crc32

from orchestrator import tasks
from orchestrator.checker.reads import SEEN
from orchestrator.correlation import id_of, listening
from orchestrator.correlator import Correlator
from orchestrator.errors import Abort, ContinueAsNew, StepFailed
from orchestrator.model.definition import ChildRequest, Context, Definition, StepRequest, WaitRequest
from orchestrator.model.driver import Asked, Until
from orchestrator.model.events import StepKind
from orchestrator.model.groups import Together
from orchestrator.model.locks import DEFINITION as LOCK
from orchestrator.model.messages import Leaving
from orchestrator.model.versions import by_type
from orchestrator.questions import carry_out as carry_out_update
from orchestrator.questions import refuse
from orchestrator.sagas.expense_approval import Decision
from orchestrator.schedules.saga import ScheduleSaga
from orchestrator.simulation.local import ScriptedFunctions
from orchestrator.simulation.requests import ADDRESS, SIGNAL, Plan, step_request, with_requests
from orchestrator.simulation.tally import DEFINITION as TALLY

STREAM = "progress"
FUNCTIONS = ScriptedFunctions()


class Form(Decision):
    """What people fill in."""

    @classmethod
    def model_json_schema(cls, *given: Any, **options: Any) -> dict[str, Any]:
        """Kept: each replay of a task asks for it."""
        return _schema()


@lru_cache
def _schema() -> dict[str, Any]:
    return super(Form, Form).model_json_schema()


class Simulated(tasks.TaskMethods):
    """One run of a simulated saga. `old`: it is done by code as it was before its patches."""

    def __init__(self, context: Context, *, old: bool) -> None:
        self._context = context
        self._old = old

    async def run(self, payload: bytes) -> bytes:
        plan, cleanup, bug, again = _read(payload)
        try:
            await self.walk(plan)
        finally:
            if cleanup is not None:
                await Asked(cleanup)
        if bug:
            raise ValueError("a bug in the saga's code")
        if again is not None:
            raise ContinueAsNew(again)
        return b'"done"'

    def seen(self) -> bytes:
        return b"%d" % self._context.outcomes

    def walk(self, plan: Plan) -> Awaitable[Any]:
        kind = plan[0]
        if kind in _ASKED:
            return Asked(plan[1])
        if kind == "par":
            return Together(tuple(_Branch(self, part) for part in plan[1]), *plan[2:])
        way: Callable[[Simulated, Plan], Awaitable[Any]] = _WAYS[kind]
        return way(self, plan)

    async def _sequence(self, plan: Plan) -> None:
        for part in plan[1]:
            await self.walk(part)

    async def _try(self, plan: Plan) -> None:
        with suppress(StepFailed):
            await self._sequence(plan)

    async def _either(self, plan: Plan) -> None:
        await self.walk(plan[1][crc32(self._context.seed.encode()) % len(plan[1])])

    async def _beside(self, plan: Plan) -> None:
        self._context.beside(self._alone(plan[1]))

    async def _alone(self, plan: Plan) -> None:
        await self.walk(plan)

    async def _abort(self, plan: Plan) -> None:
        raise Abort("Aborted")

    # -- other sagas

    async def _begin(self, plan: Plan) -> None:
        self._context.begin(plan[1])

    async def _stop(self, plan: Plan) -> None:
        await Together((Asked(plan[1]), self._stop_later(*plan[1:])))

    async def _stop_later(self, request: ChildRequest, after_ms: int, how: Leaving) -> None:
        await Asked(WaitRequest(StepKind.SLEEP, "", after_ms))
        self._context.stop(request, how)

    async def _tell(self, plan: Plan) -> None:
        self._context.tell(plan[1])

    async def _listen(self, plan: Plan) -> None:
        keeper, name = id_of(ADDRESS, plan[1]), f"{SIGNAL}/{plan[1]}"
        self._context.tell(listening(keeper, self._context.saga_id, name))
        await Asked(WaitRequest(StepKind.SIGNAL, name, plan[2]))

    async def _lock(self, plan: Plan) -> None:
        """Takes the keys one after the other; what cannot be had in time is done without."""
        _, parts, keys, timeout_ms, at_once, to_the_end = plan
        until_ms = None if timeout_ms is None else self._context.now_ms + timeout_ms
        taken = [await Asked(WaitRequest(StepKind.LOCK, key, None, until_ms, at_once)) for key in keys]
        await self._sequence(["seq", parts])
        for hold in taken:
            if hold is not None and not to_the_end:
                self._context.unlock(int(hold))

    # -- time and people

    async def _hold(self, plan: Plan) -> None:
        until_ms = self._context.now_ms + plan[1]
        await Until(lambda: self._context.now_ms >= until_ms, plan[2])

    async def _sleep_until(self, plan: Plan) -> None:
        await Asked(WaitRequest(StepKind.SLEEP, "", None, self._context.now_ms + plan[1]))

    async def _ask_people(self, plan: Plan) -> None:
        """Somebody fills in a form; who does not in time is reminded, and then it is over."""
        _, key, due_ms, reminders = plan
        escalate = partial(self._remind, due_ms, reminders)
        form = await self.human_task(Form, title=key, key=key, group="all", due=due_ms / 1000, escalate=escalate)
        if not form.approved:
            raise Abort("Disapproved")

    async def _remind(self, due_ms: int, reminders: int, task: tasks.HumanTask[Form]) -> float:
        if task.escalations > reminders:
            raise Abort("NobodyDecided")
        task.reassign(assignee="ann")
        return due_ms / 1000

    # -- what is recorded

    def _note(self, note: bytes) -> None:
        self._context.record(StepKind.NOTE, "", lambda: note)

    async def _record(self, plan: Plan) -> None:
        kind = StepKind.STREAM if plan[0] == "publish" else StepKind.VALUE
        self._context.record(kind, plan[1], lambda: b"%d" % self._context.now_ms)

    async def _patch(self, plan: Plan) -> None:
        """What only newer code does."""
        if not self._old and self._context.patched(plan[2]):
            await self._sequence(plan)

    async def _deprecated(self, plan: Plan) -> None:
        """The older code knows both ways, the newer one no longer does."""
        if not self._old:
            self._context.deprecate_patch(plan[2])
        if not self._old or self._context.patched(plan[2]):
            await self._sequence(plan)

    async def _gone(self, plan: Plan) -> None:
        """The newer code has forgotten the patch."""
        if self._old:
            self._context.deprecate_patch(plan[2])
        await self._sequence(plan)

    async def _changed(self, plan: Plan) -> None:
        """Somebody has changed the code without a patch."""
        if self._old:
            self._context.record(StepKind.VALUE, "as before", lambda: b"1")


_ASKED = frozenset({"step", "sleep", "receive", "promise", "call", "child"})
"""What is nothing but a request."""
_WAYS: dict[str, Callable[[Simulated, Plan], Awaitable[Any]]] = {
    "seq": Simulated._sequence,
    "try": Simulated._try,
    "either": Simulated._either,
    "beside": Simulated._beside,
    "abort": Simulated._abort,
    "begin": Simulated._begin,
    "stop": Simulated._stop,
    "tell": Simulated._tell,
    "listen": Simulated._listen,
    "lock": Simulated._lock,
    "hold": Simulated._hold,
    "until": Simulated._sleep_until,
    "task": Simulated._ask_people,
    "note": Simulated._record,
    "publish": Simulated._record,
    "patch": Simulated._patch,
    "deprecated": Simulated._deprecated,
    "gone": Simulated._gone,
    "changed": Simulated._changed,
}


class _Branch:
    """A plan that is begun when its turn comes."""

    def __init__(self, saga: Simulated, plan: Plan) -> None:
        self._saga = saga
        self._plan = plan

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._saga.walk(self._plan).__await__())


@lru_cache(512)
def _read(payload: bytes) -> tuple[Plan, StepRequest | None, bool, bytes | None]:
    """The plan with requests in place of what describes them, the clean-up, whether the code fails in the end, and the
    next run's input if there is one.

    The code is run again and again from the same start, so this is kept.
    """
    plan = json.loads(payload)
    again = json.dumps({**plan, "again": plan["again"] - 1}).encode() if plan["again"] else None
    return with_requests(plan["plan"]), plan["cleanup"] and step_request(plan["cleanup"]), plan["bug"], again


def _body(context: Context, payload: bytes, *, old: bool) -> Coroutine[Any, Any, bytes]:
    saga = context.subject = Simulated(context, old=old)
    return saga.run(payload)


def _check(kind: str, payload: bytes | None) -> str | None:
    return f"a {kind} that does not fit" if payload == b'"bad"' else None


ACT = "act"
"""An update that does one step, and fails as it does; the others are what people do about tasks."""


def _check_update(saga: Simulated, name: str, payload: bytes) -> str | None:
    return None if name == ACT else refuse(tasks.UPDATES, saga, name, payload)


async def _handle(saga: Simulated, name: str, payload: bytes) -> bytes:
    if name != ACT:
        return await carry_out_update(tasks.UPDATES, saga, name, payload)
    await Asked(step_request(json.loads(payload)))
    return b'"done"'


def _query(saga: Simulated, name: str, payload: bytes) -> bytes:
    if name != SEEN:
        raise ValueError(f"it answers no query {name}")
    return saga.seen()


def _migrate(version: int, payload: bytes, done: tuple[tuple[str, str, bytes], ...]) -> bytes | None:
    """Some sagas go on with the last of their parts where newer code comes; the others repeat what was done."""
    plan = json.loads(payload)
    if not plan.get("migrates"):
        return None
    kind, parts = plan["plan"]
    return json.dumps({**plan, "plan": [kind, parts[-1:]], "migrates": False}).encode()


OWN = (LOCK.name, Correlator.definition.name, ScheduleSaga.definition.name)
"""Types that every worker has."""


def definitions(*, newest: bool = True, share: float = 100.0) -> dict[str, Definition]:
    """Both saga types; the second one has a time limit, and its runs keep their version. The newest knows patches.

    `share`: the percentage of sagas that get the newest version.
    """
    plain = Definition(
        "Plain",
        partial(_body, old=True),
        lambda payload: _check("input", payload),
        lambda name, payload: _check("signal", payload),
        functions=FUNCTIONS,
        check_promise=lambda name, payload: _check("result", payload),
        query=_query,
        check_update=_check_update,
        update=_handle,
    )
    both = [plain, replace(plain, body=partial(_body, old=False), version=2, migrate=_migrate)]
    found = both if newest else both[:1]
    found += [
        replace(each, name="Timed", execution_timeout_ms=12_000, run_timeout_ms=11_000, pinned=True) for each in found
    ]
    return by_type([*found, TALLY, LOCK, Correlator.definition, ScheduleSaga.definition], {("Plain", 2): share})
