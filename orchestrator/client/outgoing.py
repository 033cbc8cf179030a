"""What goes out of a client, as the functions around it see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A start, a signal, an update or a query on its way out, as a client's `around` functions see it.

    They may change payload (JSON in bytes) and `baggage` (of a start), by `dataclasses.replace`, or raise to refuse.
    `name` is the saga's type, or the name of the signal, the update (an entity's operation is one) or the query; the
    payload of the last two holds their arguments by name.
    """

    kind: Literal["start", "signal", "update", "query"]
    saga_id: str
    name: str
    payload: bytes
    baggage: Mapping[str, str] = field(default_factory=dict)
