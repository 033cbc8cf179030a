"""The handlers that run now: how long they may, and what is told of them before they end."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.model.messages import Outcome
from orchestrator.participant.counters import Counters
from orchestrator.participant.outbound import Outbound
from orchestrator.participant.settings import ParticipantSettings
from orchestrator.participant.work import Ended, Work
from orchestrator.wire.commands import ReplyMessage

START_AGAIN_MS = 1_000
"""Where only the start of a handler is asked for: when it is told again if Kafka did not take it."""
LEAST_MS = 10


class Running:
    """In the order of their start. `overdue` is told once of each that runs beyond its limit.

    A command that asks for heartbeats gets the first one when its handler starts; a further one once the handler has
    called for it and a third of the heartbeat timeout has passed since the last.
    """

    def __init__(
        self, settings: ParticipantSettings, counters: Counters, out: Outbound, overdue: Callable[[Work], None]
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._out = out
        self._overdue = overdue
        self._works: dict[Work, None] = {}
        self._telling: dict[Work, None] = {}

    def __len__(self) -> int:
        return len(self._works)

    def start(self, work: Work, now_ms: int) -> None:
        work.started_ms = now_ms
        self._works[work] = None
        if work.command.heartbeat_ms is not None:
            self._telling[work] = None
            self._tell(work, now_ms)

    def end(self, work: Work, reply: Ended) -> None:
        """What was said last goes before a reply that asks for another attempt: that one begins from there."""
        del self._works[work]
        if work in self._telling:
            del self._telling[work]
            again = isinstance(reply, ReplyMessage) and reply.outcome is Outcome.RETRY
            if again and work.beat is not work.told:
                self._tell(work, 0)

    def watch(self, now_ms: int) -> None:
        """Tells what is to be told now."""
        for work in self._telling:
            if work.beat is not work.told and now_ms >= work.told_ms + _pause_ms(work):
                self._tell(work, now_ms)
        limit_ms = now_ms - self._settings.handler_limit_ms
        for work in self._works:
            if work.started_ms >= limit_ms:
                return
            if not work.overdue_told:
                work.overdue_told = True
                self._counters.overdue += 1
                self._overdue(work)

    def due_ms(self, now_ms: int) -> list[int]:
        """When to watch again: a handler's call for a heartbeat is seen within a tenth of the timeout."""
        moments = [now_ms + max(LEAST_MS, _pause_ms(work) // 3) for work in self._telling]
        for work in self._works:
            if not work.overdue_told:
                moments.append(work.started_ms + self._settings.handler_limit_ms + 1)
                break
        return moments

    def _tell(self, work: Work, now_ms: int) -> None:
        work.told, work.told_ms = work.beat, now_ms
        self._out.heartbeat(work)


def _pause_ms(work: Work) -> int:
    """The least time between two heartbeats."""
    return max(LEAST_MS, (work.command.heartbeat_ms or 0) // 3 or START_AGAIN_MS)
