"""A result of `saga bench` as a picture: an SVG file, drawn by `pygal` (the extra `bench`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigurationError

Named = Mapping[str, Sequence[float | None]]


def draw_orders(result: dict[str, Any], path: Path) -> None:
    """What system and floor cost and how fast they are, each as a multiple of the floor's. Raises as `draw_load`."""
    labels = ["sagas a second", *(f"latency {name}" for name in result["latency_ms"])]
    labels += [f"CPU {role}" for role in result["cpu_ms_per_saga"]]

    def figures(side: dict[str, Any]) -> list[float | None]:
        return [side["sagas_per_second"], *side["latency_ms"].values(), *side["cpu_ms_per_saga"].values()]

    pairs = list(zip(figures(result), figures(result["floor"]), strict=True))
    ratios = [round(one / floor, 3) if one is not None and floor else None for one, floor in pairs]
    _bars(
        "Orders of three steps, as multiples of the floor",
        labels,
        {"system": ratios, "floor": [1.0] * len(pairs)},
        path,
    )


def draw_scenarios(found: Sequence[dict[str, Any]], path: Path) -> None:
    """Steps a second of each scenario, least, middle and most of its rounds. Raises as `draw_load`."""
    labels = [each["scenario"] for each in found]
    named = {name: [each["steps_per_second"][name] for each in found] for name in ("min", "median", "max")}
    _bars("Steps a second", labels, named, path)


def draw_load(result: dict[str, Any], path: Path) -> None:
    """Latency by the share of the capacity, on a logarithmic scale of milliseconds.

    Raises `ConfigurationError` where pygal is missing or the file cannot be written.
    """
    points = [*result["points"], result["above"]]
    named = {name: [point["latency_ms"][name] for point in points] for name in ("p50", "p99")}
    title = f"Latency in ms; 100 % are {result['capacity_per_second']:g} sagas a second"
    _bars(title, [f"{point['share']:.0%}" for point in points], named, path, logarithmic=True)


def library() -> Any:
    """pygal. Raises `ConfigurationError` where it is missing."""
    try:
        return import_module("pygal")
    except ImportError:
        raise ConfigurationError("a picture needs pygal: pip install 'saga-orchestrator[bench]'") from None


def _bars(title: str, labels: Sequence[str], named: Named, path: Path, *, logarithmic: bool = False) -> None:
    pygal = library()
    chart = pygal.Bar(
        title=title,
        logarithmic=logarithmic,
        # Nothing is fetched from elsewhere when somebody looks at it.
        js=(),
        style=pygal.style.CleanStyle,
        print_values=True,
        legend_at_bottom=True,
        x_label_rotation=20,
    )
    chart.x_labels = list(labels)
    for name, values in named.items():
        chart.add(name, list(values))
    try:
        path.write_bytes(chart.render())
    except OSError as error:
        raise ConfigurationError(f"the picture cannot be written: {error}") from error
