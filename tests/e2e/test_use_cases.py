"""Every use case of `sagas/` on a real broker, with its services and their books, also while a worker is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.checker.check import check
from orchestrator.sagas import books
from tests.e2e.use_cases import MODULES, Scenario, Town, town

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def place(broker: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    monkeypatch.setenv("SHOP_BOOKS", str(tmp_path / "books"))
    with town(broker, prefix, tmp_path) as made:
        yield made


def assert_as_written(ends: dict[str, tuple[Scenario, str]]) -> None:
    """Every saga has ended as its scenario says, and the books say the same."""
    for saga_id, (scenario, end) in ends.items():
        assert end == scenario.ends.format(id=saga_id)
        for service, lines in scenario.books.items():
            assert sorted(books.read(service, saga_id)) == [line.format(id=saga_id) for line in lines], saga_id


def test_every_file_of_sagas_is_tried() -> None:
    folder = Path(__file__).parents[2] / "sagas"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "books"}
    assert {module.rpartition(".")[2] for module in MODULES} == files


def test_every_use_case_ends_as_its_page_says(place: Town) -> None:
    assert_as_written(place.run(1, "calm"))


def test_a_worker_killed_in_the_middle_changes_nothing(place: Town) -> None:
    assert_as_written(place.run(2, "killed", place.workers[0].kill))
    assert check(place.evidence()).violations == []
