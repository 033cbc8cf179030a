"""`saga doctor`: what is there, what is missing, what to do about it."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.application import connection_options, log_of, settings_of
from orchestrator.cli.output import give, json_option
from orchestrator.errors import SagaError

if TYPE_CHECKING:
    from orchestrator.config import Settings

DISTRIBUTION = "saga-orchestrator"
OLDEST_PYTHON = (3, 11)
WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """One line. `state`: ok, note (works without) or wrong; `remedy`: what to do unless it is ok."""

    name: str
    state: str
    found: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        return {"check": self.name, "state": self.state, "found": self.found, "remedy": self.remedy}


@click.command("doctor")
@click.argument("modules", nargs=-1, metavar="[MODULE...]")
@connection_options
@json_option
def doctor_command(modules: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Checks Python, packages, Java, settings, broker and topics, and says what to do.

    Exit code 1 if anything is wrong. With MODULE... also the topics of the services that they define.
    """
    checks: list[Check] = []
    for check in examine(modules, options):
        checks.append(check)
        if not as_json:
            mark = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}[check.state]
            click.echo(f"{mark}  {check.name}: {check.found}")
            if check.remedy:
                click.echo(f"       → {check.remedy}")
    wrong = sum(check.state == "wrong" for check in checks)
    if as_json:
        give({"checks": [check.as_json() for check in checks], "wrong": wrong})
    if wrong:
        raise click.exceptions.Exit(1)


def examine(modules: tuple[str, ...], options: dict[str, Any]) -> Iterator[Check]:
    """Every check in its order; what depends on something that is wrong is left out."""
    yield check_python()
    yield from check_packages()
    settings, problem = _settings(options)
    yield check_java(needed=settings is None)
    if settings is None:
        yield Check("cluster", "wrong", problem)
        return
    yield Check("settings", "ok", _summary(settings))
    yield check_token_keys(settings)
    problem = check_broker(settings)
    if problem:
        remedy = "is it running, and reachable from here? `saga dev` starts one on this machine"
        yield Check("broker", "wrong", f"{settings.bootstrap_servers}: {problem}", remedy)
        return
    yield Check("broker", "ok", f"{settings.bootstrap_servers} answers")
    yield from check_topics(settings, modules)


def check_python() -> Check:
    """This interpreter."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Check("python", "wrong", found, f"use Python {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    return Check("python", "ok", found)


def check_packages() -> Iterator[Check]:
    """This package and those it depends on, against what it asks for."""
    try:
        own, required = metadata.version(DISTRIBUTION), metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Check(DISTRIBUTION, "wrong", "not installed", f"pip install {DISTRIBUTION}")
        return
    yield Check(DISTRIBUTION, "ok", own)
    good = []
    for requirement in required:
        match = re.match(r"([A-Za-z0-9._-]+)(?:>=([0-9.]+))?", requirement)
        if match is None or "extra ==" in requirement:
            continue
        name, least = match.groups()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Check(name, "wrong", "not installed", f"pip install '{requirement}'")
            continue
        if least and _numbers(version) < _numbers(least):
            yield Check(name, "wrong", version, f"pip install --upgrade '{requirement}'")
        else:
            good.append(f"{name} {version}")
    yield Check("packages", "ok", ", ".join(sorted(good)))


def check_token_keys(settings: Settings) -> Check:
    """What workers sign commands with."""
    try:
        settings.token_keys()
    except SagaError as error:
        return Check("reply token keys", "note", str(error), "only workers need them")
    return Check("reply token keys", "ok", ", ".join(settings.reply_token_keys) or "the one for development")


def check_java(*, needed: bool) -> Check:
    """Java for a broker on this machine. Where a cluster is known, nothing here needs it."""
    from orchestrator.broker.java import find_java, read_release
    from orchestrator.errors import BrokerUnavailable

    try:
        java = find_java()
    except BrokerUnavailable as error:
        remedy = f"for `saga dev`: pip install '{DISTRIBUTION}[broker]', or set SAGA_JAVA"
        return Check("java", "wrong" if needed else "note", str(error), remedy)
    return Check("java", "ok", f"Java {read_release(java)} at {java}")


def check_broker(settings: Settings) -> str:
    """What is wrong with the way to the cluster; empty if nothing is."""
    from orchestrator.log.base import AdminFailed

    try:
        with closing(log_of(settings).admin()) as admin:
            admin.describe([settings.topic_names.inbox], WITHIN_S)
    except (AdminFailed, SagaError) as error:
        return str(error)
    return ""


def check_topics(settings: Settings, modules: tuple[str, ...]) -> Iterator[Check]:
    """Every topic that differs from the plan."""
    from orchestrator.cli.topics import services_in
    from orchestrator.log.base import AdminFailed
    from orchestrator.provisioning import check, plan

    names = settings.topic_names
    try:
        specs = plan(
            names,
            partitions=settings.partitions,
            replication=settings.replication,
            services=services_in(modules),
        )
        with closing(log_of(settings).admin()) as admin:
            findings = check(admin, names, specs)
    except (AdminFailed, SagaError) as error:
        yield Check("topics", "wrong", str(error), "grant Describe and DescribeConfigs on them")
        return
    for finding in findings:
        yield Check(finding.topic, "wrong" if finding.severe else "note", finding.problem, finding.remedy)
    if not findings:
        yield Check("topics", "ok", f"{len(specs)} as planned, {settings.partitions} partitions")


def _settings(options: dict[str, Any]) -> tuple[Settings | None, str]:
    try:
        return settings_of(options), ""
    except SagaError as error:
        return None, str(error)


def _summary(settings: Settings) -> str:
    kind = "development" if settings.development else "production"
    prefix = f"prefix {settings.prefix}" if settings.prefix else "no prefix"
    return f"{kind}, {prefix}, state in {settings.state_directory}"


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]
