"""`saga bench`."""

from __future__ import annotations

import logging
import time
from statistics import median_low
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
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Of system and floor in turn.")
@click.option("--fsync", is_flag=True, help="The broker writes every batch through to the disk before it acknowledges.")
@json_option
def orders_command(sagas: int, warm_up: int, singly: int, rounds: int, fsync: bool, as_json: bool) -> None:
    """Orders of three steps whose services only answer: throughput, latency, processor time.

    The floor does the same hops with the same records on bare clients. A machine whose floor is slower than 3,000 sagas
    a second or 5 ms was busy: then the run is void.
    """
    from orchestrator.bench.run import Bench, Plan

    logging.getLogger("orchestrator").setLevel(logging.ERROR)
    began = time.monotonic()
    plan = Plan(sagas, warm_up, singly, rounds, fsync)
    result = Bench(plan, lambda text: say(f"{time.monotonic() - began:6.1f} s  {text}")).run()
    if as_json:
        give(result)
    else:
        _print(result)
    if result["void"]:
        say("VOID: the floor itself is below 3,000 sagas a second or above 5 ms, so this machine is not quiet")


def _print(result: dict[str, Any]) -> None:
    rounds = result["rounds"]

    def row(name: str, *path: str) -> tuple[object, ...]:
        return (name, *(_spread([_at(each[side], path) for each in rounds]) for side in ("system", "floor")))

    rows = [row("sagas a second", "sagas_per_second")]
    rows += [row(f"latency {name}, ms", "latency_ms", name) for name in result["latency_ms"]]
    rows += [row(f"CPU {role}, ms a saga", "cpu_ms_per_saga", role) for role in result["cpu_ms_per_saga"]]
    table(rows, ("min / median / max", "system", "floor"))
    click.echo(f"{result['sagas']} sagas, {result['durability']}, replication {result['replication']}")


def _at(figures: dict[str, Any], path: tuple[str, ...]) -> float | None:
    for name in path:
        figures = figures[name]
    return figures  # type: ignore[return-value]


def _spread(values: list[float | None]) -> str:
    told = [value for value in values if value is not None]
    return f"{min(told):g} / {median_low(told):g} / {max(told):g}" if told else "-"
