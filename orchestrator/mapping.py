"""Map over large data: a saga that reads a file batch by batch, does something for every row, and writes the results.

    class Invoices(Map[Customer, str]):
        concurrency = 20
        tolerated_failures = 100

        async def item(self, customer: Customer) -> str:
            return await self.step(Billing.invoice(customer_id=customer.id))

    await client.start(Invoices, MapJob(source="/data/customers.csv", results="/data/invoices.jsonl"), id="2024-05")

Of the data only a batch is ever in the journal or in memory, and the saga continues as new when its history has grown.
"""

from __future__ import annotations

import codecs
import csv
import json
import math
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestrator.durations import Duration
from orchestrator.errors import Abort, DefinitionError, Failure, StepFailed
from orchestrator.groups import Done
from orchestrator.retry import Retry
from orchestrator.saga import Saga
from orchestrator.signals import first_problem, signal

A = TypeVar("A")
B = TypeVar("B")

BATCH_BYTES = 128 * 1024
"""Rows of one batch together, as they stand in the file: half of what a decision may hold."""

PARQUET_ROWS = 128
"""So many rows of a row group are decoded at a time."""

PARQUET_BUFFER = 64 * 1024
"""Bytes of a column that are read at a time."""


class MapProgress(BaseModel):
    """How far a map has come. `position` is the reader's, `written` the length of the results in bytes."""

    position: int = 0
    written: int = 0
    rows: int = 0
    failed: int = 0
    concurrency: int | None = None


class MapJob(BaseModel):
    """What to map over. `source` ends in .jsonl, .csv or .parquet; `results` is a JSON Lines file that is written.

    Every worker must find both under these names.
    """

    source: str
    results: str | None = None
    progress: MapProgress = MapProgress()


class MapReport(BaseModel):
    """What a map came to."""

    rows: int
    failed: int
    results: str | None


class MapChange(BaseModel):
    """What can be changed while a map runs, from its next batch on."""

    concurrency: int


class Row(BaseModel):
    """One row as it was read; `error` says why it is none."""

    value: Any = None
    error: str = ""


class Rows(BaseModel):
    """A batch. `next`: where the next one begins; None: this was the last."""

    rows: list[Row]
    next: int | None


class Map(Saga[MapJob, MapReport], Generic[A, B]):
    """Base of maps: `class Invoices(Map[Customer, str])`, the type of a row and that of its result.

    `item` is a saga's code for one row; a row whose steps fail is one that failed, and its result says so. Beyond
    `tolerated_failures`, or at the end beyond `tolerated_share` of all rows, the map fails; what was done for other
    rows stays done. `batch` rows are read at a time, and `concurrency` items run at the same time.
    """

    batch: ClassVar[int] = 100
    concurrency: ClassVar[int] = 10
    tolerated_failures: ClassVar[int | None] = 0
    """None: any number of them."""
    tolerated_share: ClassVar[float | None] = None
    files: ClassVar[Retry] = Retry(maximum_interval=60.0)
    """How reading and writing are tried again."""
    file_timeout: ClassVar[Duration | None] = None

    change = signal(MapChange)

    _row: ClassVar[TypeAdapter[Any]]
    _result: ClassVar[TypeAdapter[Any]]

    def __init_subclass__(cls, **options: Any) -> None:
        for base in getattr(cls, "__orig_bases__", ()):
            if getattr(base, "__origin__", None) is Map:
                cls._row, cls._result = (TypeAdapter(given) for given in base.__args__)
        if not hasattr(cls, "_row"):
            raise DefinitionError(f"{cls.__name__}: name the types of a row and its result, as in Map[Customer, str]")
        if cls.item is Map.item:
            raise DefinitionError(f"{cls.__name__} has no `async def item`")
        super().__init_subclass__(**options)

    async def item(self, row: A, /) -> B:
        """What is done for one row."""
        raise NotImplementedError

    async def run(self, job: MapJob) -> MapReport:
        at = job.progress.model_copy()
        if job.results is not None and at.position == 0:
            await self.local(clear_results, job.results, retry=self.files, start_to_close=self.file_timeout)
        while True:
            change = await self.receive(Map.change, timeout=0)
            if change is not None:
                at.concurrency = max(1, change.concurrency)
            batch = await self.local(
                read_rows, job.source, at.position, self.batch, retry=self.files, start_to_close=self.file_timeout
            )
            ends = await self.each(
                batch.rows,
                self._one,
                concurrency=at.concurrency or self.concurrency,
                tolerated_failures=len(batch.rows),
            )
            if job.results is not None and ends:
                lines = [_line(at.rows + number, end) for number, end in enumerate(ends, start=1)]
                for some in _portions(lines):
                    at.written = await self.local(
                        write_lines, job.results, at.written, some, retry=self.files, start_to_close=self.file_timeout
                    )
            at.rows += len(ends)
            at.failed += sum(isinstance(end, StepFailed) for end in ends)
            self._check(at, ended=batch.next is None)
            if batch.next is None:
                return MapReport(rows=at.rows, failed=at.failed, results=job.results)
            at.position = batch.next
            if self.suggests_continue_as_new:
                self.continue_as_new(job.model_copy(update={"progress": at}))

    async def _one(self, row: Row) -> Any:
        if row.error:
            raise StepFailed("row", "BadRow", row.error, unknown=False)
        try:
            value = self._row.validate_python(row.value)
        except ValidationError as error:
            raise StepFailed("row", "BadRow", first_problem(error), unknown=False) from None
        return self._result.dump_python(await self.item(value), mode="json")

    def _check(self, at: MapProgress, *, ended: bool) -> None:
        """Raises `Abort` where more rows have failed than may."""
        most, share = self.tolerated_failures, self.tolerated_share
        if share is not None:
            most = int(share * at.rows) if ended else None
        if most is not None and at.failed > most:
            raise Abort("TooManyFailures", f"{at.failed} of {at.rows} rows failed, {most} may")


del Map.definition  # it is no saga yet


def _line(number: int, end: Done[Any] | StepFailed) -> str:
    if isinstance(end, Done):
        return json.dumps({"row": number, "result": end.value})
    return json.dumps({"row": number, "error_type": end.error_type, "error_message": end.message})


def _portions(lines: list[str]) -> Iterator[list[str]]:
    """The lines in as many lists as it takes for none to be too large."""
    some: list[str] = []
    size = 0
    for line in lines:
        if some and size + len(line) > BATCH_BYTES:
            yield some
            some, size = [], 0
        some.append(line)
        size += len(line)
    yield some


def read_rows(source: str, position: int, most: int) -> Rows:
    """At most so many rows from a position on: 0, or what a batch before gave as `next`."""
    reader = _READERS.get(Path(source).suffix)
    if reader is None:
        raise Failure("UnknownFormat", f"{source}: of {', '.join(_READERS)} it must be one")
    rows: list[Row] = []
    size = 0
    for row, width, after in reader(source, position):
        if rows and size + width > BATCH_BYTES:
            return Rows(rows=rows, next=position)
        if problem := _problem(row.value, "the row"):
            row = Row(error=problem)
        elif width > BATCH_BYTES:
            row = Row(error=f"the row has {width} bytes, at most {BATCH_BYTES}; let it name a file")
            width = 0
        rows.append(row)
        size += width
        position = after
        if len(rows) == most:
            return Rows(rows=rows, next=position)
    return Rows(rows=rows, next=None)


def _problem(value: Any, name: str) -> str:
    """What the journal's JSON cannot say of a value, or nothing."""
    if isinstance(value, bytes):
        return f"{name} is binary: let it be text, or name a file"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} is {value}: let it be a number or null"
    if isinstance(value, dict):
        return next(filter(None, (_problem(inner, str(key)) for key, inner in value.items())), "")
    if isinstance(value, list | tuple):
        return next(filter(None, (_problem(inner, name) for inner in value)), "")
    return ""


def clear_results(results: str) -> None:
    """The file is there and empty: what an earlier map wrote is gone."""
    with Path(results).open("wb") as file:
        os.fsync(file.fileno())


def write_lines(results: str, position: int, lines: list[str]) -> int:
    """Writes lines at a position, as the last of the file, and says where they end. They are on disk then.

    The same lines at the same place: twice is once. Lines that stand there already are left alone with all behind
    them, since an attempt that was given up may come here when later batches are written.
    """
    data = "".join(line + "\n" for line in lines).encode()
    path = Path(results)
    path.touch()
    with path.open("r+b") as file:
        file.seek(position)
        if file.read(len(data)) != data:
            file.truncate(position)
            file.seek(position)
            file.write(data)
            file.flush()
        os.fsync(file.fileno())
    return position + len(data)


_Read = Iterator[tuple[Row, int, int]]
"""Each row, its size in bytes, and the position behind it."""


def _read_jsonl(source: str, position: int) -> _Read:
    with Path(source).open("rb") as file:
        file.seek(position)
        for line in file:
            position += len(line)
            if not line.strip():
                continue
            try:
                yield Row(value=json.loads(line)), len(line), position
            except ValueError as error:
                yield Row(error=f"no JSON: {error}"), 0, position


def _read_csv(source: str, position: int) -> _Read:
    """The first line names the columns. A row may stand on several lines; after a bad one comes the next line."""
    with Path(source).open("rb") as file:
        taken = 0

        def lines() -> Iterator[str]:
            nonlocal taken
            for line in file:
                text = line if taken else line.removeprefix(codecs.BOM_UTF8)
                taken += len(line)
                yield text.decode(errors="replace")

        try:
            names = next(csv.reader(lines(), strict=True), [])
        except csv.Error as error:
            raise Failure("BadColumns", f"{source}: the names of the columns are no CSV: {error}") from None
        if position:
            file.seek(position)
            taken = position
        before = taken
        reader = csv.reader(lines(), strict=True)
        while True:
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                before = taken
                yield Row(error=f"no CSV: {error}"), 0, taken
                continue
            width, before = taken - before, taken
            if len(values) == len(names):
                yield Row(value=dict(zip(names, values, strict=True))), width, taken
            elif values:
                yield Row(error=f"{len(values)} columns, not {len(names)}"), 0, taken


def _read_parquet(source: str, position: int) -> _Read:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise Failure("NoParquet", "to read Parquet, the workers need pyarrow") from None
    with parquet.ParquetFile(source, pre_buffer=False, buffer_size=PARQUET_BUFFER) as file:
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if first + count <= position:
                first += count
                continue
            for records in file.iter_batches(batch_size=PARQUET_ROWS, row_groups=[group]):
                for number in range(max(0, position - first), records.num_rows):
                    position += 1
                    yield *arrow_row(records, number), position
                first += records.num_rows


def arrow_row(records: Any, number: int) -> tuple[Row, int]:
    """One row of an Arrow record batch, and its size in bytes; the others stay as they are."""
    try:
        (value,) = records.slice(number, 1).to_pylist()
    except ValueError as error:
        return Row(error=f"no value: {error}"), 0
    return Row(value=value), len(json.dumps(value, default=str))


_READERS: dict[str, Callable[[str, int], _Read]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
