"""Fetches jars from a Maven repository: by `mvn` where it is on the PATH, else by jgo from Python alone.

Which repository is never said here: mvn reads its own settings, jgo knows Maven's default one, and a mirror is read at
run time from SAGA_MAVEN_REPOSITORY or from Maven's settings.
"""

import os
import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_POM = Path(__file__).with_name("pom.xml")
_TIMEOUT_S = 600  # 50 MB over a slow line
_CONNECTIONS = 8  # jars fetched at a time; they are small and the waiting is for the server


class FetchFailed(Exception):
    """This way of fetching is not there or did not work; the text says why, without the login of an address in it."""

    def __init__(self, text: str) -> None:
        super().__init__(re.sub(r"://[^/@\s]+@", "://", text))


def fetch_by_mvn(directory: Path, pins: Mapping[str, str]) -> None:
    """Copy the run-time dependencies of our pom into the flat `directory`. Raises FetchFailed."""
    mvn = shutil.which("mvn")
    if mvn is None:
        raise FetchFailed("mvn is not on the PATH")
    command = [
        mvn,
        "--batch-mode",
        "--quiet",
        "-Dstyle.color=never",
        "--file",
        str(_POM),
        "dependency:copy-dependencies",
    ]
    command += [f"-DoutputDirectory={directory}", "-DincludeScope=runtime"]
    mirror = os.environ.get("SAGA_MAVEN_REPOSITORY")
    with tempfile.TemporaryDirectory(prefix="saga-maven-") as scratch:
        if mirror:
            settings = Path(scratch) / "settings.xml"
            settings.write_text(_make_settings(mirror), encoding="utf-8")
            command += ["--settings", str(settings)]
        try:
            run = subprocess.run(
                command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FetchFailed(f"mvn: {error}") from error
    if run.returncode != 0:
        raise FetchFailed(f"mvn: {_first_error(run.stdout + run.stderr)}")


def fetch_by_jgo(directory: Path, pins: Mapping[str, str]) -> None:
    """Fetch each pinned jar into the flat `directory`. Raises FetchFailed.

    Nothing is resolved: the list is complete, and asking for some hundred poms takes longer than the jars themselves.
    """
    try:
        from jgo.maven import MavenContext
    except ImportError as error:
        raise FetchFailed("the package jgo is not installed") from error
    with tempfile.TemporaryDirectory(prefix="saga-jars-", dir=directory) as scratch:
        mirror = find_mirror()
        context = MavenContext(repo_cache=Path(scratch), remote_repos={"mirror": mirror} if mirror else None)

        def fetch(path: str) -> None:
            group, artifact, version = split_path(path)
            component = context.project(group, artifact).at_version(version)
            Path(component.artifact().resolve()).rename(directory / Path(path).name)

        try:
            with ThreadPoolExecutor(_CONNECTIONS) as pool:
                for _ in pool.map(fetch, pins):
                    pass
        except Exception as error:  # requests' and jgo's own errors have no common base
            raise FetchFailed(f"jgo: {error}") from error


def split_path(path: str) -> tuple[str, str, str]:
    """`org/slf4j/slf4j-api/1.7.36/slf4j-api-1.7.36.jar` → (`org.slf4j`, `slf4j-api`, `1.7.36`)."""
    *group, artifact, version, _ = path.split("/")
    return ".".join(group), artifact, version


def find_mirror() -> str | None:
    """Address of the repository to ask instead of Maven's default one: SAGA_MAVEN_REPOSITORY, else Maven's settings."""
    chosen = os.environ.get("SAGA_MAVEN_REPOSITORY")
    if chosen:
        return chosen.rstrip("/")
    installations = [os.environ.get(name) for name in ("MAVEN_HOME", "M2_HOME")]
    places = [Path.home() / ".m2"] + [Path(home) / "conf" for home in installations if home] + [Path("/etc/maven")]
    for place in places:
        try:
            mirror = read_mirror((place / "settings.xml").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ElementTree.ParseError):
            continue
        if mirror:
            return mirror
    return None


def read_mirror(settings: str) -> str | None:
    """Address of the first mirror in a settings.xml that stands for Maven's default repository, or None.

    `${env.NAME}` is filled in, a mirror that needs what is not set is passed over; a name and password that `servers`
    holds for it are put into the address. Raises ElementTree.ParseError.
    """
    root = ElementTree.fromstring(settings)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    for mirror in root.iter("mirror"):
        covered = [part.strip() for part in mirror.findtext("mirrorOf", "").split(",")]
        if "!central" in covered or not {"*", "external:*", "central"} & set(covered):
            continue
        address = _fill_in(mirror.findtext("url", "").strip())
        if address is None or not address.startswith(("http://", "https://")):
            continue
        return _with_login(address.rstrip("/"), root, mirror.findtext("id", ""))
    return None


def _with_login(address: str, root: ElementTree.Element, name: str) -> str:
    for server in root.iter("server"):
        if server.findtext("id") != name:
            continue
        user, password = _fill_in(server.findtext("username", "")), _fill_in(server.findtext("password", ""))
        if user and password and not password.startswith("{"):  # in braces: encrypted with a key only Maven has
            scheme, _, rest = address.partition("://")
            return f"{scheme}://{_quote(user)}:{_quote(password)}@{rest}"
    return address


def _fill_in(text: str) -> str | None:
    for name in re.findall(r"\$\{env\.(\w+)\}", text):
        value = os.environ.get(name)
        if value is None:
            return None
        text = text.replace(f"${{env.{name}}}", value)
    return text


def _make_settings(mirror: str) -> str:
    root = ElementTree.Element("settings")
    entry = ElementTree.SubElement(ElementTree.SubElement(root, "mirrors"), "mirror")
    for tag, text in (("id", "saga"), ("mirrorOf", "*"), ("url", mirror)):
        ElementTree.SubElement(entry, tag).text = text
    return ElementTree.tostring(root, encoding="unicode")


def _quote(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _first_error(output: bytes) -> str:
    lines = [line for line in output.decode(errors="replace").splitlines() if "ERROR" in line]
    return lines[0].strip() if lines else "failed without a word"
