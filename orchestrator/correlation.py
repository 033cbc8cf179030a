"""Signals by a business key: what is said to the saga that keeps a key, which is the key's only owner.

A key of a signal is the id of a small saga, `orchestrator.correlator`, on the key's own partition. Who listens for the
key tells it so, who sends tells it what; it passes everything on, or keeps it for a while where nobody listens.
"""

from __future__ import annotations

import json
from typing import Any

from orchestrator.errors import DefinitionError
from orchestrator.model.keys import CORRELATOR as CORRELATOR
from orchestrator.model.keys import START as START
from orchestrator.model.keys import TOLD as TOLD
from orchestrator.model.keys import listening as listening
from orchestrator.signals import Signal

DAY_MS = 86_400_000


def id_of(address: str, key: str) -> str:
    """The id of the saga that keeps this key of a signal, named by its address, such as `Order.paid`."""
    return f"saga.key/{address}/{key}"


def keeper_of(signal: Signal[Any], key: str) -> str:
    """The same for a declared signal. Raises `DefinitionError`."""
    if not key:
        raise DefinitionError(f"{signal!r}: a business key is not empty")
    return id_of(signal.address, key)


def publish(payload: bytes, ttl_ms: int) -> bytes:
    """A value for whoever listens, which is kept for so long where nobody does."""
    return json.dumps({"payload": payload.decode(), "ttl_ms": ttl_ms}).encode()
