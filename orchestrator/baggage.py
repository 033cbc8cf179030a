"""Baggage: small values that travel with a saga from its start to every handler, such as a tenant or a user.

On the wire it is one header in the W3C's form, `baggage: tenant=acme,user=u-7`, values percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

MAX_BAGGAGE_BYTES = 2_048
"""It is in every command of the saga, and in the history once."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def write_baggage(values: Mapping[str, str]) -> str | None:
    """The header's value, None for nothing. Raises `ValueError` for a name that is no token, or for too much."""
    for name in values:
        if not _NAME.fullmatch(name):
            raise ValueError(f"baggage: {name!r} is no name; use letters, digits and -._")
    text = ",".join(f"{name}={quote(value, safe='')}" for name, value in values.items())
    if len(text) > MAX_BAGGAGE_BYTES:
        raise ValueError(f"baggage has {len(text)} bytes as a header, at most {MAX_BAGGAGE_BYTES}")
    return text or None


def read_baggage(text: str | None) -> dict[str, str]:
    """What a header says; what is not of the form `name=value` is left out, properties of a value too."""
    found = {}
    for member in (text or "").split(","):
        name, is_pair, value = member.partition(";")[0].partition("=")
        if is_pair and name.strip():
            found[name.strip()] = unquote(value.strip())
    return found
