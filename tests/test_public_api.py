"""What `orchestrator` offers: explicit, sorted, documented, and loaded when it is first used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator
from orchestrator import errors

SOURCE = Path(orchestrator.__file__).read_text()


def test_the_names_are_listed_in_their_order() -> None:
    assert orchestrator.__all__ == sorted(orchestrator.__all__)
    assert len(set(orchestrator.__all__)) == len(orchestrator.__all__)


def test_type_checkers_and_python_see_the_same_names_at_the_same_homes() -> None:
    declared = {}
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("orchestrator"):
            declared.update({alias.name: node.module for alias in node.names})
    assert sorted(declared) == orchestrator.__all__
    assert declared == orchestrator._HOME


@pytest.mark.parametrize("name", orchestrator.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(orchestrator, name)
    assert name in dir(orchestrator)
    assert value.__doc__, f"{name} has no docstring"
    if inspect.isclass(value):
        base = value.__mro__[1]
        assert value.__doc__ != base.__doc__, f"{name} has the docstring of {base.__name__}"


@pytest.mark.parametrize("name", orchestrator.__all__)
def test_what_a_public_class_offers_is_documented(name: str) -> None:
    value = getattr(orchestrator, name)
    if not inspect.isclass(value):
        return
    bare = [
        f"{name}.{key}"
        for key, member in vars(value).items()
        if not key.startswith("_")
        and (inspect.isfunction(member) or isinstance(member, property | classmethod))
        and not inspect.getdoc(member)
    ]
    assert bare == []


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Workflow'"):
        _ = orchestrator.Workflow  # type: ignore[attr-defined]


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_of_it() -> None:
    loaded = loaded_after("import orchestrator")
    assert {name for name in loaded if name.startswith("orchestrator.")} == set()
    assert not loaded & {"pydantic", "confluent_kafka", "fastavro"}


def test_a_saga_loads_neither_kafka_nor_avro() -> None:
    loaded = loaded_after("from orchestrator import Saga, Service, command, step, Retry, StepFailed, Status")
    assert not loaded & {"confluent_kafka", "fastavro", "rocksdict", "asyncio", "orchestrator.runtime"}


def test_neither_the_client_nor_a_participant_loads_the_engine() -> None:
    loaded = loaded_after("from orchestrator import Client, Handle, HandlerContext, Participant")
    assert not {name for name in loaded if name.startswith(("orchestrator.runtime", "orchestrator.store", "rocksdict"))}


def test_the_test_kit_needs_no_broker() -> None:
    loaded = loaded_after("from orchestrator.testing import SagaTest")
    assert not loaded & {"confluent_kafka", "rocksdict", "orchestrator.broker"}


# -- errors


ERRORS = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, BaseException)]


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = [line for line in (errors.__doc__ or "").splitlines() if line.startswith(("├── ", "└── "))]
    assert [line.split()[1] for line in drawn] == [
        error.__name__ for error in ERRORS if issubclass(error, errors.SagaError) and error is not errors.SagaError
    ]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_documented_and_in_the_tree(error: type[BaseException]) -> None:
    assert error.__doc__
    assert issubclass(error, errors.SagaError) or error in (errors.Canceled, errors.ContinueAsNew)


def test_the_codes_of_errors_are_all_different() -> None:
    codes = [error.code for error in ERRORS if issubclass(error, errors.SagaError)]
    assert len(set(codes)) == len(codes)
