"""Locks in tests: a key is free, unless the test says that somebody else holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from orchestrator.model import messages as msg
from orchestrator.model.locks import saga_of

OTHER = "somebody else"
"""Who holds the keys that the saga under test cannot have."""


def answer_of_lock(
    asked: msg.Update, caller: msg.Parent, held: Mapping[str, int | None], elapsed_ms: int
) -> tuple[int, msg.Called] | None:
    """What a key answers who asks for it, and in how many milliseconds; None: somebody else holds it for ever.

    `held`: how long somebody else holds which key from the start, in milliseconds; None: for ever.
    """
    free_ms = next((held_ms for key, held_ms in held.items() if saga_of(key) == asked.saga_id), 0)
    called = msg.Called(caller.saga_id, caller.run, caller.sequence, b"null")
    if free_ms is not None and free_ms <= elapsed_ms:
        return 0, called
    if json.loads(asked.payload)["at_once"]:
        refused = msg.Called(caller.saga_id, caller.run, caller.sequence, b"", "Locked", f"{OTHER} holds it")
        return 0, refused
    return None if free_ms is None else (free_ms - elapsed_ms, called)
