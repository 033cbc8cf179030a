"""`saga why`: what a saga waits for, since when, and what would free it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.application import connection_options, settings_of
from orchestrator.cli.look import opened, when
from orchestrator.cli.output import give, json_option, say

if TYPE_CHECKING:
    from orchestrator.visibility import Why


@click.command("why")
@click.argument("saga_id")
@click.option("--within", default=60.0, show_default=True, metavar="SECONDS", help="For reading the journals' news.")
@connection_options
@json_option
def why_command(saga_id: str, within: float, as_json: bool, **options: Any) -> None:
    """Says what a saga waits for, since when, and what would free it."""
    with opened(settings_of(options), within) as visibility:
        found = visibility.why(saga_id)
    if found is None:
        raise click.ClickException(f"there is no saga {saga_id!r} under this prefix; `saga list` shows what there is")
    if as_json:
        give(asdict(found))
    else:
        for line in lines_of(found, int(time.time() * 1000)):
            click.echo(line)
        if not found.waits:
            say(f"it waits for nothing; `saga show {saga_id}` shows how it ended")


def lines_of(why: Why, now_ms: int) -> list[str]:
    """For people."""
    lines = [f"{why.saga_id}  {why.status}  ({why.saga_type}, run {why.run})"]
    for wait in why.waits:
        step = f"step {wait.step}: " if wait.step else ""
        lines.append(f"  {step}waits for {wait.what}")
        details = [f"since {when(wait.since_ms)} UTC ({_span(now_ms - wait.since_ms)})"]
        if wait.due_ms is not None:
            left = wait.due_ms - now_ms
            details.append(f"until {when(wait.due_ms)} UTC" + (f" (in {_span(left)})" if left > 0 else " (due)"))
        if wait.attempt is not None:
            details.append(f"attempt {wait.attempt}")
        lines.append(f"    {', '.join(details)}")
        if wait.error:
            lines.append(f"    last error: {wait.error}")
        lines += [f"    freed by: {way}" for way in wait.frees]
    return [*lines, *(f"  note: {note}" for note in why.notes)]


def _span(ms: int) -> str:
    seconds = max(0, ms) // 1000
    for name, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {name}"
    return f"{seconds} s"
