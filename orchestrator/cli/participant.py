"""`saga participant`."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.application import connection_options, load_participant, log_of, settings_of
from orchestrator.cli.logs import configure_logs


@click.command("participant")
@click.argument("place", metavar="MODULE:OBJECT")
@click.option("--concurrency", default=32, show_default=True, help="Handlers that run at once.")
@click.option("--log-level", default="info", show_default=True)
@click.option("--log-json", is_flag=True, help="Logs as JSON lines.")
@connection_options
def participant_command(place: str, concurrency: int, log_level: str, log_json: bool, **options: Any) -> None:
    """Runs a service's handlers, the Participant at MODULE:OBJECT, until SIGTERM or SIGINT."""
    configure_logs(log_level, as_json=log_json)
    from orchestrator.participant.runner import Runner
    from orchestrator.participant.settings import ParticipantSettings
    from orchestrator.telemetry import ParticipantMetrics, Pulse, Telemetry, participant_readiness

    participant = load_participant(place)
    settings = settings_of(options)
    limits = ParticipantSettings(concurrency=concurrency, dead_letter_partitions=settings.partitions)
    runner = Runner(participant, log_of(settings), topics=settings.topic_names, settings=limits)
    engine, pulse = runner.engine, Pulse()
    metrics = ParticipantMetrics(engine, participant.service.name)
    telemetry = Telemetry(metrics, lambda age_s: participant_readiness(engine, age_s), pulse)
    with telemetry.served(settings.metrics_port):
        runner.run(signals=True, every_turn=pulse.beat)
