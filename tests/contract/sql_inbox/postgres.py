"""A PostgreSQL server of the tests' own, in a folder that goes away with it, on a socket in that folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def find_binaries() -> Path:
    """The folder with initdb and pg_ctl. Raises `RuntimeError`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if found:
        return found[-1]
    there = shutil.which("initdb")
    if there is None:
        raise RuntimeError("no PostgreSQL here: deploy/system-packages installs it")
    return Path(there).parent


@contextmanager
def postgres_server() -> Iterator[str]:
    """Starts a server and yields its connection string; it is stopped by its pid, at once, and its folder removed."""
    binaries = find_binaries()
    folder = Path(tempfile.mkdtemp(prefix="saga-postgres-"))
    data = folder / "data"
    # It refuses to run as root.
    become: list[str] = []
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def run(*command: str) -> None:
        subprocess.run(
            [*become, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd=folder, timeout=50
        )

    try:
        run(
            str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"
        )
        options = f"-k {folder} -c listen_addresses= -c fsync=off -c shared_buffers=16MB -c max_connections=40"
        control = str(binaries / "pg_ctl")
        run(control, "start", "-w", "-D", str(data), "-l", str(folder / "log"), "-o", options)
        try:
            yield f"host={folder} user=postgres dbname=postgres"
        finally:
            run(control, "stop", "-w", "-m", "immediate", "-D", str(data))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
