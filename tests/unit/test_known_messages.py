"""Of a saga that never ends, the newest external inputs are known, and the newest that had a run of it begin."""

from itertools import pairwise
from random import Random

import pytest

from orchestrator.model import events as ev
from orchestrator.model.state import SagaState
from orchestrator.runtime import materialize
from orchestrator.runtime.materialize import are_counted
from tests.unit.gathering import Gathering

KEPT = 5
CART = "cart"


@pytest.fixture(autouse=True)
def few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialize, "KEPT_MESSAGES", KEPT)
    monkeypatch.setattr(materialize, "COUNTED_EVERY", 1)


def test_the_newest_are_known_and_what_began_a_run() -> None:
    kept = Gathering()
    kept.take(0, "start", ev.SagaStarted("Cart", b"{}", "start"), saga_id=CART)
    for offset in range(1, 20):
        kept.take(offset, f"add-{offset}", saga_id=CART)
        if offset == 10:
            kept.take(10, "again", ev.RunFollows(ev.Following.REUSED, b"{}", "again"), saga_id=CART)
        if offset % 3 == 0:
            kept.write()
    kept.write()
    assert kept.known(CART) == {"start", "again", *(f"add-{offset}" for offset in range(15, 20))}
    for offset in range(20, 30):
        kept.take(offset, f"start-{offset}", ev.RunFollows(ev.Following.REUSED, b"{}", f"start-{offset}"), saga_id=CART)
    kept.write()
    assert kept.known(CART) == {
        f"{kind}-{number}" for kind, first in (("add", 15), ("start", 25)) for number in range(first, first + 5)
    }


def test_an_input_after_which_a_saga_continues_as_new_is_one_of_many() -> None:
    kept = Gathering()
    for offset in range(20):
        kept.take(offset, f"add-{offset}", ev.RunFollows(ev.Following.CONTINUED, b"{}"), saga_id=CART)
    kept.write()
    assert len(kept.known(CART)) == KEPT


def test_those_of_others_are_left_alone() -> None:
    kept = Gathering()
    kept.take(1, "add", saga_id="car")
    kept.take(2, "add", saga_id="cart-2")
    for offset in range(3, 20):
        kept.take(offset, f"add-{offset}", saga_id=CART)
    kept.write()
    assert (kept.known("car"), kept.known("cart-2"), len(kept.known(CART))) == ({"add"}, {"add"}, KEPT)


@pytest.mark.parametrize("seed", range(40))
def test_all_who_read_the_journal_forget_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much each of them gathers before it writes."""
    monkeypatch.setattr(materialize, "COUNTED_EVERY", 3)
    random = Random(seed)
    owner, replica, rebuilt = Gathering(), Gathering(), Gathering()
    most = 0
    for offset in range(120):
        draw, saga_id = random.random(), random.choice((CART, "car"))
        if draw < 0.03:
            for each in (owner, replica, rebuilt):
                each.forget(SagaState(saga_id, "1-0-0"), offset)
        else:
            message_id = f"m-{random.randint(0, offset // 2)}"
            if message_id in owner.known(saga_id):
                continue
            began = (ev.SagaStarted("Cart", b"{}", message_id),) if draw < 0.1 else ()
            for each in (owner, replica, rebuilt):
                each.take(offset, message_id, *began, saga_id=saga_id)
        owner.write()
        most = max(most, len(owner.known(CART)))
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
