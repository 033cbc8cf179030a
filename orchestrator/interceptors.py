"""What stands around a saga's code, the same for many sagas: `class Order(Saga[In, Out], around=[Audited()])`.

It belongs to the code and is replayed with it, so the same rules bind it: no clock, no IO, only what it is given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from orchestrator.errors import DefinitionError
from orchestrator.model.definition import StepRequest

if TYPE_CHECKING:
    from orchestrator.saga import Saga


class Around:
    """Base of what stands around a saga's code. As it is, it changes nothing."""

    async def run(self, saga: Saga[Any, Any], input: Any, go_on: Callable[[Any], Awaitable[Any]]) -> Any:
        """Around the whole run: await `go_on(input)` for the result. May await steps of its own, by `saga.step`."""
        return await go_on(input)

    def step(self, saga: Saga[Any, Any], request: StepRequest) -> StepRequest:
        """Each step as it is asked for, to be passed on as it is or changed, by `dataclasses.replace`."""
        return request


def read_around(saga: str, given: Iterable[Around]) -> tuple[Around, ...]:
    """What a class says as its `around`. Raises `DefinitionError` for what is no object of `Around`."""
    around = tuple(given)
    for each in around:
        if not isinstance(each, Around):
            raise DefinitionError(
                f"{saga}: around=[...] takes objects of classes derived from orchestrator.interceptors.Around, "
                f"not {each!r}"
            )
    return around
