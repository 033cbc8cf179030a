"""Which mirror Maven's settings name."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from orchestrator.broker.maven import FetchFailed, _make_settings, find_mirror, read_mirror

HEAD = '<settings xmlns="http://maven.apache.org/SETTINGS/1.2.0"><mirrors>'


def mirror(of: str, url: str, name: str = "own") -> str:
    return f"<mirror><id>{name}</id><mirrorOf>{of}</mirrorOf><url>{url}</url></mirror>"


def settings(*mirrors: str, servers: str = "") -> str:
    return f"{HEAD}{''.join(mirrors)}</mirrors><servers>{servers}</servers></settings>"


@pytest.mark.parametrize("of", ["*", "central", "external:*", "other, central", "*,!snapshots"])
def test_a_mirror_of_the_default_repository_is_found(of: str) -> None:
    assert read_mirror(settings(mirror(of, "https://mirror.test/maven/"))) == "https://mirror.test/maven"


@pytest.mark.parametrize("of", ["snapshots", "*,!central", "external:http:*", ""])
def test_other_mirrors_are_passed_over(of: str) -> None:
    assert read_mirror(settings(mirror(of, "https://mirror.test/maven"))) is None


def test_settings_may_be_bare_or_without_mirrors() -> None:
    assert read_mirror("<settings/>") is None
    plain = settings(mirror("*", "http://mirror.test/m")).replace(' xmlns="http://maven.apache.org/SETTINGS/1.2.0"', "")
    assert read_mirror(plain) == "http://mirror.test/m"


def test_an_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    text = settings(mirror("*", "https://${env.SAGA_TEST_HOST}/maven"), mirror("*", "https://second.test"))
    monkeypatch.delenv("SAGA_TEST_HOST", raising=False)
    assert read_mirror(text) == "https://second.test"
    monkeypatch.setenv("SAGA_TEST_HOST", "first.test")
    assert read_mirror(text) == "https://first.test/maven"


def test_a_login_is_put_into_the_address() -> None:
    login = "<server><id>own</id><username>ann</username><password>p@ss/word</password></server>"
    text = settings(mirror("*", "https://mirror.test/m"), servers=login)
    assert read_mirror(text) == "https://ann:p%40ss%2Fword@mirror.test/m"
    assert read_mirror(text.replace("p@ss/word", "{encrypted}")) == "https://mirror.test/m"


def test_the_environment_wins_over_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("M2_HOME", str(tmp_path / "installation"))
    monkeypatch.delenv("SAGA_MAVEN_REPOSITORY", raising=False)
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text("not xml")
    (tmp_path / "installation" / "conf").mkdir(parents=True)
    (tmp_path / "installation" / "conf" / "settings.xml").write_text(settings(mirror("*", "https://all.test")))
    assert find_mirror() == "https://all.test"
    (tmp_path / ".m2" / "settings.xml").write_text(settings(mirror("central", "https://mine.test")))
    assert find_mirror() == "https://mine.test"
    monkeypatch.setenv("SAGA_MAVEN_REPOSITORY", "https://chosen.test/maven/")
    assert find_mirror() == "https://chosen.test/maven"


def test_mvn_is_given_the_chosen_mirror_for_everything() -> None:
    written = _make_settings("https://chosen.test/a&b")
    assert ElementTree.fromstring(written).findtext("mirrors/mirror/mirrorOf") == "*"
    assert read_mirror(written) == "https://chosen.test/a&b"


def test_an_error_shows_no_login() -> None:
    assert (
        str(FetchFailed("not in {'m': 'https://ann:p%40ss@mirror.test/m'}")) == "not in {'m': 'https://mirror.test/m'}"
    )
