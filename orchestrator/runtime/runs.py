"""The runs of one owned partition: warm ones live in memory, all others in the store."""

from __future__ import annotations

from collections import deque

from orchestrator.model.effects import Command, Effect
from orchestrator.model.turn import Execution
from orchestrator.runtime.materialize import Materializer, load_state
from orchestrator.runtime.timers import Timer
from orchestrator.store.base import Store


class Runs:
    """A run that is ahead of the store, as `changes` tells, stays warm, as one with unconfirmed decisions does.

    `warm` is how many are kept beside those. One that ends is let go of before all others: hardly anything comes for it
    any more. `live` maps a saga id to its execution and belongs to this object.
    """

    def __init__(self, store: Store, live: dict[str, Execution], warm: int, changes: Materializer) -> None:
        self.live = live
        self._store = store
        self._warm = warm
        self._changes = changes
        self._ended: deque[str] = deque()

    def find(self, saga_id: str) -> Execution | None:
        """A run, from the store if it is not warm; None if there is none. Raises `StoreBroken`, `UnreadableRecord`."""
        execution = self.live.get(saga_id)
        if execution is None:
            state = None if self._changes.forgot(saga_id) else load_state(self._store, saga_id)
            if state is None:
                return None
            execution = self.live[saga_id] = Execution(state)
            self.evict()
        return execution

    def decided(self, execution: Execution, offset: int) -> None:
        """A run has changed by a decision that is not confirmed yet: the one at `offset`."""
        state = execution.state
        execution.unconfirmed += 1
        self._changes.run(state, offset)
        if state.forgotten:
            self.live.pop(state.saga_id, None)
        else:
            self.live[state.saga_id] = execution
            if state.ended:
                self._ended.append(state.saga_id)

    def evict(self) -> None:
        """Lets go of runs that have nothing unconfirmed: of those that have ended, then of the first of too many."""
        ended, live = self._ended, self.live
        while ended:
            execution = live.get(ended[0])
            if execution is not None and execution.state.ended and not self._let_go(execution):
                break
            ended.popleft()
        if len(live) > self._warm:
            for execution in list(live.values())[: len(live) - self._warm + self._warm // 10]:
                self._let_go(execution)

    def _let_go(self, execution: Execution) -> bool:
        saga_id = execution.state.saga_id
        if execution.unconfirmed or self._changes.holds(saga_id):
            return False
        del self.live[saga_id]
        execution.detach()
        return True

    def detach(self) -> None:
        """Lets go of all live code."""
        for execution in self.live.values():
            execution.detach()

    def still_open(self, effect: Effect) -> bool:
        """Whether a command's step still waits for its outcome; what is no command is never settled by a step."""
        if not isinstance(effect, Command):
            return True
        execution = self.find(effect.saga_id)
        state = None if execution is None else execution.state
        if state is None or state.ended or not state.is_own(effect.run, effect.sequence):
            return False
        return effect.sequence in (state.undo_open if effect.direction == "undo" else state.open)

    def is_set(self, timer: Timer) -> bool:
        """Whether a timer was neither moved nor cleared since."""
        due_ms, saga_id, sequence = timer
        execution = self.find(saga_id)
        return execution is not None and execution.state.due_of(sequence) == due_ms
