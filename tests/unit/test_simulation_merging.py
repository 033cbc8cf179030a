"""Reports of ranges of seeds, added up."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import saga
from orchestrator.simulation.run import simulate


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A report of six seeds, and those of twice three."""
    folder = tmp_path_factory.mktemp("reports")
    paths = []
    for first, seeds in ((10, 6), (10, 3), (13, 3)):
        path = folder / f"{first}-{seeds}.json"
        path.write_text("3 seeds\n" + json.dumps(simulate(first, seeds, jobs=1).as_json()) + "\n")
        paths.append(path)
    return paths[0], paths[1:]


def merged(*paths: Path) -> dict[str, object]:
    result = CliRunner().invoke(saga, ["simulate", "--json", "--merge", *map(str, paths)])
    assert result.exit_code == 0, result.output
    report: dict[str, object] = json.loads(result.stdout)
    return report


def test_two_halves_make_the_whole(parts: tuple[Path, list[Path]]) -> None:
    whole, halves = merged(parts[0]), merged(*parts[1])
    for name in ("seconds", "seeds_per_minute", "decisions_median"):
        whole.pop(name)
        halves.pop(name)
    assert whole == halves
    assert whole["ranges"] == [[10, 16]]
    assert whole["seeds"] == 6


def test_what_was_merged_merges_again(parts: tuple[Path, list[Path]], tmp_path: Path) -> None:
    (tmp_path / "first").write_text(json.dumps(merged(parts[1][0])))
    assert merged(tmp_path / "first", parts[1][1])["ranges"] == [[10, 16]]


def test_a_violation_in_a_part_is_one_of_the_whole(parts: tuple[Path, list[Path]], tmp_path: Path) -> None:
    report = json.loads(parts[1][0].read_text().splitlines()[-1])
    broken = {"seed": 11, "violations": ["C2: it has no end"], "repeat": "saga simulate --from 11 --seeds 1"}
    (tmp_path / "broken").write_text(json.dumps(report | {"violations": 1, "violation_list": [broken]}))
    result = CliRunner().invoke(saga, ["simulate", "--merge", str(tmp_path / "broken"), str(parts[1][1])])
    assert result.exit_code == 1
    assert "1 violations" in result.stdout
    assert "seed 11: C2: it has no end" in result.stderr


def test_seeds_do_not_count_twice_and_code_is_not_mixed(parts: tuple[Path, list[Path]], tmp_path: Path) -> None:
    whole, (first, _) = parts
    twice = CliRunner().invoke(saga, ["simulate", "--merge", str(whole), str(first)])
    assert "seeds from 10 on are in two reports" in str(twice.exception)
    report = json.loads(first.read_text().splitlines()[-1])
    (tmp_path / "other").write_text(json.dumps(report | {"code": "another", "ranges": [[90, 93]]}))
    mixed = CliRunner().invoke(saga, ["simulate", "--merge", str(whole), str(tmp_path / "other")])
    assert "of different code" in str(mixed.exception)
    (tmp_path / "none").write_text("{}")
    none = CliRunner().invoke(saga, ["simulate", "--merge", str(tmp_path / "none")])
    assert "is no report of `saga simulate --json`" in str(none.exception)
