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

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from orchestrator.durations import Duration
from orchestrator.errors import Abort, DefinitionError, Failure, RetryLater, StepFailed
from orchestrator.groups import Done, check_limits, tolerated_of
from orchestrator.retry import Retry
from orchestrator.rows import BATCH_BYTES, Row, reached, read_rows
from orchestrator.saga import Saga
from orchestrator.signals import first_problem, signal

A = TypeVar("A")
B = TypeVar("B")

_CUT = "ResultsCut"
"""The type of the error where results are shorter than what was written."""


class MapProgress(BaseModel):
    """How far a map has come. `position` is the reader's, `written` the length of the results in bytes."""

    position: int = 0
    written: int = 0
    rows: int = 0
    failed: int = 0
    concurrency: int | None = None


class MapJob(BaseModel):
    """What to map over. `source` ends in .jsonl, .csv or .parquet; `results` is a JSON Lines file that is written.

    Every worker must find both under these names, and they are two files.
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
    """What can be changed while a map runs, from its next batch on: how many items at a time, at least one."""

    concurrency: int = Field(ge=1)


class Map(Saga[MapJob, MapReport], Generic[A, B]):
    """Base of maps: `class Invoices(Map[Customer, str])`, the type of a row and that of its result.

    `item` is a saga's code for one row; a row whose steps fail is one that failed, is undone at once, and its result
    says so. Beyond `tolerated_failures`, or at the end beyond `tolerated_share` of all rows, the map fails and undoes
    the steps of all rows since it last continued as new; what was done before that stays. `batch` rows are read at a
    time, and `concurrency` items run at the same time. Raises `DefinitionError` where these cannot be.
    """

    batch: ClassVar[int] = 100
    concurrency: ClassVar[int] = 10
    tolerated_failures: ClassVar[int | None] = 0
    """None: any number of them."""
    tolerated_share: ClassVar[float | None] = None
    """Between 0 and 1, in place of `tolerated_failures`."""
    files: ClassVar[Retry] = Retry(maximum_interval=60.0, maximum_attempts=20)
    """How reading and writing are tried again: by default for a quarter of an hour."""
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
        cls._check_limits()
        super().__init_subclass__(**options)

    async def item(self, row: A, /) -> B:
        """What is done for one row."""
        raise NotImplementedError

    @classmethod
    def _check_limits(cls) -> None:
        own = vars(cls)
        if own.get("tolerated_failures") is not None and own.get("tolerated_share") is not None:
            raise DefinitionError(f"{cls.__name__}: give tolerated_failures or tolerated_share, not both")
        if cls.batch < 1:
            raise DefinitionError(f"{cls.__name__}: batch={cls.batch} must be at least 1")
        try:
            check_limits(cls.concurrency, cls.tolerated_failures, cls.tolerated_share)
        except DefinitionError as error:
            raise DefinitionError(f"{cls.__name__}: {error}") from None

    async def run(self, job: MapJob) -> MapReport:
        at = job.progress.model_copy()
        while True:
            change = await self.receive(Map.change, timeout=0)
            if change is not None:
                at.concurrency = change.concurrency
            batch = await self.local(
                read_rows, job.source, at.position, self.batch, retry=self.files, start_to_close=self.file_timeout
            )
            if job.results is not None and at.position == 0:  # the source can be read
                await self.local(
                    clear_results, job.source, job.results, retry=self.files, start_to_close=self.file_timeout
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
                    at.written = await self._write(job.results, at.written, some)
            at.rows += len(ends)
            at.failed += sum(isinstance(end, StepFailed) for end in ends)
            self._check(at, ended=batch.next is None)
            if batch.next is None:
                return MapReport(rows=at.rows, failed=at.failed, results=job.results)
            at.position = batch.next
            if self.suggests_continue_as_new:
                self.continue_as_new(job.model_copy(update={"progress": at}))

    async def _write(self, results: str, position: int, lines: list[str]) -> int:
        """Where the results that stand there are not whole, waits until they are: for a while, then for a person."""
        while True:
            try:
                return await self.local(
                    write_lines, results, position, lines, retry=self.files, start_to_close=self.file_timeout
                )
            except StepFailed as failed:
                if failed.error_type != _CUT:
                    raise
            patient = replace(self.files, exhausted="park")
            await self.local(find_results, results, position, retry=patient, start_to_close=self.file_timeout)

    async def _one(self, row: Row) -> Any:
        if row.error:
            raise StepFailed("row", "BadRow", row.error, unknown=False)
        try:
            value = self._row.validate_python(row.value)
        except ValidationError as error:
            raise StepFailed("row", "BadRow", first_problem(error), unknown=False) from None
        result = await self.item(value)
        try:
            return self._result.dump_python(self._result.validate_python(result), mode="json")
        except ValidationError as error:
            what = f"{type(self).__name__}.item returned {type(result).__name__}, not the type of its result"
            raise DefinitionError(f"{what}: {first_problem(error)}") from None

    def _check(self, at: MapProgress, *, ended: bool) -> None:
        """Raises `Abort` where more rows have failed than may."""
        most, share = self.tolerated_failures, self.tolerated_share
        if share is not None:
            most = tolerated_of(share, at.rows) if ended else None
        if most is not None and at.failed > most:
            raise Abort("TooManyFailures", f"{at.failed} of {at.rows} rows failed, {most} may")


del Map.definition  # it is no saga yet


def _line(number: int, end: Done[Any] | StepFailed) -> str:
    if isinstance(end, Done):
        return json.dumps({"row": number, "result": end.value})
    return json.dumps({"row": number, "error_type": end.error_type, "error_message": end.message})


def _portions(lines: list[str]) -> Iterator[list[str]]:
    """The lines in as many lists as it takes for none to be too large, as the JSON that they are passed on in."""
    some: list[str] = []
    size = 0
    for line in lines:
        width = len(json.dumps(line)) + 1
        if some and size + width > BATCH_BYTES:
            yield some
            some, size = [], 0
        some.append(line)
        size += width
    yield some


def clear_results(source: str, results: str) -> None:
    """The file is there and empty: what an earlier map wrote is gone. Raises `Failure` where it is the source."""
    path = Path(results)
    with reached():
        if path.exists() and path.samefile(source):
            raise Failure("SameFile", f"{results} is the source {source} itself; name another file for the results")
        with path.open("wb") as file:
            os.fsync(file.fileno())


def find_results(results: str, position: int) -> None:
    """Raises `RetryLater` where the results are shorter than what was written of them."""
    with reached():
        if (problem := _cut(Path(results), position)) is not None:
            raise RetryLater(error_type=_CUT, message=problem)


def write_lines(results: str, position: int, lines: list[str]) -> int:
    """Writes lines at a position, as the last of the file, and says where they end. They are on disk then.

    The same lines at the same place: twice is once. Lines that stand there already are left alone with all behind
    them, since an attempt that was given up may come here when later batches are written. Raises `Failure` where the
    file does not reach to the position, for what stood before it is gone.
    """
    data = "".join(line + "\n" for line in lines).encode()
    path = Path(results)
    with reached():
        if (problem := _cut(path, position)) is not None:
            raise Failure(_CUT, problem)
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


def _cut(path: Path, position: int) -> str | None:
    """What is to be done about results that do not reach to a position; None if they do."""
    size = path.stat().st_size if path.exists() else 0
    if size >= position:
        return None
    return (
        f"{path} has {size} bytes of the {position} that were written: it was cut or deleted, or this worker does not "
        "share it with the one before. Put it back where this worker finds it; what is lost, only a new map makes again"
    )
