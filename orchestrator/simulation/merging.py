"""Reports of several ranges of seeds, added up to one as if they had been run together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import orchestrator
from orchestrator.errors import SagaError

_SUMMED = ("seeds", "seconds", "violations")
_COUNTED = ("faults_by_kind", "statuses")
VIOLATIONS_SHOWN = 50


@cache
def code_digest() -> str:
    """Names the code that runs: the beginning of the SHA-256 of all of the package's sources and schemas."""
    root = Path(orchestrator.__file__).parent
    digest = sha256()
    for path in sorted(path for pattern in ("*.py", "*.avsc") for path in root.rglob(pattern)):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def merge(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One report of many. The median of decisions is that of the parts' medians, by their seeds.

    Raises `SagaError` where they are of different code, or a seed is in two of them.
    """
    if len({report["code"] for report in reports}) > 1:
        codes = ", ".join(sorted({report["code"] for report in reports}))
        raise SagaError(f"the reports are of different code ({codes}): only seeds of one commit add up")
    ranges: list[list[int]] = []
    for first, end in sorted(tuple(span) for report in reports for span in report["ranges"]):
        if ranges and first < ranges[-1][1]:
            raise SagaError(f"seeds from {first} on are in two reports")
        if ranges and first == ranges[-1][1]:
            ranges[-1][1] = end
        else:
            ranges.append([first, end])
    merged: dict[str, Any] = {"code": reports[0]["code"], "ranges": ranges}
    merged |= {name: sum(report[name] for report in reports) for name in _SUMMED}
    merged["seconds"] = round(merged["seconds"], 1)
    merged["seeds_per_minute"] = round(60 * merged["seeds"] / merged["seconds"]) if merged["seconds"] else 0
    violations = [violation for report in reports for violation in report["violation_list"]]
    merged["violation_list"] = violations[:VIOLATIONS_SHOWN]
    merged["decisions_median"] = _median([(report["decisions_median"], report["seeds"]) for report in reports])
    for name in _COUNTED:
        total: Counter[str] = Counter()
        for report in reports:
            total.update(report[name])
        merged[name] = dict(sorted(total.items()))
    missing = set.intersection(*(set(report["transitions_missing"]) for report in reports))
    merged["transitions_total"] = reports[0]["transitions_total"]
    merged["transitions_covered"] = merged["transitions_total"] - len(missing)
    merged["transitions_missing"] = sorted(missing)
    return merged


def read_reports(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Of files that hold what `--json` printed. Raises `SagaError`."""
    reports = []
    for path in paths:
        try:
            report = json.loads(path.read_text().strip().rpartition("\n")[2])
            report["code"], report["ranges"], report["transitions_missing"]
        except (ValueError, KeyError, TypeError) as problem:
            raise SagaError(f"{path} is no report of `saga simulate --json`: {problem!r}") from None
        reports.append(report)
    return reports


def _median(weighted: Sequence[tuple[int, int]]) -> int:
    left = sum(weight for _, weight in weighted) / 2
    for value, weight in sorted(weighted):
        left -= weight
        if left <= 0:
            return value
    return 0
