"""One partition of a service's commands in a participant's hands: what is taken, in which order, what is committed."""

from __future__ import annotations

from collections import deque

from orchestrator.log.base import Ends, Failure, Reader
from orchestrator.participant.tenure import LOCATE_INTERVAL_MS, LogStart, Tenure
from orchestrator.participant.work import Unit, Work

ANSWER_TIMEOUT_MS = 5_000
"""A commit, or a question for what is committed, that was not answered so long is sent again."""


class Partition:
    """`window` holds what was taken and is not committed, by offset; `units` the busy units and who waits for them."""

    __slots__ = (
        "ask_again_ms",
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
        self.ask_again_ms = 0
        """When the group's position is to be asked for, if it is not known by then."""
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

    def throttle(self, blocked: bool, bound: int) -> bool | None:
        """Whether to pause (True) or resume (False) reading for it now: it holds `bound` commands at most."""
        size = len(self.window)
        if not self.paused and self.assigned and (blocked or size >= bound):
            self.paused = True
        elif self.paused and not blocked and size <= bound // 2:
            self.paused = False
        else:
            return None
        return self.paused

    def begin(self, reader: Reader, topic: str, log_start: LogStart, now_ms: int) -> None:
        """Finds where it begins, then reads from there once its memory may be asked."""
        if self.position is None:
            self.locate(reader, topic, log_start, now_ms)
        elif not self.assigned and self.exact and now_ms >= self.retry_ms and not self.closing:
            # What the window holds was read already.
            offset = self.window[-1].record.offset + 1 if self.window else self.position
            reader.assign(topic, self.number, offset)
            self.assigned = True
            self.paused = False

    def read_failed(self, failure: Failure, retry_ms: int) -> bool:
        """It is not read any more, and is tried again then; whether that is at the log's start, for there is a gap."""
        self.assigned = False
        self.retry_ms = retry_ms
        if failure is not Failure.OUT_OF_RANGE:
            return False
        self.window.clear()
        self.position = None
        self.from_start = True
        return True

    def locate(self, reader: Reader, topic: str, log_start: LogStart, now_ms: int) -> None:
        """Finds where it begins: at the committed offset; without one at the log's start, which is then committed."""
        if self.from_start:
            self.position = log_start(topic, self.number)
        elif now_ms >= self.ask_again_ms:
            self.ask_again_ms = now_ms + ANSWER_TIMEOUT_MS
            reader.ask_committed([(topic, self.number)], (self._located, topic))

    def _located(self, topic: str, ends: Ends) -> None:
        if self.position is None and ends.failure is None:
            self.position = ends.offsets.get((topic, self.number))
            self.from_start = self.position is None

    def due_ms(self, now_ms: int, commit_ms: int) -> list[int]:
        """When it has something to do that no news announces; `commit_ms` is when positions may be committed."""
        moments = []
        tenure = self.tenure
        if self.position is None:
            moments.append(now_ms + LOCATE_INTERVAL_MS if self.from_start else self.ask_again_ms)
        elif self.position != self.committed:
            moments.append(commit_ms)
        elif tenure is not None:
            moments.append(max(commit_ms, tenure.renewal_ms()))
        if not self.assigned and self.position is not None and self.exact:
            moments.append(self.retry_ms)
        if tenure is not None and (due_ms := tenure.due_ms()) is not None:
            moments.append(due_ms)
        return moments

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
