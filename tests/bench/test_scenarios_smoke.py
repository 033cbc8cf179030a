"""`saga bench scenarios` and `saga bench load` run and say what they promise to say."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from orchestrator.bench.picture import draw_load, draw_orders, draw_scenarios
from orchestrator.bench.rates import SHARES, TOO_MUCH, Held, measure_rates
from orchestrator.bench.running import Brokers, with_broker
from orchestrator.bench.sagas import FanOut, InTurn, LocalOnly, Told, Tools
from orchestrator.bench.scenarios import SCENARIOS, WORDS
from orchestrator.bench.several import measure_scenarios
from orchestrator.broker import SHORT_LIVED
from orchestrator.cli import saga
from orchestrator.errors import ConfigurationError
from orchestrator.testing import SagaTest

ROLES = {"owner", "participant", "client", "broker"}


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_tiny_runs_have_every_figure_of_each_scenario() -> None:
    chosen = [SCENARIOS[name].scaled(0.004) for name in ("undone", "local", "signals")]
    told: list[str] = []

    def measure(broker: Brokers, folder: Path) -> list[dict[str, object]]:
        return measure_scenarios(chosen, broker, folder, 2, told.append)

    found = with_broker(measure, jvm=SHORT_LIVED)
    assert json.loads(json.dumps(found)) == found
    assert [each["scenario"] for each in found] == ["undone", "local", "signals"]
    for each in found:
        assert 0 < each["sagas_per_second"]["min"] <= each["sagas_per_second"]["max"]
        assert each["steps_per_second"]["max"] >= 2 * each["sagas_per_second"]["max"]
        assert 0 < each["latency_ms"]["p50"]["min"] <= each["latency_ms"]["p99"]["max"]
        assert each["cpu_ms_per_saga"].keys() == ROLES
        assert each["resident_mb"]["owner"] > 10
        assert 100 < each["bytes_per_saga"]["journal"] < each["bytes_per_saga"]["all"]
    assert 0.05 < found[0]["undone_share"] < 0.2
    assert [each["undone_share"] for each in found[1:]] == [0, 0]
    assert any("round 2 of 2" in line for line in told)


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_tiny_run_finds_a_rate_and_measures_below_and_above_it() -> None:
    found = with_broker(
        lambda broker, folder: measure_rates(broker, folder, 1.0, 20, lambda text: None), jvm=SHORT_LIVED
    )
    assert json.loads(json.dumps(found)) == found
    assert 0 < found["capacity_per_second"] <= found["at_once_per_second"]
    assert found["tried"][-1]["rate"] == found["capacity_per_second"]
    points = [*found["points"], found["above"], found["after"]]
    assert [point["share"] for point in points] == [*SHARES, TOO_MUCH, SHARES[1]]
    for point in points:
        assert point["rate"] == pytest.approx(point["share"] * found["capacity_per_second"], abs=0.2)
        assert 0 < point["latency_ms"]["p50"] <= point["latency_ms"]["p99"]
        assert point["cpu_ms_per_saga"].keys() == ROLES


@pytest.mark.parametrize(
    ("under_way", "steady"),
    [
        ([30, 31, 29, 30, 30, 31, 30, 29], True),
        ([10, 100, 200, 300, 400, 500, 600, 700], False),
        ([700, 600, 500, 400, 300, 200, 100, 10], True),
        ([0, 0, 0, 1, 2, 1, 9, 20], True),
        ([5], False),
    ],
)
def test_a_rate_is_held_if_what_is_under_way_does_not_grow(under_way: list[int], steady: bool) -> None:
    assert Held(1.0, 1.0, under_way=under_way).steady is steady


def test_a_rate_is_only_held_if_it_was_offered() -> None:
    assert Held(100.0, 10.0, started=1_000).offered
    assert not Held(100.0, 12.0, started=1_000).offered


def test_the_sagas_of_the_scenarios_do_what_they_say() -> None:
    SagaTest(LocalOnly).run(7).assert_completed(10)
    SagaTest(InTurn).answer(Tools.turn, 5).run(4).assert_completed(5)
    SagaTest(FanOut).answer(Tools.turn, 0).run(6).assert_completed(6)
    told = SagaTest(Told)
    for number in range(WORDS):
        told = told.signal(Told.word, number)
    told.run(WORDS).assert_completed(sum(range(WORDS)))


def test_a_result_is_drawn_and_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    spread = {"min": 1.0, "median": 2.0, "max": 3.0}
    draw_scenarios([{"scenario": "local", "steps_per_second": spread}], tmp_path / "scenarios.svg")
    figures = {
        "sagas_per_second": 900.0,
        "latency_ms": {"p50": 8.0, "p99": 20.0},
        "cpu_ms_per_saga": {"owner": 1.0, "broker": None},
    }
    draw_orders({**figures, "floor": {**figures, "sagas_per_second": 6_000.0}}, tmp_path / "orders.svg")
    points = [{"share": share, "latency_ms": {"p50": 5.0, "p99": 50.0}} for share in SHARES]
    load = {"capacity_per_second": 880.5, "points": points, "above": {**points[0], "share": TOO_MUCH}}
    draw_load(load, tmp_path / "load.svg")
    for name, words in (("scenarios", ["local"]), ("orders", ["0.15", "CPU owner"]), ("load", ["880.5", "120%"])):
        drawn = (tmp_path / f"{name}.svg").read_text()
        assert ElementTree.fromstring(drawn).tag.endswith("svg")
        assert "src=" not in drawn
        assert "xlink:href" not in drawn
        assert all(word in drawn for word in words)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        draw_load(load, tmp_path / "missing" / "load.svg")


def test_the_commands_explain_themselves_and_refuse_what_they_do_not_know() -> None:
    shown = CliRunner().invoke(saga, ["bench", "scenarios", "--help"])
    assert shown.exit_code == 0
    assert "fan-out" in shown.output
    assert CliRunner().invoke(saga, ["bench", "load", "--help"]).exit_code == 0
    refused = CliRunner().invoke(saga, ["bench", "scenarios", "nothing"])
    assert refused.exit_code == 2
    misplaced = CliRunner().invoke(saga, ["bench", "load", "--picture", "/nowhere/load.svg"])
    assert misplaced.exit_code == 2
    assert "there is no folder /nowhere" in misplaced.output
    assert "there are undone, local, sequence, fan-out, signals" in refused.output
