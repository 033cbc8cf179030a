"""One command on its way through a participant, and the seam to whatever runs the handlers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from orchestrator.log.base import Record
from orchestrator.participant.rules import Answer, Ignore, Reject
from orchestrator.wire.commands import CommandMessage, Ending, read_command
from orchestrator.wire.headers import MalformedMessage

Unit = tuple[str, str, int]
"""The unit of order: saga id, run, sequence."""


class Work:
    """A command, or a completion, from its record to the acknowledged reply.

    For executors: `command`, `appended_ms`, `unsure` (an earlier execution may have had an effect) and `start_by_ms`,
    from when on the handler must not be started any more (None: whenever). The rest is the engine's.
    """

    __slots__ = (
        "beat",
        "command",
        "done",
        "mute",
        "overdue_told",
        "partition",
        "record",
        "reply",
        "start_by_ms",
        "started_ms",
        "told",
        "told_ms",
        "tries",
        "unit",
        "unsure",
    )

    def __init__(self, partition: Any, record: Record, command: CommandMessage | None) -> None:
        self.partition = partition
        self.record = record
        self.command: CommandMessage = command  # type: ignore[assignment]  # None only for what becomes a dead letter
        self.unit: Unit = ("", "", 0) if command is None else command.unit
        self.reply: Ending | None = None
        self.mute = False
        """Its outcome is recorded and told to nobody."""
        self.done = False
        self.unsure = False
        self.start_by_ms: int | None = None
        self.started_ms = 0
        self.overdue_told = False
        self.tries = 0
        self.beat = (b"",)
        """What the handler said last, b"" for nothing but that it runs: another object each time."""
        self.told: tuple[bytes] | None = None
        self.told_ms = 0

    def tell(self, details: bytes) -> None:
        """The handler is alive, and got so far; without details it is where it was. Called by its own thread."""
        self.beat = (details or self.beat[0],)

    @property
    def appended_ms(self) -> int:
        """When the broker took the command."""
        return self.record.timestamp_ms


_MAX_PARTITIONS = 1_000_000


def read_work(partition: Any, record: Record, replies: str) -> Work:
    """The work of a record, if its numbers and its reply address can be real. Raises `MalformedMessage`.

    Replies go to the topic `replies` and nowhere else: a service may write where who sends it commands may not, such as
    into its own ledger.
    """
    command = read_command(record.headers, record.value)
    if command.reply_to != replies or not 0 <= command.reply_partition < _MAX_PARTITIONS:
        place = f"{command.reply_to[:40]!r}-{command.reply_partition}"
        raise MalformedMessage(f"no reply is sent to {place}: replies go to {replies}")
    if command.attempt < 1 or command.sequence < 0:
        raise MalformedMessage(f"attempt {command.attempt} of step {command.sequence} cannot be")
    return Work(partition, record, command)


Ended = Ending | Answer | Ignore | Reject | None
"""A handler's end, or what an inbox decided about a completion; None: nothing was started."""


class Finished(NamedTuple):
    """A started work's end. `ran` False: a memory answered it."""

    work: Work
    reply: Ended
    ran: bool = True


class Executor(Protocol):
    """Runs handlers. Neither method blocks; each started work comes out of `poll` exactly once."""

    def start(self, work: Work) -> None: ...

    def poll(self) -> Sequence[Finished]: ...


Perform = Callable[[Work], Ending]
"""Runs a command's handler to its end and says what to answer; never raises."""


class InlineExecutor:
    """Runs each handler at once, inside `start`: for simulation and tests, where time stands still meanwhile."""

    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self._finished: list[Finished] = []

    def start(self, work: Work) -> None:
        self._finished.append(Finished(work, self._perform(work)))

    def poll(self) -> Sequence[Finished]:
        finished = self._finished
        if finished:
            self._finished = []
        return finished


class HeldExecutor:
    """Starts nothing by itself: what is started waits in `held` until it is told to end. For simulation and tests."""

    def __init__(self) -> None:
        self.held: deque[Work] = deque()
        self._finished: list[Finished] = []

    def start(self, work: Work) -> None:
        self.held.append(work)

    def finish(self, work: Work, reply: Ended) -> None:
        """The handler of a held work ends now."""
        self.held.remove(work)
        self._finished.append(Finished(work, reply))

    def poll(self) -> Sequence[Finished]:
        finished, self._finished = self._finished, []
        return finished
