"""`saga bench orders` runs and says what it promises to say. What it says about time is nobody's promise."""

import json

import pytest
from click.testing import CliRunner

from orchestrator.bench.figures import Figures, is_quiet, middle, percentiles
from orchestrator.bench.run import Bench, Plan
from orchestrator.broker import SHORT_LIVED
from orchestrator.cli import saga

ROLES = {"owner", "participant", "client", "broker"}


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("brokers", [1, 3])
def test_a_tiny_run_has_every_figure_of_the_system_and_of_its_floor(brokers: int) -> None:
    told: list[str] = []
    plan = Plan(sagas=40, warm_up=20, singly=5, rounds=2, brokers=brokers, jvm=SHORT_LIVED)
    result = Bench(plan, told.append).run()
    assert json.loads(json.dumps(result)) == result
    assert result["sagas"] == 40
    for figures in (result, result["floor"]):
        assert figures["sagas_per_second"] > 0
        assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"]
        assert figures["cpu_ms_per_saga"].keys() == ROLES
    assert [round_.keys() for round_ in result["rounds"]] == [{"system", "floor"}] * 2
    assert result["durability"] == "page cache"
    assert result["replication"] == brokers
    assert isinstance(result["void"], bool)
    per_saga = {kind: round(record["per_saga"]) for kind, record in result["records"].items()}
    assert {kind: per_saga[kind] for kind in ("inbox", "command", "reply", "answer")} == {
        "inbox": 1,
        "command": 3,
        "reply": 3,
        "answer": 1,
    }
    assert per_saga["journal"] >= 4
    assert 4 <= per_saga["lifecycle"] <= 6
    assert told


def test_percentiles_are_in_milliseconds() -> None:
    assert percentiles([number / 1000 for number in range(101, 0, -1)]) == {"p50": 51.0, "p99": 100.0}
    assert percentiles([0.004]) == {"p50": 4.0, "p99": 4.0}


def test_of_several_rounds_each_figure_is_the_middle_one() -> None:
    rounds = [Figures(rate, {"p50": 10 - rate}, {"owner": rate, "broker": None}) for rate in (3.0, 1.0, 2.0)]
    assert middle(rounds) == Figures(2.0, {"p50": 8.0}, {"owner": 2.0, "broker": None})


def test_a_slow_floor_voids_a_run() -> None:
    assert is_quiet(Figures(3_000.0, {"p50": 5.0}))
    assert not is_quiet(Figures(2_999.0, {"p50": 1.0}))
    assert not is_quiet(Figures(9_000.0, {"p50": 5.1}))


def test_the_command_explains_itself() -> None:
    shown = CliRunner().invoke(saga, ["bench", "orders", "--help"])
    assert shown.exit_code == 0
    assert "--fsync" in shown.output
