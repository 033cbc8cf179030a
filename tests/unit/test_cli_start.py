"""`saga start` before anything is sent."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli.start import start_command, untyped_saga

SHOP = "orchestrator.sagas.order_fulfilment:OrderFulfilment"


@pytest.mark.parametrize(
    ("saga", "given", "complaint"),
    [
        ("OrderFulfilment", "{", "--input is not JSON"),
        ("OrderFulfilment", "@missing.json", "missing.json cannot be read"),
        (SHOP, '{"id": "o-1"}', "no input of OrderFulfilment: sku: Field required"),
    ],
)
def test_a_bad_input_is_refused_before_a_cluster_is_asked(saga: str, given: str, complaint: str) -> None:
    result = CliRunner().invoke(start_command, [saga, "--input", given])
    assert result.exit_code == 2
    assert complaint in result.output


def test_a_class_that_is_not_there_is_named() -> None:
    result = CliRunner().invoke(start_command, ["nowhere_at_all:Saga", "--input", "{}"])
    assert result.exit_code == 1
    assert "no module 'nowhere_at_all'" in str(result.exception)


def test_input_comes_from_a_file_or_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SAGA_BOOTSTRAP_SERVERS", "SAGA_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    order = json.dumps({"id": "o-1", "sku": "tea", "cents": 1})
    (tmp_path / "order.json").write_text(order)
    for arguments, typed in ((["--input", "@order.json"], None), (["--input", "-"], order)):
        result = CliRunner().invoke(start_command, [SHOP, *arguments], input=typed)
        assert "no cluster" in str(result.exception)  # the input was right: the next thing is missing


def test_a_saga_without_code_passes_json_through() -> None:
    saga = untyped_saga("Elsewhere")
    assert saga.definition.name == "Elsewhere"
    assert saga.encode_input(b'{"price": 1.10}') == b'{"price": 1.10}'
    assert saga.decode_result(b"1.10") == b"1.10"
