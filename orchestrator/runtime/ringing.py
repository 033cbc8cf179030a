"""Timers that are due: each is an input to its saga, unless it is for a service that is not to be asked now."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from orchestrator.model import messages as msg
from orchestrator.runtime.circuits import Circuits
from orchestrator.runtime.runs import Runs
from orchestrator.runtime.timers import PAGE, Timer, Timers
from orchestrator.wire.inputs import INBOX

MOST_ENDS = PAGE
"""Ended runs whose time is up and that wait here for the inbox; of more the store is asked again."""


class Ringer:
    """Rings one partition's timers; `attempt` decides what a saga hears of one."""

    def __init__(
        self, timers: Timers, circuits: Circuits, runs: Runs, attempt: Callable[[msg.TimerDue], object]
    ) -> None:
        self._timers = timers
        self._circuits = circuits
        self._runs = runs
        self._attempt = attempt
        self._ends: deque[tuple[int, Timer]] = deque()
        """Of runs that have ended, behind where the inbox ended when they were due."""
        self._left_out: Timer | None = None
        """The first of those that were too many for `_ends`."""

    def ring(self, now_ms: int, consumed: Callable[[str], int], limit: int) -> None:
        """Rings those whose turn it is, at most `limit` of a kind besides those that wait for a circuit."""
        for timer in self._timers.due(now_ms, consumed, limit):
            self._ring(timer)
        for _ in range(limit):
            if not self.is_ready(consumed):
                break
            self._ring(self._ends.popleft()[1], after_all=True)
        if self._left_out is not None and not self._ends:
            self._timers.look_again(self._left_out)
            self._left_out = None
        for timer in self._circuits.due(now_ms):
            self._ring(timer, although_open=True)
        while self._circuits.freed:
            self._timers.add(self._circuits.freed.pop())

    def is_ready(self, consumed: Callable[[str], int]) -> bool:
        """Whether there are timers left that need not wait for anything."""
        return bool(self._ends) and consumed(INBOX) >= self._ends[0][0]

    def _ring(self, timer: Timer, *, although_open: bool = False, after_all: bool = False) -> None:
        """A timer is due; that of a step whose service is not to be asked now is set aside.

        So is that of a saga that has ended, until all is consumed that was in the inbox before: repeats are for it.
        """
        due_ms, saga_id, sequence = timer
        if (execution := self._runs.find(saga_id)) is None:
            return
        state, holds = execution.state, self._circuits.holds
        if state.ended and not state.continue_due and not after_all:
            if len(self._ends) < MOST_ENDS:
                self._ends.append((self._timers.told_end(INBOX), timer))
            else:
                self._left_out = timer if self._left_out is None else min(self._left_out, timer)
            return
        if although_open or not holds(state, sequence):
            self._attempt(msg.TimerDue(saga_id, state.run, sequence, due_ms))
        # One that rings all the same and says nothing comes again: its saga is paused, or lacks its code.
        if not although_open and holds(state, sequence) and state.due_of(sequence) == due_ms:
            self._circuits.put(state, timer)
