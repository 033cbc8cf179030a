"""What holds for every use case: its length, its page, and that `saga dev` can run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli.application import load_definitions
from orchestrator.cli.dev import example_input, find_participants
from orchestrator.cli.topics import services_in

ROOT = Path(__file__).parents[3]
NAMES = sorted(path.stem for path in (ROOT / "sagas").glob("*.py") if path.stem not in ("__init__", "books"))
BUSINESS_LINES = 80

pytestmark = pytest.mark.parametrize("name", NAMES)


def test_saga_dev_has_all_it_needs(name: str) -> None:
    module = f"orchestrator.sagas.{name}"
    assert set(find_participants([module])) == set(services_in((module,)))
    for saga_type, definition in load_definitions((module,)).items():
        given = json.dumps(example_input([module], saga_type)).encode()
        assert definition.check_input(given) is None


def test_business_code_is_short(name: str) -> None:
    """Models, contracts and saga, without blank lines; what follows the comment are the services."""
    lines = (ROOT / "sagas" / f"{name}.py").read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("class "))
    end = next(number for number, line in enumerate(lines) if line.startswith("# The services."))
    assert sum(bool(line.strip()) for line in lines[begin:end]) <= BUSINESS_LINES


def test_a_use_case_has_its_page(name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text()
    assert f"saga dev orchestrator.sagas.{name}" in page
    assert "## How it can end" in page
    assert f"docs/{name}.md" in (ROOT / "README.md").read_text()
