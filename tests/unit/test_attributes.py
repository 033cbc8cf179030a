"""Search attributes: declared and typed in the class, recorded in the history, and what lists make of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from model.play import Play
from model.shop import Shop

from orchestrator.attributes import Assignment, Bool, Datetime, Double, Int, Keyword, KeywordList, Text
from orchestrator.client import Client
from orchestrator.errors import DefinitionError, InvalidRequest
from orchestrator.model import events as ev
from orchestrator.model.events import Status, StepKind
from orchestrator.saga import Saga
from orchestrator.visibility import Visibility, query
from orchestrator.visibility.query import read_filter, read_order
from orchestrator.wire.notes import FIELDS, WORDS, Note, read_note, write_note
from tests.shop_world import PARTITIONS, World, drive

AT = datetime(2026, 11, 25, 13, tzinfo=UTC)


class Tagged(Saga[None, str], name="Greeting"):
    """Tells nothing of itself."""

    customer = Keyword()
    amount = Double()
    items = Int()
    express = Bool()
    due = Datetime()
    tags = KeywordList()
    comment = Text()

    async def run(self, _: None) -> str:
        return await self.step(Shop.reserve())


class Telling(Tagged, name="Greeting"):
    async def run(self, _: None) -> str:
        self.upsert(Tagged.customer("ann"), Tagged.amount(3), Tagged.tags(["tea", "gift"]))
        self.memo(colour="green", size=3)
        self.summarize("reserving")
        await self.step(Shop.reserve(), undo=Shop.release)
        self.upsert(Tagged.amount(4.5), Tagged.tags(None))
        self.memo(size=None)
        return "done"


def notes(play: Play) -> list[Any]:
    return [json.loads(event.payload) for event in play.of(ev.Recorded)]


# -- in code


def test_what_a_saga_tells_is_recorded_and_replayed() -> None:
    play = Play(Telling)
    play.start()
    assert play.names == ["SagaStarted", "Recorded", "Recorded", "Recorded", "StepScheduled"]
    assert play.of(ev.Recorded)[0].kind is StepKind.NOTE
    assert notes(play) == [
        {
            "attributes": {
                "customer": ["Keyword", "ann"],
                "amount": ["Double", 3],
                "tags": ["KeywordList", ["tea", "gift"]],
            }
        },
        {"memo": {"colour": "green", "size": 3}},
        {"summary": "reserving"},
    ]
    play.crash()
    play.do(4, "x")
    assert play.status is Status.COMPLETED
    assert notes(play)[3] == {"attributes": {"amount": ["Double", 4.5], "tags": ["KeywordList", None]}}


def test_an_attribute_of_another_saga_is_a_mistake() -> None:
    class Other(Saga[None, None]):
        customer = Keyword()

        async def run(self, _: None) -> None:
            self.upsert(Tagged.customer("ann"))

    play = Play(Other)
    play.start()
    assert play.status is Status.PARKED
    assert "Keyword customer is no attribute of this saga" in play.state.parked[0]


@pytest.mark.parametrize(
    "assignment",
    [
        Assignment(Tagged.items, "three"),
        Assignment(Tagged.items, True),
        Assignment(Tagged.express, 1),
        Assignment(Tagged.customer, "x" * 256),
        Assignment(Tagged.tags, ["a", 3]),
        Assignment(Tagged.comment, 3),
        Assignment(Tagged.amount, "3"),
        Assignment(Tagged.due, "tomorrow"),
    ],
)
def test_a_value_of_another_kind_does_not_fit(assignment: Assignment) -> None:
    with pytest.raises(DefinitionError, match=f"attribute {assignment.attribute.name}: .* is no"):
        Tagged.note_of(assignment)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_refused_and_takes_nothing_away(value: float) -> None:
    for attribute in (Tagged.amount, Tagged.items):
        with pytest.raises(
            DefinitionError, match=rf"attribute {attribute.name}: {value} is no {type(attribute).__name__}"
        ):
            Tagged.note_of(Assignment(attribute, value))


def test_a_name_that_no_filter_would_find_is_refused_in_the_class() -> None:
    assert set(FIELDS) == set(query.FIELDS)
    for name in (*FIELDS, *WORDS, "Starts", "BETWEEN"):
        with pytest.raises(
            DefinitionError, match=rf"Hidden\.{name}: .* Reserved are .* \(id, run, .* and the words .* between"
        ):
            type("Hidden", (Tagged,), {name: Keyword()})
    type("Found", (Tagged,), {"Status": Keyword(), "starts_at": Datetime()})


def test_a_time_is_told_in_milliseconds() -> None:
    for at in (AT, AT.replace(tzinfo=None)):
        assert read_note(Tagged.note_of(Tagged.due(at))).attributes == {"due": ("Datetime", 1_795_611_600_000)}


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"no json",
        b'{"attributes": 3}',
        b'{"summary": 3}',
        b'{"attributes": {"a b": ["Int", 1]}}',
        b'{"attributes": {"a": ["Integer", 1]}}',
        b'{"attributes": {"a": "x"}}',
        b'{"memo": {"a": "' + b"x" * 20_000 + b'"}}',
        json.dumps({"attributes": {f"a{n}": ["Int", 1] for n in range(101)}}).encode(),
    ],
)
def test_a_note_that_nobody_could_show_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"attribute|memo|summary|most"):
        read_note(data)


def test_a_memo_is_json() -> None:
    with pytest.raises(ValueError, match="no JSON"):
        write_note(Note(memo={"at": object()}))
    with pytest.raises(DefinitionError):
        Tagged.note_of(memo={"at": object()})


# -- in lists


@pytest.fixture(scope="module")
def visibility(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Sagas told of at their start."""
    world = World()

    async def start(client: Client, id: str, *told: Assignment, **more: Any) -> None:
        await client.start(Tagged, None, id=id, attributes=told, **more)

    async def main() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            await start(client, "a", Tagged.customer("ann"), Tagged.amount(3), Tagged.tags(["tea", "gift"]))
            await start(client, "b", Tagged.customer("bob"), Tagged.amount(12.5), Tagged.due(AT), Tagged.express(True))
            await start(
                client, "c", Tagged.customer("o'hara"), Tagged.comment("Please ring twice, ÄRGERE"), Tagged.items(-2)
            )
            await start(client, "d", memo={"colour": "green"}, summary="the last one")

    world.engine.config.definitions["Greeting"] = Tagged.definition  # type: ignore[index]
    drive(world, main())
    world.settle()
    path: Path = tmp_path_factory.mktemp("v") / "v.sqlite"
    with Visibility(path, world.log, world.topics, PARTITIONS) as found:
        assert found.catch_up(5)
        yield found


def found(visibility: Visibility, where: str, order_by: str | None = "id") -> str:
    return "".join(run.saga_id for run in visibility.find(where, order_by))


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("partition >= 0 and events > 0", "abcd"),
        ("customer = 'ann'", "a"),
        ("customer != 'ann'", "bc"),
        ("customer = 'o''hara'", "c"),
        ("customer in ('ann', 'bob')", "ab"),
        ("customer not in ('ann', 'bob')", "cd"),
        ("customer starts with 'o'", "c"),
        ("id starts with 'a' or id = 'd'", "ad"),
        ("amount > 3", "b"),
        ("amount >= 3 and amount < 100", "ab"),
        ("amount between 3 and 12.5", "ab"),
        ("items = -2", "c"),
        ("express = true", "b"),
        ("express = false", ""),
        ("tags = 'gift'", "a"),
        ("tags = 'gifts'", ""),
        ("comment = 'RING'", "c"),
        ("comment = 'ärger'", "c"),
        ("amount < 99999999999999999999999", "ab"),
        ("items > -99999999999999999999999 and items = -2.0", "c"),
        (f"amount < {'9' * 3900}", "ab"),
        ("version = 1 and undone is null and not cause = 'failed'", "abcd"),
        ("status in ('RUNNING', 'PARKED') and status starts with 'RUN'", "abcd"),
        ("due > 'tomorrow' or custmer = 'ann'", ""),
        ("comment is null and not (customer = 'ann' or customer = 'bob')", "d"),
        ("customer is not null", "abc"),
        ("due = '2026-11-25T13:00:00Z'", "b"),
        ("due > '2026-11-25' and due < '2026-11-26'", "b"),
        ("type = 'Greeting' and status = 'RUNNING'", "abcd"),
        ("started > '2020-01-01'", "abcd"),
        ("ended is null", "abcd"),
        ("ended > '2020-01-01'", ""),
        ("not ended > '2020-01-01'", "abcd"),
        ("nowhere = 3", ""),
        ("not nowhere = 3", "abcd"),
        ("AMOUNT > 3", ""),
        ("customer = 'ann' OR customer = 'bob' AND amount > 100", "a"),
    ],
)
def test_a_filter_finds(visibility: Visibility, where: str, ids: str) -> None:
    assert found(visibility, where) == ids


def test_lists_are_ordered_and_counted(visibility: Visibility) -> None:
    assert found(visibility, "amount > 0", "amount desc") == "ba"
    assert found(visibility, "partition >= 0", "customer, id") == "dabc"
    assert [run.saga_id for run in visibility.find(None, "id", 2)] == ["a", "b"]
    assert visibility.count() == {None: 4}
    assert visibility.count("customer = 'nobody'") == {None: 0}
    assert visibility.count(group_by="status") == {"RUNNING": 4}
    assert visibility.count("amount > 0", "customer") == {"ann": 1, "bob": 1}
    assert visibility.count(group_by="customer") == {None: 1, "ann": 1, "bob": 1, "o'hara": 1}
    assert visibility.count(group_by="express") == {None: 3, "true": 1}
    assert [str(value) for value in visibility.count("items < 0", "items")] == ["-2"]


def test_a_run_shows_what_it_told(visibility: Visibility) -> None:
    (run,) = visibility.find("id = 'd'")
    assert (run.memo, run.summary, run.attributes) == ({"colour": "green"}, "the last one", {})
    (run,) = visibility.find("id = 'a'")
    assert run.attributes == {"customer": "ann", "amount": 3, "tags": ["tea", "gift"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a name"),
        ("customer", "expected a comparison"),
        ("customer =", "expected a value"),
        ("customer = ann", "character 12, 'ann': expected a value: 'text'"),
        ("customer = 'ann", "character 12"),
        ("customer = 'ann' amount > 3", "character 18, 'amount > 3': expected `and`, `or` or the end"),
        ("customer = 'ann'; DROP TABLE runs", "character 17"),
        ("(amount > 3", "expected ')'"),
        ("amount between 3 or 4", "expected 'and'"),
        ("amount not 3", "expected `in` behind `not`"),
        ("amount in 3", "expected '('"),
        ("customer starts 'a'", "expected 'with'"),
        ("customer is 'a'", "expected 'null'"),
        ("'a' = 'a'", "expected a name"),
        ("amount like 'a'", "expected one of ="),
        ("started > 'yesterday'", "is a time such as"),
        ("ended = true", "ended is a time such as '2026-11-25T13:00:00Z', not True"),
        ("status = 'RUNING'", "status is one of RUNNING, COMPENSATING, "),
        ("status in ('RUNNING', 'running')", "RESET, never 'running'"),
        ("status != 5", "never 5"),
        ("cause = 'FAILED'", "cause is one of failed, canceled, "),
        ("undone = 'some'", "undone is one of all, none, partial, never 'some'"),
        ("version = 'x'", "version is a number, not 'x'"),
        ("events between 1 and '2'", "events is a number, not '2'"),
        ("id = true", "id is text, not True"),
        ("started starts with '2026'", "started is no text"),
        ("(" * 60 + "a = 1" + ")" * 60, "at most 50 parentheses"),
        ("not " * 60 + "a = 1", "at most 50 parentheses"),
        ("a = 1 and " * 500 + "a = 1", "at most 4000 characters"),
    ],
)
def test_a_filter_that_is_wrong_says_where(text: str, expected: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_filter(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize("limit", [0, 1_001, 1.5])
def test_a_page_that_is_none_is_refused(visibility: Visibility, limit: Any) -> None:
    for ask in (lambda: visibility.find(None, limit=limit), lambda: visibility.list(limit=limit)):
        with pytest.raises(InvalidRequest, match=f"1 to 1000 runs, a whole number, not {limit}"):
            ask()


@pytest.mark.parametrize("text", ["amount down", "", "a;b", "amount desc nulls", "1"])
def test_an_order_that_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_order(text)


def test_nothing_of_a_filter_gets_into_the_statement() -> None:
    hostile = "x') OR 1=1 --"
    condition = read_filter(f"customer = '{hostile.replace(chr(39), chr(39) * 2)}'")
    assert "1=1" not in condition.sql
    assert hostile in condition.arguments
    with pytest.raises(InvalidRequest):
        read_filter("customer) OR (1 = 1")


def test_what_code_upserts_replaces_what_was_there(tmp_path: Path) -> None:
    world = World()
    world.engine.config.definitions["Greeting"] = Telling.definition  # type: ignore[index]

    async def main() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            await client.start(
                Tagged, None, id="a", attributes=[Tagged.customer("bob"), Tagged.items(1)], summary="new"
            )

    drive(world, main())
    world.settle()
    with Visibility(tmp_path / "v.sqlite", world.log, world.topics, PARTITIONS) as visibility:
        assert visibility.catch_up(5)
        (run,) = visibility.find("customer = 'ann' and items = 1")
        assert (run.summary, run.memo) == ("reserving", {"colour": "green", "size": 3})
        assert visibility.find("customer = 'bob'") == ()


def test_a_run_that_carries_on_is_found_by_what_the_one_before_told(tmp_path: Path) -> None:
    class Continuing(Tagged, name="Greeting"):
        async def run(self, _: None) -> str:
            self.upsert(Tagged.customer("ann"))
            self.memo(colour="green")
            await self.sleep(1)
            self.continue_as_new(None)

    world = World()
    world.engine.config.definitions["Greeting"] = Continuing.definition  # type: ignore[index]

    async def main() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            await client.start(Tagged, None, id="a", attributes=[Tagged.items(1)], summary="new")

    drive(world, main())
    world.settle()
    world.advance(1_100)
    with Visibility(tmp_path / "v.sqlite", world.log, world.topics, PARTITIONS) as visibility:
        assert visibility.catch_up(5)
        runs = visibility.find("customer = 'ann' and items = 1")
        assert len(runs) > 1
        assert {(run.summary, run.memo["colour"]) for run in runs} == {("new", "green")}


def test_a_fork_is_found_by_what_the_saga_told_before_that_point(tmp_path: Path) -> None:
    class Waiting(Tagged, name="Greeting"):
        async def run(self, _: None) -> str:
            self.upsert(Tagged.customer("ann"))
            await self.sleep(3_600)
            return "done"

    world = World()
    world.engine.config.definitions["Greeting"] = Waiting.definition  # type: ignore[index]

    async def main() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            await client.start(Tagged, None, id="a")
            await client.fork("a", to=2, new_id="b")

    drive(world, main())
    world.settle()
    with Visibility(tmp_path / "v.sqlite", world.log, world.topics, PARTITIONS) as visibility:
        assert visibility.catch_up(5)
        assert {run.saga_id for run in visibility.find("customer = 'ann'")} == {"a", "b"}
