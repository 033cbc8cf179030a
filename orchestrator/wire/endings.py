"""How a function that users wrote has ended, as the reply that says so: a handler's, or a local step's."""

from __future__ import annotations

from orchestrator.errors import Failure, RetryLater
from orchestrator.model.messages import Outcome
from orchestrator.wire import headers as h
from orchestrator.wire.commands import ReplyMessage


def reply_to(error: BaseException) -> ReplyMessage:
    """What an exception answers: `Failure` a failure, everything else that it may be tried again."""
    if isinstance(error, Failure):
        return ReplyMessage(Outcome.FAILURE, b"", clean(error.error_type) or "Failure", clean(error.message))
    if isinstance(error, RetryLater):
        after_ms = None if error.after is None else max(0, round(error.after * 1000))
        return ReplyMessage(Outcome.RETRY, b"", clean(error.error_type) or "RetryLater", clean(error.message), after_ms)
    try:
        message = str(error)
    except Exception:
        message = "its text cannot be had"
    return retry(type(error).__name__, message)


def retry(error_type: str, message: str) -> ReplyMessage:
    """The reply that it may be tried again."""
    return ReplyMessage(Outcome.RETRY, b"", clean(error_type), clean(message))


def clean(text: object) -> str:
    """Text that fits into a header: valid UTF-8 (an error may quote a file name that is not), at most 4 KiB."""
    return h.shorten(str(text).encode(errors="replace").decode())
