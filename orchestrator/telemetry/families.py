"""Metric families from plain numbers, and copies of what another thread is changing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

K = TypeVar("K")
V = TypeVar("V")

_TRIES = 100

Labelled = Iterable[tuple[Sequence[str], float]]


def copied(mapping: Mapping[K, V]) -> list[tuple[K, V]]:
    """The items of a mapping to which another thread adds; a copy that it got in the way of is made again."""
    for _ in range(_TRIES):
        try:
            return list(mapping.items())
        except RuntimeError:
            continue
    return []


def counter(name: str, text: str, value: float) -> CounterMetricFamily:
    """A counter without labels; `_total` is appended to the name."""
    return CounterMetricFamily(name, text, value=value)


def counters(name: str, text: str, labels: Sequence[str], values: Labelled) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, labels: Sequence[str], values: Labelled) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def histogram(
    name: str,
    text: str,
    labels: Sequence[str],
    bounds_ms: Sequence[int],
    values: Iterable[tuple[Sequence[str], Sequence[int], int]],
) -> HistogramMetricFamily:
    """A histogram in seconds; each value is its labels, the count of each bucket (one more than bounds), the sum."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for label_values, counts, sum_ms in values:
        buckets: list[tuple[str, float]] = []
        below = 0
        for bound_ms, count in zip(bounds_ms, counts, strict=False):
            below += count
            buckets.append((str(bound_ms / 1000), below))
        buckets.append(("+Inf", below + counts[-1]))
        family.add_metric(label_values, buckets, sum_ms / 1000)
    return family
