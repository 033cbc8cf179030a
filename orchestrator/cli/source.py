"""`saga source`."""

from __future__ import annotations

import sys
from typing import Any

import click

from orchestrator.cli.application import connection_options, load_source, log_of, settings_of
from orchestrator.cli.logs import configure_logs
from orchestrator.cli.supervise import child_arguments, stop_with_parent, supervise
from orchestrator.errors import Disconnected


@click.command("source")
@click.argument("place", metavar="MODULE:OBJECT")
@click.option("--processes", default=0, help="Run so many under a supervisor that restarts a dead one at once.")
@click.option("--log-level", default="info", show_default=True)
@click.option("--log-json", is_flag=True, help="Logs as JSON lines.")
@click.option("--child", is_flag=True, hidden=True)
@connection_options
def source_command(place: str, processes: int, log_level: str, log_json: bool, child: bool, **options: Any) -> None:
    """Starts and tells sagas what is on a business topic, as the FromTopic at MODULE:OBJECT says, until SIGTERM or
    SIGINT.

    Several of them share the topic's partitions. The first begins at the topic's start.
    """
    configure_logs(log_level, as_json=log_json)
    if processes:
        raise click.exceptions.Exit(supervise(child_arguments(sys.argv[1:]), processes))
    run_source(place, options, child=child)


def run_source(place: str, options: dict[str, Any], *, child: bool) -> None:
    """One source in this process."""
    from orchestrator.participant.outbound import EngineFailed
    from orchestrator.participant.runner import settle_collector
    from orchestrator.sources.runner import SourceRunner
    from orchestrator.telemetry import Pulse, SourceMetrics, Telemetry, source_readiness

    source = load_source(place)
    settings = settings_of(options)
    log = log_of(settings, read_committed=True)
    runner = SourceRunner(source, log, settings.bootstrap_servers or "", topics=settings.topic_names)
    if child:
        stop_with_parent(runner.stop)
    engine, pulse = runner.engine, Pulse()
    metrics = SourceMetrics(engine, source.name)
    telemetry = Telemetry(metrics, lambda age_s: source_readiness(engine, age_s), pulse)
    settle_collector()
    with telemetry.served(settings.metrics_port):
        try:
            runner.run(signals=True, every_turn=pulse.beat)
        except EngineFailed as failed:
            raise Disconnected(f"{source.topic} cannot be read for sagas: {failed}") from None
