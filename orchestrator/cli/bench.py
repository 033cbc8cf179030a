"""`saga bench`."""

from __future__ import annotations

import logging
import time
from typing import Any

import click

from orchestrator.cli.output import give, json_option, say, table


@click.group("bench", context_settings={"max_content_width": 110})
def bench_command() -> None:
    """Measures the system on a broker of its own, beside a floor in the same run."""


@bench_command.command("orders")
@click.option("--sagas", default=5_000, show_default=True, type=click.IntRange(min=1), help="Started at once.")
@click.option("--warm-up", default=2_000, show_default=True, type=click.IntRange(min=1), help="Before, unmeasured.")
@click.option("--singly", default=200, show_default=True, type=click.IntRange(min=1), help="For the latency.")
@click.option("--fsync", is_flag=True, help="The broker writes every batch through to the disk before it acknowledges.")
@json_option
def orders_command(sagas: int, warm_up: int, singly: int, fsync: bool, as_json: bool) -> None:
    """Orders of three steps whose services only answer: throughput, latency, processor time.

    The floor does the same hops with the same records on bare clients. A machine whose floor is slower than 3,000 sagas
    a second or 5 ms was busy: then the run is void.
    """
    from orchestrator.bench.run import Bench, Plan

    logging.getLogger("orchestrator").setLevel(logging.ERROR)
    began = time.monotonic()
    plan = Plan(sagas, warm_up, singly, fsync)
    result = Bench(plan, lambda text: say(f"{time.monotonic() - began:6.1f} s  {text}")).run()
    if as_json:
        give(result)
    else:
        _print(result)
    if result["void"]:
        say("VOID: the floor itself is below 3,000 sagas a second or above 5 ms, so this machine is not quiet")


def _print(result: dict[str, Any]) -> None:
    floor = result["floor"]
    rows: list[tuple[object, ...]] = [("sagas a second", result["sagas_per_second"], floor["sagas_per_second"])]
    rows += [(f"latency {name}, ms", value, floor["latency_ms"][name]) for name, value in result["latency_ms"].items()]
    rows += [
        (f"CPU {role}, ms a saga", value, floor["cpu_ms_per_saga"][role])
        for role, value in result["cpu_ms_per_saga"].items()
    ]
    table(rows, ("", "system", "floor"))
    click.echo(f"{result['sagas']} sagas, {result['durability']}, replication {result['replication']}")
