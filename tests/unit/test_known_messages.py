"""Of a saga that never ends, the newest external inputs are known, and the newest that had a run of it begin."""

from itertools import pairwise
from random import Random

import pytest

from orchestrator.model import events as ev
from orchestrator.model.events import Status
from orchestrator.model.state import SagaState
from orchestrator.runtime import materialize
from orchestrator.runtime.materialize import Gathered, are_counted
from orchestrator.store import keys
from orchestrator.store.memory import MemoryStore, MemoryStores

KEPT = 5


@pytest.fixture(autouse=True)
def few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialize, "KEPT_MESSAGES", KEPT)
    monkeypatch.setattr(materialize, "COUNTED_EVERY", 1)


class Kept:
    """A store, and what decisions changed since it was written."""

    def __init__(self) -> None:
        self.store: MemoryStore = MemoryStores().open(0)
        self.gathered = Gathered()

    def take(self, offset: int, message_id: str, *events: ev.Event, saga_id: str = "cart") -> None:
        self.gathered.message(ev.Decision(saga_id, "1-0-0", 1_000, events, message_id), offset)

    def forget(self, offset: int, saga_id: str = "cart") -> None:
        state = SagaState(saga_id, "1-0-0")
        state.phase, state.forgotten = Status.COMPLETED, True
        self.gathered.run(state, offset)

    def write(self) -> None:
        self.store.write(self.gathered.changes(self.store))
        self.gathered = Gathered()

    def known(self, saga_id: str = "cart") -> set[str]:
        prefix = keys.messages(saga_id)
        return {key[len(prefix) :].decode() for key, _ in self.store.scan(prefix)}


def test_the_newest_are_known_and_what_began_a_run() -> None:
    kept = Kept()
    kept.take(0, "start", ev.SagaStarted("Cart", b"{}", "start"))
    for offset in range(1, 20):
        kept.take(offset, f"add-{offset}")
        if offset == 10:
            kept.take(10, "again", ev.RunFollows(ev.Following.REUSED, b"{}", "again"))
        if offset % 3 == 0:
            kept.write()
    kept.write()
    assert kept.known() == {"start", "again", *(f"add-{offset}" for offset in range(15, 20))}
    for offset in range(20, 30):
        kept.take(offset, f"start-{offset}", ev.RunFollows(ev.Following.REUSED, b"{}", f"start-{offset}"))
    kept.write()
    assert kept.known() == {
        f"{kind}-{number}" for kind, first in (("add", 15), ("start", 25)) for number in range(first, first + 5)
    }


def test_an_input_after_which_a_saga_continues_as_new_is_one_of_many() -> None:
    kept = Kept()
    for offset in range(20):
        kept.take(offset, f"add-{offset}", ev.RunFollows(ev.Following.CONTINUED, b"{}"))
    kept.write()
    assert len(kept.known()) == KEPT


def test_those_of_others_are_left_alone() -> None:
    kept = Kept()
    kept.take(1, "add", saga_id="car")
    kept.take(2, "add", saga_id="cart-2")
    for offset in range(3, 20):
        kept.take(offset, f"add-{offset}")
    kept.write()
    assert (kept.known("car"), kept.known("cart-2"), len(kept.known())) == ({"add"}, {"add"}, KEPT)


@pytest.mark.parametrize("seed", range(40))
def test_all_who_read_the_journal_forget_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much each of them gathers before it writes."""
    monkeypatch.setattr(materialize, "COUNTED_EVERY", 3)
    random = Random(seed)
    owner, replica, rebuilt = Kept(), Kept(), Kept()
    most = 0
    for offset in range(120):
        draw, saga_id = random.random(), random.choice(("cart", "car"))
        if draw < 0.03:
            for each in (owner, replica, rebuilt):
                each.forget(offset, saga_id)
        else:
            message_id = f"m-{random.randint(0, offset // 2)}"
            if message_id in owner.known(saga_id):
                continue
            began = (ev.SagaStarted("Cart", b"{}", message_id),) if draw < 0.1 else ()
            for each in (owner, replica, rebuilt):
                each.take(offset, message_id, *began, saga_id=saga_id)
        owner.write()
        most = max(most, len(owner.known("cart")))
        if random.random() < 0.1:
            replica.write()
    replica.write()
    rebuilt.write()
    assert owner.store.values == replica.store.values == rebuilt.store.values
    assert most > KEPT


@pytest.mark.parametrize("stride", [1, 2, 3, 10, 64, 1_000, 1_024])
def test_no_pattern_of_offsets_keeps_a_saga_from_being_counted(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialize, "COUNTED_EVERY", 1_000)
    counted = [number for number in range(100_000) if are_counted(number * stride)]
    assert 50 <= len(counted) <= 200
    assert max(after - before for before, after in pairwise(counted)) < 10_000
