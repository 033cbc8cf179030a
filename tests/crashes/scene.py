"""What happens in a run: two errands, one of which is undone, each with a timer and a local step, and one service."""

from __future__ import annotations

from pydantic import BaseModel

from orchestrator.errors import Failure
from orchestrator.model.definition import Definition
from orchestrator.model.versions import by_type
from orchestrator.participant import HandlerContext, Participant
from orchestrator.saga import Saga
from orchestrator.sagas.books import bookkeeper, connecting, enter
from orchestrator.service import Service, command

SERVICE = "desk"
PARTITIONS = 1
DECLINED_FROM_CENTS = 1_000
PAUSE_S = 0.03


class Wish(BaseModel):
    id: str
    cents: int


WISHES = {
    "bought": (Wish(id="bought", cents=900), "COMPLETED"),
    "declined": (Wish(id="declined", cents=5_000), "COMPENSATED"),
}
"""By saga id: what it is given, and how it must end."""
EARLIER = {"earlier": (Wish(id="earlier", cents=700), "COMPLETED")}
FURTHER = (Wish(id="further", cents=700), "COMPLETED")
"""What a worker with snapshots and an archive finds when it begins; and more, where its journal rests."""


class Desk(Service):
    reserve = command(Wish, str)
    release = command(Wish)
    charge = command(Wish, str)
    refund = command(Wish)
    ship = command(Wish, str)


def stamp(wish: str) -> str:
    return f"stamp of {wish}"


def unstamp(stamped: str | None, wish: str) -> None:
    """Nothing to be taken back; that it is called is what counts."""


class Errand(Saga[Wish, str]):
    async def run(self, wish: Wish) -> str:
        await self.step(Desk.reserve(id=wish.id, cents=wish.cents), undo=Desk.release)
        await self.sleep(PAUSE_S)
        await self.local(stamp, wish.id, undo=unstamp)
        await self.step(Desk.charge(id=wish.id, cents=wish.cents), undo=Desk.refund)
        return await self.step(Desk.ship(id=wish.id, cents=wish.cents), pivot=True)


def definitions() -> dict[str, Definition]:
    return by_type([Errand.definition])


def participant(memory: str) -> Participant:
    """The desk, which keeps a book as `orchestrator.sagas.books` does.

    `memory` is "inbox": the book's transaction holds the idempotency key too; or "ledger": it does not, so an effect
    may happen again under the same key.
    """
    made = bookkeeper(Desk) if memory == "inbox" else Participant(Desk)

    def write(context: HandlerContext, entry: str) -> None:
        if memory == "inbox":
            enter(context, entry)
            return
        book = connecting(SERVICE)()
        try:
            book.execute(
                "INSERT INTO book (key, saga_id, run, step, direction, entry) VALUES (?, ?, ?, ?, ?, ?)",
                (context.idempotency_key, context.saga_id, context.run, context.step, context.direction, entry),
            )
        finally:
            book.close()

    @made.handles(Desk.reserve)
    def reserve(wish: Wish, context: HandlerContext) -> str:
        write(context, "reserved")
        return "reserved"

    @made.handles(Desk.release)
    def release(wish: Wish, context: HandlerContext) -> None:
        write(context, "released")

    @made.handles(Desk.charge)
    def charge(wish: Wish, context: HandlerContext) -> str:
        if wish.cents >= DECLINED_FROM_CENTS:
            raise Failure("CardDeclined", "too much")
        write(context, "charged")
        return "charged"

    @made.handles(Desk.refund)
    def refund(wish: Wish, context: HandlerContext) -> None:
        write(context, "refunded")

    @made.handles(Desk.ship)
    def ship(wish: Wish, context: HandlerContext) -> str:
        write(context, "shipped")
        return "shipped"

    return made
