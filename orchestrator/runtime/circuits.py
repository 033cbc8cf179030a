"""Circuit breakers: one service's commands are held back in a partition while the service does not answer.

A circuit opens after so many attempts in a row that ended without an answer. From then on no attempt is sent to the
service but a probe now and then: the first answer closes the circuit. That it is open is journaled; how many attempts
failed in a row before that is not, so after a take-over the count begins anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from orchestrator.model.events import CircuitClosed, CircuitOpened
from orchestrator.model.state import SagaState, StepStatus
from orchestrator.runtime.timers import Timer

NEVER_MS = 1 << 62


@dataclass(slots=True)
class _Circuit:
    """An open one. `held` are the timers of steps that wait for it, by their deadline, which still counts."""

    probe_at_ms: int
    held: list[tuple[int, Timer]] = field(default_factory=list)


class Circuits:
    """Those of one partition in one epoch. `limit`: failures in a row that open one, 0: none opens.

    `probe_ms` is the time between two probes. `is_set` tells a timer that still holds from one that does not.
    """

    def __init__(
        self, limit: int, probe_ms: int, opened: Iterable[str], now_ms: int, is_set: Callable[[Timer], bool]
    ) -> None:
        self._limit = limit
        self._probe_ms = probe_ms
        self._is_set = is_set
        self._failures: Counter[str] = Counter()
        self._open = {service: _Circuit(now_ms + probe_ms) for service in opened}
        self.open = frozenset(self._open)
        """Services whose commands are held back."""
        self.freed: list[Timer] = []
        """Timers of steps that waited for a circuit which has closed since, for whoever keeps the timers to take."""

    def note(self, service: str, answered: bool, now_ms: int) -> tuple[CircuitOpened | CircuitClosed, ...]:
        """An attempt was answered, or ended without an answer. Gives what that changes."""
        if not answered:
            self._failures[service] += 1
            if service in self._open or not 0 < self._limit <= self._failures[service]:
                return ()
            self._open[service] = _Circuit(now_ms + self._probe_ms)
            self.open = frozenset(self._open)
            return (CircuitOpened(service, self._failures[service]),)
        self._failures.pop(service, None)
        circuit = self._open.pop(service, None)
        if circuit is None:
            return ()
        self.open = frozenset(self._open)
        self.freed += [timer for _, timer in circuit.held]
        return (CircuitClosed(service),)

    def holds(self, state: SagaState, sequence: int) -> bool:
        """Whether a step waits for its service's circuit."""
        step = state.steps.get(sequence)
        return step is not None and step.held and step.service in self._open

    def put(self, state: SagaState, timer: Timer) -> None:
        """Sets the timer of a step aside that waits for its circuit."""
        step = state.steps[timer[2]]
        undoing = step.status is not StepStatus.BACKING_OFF
        deadline_ms = NEVER_MS if step.deadline_ms is None or undoing else step.deadline_ms
        heappush(self._open[step.service].held, (deadline_ms, timer))

    def due(self, now_ms: int) -> list[Timer]:
        """Steps that are to go on although their circuit is open: their time is up, or they are a probe."""
        due: list[Timer] = []
        for circuit in self._open.values():
            held = circuit.held
            while held and (held[0][0] <= now_ms or circuit.probe_at_ms <= now_ms):
                deadline_ms, timer = heappop(held)
                if not self._is_set(timer):
                    continue
                due.append(timer)
                if deadline_ms > now_ms:
                    circuit.probe_at_ms = now_ms + self._probe_ms
        return due

    def next_due_ms(self) -> int | None:
        """When `due` may have something."""
        if not self._open:
            return None
        return min((min(each.probe_at_ms, each.held[0][0]) for each in self._open.values() if each.held), default=None)
