"""Commands and replies as records, seen from both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, cast

from orchestrator.model.effects import Command
from orchestrator.model.ids import Direction, idempotency_key
from orchestrator.model.messages import Outcome
from orchestrator.wire import headers as h
from orchestrator.wire.headers import MalformedMessage

RawHeaders = tuple[tuple[str, bytes], ...]


class ReplyMessage(NamedTuple):
    """What a participant answers, before it is addressed."""

    outcome: Outcome
    payload: bytes = b""
    error_type: str = ""
    error_message: str = ""
    retry_after_ms: int | None = None


class Postponed(NamedTuple):
    """In place of a reply: the work goes on elsewhere. `token` is the command's reply token, which completes it."""

    token: bytes

    @property
    def outcome(self) -> None:
        """None is known yet."""
        return None


Ending = ReplyMessage | Postponed
"""How a handler ends."""


class CommandMessage(NamedTuple):
    """A command as a participant reads it. `sent_at_ms` and `deadline_ms` are milliseconds since 1970.

    `echoed` are the headers that its reply repeats, as they came. `completion`: it is no command but says how the work
    ended that a handler of it left open. `heartbeat_ms`: how often the saga wants to hear of the handler, 0: only that
    it began, None: nothing; `details` is what an earlier attempt said last. Like `ReplyMessage` a named tuple: one is
    made for every record.
    """

    saga_id: str
    run: str
    saga_type: str
    command_type: str
    sequence: int
    direction: Direction
    attempt: int
    idempotency_key: str
    payload: bytes
    reply_to: str
    reply_partition: int
    sent_at_ms: int
    deadline_ms: int | None
    traceparent: str | None = None
    echoed: RawHeaders = ()
    completion: ReplyMessage | None = None
    heartbeat_ms: int | None = None
    details: str = ""
    baggage: str | None = None

    @property
    def unit(self) -> tuple[str, str, int]:
        """The unit of order: (saga id, run, sequence), its `do` before its `undo`."""
        return self.saga_id, self.run, self.sequence

    @property
    def reply_token(self) -> bytes:
        """What the reply must repeat; empty if the command has none."""
        return next((content for name, content in self.echoed if name == h.REPLY_TOKEN), b"")

    def at_attempt(self, attempt: int) -> CommandMessage:
        """The same for another attempt, which its reply then answers."""
        if attempt == self.attempt:
            return self
        rest = [pair for pair in self.echoed if pair[0] != h.ATTEMPT]
        return self._replace(attempt=attempt, echoed=(*rest, (h.ATTEMPT, str(attempt).encode())))


def command_headers(
    command: Command, *, epoch: int, reply_to: str, reply_partition: int, token: str, sent_at_ms: int
) -> list[tuple[str, bytes]]:
    """The headers of a command record; its key is the saga id, its value the payload as it is."""
    header = h.header
    key = idempotency_key(command.saga_id, command.run, command.sequence, command.direction)
    headers = [
        (h.SAGA_ID, command.saga_id.encode()),
        (h.SAGA_RUN, command.run.encode()),
        header(h.SAGA_TYPE, command.saga_type),
        header(h.COMMAND_TYPE, command.command),
        header(h.STEP, command.sequence),
        header(h.DIRECTION, command.direction),
        (h.IDEMPOTENCY_KEY, key.encode()),
        header(h.ATTEMPT, command.attempt),
        header(h.REPLY_TO, reply_to),
        header(h.REPLY_PARTITION, reply_partition),
        (h.REPLY_TOKEN, token.encode()),
        header(h.SENT_AT, sent_at_ms),
        header(h.EPOCH, epoch),
    ]
    if command.deadline_ms is not None:
        headers.append((h.DEADLINE, str(command.deadline_ms).encode()))
    if command.traceparent is not None:
        headers.append((h.TRACEPARENT, command.traceparent.encode()))
    if command.heartbeat_ms is not None:
        headers.append((h.HEARTBEAT_MS, str(command.heartbeat_ms).encode()))
    if command.details:
        headers.append((h.HEARTBEAT_DETAILS, command.details))
    if command.baggage is not None:
        headers.append((h.BAGGAGE, command.baggage.encode()))
    return headers


class _Layout(NamedTuple):
    """Where the headers stand in records that have these names in this order, as nearly all of a sender's do.

    `names`: in lower case. `size`: their bytes. `texts`, `numbers`: pick those values; behind the record's own come an
    empty one, for what is not there, and the direction's default. `echoed`: picks those headers.
    """

    names: tuple[str, ...]
    as_sent: bool
    size: int
    texts: Callable[[Sequence[bytes]], tuple[bytes, ...]]
    numbers: Callable[[Sequence[bytes]], tuple[bytes, ...]]
    echoed: Callable[[RawHeaders], RawHeaders]
    completes: bool


_TEXTS = (
    h.SAGA_ID,
    h.SAGA_RUN,
    h.SAGA_TYPE,
    h.COMMAND_TYPE,
    h.DIRECTION,
    h.IDEMPOTENCY_KEY,
    h.REPLY_TO,
    h.TRACEPARENT,
    h.HEARTBEAT_DETAILS,
    h.BAGGAGE,
)
_NEEDED = (h.SAGA_ID, h.SAGA_RUN, h.COMMAND_TYPE, h.IDEMPOTENCY_KEY, h.REPLY_TO)
_NUMBERS = (h.STEP, h.ATTEMPT, h.REPLY_PARTITION, h.SENT_AT, h.DEADLINE, h.HEARTBEAT_MS)
_OUTCOMES = {outcome: (h.OUTCOME, outcome.value.encode()) for outcome in Outcome}
_MAX_LAYOUTS = 256
_layouts: dict[tuple[str, ...], _Layout] = {}


def _layout(names: tuple[str, ...]) -> _Layout:
    lower = tuple(name.lower() for name in names)
    # The last of repeated ones counts.
    places = {name: place for place, name in enumerate(lower)}
    absent = len(names)
    default = {h.DIRECTION: absent + 1}
    echoed = [places[name] for name in h.ECHOED if name in places]
    pick: Any = itemgetter(*echoed) if len(echoed) > 1 else lambda pairs: tuple(pairs[place] for place in echoed)
    layout = _Layout(
        lower,
        lower == names,
        sum(map(len, names)),
        itemgetter(*[places.get(name, default.get(name, absent)) for name in _TEXTS]),
        itemgetter(*[places.get(name, absent) for name in _NUMBERS]),
        pick,
        h.OUTCOME in places,
    )
    if len(_layouts) >= _MAX_LAYOUTS:
        _layouts.clear()
    _layouts[names] = layout
    return layout


def read_command(headers: Iterable[tuple[str, bytes]], value: bytes | None) -> CommandMessage:
    """A command, or a completion, from its record. Raises `MalformedMessage`."""
    pairs = tuple(headers)
    names = tuple([name for name, _ in pairs])
    values = [content for _, content in pairs]
    layout = _layouts.get(names) or _layout(names)
    size = layout.size + sum(map(len, values))
    if size > h.MAX_HEADER_BYTES:
        raise MalformedMessage(f"the headers have {size} bytes, at most {h.MAX_HEADER_BYTES}")
    if not layout.as_sent:
        pairs = tuple(zip(layout.names, values, strict=True))
    values += b"", b"do"
    try:
        texts = [content.decode() for content in layout.texts(values)]
    except UnicodeDecodeError:
        # What is not text is not there.
        texts = [content.decode() if _is_text(content) else "" for content in layout.texts(values)]
    saga_id, run, saga_type, command_type, direction, key, reply_to, traceparent, details, baggage = texts
    if direction not in ("do", "undo"):
        raise MalformedMessage(f"header {h.DIRECTION!r} must be do or undo, not {direction[:40]!r}")
    if not (saga_id and run and command_type and key and reply_to):
        missing = next(name for name, text in zip(_TEXTS, texts, strict=True) if name in _NEEDED and not text)
        raise MalformedMessage(f"header {missing!r} is missing")
    step, attempt, reply_partition, sent_at, deadline, heartbeat = layout.numbers(values)
    return CommandMessage(
        saga_id,
        run,
        saga_type,
        command_type,
        _whole_number(h.STEP, step),
        cast(Direction, direction),
        _whole_number(h.ATTEMPT, attempt or b"1"),
        key,
        value or b"",
        reply_to,
        _whole_number(h.REPLY_PARTITION, reply_partition),
        _whole_number(h.SENT_AT, sent_at or b"0"),
        _whole_number(h.DEADLINE, deadline) if deadline else None,
        traceparent or None,
        layout.echoed(pairs),
        _read_completion(pairs, value) if layout.completes else None,
        _whole_number(h.HEARTBEAT_MS, heartbeat) if heartbeat else None,
        details,
        baggage or None,
    )


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _whole_number(name: str, content: bytes) -> int:
    if content.isdigit() and len(content) <= 18:
        return int(content)
    return h.whole_number({name: content.decode(errors="replace")}, name)


def _read_completion(headers: RawHeaders, value: bytes | None) -> ReplyMessage:
    found = h.read_headers(headers)
    outcome = found.get(h.OUTCOME, "")
    if outcome not in (Outcome.SUCCESS, Outcome.FAILURE):
        raise MalformedMessage(f"work is completed by success or failure, not {outcome[:40]!r}")
    error_type, error_message = found.get(h.ERROR_TYPE, ""), found.get(h.ERROR_MESSAGE, "")
    return ReplyMessage(Outcome(outcome), value or b"", error_type, error_message)


def reply_headers(command: CommandMessage, reply: ReplyMessage) -> list[tuple[str, bytes]]:
    """The headers of a reply: those of the command that a reply echoes, and the outcome."""
    headers = [*command.echoed, _OUTCOMES[reply.outcome]]
    if reply.error_type:
        headers.append((h.ERROR_TYPE, h.shorten(reply.error_type, 256).encode()))
    if reply.error_message:
        headers.append((h.ERROR_MESSAGE, h.shorten(reply.error_message).encode()))
    if reply.retry_after_ms is not None:
        headers.append((h.RETRY_AFTER_MS, str(reply.retry_after_ms).encode()))
    return headers
