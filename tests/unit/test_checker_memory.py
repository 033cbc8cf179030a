"""What the checker asks of an owner's memory: what a saga must know again, of both kinds, and no more than that."""

from itertools import count

import pytest

from orchestrator.checker import journal
from orchestrator.checker.calls import check_calls
from orchestrator.checker.evidence import Verdict
from orchestrator.checker.journal import Accepted, History
from orchestrator.model import events as ev
from orchestrator.model.state import SagaState, Step, StepStatus

KEPT = 5
CART = "cart"

STARTED = ev.SagaStarted("Cart", b"{}", "start")
REUSED = ev.RunFollows(ev.Following.REUSED, b"{}", "start")
CONTINUED = ev.RunFollows(ev.Following.CONTINUED, b"{}")


@pytest.fixture(autouse=True)
def few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "KEPT_MESSAGES", KEPT)


class Told:
    """Decisions about one saga, and what the checker has against them."""

    def __init__(self) -> None:
        self.accepted = Accepted()
        self.verdict = Verdict()
        self._offsets = count()

    def take(self, message_id: str, *events: ev.Event) -> None:
        decision = ev.Decision(CART, "", 0, events, message_id)
        journal._apply(0, next(self._offsets), decision, self.accepted, self.verdict)

    def signals(self, number: int) -> None:
        for each in range(number):
            self.take(f"s-{next(self._offsets)}-{each}")

    @property
    def blamed(self) -> list[str]:
        return self.verdict.violations


@pytest.mark.parametrize("event", [STARTED, REUSED])
@pytest.mark.parametrize("signals", [0, KEPT - 1, KEPT, 10 * KEPT])
def test_a_start_that_is_taken_twice_is_blamed_behind_however_many_signals(event: ev.Event, signals: int) -> None:
    told = Told()
    told.take("start", event)
    told.signals(signals)
    told.take("start", event)
    assert len(told.blamed) == 1
    assert "message ('cart', 'start') was taken before" in told.blamed[0]


def test_a_signal_that_is_taken_twice_is_blamed_behind_however_many_starts() -> None:
    told = Told()
    told.take("paid")
    for number in range(10 * KEPT):
        told.take(f"start-{number}", REUSED)
    told.take("paid")
    assert len(told.blamed) == 1


@pytest.mark.parametrize(("between", "blamed"), [(KEPT - 1, 1), (KEPT, 0)])
@pytest.mark.parametrize("event", [REUSED, CONTINUED, None])
def test_what_lies_behind_as_many_of_its_kind_need_not_be_known(
    between: int, blamed: int, event: ev.Event | None
) -> None:
    events = () if event is None else (event,)
    told = Told()
    for message_id in ("first", *(f"m-{number}" for number in range(between)), "first"):
        told.take(message_id, *events)
    assert len(told.blamed) == blamed


def carried_out(update_id: str, times: int, others: int = KEPT + 1) -> list[str]:
    """What is said where a saga that was never forgotten carried out an update so often, each time in another run.

    `others`: how many more inputs it took.
    """
    told = Told()
    told.signals(others)
    for number in range(times):
        run = f"1-{number}-0"
        state = SagaState(CART, run)
        state.steps[1] = Step(1, StepStatus.UPDATED, 0, kind=ev.StepKind.UPDATE, service=update_id)
        history = told.accepted.histories[CART, run] = History(CART, run, 0, state)
        told.accepted.events[ev.UpdateEnded].append((history, ev.UpdateEnded(1, b"1")))
    check_calls(told.accepted, told.verdict, settled=True)
    return told.blamed


@pytest.mark.parametrize(
    "update_id",
    [
        "order/7/1-10-0/3/do/1",
        "order/7/1-10-0/3/undo/2",
        "order/7/1-10-0/3/take",
        "order/7/1-10-0/3/give",
        "order/7/1-10-0/3",
    ],
)
def test_what_a_saga_asked_for_is_carried_out_once_however_long_ago(update_id: str) -> None:
    assert carried_out(update_id, 1) == []
    assert carried_out(update_id, 2) == [f"C3: cart carried out {update_id} 2 times"]


@pytest.mark.parametrize("update_id", ["payment/7", "payment-7", "order/7/1-10-0/3/do", "a/b/c/do/1"])
def test_what_a_client_asked_for_under_an_id_of_its_own_is_known_for_a_while(update_id: str) -> None:
    """That may be the idempotency key of the step that a service works on, too."""
    assert carried_out(update_id, 2) == []


def test_while_nothing_had_to_be_forgotten_it_is_carried_out_once() -> None:
    assert carried_out("payment/7", 2, KEPT) == ["C3: cart carried out payment/7 2 times"]
