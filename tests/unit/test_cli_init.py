"""`saga init`: files, names, and nothing overwritten."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli.dev import _example, _processes, example_input, find_participants, metrics_port_in
from orchestrator.cli.init import init_command, project
from orchestrator.config import load_settings


def test_a_project_has_code_a_test_settings_and_a_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(init_command, ["my-shop"])
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "my-shop").iterdir()} == set(project("my-shop"))
    assert "saga dev my_shop_orders" in (tmp_path / "my-shop" / "README.md").read_text()
    assert "from my_shop_orders import Order, OrderSaga" in (tmp_path / "my-shop" / "README.md").read_text()
    assert not any(
        "@" in line for text in project("my-shop").values() for line in text.splitlines() if "@MODULE" in line
    )
    settings = load_settings(file=tmp_path / "my-shop" / "saga.toml", environ={})
    assert settings.development
    assert settings.bootstrap_servers is None


def test_what_is_there_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "notes").write_text("mine")
    result = CliRunner().invoke(init_command, ["shop"])
    assert result.exit_code == 1
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["notes"]


@pytest.mark.parametrize("name", ["7up", "a b", "ünder"])
def test_a_name_that_is_no_module_is_refused(name: str) -> None:
    assert CliRunner().invoke(init_command, [name]).exit_code == 2


def test_dev_finds_the_participants_of_modules() -> None:
    module = "orchestrator.sagas.order_fulfilment"
    assert find_participants([module, f"{module}:OrderFulfilment"]) == {
        "inventory": f"{module}:inventory",
        "payments": f"{module}:payments",
        "shipping": f"{module}:shipping",
    }


def test_dev_shows_an_input_that_can_be_typed_off() -> None:
    module = "orchestrator.sagas.order_fulfilment"
    assert example_input([module], "OrderFulfilment") == {"id": "id", "sku": "sku", "cents": 1}
    assert example_input([module], "Unknown") is None


def test_dev_gives_its_worker_the_metrics_port_and_its_services_none(tmp_path: Path) -> None:
    settings = load_settings({"development": True}, environ={"SAGA_METRICS_PORT": "9500"})
    worker, service = _processes(settings, None, ["shop"], {"payments": "shop:payments"}, tmp_path)
    assert worker._environment["SAGA_METRICS_PORT"] == "9500"
    assert service._environment["SAGA_METRICS_PORT"] == "0"


def test_dev_tells_the_port_that_the_worker_found_free() -> None:
    told = "port 9464 is taken: metrics and probes are on 9466\nmetrics and probes on port 9466\n"
    assert metrics_port_in(told) == 9466
    assert metrics_port_in("ports 9464 to 9514 are taken: no metrics and no probes") is None


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        ({"type": "integer"}, 1),
        ({"type": "string"}, "text"),
        ({"enum": ["a", "b"]}, "a"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text"),
        ({"$ref": "#/$defs/Line"}, {"count": 1}),
        ({}, None),
    ],
)
def test_an_example_follows_the_schema(schema: dict[str, Any], example: object) -> None:
    known = {"Line": {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}}
    assert _example(schema, known, "text") == example
