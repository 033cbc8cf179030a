"""Finds Kafka's jars: SAGA_KAFKA_HOME, our cache, else fetched once by Maven or by jgo, checked against pinned sums.

`jars.sha256` lists every jar by its path in a Maven repository, so that the same list says what to fetch, from where
below a repository's root, and what it must be. `sha256sum --check` reads it too.

Another version of Kafka: change `pom.xml` and VERSION, copy the dependencies with `mvn dependency:copy-dependencies
-Dmdep.useRepositoryLayout=true` into an empty folder, and list there `sha256sum` of every jar, sorted by path.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.broker import maven
from orchestrator.errors import BrokerUnavailable

VERSION = "4.1.0"
OLDEST = (4, 1)  # what the shipped feature levels need, see storage.py

PINS = Path(__file__).with_name("jars.sha256")


def find_jars() -> Path:
    """A directory whose `*.jar` are a Kafka server's class path; fetches them if they are nowhere yet.

    Raises BrokerUnavailable if they cannot be fetched or are not the pinned ones.
    """
    home = os.environ.get("SAGA_KAFKA_HOME")
    if home:
        return _check_home(Path(home).expanduser())
    pins = read_pins()
    entry = cache_root() / f"kafka-{VERSION}-{_fingerprint(pins)}"
    if not entry.is_dir():
        _fill(entry, pins)
    elif wrong := find_mismatches(entry, pins):
        raise BrokerUnavailable(f"{_describe(wrong)} in {entry}: not used. Delete that directory, it is fetched again")
    return entry


def cache_root() -> Path:
    """SAGA_CACHE, else `saga-orchestrator` in the user's cache directory."""
    chosen = os.environ.get("SAGA_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "saga-orchestrator"


def read_pins() -> dict[str, str]:
    """Path in a Maven repository → SHA-256 in hex."""
    pins = {}
    for line in PINS.read_text(encoding="ascii").splitlines():
        digest, _, name = line.partition("  ")
        pins[name] = digest
    return pins


def find_mismatches(directory: Path, pins: Mapping[str, str]) -> dict[str, str]:
    """Jar → what is wrong with it in the flat `directory`: `missing`, `not the pinned one` or `unexpected`."""
    wrong = {}
    expected = {Path(path).name: digest for path, digest in pins.items()}
    for name, digest in expected.items():
        try:
            with (directory / name).open("rb") as jar:
                if hashlib.file_digest(jar, "sha256").hexdigest() != digest:
                    wrong[name] = "not the pinned one"
        except FileNotFoundError:
            wrong[name] = "missing"
    wrong.update({jar.name: "unexpected" for jar in directory.glob("*.jar") if jar.name not in expected})
    return wrong


def _fill(entry: Path, pins: Mapping[str, str]) -> None:
    """Fetch into a temporary directory beside `entry`, check, then rename: another process may do the same."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    fetchers: list[Callable[[Path, Mapping[str, str]], None]] = [maven.fetch_by_mvn, maven.fetch_by_jgo]
    for fetch in fetchers:
        draft = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
        try:
            fetch(draft, pins)
            if wrong := find_mismatches(draft, pins):
                # No next link: whoever changed a jar may have changed the mirror that the next one would ask.
                raise BrokerUnavailable(f"{_describe(wrong)} as fetched: not used")
            _publish(draft, entry)
            return
        except maven.FetchFailed as reason:
            reasons.append(str(reason))
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    raise BrokerUnavailable(f"Kafka {VERSION} could not be fetched: {'; '.join(reasons)}")


def _publish(draft: Path, entry: Path) -> None:
    draft.chmod(0o755)  # mkdtemp made it private; a cache may be shared
    try:
        draft.rename(entry)
    except OSError:
        # Another process was first; what it put there passed the same check.
        if not entry.is_dir():
            raise


def _check_home(home: Path) -> Path:
    libs = home / "libs" if (home / "libs").is_dir() else home
    found = [re.match(r"kafka-clients-(\d+)\.(\d+)", jar.name) for jar in libs.glob("kafka-clients-*.jar")]
    versions = [(int(name[1]), int(name[2])) for name in found if name]
    if not versions or not any(libs.glob("kafka_2.*.jar")):
        raise BrokerUnavailable(f"SAGA_KAFKA_HOME={home} holds no Kafka server (expected libs/kafka_2.13-*.jar)")
    if max(versions) < OLDEST:
        version = ".".join(str(part) for part in max(versions))
        raise BrokerUnavailable(f"SAGA_KAFKA_HOME={home} is Kafka {version}; 4.1 or newer is needed")
    return libs


def _fingerprint(pins: Mapping[str, str]) -> str:
    text = "\n".join(f"{digest}  {path}" for path, digest in sorted(pins.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _describe(wrong: Mapping[str, str]) -> str:
    some = ", ".join(f"{name} ({reason})" for name, reason in sorted(wrong.items())[:3])
    return some if len(wrong) <= 3 else f"{some} and {len(wrong) - 3} more"
