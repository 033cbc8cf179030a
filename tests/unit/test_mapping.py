"""Maps over files: what is read, what may fail, what is written, and how little of it is held at a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from orchestrator import Failure, Map, MapChange, MapJob, MapReport
from orchestrator import rows as reading
from orchestrator.errors import DefinitionError
from orchestrator.mapping import _portions, write_lines
from orchestrator.model.events import Status
from orchestrator.rows import BATCH_BYTES, Row, read_rows
from orchestrator.testing import SagaTest
from tests.shop_world import World, send_starts

calls: list[str] = []


class Customer(BaseModel):
    id: str
    cents: int


def bill(customer: Customer) -> str:
    calls.append(customer.id)
    if customer.cents < 0:
        raise Failure("NothingOwed", customer.id)
    return f"{customer.id} owes {customer.cents}"


class Bills(Map[Customer, str]):
    batch = 4
    concurrency = 3
    tolerated_failures = 2

    async def item(self, customer: Customer) -> str:
        return await self.local(bill, customer)


class Shares(Bills):
    tolerated_share = 0.25


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def write_jsonl(path: Path, *values: Any) -> str:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return str(path)


def customers(count: int, *, owing: Callable[[int], int] = lambda number: number) -> list[dict[str, Any]]:
    return [{"id": f"c-{number}", "cents": owing(number)} for number in range(1, count + 1)]


def results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_is_done_and_its_result_written_in_order(tmp_path: Path) -> None:
    source, into = write_jsonl(tmp_path / "in.jsonl", *customers(10)), tmp_path / "out.jsonl"
    end = SagaTest(Bills).run(MapJob(source=source, results=str(into)))
    end.assert_completed(MapReport(rows=10, failed=0, results=str(into)))
    assert calls == [f"c-{number}" for number in range(1, 11)]
    assert results(into) == [{"row": n, "result": f"c-{n} owes {n}"} for n in range(1, 11)]


def test_csv_names_its_columns_and_rows_that_are_none_are_counted(tmp_path: Path) -> None:
    source, into = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text('id,cents\nc-1,5\n"c\n2",6\nc-3\nc-4,many\n\nc-5,7\nc-6,8\n')
    end = SagaTest(Bills).run(MapJob(source=str(source), results=str(into)))
    end.assert_completed(MapReport(rows=6, failed=2, results=str(into)))
    assert calls == ["c-1", "c\n2", "c-5", "c-6"]
    third, fourth = results(into)[2:4]
    assert third == {"row": 3, "error_type": "BadRow", "error_message": "1 columns, not 2"}
    assert fourth["error_message"].startswith("cents: Input should be a valid integer")


def test_one_failure_too_many_ends_the_map(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *customers(20, owing=lambda number: -(number % 2)))
    end = SagaTest(Bills).run(MapJob(source=source))
    assert (end.status, end.error_type) == (Status.FAILED, "TooManyFailures")
    assert "4 of 8 rows failed, 2 may" in end.reason
    assert len(calls) == 8


@pytest.mark.parametrize(("failing", "status"), [(5, Status.COMPLETED), (6, Status.FAILED)])
def test_a_share_is_judged_at_the_end(tmp_path: Path, failing: int, status: Status) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *customers(20, owing=lambda number: -1 if number <= failing else 1))
    assert SagaTest(Shares).run(MapJob(source=source)).status is status
    assert len(calls) == 20


def test_lines_that_are_no_json_and_rows_beyond_all_size_are_bad_rows(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": "c-1"\n\n' + json.dumps({"id": "x" * BATCH_BYTES, "cents": 1}) + "\n")
    broken, large = read_rows(str(source), 0, 10).rows
    assert (broken.error.partition(":")[0], "let it name a file" in large.error) == ("no JSON", True)


def test_a_batch_is_bounded_by_its_bytes(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *({"text": "x" * 50_000} for _ in range(5)))
    sizes, position = [], 0
    while True:
        batch = read_rows(source, position, 100)
        sizes.append(len(batch.rows))
        if batch.next is None:
            break
        position = batch.next
    assert sizes == [2, 2, 1]


def test_what_is_written_twice_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    end = write_lines(str(path), 0, ["a", "b"])
    assert write_lines(str(path), 0, ["a", "b"]) == end
    assert write_lines(str(path), end, ["c"]) == end + 2
    assert write_lines(str(path), 0, ["a", "b"]) == end
    assert path.read_text() == "a\nb\nc\n"


@pytest.mark.parametrize("left", ["a\n", "", None], ids=["cut", "empty", "deleted"])
def test_results_that_were_cut_are_not_padded(tmp_path: Path, left: str | None) -> None:
    path = tmp_path / "out.jsonl"
    if left is not None:
        path.write_text(left)
    size = len(left or "")
    with pytest.raises(
        Failure, match=f"ResultsCut: .*out.jsonl has {size} bytes of the 4 that were written: it was cut"
    ):
        write_lines(str(path), 4, ["c"])
    assert (path.read_text() if path.exists() else None) == left


class Cut(Bills, name="Cut"):
    batch = 2

    async def item(self, customer: Customer) -> str:
        return await self.local(bill_and_cut, customer)


cut_off: list[Path] = []


def bill_and_cut(customer: Customer) -> str:
    """Somebody takes the file of results away."""
    if customer.id == "c-3":
        (path,) = cut_off
        path.rename(path.with_suffix(".away"))
    return bill(customer)


def test_a_map_whose_results_were_taken_away_waits_until_they_are_back(tmp_path: Path) -> None:
    source, into = write_jsonl(tmp_path / "in.jsonl", *customers(5)), tmp_path / "out.jsonl"
    cut_off[:] = [into]
    saga = SagaTest(Cut).start(MapJob(source=source, results=str(into))).until_parked()
    why = saga.end().reason
    assert f"ResultsCut {into} has 0 bytes of the " in why
    assert "Put it back where this worker finds it" in why
    assert not into.exists()
    saga.retry().until_parked()
    into.with_suffix(".away").rename(into)
    saga.retry().finish().assert_completed(MapReport(rows=5, failed=0, results=str(into)))
    assert results(into) == [{"row": n, "result": f"c-{n} owes {n}"} for n in range(1, 6)]
    assert calls == [f"c-{number}" for number in range(1, 6)]


def test_results_that_come_back_by_themselves_are_waited_for(tmp_path: Path) -> None:
    source, into = write_jsonl(tmp_path / "in.jsonl", *customers(5)), tmp_path / "out.jsonl"
    cut_off[:] = [into]
    saga = SagaTest(Cut).start(MapJob(source=source, results=str(into))).advance(60)
    into.with_suffix(".away").rename(into)
    saga.finish().assert_completed()
    assert len(results(into)) == 5


def test_an_unknown_format_and_a_missing_library_fail_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = SagaTest(Bills).run(MapJob(source="/data/in.xlsx"))
    assert (end.status, end.error_type) == (Status.FAILED, "UnknownFormat")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(Failure, match="need pyarrow"):
        read_rows(str(tmp_path / "in.parquet"), 0, 10)


def test_parquet_is_read_row_by_row(tmp_path: Path) -> None:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    source = tmp_path / "in.parquet"
    parquet.write_table(arrow.Table.from_pylist(customers(10)), source, row_group_size=4)
    first = read_rows(str(source), 0, 6)
    assert first.next == 6
    assert read_rows(str(source), 6, 6).rows == [Row(value=value) for value in customers(10)[6:]]


def test_a_second_map_into_the_same_results_leaves_its_own_rows_alone(tmp_path: Path) -> None:
    into = tmp_path / "out.jsonl"
    for count in (3, 1, 0):
        source = write_jsonl(tmp_path / f"in-{count}.jsonl", *customers(count))
        SagaTest(Bills).run(MapJob(source=source, results=str(into))).assert_completed()
        assert len(results(into)) == count


def test_a_batch_that_was_half_written_is_written_whole_and_nothing_else_stands_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("a\nbroken, and longer than what comes\n")
    assert write_lines(str(path), 2, ["b", "c"]) == 6
    assert path.read_text() == "a\nb\nc\n"


def test_of_a_large_row_group_only_the_rows_of_a_batch_become_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    source = tmp_path / "in.parquet"
    converted: list[int] = []
    parquet.write_table(arrow.Table.from_pylist(customers(5_000)), source, row_group_size=5_000)
    convert = reading.arrow_row

    def counted(records: Any, number: int) -> Any:
        converted.append(number)
        return convert(records, number)

    monkeypatch.setattr(reading, "arrow_row", counted)
    rows = read_rows(str(source), 4_321, 10).rows
    assert [row.value for row in rows] == customers(5_000)[4_321:4_331]
    assert len(converted) == 10


def test_a_quote_that_is_never_closed_is_a_bad_row_and_the_map_goes_on(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    lines = 2 * BATCH_BYTES // len("c-5,7\n")
    source.write_text('cents,id\n1,c-1\n2,"c-2\n' + "c-5,7\n" * lines)
    good, bad, *others = read_rows(str(source), 0, 100).rows
    assert (good.value, "field larger" in bad.error) == ({"cents": "1", "id": "c-1"}, True)
    assert others
    source.write_text('cents,id\n1,c-1\n2,"c-2\n3,c-3\n')
    assert [row.error for row in read_rows(str(source), 0, 100).rows] == ["", "no CSV: unexpected end of data"]
    source.write_text('cents,"id\n1,c-1\n')
    with pytest.raises(Failure, match="names of the columns"):
        read_rows(str(source), 0, 100)


@pytest.mark.parametrize(
    ("name", "text"), [("in.csv", "id,cents\nc-1,5\n"), ("in.jsonl", '{"id":"c-1","cents":"5"}\n')]
)
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, name: str, text: str) -> None:
    source = tmp_path / name
    source.write_text(text + text.splitlines()[-1] + "\n", encoding="utf-8-sig")
    first = read_rows(str(source), 0, 1)
    assert first.next is not None
    assert first.rows == read_rows(str(source), first.next, 1).rows == [Row(value={"id": "c-1", "cents": "5"})]


def test_what_json_cannot_say_is_a_bad_row(tmp_path: Path) -> None:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    source = tmp_path / "in.parquet"
    values = [{"a": b"\xff", "b": [1.0]}, {"a": None, "b": [float("nan")]}, {"a": None, "b": [2.0]}]
    parquet.write_table(arrow.Table.from_pylist(values), source)
    batch = read_rows(str(source), 0, 10)
    assert [row.error.partition(":")[0] for row in batch.rows] == ["a is binary", "b is nan", ""]
    batch.model_dump_json()
    lines = tmp_path / "in.jsonl"
    lines.write_text('{"cents": NaN}\n{"cents": 1e999}\n')
    assert [row.error.partition(":")[0] for row in read_rows(str(lines), 0, 10).rows] == [
        "cents is nan",
        "cents is inf",
    ]


def test_concurrency_is_changed_while_it_runs(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *customers(12))
    test = SagaTest(Bills).at(0).signal(Map.change, MapChange(concurrency=1))
    test.run(MapJob(source=source)).assert_completed()


def test_a_map_needs_its_types_and_its_item() -> None:
    with pytest.raises(DefinitionError, match="name the types"):

        class Untyped(Map):  # type: ignore[type-arg]
            async def item(self, row: Any) -> Any: ...

    with pytest.raises(DefinitionError, match="has no `async def item`"):

        class Idle(Map[Customer, str]): ...


def failed(error_type: str, job: MapJob) -> str:
    """The map fails by this; gives the reason."""
    end = SagaTest(Bills).run(job)
    assert (end.status, end.error_type) == (Status.FAILED, error_type)
    return end.reason


@pytest.mark.parametrize("spelling", ["{}/in.jsonl", "{}/./up/../in.jsonl", "{}/link.jsonl", "{}/hard.jsonl"])
def test_results_that_are_the_source_are_refused_before_anything_is_touched(tmp_path: Path, spelling: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *customers(2))
    (tmp_path / "up").mkdir()
    (tmp_path / "link.jsonl").symlink_to(source)
    (tmp_path / "hard.jsonl").hardlink_to(source)
    before = Path(source).read_text()
    reason = failed("SameFile", MapJob(source=source, results=spelling.format(tmp_path)))
    assert "name another file for the results" in reason
    assert (Path(source).read_text(), calls) == (before, [])


@pytest.mark.parametrize(
    ("name", "content", "error_type"),
    [
        ("in.xlsx", b"", "UnknownFormat"),
        ("in.csv", None, "FileUnreachable"),
        ("in.csv", b'a,"b', "BadColumns"),
        ("in.csv", b"id,cents,id\nc-1,1,c-2\n", "BadColumns"),
        ("in.parquet", b"PAR1 is how it begins", "BadParquet"),
        ("folder.csv", None, "NoFile"),
    ],
)
def test_a_source_that_cannot_be_read_fails_the_map_and_leaves_the_results_alone(
    tmp_path: Path, name: str, content: bytes | None, error_type: str
) -> None:
    source, into = tmp_path / name, tmp_path / "out.jsonl"
    (tmp_path / "folder.csv").mkdir()
    if content is not None:
        source.write_bytes(content)
    into.write_text("from earlier\n")
    assert str(source) in failed(error_type, MapJob(source=str(source), results=str(into)))
    assert into.read_text() == "from earlier\n"


def test_columns_of_one_name_in_parquet_are_refused(tmp_path: Path) -> None:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    source = tmp_path / "in.parquet"
    parquet.write_table(arrow.table([[1], [2]], names=["id", "id"]), source)
    with pytest.raises(Failure, match="several columns are named 'id'"):
        read_rows(str(source), 0, 10)


def test_results_in_a_folder_that_does_not_exist_fail_the_map_before_its_items(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *customers(2))
    reason = failed("FileUnreachable", MapJob(source=source, results=str(tmp_path / "none" / "out.jsonl")))
    assert "every worker must find the file, and its folder, under this name" in reason
    assert calls == []


def test_a_source_that_is_there_later_is_read(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    saga = SagaTest(Bills).start(MapJob(source=str(source)))
    saga.advance(600)
    write_jsonl(source, *customers(2))
    saga.finish().assert_completed(MapReport(rows=2, failed=0, results=None))


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (r'{"id": "\ud800", "cents": 1}', "surrogates not allowed"),
        (r'{"\ud800": 1}', "surrogates not allowed"),
        (r'{"\ud800": NaN}', r"\ud800 is nan"),
        (deep(5_000), "within each other"),
        (deep(101), "within each other"),
        ('{"%s": NaN}' % ("x" * 300_000), "xxx"),
        ("1" * 5_000, "no JSON"),
        (json.dumps("\x01" * 60_000), "the row has 360023 bytes as JSON, at most 131072; let it name a file"),
        (f'"{"x" * 3_000_000}"', "or more; let it name a file"),
    ],
)
def test_whatever_the_journal_cannot_have_is_a_bad_row_and_the_next_is_read(
    tmp_path: Path, line: str, words: str
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(f"{line}\n{json.dumps(customers(1)[0])}\n")
    batch = read_rows(str(source), 0, 10)
    bad, good = batch.rows
    assert words in bad.error
    assert (bad.value, len(bad.error) <= 1_000, good.value) == (None, True, customers(1)[0])
    assert type(batch).model_validate_json(batch.model_dump_json()) == batch


def test_the_deepest_row_can_be_read_back(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(deep(100))
    batch = read_rows(str(source), 0, 10)
    assert not batch.rows[0].error
    assert type(batch).model_validate_json(batch.model_dump_json()) == batch


def test_a_batch_is_bounded_by_what_it_becomes_not_by_what_it_was(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    names, values = (f"measurement_{number:03d}" for number in range(300)), ["0"] * 300
    source.write_text(",".join(names) + "\n" + (",".join(values) + "\n") * 50 + "\x01" * 60_000 + ",0" * 299 + "\n")
    read, position = [], 0
    while True:
        batch = read_rows(str(source), position, 100)
        assert len(batch.model_dump_json()) < BATCH_BYTES + 1_000
        read += batch.rows
        if batch.next is None:
            break
        position = batch.next
    assert [bool(row.error) for row in read] == [False] * 50 + [True]
    assert "bytes as JSON, at most" in read[-1].error


def test_results_are_passed_on_in_portions_of_what_they_become() -> None:
    lines = ['\\"' * 15_000] * 4
    assert [len(some) for some in _portions(lines)] == [2, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 0}, "batch=0 must be at least 1"),
        ({"concurrency": 0}, "concurrency=0 must be at least 1"),
        ({"tolerated_failures": -1}, "tolerated_failures=-1 at least 0"),
        ({"tolerated_share": 5}, "tolerated_share=5 between 0 and 1"),
        ({"tolerated_failures": 1, "tolerated_share": 0.5}, "not both"),
    ],
)
def test_a_map_with_limits_that_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError, match=f"Wrong: .*{words}"):
        type("Wrong", (Bills,), options)


@pytest.mark.parametrize("concurrency", [0, -3])
def test_a_concurrency_below_one_is_refused(concurrency: int) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        MapChange(concurrency=concurrency)


class Hundreds(Bills):
    batch = 100
    tolerated_failures = None
    tolerated_share = 0.29


@pytest.mark.parametrize(("failing", "status"), [(29, Status.COMPLETED), (30, Status.FAILED)])
def test_a_share_is_exact(tmp_path: Path, failing: int, status: Status) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *customers(100, owing=lambda number: -1 if number <= failing else 1))
    assert SagaTest(Hundreds).run(MapJob(source=source)).status is status


class Mistaken(Map[Customer, str]):
    async def item(self, customer: Customer) -> str:
        return customer.cents  # type: ignore[return-value]


def test_a_result_of_another_type_is_not_written(tmp_path: Path) -> None:
    source, into = write_jsonl(tmp_path / "in.jsonl", *customers(1)), tmp_path / "out.jsonl"
    end = SagaTest(Mistaken).run(MapJob(source=source, results=str(into)))
    assert end.status is Status.PARKED
    assert "Mistaken.item returned int, not the type of its result: Input should be a valid string" in end.reason
    assert into.read_text() == ""


def unbill(bill: str | None, customer: Customer) -> None:
    calls.append(f"not {customer.id}")


class Undone(Map[Customer, str]):
    batch = 2
    concurrency = 1

    async def item(self, customer: Customer) -> str:
        return await self.local(bill, customer, undo=unbill)


def test_a_map_that_fails_undoes_the_rows_since_it_continued_as_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *customers(6, owing=lambda number: -1 if number == 6 else 1))
    assert SagaTest(Undone).run(MapJob(source=source)).status is Status.COMPENSATED
    assert calls[6:] == ["not c-5", "not c-4", "not c-3", "not c-2", "not c-1"]
    calls.clear()
    monkeypatch.setattr("orchestrator.saga.SUGGEST_AFTER_OUTCOMES", 6)
    assert SagaTest(Undone).run(MapJob(source=source)).status is Status.COMPENSATED
    assert calls[6:] == ["not c-5"]


class Many(Bills):
    batch = 200
    concurrency = 100


def test_a_long_map_holds_only_a_run_at_a_time(tmp_path: Path) -> None:
    world = World(sagas=(Many,))
    source, into = write_jsonl(tmp_path / "in.jsonl", *customers(9_000)), tmp_path / "out.jsonl"
    job = MapJob(source=source, results=str(into)).model_dump_json().encode()
    send_starts(world, "m-1", saga_type="Many", value=job)
    most, runs = 0, set()
    for _ in range(200):
        for _ in range(20):
            world.step()
            world.now_ms += 1
        for tenure in world.engine.tenures.values():
            execution = None if tenure.partition is None else tenure.partition.runs.live.get("m-1")
            if execution is not None:
                most, state = max(most, len(execution.state.steps)), execution.state
                runs.add(state.run)
        if state.ended and state.phase is Status.COMPLETED:
            break
    assert state.phase is Status.COMPLETED
    assert json.loads(state.result)["rows"] == 9_000
    assert len(results(into)) == 9_000
    assert len(runs) > 1
    assert most < 5_000
    assert len(calls) == 9_000
    assert not world.records(world.topics.dead_letters)
