"""Signals by a business key: what is said to the saga that keeps a key, which is the key's only owner.

A key of a signal is the id of a small saga, `orchestrator.correlator`, on the key's own partition. Who listens for the
key tells it so, who sends tells it what; it passes everything on, or keeps it for a while where nobody listens.
"""

from __future__ import annotations

import json
from typing import Any

from orchestrator.errors import DefinitionError
from orchestrator.signals import Signal

CORRELATOR = "saga.correlator"
"""The type of that saga."""
TOLD = "told"
"""The one signal that it takes, so that all it hears has an order."""
START = (CORRELATOR, b"{}")
"""What it is started with by the first who has something to say to it."""
DAY_MS = 86_400_000


def id_of(address: str, key: str) -> str:
    """The id of the saga that keeps this key of a signal, named by its address, such as `Order.paid`."""
    return f"saga.key/{address}/{key}"


def keeper_of(signal: Signal[Any], key: str) -> str:
    """The same for a declared signal. Raises `DefinitionError`."""
    if not key:
        raise DefinitionError(f"{signal!r}: a business key is not empty")
    return id_of(signal.address, key)


def listen(saga_id: str, name: str) -> bytes:
    """That a saga listens for the key, and by which signal's name it wants to hear."""
    return json.dumps({"hear": saga_id, "name": name}).encode()


def leave(saga_id: str) -> bytes:
    """That it listens no longer."""
    return json.dumps({"leave": saga_id}).encode()


def publish(payload: bytes, ttl_ms: int) -> bytes:
    """A value for whoever listens, which is kept for so long where nobody does."""
    return json.dumps({"payload": payload.decode(), "ttl_ms": ttl_ms}).encode()
