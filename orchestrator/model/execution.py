"""What a decision is made of: a run with its live code, and what may be known of the world meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import field

from orchestrator.model.definition import Sign, unsigned
from orchestrator.model.driver import Driver
from orchestrator.model.frozen import frozen
from orchestrator.model.state import SagaState

SIGNAL_TTL_MS = 86_400_000
ENDED_KEEP_MS = 7 * 86_400_000


@frozen
class Moment:
    """What a decision may know of the world: the partition's clock, the place its record will have, topic sizes.

    `sent` says by target partition how many internal messages went there so far. `signal_ttl_ms`: how long a signal is
    kept for an id that nobody has started, `ended_keep_ms`: a saga after its end. `open_circuits`: services to which
    nothing is sent now. `paused`: the rules that stand. `sign` makes tokens of promises.
    """

    now_ms: int
    incarnation: int
    offset: int
    partitions: int
    signal_ttl_ms: int = SIGNAL_TTL_MS
    open_circuits: AbstractSet[str] = frozenset()
    paused: Collection[str] = ()
    sent: Mapping[str, int] = field(default_factory=dict)
    sign: Sign = unsigned
    ended_keep_ms: int = ENDED_KEEP_MS

    def due_ms(self, at_ms: int | None, after_ms: int | None) -> int | None:
        """A point of time, or so long after now; never before now. None where neither is said."""
        if at_ms is None:
            return None if after_ms is None else self.now_ms + after_ms
        return max(at_ms, self.now_ms)


class Execution:
    """A run and, where it is warm, its live code. `unconfirmed` counts its decisions that are not confirmed yet."""

    __slots__ = ("driver", "state", "unconfirmed")

    def __init__(self, state: SagaState) -> None:
        self.state = state
        self.driver: Driver | None = None
        self.unconfirmed = 0

    def detach(self) -> None:
        """Lets go of the live code; the next decision replays it."""
        if self.driver is not None:
            self.driver.detach()
            self.driver = None
