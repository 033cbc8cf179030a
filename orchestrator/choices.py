"""Options that are one of a few words."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from orchestrator.errors import DefinitionError, SagaError

E = TypeVar("E", bound=StrEnum)


def chosen(kind: type[E], value: str, option: str, error: type[SagaError] = DefinitionError) -> E:
    """The member that `value` is, or whose text or name it is. Raises `error`, which names the choices."""
    for member in kind:
        if value in (member, member.name):
            return member
    raise error(f"{option} is {kind.__name__}.{f', {kind.__name__}.'.join(kind.__members__)}, not {value!r}")
