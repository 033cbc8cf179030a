"""What a saga's code may await: requests and conditions. Part of `model.driver`."""

from __future__ import annotations

from collections.abc import Callable, Generator

from orchestrator.model.definition import ChildRequest, StepRequest, WaitRequest
from orchestrator.model.frozen import frozen


@frozen
class Asked:
    """What code awaits to ask for a step or a wait; gives what came, None where the time was up first."""

    request: StepRequest | WaitRequest | ChildRequest

    def __await__(self) -> Generator[Asked, bytes | None, bytes | None]:
        return (yield self)


@frozen
class Until:
    """What code awaits until `condition()` holds, which it asks after everything that happens; gives whether it does.

    `condition` looks at the saga's own data only, and changes nothing.
    """

    condition: Callable[[], bool]
    timeout_ms: int | None = None

    def __await__(self) -> Generator[Until, bool, bool]:
        return self.condition() or (yield self) is True
