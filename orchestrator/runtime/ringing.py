"""Timers that are due: each is an input to its saga, unless it is for a service that is not to be asked now."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.model import messages as msg
from orchestrator.runtime.circuits import Circuits
from orchestrator.runtime.runs import Runs
from orchestrator.runtime.timers import Timer, Timers


class Ringer:
    """Rings one partition's timers; `attempt` decides what a saga hears of one."""

    def __init__(
        self, timers: Timers, circuits: Circuits, runs: Runs, attempt: Callable[[msg.TimerDue], object]
    ) -> None:
        self._timers = timers
        self._circuits = circuits
        self._runs = runs
        self._attempt = attempt

    def ring(self, now_ms: int, consumed: Callable[[str], int], limit: int) -> None:
        """Rings those whose turn it is, at most `limit` of them besides those that wait for a circuit."""
        for timer in self._timers.due(now_ms, consumed, limit):
            self._ring(timer)
        for timer in self._circuits.due(now_ms):
            self._ring(timer, although_open=True)
        while self._circuits.freed:
            self._timers.add(self._circuits.freed.pop())

    def _ring(self, timer: Timer, *, although_open: bool = False) -> None:
        """A timer is due; that of a step whose service is not to be asked now is set aside."""
        due_ms, saga_id, sequence = timer
        if (execution := self._runs.find(saga_id)) is None:
            return
        state, holds = execution.state, self._circuits.holds
        if although_open or not holds(state, sequence):
            self._attempt(msg.TimerDue(saga_id, state.run, sequence, due_ms))
        # One that rings all the same and says nothing comes again: its saga is paused, or lacks its code.
        if not although_open and holds(state, sequence) and state.due_of(sequence) == due_ms:
            self._circuits.put(state, timer)
