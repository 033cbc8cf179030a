"""`saga worker`."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.application import (
    archive_of,
    connection_options,
    depot_of,
    load_definitions,
    log_of,
    settings_of,
    with_built_in,
)
from orchestrator.cli.logs import configure_logs
from orchestrator.cli.supervise import child_arguments, stop_with_parent, supervise
from orchestrator.errors import ConfigurationError

if TYPE_CHECKING:
    from orchestrator.archive.archiver import Archiver
    from orchestrator.config import Settings
    from orchestrator.log.base import Log
    from orchestrator.snapshots.keeper import Keeper
    from orchestrator.snapshots.restoring import Restoring
    from orchestrator.store.rocks import RocksStores


@click.command("worker")
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
@click.option(
    "--share",
    "shares",
    multiple=True,
    metavar="TYPE:VERSION=PERCENT",
    help="Give a version to so many of its type's saga ids only; the others get the one before.",
)
@click.option("--processes", default=0, help="Run so many under a supervisor that restarts a dead one at once.")
@click.option("--log-level", default="info", show_default=True)
@click.option("--log-json", is_flag=True, help="Logs as JSON lines.")
@click.option("--child", is_flag=True, hidden=True)
@connection_options
def worker_command(
    modules: tuple[str, ...],
    shares: tuple[str, ...],
    processes: int,
    log_level: str,
    log_json: bool,
    child: bool,
    **options: Any,
) -> None:
    """Owns partitions and drives the sagas that MODULE... define, until SIGTERM or SIGINT.

    MODULE is a Python module, or `module:Class` for one saga. Several workers share the partitions.
    """
    configure_logs(log_level, as_json=log_json)
    if processes:
        raise click.exceptions.Exit(supervise(child_arguments(sys.argv[1:]), processes))
    run_worker(modules, options, child=child, shares=_read_shares(shares))


def _read_shares(given: tuple[str, ...]) -> dict[tuple[str, int], float]:
    shares = {}
    for each in given:
        match = re.fullmatch(r"(.+):(\d+)=(\d+(?:\.\d+)?)%?", each)
        if match is None or float(match[3]) > 100:
            raise click.UsageError(f"--share {each}: say TYPE:VERSION=PERCENT, such as OrderFulfilment:2=10")
        shares[match[1], int(match[2])] = float(match[3])
    return shares


def run_worker(
    modules: tuple[str, ...],
    options: dict[str, Any],
    *,
    child: bool,
    shares: dict[tuple[str, int], float] | None = None,
) -> None:
    """One worker in this process."""
    from orchestrator.log.kafka import KafkaLog
    from orchestrator.participant.runner import settle_collector
    from orchestrator.provisioning import audit
    from orchestrator.runtime.identity import pinned_topics
    from orchestrator.runtime.partition_config import PartitionConfig
    from orchestrator.runtime.worker import Worker
    from orchestrator.store.rocks import RocksStores
    from orchestrator.telemetry import Pulse, Telemetry, WorkerMetrics, worker_readiness

    definitions = with_built_in(load_definitions(modules, shares))
    settings = settings_of(options)
    if settings.archive and not settings.snapshots:
        raise ConfigurationError("archive: set snapshots too; only what lies below them is moved out of the journals")
    log: KafkaLog = log_of(settings)
    names = settings.topic_names
    with closing(log.admin()) as admin:
        audit(admin, names, partitions=settings.partitions, replication=settings.replication)
        topic_ids = {topic: state.topic_id for topic, state in admin.describe(pinned_topics(names)).items()}
    slot, lock = _claim_slot(settings.state_directory / "stores")
    config = PartitionConfig(
        names,
        settings.partitions,
        settings.token_keys(),
        definitions,
        signal_ttl_ms=settings.signal_ttl_ms,
        circuit_failures=settings.circuit_failures,
        circuit_probe_ms=settings.circuit_probe_ms,
        ended_keep_ms=settings.ended_keep_ms,
    )
    rocks = RocksStores(slot)
    stores: RocksStores | Restoring = rocks
    keeper = archiver = None
    if settings.snapshots:
        stores, keeper, archiver = _with_snapshots(rocks, slot, log, settings, topic_ids.get(names.journal, ""))
    worker = Worker(
        log,
        config,
        stores,
        topic_ids=topic_ids,
        claim_wait_ms=settings.claim_wait_ms,
        trim_lag_ms=settings.trim_lag_ms,
        standby=settings.standby,
        keeper=keeper,
        archiver=archiver,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    if child:
        stop_with_parent(worker.stop)
    settle_collector()
    pulse = Pulse()
    metrics = WorkerMetrics(worker.engine, worker.standby, keeper, archiver)
    telemetry = Telemetry(metrics, lambda age_s: worker_readiness(worker.engine, age_s), pulse)
    try:
        with telemetry.served(settings.metrics_port):
            worker.run(pulse.beat)
    finally:
        os.close(lock)


def _with_snapshots(
    stores: RocksStores, slot: Path, log: Log, settings: Settings, journal: str
) -> tuple[Restoring, Keeper, Archiver | None]:
    from orchestrator.acls import PUBLISHERS
    from orchestrator.archive.archiver import Archiver
    from orchestrator.runtime.rebuilding import rebuilder
    from orchestrator.snapshots.keeper import Keeper
    from orchestrator.snapshots.restoring import Restoring
    from orchestrator.snapshots.vault import Vault

    vault = Vault(depot_of("snapshots", settings.snapshots))
    keeper = Keeper(vault, slot / "snapshots", journal, settings.snapshot_every_ms)
    archive = archive_of(settings, journal)
    if archive is None:
        return Restoring(stores, vault, journal), keeper, None
    keep_ms = max(settings.journal_keep_ms, settings.trim_lag_ms)
    archiver = Archiver(log, archive, vault, journal, settings.prefix + PUBLISHERS, keep_ms)
    return Restoring(stores, vault, journal, rebuilder(log, archive)), keeper, archiver


def _claim_slot(root: Path) -> tuple[Path, int]:
    """A directory of stores that no other process uses: after a restart usually the same, so that it is still warm."""
    for number in range(1_000):
        path = root / f"worker-{number}"
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / "in-use", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return path, lock
    raise click.ClickException(f"a thousand workers use {root} already")
