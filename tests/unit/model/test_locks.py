"""Sagas that hold keys: one at a time, until what they did is undone, whatever becomes of them."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from model.family import Family
from model.shop import Shop
from orchestrator.errors import DefinitionError, StepFailed
from orchestrator.locks import IfLocked
from orchestrator.migrations import PastRun
from orchestrator.model import events as ev
from orchestrator.model import locks
from orchestrator.model import messages as msg
from orchestrator.model.events import Status
from orchestrator.model.policies import Reuse
from orchestrator.model.queries import answer
from orchestrator.model.versions import by_type
from orchestrator.saga import Saga


class Holder(Saga[list[str], str]):
    """Holds keys for its whole run, in which it does one step."""

    async def run(self, keys: list[str]) -> str:
        await self.lock(*keys)
        await self.step(Shop.reserve(what=keys[0]), undo=Shop.release)
        await self.step(Shop.ship(), undo=Shop.release)
        return "held"


class Declared(Saga[list[str], str], locks=lambda keys: keys):
    async def run(self, keys: list[str]) -> str:
        await self.step(Shop.reserve(what="x"), undo=Shop.release)
        return "held"


class Block(Saga[str, str]):
    async def run(self, key: str) -> str:
        async with self.lock(key):
            await self.step(Shop.reserve(what=key), undo=Shop.release)
        await self.step(Shop.ship(), undo=Shop.release)
        return "held"


class Impatient(Saga[list[str], str]):
    async def run(self, keys: list[str]) -> str:
        try:
            await self.lock(*keys, timeout=5)
        except StepFailed as failed:
            await self.sleep(1_000)
            return failed.error_type
        await self.sleep(1_000)
        return "held"


class AtOnce(Saga[list[str], str]):
    async def run(self, keys: list[str]) -> str:
        try:
            await self.lock(*keys, if_locked=IfLocked.FAIL)
        except StepFailed as failed:
            return f"{failed.error_type}: {failed.message}"
        return "held"


class Twice(Saga[str, str]):
    async def run(self, key: str) -> str:
        async with self.lock(key):
            async with self.lock(key):
                await self.sleep(1)
            await self.sleep(1)
        await self.sleep(1)
        return "held"


class Countdown(Saga[int, str]):
    async def run(self, left: int) -> str:
        await self.lock("a")
        await self.sleep(1)
        if left:
            self.continue_as_new(left - 1)
        return "held"


class Keyed(Saga[str, str]):
    async def run(self, key: str) -> str:
        await self.child(Holder, [key], id="child")
        await self.step(Shop.ship(), undo=Shop.release)
        return "done"


class Lost(Saga[list[str], str]):
    """Gives up on the keys together, or on one of them, and goes on for long."""

    async def run(self, keys: list[str]) -> str:
        place, _ = await self.race(self.lock(*keys), self.sleep(5))
        await self.sleep(1_000)
        return str(place)


class First(Saga[list[str], str]):
    """Takes whichever key it gets first."""

    async def run(self, keys: list[str]) -> str:
        place, _ = await self.race(*(self.lock(key) for key in keys))
        await self.sleep(1_000)
        return keys[place]


SAGAS = (Lost, First, Holder, Keyed, Declared, Block, Impatient, AtOnce, Twice, Countdown)


@pytest.fixture(params=[True, False], ids=["cold", "warm"])
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    made = Family(*SAGAS, cold=request.param)
    yield made
    made.close()


def holder(family: Family, key: str) -> tuple[str, list[str]]:
    """Who holds it, and who waits."""
    run = family.runs.get(locks.saga_of(key))
    if run is None or run.state.ended:
        return "", []
    query = msg.Query(run.state.saga_id, "q", msg.ReplyAddress("t", 0, "c"), locks.HELD)
    held = orjson.loads(answer(family.definitions[locks.LOCK], run.state, query).payload)
    return held["holder"], held["waiting"]


def fire(family: Family, saga_id: str) -> None:
    """The saga's next timer is due."""
    state = family.state(saga_id)
    due_ms, sequence = min((due, s) for s in (0, *state.open) if (due := state.due_of(s)) is not None)
    family.now_ms = max(family.now_ms, due_ms)
    family.take(msg.TimerDue(saga_id, state.run, sequence, due_ms))
    family.deliver()


def finish(family: Family, saga_id: str) -> None:
    family.reply(saga_id, 2, "x")
    family.reply(saga_id, 3, "x")


def test_one_holds_a_key_and_others_get_it_in_the_order_of_asking(family: Family) -> None:
    for name in ("one", "two", "three"):
        family.start(Holder, name, ["a"])
    assert holder(family, "a") == ("one", ["two", "three"])
    assert [command.saga_id for command in family.commands] == ["one"], "the others have not begun"
    finish(family, "one")
    assert holder(family, "a") == ("two", ["three"])
    finish(family, "two")
    finish(family, "three")
    assert {family.status(name) for name in ("one", "two", "three")} == {"COMPLETED"}
    assert family.status("lock/a") == "COMPLETED", "nobody holds it or waits for it"


def test_a_key_is_held_until_all_is_undone(family: Family) -> None:
    family.start(Holder, "one", ["a"])
    family.start(Holder, "two", ["a"])
    family.reply("one", 2, "x")
    family.refuse("one", 3)
    assert family.status("one") == "COMPENSATING"
    assert holder(family, "a") == ("one", ["two"])
    family.reply("one", 2, undo=True)
    assert family.status("one") == "COMPENSATED"
    assert holder(family, "a") == ("two", [])


def test_terminating_the_holder_gives_the_key_back(family: Family) -> None:
    family.start(Holder, "one", ["a", "b"])
    family.start(Holder, "two", ["b", "a"])
    family.terminate("one")
    assert holder(family, "a") == ("two", [])
    assert holder(family, "b") == ("two", [])


def test_whoever_is_cancelled_or_terminated_while_it_waits_waits_no_longer(family: Family) -> None:
    for name in ("one", "two", "three", "four"):
        family.start(Holder, name, ["a"])
    family.cancel("two")
    family.terminate("three")
    assert holder(family, "a") == ("one", ["four"])
    assert (family.status("two"), family.status("three")) == ("CANCELED", "TERMINATED")
    finish(family, "one")
    assert holder(family, "a") == ("four", [])


def test_keys_are_taken_in_one_order_so_that_nobody_waits_in_a_circle(family: Family) -> None:
    family.start(Holder, "one", ["b", "a"])
    family.start(Holder, "two", ["a", "b"])
    taken = [step.command for step in family.state("one").steps.values() if step.kind is ev.StepKind.LOCK]
    assert taken == ["a", "b"]
    assert holder(family, "a") == ("one", ["two"])
    assert holder(family, "b") == ("one", [])


def test_declared_keys_are_held_before_the_code_begins_and_to_the_end(family: Family) -> None:
    family.start(Declared, "one", ["a"])
    family.start(Declared, "two", ["a"])
    assert [command.saga_id for command in family.commands] == ["one"]
    family.refuse("one", 2)
    assert (family.status("one"), holder(family, "a")) == ("FAILED", ("two", []))
    family.start(Declared, "none", [])
    assert family.commands[-1].saga_id == "none"


def test_a_block_gives_its_keys_back_at_its_end(family: Family) -> None:
    family.start(Block, "one", "a")
    family.start(Block, "two", "a")
    family.reply("one", 2, "x")
    assert (family.status("one"), holder(family, "a")) == ("RUNNING", ("two", []))
    assert family.state("one").locks == set()


def test_a_block_that_fails_keeps_its_keys_until_all_is_undone(family: Family) -> None:
    class Failing(Saga[str, str]):
        async def run(self, key: str) -> str:
            await self.step(Shop.reserve(what="before"), undo=Shop.release)
            async with self.lock(key):
                await self.step(Shop.ship(), undo=Shop.release)
            return ""

    family.definitions["Failing"] = Failing.definition
    family.start(Failing, "one", "a")
    family.reply("one", 1, "x")
    family.refuse("one", 3)
    assert (family.status("one"), holder(family, "a")) == ("COMPENSATING", ("one", []))
    family.reply("one", 1, undo=True)
    assert holder(family, "a") == ("", [])


def test_who_has_waited_too_long_gives_back_what_it_got_and_goes_on(family: Family) -> None:
    family.start(Holder, "one", ["b"])
    family.start(Impatient, "two", ["a", "b"])
    assert holder(family, "a") == ("two", [])
    assert holder(family, "b") == ("one", ["two"])
    fire(family, "two")
    assert holder(family, "a") == ("", [])
    assert holder(family, "b") == ("one", [])
    fire(family, "two")
    assert family.state("two").result == b'"LockTimeout"'


def test_a_key_that_comes_after_the_time_was_up_is_given_back(family: Family) -> None:
    family.start(Holder, "one", ["a"])
    family.start(Impatient, "two", ["a"])
    family.take(msg.Terminate("one", "end"))  # what it gives back is under way
    state = family.state("two")
    (due_ms,) = [due for s in state.open if (due := state.due_of(s)) is not None]
    family.now_ms = due_ms
    family.take(msg.TimerDue("two", state.run, 1, due_ms))
    family.deliver()
    assert state.steps[1].status == "EXPIRED" or family.state("two").steps[1].status == "EXPIRED"
    assert holder(family, "a") == ("", [])
    assert family.status("lock/a") == "COMPLETED"


def test_who_does_not_want_to_wait_hears_who_holds_it(family: Family) -> None:
    family.start(Holder, "one", ["b"])
    family.start(AtOnce, "two", ["a", "b"])
    assert family.state("two").result == b'"Locked: one holds it"'
    assert holder(family, "a") == ("", [])
    family.start(AtOnce, "three", ["a"])
    assert family.state("three").result == b'"held"'
    assert holder(family, "a") == ("", [])


def test_a_saga_may_take_again_what_it_holds(family: Family) -> None:
    family.start(Twice, "one", "a")
    family.start(Holder, "two", ["a"])
    fire(family, "one")
    assert holder(family, "a") == ("one", ["two"]), "the inner block does not give it back"
    fire(family, "one")
    assert holder(family, "a") == ("two", [])


def test_a_run_that_continues_as_new_gives_its_keys_back_and_its_next_run_queues_again(family: Family) -> None:
    family.start(Countdown, "one", 1)
    family.start(Holder, "two", ["a"])
    fire(family, "one")
    assert holder(family, "a") == ("two", ["one"])
    finish(family, "two")
    fire(family, "one")
    assert family.status("one") == "COMPLETED"


def test_an_operator_breaks_a_lock_and_the_next_one_gets_it(family: Family) -> None:
    family.start(Holder, "one", ["a"])
    family.start(Holder, "two", ["a"])
    reply_to = msg.ReplyAddress("answers", 0, "c")
    family.take(msg.Update("lock/a", "u", "u", locks.BREAK, b'{"by": "ann"}', reply_to))
    family.deliver()
    assert holder(family, "a") == ("two", [])
    assert family.answers[-1].payload == b'"one"'
    finish(family, "one")
    assert holder(family, "a") == ("two", []), "what the former holder gives back is not the new one's"
    finish(family, "two")
    assert holder(family, "a") == ("", [])


def test_nobody_else_takes_or_gives_back_a_lock(family: Family) -> None:
    from orchestrator.model.updates import UpdateRejected

    family.start(Holder, "one", ["a"])
    for name in (locks.TAKE, locks.GIVE, "other"):
        with pytest.raises(UpdateRejected):
            family.take(msg.Update("lock/a", "u", "u", name, b"{}", msg.ReplyAddress("answers", 0, "c")))
    assert holder(family, "a") == ("one", [])


def test_a_lock_with_a_long_history_goes_on_in_a_run_of_its_own(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LONG", 12)
    for number in range(8):
        family.start(Holder, f"s{number}", ["a"])
    runs = {family.state("lock/a").run}
    for number in range(8):
        left = [f"s{other}" for other in range(number + 1, 8)]
        assert holder(family, "a") == (f"s{number}", left)
        finish(family, f"s{number}")
        runs.add(family.state("lock/a").run)
    assert len(runs) > 1
    assert family.status("lock/a") == "COMPLETED"
    assert {family.status(f"s{number}") for number in range(8)} == {"COMPLETED"}


def test_a_lock_that_is_terminated_fails_who_waits_and_is_no_lock_any_more(family: Family) -> None:
    family.start(Holder, "one", ["a"])
    family.start(Holder, "two", ["a"])
    family.terminate("lock/a")
    assert family.status("two") == "FAILED"
    family.start(Holder, "three", ["a"])
    assert holder(family, "a") == ("three", [])
    finish(family, "one")
    assert holder(family, "a") == ("three", [])


def test_a_paused_lock_is_asked_when_it_goes_on(family: Family) -> None:
    family.start(Holder, "one", ["a"])
    family.take(msg.Pause("lock/a", "p"))
    family.start(Holder, "two", ["a"])
    finish(family, "one")
    assert family.status("two") == "RUNNING"
    family.take(msg.Resume("lock/a", "r"))
    family.deliver()
    assert holder(family, "a") == ("two", [])


def test_a_lock_whose_owner_lacks_the_code_is_asked_when_it_is_there(family: Family) -> None:
    code = family.definitions.pop(locks.LOCK)
    family.start(Holder, "one", ["a"])
    assert family.status("lock/a") == Status.WAITING_FOR_CODE
    family.definitions[locks.LOCK] = code
    family.take(msg.CodeArrived("lock/a", family.state("lock/a").run))
    family.deliver()
    assert holder(family, "a") == ("one", [])


def reset(family: Family, to: int) -> None:
    family.take(msg.Reset("one", f"reset {family.offset}", to, by="ann"))
    family.deliver()


def test_a_run_that_is_set_back_behind_a_lock_still_holds_it(family: Family) -> None:
    family.start(Holder, "one", ["a"])
    family.start(Holder, "two", ["a"])
    family.reply("one", 2, "x")
    reset(family, 3)
    family.reply("one", 3, undo=True)
    assert family.state("one").previous_run
    assert holder(family, "a") == ("one", ["two"])
    family.reply("one", 3, "x")
    assert (family.status("one"), holder(family, "a")) == ("COMPLETED", ("two", []))


def test_a_run_that_is_terminated_while_it_is_set_back_gives_its_key_back(family: Family) -> None:
    family.start(Holder, "one", ["a"])
    family.start(Holder, "two", ["a"])
    family.reply("one", 2, "x")
    reset(family, 3)
    family.terminate("one")
    assert (family.status("one"), holder(family, "a")) == ("TERMINATED", ("two", []))


def test_a_start_that_ends_a_run_while_it_is_set_back_queues_for_its_key(family: Family) -> None:
    family.start(Holder, "one", ["a"])
    family.start(Holder, "two", ["a"])
    family.reply("one", 2, "x")
    reset(family, 3)
    family.take(msg.Start("one", "once more", "Holder", b'["a"]', reuse=Reuse.TERMINATE_IF_RUNNING))
    family.deliver()
    assert (family.status("one"), holder(family, "a")) == ("RUNNING", ("two", ["one"]))


def test_a_run_that_is_set_back_before_a_lock_gives_it_back_and_queues_again(family: Family) -> None:
    family.start(Holder, "one", ["a"])
    family.start(Holder, "two", ["a"])
    reset(family, 1)
    family.reply("one", 2, undo=True)
    assert holder(family, "a") == ("two", ["one"])


def test_a_run_that_is_set_back_into_a_block_takes_its_key_again(family: Family) -> None:
    family.start(Block, "one", "a")
    family.reply("one", 2, "x")
    assert holder(family, "a") == ("", [])
    reset(family, 2)
    family.reply("one", 3, undo=True)
    family.reply("one", 2, undo=True)
    assert holder(family, "a") == ("one", [])


def test_what_has_ended_is_redriven_from_where_it_takes_its_key_again(family: Family) -> None:
    family.start(Holder, "one", ["a"])
    family.reply("one", 2, "x")
    family.refuse("one", 3)
    family.reply("one", 2, undo=True)
    assert family.status("one") == "COMPENSATED"
    family.take(msg.Redrive("one", "again", by="ann"))
    family.deliver()
    assert holder(family, "a") == ("one", [])
    assert {step.sequence: step.run for step in family.state("one").steps.values()} == {1: "", 2: ""}


@pytest.mark.parametrize("other", [False, True], ids=["alone", "another waits"])
def test_a_run_that_was_terminated_and_is_redriven_gives_its_key_back_once(family: Family, other: bool) -> None:
    family.start(Holder, "one", ["a"])
    if other:
        family.start(Holder, "two", ["a"])
    family.reply("one", 2, "x")
    family.terminate("one")
    family.take(msg.Redrive("one", "again", by="ann"))
    family.reply("one", 3, undo=True)
    family.reply("one", 2, undo=True)
    assert holder(family, "a") == (("two", ["one"]) if other else ("one", []))
    assert given(family, "one") == 1
    family.terminate("two" if other else "one")
    assert holder(family, "a") == (("one", []) if other else ("", []))


def test_a_child_that_is_undone_after_its_end_gives_its_key_back_once(family: Family) -> None:
    family.start(Keyed, "parent", "a")
    finish(family, "child")
    assert (family.status("child"), holder(family, "a")) == ("COMPLETED", ("", []))
    family.refuse("parent", 2)
    family.reply("child", 3, undo=True)
    family.reply("child", 2, undo=True)
    assert (family.status("child"), family.status("parent")) == ("COMPENSATED", "COMPENSATED")
    assert (family.status("lock/a"), holder(family, "a")) == ("COMPLETED", ("", []))
    assert given(family, "child") == 1


def given(family: Family, saga_id: str) -> int:
    """How often a saga has given back a key."""
    sent = [event.input for event in family.journal[saga_id] if isinstance(event, ev.InputSent)]
    return sum(isinstance(each, msg.Update) and each.name == locks.GIVE for each in sent)


class Older(Saga[str, str], name="Mended"):
    async def run(self, key: str) -> str:
        await self.lock(key)
        await self.step(Shop.reserve(what=key), undo=Shop.release)
        await self.sleep(1)
        await self.step(Shop.note())
        return "old"


class Mended(Saga[str, str], name="Mended", version=2, locks=lambda key: [key]):
    async def run(self, key: str) -> str:
        await self.step(Shop.ship(what=key))
        return "new"

    @classmethod
    def migrate(cls, past: PastRun) -> str | None:
        key: str = past.input
        return key


def test_newer_code_that_takes_over_still_holds_the_keys(family: Family) -> None:
    family.definitions["Mended"] = Older.definition
    family.start(Older, "one", "a")
    family.start(Holder, "two", ["a"])
    family.reply("one", 2, "x")
    family.definitions |= by_type([Older.definition, Mended.definition])
    family.runs["one"].detach()
    fire(family, "one")
    assert family.state("one").version == 2
    assert holder(family, "a") == ("one", ["two"])
    sequence = max(family.state("one").open)
    assert family.state("one").steps[sequence].command == "ship"
    family.refuse("one", sequence)
    assert holder(family, "a") == ("one", ["two"]), "what the older code did is not undone yet"
    family.reply("one", 2, undo=True)
    assert (family.status("one"), holder(family, "a")) == ("COMPENSATED", ("two", []))


def test_a_lock_needs_keys_that_can_be() -> None:
    saga = Holder()
    for keys in ((), ("",), ("a\0",), ("a" * 600,)):
        with pytest.raises(DefinitionError):
            saga.lock(*keys)


def test_a_lost_race_for_several_keys_gives_back_what_it_had(family: Family) -> None:
    family.start(Holder, "one", ["b"])
    family.start(Lost, "two", ["a", "b"])
    assert (holder(family, "a"), holder(family, "b")) == (("two", []), ("one", ["two"]))
    fire(family, "two")
    assert (holder(family, "a"), holder(family, "b")) == (("", []), ("one", []))


def test_a_saga_that_is_canceled_while_it_waits_for_keys_gives_back_what_it_had(family: Family) -> None:
    family.start(Holder, "one", ["b"])
    family.start(Declared, "two", ["a", "b"])
    family.cancel("two")
    assert (holder(family, "a"), holder(family, "b")) == (("", []), ("one", []))


def test_a_key_that_came_beside_the_first_one_is_given_back(family: Family) -> None:
    family.start(Holder, "one", ["a"])
    family.start(Holder, "two", ["b"])
    family.start(First, "three", ["a", "b"])
    family.take(msg.Pause("three", "pause"))
    finish(family, "two")
    finish(family, "one")
    assert (holder(family, "a"), holder(family, "b")) == (("three", []), ("three", []))
    family.take(msg.Resume("three", "resume"))
    family.deliver()
    assert (holder(family, "a"), holder(family, "b")) == (("", []), ("three", []))
