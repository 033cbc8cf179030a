"""Rows of a file, batch by batch, as the journal can have them: JSON Lines, CSV, Parquet.

A batch is bounded by what it becomes there, and whatever is no row that JSON can say is one with its reason.
"""

from __future__ import annotations

import codecs
import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, TypeAdapter

from orchestrator.errors import Failure, RetryLater

BATCH_BYTES = 128 * 1024
"""Rows of one batch together, as JSON: half of what a decision may hold."""

MAX_LINE = 8 * BATCH_BYTES
"""So much of a line is read at most: a row may be shorter as JSON than in its file, but not by that much."""

MAX_DEPTH = 100
"""Lists and objects within each other: about half of what can be read back."""

MAX_REASON = 500
"""Characters that say why something is no row."""

PARQUET_ROWS = 128
"""So many rows of a row group are decoded at a time."""

PARQUET_BUFFER = 64 * 1024
"""Bytes of a column that are read at a time."""


class Row(BaseModel):
    """One row as it was read; `error` says why it is none."""

    value: Any = None
    error: str = ""


class Rows(BaseModel):
    """A batch. `next`: where the next one begins; None: this was the last."""

    rows: list[Row]
    next: int | None


_ROW = TypeAdapter(Row)


def read_rows(source: str, position: int, most: int) -> Rows:
    """At most so many rows from a position on: 0, or what a batch before gave as `next`.

    Raises `Failure` where trying again cannot help, and `RetryLater`.
    """
    reader = _READERS.get(Path(source).suffix)
    if reader is None:
        raise Failure("UnknownFormat", f"{source}: of {', '.join(_READERS)} it must be one")
    rows: list[Row] = []
    size = 0
    with reached():
        for read, after in reader(source, position):
            row, width = _as_json(read)
            if rows and size + width > BATCH_BYTES:
                return Rows(rows=rows, next=position)
            rows.append(row)
            size += width
            position = after
            if len(rows) == most:
                return Rows(rows=rows, next=position)
    return Rows(rows=rows, next=None)


@contextmanager
def reached() -> Iterator[None]:
    """Around what opens a file: one that is missing may be there at the next attempt, a folder never is a file.

    Raises `Failure` and `RetryLater`.
    """
    try:
        yield
    except IsADirectoryError as error:
        raise Failure("NoFile", f"{error.filename} is a folder; name a file") from None
    except OSError as error:
        message = f"{error}; every worker must find the file, and its folder, under this name"
        raise RetryLater(error_type="FileUnreachable", message=message) from error


def _as_json(row: Row) -> tuple[Row, int]:
    """The row, or why it is none, with its size in bytes as JSON."""
    problem = row.error or _problem(row.value, "the row")
    if not problem:
        try:
            size = len(_ROW.dump_json(row))
        except ValueError as error:  # such as half a surrogate pair, which is no text
            problem = f"no JSON: {error}"
        else:
            if size <= BATCH_BYTES:
                return row, size
            problem = f"the row has {size} bytes as JSON, at most {BATCH_BYTES}; let it name a file"
    row = Row(error=problem[:MAX_REASON].encode(errors="backslashreplace").decode())
    return row, len(_ROW.dump_json(row))


def _problem(value: Any, name: str, depth: int = 0) -> str:
    """What the journal's JSON cannot say of a value, or nothing."""
    if isinstance(value, bytes):
        return f"{name} is binary: let it be text, or name a file"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} is {value}: let it be a number or null"
    if not isinstance(value, dict | list | tuple):
        return ""
    if depth == MAX_DEPTH:
        return f"{name} has more than {MAX_DEPTH} lists and objects within each other"
    inside = value.items() if isinstance(value, dict) else ((name, inner) for inner in value)
    return next(filter(None, (_problem(inner, str(key), depth + 1) for key, inner in inside)), "")


_Read = Iterator[tuple[Row, int]]
"""Each row, and the position behind it."""


def _lines(file: BinaryIO, position: int) -> Iterator[tuple[bytes, int]]:
    """Each line and the position behind it; of one that is far too long only its beginning."""
    while line := file.readline(MAX_LINE):
        position += len(line)
        part = line
        while len(part) == MAX_LINE and not part.endswith(b"\n"):
            part = file.readline(MAX_LINE)
            position += len(part)
        yield line, position


def _read_jsonl(source: str, position: int) -> _Read:
    with Path(source).open("rb") as file:
        file.seek(position)
        for line, after in _lines(file, position):
            if len(line) == MAX_LINE:
                yield Row(error=f"the line has {MAX_LINE} bytes or more; let it name a file"), after
            elif line.strip():
                yield _json_row(line), after


def _json_row(line: bytes) -> Row:
    try:
        return Row(value=json.loads(line))
    except ValueError as error:
        return Row(error=f"no JSON: {error}")
    except RecursionError:
        return Row(error=f"the row has more than {MAX_DEPTH} lists and objects within each other")


def _check_columns(source: str, names: list[str]) -> None:
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise Failure("BadColumns", f"{source}: several columns are named {doubled[0]!r}; rename all but one")


def _read_csv(source: str, position: int) -> _Read:
    """The first line names the columns. A row may stand on several lines; after a bad one comes the next line."""
    with Path(source).open("rb") as file:
        taken = 0

        def lines() -> Iterator[str]:
            nonlocal taken
            for line, after in _lines(file, taken):
                text = line if taken else line.removeprefix(codecs.BOM_UTF8)
                taken = after
                yield text.decode(errors="replace")

        try:
            names = next(csv.reader(lines(), strict=True), [])
        except csv.Error as error:
            raise Failure("BadColumns", f"{source}: the names of the columns are no CSV: {error}") from None
        _check_columns(source, names)
        if position:
            file.seek(position)
            taken = position
        reader = csv.reader(lines(), strict=True)
        while True:
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(error=f"no CSV: {error}"), taken
                continue
            if len(values) == len(names):
                yield Row(value=dict(zip(names, values, strict=True))), taken
            elif values:
                yield Row(error=f"{len(values)} columns, not {len(names)}"), taken


def _read_parquet(source: str, position: int) -> _Read:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise Failure("NoParquet", "to read Parquet, the workers need pyarrow") from None
    try:
        with parquet.ParquetFile(source, pre_buffer=False, buffer_size=PARQUET_BUFFER) as file:
            _check_columns(source, file.schema_arrow.names)
            yield from _rows_of(file, position)
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError) as error:
        raise Failure("BadParquet", f"{source} is broken, or no Parquet: {error}") from None


def _rows_of(file: Any, position: int) -> _Read:
    """Those of an open Parquet file."""
    first = 0
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if first + count <= position:
            first += count
            continue
        for records in file.iter_batches(batch_size=PARQUET_ROWS, row_groups=[group]):
            for number in range(max(0, position - first), records.num_rows):
                position += 1
                yield arrow_row(records, number), position
            first += records.num_rows


def arrow_row(records: Any, number: int) -> Row:
    """One row of an Arrow record batch; the others stay as they are."""
    try:
        (value,) = records.slice(number, 1).to_pylist()
    except ValueError as error:
        return Row(error=f"no value: {error}")
    return Row(value=value)


_READERS: dict[str, Callable[[str, int], _Read]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
