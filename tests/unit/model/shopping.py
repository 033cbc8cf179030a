"""Sagas that several test files play. `Shopping` is for others to vary: it gets things, and notes what it cleans up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from model.play import Play
from model.shop import Shop
from orchestrator.errors import StepFailed
from orchestrator.model import events as ev
from orchestrator.saga import Retry, Saga


class Shopping(Saga[None, str]):
    async def run(self, _: None) -> str:
        raise NotImplementedError

    async def get(self, what: str) -> str:
        return await self.step(Shop.reserve(what=what), undo=Shop.release)

    async def note(self, what: str) -> None:
        await self.step(Shop.note(what=what))

    async def tidily(self, what: str) -> None:
        try:
            await self.get(what)
        finally:
            await self.note(f"cleaned up {what}")


class TidyGroup(Shopping):
    async def run(self, _: None) -> str:
        await self.gather(self.tidily("a"), self.tidily("b"), self.get("c"))
        return "done"


class Plain(Saga[str, str]):
    async def run(self, what: str) -> str:
        stock = await self.step(Shop.reserve(what=what), undo=Shop.release)
        receipt = await self.step(Shop.charge(what=stock), undo=lambda r: Shop.refund(receipt=r))
        return f"{stock} {receipt.number}"


class Careful(Saga[None, str]):
    """Sees a failure and goes on."""

    async def run(self, _: None) -> str:
        try:
            await self.step(
                Shop.reserve(what="tea"),
                undo=Shop.release,
                retry=Retry(maximum_attempts=3),
                start_to_close=10,
                schedule_to_close=timedelta(seconds=60),
            )
        except StepFailed as failed:
            note = f"{failed.error_type} unknown={failed.unknown}"
        else:
            note = "fine"
        await self.step(Shop.note(what=note))
        return note


class Two(Saga[None, str], name="Order"):
    async def run(self, _: None) -> str:
        first = await self.step(Shop.reserve(what="a"), undo=Shop.release)
        second = await self.step(Shop.reserve(what="b"), undo=Shop.release)
        return first + second


def started(saga: type[Saga[Any, Any]], value: object = None, **options: Any) -> Play:
    play = Play(saga, **options)
    play.start(value)
    return play


def asked(play: Play) -> list[str]:
    return [event.payload.decode()[9:-2] for event in play.of(ev.StepScheduled)]
