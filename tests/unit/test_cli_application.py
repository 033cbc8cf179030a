"""Sagas and participants by their place: who mistypes one is told which there are."""

import pytest

from orchestrator.cli.application import load_definitions, load_participant, with_built_in
from orchestrator.errors import ConfigurationError

SHOP = "orchestrator.sagas.order_fulfilment"


def message(call: object, given: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        call(given)  # type: ignore[operator]
    return str(caught.value)


def test_a_saga_is_found_by_its_module_and_by_its_class() -> None:
    assert load_definitions((SHOP,)) == load_definitions((f"{SHOP}:OrderFulfilment",))


def test_a_class_that_is_no_saga_names_those_there_are() -> None:
    told = message(load_definitions, (f"{SHOP}:Nope",))
    assert told == f"{SHOP}:Nope defines no saga; there is {SHOP}:OrderFulfilment"
    assert message(load_definitions, ("json:Nope",)) == "json:Nope defines no saga; nor is there another in json"
    assert message(load_definitions, ("json",)) == "json defines no saga"


def test_an_object_that_is_no_participant_names_those_there_are() -> None:
    told = message(load_participant, f"{SHOP}:nope")
    assert "'nope' is no Participant" in told
    assert f"; there is {SHOP}:" in told
    assert f"{SHOP}:payments" in told
    assert "say module:object" in message(load_participant, SHOP)


def test_every_worker_keeps_business_keys_and_locks() -> None:
    definitions = load_definitions((SHOP,))
    assert set(with_built_in(definitions)) == {"OrderFulfilment", "saga.correlator", "saga.lock", "saga.schedule"}
    with pytest.raises(ConfigurationError, match="give yours another name"):
        with_built_in({"saga.correlator": definitions["OrderFulfilment"]})
    with pytest.raises(ConfigurationError, match="give yours another name"):
        with_built_in({"saga.lock": definitions["OrderFulfilment"]})
