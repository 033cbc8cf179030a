"""ETL: the files of a day are cleaned and loaded a few at a time, part by part, and published when all are in.

Run it: `saga dev orchestrator.sagas.etl_pipeline`. See `docs/etl_pipeline.md`.
"""

from __future__ import annotations

from pydantic import BaseModel

from orchestrator.errors import Abort, Failure, StepFailed
from orchestrator.participant import HandlerContext
from orchestrator.saga import Retry, Saga
from orchestrator.sagas.books import bookkeeper, enter
from orchestrator.service import Service, command


class Day(BaseModel):
    date: str
    at_once: int = 4
    may_be_bad: float = 0.2  # a share of the files


class Report(BaseModel):
    rows: int
    bad: list[str]


class Table(BaseModel):
    date: str


class Part(BaseModel):
    file: str
    position: int  # of its first row


class Batch(BaseModel):
    place: str  # the rows stay where they are: messages only say where
    next: int | None  # where the next part begins; None: this was the last


class Raw(BaseModel):
    place: str


class Load(BaseModel):
    date: str
    file: str
    place: str


class Publication(BaseModel):
    date: str
    without: list[str]


class Lake(Service):
    files = command(Table, list[str])
    extract = command(Part, Batch)


class Cleaning(Service):
    clean = command(Raw, str)


class Warehouse(Service):
    create = command(Table)
    drop = command(Table)
    load = command(Load, int)
    publish = command(Publication)


PATIENT = Retry(initial_interval=1.0, maximum_interval=60.0, maximum_attempts=10)


class EtlPipeline(Saga[Day, Report]):
    async def run(self, day: Day) -> Report:
        files = await self.step(Lake.files(date=day.date), retry=PATIENT)
        await self.step(Warehouse.create(date=day.date), undo=Warehouse.drop)

        async def load(file: str) -> int:
            return await self.loaded(day, file)

        ends = await self.each(files, load, concurrency=day.at_once, tolerated_share=day.may_be_bad)
        bad = [file for file, end in zip(files, ends, strict=True) if isinstance(end, StepFailed)]
        rows = sum(end.value for end in ends if not isinstance(end, StepFailed))
        if not rows:
            raise Abort("Empty", f"there is nothing of {day.date}")
        await self.step(Warehouse.publish(date=day.date, without=bad), pivot=True)
        return Report(rows=rows, bad=bad)

    async def loaded(self, day: Day, file: str) -> int:
        """The rows of one file. Each part is a checkpoint: what has been loaded is not loaded again after a crash."""
        rows, position = 0, 0
        while True:
            batch = await self.step(Lake.extract(file=file, position=position), retry=PATIENT)
            place = await self.step(Cleaning.clean(place=batch.place), retry=PATIENT)
            rows += await self.step(Warehouse.load(date=day.date, file=file, place=place), retry=PATIENT)
            if batch.next is None:
                return rows
            position = batch.next


# The services. Each keeps a book, see `orchestrator.sagas.books`.

FILES = 6
PARTS = 3
PART_ROWS = 100
HOLIDAY = "2024-12-25"  # nothing was written
BAD_DAY = "2024-02-30"  # every file is malformed

lake = bookkeeper(Lake)
cleaning = bookkeeper(Cleaning)
warehouse = bookkeeper(Warehouse)


@lake.handles(Lake.files)
def files(table: Table, context: HandlerContext) -> list[str]:
    enter(context, f"listed {table.date}")
    return [] if table.date == HOLIDAY else [f"{table.date}/{number}.csv" for number in range(1, FILES + 1)]


@lake.handles(Lake.extract)
def extract(part: Part, context: HandlerContext) -> Batch:
    """The last file of every day is malformed in its second part."""
    date, _, name = part.file.partition("/")
    if date == BAD_DAY or (name == f"{FILES}.csv" and part.position > 0):
        raise Failure("Malformed", f"row {part.position + 17} of {part.file} is no row")
    enter(context, f"read {part.file}@{part.position}")
    after = part.position + PART_ROWS
    return Batch(place=f"{part.file}@{part.position}", next=after if after < PARTS * PART_ROWS else None)


@cleaning.handles(Cleaning.clean)
def clean(raw: Raw, context: HandlerContext) -> str:
    enter(context, f"cleaned {raw.place}")
    return f"clean/{raw.place}"


@warehouse.handles(Warehouse.create)
def create(table: Table, context: HandlerContext) -> None:
    enter(context, f"created {table.date}")


@warehouse.handles(Warehouse.drop)
def drop(table: Table, context: HandlerContext) -> None:
    enter(context, f"dropped {table.date}")


@warehouse.handles(Warehouse.load)
def load(request: Load, context: HandlerContext) -> int:
    enter(context, f"loaded {request.place}")
    return PART_ROWS


@warehouse.handles(Warehouse.publish)
def publish(publication: Publication, context: HandlerContext) -> None:
    enter(context, f"published {publication.date} without {', '.join(publication.without) or 'nothing missing'}")
