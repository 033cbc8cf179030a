"""Work that is completed later: the token that a handler hands out, and the record that completes its command.

The record goes to the command's own partition, so that it is judged after the command and by the same memory. It bears
the headers that the command's reply would echo, where to reply, and the outcome; its value is the result. It counts
only with the command's reply token, which the owner signed: whoever has it may complete the command, nobody can guess
it. The token names the service, not a topic: a forged one reaches nothing but completions.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple

from orchestrator.model.messages import Outcome
from orchestrator.wire import headers as h
from orchestrator.wire.commands import CommandMessage

_FORM = 1
_NAMES = (*h.ECHOED, h.REPLY_TO, h.REPLY_PARTITION)


class Address(NamedTuple):
    """What a token says: where the completion goes, and the headers that it bears."""

    service: str
    partition: int
    headers: dict[str, str]

    @property
    def saga_id(self) -> str:
        """The saga whose step is completed."""
        return self.headers[h.SAGA_ID]


def write_token(service: str, partition: int, command: CommandMessage) -> str:
    """The token of a command on a partition of its service: text without characters that a URL would quote."""
    found = {name: content.decode(errors="replace") for name, content in command.echoed}
    found |= {h.REPLY_TO: command.reply_to, h.REPLY_PARTITION: str(command.reply_partition)}
    fields = [_FORM, service, partition, *(found.get(name) for name in _NAMES)]
    return urlsafe_b64encode(json.dumps(fields, separators=(",", ":")).encode()).rstrip(b"=").decode()


def read_token(token: str) -> Address:
    """Raises `ValueError` for what is no token."""
    try:
        fields = json.loads(urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4)))
        form, service, partition, *values = fields
        headers = {name: value for name, value in zip(_NAMES, values, strict=True) if value is not None}
        wrong = not all(isinstance(value, str) for value in (service, *headers.values()))
        wrong = wrong or form != _FORM or type(partition) is not int or partition < 0
        if wrong or h.SAGA_ID not in headers:
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"not a token of a pending command: {token[:40]!r}") from None
    return Address(service, partition, headers)


def completion_headers(
    address: Address, outcome: Outcome, error_type: str = "", error_message: str = ""
) -> list[tuple[str, bytes]]:
    """The headers of the record that completes a command by success or failure."""
    return h.write_headers(
        {
            **address.headers,
            h.OUTCOME: outcome.value,
            h.ERROR_TYPE: h.shorten(error_type, 256) or None,
            h.ERROR_MESSAGE: h.shorten(error_message) or None,
        }
    )
