"""After the tests: who caught each broken rule."""

from __future__ import annotations

from typing import Any

CAUGHT = "caught"
"""The property of a test's report that has a mutant's name, the seed, and what that found first."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = terminalreporter.stats.get("passed", [])
    rows = [value for report in reports for name, value in report.user_properties if name == CAUGHT]
    if not rows:
        return
    terminalreporter.section("broken rules: the first seed that found it, and by what")
    width = max(len(name) for name, _, _ in rows)
    for name, seed, found in sorted(rows):
        terminalreporter.line(f"{name:{width}}  {seed:4}  {found[:100]}")
