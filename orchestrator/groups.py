"""What a saga runs at the same time, and when that is over.

A branch is a step, a pause, a wait for a signal, or a coroutine of any of them, groups too. What a group may bear is
`StepFailed`; any other error of a branch ends the group and is raised. A group that ends early cancels the branches
that are still open, and waits for what they clean up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, overload

from orchestrator.errors import DefinitionError, StepFailed
from orchestrator.model.groups import LOST, Together

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Done(Generic[A]):
    """A branch that succeeded, where others may have failed."""

    value: A


_Either = Done[A] | StepFailed
_Of2 = tuple[Literal[0], A] | tuple[Literal[1], B]
_Of3 = _Of2[A, B] | tuple[Literal[2], C]
_Of4 = _Of3[A, B, C] | tuple[Literal[3], D]
_Of5 = _Of4[A, B, C, D] | tuple[Literal[4], E]


class _Later(Generic[A, B]):
    """A branch that is made of its item when it begins."""

    __slots__ = ("_function", "_item")

    def __init__(self, function: Callable[[A], Awaitable[B]], item: A) -> None:
        self._function = function
        self._item = item

    def __await__(self) -> Generator[Any, Any, B]:
        return (yield from self._function(self._item).__await__())


class Groups:
    """The groups that a saga's code may await."""

    @overload
    async def gather(self, a: Awaitable[A], /) -> tuple[A]: ...
    @overload
    async def gather(self, a: Awaitable[A], b: Awaitable[B], /) -> tuple[A, B]: ...
    @overload
    async def gather(self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /) -> tuple[A, B, C]: ...
    @overload
    async def gather(
        self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], /
    ) -> tuple[A, B, C, D]: ...
    @overload
    async def gather(
        self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], e: Awaitable[E], /
    ) -> tuple[A, B, C, D, E]: ...
    @overload
    async def gather(self, *branches: Awaitable[A]) -> tuple[A, ...]: ...
    async def gather(self, *branches: Awaitable[Any]) -> tuple[Any, ...]:
        """Runs all; gives their results in order.

        The first that fails cancels the others, waits for them, and is raised.
        """
        return tuple(await Together(branches))

    @overload
    async def settle(self, a: Awaitable[A], /) -> tuple[_Either[A]]: ...
    @overload
    async def settle(self, a: Awaitable[A], b: Awaitable[B], /) -> tuple[_Either[A], _Either[B]]: ...
    @overload
    async def settle(
        self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /
    ) -> tuple[_Either[A], _Either[B], _Either[C]]: ...
    @overload
    async def settle(
        self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], /
    ) -> tuple[_Either[A], _Either[B], _Either[C], _Either[D]]: ...
    @overload
    async def settle(
        self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], e: Awaitable[E], /
    ) -> tuple[_Either[A], _Either[B], _Either[C], _Either[D], _Either[E]]: ...
    @overload
    async def settle(self, *branches: Awaitable[A]) -> tuple[_Either[A], ...]: ...
    async def settle(self, *branches: Awaitable[Any]) -> tuple[Any, ...]:
        """Runs all to their ends; gives for each in order `Done` with its result, or the `StepFailed` it ended by."""
        return _either(await Together(branches, tolerated=len(branches)))

    @overload
    async def race(self, a: Awaitable[A], b: Awaitable[B], /) -> _Of2[A, B]: ...
    @overload
    async def race(self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /) -> _Of3[A, B, C]: ...
    @overload
    async def race(self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], /) -> _Of4[A, B, C, D]: ...
    @overload
    async def race(
        self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], e: Awaitable[E], /
    ) -> _Of5[A, B, C, D, E]: ...
    @overload
    async def race(self, *branches: Awaitable[A]) -> tuple[int, A]: ...
    async def race(self, *branches: Awaitable[Any]) -> tuple[int, Any]:
        """Runs until the first ends; gives its place and its result, or raises what it failed with.

        The others are cancelled.
        """
        return await _first(branches, 0)

    @overload
    async def any(self, a: Awaitable[A], b: Awaitable[B], /) -> _Of2[A, B]: ...
    @overload
    async def any(self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /) -> _Of3[A, B, C]: ...
    @overload
    async def any(self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], /) -> _Of4[A, B, C, D]: ...
    @overload
    async def any(
        self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], e: Awaitable[E], /
    ) -> _Of5[A, B, C, D, E]: ...
    @overload
    async def any(self, *branches: Awaitable[A]) -> tuple[int, A]: ...
    async def any(self, *branches: Awaitable[Any]) -> tuple[int, Any]:
        """Runs until the first succeeds; gives its place and its result. The others are cancelled.

        Where all fail, the last failure is raised.
        """
        return await _first(branches, len(branches) - 1)

    async def some(self, branches: Iterable[Awaitable[A]], *, successes: int) -> tuple[A, ...]:
        """Runs until so many have succeeded; gives their results, in the order of the branches.

        The others are cancelled. Raises the failure with which it became impossible, or `DefinitionError` where
        `successes` cannot be, or the branches are a set.
        """
        check_order(branches, "a list")
        together = tuple(branches)
        if not 0 < successes <= len(together):
            raise DefinitionError(f"of {len(together)} branches {successes} are to succeed: at least one, at most all")
        results = await Together(together, successes, len(together) - successes)
        return tuple(result for result in results if result is not LOST and not isinstance(result, StepFailed))

    @overload
    async def each(
        self, items: Iterable[A], function: Callable[[A], Awaitable[B]], *, concurrency: int = 10
    ) -> tuple[B, ...]: ...
    @overload
    async def each(
        self,
        items: Iterable[A],
        function: Callable[[A], Awaitable[B]],
        *,
        concurrency: int = 10,
        tolerated_failures: int,
    ) -> tuple[_Either[B], ...]: ...
    @overload
    async def each(
        self,
        items: Iterable[A],
        function: Callable[[A], Awaitable[B]],
        *,
        concurrency: int = 10,
        tolerated_share: float,
    ) -> tuple[_Either[B], ...]: ...
    async def each(
        self,
        items: Iterable[A],
        function: Callable[[A], Awaitable[Any]],
        *,
        concurrency: int = 10,
        tolerated_failures: int | None = None,
        tolerated_share: float | None = None,
    ) -> tuple[Any, ...]:
        """Runs `function` on every item, `concurrency` at a time; gives the results in the order of the items.

        So many may fail, or that share of them (0.05: one in twenty), not both: then it gives `Done` or `StepFailed`
        for each. One failure more cancels the others, waits for them, and is raised. Raises `DefinitionError` where
        `concurrency` is below 1, `tolerated_failures` below 0, or `tolerated_share` not between 0 and 1, and for a
        set, which has no order that a replay would find again.
        """
        check_order(items, "sorted(...)")
        branches = tuple(_Later(function, item) for item in items)
        check_limits(concurrency, tolerated_failures, tolerated_share)
        if tolerated_failures is not None and tolerated_share is not None:
            raise DefinitionError(f"{tolerated_failures=} and {tolerated_share=}: give one of them, not both")
        tolerated = (
            tolerated_of(tolerated_share or 0, len(branches)) if tolerated_failures is None else tolerated_failures
        )
        results = await Together(branches, None, tolerated, concurrency)
        return tuple(results) if tolerated_failures is tolerated_share is None else _either(results)


def check_order(items: object, instead: str) -> None:
    """Raises `DefinitionError` for a set: after a take-over its results would belong to other items."""
    if isinstance(items, set | frozenset):
        raise DefinitionError(f"a {type(items).__name__} has another order in each process: give {instead}")


def check_limits(concurrency: int, tolerated_failures: int | None, tolerated_share: float | None) -> None:
    """Raises `DefinitionError` where no `each` could have these."""
    if concurrency < 1 or (tolerated_failures or 0) < 0 or not 0 <= (tolerated_share or 0) <= 1:
        raise DefinitionError(
            f"concurrency={concurrency} must be at least 1, tolerated_failures={tolerated_failures} at least 0, "
            f"tolerated_share={tolerated_share} between 0 and 1 (0.05: one in twenty)"
        )


def tolerated_of(share: float, count: int) -> int:
    """How many of `count` a share between 0 and 1 lets fail: the most whose own share is not above it."""
    most = int(share * count)  # one too few where the product was rounded down, as 0.29 * 100 is
    return most + 1 if most < count and (most + 1) / count <= share else most


def _either(results: list[Any]) -> tuple[Any, ...]:
    return tuple(result if isinstance(result, StepFailed) else Done(result) for result in results)


async def _first(branches: tuple[Awaitable[Any], ...], tolerated: int) -> tuple[int, Any]:
    if not branches:
        raise DefinitionError("of no branches none can be the first")
    results = await Together(branches, 1, tolerated)
    return next(
        (i, result) for i, result in enumerate(results) if result is not LOST and not isinstance(result, StepFailed)
    )
