"""The sagas of the scenarios that are no orders, and the one service that they ask."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel

from orchestrator.saga import Saga
from orchestrator.service import Service, command
from orchestrator.signals import signal


class Turn(BaseModel):
    number: int


class Tools(Service):
    turn = command(Turn, int)


def following(number: int) -> int:
    """What a local step does: next to nothing."""
    return number + 1


class LocalOnly(Saga[int, int]):
    """Three local steps: no service is asked."""

    async def run(self, number: int) -> int:
        for _ in range(3):
            number = await self.local(following, number)
        return number


class InTurn(Saga[int, int]):
    """So many steps in a service, one after the other."""

    async def run(self, steps: int) -> int:
        last = 0
        for number in range(steps):
            last = await self.step(Tools.turn(number=number))
        return last


class FanOut(Saga[int, int]):
    """So many steps at once."""

    async def run(self, width: int) -> int:
        done = await self.gather(*[self.step(Tools.turn(number=number)) for number in range(width)])
        return len(done)


class Told(Saga[int, int]):
    """Waits for so many signals."""

    word = signal(int)

    async def run(self, words: int) -> int:
        heard = 0
        for _ in range(words):
            heard += await self.receive(Told.word)
        return heard


class Sleeper(Saga[float, None]):
    """Sleeps until a time in seconds since 1970."""

    async def run(self, when: float) -> None:
        await self.sleep_until(datetime.fromtimestamp(when, UTC))
