"""Simulated local steps: functions that act by the script in their arguments, in the process of their worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from orchestrator.checker.evidence import Verdict
from orchestrator.checker.journal import Accepted, History
from orchestrator.model import events as ev
from orchestrator.model.definition import Functions
from orchestrator.model.effects import LocalCall, reply_of
from orchestrator.model.messages import Outcome, Reply
from orchestrator.runtime.local_steps import Ended
from orchestrator.simulation.services import HANG_MS, LATER_MS, NEVER_MS, RUN_MS

Key = tuple[str, str, int, str, int]
"""Saga id, run, sequence, direction and attempt of a call."""


class Calls:
    """What all workers ever called: no crash takes it away."""

    def __init__(self) -> None:
        self.begun: set[Key] = set()
        self.ended: set[tuple[Key, Outcome]] = set()
        self.beside: list[tuple[Key, Key]] = []
        """Calls of one step that one process made at the same time."""


class ScriptedFunctions:
    """Implements `definition.Functions`, with `ScriptedRunner`, which knows how long they take."""

    def is_async(self, name: str) -> bool:
        return False

    def perform(self, call: LocalCall) -> Reply:
        outcome = scripted(call)
        if outcome in "fgv":
            return reply_of(call, Outcome.FAILURE, error_type="Refused")
        if outcome in "rwe":
            after_ms = LATER_MS if outcome == "w" else None
            return reply_of(call, Outcome.RETRY, error_type="Busy", retry_after_ms=after_ms)
        return reply_of(call, Outcome.SUCCESS, b'"ok"')

    async def perform_async(self, call: LocalCall) -> Reply:
        return self.perform(call)


class ScriptedRunner:
    """Implements `local_steps.Runner` over virtual time; what has not ended is lost with the process."""

    def __init__(self, calls: Calls, random: Random, now_ms: Callable[[], int]) -> None:
        self._calls = calls
        self._random = random
        self._now_ms = now_ms
        self._running: list[tuple[int, LocalCall, Functions]] = []
        self._canceled: set[LocalCall] = set()
        self.due_ms = NEVER_MS
        """When the next call ends."""

    def start(self, call: LocalCall, functions: Functions) -> None:
        self._calls.begun.add(_key(call))
        self._calls.beside += [(_key(call), _key(other)) for _, other, _ in self._running if other.unit == call.unit]
        delay_ms = self._random.choice(HANG_MS if scripted(call) in "hg" else RUN_MS)
        self._running.append((self._now_ms() + delay_ms, call, functions))
        self._find_due()

    def cancel(self, call: LocalCall) -> None:
        """An async function ends at once, a plain one goes on."""
        if self._random.random() < 0.5:
            self._canceled.add(call)
            self.due_ms = self._now_ms()

    def poll(self) -> Sequence[Ended]:
        now_ms = self._now_ms()
        if self.due_ms > now_ms:
            return ()
        over = [(call, by) for at, call, by in self._running if at <= now_ms or call in self._canceled]
        self._running = [each for each in self._running if each[0] > now_ms and each[1] not in self._canceled]
        self._find_due()
        ended = []
        for call, functions in over:
            reply = None if call in self._canceled else functions.perform(call)
            self._canceled.discard(call)
            if reply is not None:
                self._calls.ended.add((_key(call), reply.outcome))
            ended.append(Ended(call, reply))
        return ended

    def _find_due(self) -> None:
        self.due_ms = min((at for at, _, _ in self._running), default=NEVER_MS)


def scripted(call: LocalCall) -> str:
    """The letter of a script (`drawing._script`) for this call."""
    do, undo = call.payload.decode().split("/")
    script = undo if call.direction == "undo" else do
    return script[min(call.attempt, len(script)) - 1]


def check_calls(calls: Calls, accepted: Accepted, verdict: Verdict) -> None:
    """C9: nothing was called that no accepted decision asked for. C3: what is recorded is what a call came to.

    C5, as far as one process goes: a step's calls follow each other.
    """
    decided = {_key_of(*each) for each in accepted.of_runs(ev.StepScheduled, ev.StepAttempted)}
    decided |= {_key_of(*each, "undo") for each in accepted.of_runs(ev.UndoScheduled, ev.UndoAttempted)}
    for key in sorted(calls.begun - decided):
        verdict.blame("C9", f"{key} was called, and never decided")
    for one, other in calls.beside:
        verdict.blame("C5", f"{one} was called beside {other}")
    for kind, direction, outcome in (
        (ev.StepSucceeded, "do", Outcome.SUCCESS),
        (ev.StepRefused, "do", Outcome.FAILURE),
        (ev.UndoSucceeded, "undo", Outcome.SUCCESS),
    ):
        for history, event in accepted.of_runs(kind):
            local = history.state.steps[event.sequence].kind is ev.StepKind.LOCAL
            if local and not getattr(event, "by", ""):
                key = _key_of(history, event, direction)
                if (key, outcome) not in calls.ended:
                    verdict.blame("C3", f"{key} is recorded as {outcome}, which no call came to")


def _key(call: LocalCall) -> Key:
    return call.saga_id, call.run, call.sequence, call.direction, call.attempt


def _key_of(history: History, event: ev.Event, direction: str = "do") -> Key:
    attempt = getattr(event, "attempt", 1)
    sequence: int = event.sequence  # type: ignore[union-attr]
    run = history.state.run_of(history.state.steps[sequence])
    return history.saga_id, run, sequence, direction, attempt
