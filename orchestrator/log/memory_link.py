"""The seam at which a simulator spoils the way between a client and the log in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from orchestrator.log.base import Delivery, Failure, Headers

_make = tuple.__new__


class Sender(Protocol):
    """The appender it is from."""

    def land(self, sent: Sent) -> None: ...

    def arrive(self, delivery: Delivery) -> None: ...


class Sent:
    """An append on its way. It lands and is reported when its `Link` says so, each at most once, in either order."""

    __slots__ = (
        "_sender",
        "failure",
        "headers",
        "key",
        "landed",
        "offset",
        "partition",
        "reported",
        "timestamp_ms",
        "token",
        "topic",
        "value",
    )

    def __init__(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        token: Any,
        sender: Sender,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.key = key
        self.value = value
        self.headers = headers
        self.token = token
        self.offset: int | None = None
        self.timestamp_ms = 0
        self.failure: Failure | None = None
        self.landed = False
        self.reported = False
        self._sender = sender

    def land(self) -> None:
        """The broker appends it now. Again: nothing, it knows the sequence number."""
        if not self.landed:
            self.landed = True
            self._sender.land(self)

    def report(self, *, with_offset: bool = True) -> None:
        """The client hears what became of it when it landed; without the offset where asked so."""
        if not self.landed:
            raise RuntimeError("only what has landed can be acknowledged")
        if not self.reported:
            self.reported = True
            offset = self.offset if with_offset else None
            self._sender.arrive(_make(Delivery, (self.token, offset, self.timestamp_ms, self.failure, "")))

    def fail(self, failure: Failure = Failure.UNKNOWN_OUTCOME, detail: str = "") -> None:
        """The client hears of a failure. Whether it landed, or still will, is another matter."""
        if not self.reported:
            self.reported = True
            self._sender.arrive(Delivery(self.token, None, self.timestamp_ms, failure, detail))


class Link:
    """The way between one client and the log. This one is perfect; a simulator overrides what it wants to spoil.

    Kafka keeps the order of one producer's appends to one partition; keeping it is the link's part.
    """

    def append(self, sent: Sent) -> None:
        """Decides when, if ever, the record lands and what the client is told. May keep `sent` and act on it later."""
        sent.land()
        sent.report()

    def fetch(self, topic: str, partition: int, end: int) -> int:
        """The partition's end as this reader sees it, at most `end`; asked in each poll while there is more to read."""
        return end

    def request(self, kind: str, perform: Callable[[], None], fail: Callable[[Failure], None]) -> None:
        """Calls `perform` (the broker acts and the answer arrives) or `fail`, now, later or never.

        `kind` is "ends", "committed", "commit" or, for what the group tells its member, "group" (which cannot fail).
        """
        perform()
