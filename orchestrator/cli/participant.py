"""`saga participant`."""

from __future__ import annotations

import sys
from typing import Any

import click

from orchestrator.cli.application import connection_options, load_participant, log_of, settings_of
from orchestrator.cli.logs import configure_logs
from orchestrator.cli.supervise import child_arguments, stop_with_parent, supervise
from orchestrator.errors import Disconnected


@click.command("participant")
@click.argument("place", metavar="MODULE:OBJECT")
@click.option("--concurrency", default=32, show_default=True, help="Handlers that run at once.")
@click.option("--processes", default=0, help="Run so many under a supervisor that restarts a dead one at once.")
@click.option("--log-level", default="info", show_default=True)
@click.option("--log-json", is_flag=True, help="Logs as JSON lines.")
@click.option("--child", is_flag=True, hidden=True)
@connection_options
def participant_command(
    place: str, concurrency: int, processes: int, log_level: str, log_json: bool, child: bool, **options: Any
) -> None:
    """Runs a service's handlers, the Participant at MODULE:OBJECT, until SIGTERM or SIGINT.

    Several of them share the service's partitions. One whose handler runs beyond its limit ends itself: let something
    start it again, such as `--processes`.
    """
    configure_logs(log_level, as_json=log_json)
    if processes:
        raise click.exceptions.Exit(supervise(child_arguments(sys.argv[1:]), processes))
    run_participant(place, concurrency, options, child=child)


def run_participant(place: str, concurrency: int, options: dict[str, Any], *, child: bool) -> None:
    """One participant in this process."""
    from orchestrator.participant.outbound import EngineFailed
    from orchestrator.participant.runner import Runner, settle_collector
    from orchestrator.participant.settings import ParticipantSettings
    from orchestrator.telemetry import ParticipantMetrics, Pulse, Telemetry, participant_readiness

    participant = load_participant(place)
    settings = settings_of(options)
    limits = ParticipantSettings(concurrency=concurrency, dead_letter_partitions=settings.partitions)
    runner = Runner(participant, log_of(settings), topics=settings.topic_names, settings=limits)
    if child:
        stop_with_parent(runner.stop)
    engine, pulse = runner.engine, Pulse()
    metrics = ParticipantMetrics(engine, participant.service.name)
    telemetry = Telemetry(metrics, lambda age_s: participant_readiness(engine, age_s), pulse)
    settle_collector()
    with telemetry.served(settings.metrics_port):
        try:
            runner.run(signals=True, every_turn=pulse.beat)
        except EngineFailed as failed:
            raise Disconnected(f"{participant.service.name} cannot be served: {failed}") from None
