"""Kafka's jars: fetched from a repository on loopback, checked, kept; with small files in the place of jars."""

import hashlib
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.broker import jars, maven
from orchestrator.errors import BrokerUnavailable

CONTENT = {
    "org/example/first/1.0/first-1.0.jar": b"the first jar",
    "org/example/deep/second_2.13/4.1.0/second_2.13-4.1.0.jar": b"the second jar",
    "third/third/2/third-2.jar": b"the third jar",
}


class Repository:
    """A Maven repository on loopback: what it holds, by path, and what it was asked for."""

    def __init__(self) -> None:
        self.content = dict(CONTENT)
        self.asked: list[str] = []
        repository = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.removeprefix("/maven/")
                repository.asked.append(path)
                body = repository.content.get(path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/maven"


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Repository]:
    """The only repository there is; a machine with an empty cache, its own pins and no mvn."""
    pins = tmp_path / "jars.sha256"
    pins.write_text("".join(f"{hashlib.sha256(body).hexdigest()}  {path}\n" for path, body in CONTENT.items()))
    monkeypatch.setattr(jars, "PINS", pins)
    monkeypatch.setenv("SAGA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("SAGA_KAFKA_HOME", raising=False)
    held = Repository()
    monkeypatch.setenv("SAGA_MAVEN_REPOSITORY", held.address)
    thread = threading.Thread(target=held.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield held
    held.server.shutdown()
    held.server.server_close()
    thread.join()


def test_jars_are_fetched_once_and_only_they(repository: Repository, tmp_path: Path) -> None:
    found = jars.find_jars()
    assert found.parent == tmp_path / "cache"
    assert {jar.name: jar.read_bytes() for jar in found.iterdir()} == {
        Path(path).name: body for path, body in CONTENT.items()
    }
    assert {path for path in repository.asked if path.endswith(".jar")} == set(CONTENT)
    repository.asked.clear()
    assert jars.find_jars() == found
    assert repository.asked == []
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [found.name]


def test_a_jar_that_is_not_the_pinned_one_is_not_kept(repository: Repository, tmp_path: Path) -> None:
    repository.content["third/third/2/third-2.jar"] = b"something else"
    with pytest.raises(BrokerUnavailable, match=r"third-2\.jar \(not the pinned one\) as fetched: not used"):
        jars.find_jars()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_jar_says_which_ways_were_tried(repository: Repository, tmp_path: Path) -> None:
    del repository.content["third/third/2/third-2.jar"]
    with pytest.raises(BrokerUnavailable, match=r"could not be fetched: mvn is not on the PATH; jgo: .*third"):
        jars.find_jars()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_changed_cache_is_not_used(repository: Repository) -> None:
    found = jars.find_jars()
    (found / "first-1.0.jar").write_bytes(b"changed")
    with pytest.raises(BrokerUnavailable, match=r"first-1\.0\.jar \(not the pinned one\) in .*: not used\. Delete"):
        jars.find_jars()
    (found / "first-1.0.jar").unlink()
    with pytest.raises(BrokerUnavailable, match="missing"):
        jars.find_jars()
    (found / "first-1.0.jar").write_bytes(CONTENT["org/example/first/1.0/first-1.0.jar"])
    (found / "guest.jar").write_bytes(b"on the class path too")
    with pytest.raises(BrokerUnavailable, match=r"guest\.jar \(unexpected\)"):
        jars.find_jars()


def test_two_processes_may_fetch_at_once(repository: Repository, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from orchestrator.broker import jars\n"
        f"jars.PINS = Path({str(tmp_path / 'jars.sha256')!r})\n"
        "sys.stdin.readline(); print(jars.find_jars())"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (entry,) = (tmp_path / "cache").iterdir()
    assert said == {f"{entry}\n"}


def test_losing_that_race_is_no_error(tmp_path: Path) -> None:
    draft, entry = tmp_path / "draft", tmp_path / "entry"
    for directory in (draft, entry):
        directory.mkdir()
        (directory / "a.jar").touch()
    jars._publish(draft, entry)
    assert (entry / "a.jar").exists()


def test_without_jgo_the_error_says_so(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    with pytest.raises(BrokerUnavailable, match="the package jgo is not installed"):
        jars.find_jars()


def test_mvn_that_fails_is_followed_by_jgo(repository: Repository, tmp_path: Path) -> None:
    mvn = tmp_path / "mvn"
    mvn.write_text("#!/bin/sh\necho '[ERROR] no route'\nexit 1\n")
    mvn.chmod(0o755)
    assert jars.find_jars().is_dir()
    with pytest.raises(maven.FetchFailed, match=r"mvn: \[ERROR\] no route"):
        maven.fetch_by_mvn(tmp_path, {})


def test_the_shipped_pins_are_paths_in_a_repository() -> None:
    pins = jars.read_pins()
    assert f"<version>{jars.VERSION}</version>" in jars.PINS.with_name("pom.xml").read_text()
    assert list(pins) == sorted(pins)
    assert f"org/apache/kafka/kafka_2.13/{jars.VERSION}/kafka_2.13-{jars.VERSION}.jar" in pins
    names = [Path(path).name for path in pins]
    assert len(set(names)) == len(names)
    for path, digest in pins.items():
        group, artifact, version = maven.split_path(path)
        assert path == f"{group.replace('.', '/')}/{artifact}/{version}/{artifact}-{version}.jar"
        assert len(bytes.fromhex(digest)) == 32


def test_a_given_kafka_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    libs = tmp_path / "kafka" / "libs"
    libs.mkdir(parents=True)
    monkeypatch.setenv("SAGA_KAFKA_HOME", str(tmp_path / "kafka"))
    with pytest.raises(BrokerUnavailable, match="holds no Kafka server"):
        jars.find_jars()
    (libs / "kafka_2.13-3.9.0.jar").touch()
    (libs / "kafka-clients-3.9.0.jar").touch()
    with pytest.raises(BrokerUnavailable, match=r"is Kafka 3\.9; 4\.1 or newer"):
        jars.find_jars()
    (libs / "kafka-clients-3.9.0.jar").rename(libs / "kafka-clients-4.2.1.jar")
    assert jars.find_jars() == libs
    monkeypatch.setenv("SAGA_KAFKA_HOME", str(libs))
    assert jars.find_jars() == libs


def test_the_cache_is_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SAGA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jars.cache_root() == tmp_path / "saga-orchestrator"
    monkeypatch.setenv("SAGA_CACHE", str(tmp_path / "own"))
    assert jars.cache_root() == tmp_path / "own"
