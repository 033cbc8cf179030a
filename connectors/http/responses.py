"""What an HTTP response says about a command: success, failure, or try again.

A *failure* tells the saga that no request under this key has had an effect and none ever will. So only statuses that
assert this are failures: those by which a server refuses a request before acting on it.
"""

from __future__ import annotations

import json
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx
from pydantic import ValidationError

from orchestrator.errors import Failure, RetryLater
from orchestrator.service import Command

RETRIED_4XX = frozenset({408, 421, 425, 429})
"""Statuses of the client's class that say: not now."""
FAILURES = frozenset(range(400, 500)) - RETRIED_4XX - {401, 403, 404, 407, 409}
"""Statuses that assert that the request was refused without an effect, unless the service is told otherwise.

Not among them: 401, 403, 404 and 407, which a proxy, a wrong base URL or an expired credential answers as well: until
that is put right the saga should wait, not compensate. Nor 409, by which many services say that another request with
the same key is still at work: that one may have its effect yet.
"""
MAX_BODY_BYTES = 256 * 1024
MAX_RETRY_AFTER_S = 3_600.0
"""What a server asks for beyond an hour is cut to it: a saga's deadlines are its own."""
_MAX_TEXT = 1_000


def outcome(
    command: Command[..., Any, Any], response: httpx.Response, body: bytes, failures: frozenset[int], now_s: float
) -> Any:
    """The reply that a response carries. Raises `Failure` or `RetryLater`; `now_s` is seconds since 1970."""
    status = response.status_code
    if 200 <= status < 300:
        return _reply(command, status, body)
    kind, text = problem(status, response.headers.get("content-type", ""), body)
    if status in failures:
        raise Failure(kind, text)
    raise RetryLater(retry_after_s(response.headers.get("retry-after"), now_s), kind, text)


def _reply(command: Command[..., Any, Any], status: int, body: bytes) -> Any:
    """The body as the command's reply type; one that does not fit is no failure, for the effect is there."""
    if command.reply is None:
        return None
    try:
        return command.decode(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[:5]
        lines = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in found]
        raise RetryLater(None, "BadReply", f"{status}: the body does not fit: {'; '.join(lines)}") from None


def problem(status: int, content_type: str, body: bytes) -> tuple[str, str]:
    """Error type and message of a refusal: those of a problem document (RFC 9457), else the status's name.

    The last part of the document's `type` names the error: `https://example.com/problems/card-declined` is
    `CardDeclined`; where it is missing or `about:blank` the title does.
    """
    name = _status_name(status)
    if content_type.partition(";")[0].strip().lower() not in ("application/problem+json", "application/json"):
        return name, f"HTTP {status}"
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return name, f"HTTP {status}"
    if not isinstance(document, dict):
        return name, f"HTTP {status}"
    uri, title, detail = (_text(document.get(member)) for member in ("type", "title", "detail"))
    if uri and uri != "about:blank":
        name = _camel(re.split(r"[/#:?]", uri.rstrip("/#:?"))[-1]) or name
    elif title:
        name = _camel(title) or name
    return name, detail or title or f"HTTP {status}"


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """The wait that a Retry-After header asks for, in seconds; None where it asks for none that can be understood."""
    if header is None:
        return None
    text = header.strip()
    if re.fullmatch(r"[0-9]{1,18}", text):
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        when = parsedate_to_datetime(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return min(max(0.0, when.timestamp() - now_s), MAX_RETRY_AFTER_S)
    except (ValueError, TypeError, OverflowError):
        return None


def _status_name(status: int) -> str:
    try:
        return _camel(HTTPStatus(status).phrase) or f"Http{status}"
    except ValueError:
        return f"Http{status}"


def _camel(text: str) -> str:
    """`card-declined` → `CardDeclined`; what is one word already keeps its capitals."""
    return "".join(word[:1].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", text))[:100]


def _text(value: object) -> str:
    return value[:_MAX_TEXT] if isinstance(value, str) else ""
