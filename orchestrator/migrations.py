"""What newer code of a saga gets of a run that older code has brought so far: see `Saga.migrate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.service import Command

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run of an older version of the code, of which nothing is in flight.

    `input` is its input as plain JSON: the older version's model need not exist any more.
    """

    version: int
    input: Any
    _done: tuple[tuple[str, str, bytes], ...]

    def results(self, command: Command[..., Any, R]) -> list[R]:
        """The replies of all its steps with this command that are done, the first one first.

        Raises `pydantic.ValidationError` where one is not what the command answers today.
        """
        return [
            command.decode(payload)
            for service, name, payload in self._done
            if (service, name) == (command.service, command.name)
        ]

    def has_done(self, command: Command[..., Any, Any]) -> bool:
        """Whether a step with this command is done."""
        return any((service, name) == (command.service, command.name) for service, name, _ in self._done)
