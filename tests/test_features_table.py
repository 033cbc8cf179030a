"""`docs/features.md` against the code: an id for each feature of the programming model, and tests that exist."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click

from orchestrator import Client, Entity, HandlerContext, Saga
from orchestrator.cli import saga
from orchestrator.client import Handle
from orchestrator.client.schedules import Schedules

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

NUMBERS = (*range(1, 15), 16, *range(18, 29), 30, 31, 32, 34, 35, 48, 49, 51, 53, 61, 62, 63)
"""Of the features that are the programming model's; the others belong to operation, services and trust."""


@dataclass(frozen=True)
class Row:
    id: str
    api: str
    tests: list[str]
    state: str
    page: str


@cache
def rows() -> list[Row]:
    found = []
    for line in (DOCS / "features.md").read_text().splitlines():
        if re.match(r"\| F\d", line):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            assert len(cells) == 6, line
            found.append(Row(cells[0], cells[2], re.findall(r"`([^`]+)`", cells[3]), cells[4], cells[5]))
    return found


def is_test(place: str) -> bool:
    """Whether `path::test_name` is a test function at the top of that file."""
    path, _, name = place.partition("::")
    if not name.startswith("test_") or not (ROOT / path).is_file():
        return False
    tops = ast.parse((ROOT / path).read_text()).body
    return any(isinstance(top, ast.FunctionDef | ast.AsyncFunctionDef) and top.name == name for top in tops)


def test_every_id_of_the_programming_model_has_its_row() -> None:
    assert [row.id for row in rows()].count("F1") == 1
    assert sorted(row.id for row in rows()) == sorted(f"F{number}" for number in NUMBERS)


def test_every_named_test_exists() -> None:
    assert [f"{row.id}: {place}" for row in rows() for place in row.tests if not is_test(place)] == []
    assert not is_test("tests/test_features_table.py::test_that_nobody_wrote")


def test_what_is_there_names_a_test_and_what_is_not_names_none() -> None:
    for row in rows():
        state = re.match(r"there$|partly: .|not yet(: .|$)", row.state)
        assert state, f"{row.id}: a state is `there`, `partly: what is missing` or `not yet`, not {row.state!r}"
        assert bool(row.tests) == (not row.state.startswith("not yet")), f"{row.id} is {row.state!r}: {row.tests}"
        assert row.api or row.state == "not yet", f"{row.id} is {row.state!r} and says nothing of how it is written"


def words_of(api: str) -> list[str]:
    """What stands in code in a row's third column, `a|b` being two ways of one word."""
    return re.findall(r"`([^`]+)`", api)


def test_every_verb_and_option_of_the_command_line_exists() -> None:
    group = click.Context(saga)
    for row in rows():
        verbs: list[click.Command] = []
        for words in words_of(row.api):
            first, *rest = words.split()
            if first == "saga":
                verbs = commands_of(group, rest)
                assert verbs, f"{row.id}: `{words}`"
            options = {option for verb in verbs for param in verb.params for option in param.opts}
            wanted = [each for each in (first, *rest) if each.startswith("--")] if verbs else []
            assert [each for each in wanted if each not in options] == [], f"{row.id}: `{words}`"


def commands_of(group: click.Context, words: list[str]) -> list[click.Command]:
    """The commands that words name, each way of them: `saga locks show KEY`, `saga park retry|skip ID`."""
    found: list[click.Command] = []
    for verb in words[0].split("|"):
        command = saga.get_command(group, verb)
        if isinstance(command, click.Group):
            inner = [command.commands.get(each) for each in words[1].split("|")]
            found += [each for each in inner if each is not None] if None not in inner else []
        elif command is not None:
            found.append(command)
    return found


def test_every_method_and_its_arguments_exist() -> None:
    owners = {"client": Client, "handle": Handle, "schedules": Schedules, "context": HandlerContext}
    for row in rows():
        owners["self"] = Entity if row.id == "F53" else Saga
        for words in words_of(row.api):
            for owner, name, given in re.findall(r"(client|handle|self|schedules|context)\.(\w+)(\([^()]*\)?)?", words):
                method = getattr(owners[owner], name, None)
                assert method is not None or name in OWN, f"{row.id}: {owner}.{name} in `{words}`"
                named = re.findall(r"[(, ](\w+)=", given)
                known = inspect.signature(method).parameters if named and callable(method) else {}
                assert [each for each in named if each not in known] == [], f"{row.id}: {owner}.{name} in `{words}`"


OWN = {"remind"}
"""Methods that an example has of its own."""


def test_every_page_exists() -> None:
    for row in rows():
        for target in re.findall(r"\]\(([^)#]+)", row.page):
            assert (DOCS / target).is_file(), f"{row.id}: {target}"


def test_each_feature_of_temporals_list_has_its_line() -> None:
    """`temporal_features.txt`: the folders of temporalio/features that hold a feature."""
    page = (DOCS / "temporal.md").read_text()
    lines = re.findall(r"^\| `([\w/]+)` \| ([^|]*) \|(.*)\|$", page, re.MULTILINE)
    assert [folder for folder, _, _ in lines] == (ROOT / "tests" / "temporal_features.txt").read_text().split()
    for folder, state, here in lines:
        assert state in ("same", "better", "different", "not yet"), folder
        assert here.strip() or state == "not yet", f"{folder} is {state}, and the page does not say how"
