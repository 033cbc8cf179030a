"""The programming model holds what its types promise: good code passes, every mistake is found where it is made."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

pytestmark = pytest.mark.timeout(180)  # a type checker without its cache reads all libraries


def marked() -> set[int]:
    """The lines of the mistakes."""
    lines = (HERE / "mistakes.py").read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if "# E: " in line}


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert done.stdout, done.stderr
    return done.stdout


def mypy() -> dict[str, set[int]]:
    """Lines with an error, by file."""
    cache = str(ROOT / ".mypy_cache" / "typing")
    output = run("mypy", "--strict", "--no-error-summary", "--cache-dir", cache, "good.py", "mistakes.py")
    return found(re.findall(r"^(\w+\.py):(\d+): error:", output, re.MULTILINE))


def pyright() -> dict[str, set[int]]:
    """The same by the other type checker, which is also the one of many editors."""
    output = json.loads(run("pyright", "--outputjson", "good.py", "mistakes.py"))
    errors = [each for each in output["generalDiagnostics"] if each["severity"] == "error"]
    return found([(Path(each["file"]).name, str(each["range"]["start"]["line"] + 1)) for each in errors])


def found(errors: list[tuple[str, str]]) -> dict[str, set[int]]:
    lines: dict[str, set[int]] = {}
    for file, line in errors:
        lines.setdefault(file, set()).add(int(line))
    return lines


def test_there_are_enough_mistakes_to_mean_something() -> None:
    assert len(marked()) >= 21


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_good_code_is_clean_and_every_mistake_is_found(checker: object) -> None:
    assert callable(checker)
    lines = checker()
    wrong = lines.pop("mistakes.py", set())
    assert lines == {}, "good code is not clean"
    assert sorted(wrong - marked()) == [], "lines that are not marked as a mistake"
    assert sorted(marked() - wrong) == [], "mistakes that were not found"
