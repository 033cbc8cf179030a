"""The token of a promise: whoever has it settles the promise, nobody can guess it.

It says which promise it is, and bears an HMAC by the keys that sign reply tokens. In a record it stands in the header
`promise-token`; saga, run and name need not be said then.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple

from orchestrator.wire.tokens import TokenKeys

_FORM = 2
"""Form 1 is the token of a pending command."""


class PromiseAddress(NamedTuple):
    """Which promise a token is for, and its signature."""

    saga_id: str
    run: str
    name: str
    signature: str


def write_token(keys: TokenKeys, saga_id: str, run: str, name: str) -> str:
    """Text without characters that a URL would quote."""
    fields = [_FORM, saga_id, run, name, keys.sign_promise(saga_id, run, name)]
    return urlsafe_b64encode(json.dumps(fields, separators=(",", ":")).encode()).rstrip(b"=").decode()


def read_token(token: str) -> PromiseAddress:
    """Raises `ValueError` for what is no token of a promise. Whether it is genuine, `is_genuine` says."""
    try:
        form, *fields = json.loads(urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4)))
        if form != _FORM or not all(isinstance(value, str) and value for value in fields):
            raise ValueError
        return PromiseAddress(*fields)
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"not a token of a promise: {token[:40]!r}") from None


def is_genuine(keys: TokenKeys, token: str) -> bool:
    """Whether it was made with one of the keys, for the promise that it names."""
    try:
        address = read_token(token)
    except ValueError:
        return False
    return keys.verify_promise(address.signature, address.saga_id, address.run, address.name)
