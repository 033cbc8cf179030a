"""`saga bench`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median_low
from typing import Any

import click

from orchestrator.bench.figures import Fsync
from orchestrator.cli.output import give, json_option, say, table

_fsync = click.option(
    "--fsync",
    type=click.Choice([each.value for each in Fsync]),
    default=Fsync.NOTHING.value,
    callback=lambda context, parameter, value: Fsync(value),
    show_default=True,
    help="What is written through to the disk before it is acknowledged; topics: as by `saga topics apply --fsync`.",
)


def _drawable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Asked before anything is measured."""
    if path is not None:
        from orchestrator.bench.picture import library

        library()
        if not path.parent.is_dir():
            raise click.BadParameter(f"there is no folder {path.parent}")
    return path


_picture = click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_drawable,
    help="Also draw it, into this SVG file.",
)
_SHARE = "Of the usual numbers of sagas."


@click.group("bench", context_settings={"max_content_width": 110})
def bench_command() -> None:
    """Measures the system on a broker of its own, beside a floor in the same run."""


@bench_command.command("orders")
@click.option("--sagas", default=5_000, show_default=True, type=click.IntRange(min=1), help="Started at once.")
@click.option("--warm-up", default=2_000, show_default=True, type=click.IntRange(min=1), help="Before, unmeasured.")
@click.option("--singly", default=200, show_default=True, type=click.IntRange(min=1), help="For the latency.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Of system and floor in turn.")
@click.option("--brokers", default=1, show_default=True, type=click.IntRange(1, 9), help="Replicas on up to three.")
@_fsync
@_picture
@json_option
def orders_command(
    sagas: int, warm_up: int, singly: int, rounds: int, brokers: int, fsync: Fsync, picture: Path | None, as_json: bool
) -> None:
    """Orders of three steps whose services only answer: throughput, latency, processor time.

    The floor does the same hops with the same records on bare clients. A machine whose floor is slower than 3,000 sagas
    a second or 5 ms was busy: then the run is void.
    """
    from orchestrator.bench.picture import draw_orders
    from orchestrator.bench.run import Bench, Plan

    plan = Plan(sagas, warm_up, singly, rounds, brokers, fsync)
    result = Bench(plan, _teller()).run()
    if picture is not None:
        draw_orders(result, picture)
    if as_json:
        give(result)
    else:
        _print(result)
    if result["void"]:
        say("VOID: the floor itself is below 3,000 sagas a second or above 5 ms, so this machine is not quiet")


@bench_command.command("scenarios")
@click.argument("names", nargs=-1)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Of each scenario.")
@click.option("--share", default=1.0, show_default=True, type=click.FloatRange(0, 10, min_open=True), help=_SHARE)
@_fsync
@_picture
@json_option
def scenarios_command(
    names: tuple[str, ...], rounds: int, share: float, fsync: Fsync, picture: Path | None, as_json: bool
) -> None:
    """Other sagas than orders: undone ones, local steps, long sequences, wide fan-outs, signals.

    NAMES are among undone, local, sequence, fan-out and signals; without any, all. Each has topics, a worker and
    services of its own on one broker.
    """
    from orchestrator.bench.picture import draw_scenarios
    from orchestrator.bench.running import with_broker
    from orchestrator.bench.scenarios import SCENARIOS
    from orchestrator.bench.several import measure_scenarios

    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(SCENARIOS)}", param_hint="NAMES")
    chosen = [SCENARIOS[name].scaled(share) for name in dict.fromkeys(names or SCENARIOS)]
    tell = _teller()
    found = with_broker(
        lambda broker, folder: measure_scenarios(chosen, broker, folder, rounds, tell, fsync), fsync=fsync
    )
    if picture is not None:
        draw_scenarios(found, picture)
    if as_json:
        give({"scenarios": found, "rounds": rounds, "durability": fsync.durability, "replication": 1})
        return
    rows = [
        (
            each["scenario"],
            _three(each["sagas_per_second"]),
            _three(each["steps_per_second"]),
            *(_three(each["latency_ms"][name]) for name in ("p50", "p99")),
            *(_three(each["cpu_ms_per_saga"][role]) for role in ("owner", "participant", "broker")),
            each["resident_mb"]["owner"],
            each["bytes_per_saga"]["journal"],
        )
        for each in found
    ]
    table(rows, ("", "sagas/s", "steps/s", "p50 ms", "p99 ms", "owner", "participant", "broker", "MB", "journal B"))
    click.echo(f"min / median / max of {rounds} rounds; CPU in ms a saga; {fsync.durability}, replication 1")


@bench_command.command("load")
@click.option("--hold", default=60.0, show_default=True, type=click.FloatRange(1), help="Seconds that a rate is held.")
@click.option("--sagas", default=5_000, show_default=True, type=click.IntRange(min=1), help="Started at once, before.")
@_fsync
@_picture
@json_option
def load_command(hold: float, sagas: int, fsync: Fsync, picture: Path | None, as_json: bool) -> None:
    """Orders at a steady rate: the highest that is held, and latency at 10, 50, 80 and 120 % of it.

    A rate is held if what is under way does not grow. Latency counts from when a saga was due to start.
    """
    from orchestrator.bench.picture import draw_load
    from orchestrator.bench.rates import measure_rates
    from orchestrator.bench.running import with_broker

    tell = _teller()
    result = with_broker(lambda broker, folder: measure_rates(broker, folder, hold, sagas, tell, fsync), fsync=fsync)
    result["durability"] = fsync.durability
    if picture is not None:
        draw_load(result, picture)
    if as_json:
        give(result)
        return
    rows = [
        (
            f"{each['share']:.0%}",
            each["rate"],
            each["ended_per_second"],
            each["latency_ms"]["p50"],
            each["latency_ms"]["p99"],
            each["under_way"]["max"],
            each["drained_seconds"],
            each["client_cores"],
        )
        for each in (*result["points"], result["above"], result["after"])
    ]
    table(
        rows, ("of capacity", "sagas/s", "ended/s", "p50 ms", "p99 ms", "most under way", "drained s", "client cores")
    )
    alone = result["alone_ms"]
    click.echo(f"capacity {result['capacity_per_second']} a second, held for {hold:g} s")
    click.echo(f"alone p50 {alone['p50']} ms, p99 {alone['p99']} ms; {result['durability']}, replication 1")


def _teller() -> Callable[[str], None]:
    logging.getLogger("orchestrator").setLevel(logging.ERROR)
    began = time.monotonic()
    return lambda text: say(f"{time.monotonic() - began:6.1f} s  {text}")


def _three(spread: dict[str, float] | None) -> str:
    return "-" if spread is None else f"{spread['min']:g} / {spread['median']:g} / {spread['max']:g}"


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
