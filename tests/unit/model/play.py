"""One saga decided input by input, as its partition would, and checked after every decision.

Four things must agree at each one: the live state; a state made of the journaled events alone; a state read back from
the store; and what a cold run, replayed from the store, decides about the same input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.decide import InputRejected, decide
from orchestrator.model.definition import Definition
from orchestrator.model.effects import Answer, Command, Effect, LocalCall, effects, local_calls
from orchestrator.model.evolve import evolve
from orchestrator.model.messages import Outcome, Override, ReplyAddress
from orchestrator.model.state import OPEN, UNDO_OPEN, SagaState, Step
from orchestrator.model.turn import Execution, Moment
from orchestrator.runtime.materialize import changes_of, load_state
from orchestrator.saga import Saga
from orchestrator.store import keys
from orchestrator.store.memory import MemoryStores
from orchestrator.wire.journal import DECISION_FINGERPRINT as FINGERPRINT
from orchestrator.wire.journal import Envelope, read_decision, write_decision
from orchestrator.wire.stored import write_run, write_step

INBOX = ReplyAddress("saga.answers", 0, "c-1")
SAGA_ID = "order-7"
PARTITIONS = 4
PLAYS: list[Play] = []
"""Those of the running test, whose live code is let go of when it is over."""


def frozen(state: SagaState) -> dict[str, Any]:
    """Everything a later decision can depend on."""
    return {
        "run": write_run(state),
        "steps": {sequence: write_step(step) for sequence, step in state.steps.items()},
        "open": set(state.open),
        "undo_open": set(state.undo_open),
        "undo_now": list(state.undo_now),
        "outcomes": list(state.outcomes),
        "to_undo": sorted(s for s, step in state.steps.items() if state.must_undo(step)),
    }


@dataclass
class Sent:
    """A command as a participant sees it."""

    name: str
    undo: bool
    sequence: int
    attempt: int
    payload: bytes
    run: str


class Play:
    """`known=False`: an owner without the saga's code.

    `cold=False` decides nothing twice, where the code counts its own executions; `checked=False` compares nothing.
    """

    def __init__(
        self, saga: type[Saga[Any, Any]] | Definition, *, known: bool = True, cold: bool = True, checked: bool = True
    ) -> None:
        self.definition = saga if isinstance(saga, Definition) else saga.definition
        self.known = known
        self.cold = cold and checked
        self.checked = checked
        self.now_ms = 1_000_000
        self.offset = 10
        self.open_circuits: frozenset[str] = frozenset()
        self.execution: Execution | None = None
        self.journal: list[ev.Event] = []
        self.decisions: list[tuple[ev.Event, ...]] = []
        self.sent: list[Sent] = []
        self.calls: list[LocalCall] = []
        self.rules: set[str] = set()
        self.answers: list[Answer] = []
        self.store = MemoryStores().open(0)
        self._shadow: SagaState | None = None
        self._messages = 0
        PLAYS.append(self)

    # -- looking

    @property
    def state(self) -> SagaState:
        assert self.execution is not None
        return self.execution.state

    @property
    def status(self) -> ev.Status:
        return self.state.status

    @property
    def ending(self) -> ev.SagaEnded:
        event = next(event for event in self.journal if isinstance(event, ev.SagaEnded))
        assert self.state.ended
        return event

    @property
    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.journal]

    @property
    def undone(self) -> list[int]:
        """Sequences in the order in which their undo was asked for."""
        return [event.sequence for event in self.journal if isinstance(event, ev.UndoScheduled)]

    def step(self, sequence: int) -> Step:
        return self.state.steps[sequence]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.journal if isinstance(event, kind)]

    # -- telling

    def start(self, value: Any = None, reply_to: ReplyAddress | None = None, **policies: Any) -> list[ev.Event]:
        payload = orjson.dumps(value)
        return self.take(msg.Start(SAGA_ID, self.message_id(), self.definition.name, payload, reply_to, **policies))

    def do(self, sequence: int, value: Any = None, attempt: int | None = None) -> list[ev.Event]:
        return self.reply(sequence, Outcome.SUCCESS, payload=orjson.dumps(value), attempt=attempt)

    def refuse(self, sequence: int, error_type: str = "Refused", attempt: int | None = None) -> list[ev.Event]:
        return self.reply(sequence, Outcome.FAILURE, error_type, attempt=attempt)

    def again(self, sequence: int, error_type: str = "Busy", after_ms: int | None = None) -> list[ev.Event]:
        return self.reply(sequence, Outcome.RETRY, error_type, after_ms=after_ms)

    def undo(
        self, sequence: int, outcome: Outcome = Outcome.SUCCESS, error_type: str = "", attempt: int | None = None
    ) -> list[ev.Event]:
        return self.reply(sequence, outcome, error_type, undo=True, attempt=attempt)

    def reply(
        self,
        sequence: int,
        outcome: Outcome,
        error_type: str = "",
        *,
        payload: bytes = b"",
        undo: bool = False,
        attempt: int | None = None,
        after_ms: int | None = None,
    ) -> list[ev.Event]:
        if attempt is None:
            step = self.step(sequence)
            attempt = step.undo_attempt if undo else step.attempt
        message = "no details" if error_type else ""
        known = self.state.steps.get(sequence)
        run = self.state.run if known is None else self.state.run_of(known)
        return self.take(
            msg.Reply(SAGA_ID, run, sequence, undo, attempt, outcome, payload, error_type, message, after_ms)
        )

    def send_failed(self, sequence: int, *, undo: bool = False, attempt: int | None = None) -> list[ev.Event]:
        step = self.step(sequence)
        attempt = attempt or (step.undo_attempt if undo else step.attempt)
        return self.take(msg.SendFailed(SAGA_ID, self.state.run, sequence, undo, attempt, "no such topic"))

    def fire(self, sequence: int) -> list[ev.Event]:
        """Lets the time pass until the timer of a step, or of the saga (0), is due."""
        due_ms = self.state.due_of(sequence)
        assert due_ms is not None, f"step {sequence} has no timer"
        self.now_ms = max(self.now_ms, due_ms)
        return self.take(msg.TimerDue(SAGA_ID, self.state.run, sequence, due_ms))

    def cancel(self, reason: str = "no longer wanted") -> list[ev.Event]:
        return self.take(msg.Cancel(SAGA_ID, self.message_id(), None, reason, "ann"))

    def signal(self, name: str, value: Any = None) -> list[ev.Event]:
        return self.take(msg.Signal(SAGA_ID, self.message_id(), name, orjson.dumps(value), None, "ann"))

    def pause(self, reply_to: ReplyAddress | None = None) -> list[ev.Event]:
        return self.take(msg.Pause(SAGA_ID, self.message_id(), None, "wait", "ann", reply_to))

    def resume(self, reply_to: ReplyAddress | None = None) -> list[ev.Event]:
        return self.take(msg.Resume(SAGA_ID, self.message_id(), None, "go on", "ann", reply_to))

    def lift(self, rule: str) -> list[ev.Event]:
        """The rule stands no longer, and the partition lets go of the saga."""
        self.rules.remove(rule)
        return self.take(msg.Released(SAGA_ID, self.state.run))

    def keep(self, name: str, value: Any = None, run: str | None = None) -> list[ev.Event]:
        return self.take(msg.Settle(SAGA_ID, self.message_id(), name, orjson.dumps(value), run=run, by="ann"))

    def fail(self, name: str, error_type: str, message: str = "") -> list[ev.Event]:
        return self.take(msg.Settle(SAGA_ID, self.message_id(), name, b"", error_type, message, by="ann"))

    def terminate(self) -> list[ev.Event]:
        return self.take(msg.Terminate(SAGA_ID, self.message_id(), None, "enough", "ann"))

    def restart(self, value: Any = None, *, same: bool = True) -> list[ev.Event]:
        payload = None if same else orjson.dumps(value)
        return self.take(msg.Restart(SAGA_ID, self.message_id(), payload, None, "once more", "ann"))

    def redrive(self, reply_to: ReplyAddress | None = None, *, value: Any = None) -> list[ev.Event]:
        """With another input where a value is given."""
        payload = None if value is None else orjson.dumps(value)
        return self.take(msg.Redrive(SAGA_ID, self.message_id(), None, "mended", "ann", reply_to, payload))

    def reset(self, to: int, reply_to: ReplyAddress | None = None) -> list[ev.Event]:
        return self.take(msg.Reset(SAGA_ID, self.message_id(), to, None, "from there", "ann", reply_to))

    def unpark(self, action: Override, sequence: int = 0, payload: bytes | None = None) -> list[ev.Event]:
        return self.take(msg.Unpark(SAGA_ID, self.message_id(), action, sequence, payload, None, "looked at it", "ann"))

    def retry(self, sequence: int = 0) -> list[ev.Event]:
        return self.unpark(Override.RETRY, sequence)

    def find_code(self) -> list[ev.Event]:
        """An owner that has the saga's code takes over."""
        self.known = True
        return self.take(msg.CodeArrived(SAGA_ID, self.state.run))

    def lose_code(self) -> None:
        """An owner that lacks the saga's code takes over."""
        self.known = False
        self.crash()

    def crash(self) -> None:
        """The live code is gone."""
        if self.execution is not None:
            self.execution.detach()

    def message_id(self) -> str:
        self._messages += 1
        return f"m-{self._messages}"

    # -- deciding

    def take(self, given: msg.Input) -> list[ev.Event]:
        """Decides an input and whatever follows from its budget; gives all events."""
        taken = list(self._decide(given))
        while self.execution is not None and self.state.continue_due:
            taken += self._decide(msg.Continue(SAGA_ID, self.state.run))
        return taken

    def rejected(self, given: Callable[[], object]) -> str:
        """The reason for which an input is refused, having changed nothing."""
        before = frozen(self.state) if self.execution is not None else None
        try:
            given()
        except InputRejected as rejected:
            after = frozen(self.state) if self.execution is not None else None
            assert after == before
            return str(rejected)
        raise AssertionError("the input was taken")

    def _decide(self, given: msg.Input) -> tuple[ev.Event, ...]:
        definition = self.definition if self.known else None
        moment = Moment(self.now_ms, 1, self.offset, PARTITIONS, open_circuits=self.open_circuits, paused=self.rules)
        replayed = self._replayed(definition, given, moment) if self.cold else None
        known = None if self.execution is None or self.state.forgotten else self.execution
        execution, events, run = decide(known, definition, given, moment)
        self.execution = self.execution if execution is None else execution
        self.offset += 1
        self.journal.extend(events)
        assert not any(isinstance(event, ev.ContinueDue) for event in events[:-1]), "nothing comes between"
        self.decisions.append(events)
        if replayed is not None:
            assert list(replayed[1]) == list(events), "a cold run decides otherwise"
        if execution is None:
            return events
        if self.checked:
            self._check(run, events)
        if replayed is not None and replayed[0] is not None:
            assert frozen(replayed[0].state) == frozen(self.state)
            replayed[0].detach()
        for event in events:
            for effect in effects(event, SAGA_ID, self.state):
                self._send(effect)
        return events

    def _replayed(
        self, definition: Definition | None, given: msg.Input, moment: Moment
    ) -> tuple[Execution | None, tuple[ev.Event, ...], str] | None:
        state = load_state(self.store, SAGA_ID)
        try:
            return decide(Execution(state) if state is not None else None, definition, given, moment)
        except InputRejected:
            return None

    def _check(self, run: str, events: tuple[ev.Event, ...]) -> None:
        """The journal and the store hold all that the live state knows."""
        body = write_decision(ev.Decision(SAGA_ID, run, self.now_ms, events))
        assert len(body) < 800 * 1024, "the decision does not fit a record"
        decision = read_decision(Envelope(2, body_fingerprint=FINGERPRINT, body=body))
        assert decision is not None
        assert decision.events == events
        if self._shadow is None or self._shadow.run != run:
            self._shadow = SagaState(SAGA_ID, run) if self._shadow is None else self._shadow.successor(run)
        for event in decision.events:
            evolve(self._shadow, event, decision.at_ms)
        assert frozen(self._shadow) == frozen(self.state)
        self.store.write(changes_of(self.state))
        if self.state.forgotten:
            self._shadow = None
            assert list(self.store.scan(b"")) == []
            return
        stored = load_state(self.store, SAGA_ID)
        assert stored is not None
        assert frozen(stored) == frozen(self.state)
        due = {(due, s) for s in (0, *self.state.steps) if (due := self.state.due_of(s)) is not None}
        assert {keys.read_timer(key)[::2] for key, _ in self.store.scan(keys.TIMERS)} == due
        assert set(self.state.timed) == {sequence for _, sequence in due}
        assert local_calls(stored) == local_calls(self.state)
        assert {key for key, _ in self.store.scan(keys.LOCAL)} == ({keys.local(SAGA_ID)} if self.state.local else set())
        assert self.state.open == {s for s, step in self.state.steps.items() if step.status in OPEN}
        assert self.state.undo_open == {s for s, step in self.state.steps.items() if step.status in UNDO_OPEN}

    def _send(self, effect: Effect) -> None:
        if isinstance(effect, Command):
            undo = effect.direction == "undo"
            self.sent.append(Sent(effect.command, undo, effect.sequence, effect.attempt, effect.payload, effect.run))
        elif isinstance(effect, LocalCall):
            self.calls.append(effect)
        elif isinstance(effect, Answer):
            self.answers.append(effect)
