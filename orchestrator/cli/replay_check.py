"""`saga replay-check`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.application import (
    archive_of,
    connection_options,
    load_definitions,
    log_of,
    settings_of,
    with_built_in,
)
from orchestrator.cli.cluster import bounds_of, described, partitions_of
from orchestrator.cli.output import give, json_option, say

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from orchestrator.archive.journals import JournalArchive
    from orchestrator.config import Settings
    from orchestrator.log.base import Log
    from orchestrator.model.definition import Definition
    from orchestrator.runtime.replay_check import Diverging, Report

_SHOWN = 10
"""Sagas named for each place; --json names more."""
_LISTED = 1_000
_WITHIN_S = 600.0
"""Time to read the journal into the file that filters are asked of."""


@click.command("replay-check")
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
@click.option("--all", "ended", is_flag=True, help="Also runs that have ended.")
@click.option("--where", metavar="FILTER", help="Only runs that `saga list --where` would find.")
@connection_options
@json_option
def replay_check_command(
    modules: tuple[str, ...], ended: bool, where: str | None, as_json: bool, **options: Any
) -> None:
    """Replays the open runs of a live cluster with the sagas that MODULE... define, before they are deployed.

    Reads the journal and writes nothing. Exit code 1 if a run diverges: a worker with this code would park it.
    """
    definitions = with_built_in(load_definitions(modules))
    settings = settings_of(options)
    begun = time.monotonic()
    only = None if where is None else _matching(settings, where)
    log, journal = log_of(settings), settings.topic_names.journal
    archive = archive_of(settings, described(log, journal).topic_id) if settings.archive else None
    report = check_journal(log, journal, definitions, ended=ended, only=only, archive=archive)
    seconds = time.monotonic() - begun
    if as_json:
        give(_as_json(report, seconds))
    else:
        _print(report, seconds, "" if ended else "open ")
    if report.diverging:
        raise click.exceptions.Exit(1)


def _matching(settings: Settings, where: str) -> Collection[tuple[str, str]]:
    """Runs by a filter, as far as the journal goes now. Raises `InvalidRequest`, and what `opened` raises."""
    from orchestrator.cli.look import opened

    with opened(settings, _WITHIN_S) as visibility:
        if not visibility.catch_up(_WITHIN_S):  # what is not read would count as not found
            raise click.ClickException(
                "not all of the journal could be read in time: call again, it goes on from there"
            )
        return visibility.matching(where)


def check_journal(
    log: Log,
    journal: str,
    definitions: Mapping[str, Definition],
    *,
    ended: bool = False,
    only: Collection[tuple[str, str]] | None = None,
    archive: JournalArchive | None = None,
) -> Report:
    """Reads a journal from its start to where it ends now. Raises `ConfigurationError`, `SagaError`, `Disconnected`."""
    from orchestrator.archive.journals import whole_journal
    from orchestrator.archive.shelf import SegmentDamaged
    from orchestrator.depot import DepotFailed
    from orchestrator.errors import SagaError
    from orchestrator.model.rule import JournalHalted
    from orchestrator.runtime.replay_check import ReplayCheck
    from orchestrator.store.rocks import RocksStores
    from orchestrator.wire.avro import UnreadableRecord

    bounds = bounds_of(log, journal, range(partitions_of(log, journal)))
    with tempfile.TemporaryDirectory(prefix="saga-replay-check-") as folder:
        check = ReplayCheck(definitions, RocksStores(Path(folder)), ended=ended, only=only)
        try:
            for record in whole_journal(log, journal, bounds, archive):
                check.feed(record.partition, record.offset, record.timestamp_ms, record.value)
            return check.report()
        except (JournalHalted, UnreadableRecord, SegmentDamaged, DepotFailed) as unreadable:
            raise SagaError(f"{journal} cannot be read to its end: {unreadable}") from None
        finally:
            check.close()


def _print(report: Report, seconds: float, which: str) -> None:
    for (saga_type, at), found in report.groups().items():
        verb = "diverges" if len(found) == 1 else "diverge"
        click.echo(f"{len(found):,} of {report.checked[saga_type]:,} {saga_type} {verb} at {at}")
        first = found[0]
        click.echo(f"  {first.saga_id}: " + first.difference.message.replace("\n", "\n  "))
        if len(found) > 1:
            others = ", ".join(each.saga_id for each in found[1:_SHOWN])
            more = f" and {len(found) - _SHOWN:,} more (--json names them)" if len(found) > _SHOWN else ""
            click.echo(f"  likewise {others}{more}")
    if report.unknown:
        others = ", ".join(f"{count:,} {name}" for name, count in sorted(report.unknown.items()))
        say(f"not checked, for the given modules do not define them: {others}")
    click.echo(f"{len(report.diverging):,} of {report.total:,} {which}runs diverge")
    say(f"read and replayed in {seconds:.1f} s")


def _as_json(report: Report, seconds: float) -> dict[str, Any]:
    return {
        "checked": report.total,
        "checked_by_type": report.checked,
        "unknown_by_type": report.unknown,
        "diverging": len(report.diverging),
        "seconds": round(seconds, 3),
        "places": [
            {"saga_type": saga_type, "at": at, "count": len(found), "sagas": [_saga(each) for each in found[:_LISTED]]}
            for (saga_type, at), found in report.groups().items()
        ],
    }


def _saga(each: Diverging) -> dict[str, Any]:
    return {
        "saga_id": each.saga_id,
        "run": each.run,
        "step": each.difference.step,
        "parked": each.parked,
        "message": each.difference.message,
    }
