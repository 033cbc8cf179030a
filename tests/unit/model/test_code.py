"""A saga's code: bugs, divergence, foreign awaitables, determinism, letting go of it."""

from __future__ import annotations

import asyncio
import random
import uuid
from asyncio import sleep as pause
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import pytest

from model.play import PARTITIONS, SAGA_ID, Play
from model.shop import Shop
from model.shopping import Two, started
from orchestrator.errors import Abort, Failure, Pending, RetryLater
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.decide import decide
from orchestrator.model.events import Status, Undone
from orchestrator.model.turn import Moment
from orchestrator.promises import promise
from orchestrator.saga import Saga
from orchestrator.signals import signal

# -- bugs


def test_a_bug_parks_the_one_saga_with_its_traceback() -> None:
    class Bug(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.step(Shop.reserve(), undo=Shop.release)
            raise KeyError("missing")

    play = started(Bug)
    play.do(1, "x")
    assert play.status is Status.PARKED
    assert play.state.parked[0].startswith("the code raised KeyError: Traceback")
    assert 'raise KeyError("missing")' in play.state.parked[0]
    assert play.undone == [], "a bug never rolls back"


def test_a_bug_is_nothing_to_other_sagas() -> None:
    class Sometimes(Saga[str, str]):
        async def run(self, what: str) -> str:
            if what == "bad":
                raise ValueError("a bug")
            return await self.step(Shop.reserve(what=what))

    bad, good = Play(Sometimes), Play(Sometimes)
    bad.start("bad")
    good.start("good")
    good.do(1, "x")
    assert (bad.status, good.status) == (Status.PARKED, Status.COMPLETED)


def test_a_saga_parked_for_a_bug_goes_on_once_the_code_is_mended() -> None:
    class Bug(Two, name="Order"):
        async def run(self, _: None) -> str:
            await self.step(Shop.reserve(what="a"), undo=Shop.release)
            raise ValueError("a bug")

    play = started(Bug)
    play.do(1, "x")
    play.retry()
    assert play.status is Status.PARKED
    play.definition = Two.definition
    play.retry()
    assert (play.status, play.sent[-1].sequence) == (Status.RUNNING, 2)
    play.do(2, "y")
    assert play.ending.payload == b'"xy"'


def test_replies_go_on_being_recorded_while_a_saga_is_parked_for_a_bug() -> None:
    class Bug(Saga[None, str]):
        async def run(self, _: None) -> str:
            return "".join(await self.gather(self.one(), self.step(Shop.reserve(what="b"))))

        async def one(self) -> str:
            await self.step(Shop.note())
            raise ValueError("a bug")

    class Mended(Bug):
        async def one(self) -> str:
            await self.step(Shop.note())
            return "a"

    play = started(Bug)
    play.do(1)
    play.do(2, "b")
    play.definition = Mended.definition
    play.retry()
    assert play.ending.payload == b'"ab"'


def test_a_person_can_only_retry_or_end_a_saga_that_is_parked_itself() -> None:
    class Bug(Saga[None, None]):
        async def run(self, _: None) -> None:
            raise ValueError("a bug")

    play = started(Bug)
    (event,) = play.unpark(msg.Override.SKIP)
    assert isinstance(event, ev.InputAbsorbed)
    assert "needs a parked step" in event.reason
    play.terminate()
    assert play.status is Status.TERMINATED


@pytest.mark.parametrize("words", ["\ud800 no UTF-8", "long" * 100_000])
def test_whatever_an_error_says_can_be_recorded(words: str) -> None:
    class Bug(Saga[None, None]):
        async def run(self, _: None) -> None:
            raise ValueError(words)

    class Stop(Saga[None, None]):
        async def run(self, _: None) -> None:
            raise Abort(words, words)

    bug, stop = started(Bug), started(Stop)
    assert len(bug.state.parked[0]) < 5_000
    assert stop.status is Status.FAILED
    assert len(stop.ending.error_type) <= 256
    assert len(stop.ending.error_message) <= 4_000


def test_an_abort_with_words_that_are_no_text_is_recorded_as_text() -> None:
    class Stop(Saga[None, None]):
        async def run(self, _: None) -> None:
            raise Abort(404, None)  # type: ignore[arg-type]

    assert (started(Stop).ending.error_type, started(Stop).ending.error_message) == ("404", "None")


def test_an_exit_from_the_code_parks_the_saga_and_does_not_leave_the_process() -> None:
    class Leaving(Saga[None, None]):
        async def run(self, _: None) -> None:
            raise SystemExit(1)

    assert "the code raised SystemExit" in started(Leaving).state.parked[0]


@pytest.mark.parametrize(
    ("error", "words"), [(Failure, ("SoldOut", "tea")), (RetryLater, ()), (Pending, ())], ids=["f", "r", "p"]
)
def test_a_handlers_word_raised_by_the_code_is_told_to_be_none_of_a_sagas(
    error: type[Exception], words: tuple[str, ...]
) -> None:
    class Wrong(Saga[None, None]):
        async def run(self, _: None) -> None:
            raise error(*words)

    last = started(Wrong).state.parked[0].splitlines()[-1]
    assert last.startswith(f"orchestrator.errors.{error.__name__}")
    assert last.endswith("(a service's handler raises this; a saga that is to end, and be undone, raises Abort)")


def test_a_result_of_another_type_parks_the_saga() -> None:
    class Wrong(Saga[None, int]):
        async def run(self, _: None) -> int:
            return "seven"  # type: ignore[return-value]

    assert "the code raised ValidationError" in started(Wrong).state.parked[0]


# -- divergence


def test_other_code_than_the_history_holds_parks_the_saga_with_the_difference() -> None:
    class Other(Two, name="Order"):
        async def run(self, _: None) -> str:
            await self.step(Shop.reserve(what="a"))
            await self.step(Shop.charge(what="b"))
            return ""

    play = started(Two)
    play.do(1, "x")
    play.crash()
    play.definition = Other.definition
    play.do(2, "y")
    assert play.state.parked[0].splitlines() == [
        "the code diverges from the history: step 2: the history has shop.reserve, the code asks for shop.charge",
        "the code was woken after 1 outcomes, the last of step 1 (shop.reserve)",
        "  step  history       code",
        "     1  shop.reserve  shop.reserve  done",
        "!    2  shop.reserve  shop.charge   running",
    ]
    assert play.step(2).result == b'"y"', "the reply is recorded all the same"
    play.definition = Two.definition
    play.retry()
    assert play.ending.payload == b'"xy"'


def test_code_that_asks_for_less_than_the_history_holds_diverges() -> None:
    class Less(Two, name="Order"):
        async def run(self, _: None) -> str:
            return await self.step(Shop.reserve(what="a"))

    play = started(Two)
    play.do(1, "x")
    play.crash()
    play.definition = Less.definition
    play.do(2, "y")
    assert "step 2: the history has shop.reserve, the code did not ask for anything" in play.state.parked[0]
    assert play.state.parked[0].splitlines()[-1] == "!    2  shop.reserve  (nothing)     running"


def test_a_divergence_in_a_long_history_shows_the_lines_around_it() -> None:
    class Long(Saga[None, None], name="Long"):
        async def run(self, _: None) -> None:
            for what in "abcd":
                await self.step(Shop.reserve(what=what))
            await self.gather(self.step(Shop.charge()), self.step(Shop.charge()), self.step(Shop.reserve()))

    class Other(Saga[None, None], name="Long"):
        async def run(self, _: None) -> None:
            for what in "abcd":
                await self.step(Shop.reserve(what=what))
            await self.gather(self.step(Shop.charge()), self.sleep(1), self.step(Shop.reserve()))

    play = started(Long)
    for sequence in (1, 2, 3, 4):
        play.do(sequence, "x")
    play.crash()
    play.definition = Other.definition
    play.do(6, {"number": 7})
    assert play.state.parked[0].splitlines()[1:] == [
        "the code was woken after 4 outcomes, the last of step 4 (shop.reserve)",
        "  step  history       code",
        "     3  shop.reserve  shop.reserve  done",
        "     4  shop.reserve  shop.reserve  done",
        "     5  shop.charge   shop.charge   running",
        "!    6  shop.charge   sleep         done",
        "     7  shop.reserve  shop.reserve  running",
    ]


def test_a_sleep_is_no_step() -> None:
    class Sleeping(Two, name="Order"):
        async def run(self, _: None) -> str:
            await self.sleep(1)
            return ""

    play = started(Two)
    play.crash()
    play.definition = Sleeping.definition
    play.do(1, "x")
    assert "the history has shop.reserve, the code asks for sleep" in play.state.parked[0]


def test_a_divergence_is_found_where_the_undo_depends_on_the_reply_too() -> None:
    class Charging(Saga[None, None], name="Order"):
        async def run(self, _: None) -> None:
            await self.step(Shop.charge(), undo=lambda receipt: Shop.refund(receipt=receipt))

    play = started(Charging)
    play.crash()
    play.definition = Two.definition
    play.do(1, {"number": 7})
    assert "diverges" in play.state.parked[0]
    assert play.step(1).undo_payload == b'{"receipt":null}', "the undo for an unknown outcome is kept"


# -- foreign awaitables


class Foreign:
    def __await__(self) -> Generator[object, None, None]:
        yield self


LOOP = asyncio.new_event_loop()
LOOP.close()


async def nothing() -> None:
    pass


async def fetch() -> None:
    import httpx

    async with httpx.AsyncClient() as client:
        await client.get("http://127.0.0.1:1")


async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(nothing())


async def in_a_thread() -> None:
    await asyncio.to_thread(print)


async def in_time() -> None:
    async with asyncio.timeout(1):
        pass


@pytest.mark.parametrize(
    ("what", "advice"),
    [
        (lambda: asyncio.sleep(0), "cannot await asyncio.sleep(0): it would not survive a crash. Await self.sleep("),
        (lambda: pause(1), "cannot await asyncio.sleep: it would not survive a crash. Await self.sleep(...)"),
        (lambda: asyncio.wait({asyncio.Future(loop=LOOP)}), "Await self.gather(...) instead"),
        (in_a_group, "Await self.gather(...) instead"),
        (in_a_thread, "Await self.step(...) instead"),
        (in_time, "Await self.step(..., start_to_close=...) instead"),
        (
            lambda: asyncio.Queue().get(),
            "cannot await asyncio.Queue: it would not survive a crash. Await self.receive(...)",
        ),
        (lambda: asyncio.Event().wait(), "Await self.wait_until(...) instead"),
        (fetch, "Await self.step(...) and let a service do it instead"),
    ],
    ids=["sleep-0", "sleep", "wait", "TaskGroup", "to_thread", "timeout", "Queue", "Event", "httpx"],
)
def test_a_foreign_call_is_told_its_durable_name(what: Any, advice: str) -> None:
    class Wrong(Saga[None, None]):
        async def run(self, _: None) -> None:
            await what()

    play = started(Wrong, cold=False)
    assert "the code raised ForeignAwait" in play.state.parked[0]
    assert advice in play.state.parked[0]


class Asking(Saga[None, None]):
    go = signal(str)
    done = promise(str)

    async def run(self, _: None) -> None: ...


@pytest.mark.parametrize(
    ("what", "advice"),
    [
        (Shop.note(), "a saga cannot await Call by itself: await self.step(...)"),
        (Shop.note, "a saga cannot await Command by itself: await self.step(...)"),
        (Asking.go, "a saga cannot await Signal by itself: await self.receive(...)"),
        (Asking.done, "a saga cannot await Promise by itself: await self.promise(...)"),
    ],
    ids=["call", "command", "signal", "promise"],
)
def test_what_is_asked_for_by_way_of_self_is_told_so(what: Any, advice: str) -> None:
    class Alone(Saga[None, None]):
        async def run(self, _: None) -> None:
            await what

    class Together(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.gather(what, self.sleep(1))

    alone, together = started(Alone, cold=False).state.parked[0], started(Together, cold=False).state.parked[0]
    assert "await what" in alone, "the line is there"
    assert alone.splitlines()[-1].endswith(f"ForeignAwait: {advice}")
    assert together.splitlines()[-1].endswith(f"ForeignAwait: {advice}")


@pytest.mark.parametrize("what", [Foreign()], ids=["own"])
def test_a_foreign_awaitable_parks_the_saga_and_names_the_right_call(what: Any) -> None:
    class Wrong(Saga[None, None]):
        async def run(self, _: None) -> None:
            await what

    play = started(Wrong, cold=False)
    assert "the code raised ForeignAwait" in play.state.parked[0]
    assert "Await self.step(...) for work in a service, self.sleep(...) for time" in play.state.parked[0]


def test_what_cannot_be_awaited_cannot_be_gathered() -> None:
    class Wrong(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.gather(self.helper(), 7)  # type: ignore[arg-type]

        async def helper(self) -> None:
            await self.sleep(1)

    assert "a group takes steps and coroutines, not int" in started(Wrong).state.parked[0]


def test_code_may_catch_what_a_foreign_awaitable_raises() -> None:
    class Careful(Saga[None, str]):
        async def run(self, _: None) -> str:
            try:
                await Foreign()
            except Exception as error:
                return type(error).__name__
            return "fine"

    assert started(Careful).ending.payload == b'"ForeignAwait"'


# -- determinism


def test_time_randomness_and_ids_are_the_same_on_every_replay() -> None:
    class Asking(Saga[None, str]):
        async def run(self, _: None) -> str:
            for _step in range(3):
                seen = f"{self.now().isoformat()} {self.random.random()} {self.uuid()} {self.id}"
                await self.step(Shop.note(what=seen))
            return "done"

    play = started(Asking)
    for sequence in (1, 2, 3):
        play.now_ms += 1_000
        play.crash()
        play.do(sequence)
    words = [event.payload.decode()[9:-2].split() for event in play.of(ev.StepScheduled)]
    assert [datetime.fromisoformat(at).timestamp() for at, *_ in words] == [1_000, 1_001, 1_002]
    generator = random.Random(f"{SAGA_ID}/1-10-0")
    for _, number, made, saga_id in words:
        assert float(number) == generator.random()
        assert uuid.UUID(made) == uuid.UUID(int=generator.getrandbits(128), version=4)
        assert saga_id == SAGA_ID


def test_now_is_in_utc_and_stands_still_between_outcomes() -> None:
    class Clock(Saga[None, bool]):
        async def run(self, _: None) -> bool:
            first = self.now()
            await self.sleep(5)
            return self.now() - first == (self.now() - first) and self.now().tzinfo is UTC

    play = started(Clock)
    play.fire(1)
    assert play.ending.payload == b"true"


def test_another_run_has_other_randomness() -> None:
    class Draw(Saga[None, float]):
        async def run(self, _: None) -> float:
            return self.random.random()

    first, second = Play(Draw), Play(Draw)
    second.offset = 11
    first.start()
    second.start()
    assert first.ending.payload != second.ending.payload


def test_a_durable_sleep_ends_at_its_time_however_often_it_is_replayed() -> None:
    class Sleeping(Saga[None, str]):
        async def run(self, _: None) -> str:
            await self.sleep(3_600)
            return "awake"

    play = started(Sleeping)
    assert play.state.due_of(1) == play.now_ms + 3_600_000
    play.crash()
    timer = msg.TimerDue(SAGA_ID, play.state.run, 1, play.state.due_of(1) or 0)
    assert play.take(timer) == [], "it is not time yet"
    play.fire(1)
    assert play.ending.payload == b'"awake"'
    assert play.take(timer) == []


def test_a_sleep_that_nobody_waits_for_any_more_is_cancelled() -> None:
    class Race(Saga[None, None]):
        async def run(self, _: None) -> None:
            await self.gather(self.nap(), self.step(Shop.reserve()))

        async def nap(self) -> None:
            await self.sleep(60)

    play = started(Race)
    play.refuse(2)
    assert play.of(ev.WaitCanceled) == [ev.WaitCanceled(1)]
    assert play.state.due_of(1) is None


# -- letting go


def test_letting_go_of_the_code_asks_for_nothing_and_leaves_nothing_behind() -> None:
    class Tidy(Saga[None, None]):
        async def run(self, _: None) -> None:
            try:
                await self.gather(self.deep(), self.step(Shop.reserve(what="b")))
            finally:
                await self.gather(self.step(Shop.note(what="x")), self.deep())

        async def deep(self) -> None:
            try:
                await self.step(Shop.reserve(what="a"))
            finally:
                try:
                    await self.step(Shop.note(what="never"))
                finally:
                    await self.sleep(1)

    play = started(Tidy)
    driver = play.execution.driver if play.execution is not None else None
    assert driver is not None
    play.crash()
    assert driver.requests == []
    assert driver.released == []
    assert len(play.sent) == 2
    play.do(1, "x")
    assert [sent.payload for sent in play.sent[2:]] == [b'{"what":"never"}']


def test_code_that_holds_on_to_everything_is_let_go_of_in_the_end() -> None:
    class Clinging(Saga[None, None]):
        async def run(self, _: None) -> None:
            for _try in range(50):
                try:
                    await self.step(Shop.reserve())
                except BaseException:
                    continue

    play = started(Clinging)
    play.crash()
    play.do(1, "x")
    assert len(play.sent) == 2


def test_a_saga_without_live_code_is_brought_back_once_and_then_stays_warm() -> None:
    runs = []

    class Counting(Saga[None, str]):
        async def run(self, _: None) -> str:
            runs.append(1)
            await self.step(Shop.reserve(what="a"))
            await self.step(Shop.reserve(what="b"))
            return "done"

    play = started(Counting, cold=False)
    play.do(1, "x")
    assert len(runs) == 1
    play.crash()
    play.do(2, "x")
    assert len(runs) == 2


def test_an_ended_saga_holds_no_code() -> None:
    play = started(Two)
    play.do(1, "x")
    play.do(2, "x")
    assert play.execution is not None
    assert play.execution.driver is None
    assert (play.ending.undone, play.status) == (Undone.NONE, Status.COMPLETED)


def test_the_same_input_at_the_same_moment_decides_the_same() -> None:
    start = msg.Start(SAGA_ID, "m", "Order", b"null")
    moment = Moment(5_000, 3, 77, PARTITIONS)
    first, second = (decide(None, Two.definition, start, moment) for _ in range(2))
    assert first[1:] == second[1:]
    assert first[2] == "3-77-0"
    for execution in (first[0], second[0]):
        assert execution is not None
        execution.detach()
