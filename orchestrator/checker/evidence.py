"""What the checker looks at: raw records of every topic, what clients were told, what services did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.log.base import Record
from orchestrator.model.ids import Direction

Raw = Mapping[int, Sequence[Record]]
"""A topic's records by partition."""


@dataclass(frozen=True, slots=True)
class ServiceEffect:
    """One effect that a service had, in the order of its own record (`at`)."""

    at: int
    service: str
    key: str
    saga_id: str
    run: str
    sequence: int
    direction: Direction


@dataclass(frozen=True, slots=True)
class Told:
    """What a client was told of one start. `accepted`: True, False, or None where it never heard."""

    saga_id: str
    accepted: bool | None
    status: str | None = None


@dataclass(slots=True)
class Evidence:
    """Everything after quiescence. Topics are given by role; `commands` by service.

    `once` names the services that commit the idempotency key with their effect: of them one effect a key is demanded.
    `settled`: every input is consumed and nothing is under way, so that every saga must have its outcome. `healed_ms`:
    since when nothing was broken any more, None where nobody knows.
    """

    partitions: int
    journal: Raw
    inbox: Raw
    replies: Raw
    internal: Raw
    operations: Raw
    answers: Raw
    dead_letters: Raw
    commands: Mapping[str, Raw]
    told: Sequence[Told] = ()
    effects: Sequence[ServiceEffect] = ()
    once: frozenset[str] = frozenset()
    settled: bool = True
    healed_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where and when something was violated, as far as it is known: an offset of the partition's journal, or a span of

    time in milliseconds since 1970.
    """

    partition: int | None = None
    offset: int | None = None
    first_ms: int | None = None
    last_ms: int | None = None


@dataclass(slots=True)
class Verdict:
    """What was found. No violation: `violations` is empty. `places`: of those whose words alone do not say where."""

    violations: list[str] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    decisions: int = 0
    sagas: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    absorbed: int = 0
    dropped: int = 0
    effects: int = 0
    transitions: set[tuple[str, str]] = field(default_factory=set)

    def blame(self, invariant: str, what: str, place: Place | None = None) -> None:
        """Records a violation of one invariant."""
        self.violations.append(f"{invariant}: {what}")
        if place is not None:
            self.places[self.violations[-1]] = place
