"""The examples of every page in `docs/` run: its ```python blocks one after the other, in one namespace a page.

Functions called `test_...` are called as well, right after the block that defines them. What is only a piece of
something is fenced as ```python fragment: it is compiled, no more.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from orchestrator.cli import saga

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
_BLOCK = re.compile(r"^```python( fragment)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[int, bool, str]]:
    """The line before each block's first, whether it is a fragment, and its code."""
    return [(text[: found.start(2)].count("\n"), bool(found[1]), found[2]) for found in _BLOCK.finditer(text)]


def run_page(text: str, module: ModuleType, path: str) -> int:
    """Runs a page's examples in the module. Returns how many tests of its own it had."""
    tests = 0
    for line, fragment, code in blocks(text):
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if fragment else 0
        # Lines before it, so that a traceback names the line of the page.
        compiled = compile("\n" * line + code, path, "exec", flags=flags, dont_inherit=True)
        if fragment:
            continue
        known = set(vars(module))
        exec(compiled, vars(module))
        for name in [name for name in vars(module) if name.startswith("test_") and name not in known]:
            result = getattr(module, name)()
            tests += 1
            if inspect.iscoroutine(result):
                asyncio.run(result)
    return tests


@pytest.fixture
def _environment() -> Iterator[None]:
    """What a page sets in the environment is its own affair."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_examples_of_a_page_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses and pydantic look for names there
    run_page(page.read_text(), module, str(page))


def typed(text: str) -> list[list[str]]:
    """The words of each `saga ...` that a page has typed into a shell."""
    shell = re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in shell for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(each, comments=True) for line in lines for each in line.split("&&")]
    return [each[1:] for each in words if each[:1] == ["saga"]]


def parse(words: list[str]) -> None:
    """As the command line does, which then would do it. Raises `click.ClickException`."""
    verb: click.Command = saga
    context, name = click.Context(saga), "saga"
    while isinstance(verb, click.Group):
        found, known, words = verb.resolve_command(context, words)
        assert known is not None
        verb, name = known, found or ""
        context = click.Context(verb, parent=context, info_name=name)
    verb.make_context(name, words, parent=context.parent)


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize("page", [*PAGES, DOCS.parent / "README.md"], ids=lambda page: page.name)
def test_what_a_page_has_typed_is_taken_by_the_command_line(page: Path) -> None:
    for words in typed(page.read_text()):
        parse(words)


def test_a_verb_that_there_is_not_is_found_on_a_page() -> None:
    page = "```console\n$ saga dead-letters show 3:17 && saga why --when order-7\n```\n"
    known, unknown = typed(page)
    parse(known)
    with pytest.raises(click.NoSuchOption, match="--when"):
        parse(unknown)


def test_links_between_pages_lead_somewhere() -> None:
    for page in (*PAGES, DOCS.parent / "README.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_a_page_that_is_wrong_is_found_with_its_line() -> None:
    page = "# A page\n\n```python\nx = 1\n```\n\n```python\ndef test_it() -> None:\n    assert x == 2\n```\n"
    with pytest.raises(AssertionError) as caught:
        run_page(page, ModuleType("page"), "page.md")
    last = caught.traceback[-1]
    assert (last.path.name if isinstance(last.path, Path) else last.path, last.lineno + 1) == ("page.md", 9)
    assert run_page(page.replace("== 2", "== 1"), ModuleType("page"), "page.md") == 1
    assert run_page("```python fragment\nawait nobody\n```\n", ModuleType("page"), "page.md") == 0
    with pytest.raises(SyntaxError):
        run_page("```python fragment\nawait nobody(\n```\n", ModuleType("page"), "page.md")


def test_no_page_holds_both_sides_of_a_conflict() -> None:
    for page in (*PAGES, *DOCS.parent.glob("*.md")):
        assert not re.search(r"^(<{7}|={7}$|>{7})", page.read_text(), re.MULTILINE), page.name
