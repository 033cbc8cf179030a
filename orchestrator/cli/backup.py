"""`saga backup` and `saga restore`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from orchestrator.cli.application import archive_of, connection_options, depot_of, log_of, settings_of
from orchestrator.cli.cluster import described
from orchestrator.cli.output import give, json_option, say
from orchestrator.cli.topics import services_in


@click.command("backup")
@click.argument("place", metavar="DIRECTORY|URL")
@connection_options
@json_option
def backup_command(place: str, as_json: bool, **options: Any) -> None:
    """Copies the whole installation to a place of its own, while it works or while it stands still.

    `saga restore` makes it again in another cluster.
    """
    from orchestrator.backup.taking import Backup

    settings = settings_of(options)
    log, names = log_of(settings), settings.topic_names
    journal = described(log, names.journal)
    depot = depot_of("backup", place)
    begun = time.monotonic()
    with _explained():
        archive = archive_of(settings, journal.topic_id)
        backup = Backup(log, names, journal.partitions, archive, depot, say)
        manifest = backup.run(time.time_ns() // 1_000_000)
    records = sum(end - first for _, _, first, end in manifest.spans)
    seconds = time.monotonic() - begun
    if as_json:
        give({"place": place, "records": records, "services": manifest.services, "seconds": round(seconds, 1)})
    else:
        click.echo(f"{records:,} records in {seconds:.1f} s; `saga restore {place}` makes the installation again")


@click.command("restore")
@click.argument("place", metavar="DIRECTORY|URL")
@click.argument("modules", nargs=-1, metavar="[MODULE...]")
@click.option("--replication", type=int, help="Of the topics that are created.")
@click.option("--incarnation", type=click.IntRange(1), help="Needed where this backup was restored before: a new one.")
@click.option("--fsync", is_flag=True, help="As of `saga topics apply`.")
@connection_options
@json_option
def restore_command(
    place: str,
    modules: tuple[str, ...],
    replication: int | None,
    incarnation: int | None,
    fsync: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Makes an installation from its backup, in a cluster that has nothing of it yet.

    MODULE... are those that define services, as for `saga topics`: of a service that was never called the backup knows
    nothing, and its topics are needed too.

    Start no worker before it is done, and none of the old installation ever again: both would drive the same sagas.
    """
    from orchestrator.backup.restoring import Restore

    settings = settings_of(options)
    depot = depot_of("backup", place)
    begun = time.monotonic()
    with _explained():
        restore = Restore(log_of(settings), settings.topic_names, depot, say)
        restore.check(settings.partitions)
        now_ms = time.time_ns() // 1_000_000
        copies, services = replication or settings.replication, services_in(modules)
        restore.run(copies, now_ms, services, incarnation=incarnation, fsync=fsync)
    seconds = time.monotonic() - begun
    if as_json:
        told = {"place": place, "records": restore.records, "left_out": restore.left_out, "seconds": round(seconds, 1)}
        give(told)
        return
    click.echo(f"{restore.records:,} records in {seconds:.1f} s")
    say("delete the workers' state directories, if there are any of before; then workers and services may start")
    if restore.left_out:
        say(f"{restore.left_out} commands and messages were left out: they were sent after the journals were copied")


@contextmanager
def _explained() -> Iterator[None]:
    """What may go wrong with a backup, as one line that says so."""
    from orchestrator.archive.shelf import SegmentDamaged
    from orchestrator.depot import DepotFailed
    from orchestrator.errors import Disconnected, SagaError
    from orchestrator.log.base import AdminFailed
    from orchestrator.model.rule import JournalHalted
    from orchestrator.wire.avro import UnreadableRecord

    try:
        yield
    except AdminFailed as failed:
        raise Disconnected(f"the cluster does not answer ({failed}); `saga doctor` says more") from None
    except (SegmentDamaged, DepotFailed, JournalHalted, UnreadableRecord) as problem:
        raise SagaError(str(problem)) from None
