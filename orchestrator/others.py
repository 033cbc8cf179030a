"""What a saga says to other sagas by their ids."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from orchestrator.correlation import START, TOLD, keeper_of, publish
from orchestrator.durations import Duration, milliseconds
from orchestrator.errors import DefinitionError
from orchestrator.model.definition import Context, SignalRequest
from orchestrator.model.ids import problem_of
from orchestrator.signals import Signal

if TYPE_CHECKING:
    from orchestrator.entities import Entity, EntityCaller

S = TypeVar("S")
N = TypeVar("N", bound="Entity[Any]")

DAY = timedelta(days=1)


class OtherMethods:
    """What a saga's code tells other sagas. Base of `Saga`."""

    _context: Context
    _apart: Callable[[Any], Any]

    def entity(self, kind: type[N], key: str) -> EntityCaller[N]:
        """The entity under a key, to be asked for operations. Raises `DefinitionError`."""
        from orchestrator.entities import EntityCaller  # which builds on sagas

        return EntityCaller(kind, key, self._context, self._apart)

    @overload
    def signal(self, id: str, signal: Signal[None], /) -> None: ...
    @overload
    def signal(self, id: str, signal: Signal[S], value: S, /) -> None: ...
    def signal(self, id: str, signal: Signal[Any], value: Any = None, /) -> None:
        """Tells the saga `id` something, exactly once and in the order of telling; nothing is waited for.

        It may come before that saga is started, which then has it for a day. What that saga cannot take (it has ended,
        the value does not fit) is in its history or among the dead letters. Nothing takes it back: where this saga is
        undone, what the other one was told stays told. Raises `DefinitionError`, `pydantic.ValidationError`.
        """
        self._context.tell(SignalRequest(checked_id(id), signal.name, signal.encode(value)))

    @overload
    def signal_by_key(self, signal: Signal[None], key: str, /, *, ttl: Duration = DAY) -> None: ...
    @overload
    def signal_by_key(self, signal: Signal[S], key: str, value: S, /, *, ttl: Duration = DAY) -> None: ...
    def signal_by_key(self, signal: Signal[Any], key: str, value: Any = None, /, *, ttl: Duration = DAY) -> None:
        """The same to the sagas that listen for a business key of the signal.

        Where none does it is kept for the first that will, for `ttl` (seconds or timedelta, a day).
        """
        told = publish(signal.encode(value), milliseconds(ttl))
        self._context.tell(SignalRequest(checked_id(keeper_of(signal, key)), TOLD, told, START))


def checked_id(id: str) -> str:
    """The same id. Raises `DefinitionError` where no saga can have it."""
    if (problem := problem_of(id)) is not None:
        raise DefinitionError(f"{id[:40]!r}: {problem}")
    return id
