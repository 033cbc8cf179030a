"""What newer code of a saga gets of a run that older code has brought so far: see `Saga.migrate`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self, TypeVar

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

    @classmethod
    def of(cls, version: int, input: Any, *done: tuple[Command[..., Any, Any], Any]) -> Self:
        """One to test a hook with: `Shop.migrate(PastRun.of(1, {"id": "o-1"}, (Payments.charge, receipt)))`.

        `done` are the commands that are done with their replies, in their order. Raises `TypeError` where `input` is
        not plain JSON (of a model it is `order.model_dump(mode="json")`), `pydantic.ValidationError` where a reply is
        not the command's.
        """
        results = tuple((command.service, command.name, command.encode(reply)) for command, reply in done)
        return cls(version, json.loads(json.dumps(input)), results)

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
