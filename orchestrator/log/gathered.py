"""An appender whose records leave together, when it is told to.

A producer's own thread takes what it finds: records that are made fifty microseconds apart leave in a request each, and
a request costs client and broker more than making the record did. Waiting for more inside the producer costs every
hop that time, also when nothing else comes. So whoever makes records says when a round of them is complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from orchestrator.log.base import Appender, Delivery, LogFull

BOUND = 20_000
"""Records that may wait for `send`, some 10 MiB."""

_Held = tuple[str, int, bytes | None, Any, bytes | None, Iterable[tuple[str, bytes]]]


class GatheredAppender:
    """Hands over to `appender` at `send` what was appended since, in order."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender
        self._held: deque[_Held] = deque()

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        *,
        token: Any,
        key: bytes | None = None,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        """As of an appender; the record leaves with the next `send`. Raises `LogFull`."""
        if len(self._held) >= BOUND:
            raise LogFull(f"{BOUND} records wait to be sent")
        self._held.append((topic, partition, value, token, key, headers))

    def send(self) -> None:
        """Hands over what is held, as far as there is room; the rest goes with the next call."""
        held, append = self._held, self._appender.append
        while held:
            topic, partition, value, token, key, headers = held[0]
            try:
                append(topic, partition, value, token=token, key=key, headers=headers)
            except LogFull:
                return
            held.popleft()

    def poll(self) -> list[Delivery]:
        return self._appender.poll()

    @property
    def pending(self) -> int:
        return self._appender.pending + len(self._held)

    def close(self, timeout_s: float) -> int:
        """As of an appender; what is held was never sent, and is not counted."""
        return self._appender.close(timeout_s)
