"""`saga chaos`."""

from __future__ import annotations

import logging
import signal
import time
from pathlib import Path

import click

from orchestrator.cli.output import give, json_option, say


@click.command("chaos")
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Of load.")
@click.option("--seed", default=1, show_default=True, help="Draws the sagas and when what is broken.")
@click.option("--sagas-per-second", default=85.0, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--workers", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--brokers", default=3, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep all evidence in this new folder; else what is large goes, unless something is wrong.",
)
@click.option(
    "--judge",
    "kept",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Start nothing: judge once more what was kept in this folder.",
)
@json_option
def chaos_command(
    minutes: float,
    seed: int,
    sagas_per_second: float,
    workers: int,
    brokers: int,
    folder: Path | None,
    kept: Path | None,
    as_json: bool,
) -> None:
    """Breaks workers, services, brokers, their network and their files under thousands of mixed sagas.

    At the end a checker reads every topic, every store and the services' books. The exit code is its verdict, and
    `report.html` in the folder says what was broken when. The same seed breaks the same things at the same times.
    """
    from orchestrator.chaos.run import Chaos, Plan
    from orchestrator.chaos.verdict import conclude

    logging.getLogger("orchestrator").setLevel(logging.CRITICAL)  # clients meet brokers that are down
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    if kept is not None:
        outcome = conclude(kept)
    else:
        plan = Plan(minutes, seed, sagas_per_second, workers, brokers, folder)
        outcome = Chaos(plan, lambda text: say(f"{time.monotonic() - began:6.1f} s  {text}")).run()
    result = outcome.result
    for story in outcome.stories:
        say(f"VIOLATION {story}")
    say(f"the page: {result['folder']}/report.html")
    if as_json:
        give(result)
    else:
        click.echo(
            f"{result['sagas']} sagas, {result['faults']} faults of {result['fault_kinds']} kinds, "
            f"{result['effects']} effects, recovery after kill -9 {result['recovery_ms']['p50']} ms at the median, "
            f"{result['violations']} violations"
        )
    if result["violations"]:
        raise click.exceptions.Exit(1)
