"""One partition of a service's commands in a participant's hands: what is taken, in which order, what is committed."""

from __future__ import annotations

from collections import deque

from orchestrator.participant.tenure import Tenure
from orchestrator.participant.work import Unit, Work


class Partition:
    """`window` holds what was taken and is not committed, by offset; `units` the busy units and who waits for them."""

    __slots__ = (
        "asked_ms",
        "assigned",
        "closing",
        "committed",
        "deferred",
        "from_start",
        "number",
        "paused",
        "position",
        "ready",
        "retry_ms",
        "running",
        "tenure",
        "units",
        "window",
    )

    def __init__(self, number: int, tenure: Tenure | None) -> None:
        self.number = number
        self.tenure = tenure
        self.window: deque[Work] = deque()
        self.units: dict[Unit, deque[Work]] = {}
        self.ready: deque[Work] = deque()
        """First of their unit, judged to run; they wait for a free place and for the lease."""
        self.deferred: deque[Work] = deque()
        """Came while the memory was not exact."""
        self.position: int | None = None
        """All commands below it are answered; None: not known yet."""
        self.committed = -1
        self.assigned = False
        self.asked_ms: int | None = None
        self.from_start = False
        """Nothing is committed: begins at the log's start."""
        self.retry_ms = 0
        self.paused = False
        self.running = 0
        self.closing = False

    @property
    def exact(self) -> bool:
        """Whether its memory may be asked."""
        return self.tenure is None or self.tenure.exact

    @property
    def quiet(self) -> bool:
        """No handler runs and no outcome is on its way to the ledger."""
        return not self.running and (self.tenure is None or not self.tenure.unconfirmed)

    def advance(self) -> None:
        """Moves the position over all that is answered, without gaps."""
        window = self.window
        while window and window[0].done:
            self.position = window.popleft().record.offset + 1

    def close(self) -> None:
        """Takes nothing new: what is not running is dropped, to be read again by the next owner."""
        self.closing = True
        self.ready.clear()
        self.deferred.clear()
        for waiting in self.units.values():
            waiting.clear()
        if self.tenure is not None:
            self.tenure.closing = True
            self.tenure.unrecorded.clear()
