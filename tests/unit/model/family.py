"""Several sagas with one partition each, whose messages to one another are carried here: parents and their children."""

from __future__ import annotations

from collections import deque
from typing import Any

import orjson

from orchestrator.locks import with_locks
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.decide import decide
from orchestrator.model.definition import Definition
from orchestrator.model.effects import Answer, Command, Message, effects_of
from orchestrator.model.messages import Outcome
from orchestrator.model.state import SagaState
from orchestrator.model.turn import Execution, Moment
from orchestrator.model.versions import by_type
from orchestrator.saga import Saga
from orchestrator.wire.stored import read_run, read_step, write_run, write_step

PARTITIONS = 4


class Family:
    """`cold`: before each decision all live code is let go of. `post` holds what is on its way between sagas."""

    def __init__(self, *sagas: type[Saga[Any, Any]], cold: bool = True) -> None:
        self.definitions: dict[str, Definition] = with_locks(by_type(saga.definition for saga in sagas))
        self.cold = cold
        self.runs: dict[str, Execution] = {}
        self.journal: dict[str, list[ev.Event]] = {}
        self.decisions: list[ev.Decision] = []
        self.sent: dict[str, int] = {}
        self.commands: list[Command] = []
        self.answers: list[Answer] = []
        self.post: deque[msg.Input] = deque()
        self.offset = 10
        self.now_ms = 1_000_000
        self.open_circuits: frozenset[str] = frozenset()
        self.rules: set[str] = set()

    def state(self, saga_id: str) -> SagaState:
        return self.runs[saga_id].state

    def status(self, saga_id: str) -> str:
        return str(self.state(saga_id).status)

    def start(self, saga: type[Saga[Any, Any]], saga_id: str, value: Any = None) -> None:
        self.take(msg.Start(saga_id, f"start {saga_id}", saga.definition.name, orjson.dumps(value)))
        self.deliver()

    def reply(self, saga_id: str, sequence: int, value: Any = None, *, undo: bool = False) -> None:
        """A service succeeds."""
        run = self.state(saga_id).run
        self.take(msg.Reply(saga_id, run, sequence, undo, 1, Outcome.SUCCESS, orjson.dumps(value)))
        self.deliver()

    def refuse(self, saga_id: str, sequence: int) -> None:
        run = self.state(saga_id).run
        self.take(msg.Reply(saga_id, run, sequence, False, 1, Outcome.FAILURE, b"", "Refused"))
        self.deliver()

    def cancel(self, saga_id: str) -> None:
        self.take(msg.Cancel(saga_id, f"cancel {self.offset}"))
        self.deliver()

    def terminate(self, saga_id: str) -> None:
        self.take(msg.Terminate(saga_id, f"terminate {self.offset}"))
        self.deliver()

    def fire(self, saga_id: str) -> None:
        """The run's own timer is due, and what follows from it arrives."""
        due_ms = self.state(saga_id).due_of(0)
        assert due_ms is not None
        self.now_ms = max(self.now_ms, due_ms)
        self.take(msg.TimerDue(saga_id, self.state(saga_id).run, 0, due_ms))
        self.deliver()

    def deliver(self) -> None:
        """Everything that sagas have for each other arrives."""
        while self.post:
            self.take(self.post.popleft())

    def take(self, given: msg.Input) -> None:
        self._decide(given)
        while given.saga_id in self.runs and self.state(given.saga_id).continue_due:
            self._decide(msg.Continue(given.saga_id, self.state(given.saga_id).run))

    def _decide(self, given: msg.Input) -> None:
        execution = self.runs.get(given.saga_id)
        if execution is not None and self.cold:
            execution.detach()
            execution = Execution(stored(execution.state))
        saga_type = given.saga_type if isinstance(given, msg.Start | msg.Update) else None
        if execution is not None and execution.state.saga_type:
            saga_type = execution.state.saga_type
        self.offset += 1
        moment = Moment(
            self.now_ms,
            1,
            self.offset,
            PARTITIONS,
            open_circuits=self.open_circuits,
            paused=self.rules,
            sent=self.sent,
        )
        execution, events, run = decide(execution, self.definitions.get(saga_type or ""), given, moment)
        if execution is not None and execution.state.forgotten:
            del self.runs[given.saga_id]
        elif execution is not None:
            self.runs[given.saga_id] = execution
        self.journal.setdefault(given.saga_id, []).extend(events)
        decision = ev.Decision(given.saga_id, run, self.now_ms, events)
        self.decisions.append(decision)
        for _, effect in effects_of(decision, None if execution is None else execution.state):
            if isinstance(effect, Message):
                assert effect.counter == self.sent.get(str(effect.target), 0) + 1, "no number is left out"
                self.sent[str(effect.target)] = effect.counter
                self.post.append(effect.input)
            elif isinstance(effect, Command):
                self.commands.append(effect)
            elif isinstance(effect, Answer):
                self.answers.append(effect)

    def close(self) -> None:
        for execution in self.runs.values():
            execution.detach()


def stored(state: SagaState) -> SagaState:
    """The state as the next owner reads it."""
    steps = [read_step(sequence, write_step(step)) for sequence, step in state.steps.items()]
    read = read_run(state.saga_id, write_run(state), steps)
    assert write_run(read) == write_run(state)
    assert (read.open, read.undo_open, read.locks) == (state.open, state.undo_open, state.locks)
    read.parked = dict(state.parked)
    return read
