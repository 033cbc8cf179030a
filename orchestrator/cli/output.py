"""What every verb prints with: tables for people, one JSON object as the last line of stdout for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line of stdout.")


def say(text: str = "") -> None:
    """For people, on stderr: progress, hints, warnings."""
    click.echo(text, err=True)


def give(value: dict[str, Any]) -> None:
    """The result for programs."""
    click.echo(json.dumps(value, default=str))


def table(rows: Sequence[Sequence[object]], heading: Sequence[str]) -> None:
    """Columns as wide as their widest entry, on stdout."""
    cells = [[str(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heading))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
