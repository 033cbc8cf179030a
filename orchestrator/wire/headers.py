"""The header contract: metadata of every message but journal and ledger is in Kafka headers, the payload is the value.

Names are lower case, values UTF-8. Of repeated headers the last wins. All headers of a record stay under 16 KiB.
A service that copies all headers of a command back into its reply and adds `outcome` takes part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

MESSAGE_ID = "message-id"
SAGA_ID = "saga-id"
SAGA_RUN = "saga-run"
SAGA_TYPE = "saga-type"
INPUT_TYPE = "input-type"
COMMAND_TYPE = "command-type"
STEP = "step"
DIRECTION = "direction"
IDEMPOTENCY_KEY = "idempotency-key"
ATTEMPT = "attempt"
REPLY_TO = "reply-to"
REPLY_PARTITION = "reply-partition"
REPLY_TOKEN = "reply-token"
CORRELATION_ID = "correlation-id"
DEADLINE = "deadline"
SENT_AT = "sent-at"
EPOCH = "epoch"
SOURCE_PARTITION = "source-partition"
TRACEPARENT = "traceparent"
BAGGAGE = "baggage"
OUTCOME = "outcome"
ERROR_TYPE = "error-type"
ERROR_MESSAGE = "error-message"
RETRY_AFTER_MS = "retry-after-ms"
HEARTBEAT_MS = "heartbeat-ms"
HEARTBEAT_DETAILS = "heartbeat-details"
START_AT = "start-at"
START_DELAY_MS = "start-delay-ms"
PROMISE = "promise"
PROMISE_TOKEN = "promise-token"
QUERY = "query"
UPDATE = "update"
UPDATE_ID = "update-id"
SIGNAL = "signal"
SIGNAL_VALUE = "signal-value"
REUSE = "reuse-policy"
CONFLICT = "conflict-policy"
NOTE = "saga-note"
CONTENT_TYPE = "content-type"

ECHOED = (
    SAGA_ID,
    SAGA_RUN,
    SAGA_TYPE,
    COMMAND_TYPE,
    STEP,
    DIRECTION,
    IDEMPOTENCY_KEY,
    ATTEMPT,
    REPLY_TOKEN,
    CORRELATION_ID,
    EPOCH,
    TRACEPARENT,
)
"""What a reply repeats of its command. More does no harm."""

MAX_HEADER_BYTES = 16 * 1024
PASSAGE_BYTES = 2 * 1024
"""Room beside these for what is added to a record that goes on to another partition."""
MAX_ERROR_MESSAGE_BYTES = 4 * 1024
MAX_DETAILS_BYTES = 4 * 1024
"""Of a heartbeat: they travel in a header of the next attempt."""


class MalformedMessage(Exception):
    """A record that does not follow the header contract. The message says what is wrong and where."""


def read_headers(headers: Iterable[tuple[str, bytes | None]], most: int = MAX_HEADER_BYTES) -> dict[str, str]:
    """Headers as text by lower-case name, the last of repeated ones. Raises `MalformedMessage`."""
    given = tuple(headers)
    raw = dict(given)
    names = "".join(raw)
    try:
        # Nearly always every name comes once and in lower case, and every value is there and text.
        size = len(names) + sum(map(len, raw.values()))  # type: ignore[arg-type]
        found = dict(zip(raw, map(bytes.decode, raw.values()), strict=True))  # type: ignore[arg-type]
        plain = len(raw) == len(given) and names == names.lower()
    except (TypeError, UnicodeDecodeError):
        plain = False
    if not plain:
        size, found = _read_any(given)
    if size > most:
        raise MalformedMessage(f"the headers have {size} bytes, at most {most}")
    return found


def _read_any(headers: Iterable[tuple[str, bytes | None]]) -> tuple[int, dict[str, str]]:
    """Headers of tracing and connectors may be binary or repeated; only ours must be text."""
    size = 0
    found: dict[str, str] = {}
    for name, value in headers:
        size += len(name) + len(value or b"")
        try:
            found[name.lower()] = "" if value is None else value.decode()
        except UnicodeDecodeError:
            found.pop(name.lower(), None)
    return size, found


@lru_cache(maxsize=16_384)
def header(name: str, value: str | int) -> tuple[str, bytes]:
    """One header whose value comes again and again; others make their tuple themselves."""
    return name, str(value).encode()


def write_headers(values: Mapping[str, str | int | None]) -> list[tuple[str, bytes]]:
    """Headers from text and whole numbers; None leaves one out."""
    return [(name, str(value).encode()) for name, value in values.items() if value is not None]


def need(headers: Mapping[str, str], name: str) -> str:
    """A header that must be there. Raises `MalformedMessage`."""
    value = headers.get(name)
    if not value:
        raise MalformedMessage(f"header {name!r} is missing")
    return value


def whole_number(headers: Mapping[str, str], name: str, default: int | None = None) -> int:
    """A header that must be a whole number of at most 18 digits. Raises `MalformedMessage`."""
    value = headers.get(name)
    if not value:
        if default is not None:
            return default
        raise MalformedMessage(f"header {name!r} is missing")
    if len(value) <= 18 and value.isascii() and value.isdigit():
        return int(value)
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise MalformedMessage(f"header {name!r} must be a whole number, not {value[:40]!r}")
    return int(value)


def shorten(text: str, limit: int = MAX_ERROR_MESSAGE_BYTES) -> str:
    """Text cut to at most `limit` bytes of UTF-8."""
    if len(text) * 4 <= limit:
        return text
    encoded = text.encode()
    return text if len(encoded) <= limit else encoded[: limit - 3].decode(errors="ignore") + "…"
