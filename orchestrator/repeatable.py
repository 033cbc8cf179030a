"""What a saga's code may know of its run: the same on every replay."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from orchestrator.baggage import read_baggage
from orchestrator.errors import DefinitionError
from orchestrator.model.definition import Context

A = TypeVar("A")
B = TypeVar("B")


class RepeatableMethods:
    """What is the same on every replay: time, randomness, patches. Base of `Saga`."""

    _context: Context
    _random: tuple[str, random.Random] | None = None

    def _apart(self, function: Callable[[A], B]) -> Callable[[A], B]:
        """The function, leaving `random` as it was: it is called when a reply comes, but by no replay."""

        def call(argument: A) -> B:
            before = self._random
            state = before[1].getstate() if before is not None else None
            try:
                return function(argument)
            finally:
                self._random = before
                if before is not None and state is not None:
                    before[1].setstate(state)

        return call

    @property
    def id(self) -> str:
        """The saga id."""
        return self._context.saga_id

    @property
    def baggage(self) -> Mapping[str, str]:
        """What the saga was started with beside its input, such as a tenant; every handler gets it too."""
        return read_baggage(self._context.baggage)

    def now(self) -> datetime:
        """The time at which the saga was woken last, in UTC. The same on every replay."""
        return datetime.fromtimestamp(self._context.now_ms / 1000, UTC)

    def patched(self, name: str) -> bool:
        """Whether this run goes the changed way: `if self.patched("fraud-check"): await self.step(...)`.

        True where the run comes here for the first time with this code, and from then on; False where it came here
        before, under older code. The first answer for a name holds for the whole run.
        """
        return self._context.patched(_patch(name))

    def deprecate_patch(self, name: str) -> None:
        """Instead of `patched`, once no run is left that goes the old way: the code has only the changed one.

        When no run is left that was patched, the call may go too.
        """
        self._context.deprecate_patch(_patch(name))

    @property
    def random(self) -> random.Random:
        """Randomness seeded by the run: the same on every replay."""
        seed = self._context.seed
        if self._random is None or self._random[0] != seed:
            self._random = seed, random.Random(seed)
        return self._random[1]

    def uuid(self) -> UUID:
        """A UUID (version 4) that is the same on every replay."""
        return UUID(int=self.random.getrandbits(128), version=4)


def _patch(name: str) -> str:
    given: object = name
    if not isinstance(given, str) or not given:
        raise DefinitionError(f"a patch has a name, such as 'check the card first', not {given!r}")
    return name
