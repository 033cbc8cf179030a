"""Java's archive of loaded classes: written once by a broker that starts and stops, it halves all later starts.

Optional, and kept beside the jars in the cache: 50 to 70 MB, 7 to 12 s to write. Java itself passes over an archive
that does not fit its build or class path, so one that is there can always be given.
"""

import hashlib
import os
from pathlib import Path

from orchestrator.broker.jars import cache_root
from orchestrator.broker.java import read_release

_AHEAD_OF_TIME = 25  # from this release on one option makes a cache that holds linked classes and profiles too


def archive_options(java: Path, jars: Path) -> list[str]:
    """Options that use the archive for this Java and these jars; none if there is no archive."""
    archive = archive_path(java, jars)
    if not archive.is_file():
        return []
    use = "AOTCache" if archive.suffix == ".aot" else "SharedArchiveFile"
    return [f"-XX:{use}={archive}"]


def recording_options(java: Path, output: Path) -> list[str]:
    """Options that write an archive to `output` when the program ends in order."""
    make = "AOTCacheOutput" if read_release(java) >= _AHEAD_OF_TIME else "ArchiveClassesAtExit"
    return [f"-XX:{make}={output}"]


def archive_path(java: Path, jars: Path) -> Path:
    """Where the archive for this Java and these jars is or would be."""
    real = java.resolve()
    try:
        build = (real.parent.parent / "release").read_bytes()
    except OSError:
        build = b""
    key = hashlib.sha256(b"\0".join([os.fsencode(real), build, os.fsencode(jars)])).hexdigest()[:12]
    suffix = "aot" if read_release(java) >= _AHEAD_OF_TIME else "jsa"
    return cache_root() / f"classes-{key}.{suffix}"
