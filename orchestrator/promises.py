"""Promises: what somebody outside does for a saga, who says so when it is done.

    class Expense(Saga[Claim, str]):
        approval = promise(Decision)

        async def run(self, claim: Claim) -> str:
            approval = self.promise(Expense.approval)
            await self.step(Mail.ask(to=claim.boss, link=f"https://expenses/decide/{approval.token}"))
            decision = await self.receive(approval, timeout=timedelta(days=3))

It is settled by its token, or by the saga's id and its name: with a result, or by failing it. The first time counts,
and it may come before the saga waits for it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, TypeVar, overload

from orchestrator.model.definition import TOKEN_OF, Context, WaitRequest
from orchestrator.model.driver import Asked
from orchestrator.model.events import StepKind
from orchestrator.signals import Declared

S = TypeVar("S")


class Promise(Declared[S]):
    """One thing that somebody outside does, with the type of its result."""

    def named(self, key: str = "") -> str:
        """The name of the one for this key, where a saga has several of it."""
        return f"{self.name}/{key}" if key else self.name


@overload
def promise() -> Promise[None]: ...
@overload
def promise(model: type[S]) -> Promise[S]: ...
def promise(model: type[Any] | None = None) -> Promise[Any]:
    """Declares a promise of a saga; without a type it has no result but that it is done."""
    return Promise(model)


class Promised(Generic[S]):
    """A promise of one run. Awaiting gives its result, or raises `StepFailed` where it was failed."""

    __slots__ = ("_context", "_promise", "name")

    def __init__(self, promise: Promise[S], name: str, context: Context) -> None:
        self.name = name
        self._promise = promise
        self._context = context

    @property
    def token(self) -> str:
        """What settles it from outside, to be passed on: text without characters that a URL would quote. A secret."""
        make = lambda: self._context.sign(self.name).encode()  # noqa: E731
        return self._context.record(StepKind.VALUE, f"{TOKEN_OF}{self.name}", make).decode()

    def request(self, timeout_ms: int | None = None) -> WaitRequest:
        """What the code waits for."""
        return WaitRequest(StepKind.PROMISE, self.name, timeout_ms)

    def decode(self, payload: bytes) -> S:
        """Its result from bytes. Raises `pydantic.ValidationError`."""
        return self._promise.decode(payload)

    def __await__(self) -> Generator[Any, Any, S]:
        payload = yield from Asked(self.request()).__await__()
        return self.decode(payload or b"")
