"""The ETL pipeline: every way it can end. The services' own handlers answer."""

import pytest

from orchestrator.sagas import etl_pipeline as plant
from orchestrator.sagas.etl_pipeline import Cleaning, Day, EtlPipeline, Lake, Report, Warehouse
from orchestrator.testing import SagaTest

DAY = Day(date="2024-05-01")
GOOD = plant.FILES - 1


@pytest.fixture(autouse=True)
def _fresh_books(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_BOOKS", ":memory:")


def pipeline() -> SagaTest[Day, Report]:
    return SagaTest(EtlPipeline).service(plant.lake, plant.cleaning, plant.warehouse)


def test_a_day_is_published_without_its_bad_file() -> None:
    end = pipeline().run(DAY)
    end.assert_completed(Report(rows=GOOD * plant.PARTS * plant.PART_ROWS, bad=["2024-05-01/6.csv"]))
    assert end.effects.count(Warehouse.load) == GOOD * plant.PARTS + 1
    assert end.requests(Warehouse.publish)[0].without == ["2024-05-01/6.csv"]


def test_one_bad_file_too_many_drops_what_was_loaded() -> None:
    end = pipeline().run(DAY.model_copy(update={"may_be_bad": 0.1}))
    end.assert_failed("Malformed")
    end.assert_compensated(Warehouse.drop)
    assert end.effects.count(Warehouse.load) > 0


def test_a_bad_day_ends_at_its_second_bad_file() -> None:
    end = pipeline().run(DAY.model_copy(update={"date": plant.BAD_DAY}))
    end.assert_compensated(Warehouse.drop)
    assert Cleaning.clean not in end.effects


def test_a_day_without_rows_is_not_published() -> None:
    end = pipeline().run(DAY.model_copy(update={"date": plant.HOLIDAY}))
    end.assert_failed("Empty")
    end.assert_compensated(Warehouse.drop)


def test_a_lake_that_stumbles_is_asked_again() -> None:
    end = pipeline().retry(Lake.extract, "Busy", times=9).run(DAY)
    end.assert_completed()


@pytest.mark.parametrize("at_once", [1, 3])
def test_so_many_files_are_loaded_at_once(at_once: int) -> None:
    test = pipeline().service(plant.lake, takes=1)
    one = test.run(DAY.model_copy(update={"at_once": at_once}))
    parts = GOOD * plant.PARTS + 2
    assert parts / at_once <= one.elapsed - 1 <= parts / at_once + plant.PARTS
