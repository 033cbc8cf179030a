"""Entities: state with one writer, changed by operations of clients and of sagas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

import orchestrator.saga as saga_module
from model.family import Family
from model.shop import Shop
from orchestrator.entities import Entity, entity_id, operation
from orchestrator.errors import Abort, DefinitionError, StepFailed
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.budget import MAX_EFFECTS
from orchestrator.model.effects import ANSWERED, UPDATE_FAILED
from orchestrator.model.messages import Outcome
from orchestrator.model.queries import answer
from orchestrator.questions import query
from orchestrator.saga import Saga


class Balance(BaseModel):
    cents: int = 0
    log: list[str] = []


class Account(Entity[Balance]):
    @operation
    async def deposit(self, cents: int) -> int:
        self.state.cents += cents
        return self.state.cents

    @operation
    async def withdraw(self, cents: int) -> int:
        if self.state.cents < cents:
            raise Abort("Insufficient", f"{self.state.cents} are there")
        self.state.cents -= cents
        return self.state.cents

    @operation
    async def ship(self, what: str) -> str:
        """Two steps, of which the second may be refused."""
        self.state.log.append(what)
        await self.step(Shop.reserve(what=what), undo=Shop.release)
        return await self.step(Shop.ship(what=what), undo=Shop.release)

    @operation
    async def broken(self) -> None:
        raise RuntimeError("a bug")

    @operation
    async def shipped(self) -> list[str]:
        return self.state.log

    @query
    def balance(self) -> int:
        return self.state.cents


class Buyer(Saga[int, int]):
    async def run(self, cents: int) -> int:
        account = self.entity(Account, "ann")
        left = await account.call(Account.withdraw(cents), undo=Account.deposit(cents))
        await self.step(Shop.reserve(what="tea"), undo=Shop.release)
        return left


class Committed(Saga[int, int]):
    async def run(self, cents: int) -> int:
        await self.step(Shop.ship(what="tea"), pivot=True)
        return await self.entity(Account, "ann").call(Account.withdraw(cents), undo=Account.deposit(cents))


class Rushed(Saga[int, int]):
    async def run(self, cents: int) -> int:
        await self.step(Shop.ship(what="tea"), pivot=True)
        account = self.entity(Account, "ann")
        return await account.call(Account.withdraw(cents), undo=Account.deposit(cents), timeout=1)


class Hasty(Saga[int, str]):
    """Waits for a call for a second only."""

    async def run(self, cents: int) -> str:
        account = self.entity(Account, "ann")
        try:
            await account.call(Account.withdraw(cents), undo=lambda left: Account.deposit(cents), timeout=1)
        except StepFailed as failed:
            return f"{failed.error_type} {failed.unknown}"
        return "withdrawn"


class Teller(Saga[int, str]):
    async def run(self, many: int) -> str:
        for _ in range(many):
            self.entity(Account, "ann").tell(Account.deposit(1))
        return "told"


class Strange(Saga[str, str]):
    async def run(self, what: str) -> str:
        with suppress(ValueError):
            await self.entity(Account, "ann").call(Account.deposit("much"))  # type: ignore[arg-type]
        return "refused before it was asked"


class Node(Entity[list[str]]):
    """Its operations ask other entities of its kind, along a path of their keys."""

    @operation
    async def walk(self, path: list[str]) -> list[str]:
        if not path:
            return ["end"]
        return [path[0], *await self.entity(Node, path[0]).call(Node.walk(path[1:]))]

    @operation
    async def hurry(self, path: list[str]) -> list[str]:
        return await self.entity(Node, path[0]).call(Node.walk(path[1:]), timeout=5)

    @operation
    async def race_time(self, path: list[str]) -> int:
        place, _ = await self.race(self.entity(Node, path[0]).call(Node.walk(path[1:])), self.sleep(5))
        return place

    @operation
    async def twice(self, path: list[str]) -> None:
        await self.walk(path)
        await self.walk(path)

    @operation
    async def take_back(self, key: str) -> None:
        await self.entity(Node, key).call(Node.walk([]), undo=Node.walk([]))
        await self.step(Shop.note(what=key))
        raise Abort("Enough")


SAGAS = (Account, Node, Buyer, Committed, Rushed, Hasty, Teller, Strange)
CLIENT = msg.ReplyAddress("answers", 0, "c")


@pytest.fixture(params=[True, False], ids=["cold", "warm"])
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    made = Family(*SAGAS, cold=request.param)
    yield made
    made.close()


def ask(family: Family, name: str, payload: dict[str, Any], update_id: str = "") -> None:
    """A client asks for an operation."""
    update_id = update_id or f"u{family.offset}"
    call = msg.Update("Account/ann", update_id, update_id, name, orjson.dumps(payload), CLIENT, "Account")
    family.take(call)
    family.deliver()


def heard(family: Family) -> list[tuple[str, Any]]:
    """What came of what clients asked for."""
    return [
        (each.status, orjson.loads(each.payload) if each.status == ANSWERED else each.error_type)
        for each in family.answers
        if each.reply_to == CLIENT
    ]


def balance(family: Family) -> int:
    state = family.state("Account/ann")
    asked = msg.Query("Account/ann", "q", CLIENT, "balance")
    return int(answer(family.definitions["Account"], state, asked).payload)


def test_an_entity_begins_with_its_first_operation_and_keeps_its_state(family: Family) -> None:
    ask(family, "deposit", {"cents": 5})
    ask(family, "deposit", {"cents": 6})
    assert heard(family) == [(ANSWERED, 5), (ANSWERED, 11)]
    assert (balance(family), family.status("Account/ann")) == (11, "RUNNING")


def test_an_operation_that_is_asked_for_twice_is_done_once(family: Family) -> None:
    ask(family, "deposit", {"cents": 5}, "same")
    ask(family, "deposit", {"cents": 5}, "same")
    assert balance(family) == 5


def test_an_operation_that_refuses_changes_nothing(family: Family) -> None:
    ask(family, "deposit", {"cents": 5})
    ask(family, "withdraw", {"cents": 6})
    assert heard(family)[-1] == (UPDATE_FAILED, "Insufficient")
    assert balance(family) == 5


def test_what_no_operation_takes_is_refused_and_starts_nothing_else(family: Family) -> None:
    from orchestrator.model.updates import UpdateRejected

    ask(family, "deposit", {"cents": 5})
    for name, payload in (("other", {}), ("deposit", {"cents": "x"}), ("deposit", {})):
        with pytest.raises(UpdateRejected):
            ask(family, name, payload)
    assert balance(family) == 5


def test_a_saga_calls_an_entity_and_hears_what_it_gave(family: Family) -> None:
    ask(family, "deposit", {"cents": 20})
    family.start(Buyer, "buyer", 5)
    family.reply("buyer", 2, "x")
    assert family.state("buyer").result == b"15"
    assert balance(family) == 15


def test_a_call_that_is_refused_fails_its_step_and_is_not_undone(family: Family) -> None:
    family.start(Buyer, "buyer", 5)
    assert (family.status("buyer"), family.state("buyer").error_type) == ("FAILED", "Insufficient")
    assert balance(family) == 0


def test_a_call_that_is_refused_after_the_pivot_is_let_go_of_by_a_cancel(family: Family) -> None:
    family.start(Committed, "b", 900)
    family.reply("b", 1, "shipped")
    assert family.status("b") == "PARKED"
    family.cancel("b")
    assert family.state("b").ended, family.journal["b"]
    assert family.status("b") == "CANCELED"


@pytest.mark.parametrize("late", ["done", "refused"])
def test_a_call_that_took_too_long_after_the_pivot_is_undone_once_it_is_heard_of(family: Family, late: str) -> None:
    ask(family, "deposit", {"cents": 20})
    family.start(Rushed, "b", 5 if late == "done" else 900)
    family.take(msg.Reply("b", family.state("b").run, 1, False, 1, Outcome.SUCCESS, b'"shipped"'))
    family.now_ms += 1_000
    family.take(msg.TimerDue("b", family.state("b").run, 2, family.now_ms))
    assert family.status("b") == "PARKED"
    if late == "refused":
        family.deliver()  # while it is parked
    family.cancel("b")
    assert family.state("b").ended
    assert balance(family) == 20


def test_a_call_is_undone_by_another_operation(family: Family) -> None:
    ask(family, "deposit", {"cents": 20})
    family.start(Buyer, "buyer", 5)
    assert balance(family) == 15
    family.refuse("buyer", 2)
    assert (family.status("buyer"), balance(family)) == ("COMPENSATED", 20)


@pytest.mark.parametrize("cents", [20, 0], ids=["carried out", "refused"])
def test_a_call_nobody_waits_for_is_undone_only_if_it_was_carried_out(family: Family, cents: int) -> None:
    ask(family, "deposit", {"cents": cents})
    family.take(msg.Start("buyer", "start", "Buyer", b"5"))
    family.take(msg.Cancel("buyer", "cancel"))  # while the call is under way
    assert family.state("buyer").steps[1].status == "UNKNOWN"
    assert family.status("buyer") == "COMPENSATING", "it is not over before the answer is there"
    family.deliver()
    assert (family.status("buyer"), balance(family)) == ("CANCELED", cents)
    deposits = [e for e in family.journal["Account/ann"] if isinstance(e, ev.UpdateAccepted) and e.name == "deposit"]
    assert len(deposits) == (2 if cents else 1)


@pytest.mark.parametrize("cents", [20, 0], ids=["carried out", "refused"])
def test_a_call_that_took_too_long_is_undone_likewise(family: Family, cents: int) -> None:
    ask(family, "deposit", {"cents": cents})
    family.take(msg.Start("hasty", "start", "Hasty", b"5"))
    state = family.state("hasty")
    due_ms = state.due_of(1)
    assert due_ms is not None
    family.now_ms = due_ms
    family.take(msg.TimerDue("hasty", state.run, 1, due_ms))
    assert family.status("hasty") == "RUNNING", "no run ends with a step of which nobody knows"
    family.deliver()
    assert family.state("hasty").result == b'"Timeout True"'
    assert balance(family) == cents


@pytest.mark.parametrize("cents", [20, 0], ids=["carried out", "refused"])
@pytest.mark.parametrize("stopping", [False, True], ids=["under way", "let go of"])
def test_what_came_of_a_call_is_known_after_its_saga_was_terminated(
    family: Family, cents: int, *, stopping: bool
) -> None:
    ask(family, "deposit", {"cents": cents})
    family.take(msg.Start("buyer", "start", "Buyer", b"5"))
    if stopping:
        family.take(msg.Cancel("buyer", "cancel"))
    family.terminate("buyer")
    assert balance(family) == (15 if cents else 0), "nothing of it is undone"
    family.take(msg.Reset("buyer", "reset", 1, by="ann"))
    family.deliver()
    state = family.state("buyer")
    assert (state.previous_run != "", state.steps[1].status) == (True, "DONE" if cents else "REFUSED")
    assert balance(family) == (15 if cents else 0), "undone, and done again"


def test_a_call_that_was_refused_after_the_pivot_is_not_waited_for_once_its_saga_was_terminated(family: Family) -> None:
    family.start(Committed, "b", 900)
    family.reply("b", 1, "shipped")
    assert 2 in family.state("b").parked
    family.terminate("b")
    assert family.state("b").steps[2].status == "REFUSED"
    ask(family, "deposit", {"cents": 900})
    family.take(msg.Reset("b", "reset", 2, by="ann"))
    family.deliver()
    assert (family.status("b"), balance(family)) == ("COMPLETED", 0), "it is asked once more"


class CommittedWithKeys(Saga[int, int]):
    async def run(self, keys: int) -> int:
        await self.step(Shop.ship(what="tea"), pivot=True)
        async with AsyncExitStack() as held:
            for number in range(keys):
                await held.enter_async_context(self.lock(f"key-{number}"))
            return await self.entity(Account, "ann").call(Account.withdraw(900), undo=Account.deposit(900))


@pytest.mark.parametrize("keys", [MAX_EFFECTS - 1, MAX_EFFECTS + 30])
def test_it_is_known_also_where_the_terminating_decision_was_full(keys: int) -> None:
    family = Family(Account, CommittedWithKeys, cold=False)
    family.start(CommittedWithKeys, "b", keys)
    family.reply("b", 1, "shipped")
    family.deliver()
    (call,) = family.state("b").parked
    family.terminate("b")
    assert family.state("b").steps[call].status == "REFUSED"
    ask(family, "deposit", {"cents": 900})
    family.take(msg.Reset("b", "reset", 2, by="ann"))
    family.deliver()
    assert (family.status("b"), balance(family)) == ("COMPLETED", 0)


def test_a_call_waits_for_the_entitys_code(family: Family) -> None:
    code = family.definitions.pop("Account")
    family.start(Teller, "teller", 3)
    family.start(Buyer, "buyer", 2)
    assert (family.status("Account/ann"), family.status("buyer")) == ("WAITING_FOR_CODE", "RUNNING")
    family.definitions["Account"] = code
    family.take(msg.CodeArrived("Account/ann", family.state("Account/ann").run))
    family.deliver()
    assert balance(family) == 1
    family.reply("buyer", 2, "x")
    assert family.state("buyer").result == b"1"


def test_what_an_operation_did_is_undone_where_it_fails_and_its_state_is_as_before(family: Family) -> None:
    ask(family, "deposit", {"cents": 5})
    ask(family, "ship", {"what": "tea"})
    ask(family, "deposit", {"cents": 1})
    assert len(heard(family)) == 1, "one after the other"
    family.reply("Account/ann", 3, "x")
    family.refuse("Account/ann", 5)
    assert heard(family)[1:] == [(UPDATE_FAILED, "Refused"), (ANSWERED, 6)]
    (undone,) = [event for event in family.journal["Account/ann"] if isinstance(event, ev.UndoScheduled)]
    assert undone.sequence == 3
    ask(family, "shipped", {})
    assert heard(family)[-1] == (ANSWERED, [])
    ask(family, "ship", {"what": "cup"})
    commands = [(c.command, c.direction) for c in family.commands]
    assert commands == [("reserve", "do"), ("ship", "do"), ("release", "undo"), ("reserve", "do")]


def test_an_answer_to_nobody_leaves_the_reason_why_a_saga_is_parked(family: Family) -> None:
    ask(family, "broken", {})
    state = family.state("Account/ann")
    reason = state.parked[0]
    family.take(msg.Called("Account/ann", state.run, 77, b"1"))
    assert family.state("Account/ann").parked == {0: reason}


def test_an_operation_with_a_bug_parks_the_entity_and_others_wait(family: Family) -> None:
    ask(family, "deposit", {"cents": 9})
    ask(family, "broken", {})
    assert family.status("Account/ann") == "PARKED"
    family.start(Buyer, "buyer", 5)
    assert family.status("buyer") == "RUNNING"
    family.terminate("Account/ann")
    assert (family.status("buyer"), family.state("buyer").error_type) == ("FAILED", "SagaEnded")


def test_a_paused_entity_is_asked_when_it_goes_on(family: Family) -> None:
    ask(family, "deposit", {"cents": 9})
    family.take(msg.Pause("Account/ann", "p"))
    family.start(Buyer, "buyer", 5)
    family.start(Teller, "teller", 2)
    family.take(msg.Resume("Account/ann", "r"))
    family.deliver()
    assert balance(family) == 6
    assert family.state("buyer").steps[1].result == b"4"


def test_an_entity_with_a_long_history_goes_on_in_a_run_of_its_own(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saga_module, "SUGGEST_AFTER_OUTCOMES", 5)
    ask(family, "ship", {"what": "tea"})
    family.start(Teller, "teller", 4)
    ask(family, "deposit", {"cents": 10})
    first = family.state("Account/ann").run
    for sequence in (2, 8):
        family.reply("Account/ann", sequence, "x")
    assert family.state("Account/ann").run != first
    assert heard(family) == [(ANSWERED, "x"), (ANSWERED, 14)]
    assert balance(family) == 14
    family.start(Buyer, "buyer", 4)
    assert balance(family) == 10
    for _ in range(20):
        ask(family, "deposit", {"cents": 1})
    assert balance(family) == 30
    assert len(family.state("Account/ann").steps) < 10


def test_a_deleted_entity_ends_and_begins_anew_with_the_next_operation(family: Family) -> None:
    ask(family, "deposit", {"cents": 5})
    ask(family, "delete", {})
    assert family.status("Account/ann") == "COMPLETED"
    family.start(Buyer, "buyer", 1)
    assert family.state("buyer").error_type == "Insufficient"
    ask(family, "deposit", {"cents": 2})
    assert (balance(family), family.status("Account/ann")) == (2, "RUNNING")


def test_an_entity_that_is_asked_while_it_is_deleted_goes_on_empty(family: Family) -> None:
    ask(family, "ship", {"what": "tea"})
    ask(family, "delete", {})
    ask(family, "deposit", {"cents": 2})
    family.reply("Account/ann", 2, "x")
    sequence = max(family.state("Account/ann").open)
    family.reply("Account/ann", sequence, "x")
    assert (balance(family), family.status("Account/ann")) == (2, "RUNNING")


def test_an_entity_is_neither_cancelled_nor_set_back(family: Family) -> None:
    ask(family, "deposit", {"cents": 5})
    family.cancel("Account/ann")
    for number, given in enumerate(
        (
            msg.Compensate("Account/ann", "compensate"),
            msg.Reset("Account/ann", "reset", 1),
            msg.Fork("Account/ann", "fork", 2, "Account/bob"),
            msg.Restart("Account/ann", "restart"),
            msg.Terminate("Account/ann", "terminate"),
            msg.Redrive("Account/ann", "redrive"),
        )
    ):
        if isinstance(given, msg.Terminate):
            assert (balance(family), family.status("Account/ann")) == (5, "RUNNING"), number
        family.take(given)
        family.deliver()
    assert family.status("Account/ann") == "TERMINATED"
    assert "Account/bob" not in family.runs


def test_more_than_fits_into_one_decision_is_told_as_well() -> None:
    family = Family(*SAGAS, cold=False)
    family.start(Teller, "teller", 450)
    assert balance(family) == 450
    family.close()


def test_arguments_are_looked_at_before_anything_is_asked(family: Family) -> None:
    family.start(Strange, "strange", "x")
    assert family.state("strange").result == b'"refused before it was asked"'
    assert "Account/ann" not in family.runs


def test_keys_and_names_that_cannot_be_are_refused() -> None:
    for key in ("", "a\0", "a" * 600):
        with pytest.raises(DefinitionError):
            entity_id(Account, key)
    with pytest.raises(DefinitionError, match="no slash"):

        class Slash(Entity[Balance], name="a/b"):
            pass

    with pytest.raises(DefinitionError, match="type of its state"):

        class Bare(Entity):  # type: ignore[type-arg]
            pass


def walk(family: Family, key: str, path: list[str] | str, name: str = "walk") -> None:
    update_id = f"{key} {name} {path}"
    payload = orjson.dumps({"key": path} if name == "take_back" else {"path": path})
    family.take(msg.Update(f"Node/{key}", update_id, update_id, name, payload, CLIENT, "Node"))
    family.deliver()


def told(family: Family) -> list[tuple[str, str]]:
    return [
        (answer.error_type or answer.status, answer.error_message)
        for answer in family.answers
        if "accepted" not in answer.reply_to.correlation_id
    ]


def test_entities_that_ask_one_another(family: Family) -> None:
    walk(family, "a", ["b", "c"])
    assert family.answers[-1].payload == b'["b","c","end"]'


@pytest.mark.parametrize("name", ["walk", "hurry"])
def test_an_entity_that_asks_itself_is_refused(family: Family, name: str) -> None:
    walk(family, "a", ["a"], name)
    reason = "Node/a asks Node/a for walk: it would wait for the operation that asks; call the method instead"
    assert told(family) == [("Deadlock", reason)]
    walk(family, "a", [])
    assert family.answers[-1].payload == b'["end"]'


def test_an_entity_that_is_asked_by_whom_it_waits_for_refuses(family: Family) -> None:
    walk(family, "a", ["b", "a"])
    reason = "Node/b asks Node/a for walk, which waits for Node/b to answer walk: neither would go on"
    assert told(family) == [("Deadlock", reason)]
    walk(family, "b", ["a"])
    assert family.answers[-1].payload == b'["a","end"]'


def test_what_waits_only_for_a_time_takes_the_call_after_it(family: Family) -> None:
    walk(family, "a", ["b", "a"], "hurry")
    assert not told(family)
    state = family.state("Node/a")
    (sequence,) = state.open - set(state.asked)
    due_ms = family.now_ms = state.due_of(sequence) or 0
    family.take(msg.TimerDue("Node/a", state.run, sequence, due_ms))
    family.deliver()
    assert [error for error, _ in told(family)] == ["Timeout"]
    assert not family.state("Node/b").asked


def test_what_waits_for_something_else_too_goes_on_by_that(family: Family) -> None:
    walk(family, "a", ["b", "a"], "race_time")
    assert not told(family)
    state = family.state("Node/a")
    (pause,) = (s for s in state.open if state.steps[s].kind is ev.StepKind.SLEEP)
    family.now_ms = due_ms = state.due_of(pause) or 0
    family.take(msg.TimerDue("Node/a", state.run, pause, due_ms))
    family.deliver()
    assert told(family) == [("ANSWERED", "")]
    assert family.answers[-1].payload == b"1"
    assert not family.state("Node/b").asked


def test_an_undo_is_taken_though_its_saga_is_waited_for(family: Family) -> None:
    """The operation whose undo it is has ended, so nobody waits for it."""
    walk(family, "b", "a", "take_back")
    walk(family, "a", ["b"], "twice")
    (sequence,) = (s for s in family.state("Node/b").open if family.state("Node/b").steps[s].service == "shop")
    family.reply("Node/b", sequence)
    assert told(family) == [("Enough", ""), ("ANSWERED", "")]
    assert not family.state("Node/b").parked
    assert "UndoSucceeded" in [type(event).__name__ for event in family.journal["Node/b"]]


def test_an_answer_that_was_kept_for_code_is_not_lost_by_a_termination(family: Family) -> None:
    family.take(msg.Start("buyer", "start", "Buyer", b"0"))
    code = family.definitions.pop("Buyer")
    family.deliver()
    assert family.status("buyer") == "WAITING_FOR_CODE"
    family.terminate("buyer")
    family.definitions["Buyer"] = code
    family.take(msg.Reset("buyer", "reset", 1, by="ann"))
    family.deliver()
    family.reply("buyer", 2, "x")
    assert family.status("buyer") == "COMPLETED", "the withdrawal is undone, and made again"
